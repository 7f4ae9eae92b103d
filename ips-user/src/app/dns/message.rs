//! One message (RFC 1035, section 4): header, questions, records.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::Value;

use super::{HEADER, record};
use crate::app::content::{Asked, Content, Part};
use crate::app::protocol::AppProtocol;
use crate::bounded::{heap, held};
use crate::flow::PacketDirection;
use crate::rules::ast::{AppBuffer, Compare};

/// Most bytes of a name that are kept; RFC 1035 allows 255.
const MAX_NAME: usize = 1025;
/// Most labels of a name.
const MAX_LABELS: usize = 255;
/// Most records of a message; one that has more, or whose names become longer together, is not read
/// to its end. Each takes eleven bytes at least.
const MAX_RECORDS: usize = 4096;
/// Most bytes of all names and texts of a message: what names point to (RFC 1035, section 4.1.4)
/// makes many long ones out of few bytes.
const MAX_EXPANDED: usize = 256 << 10;

/// A name, its labels joined by dots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Name {
    /// Without the dot of the root.
    pub bytes: Vec<u8>,
    /// Whether it was longer.
    pub truncated: bool,
}

/// What is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// About this name.
    pub name: Name,
    /// Type of the records wanted.
    pub kind: u16,
    /// Their class.
    pub class: u16,
}

/// A resource record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// About this name.
    pub name: Name,
    /// Its type.
    pub kind: u16,
    /// Its class.
    pub class: u16,
    /// Seconds for which it may be kept.
    pub ttl: u32,
    /// What it says.
    pub data: Rdata,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rdata {
    /// A
    V4(Ipv4Addr),
    /// AAAA
    V6(Ipv6Addr),
    /// CNAME, NS, PTR and the name of MX.
    Name(Name),
    /// TXT: its strings.
    Texts(Vec<Vec<u8>>),
    /// SOA
    Soa(Box<Soa>),
    /// SRV
    Srv {
        /// Lower ones first.
        priority: u16,
        /// Among equal ones.
        weight: u16,
        /// Of the service.
        port: u16,
        /// Where it is.
        target: Name,
    },
    /// SSHFP
    KeyPrint {
        /// Of the key.
        algorithm: u8,
        /// Of the fingerprint.
        kind: u8,
        /// The fingerprint.
        print: Vec<u8>,
    },
    /// Of other types.
    Other(Vec<u8>),
}

/// RFC 1035, section 3.3.13.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Soa {
    /// The primary server.
    pub server: Name,
    /// Whom to write to.
    pub mailbox: Name,
    /// Serial number, and seconds: refresh, retry, expire, minimum.
    pub numbers: [u32; 5],
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Which way it goes.
    direction: PacketDirection,
    /// Of question and answer the same.
    pub id: u16,
    /// The second word of the header.
    pub flags: u16,
    /// What is asked.
    pub questions: Vec<Question>,
    /// The answers.
    pub answers: Vec<Record>,
    /// Who is responsible.
    pub authorities: Vec<Record>,
    /// What else may be useful.
    pub additionals: Vec<Record>,
    /// Of EDNS (RFC 6891): the upper bits of the response code.
    extended: u8,
    /// It was not read to its end because it becomes too long.
    pub(super) limited: bool,
}

/// Types of records (IANA).
pub(crate) mod kind {
    pub(crate) const A: u16 = 1;
    pub(crate) const NS: u16 = 2;
    pub(crate) const CNAME: u16 = 5;
    pub(crate) const SOA: u16 = 6;
    pub(crate) const PTR: u16 = 12;
    pub(crate) const MX: u16 = 15;
    pub(crate) const TXT: u16 = 16;
    pub(crate) const AAAA: u16 = 28;
    pub(crate) const SRV: u16 = 33;
    pub(crate) const OPT: u16 = 41;
    pub(crate) const SSHFP: u16 = 44;
}

/// Events, by the names that rules have for them.
pub(super) mod event {
    pub(super) const MALFORMED: &str = "malformed_data";
    pub(super) const AUTHORITIES: &str = "invalid_authorities";
    pub(super) const ADDITIONALS: &str = "invalid_additionals";
    pub(super) const NOT_REQUEST: &str = "not_request";
    pub(super) const NOT_RESPONSE: &str = "not_response";
    pub(super) const Z: &str = "z_flag_set";
    pub(super) const OPCODE: &str = "invalid_opcode";
    pub(super) const NAME_TOO_LONG: &str = "name_too_long";
    pub(super) const INFINITE_LOOP: &str = "infinite_loop";
    pub(super) const TOO_MANY_LABELS: &str = "too_many_labels";
}

/// All of them.
pub(in crate::app) const EVENTS: [&str; 10] = [
    event::MALFORMED,
    event::AUTHORITIES,
    event::ADDITIONALS,
    event::NOT_REQUEST,
    event::NOT_RESPONSE,
    event::Z,
    event::OPCODE,
    event::NAME_TOO_LONG,
    event::INFINITE_LOOP,
    event::TOO_MANY_LABELS,
];

impl Message {
    /// Takes a message apart; what cannot be read ends it. `None` when there is no header.
    pub(super) fn parse(
        direction: PacketDirection,
        bytes: &[u8],
    ) -> Option<(Self, Vec<&'static str>)> {
        let mut reader = Reader {
            message: bytes,
            at: 0,
            expanded: 0,
            records: 0,
            events: Vec::new(),
        };
        let [id, flags, questions, answers, authorities, additionals] = reader.words::<6>()?;
        let mut message = Self {
            direction,
            id,
            flags,
            questions: Vec::new(),
            answers: Vec::new(),
            authorities: Vec::new(),
            additionals: Vec::new(),
            extended: 0,
            limited: false,
        };
        match (message.is_response(), direction) {
            (false, PacketDirection::ToClient) => reader.event(event::NOT_RESPONSE),
            (true, PacketDirection::ToServer) => reader.event(event::NOT_REQUEST),
            _ => {}
        }
        if flags & 0x0040 != 0 {
            reader.event(event::Z);
        }
        if message.opcode() > 6 {
            reader.event(event::OPCODE);
        }
        let whole = message.read(&mut reader, questions, [answers, authorities, additionals]);
        if whole.is_none() {
            reader.event(event::MALFORMED);
        }
        message.limited = reader.expanded > MAX_EXPANDED || reader.records > MAX_RECORDS;
        Some((message, reader.events))
    }

    fn read(&mut self, reader: &mut Reader<'_>, questions: u16, records: [u16; 3]) -> Option<()> {
        for _ in 0..questions {
            let name = reader.name()?;
            let [kind, class] = reader.words()?;
            self.questions.push(Question { name, kind, class });
        }
        let lists = [
            &mut self.answers,
            &mut self.authorities,
            &mut self.additionals,
        ];
        let wrong = [None, Some(event::AUTHORITIES), Some(event::ADDITIONALS)];
        for ((list, count), wrong) in lists.into_iter().zip(records).zip(wrong) {
            for _ in 0..count {
                let Some(record) = reader.record() else {
                    wrong.into_iter().for_each(|name| reader.event(name));
                    return None;
                };
                if record.kind == kind::OPT {
                    self.extended = (record.ttl >> 24) as u8;
                }
                list.push(record);
            }
        }
        Some(())
    }

    /// Whether it says that it is a response.
    pub fn is_response(&self) -> bool {
        self.flags & 0x8000 != 0
    }

    /// What kind of request.
    pub fn opcode(&self) -> u8 {
        ((self.flags >> 11) & 0xf) as u8
    }

    /// How it went, with the bits of EDNS.
    pub fn rcode(&self) -> u16 {
        u16::from(self.extended) << 4 | self.flags & 0xf
    }

    /// Whether it can be inspected as a request, whatever it says of itself.
    fn goes(&self, to_server: bool) -> bool {
        (self.direction == PacketDirection::ToServer) == to_server
    }

    /// Every name of a response: of questions, of records, and in what records say.
    fn names(&self) -> impl Iterator<Item = &Name> {
        let questions = self.questions.iter().map(|it| &it.name);
        questions.chain(self.records().flat_map(|record| {
            let said = match &record.data {
                Rdata::Name(name) => Some(name),
                Rdata::Soa(soa) => Some(&soa.server),
                Rdata::Srv { target, .. } => Some(target),
                _ => None,
            };
            [Some(&record.name), said].into_iter().flatten()
        }))
    }

    fn records(&self) -> impl Iterator<Item = &Record> {
        [&self.answers, &self.authorities, &self.additionals]
            .into_iter()
            .flatten()
    }
}

/// Where the first question of a message ends; `None` when there is none, or its name is not one
/// of letters.
pub(super) fn question_ends(message: &[u8]) -> Option<usize> {
    let mut at = HEADER;
    loop {
        let length = usize::from(*message.get(at)?);
        if length == 0 {
            let class = message.get(at + 3..at + 5)?;
            let class = u16::from_be_bytes([class[0], class[1]]);
            return matches!(class & 0x7fff, 1..=4 | 254 | 255).then_some(at + 5);
        }
        let label = message
            .get(at + 1..at + 1 + length)
            .filter(|_| length < 64)?;
        if !label.iter().all(u8::is_ascii_graphic) {
            return None;
        }
        at += 1 + length;
    }
}

/// Reads a message from its header on.
struct Reader<'a> {
    message: &'a [u8],
    at: usize,
    /// Bytes of names and texts so far.
    expanded: usize,
    records: usize,
    events: Vec<&'static str>,
}

impl<'a> Reader<'a> {
    fn event(&mut self, name: &'static str) {
        if !self.events.contains(&name) {
            self.events.push(name);
        }
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let taken = self.message.get(self.at..self.at.checked_add(len)?)?;
        self.at += len;
        Some(taken)
    }

    fn words<const N: usize>(&mut self) -> Option<[u16; N]> {
        let mut words = [0; N];
        for word in &mut words {
            let bytes = self.take(2)?;
            *word = u16::from_be_bytes([bytes[0], bytes[1]]);
        }
        Some(words)
    }

    fn long(&mut self) -> Option<u32> {
        let bytes = self.take(4)?;
        Some(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// So many more bytes of names and texts are kept.
    fn expand(&mut self, bytes: usize) -> Option<()> {
        self.expanded += bytes;
        (self.expanded <= MAX_EXPANDED).then_some(())
    }

    /// A name here, with what it points to (RFC 1035, section 4.1.4).
    fn name(&mut self) -> Option<Name> {
        let mut name = Name::default();
        let mut at = self.at;
        let mut jumped = false;
        let mut jumps = 0;
        for labels in 0.. {
            let length = usize::from(*self.message.get(at)?);
            if length == 0 {
                at += 1;
                break;
            }
            if length & 0xc0 == 0xc0 {
                let low = usize::from(*self.message.get(at + 1)?);
                if !jumped {
                    self.at = at + 2;
                }
                jumped = true;
                jumps += 1;
                // More than a name has labels: it goes round.
                if jumps > MAX_LABELS {
                    self.event(event::INFINITE_LOOP);
                    return None;
                }
                at = (length & 0x3f) << 8 | low;
                continue;
            }
            if labels >= MAX_LABELS {
                self.event(event::TOO_MANY_LABELS);
                return None;
            }
            let label = self
                .message
                .get(at + 1..at + 1 + length)
                .filter(|_| length < 64)?;
            at += 1 + length;
            let bytes = &mut name.bytes;
            if name.truncated {
                continue;
            }
            if !bytes.is_empty() {
                bytes.push(b'.');
            }
            bytes.extend_from_slice(label);
            if bytes.len() > MAX_NAME {
                bytes.truncate(MAX_NAME);
                name.truncated = true;
            }
        }
        if name.truncated {
            self.event(event::NAME_TOO_LONG);
        }
        if !jumped {
            self.at = at;
        }
        self.expand(name.bytes.len())?;
        // While it grew it took more than it needs.
        name.bytes.shrink_to_fit();
        Some(name)
    }

    fn record(&mut self) -> Option<Record> {
        self.records += 1;
        if self.records > MAX_RECORDS {
            return None;
        }
        let name = self.name()?;
        let [kind, class] = self.words()?;
        let ttl = self.long()?;
        let [length] = self.words()?;
        let start = self.at;
        let bytes = self.take(usize::from(length))?;
        let end = self.at;
        // Names in it may point anywhere into the message.
        self.at = start;
        let data = self.data(kind, bytes);
        self.at = end;
        self.expand(0)?;
        Some(Record {
            name,
            kind,
            class,
            ttl,
            data: data.unwrap_or_else(|| Rdata::Other(bytes.to_vec())),
        })
    }

    /// `None` when it is not what its type says.
    fn data(&mut self, kind: u16, bytes: &[u8]) -> Option<Rdata> {
        Some(match kind {
            kind::A => Rdata::V4(<[u8; 4]>::try_from(bytes).ok()?.into()),
            kind::AAAA => Rdata::V6(<[u8; 16]>::try_from(bytes).ok()?.into()),
            kind::CNAME | kind::NS | kind::PTR => Rdata::Name(self.name()?),
            kind::MX => {
                self.take(2)?;
                Rdata::Name(self.name()?)
            }
            kind::TXT => {
                let mut texts = Vec::new();
                let mut rest = bytes;
                while let Some((length, after)) = rest.split_first() {
                    let (text, after) = after.split_at_checked(usize::from(*length))?;
                    self.expand(size_of::<Vec<u8>>() + text.len())?;
                    texts.push(text.to_vec());
                    rest = after;
                }
                Rdata::Texts(texts)
            }
            kind::SOA => {
                let (server, mailbox) = (self.name()?, self.name()?);
                let mut numbers = [0; 5];
                for number in &mut numbers {
                    *number = self.long()?;
                }
                Rdata::Soa(Box::new(Soa {
                    server,
                    mailbox,
                    numbers,
                }))
            }
            kind::SRV => {
                let [priority, weight, port] = self.words()?;
                Rdata::Srv {
                    priority,
                    weight,
                    port,
                    target: self.name()?,
                }
            }
            kind::SSHFP => {
                let [algorithm, kind, print @ ..] = bytes else {
                    return None;
                };
                Rdata::KeyPrint {
                    algorithm: *algorithm,
                    kind: *kind,
                    print: print.to_vec(),
                }
            }
            _ => return None,
        })
    }
}

impl Content for Message {
    fn protocol(&self) -> AppProtocol {
        AppProtocol::Dns
    }

    fn taken(&self) -> usize {
        let names = self.questions.iter().map(|it| held(&it.name.bytes));
        let lists = [&self.answers, &self.authorities, &self.additionals];
        let records = self.records().map(|record| {
            let said = match &record.data {
                Rdata::V4(_) | Rdata::V6(_) => 0,
                Rdata::Name(name) | Rdata::Srv { target: name, .. } => held(&name.bytes),
                Rdata::Texts(texts) => held(texts) + texts.iter().map(held).sum::<usize>(),
                Rdata::Soa(soa) => {
                    heap(size_of::<Soa>()) + held(&soa.server.bytes) + held(&soa.mailbox.bytes)
                }
                Rdata::KeyPrint { print, .. } => held(print),
                Rdata::Other(bytes) => held(bytes),
            };
            held(&record.name.bytes) + said
        });
        heap(size_of::<Self>())
            + held(&self.questions)
            + names.sum::<usize>()
            + lists.map(held).iter().sum::<usize>()
            + records.sum::<usize>()
    }

    fn part<'a>(&'a self, direction: PacketDirection, which: AppBuffer, number: usize) -> Part<'a> {
        if direction != self.direction {
            return Part::Absent;
        }
        let questions = || self.questions.get(number).map(|it| &it.name);
        let record = |of: &'a [Record]| of.get(number).map(|it| &it.name);
        let name = match which {
            AppBuffer::DnsQuery if self.goes(true) => questions(),
            AppBuffer::DnsQueryName | AppBuffer::DnsQueriesRrname => questions(),
            AppBuffer::DnsAnswerName | AppBuffer::DnsAnswersRrname => record(&self.answers),
            AppBuffer::DnsAuthoritiesRrname => record(&self.authorities),
            AppBuffer::DnsAdditionalsRrname => record(&self.additionals),
            AppBuffer::DnsResponseRrname if self.goes(false) => self.names().nth(number),
            _ => None,
        };
        name.map_or(Part::Absent, |name| Part::whole(&name.bytes))
    }

    fn answers(&self, direction: PacketDirection, asked: &Asked) -> Option<bool> {
        fn holds<T>(compare: &Compare<T>, value: T) -> bool
        where
            T: Copy + PartialOrd + std::ops::BitAnd<Output = T> + Default,
        {
            compare.holds(value)
        }
        if direction != self.direction {
            return Some(false);
        }
        Some(match asked {
            Asked::DnsOpcode(compare) => holds(compare, self.opcode()),
            // A request has none.
            Asked::DnsRcode(compare) => self.is_response() && holds(compare, self.rcode()),
            Asked::DnsType(compare) => {
                let questions = self.questions.iter().map(|it| it.kind);
                let mut kinds = questions.chain(self.records().map(|it| it.kind));
                kinds.any(|kind| holds(compare, kind))
            }
            _ => false,
        })
    }

    fn fields(&self, transaction: u64) -> Value {
        record::fields(self, transaction)
    }

    fn records(&self, transaction: u64, version: u8) -> Vec<Value> {
        match version {
            2 => record::fields_2(self, transaction),
            _ => vec![self.fields(transaction)],
        }
    }

    fn record_direction(&self, version: u8) -> Option<PacketDirection> {
        (version == 2).then_some(PacketDirection::ToServer)
    }
}
