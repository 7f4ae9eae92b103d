//! Packets and verdicts as they pass, for `-v`.

use std::fmt;

use crate::decode::{Decoded, Invalid, Transport};
use crate::exception::Cause;
use crate::reassembly::defrag::Refusal;
use crate::reassembly::tcp::StreamDrop;
use crate::source::{Disposition, Packet};

/// Is shown every packet with its verdict.
pub trait PacketTrace {
    /// Called after the verdict is decided, before it is sent. [`Traced`] formats itself.
    fn packet(&mut self, traced: &Traced<'_>);
}

/// Why a packet has its verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// No rule matched.
    Clean,
    /// Rules matched that only report.
    Alerted {
        /// How many.
        rules: usize,
    },
    /// A pass rule.
    Passed {
        /// Its sid.
        signature_id: u32,
    },
    /// The rest of a passed flow.
    FlowPassed,
    /// A rule that drops.
    Dropped {
        /// Its sid.
        signature_id: u32,
    },
    /// A rule that rejects.
    Rejected {
        /// Its sid.
        signature_id: u32,
    },
    /// The rest of a dropped flow.
    FlowDropped {
        /// Sid of the rule that dropped it.
        signature_id: u32,
    },
    /// The rest of a flow that an exception policy dropped.
    FlowRefused(Cause),
    /// An exception policy.
    Exception(Cause),
    /// It could not be decoded.
    Invalid(Invalid),
    /// The stream engine drops it.
    StreamDropped(StreamDrop),
    /// It is a fragment that cannot be used.
    FragmentRefused(Refusal),
}

/// A packet and its verdict.
#[derive(Clone, Debug)]
pub struct Traced<'a> {
    packet: &'a Packet<'a>,
    decoded: Option<&'a Decoded<'a>>,
    /// The verdict.
    pub disposition: Disposition,
    /// Why.
    pub why: Why,
}

impl<'a> Traced<'a> {
    pub(super) fn new(
        packet: &'a Packet<'a>,
        decoded: Option<&'a Decoded<'a>>,
        disposition: Disposition,
        why: Why,
    ) -> Self {
        Self {
            packet,
            decoded,
            disposition,
            why,
        }
    }
}

impl fmt::Display for Traced<'_> {
    /// For example `#17 tcp 192.0.2.1:1000 > 198.51.100.7:80 SA 52 bytes: drop, sid 7`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{} ", self.packet.id.0)?;
        if let Some(decoded) = self.decoded.filter(|decoded| decoded.network.is_some()) {
            write_packet(decoded, f)?;
        }
        write!(f, "{} bytes", self.packet.payload.len())?;
        if self.packet.gso {
            f.write_str(" aggregated")?;
        }
        match self.disposition {
            Disposition::Accept => f.write_str(": accept")?,
            Disposition::Drop => f.write_str(": drop")?,
        }
        match self.why {
            Why::Clean => Ok(()),
            Why::Alerted { rules: 1 } => f.write_str(", 1 alert"),
            Why::Alerted { rules } => write!(f, ", {rules} alerts"),
            Why::Passed { signature_id } => write!(f, ", passed by sid {signature_id}"),
            Why::FlowPassed => f.write_str(", passed flow"),
            Why::Dropped { signature_id } => write!(f, ", sid {signature_id}"),
            Why::Rejected { signature_id } => write!(f, ", rejected by sid {signature_id}"),
            Why::FlowDropped { signature_id } => write!(f, ", flow dropped by sid {signature_id}"),
            Why::FlowRefused(cause) => write!(f, ", flow dropped by {}", cause.key()),
            Why::Exception(cause) => write!(f, ", {}", cause.key()),
            Why::Invalid(reason) => write!(f, ", {reason}"),
            Why::StreamDropped(drop) => write!(f, ", {}", drop.name()),
            Why::FragmentRefused(reason) => write!(f, ", fragment: {}", reason.name()),
        }
    }
}

fn write_packet(decoded: &Decoded<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let name = match decoded.protocol() {
        1 => "icmp",
        6 => "tcp",
        17 => "udp",
        58 => "icmpv6",
        132 => "sctp",
        _ => "ip",
    };
    write!(f, "{name} ")?;
    let (source, destination) = (decoded.source(), decoded.destination());
    match decoded.ports {
        Some((from, to)) => write!(
            f,
            "{} > {} ",
            std::net::SocketAddr::new(source, from),
            std::net::SocketAddr::new(destination, to)
        )?,
        None => write!(f, "{source} > {destination} ")?,
    }
    match &decoded.transport {
        Transport::Tcp(tcp) => {
            let flags = [
                (tcp.syn(), "S"),
                (tcp.fin(), "F"),
                (tcp.rst(), "R"),
                (tcp.psh(), "P"),
                (tcp.ack(), "A"),
                (tcp.urg(), "U"),
            ];
            for (_, letter) in flags.iter().filter(|(set, _)| *set) {
                f.write_str(letter)?;
            }
            f.write_str(" ")
        }
        Transport::Icmp { kind, code } => write!(f, "type {kind} code {code} "),
        Transport::Fragment => f.write_str("fragment "),
        Transport::Esp { spi } => write!(f, "spi {spi:#010x} "),
        Transport::Other if decoded.ports.is_none() => {
            write!(f, "protocol {} ", decoded.protocol())
        }
        Transport::Udp { .. }
        | Transport::Sctp { .. }
        | Transport::Other
        | Transport::None
        | Transport::Invalid(_) => Ok(()),
    }
}
