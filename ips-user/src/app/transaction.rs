//! What a conversation consists of: requests with their answers, or messages that stand alone.

use std::any::Any;
use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

use super::content::{Asked, Content, Part};
use super::file::File;
use super::protocol::AppProtocol;
use crate::bounded::held;
use crate::detect::RuleMarks;
use crate::flow::PacketDirection;
use crate::rules::ast::AppBuffer;

/// How much is stored when a rule with `filestore` matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum StoreScope {
    /// The file that has matched.
    #[default]
    File,
    /// Every file of the transaction.
    Transaction,
    /// Every file of the flow from there on.
    Flow,
}

/// Which files of a direction are to be stored.
#[derive(Debug, Default)]
struct Stores {
    scope: StoreScope,
    /// Their numbers.
    files: Vec<usize>,
}

/// One direction of a transaction.
#[derive(Debug, Default)]
pub struct Way {
    /// There will be no more of it.
    pub complete: bool,
    /// Something has come since the rules were asked last.
    pub changed: bool,
    /// What rules remember of it.
    pub marks: RuleMarks,
}

/// A request with its answer, or a message.
#[derive(Debug)]
pub struct Transaction {
    /// Its number in the flow, from zero on.
    pub id: u64,
    content: Box<dyn Content>,
    /// What is wrong with it, by the names of `app-layer-event`.
    pub events: Vec<&'static str>,
    /// Its own records are written.
    pub recorded: bool,
    ways: [Way; 2],
    /// Bytes that it took when it was weighed last.
    weight: usize,
    stores: [Stores; 2],
}

impl Transaction {
    /// One of which nothing has come yet.
    pub fn new(id: u64, content: impl Content) -> Self {
        Self {
            id,
            content: Box::new(content),
            events: Vec::new(),
            recorded: false,
            ways: Default::default(),
            weight: 0,
            stores: Default::default(),
        }
    }

    /// What it is made of, if that is of this kind.
    pub fn content<T: Content>(&self) -> Option<&T> {
        (&*self.content as &dyn Any).downcast_ref()
    }

    /// The same, to be changed.
    pub fn content_mut<T: Content>(&mut self) -> Option<&mut T> {
        (&mut *self.content as &mut dyn Any).downcast_mut()
    }

    /// Bytes that it takes besides its place.
    pub(super) fn weigh(&mut self) -> usize {
        // What has not changed weighs what it did.
        if self.weight == 0 || self.ways.iter().any(|way| way.changed) {
            let marks = self.ways.iter().map(|way| way.marks.taken());
            let stores = self.stores.iter().map(|it| held(&it.files));
            let own = self.content.taken() + held(&self.events);
            self.weight = own + marks.sum::<usize>() + stores.sum::<usize>();
        }
        self.weight
    }

    /// Which protocol it is of.
    pub fn protocol(&self) -> AppProtocol {
        self.content.protocol()
    }

    /// One direction of it.
    pub fn way(&self, direction: PacketDirection) -> &Way {
        &self.ways[direction.number()]
    }

    /// The same, to be changed.
    pub fn way_mut(&mut self, direction: PacketDirection) -> &mut Way {
        &mut self.ways[direction.number()]
    }

    /// Rules were asked about a direction, and remember this; `changed` if about something of it
    /// they still are to be.
    pub fn asked(&mut self, direction: PacketDirection, marks: RuleMarks, changed: bool) {
        let way = self.way_mut(direction);
        (way.marks, way.changed) = (marks, changed);
        // It is weighed anew.
        self.weight = 0;
    }

    /// Something of this direction has come; `complete` if that is all.
    pub fn came(&mut self, direction: PacketDirection, complete: bool) {
        let way = self.way_mut(direction);
        way.changed = true;
        way.complete |= complete;
    }

    /// Nothing more comes of a direction, whether it is complete or not.
    pub fn finish(&mut self, direction: PacketDirection) {
        if self.way(direction).complete {
            return;
        }
        self.content.finish(direction);
        self.came(direction, true);
    }

    /// Whether nothing will be added.
    pub fn is_complete(&self) -> bool {
        self.ways.iter().all(|way| way.complete)
    }

    /// Whether nothing will be added, and rules have seen it all.
    pub fn is_over(&self) -> bool {
        self.ways.iter().all(|way| way.complete && !way.changed)
    }

    /// A buffer as it is in packets of this direction; of one that can exist several times the one
    /// of this number.
    pub fn part(&self, direction: PacketDirection, which: AppBuffer, number: usize) -> Part<'_> {
        let part = self.content.part(direction, which, number);
        match part {
            // Of what nothing more comes nothing is missing.
            Part::Pending if self.way(direction).complete => Part::Absent,
            part => part,
        }
    }

    /// What its own records show of it, one for each; `version` is that of their format.
    pub fn records(&self, version: u8) -> Vec<Value> {
        self.content.records(self.id, version)
    }

    /// What records show of it: the object under the name of the protocol.
    pub fn fields(&self) -> Value {
        self.content.fields(self.id)
    }

    /// Another object that records show of it, and its name.
    pub fn further_fields(&self) -> Option<(&'static str, Value)> {
        self.content.further_fields()
    }

    /// In which direction its record shows the ends of the flow; that of the packet if `None`.
    /// `version` is as in [`Self::records`].
    pub fn record_direction(&self, version: u8) -> Option<PacketDirection> {
        self.content.record_direction(version)
    }

    /// The files that this direction of it has carried.
    pub fn files(&self, direction: PacketDirection) -> Vec<File> {
        self.content.files(direction)
    }

    /// What is kept of the file with this number among [`Self::files`].
    pub fn file_content(&self, direction: PacketDirection, number: usize) -> Option<&[u8]> {
        self.content.file_content(direction, number)
    }

    /// Has files of a direction stored when they are complete: those that `chosen` picks, or all.
    pub fn store_files(
        &mut self,
        direction: PacketDirection,
        scope: StoreScope,
        chosen: impl Fn(&File) -> bool,
    ) {
        if scope == StoreScope::File {
            for (number, file) in self.files(direction).iter().enumerate() {
                let stored = &mut self.stores[direction.number()].files;
                if chosen(file) && !stored.contains(&number) {
                    stored.push(number);
                    // It is weighed anew.
                    self.weight = 0;
                }
            }
        } else {
            let stores = &mut self.stores[direction.number()];
            stores.scope = stores.scope.max(scope);
        }
    }

    /// Whether the file with this number is to be stored.
    pub fn stores(&self, direction: PacketDirection, number: usize) -> bool {
        let stores = &self.stores[direction.number()];
        stores.scope > StoreScope::File || stores.files.contains(&number)
    }

    /// Whether all files of the flow in this direction are to be stored.
    pub fn stores_of_flow(&self, direction: PacketDirection) -> bool {
        self.stores[direction.number()].scope == StoreScope::Flow
    }

    /// The address that a proxy names in this header: the last one, or the first.
    pub fn forwarded(&self, header: &str, last: bool) -> Option<IpAddr> {
        let value = std::str::from_utf8(self.content.request_header(header)?).ok()?;
        let named = match last {
            true => value.rsplit(',').next(),
            false => value.split(',').next(),
        }?;
        let named = named.trim();
        let with_port = || named.parse::<SocketAddr>().ok().map(|it| it.ip());
        named.parse().ok().or_else(with_port)
    }

    /// Whether it is so of any file; more of them may come.
    fn answers_of_files(&self, direction: PacketDirection, asked: &Asked) -> Option<bool> {
        let mut pending = !self.way(direction).complete;
        for file in self.files(direction) {
            match file.answers(asked) {
                Some(true) => return Some(true),
                Some(false) => {}
                None => pending = true,
            }
        }
        (!pending).then_some(false)
    }

    /// Whether something holds for it; `None` while that is not known.
    pub fn answers(&self, direction: PacketDirection, asked: &Asked) -> Option<bool> {
        match asked {
            Asked::Event(name) => Some(self.events.contains(name)),
            asked if asked.is_of_file() => self.answers_of_files(direction, asked),
            Asked::Toward(toward, asked) => self.answers(*toward, asked),
            asked => self.content.answers(direction, asked),
        }
    }
}
