//! A rule, typed.

use std::net::IpAddr;
use std::path::PathBuf;

use super::range_set::RangeSet;

/// What a matching rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Reports.
    Alert,
    /// Stops inspection and lets pass.
    Pass,
    /// Drops and reports.
    Drop,
    /// Drops, reports, and tells the ends.
    Reject(RejectTarget),
}

/// Who is told about a rejected packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RejectTarget {
    /// Its sender (`reject`, `rejectsrc`).
    Source,
    /// Its receiver (`rejectdst`).
    Destination,
    /// Both (`rejectboth`).
    Both,
}

/// The protocol of a rule's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RuleProtocol {
    /// Any IP packet.
    Ip,
    /// IPv4 packets.
    Ipv4,
    /// IPv6 packets.
    Ipv6,
    /// TCP (`tcp`, `tcp-pkt`).
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// ICMP and ICMPv6.
    Icmp,
    /// ICMP over IPv4.
    Icmpv4,
    /// ICMPv6.
    Icmpv6,
}

/// The arrow of a rule's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arrow {
    /// `->`: from source to destination.
    Toward,
    /// `<>`: either way.
    Either,
}

/// A set of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressSet {
    /// IPv4 addresses as numbers.
    pub v4: RangeSet<u32>,
    /// IPv6 addresses as numbers.
    pub v6: RangeSet<u128>,
}

impl AddressSet {
    /// Every address.
    pub fn all() -> Self {
        Self {
            v4: RangeSet::all(),
            v6: RangeSet::all(),
        }
    }

    /// Whether `address` is in it.
    #[inline]
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => self.v4.contains(u32::from(v4)),
            IpAddr::V6(v6) => self.v6.contains(u128::from(v6)),
        }
    }

    /// Whether it is every address.
    pub fn is_all(&self) -> bool {
        self.v4.is_all() && self.v6.is_all()
    }

    /// Whether it is no address.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// What is in `self` and not in `other`.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        Self {
            v4: self.v4.without(&other.v4),
            v6: self.v6.without(&other.v6),
        }
    }
}

/// A set of ports.
pub type PortSet = RangeSet<u16>;

/// Where a content may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// Counted from the start of the buffer.
    Absolute {
        /// Bytes before the area searched.
        offset: usize,
        /// Length of the area searched; to the end if absent.
        depth: Option<usize>,
    },
    /// Counted from the end of the previous match.
    Relative {
        /// Bytes between that end and the area searched; may be negative.
        distance: i64,
        /// Length of the area searched; to the end if absent.
        within: Option<usize>,
    },
}

/// A `content` keyword with its modifiers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// The bytes looked for.
    pub pattern: Vec<u8>,
    /// `!`: must not be there.
    pub negated: bool,
    /// ASCII letters match in either case.
    pub nocase: bool,
    /// `fast_pattern`: the one to look for first.
    pub fast_pattern: bool,
    /// `endswith`: the match must end where the buffer ends.
    pub at_end: bool,
    /// Where it may stand.
    pub position: Position,
}

/// A `reference` keyword.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// System, for example `cve`.
    pub system: String,
    /// Id in that system.
    pub id: String,
}

/// The class of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// `classtype` name.
    pub name: String,
    /// What it says in records.
    pub description: String,
    /// Priority of rules of this class, 1 is highest.
    pub priority: u8,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What it does.
    pub action: Action,
    /// Its protocol.
    pub protocol: RuleProtocol,
    /// Source addresses.
    pub source: AddressSet,
    /// Source ports.
    pub source_ports: PortSet,
    /// Direction.
    pub direction: Arrow,
    /// Destination addresses.
    pub destination: AddressSet,
    /// Destination ports.
    pub destination_ports: PortSet,
    /// Its options.
    pub options: Options,
    /// File it stands in.
    pub file: PathBuf,
    /// Line it begins in, from 1.
    pub line: usize,
}

/// The options of a rule, in the parentheses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `sid`.
    pub signature_id: u32,
    /// `gid`, 1 if absent.
    pub group_id: u32,
    /// `rev`, 0 if absent.
    pub revision: u32,
    /// `msg`, empty if absent.
    pub message: String,
    /// `classtype`.
    pub class: Option<Class>,
    /// `priority`, else that of the class, else 3.
    pub priority: u8,
    /// `reference`, in order.
    pub references: Vec<Reference>,
    /// `metadata`: key and value, in order.
    pub metadata: Vec<(String, String)>,
    /// `content`, in order.
    pub contents: Vec<Content>,
    /// `noalert`: acts but does not report.
    pub no_alert: bool,
}
