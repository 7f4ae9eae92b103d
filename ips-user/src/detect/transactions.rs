//! Rules about what applications say: asked of each transaction when something of it has come, in
//! the direction in which that goes.
//!
//! Of each rule one content selects it, as elsewhere: the buffer that it stands in is searched when
//! it is there. What was selected stays with the transaction until it has matched, which it does
//! once, or cannot match any more.

use std::collections::HashMap;

use super::RuleIndex;
use super::conditions::Test;
use super::engine::{Engine, Scratch};
use super::group::{self, Scan};
use super::inspect::{Matched, Searched, Speech};
use super::lower::Signature;
use super::matching::transform::{self, Step};
use super::prefilter::{Literal, PrefilterError};
use super::report::Counts;
use super::view::Class;
use crate::app::{AppProtocol, Part, Transaction};
use crate::bounded::held;
use crate::decode::protocol;
use crate::flow::PacketDirection;
use crate::rules::ast::{AppBuffer, Buffer, Transform};

/// Most buffers of one name that are looked at in a transaction.
pub(super) const MAX_BUFFERS: usize = 512;

/// What rules remember of one direction of a transaction.
#[derive(Debug, Default)]
pub struct RuleMarks {
    /// Which rules these are.
    epoch: u32,
    /// Rules that need no search are among the selected ones.
    begun: bool,
    /// What was searched; ascending by its place.
    searched: Vec<SearchedBytes>,
    /// Rules that are selected and have neither matched nor failed; ascending.
    pending: Vec<RuleIndex>,
    /// Those that have matched; ascending.
    matched: Vec<RuleIndex>,
    /// Those that have found in the payload what they ask for there.
    in_payload: Vec<RuleIndex>,
}

impl RuleMarks {
    /// Bytes that they take besides their place in the transaction.
    pub fn taken(&self) -> usize {
        held(&self.searched) + held(&self.pending) + held(&self.matched) + held(&self.in_payload)
    }

    /// Where a place stands, or should, among those that were searched; and how it was.
    fn at(&self, place: (u32, usize)) -> (usize, Option<SearchedBytes>) {
        match self.searched.binary_search_by_key(&place, |it| it.place) {
            Ok(at) => (at, Some(self.searched[at])),
            Err(at) => (at, None),
        }
    }

    /// Those of other rules are forgotten.
    fn is_of(&mut self, epoch: u32) {
        if self.epoch != epoch {
            *self = Self {
                epoch,
                ..Self::default()
            };
        }
    }
}

/// Bytes of a buffer that were searched.
#[derive(Clone, Copy, Debug)]
struct SearchedBytes {
    /// Number of the search and of the buffer.
    place: (u32, usize),
    /// Which bytes these were.
    revision: u32,
    /// So many of them stay where they are, whatever is added.
    stay: usize,
}

/// What a flow's application says, as rules are shown it.
#[derive(Debug)]
pub struct AppView<'a> {
    /// The transactions in hand.
    pub transactions: &'a mut [Transaction],
    /// Counts the rule sets: after a change all rules are asked again.
    pub epoch: u32,
}

/// What selects a rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) buffer: AppBuffer,
    pub(super) transforms: Vec<Transform>,
}

/// Literals of one buffer, after its transforms.
#[derive(Clone, Debug)]
struct AppScan {
    buffer: AppBuffer,
    transforms: Box<[Step]>,
    scan: Scan,
    /// Bytes of the longest literal.
    longest: usize,
}

/// Groups by class, direction and protocol.
pub(super) type AppGroups = [[Vec<AppGroup>; 2]; 2];

/// The rules of a transport, direction and protocol.
#[derive(Clone, Debug, Default)]
pub(super) struct AppGroup {
    scans: Vec<AppScan>,
    always: Vec<RuleIndex>,
}

impl AppGroup {
    /// What searches, for whoever prepares memory for it.
    pub(super) fn scans(&self) -> impl Iterator<Item = &Scan> {
        self.scans.iter().map(|it| &it.scan)
    }
}

/// A rule to be put into groups.
pub(super) struct Selected<'a> {
    pub(super) index: RuleIndex,
    pub(super) signature: &'a Signature,
    /// Where it is looked for, the steps of the transforms there, and the literal; `None` when it is
    /// asked of every transaction.
    pub(super) by: Option<(&'a Place, &'a [Step], &'a Literal)>,
}

/// What is looked for in a place.
struct Wanted<'a> {
    steps: &'a [Step],
    literals: Vec<(&'a Literal, RuleIndex)>,
}

/// Makes the groups.
pub(super) fn groups(
    rules: &[Selected<'_>],
    mut scan: impl FnMut(&[(&Literal, RuleIndex)]) -> Result<Scan, PrefilterError>,
) -> Result<AppGroups, PrefilterError> {
    let mut groups: AppGroups = Default::default();
    for (class, directions) in CLASSES.into_iter().zip(&mut groups) {
        for (to_server, of_protocols) in [true, false].into_iter().zip(directions) {
            for protocol in AppProtocol::ALL {
                let wanted = rules.iter().filter(|rule| {
                    fits(rule.signature, class, to_server) && concerns(rule.signature, *protocol)
                });
                of_protocols.push(match protocol.transports().contains(&transport(class)) {
                    true => group(wanted, &mut scan)?,
                    false => AppGroup::default(),
                });
            }
        }
    }
    Ok(groups)
}

/// Whether a rule can match in a direction of this transport.
fn fits(signature: &Signature, class: Class, to_server: bool) -> bool {
    let wanted = signature.to_server.or(direction_of(signature));
    let wanted = wanted.filter(|_| !signature.is_about_both());
    wanted.is_none_or(|wanted| wanted == to_server)
        && group::is_about(signature.rule.protocol, class)
}

/// Whether a rule can match transactions of this protocol.
fn concerns(signature: &Signature, protocol: AppProtocol) -> bool {
    let speaks = signature.tests.iter().all(|test| match test {
        Test::Speaks(any) => any.contains(&protocol),
        _ => true,
    });
    let mut buffers = signature.sections.iter().filter_map(|it| match it.buffer {
        Buffer::App(buffer) => Some(buffer.protocol()),
        _ => None,
    });
    speaks && buffers.all(|name| name == "any" || protocol.is_named(name))
}

fn group<'a>(
    rules: impl Iterator<Item = &'a Selected<'a>>,
    scan: &mut impl FnMut(&[(&Literal, RuleIndex)]) -> Result<Scan, PrefilterError>,
) -> Result<AppGroup, PrefilterError> {
    let mut group = AppGroup::default();
    let mut literals: HashMap<&Place, Wanted<'_>> = HashMap::new();
    for rule in rules {
        match rule.by {
            Some((place, steps, literal)) => {
                let wanted = literals.entry(place).or_insert(Wanted {
                    steps,
                    literals: Vec::new(),
                });
                wanted.literals.push((literal, rule.index));
            }
            None => group.always.push(rule.index),
        }
    }
    let mut places: Vec<_> = literals.into_iter().collect();
    places.sort_by_key(|(place, wanted)| (place.buffer, wanted.literals.first().map(|it| it.1)));
    for (place, wanted) in places {
        let lengths = wanted
            .literals
            .iter()
            .map(|(literal, _)| literal.bytes.len());
        group.scans.push(AppScan {
            buffer: place.buffer,
            transforms: wanted.steps.into(),
            longest: lengths.max().unwrap_or_default(),
            scan: scan(&wanted.literals)?,
        });
    }
    Ok(group)
}

/// Those that carry application protocols.
const CLASSES: [Class; 2] = [Class::Tcp, Class::Udp];

const fn transport(class: Class) -> u8 {
    match class {
        Class::Udp => protocol::UDP,
        _ => protocol::TCP,
    }
}

/// The direction that a rule's buffers are of, if that is one.
fn direction_of(signature: &Signature) -> Option<bool> {
    let mut buffers = signature.sections.iter().filter_map(|it| match it.buffer {
        Buffer::App(buffer) => buffer.to_server(),
        _ => None,
    });
    buffers.next()
}

impl Engine {
    fn app_groups(&self, class: Class, direction: PacketDirection) -> Option<&[AppGroup]> {
        let class = CLASSES.iter().position(|it| *it == class)?;
        Some(&self.app[class][direction.number()])
    }

    /// Asks the rules about what has come of the transactions.
    pub(super) fn transactions(
        &self,
        class: Class,
        app: &mut AppView<'_>,
        searched: &Searched<'_>,
        scene: &mut super::conditions::Scene<'_, '_>,
        scratch: &mut Scratch,
        counts: &mut Counts,
    ) {
        let Some(flow) = &scene.flow else { return };
        let direction = flow.direction;
        // Rules about established connections can match what has come as soon as it is one.
        let comes_again = class == Class::Tcp && !flow.established;
        let Some(groups) = self.app_groups(class, direction) else {
            return;
        };
        for (number, transaction) in app.transactions.iter_mut().enumerate() {
            let Some(group) = groups.get(transaction.protocol() as usize) else {
                continue;
            };
            let way = transaction.way_mut(direction);
            if !way.changed {
                continue;
            }
            if scratch.budget.is_spent() {
                // It is asked with the next packet.
                counts.out_of_time = true;
                break;
            }
            way.changed = false;
            let mut marks = std::mem::take(&mut way.marks);
            marks.is_of(app.epoch);
            let speech = Speech {
                transaction,
                direction,
                payload_matched: false,
            };
            if !std::mem::replace(&mut marks.begun, true) {
                marks.pending.extend_from_slice(&group.always);
            }
            let mut in_time = self.search(group, speech, &mut marks, scratch, counts);
            marks.pending.sort_unstable();
            marks.pending.dedup();
            let searched = Searched {
                speech: Some(speech),
                ..*searched
            };
            let mut pending = std::mem::take(&mut marks.pending);
            // Of rules about both directions the other one has to know.
            let (mut to_other, mut of_both) = (Vec::new(), Vec::new());
            let mut store = Vec::new();
            pending.retain(|&index| {
                if scratch.budget.is_spent() {
                    in_time = false;
                    return true;
                }
                if marks.matched.binary_search(&index).is_ok() {
                    return false;
                }
                let signature = &self.signatures[index.0 as usize];
                let is_about_both = signature.is_about_both();
                let searched = Searched {
                    speech: Some(Speech {
                        payload_matched: marks.in_payload.contains(&index),
                        ..speech
                    }),
                    ..searched
                };
                let found = self.ask(index, &searched, scene, scratch);
                if found == Matched::Wait
                    && signature.is_also_about_payload()
                    && !marks.in_payload.contains(&index)
                    && self.payload_matches(signature, &searched, scene, scratch)
                {
                    marks.in_payload.push(index);
                }
                match found {
                    Matched::Yes | Matched::InStream => {
                        if let Err(at) = marks.matched.binary_search(&index) {
                            marks.matched.insert(at, index);
                        }
                        if is_about_both {
                            of_both.push(index);
                        }
                        if self.signatures[index.0 as usize].stores.is_some() {
                            store.push(index);
                        }
                        self.matched(index, (true, Some(number)), scene, scratch, counts);
                        false
                    }
                    Matched::No => false,
                    Matched::Wait => {
                        if is_about_both {
                            to_other.push(index);
                        }
                        true
                    }
                    Matched::GaveUp => {
                        counts.given_up += 1;
                        false
                    }
                }
            });
            marks.pending = pending;
            counts.out_of_time |= !in_time;
            let changed = !in_time || comes_again && !marks.pending.is_empty();
            transaction.asked(direction, marks, changed);
            for index in store {
                self.store(index, transaction, direction);
            }
            let other = &mut transaction.way_mut(direction.other()).marks;
            if !(to_other.is_empty() && of_both.is_empty()) {
                other.is_of(app.epoch);
                add(&mut other.pending, &mut to_other);
                add(&mut other.matched, &mut of_both);
            }
        }
    }

    /// Has files stored that a rule wants to be.
    fn store(&self, index: RuleIndex, transaction: &mut Transaction, direction: PacketDirection) {
        let signature = &self.signatures[index.0 as usize];
        let Some(store) = signature.stores else {
            return;
        };
        for of in PacketDirection::ALL {
            let wanted = match store.directions {
                Some(directions) => directions[of.number()],
                None => of == direction,
            };
            if wanted {
                transaction.store_files(of, store.scope, |file| signature.means(file));
            }
        }
    }

    /// Adds the rules that what has come selects; false if there was no time for all.
    fn search(
        &self,
        group: &AppGroup,
        speech: Speech<'_>,
        marks: &mut RuleMarks,
        scratch: &mut Scratch,
        counts: &mut Counts,
    ) -> bool {
        for (number, scan) in (0..).zip(&group.scans) {
            for which in 0.. {
                let part = speech.part(scan.buffer, which);
                let Part::Bytes {
                    data,
                    complete,
                    revision,
                } = part
                else {
                    break;
                };
                if which == MAX_BUFFERS {
                    counts.given_up += 1;
                    break;
                }
                let now = SearchedBytes {
                    place: (number, which),
                    revision,
                    stay: if complete { 0 } else { data.len() },
                };
                let (at, before) = marks.at(now.place);
                if before.is_none_or(|before| before.revision != revision) {
                    let stay = before.map_or(0, |before| before.stay);
                    let found = self.search_one(scan, (data, stay), &mut marks.pending, scratch);
                    if !found && scratch.budget.is_spent() {
                        return false;
                    }
                    counts.given_up += u32::from(!found);
                    match before {
                        Some(_) => marks.searched[at] = now,
                        None => marks.searched.insert(at, now),
                    }
                }
                if !scan.buffer.is_multiple() {
                    break;
                }
            }
        }
        true
    }

    /// Whether that could be done. The first bytes up to `stay` were searched before.
    fn search_one(
        &self,
        scan: &AppScan,
        (data, stay): (&[u8], usize),
        out: &mut Vec<RuleIndex>,
        scratch: &mut Scratch,
    ) -> bool {
        let mut transformed = std::mem::take(&mut scratch.transformed);
        // Something may have begun in them.
        let from = stay.saturating_sub(scan.longest.saturating_sub(1));
        let mut bytes = data.get(from..).unwrap_or(data);
        let mut done = true;
        if !scan.transforms.is_empty() {
            transformed.clear();
            transformed.extend_from_slice(data);
            let outcome = transform::apply(
                &scan.transforms,
                &self.patterns,
                &mut scratch.patterns,
                &mut transformed,
                &mut scratch.spare,
                &mut scratch.budget,
            );
            bytes = &transformed;
            if let Err(outcome) = outcome {
                bytes = &[];
                done = outcome != super::matching::Outcome::GaveUp;
            }
        }
        scan.scan
            .search(bytes, &mut scratch.working, &mut scratch.seen, out);
        scratch.transformed = transformed;
        done
    }
}

/// Adds rules to ascending ones; those that are there already are not there twice.
fn add(to: &mut Vec<RuleIndex>, more: &mut Vec<RuleIndex>) {
    to.append(more);
    to.sort_unstable();
    to.dedup();
}
