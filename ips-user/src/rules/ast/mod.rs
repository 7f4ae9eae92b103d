//! A rule, typed: its header here, what it looks for in [`matching`], what it asks of packet and
//! flow in [`condition`], which bytes it looks into in [`buffer`].

use std::net::IpAddr;
use std::path::PathBuf;

pub mod buffer;
pub mod compare;
pub mod condition;
mod keyword;
pub mod matching;

pub use buffer::{AppBuffer, Base64Mode, Buffer, Transform};
pub use compare::Compare;
pub use condition::*;
pub use matching::*;

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

impl RejectTarget {
    /// The same ends, as seen from a packet of the other direction.
    #[must_use]
    pub const fn turned(self) -> Self {
        match self {
            Self::Source => Self::Destination,
            Self::Destination => Self::Source,
            Self::Both => Self::Both,
        }
    }
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
    /// `tcp`: the stream, and packets where the rule asks for what only packets have.
    Tcp,
    /// `tcp-pkt`: packets.
    TcpPacket,
    /// `tcp-stream`: the stream.
    TcpStream,
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
    /// IGMP.
    Igmp,
    /// `pkthdr`: every packet, also what cannot be decoded.
    PacketHeader,
    /// `ether`: every frame.
    Ethernet,
    /// ARP.
    Arp,
    /// An application protocol, by its name in rules: `http`, `tls`, `dns`, …
    App(&'static str),
}

/// The arrow of a rule's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arrow {
    /// `->`: from source to destination.
    Toward,
    /// `<>`: either way.
    Either,
    /// `=>`: both directions of one transaction.
    Transaction,
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

/// A `reference` keyword.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// System, for example `cve`.
    pub system: String,
    /// Id in that system.
    pub id: String,
    /// The whole address, if `reference.config` knows the system.
    pub url: Option<String>,
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
    /// Whether an address in its header is excluded by `!`: then it is no rule about addresses
    /// alone to the engine.
    pub excludes_addresses: bool,
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
    /// `target`: which end is attacked.
    pub target: Option<Target>,
    /// What must hold of packet and flow, in the order written.
    pub conditions: Vec<Condition>,
    /// What must be found in buffers, each buffer once (per set of transforms), in the order of
    /// their first mention. A buffer that [can exist several times](AppBuffer::is_multiple) may
    /// have several sections: each may be another of them.
    pub sections: Vec<Section>,
    /// `prefilter`: this condition or section selects the rule.
    pub prefilter: Option<PrefilterBy>,
    /// What happens when it matches, besides its action.
    pub effects: Vec<Effect>,
    /// `threshold` or `detection_filter`.
    pub threshold: Option<Threshold>,
    /// `noalert`: acts but does not report.
    pub no_alert: bool,
    /// `alert`: reports even if its action does not, as `pass`.
    pub alert: bool,
}

/// What `prefilter` stands behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrefilterBy {
    /// This one of [`Options::conditions`].
    Condition(usize),
    /// This match of this one of [`Options::sections`].
    Match {
        /// The section.
        section: usize,
        /// The match in it.
        index: usize,
    },
}

/// `target`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// `src_ip`
    Source,
    /// `dest_ip`
    Destination,
}
