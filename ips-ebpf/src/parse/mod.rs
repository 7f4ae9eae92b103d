//! What flow a packet belongs to, by the definition in `ips-common/src/flow_key.rs`.
//!
//! The parser never copies more of a packet than it looks at and knows nothing of BPF: it reads
//! through [`Packet`], which the kernel side implements for an skb and an XDP buffer and which
//! a byte slice implements for tests.

use ips_common::{Endpoint, FlowKey, FragmentKey};

mod ethernet;
mod network;
mod transport;
mod wire;

use network::{Bounds, Network};
use transport::Ports;
pub use wire::Wire;

/// A frame that can be read at any offset.
pub trait Packet {
    /// Bytes of the frame, from the Ethernet header on.
    fn frame_len(&self) -> usize;

    /// Reads a header, `None` when the frame ends before it does.
    fn load<T: Wire>(&self, offset: usize) -> Option<T>;

    /// The same offset, of which the kernel's verifier no longer knows how it came about.
    ///
    /// The verifier follows every path whose offsets differ: VLAN tags, kinds and lengths of
    /// extension headers and quotes multiply to far more than it is willing to follow (a
    /// million instructions). Where paths meet again, this makes them the same to it.
    fn forget_origin(&self, offset: usize) -> usize {
        offset
    }
}

/// Why a packet has no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keyless {
    /// Neither IPv4 nor IPv6.
    NotIp,
    /// No complete, well-formed IP header.
    Malformed,
}

/// Whether a packet is the whole datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// It is.
    No,
    /// It is the first fragment.
    First(FragmentKey),
    /// It is a later one: the key has no ports.
    Later(FragmentKey),
}

/// What is known about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// Its flow; for a later fragment the one it has if no first fragment is known.
    pub key: FlowKey,
    /// Whether it is a fragment.
    pub fragment: Fragment,
    /// Its transport header or extension-header chain is cut short or too long.
    pub truncated: bool,
}

/// The part of a packet that a layer may read.
struct Cursor<'a, P> {
    packet: &'a P,
    /// Where the packet ends, from the Ethernet header on.
    end: usize,
}

impl<P: Packet> Cursor<'_, P> {
    #[inline(always)]
    fn read<T: Wire>(&self, offset: usize) -> Option<T> {
        if offset + size_of::<T>() > self.end {
            return None;
        }
        self.packet.load(offset)
    }
}

/// Finds the flow of a frame.
///
/// # Errors
/// When the frame has none.
#[inline(always)]
pub fn parse<P: Packet>(packet: &P) -> Result<Parsed, Keyless> {
    let (family, offset) = ethernet::payload(packet).ok_or(Keyless::NotIp)?;
    let offset = packet.forget_origin(offset);
    let (network, cursor) =
        Network::read(packet, packet.frame_len(), family, offset, Bounds::Length)
            .ok_or(Keyless::Malformed)?;

    let fragment = if network.position.is_whole() {
        Fragment::No
    } else if network.position.is_later() {
        Fragment::Later(network.fragment_key())
    } else {
        Fragment::First(network.fragment_key())
    };
    let (key, truncated) = match transport::ports(&cursor, &network) {
        Ports::Pair(source, destination) => (canonical(&network, source, destination), false),
        Ports::None => (canonical(&network, 0, 0), false),
        Ports::Truncated => (canonical(&network, 0, 0), true),
        Ports::Quote(offset) => (quoted(&cursor, &network, offset), false),
    };
    Ok(Parsed {
        key,
        fragment,
        truncated,
    })
}

/// The key of what an ICMP error quotes, or of the error itself when that cannot be read.
#[inline(always)]
fn quoted<P: Packet>(cursor: &Cursor<'_, P>, outer: &Network, offset: usize) -> FlowKey {
    let packet = cursor.packet;
    let offset = packet.forget_origin(offset);
    let end = packet.forget_origin(cursor.end.min(0xffff));
    let quote = Network::read(packet, end, outer.family, offset, Bounds::Buffer);
    let Some((quote, cursor)) = quote else {
        return canonical(outer, 0, 0);
    };
    match transport::ports(&cursor, &quote) {
        Ports::Pair(source, destination) => canonical(&quote, source, destination),
        // Quotes are cut short as a rule, and errors about errors do not exist (RFC 1122
        // §3.2.2, RFC 4443 §2.4).
        Ports::None | Ports::Truncated | Ports::Quote(_) => canonical(&quote, 0, 0),
    }
}

#[inline(always)]
fn canonical(network: &Network, source_port: u16, destination_port: u16) -> FlowKey {
    let source = Endpoint {
        address: network.source,
        port: source_port,
    };
    let destination = Endpoint {
        address: network.destination,
        port: destination_port,
    };
    FlowKey::canonical(network.family, network.protocol, source, destination).0
}

impl Packet for [u8] {
    fn frame_len(&self) -> usize {
        <[u8]>::len(self)
    }

    fn load<T: Wire>(&self, offset: usize) -> Option<T> {
        let bytes = self.get(offset..)?.get(..size_of::<T>())?;
        Some(bytemuck::pod_read_unaligned(bytes))
    }
}

impl<P: Packet + ?Sized> Packet for &P {
    fn frame_len(&self) -> usize {
        (**self).frame_len()
    }

    fn load<T: Wire>(&self, offset: usize) -> Option<T> {
        (**self).load(offset)
    }

    fn forget_origin(&self, offset: usize) -> usize {
        (**self).forget_origin(offset)
    }
}
