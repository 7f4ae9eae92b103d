//! Conditions that the packet's headers answer.
//!
//! Reference: <https://docs.suricata.io/en/suricata-8.0.3/rules/header-keywords.html>.

use crate::decode::protocol;
use crate::detect::view::View;
use crate::rules::ast::{
    BitModifier, ChecksumOf, Compare, Condition, IpOption, TcpFlags, VlanLayer,
};

fn some<T>(value: Option<T>, holds: impl FnOnce(T) -> bool) -> bool {
    value.is_some_and(holds)
}

/// Whether it holds. Those that packets do not answer never come here.
pub(super) fn holds(condition: &Condition, view: &View<'_>) -> bool {
    match condition {
        Condition::TcpFlags(flags) => some(view.tcp_flags(), |it| tcp_flags(flags, it)),
        Condition::Seq(number) => view.tcp_sequence() == Some(*number),
        Condition::Ack(number) => view.tcp_acknowledgment() == Some(*number),
        Condition::Window { negated, value } => {
            some(view.tcp_window(), |window| (window == *value) != *negated)
        }
        Condition::TcpMss(compare) => some(view.tcp_mss(), |mss| compare.holds(mss)),
        Condition::TcpWscale(compare) => some(view.tcp_wscale(), |scale| compare.holds(scale)),
        Condition::Ttl(compare) => some(view.ttl(), |ttl| compare.holds(ttl)),
        Condition::Tos(compare) => some(view.tos(), |tos| compare.holds(tos)),
        Condition::IpId(id) => view.ip_id() == Some(*id),
        Condition::IpOption(IpOption::Any) => view.has_ip_option(None),
        Condition::IpOption(IpOption::Number(kind)) => view.has_ip_option(Some(*kind)),
        Condition::IpVersion(4) => view.is_ipv4(),
        Condition::IpVersion(version) => *version == 6 && view.is_ipv6(),
        Condition::IpProtocol(compare) => view.is_ip() && compare.holds(view.protocol()),
        Condition::FragBits { modifier, bits } => some(view.fragment_field(), |field| {
            compare_bits(*modifier, *bits, field & 0xe000)
        }),
        Condition::FragOffset(compare) => {
            some(view.fragment_field(), |field| compare.holds(field & 0x1fff))
        }
        Condition::SameIp => view.is_ip() && view.source() == view.destination(),
        Condition::IcmpType(compare) => some(view.icmp_type(), |(kind, _)| compare.holds(kind)),
        Condition::IcmpCode(compare) => some(view.icmp_type(), |(_, code)| compare.holds(code)),
        Condition::IcmpId(id) => some(view.icmp_query(), |(found, _)| found == *id),
        Condition::IcmpSeq(number) => some(view.icmp_query(), |(_, found)| found == *number),
        Condition::Icmpv6Mtu(compare) => some(view.icmpv6_mtu(), |mtu| compare.holds(mtu)),
        Condition::IgmpType(compare) => some(view.igmp(), |igmp| compare.holds(igmp[0])),
        Condition::PayloadSize(compare) => {
            compare.holds(u16::try_from(view.payload().len()).unwrap_or(u16::MAX))
        }
        Condition::VlanId { layer, compare } => vlan(view.vlans(), *layer, compare),
        Condition::VlanLayers(compare) => compare.holds(view.vlans().len() as u8),
        Condition::Tunnel => view.is_tunnelled(),
        Condition::Checksum { of, valid } => checksum(view, *of) == Some(*valid),
        Condition::Rpc {
            program,
            version,
            procedure,
        } => rpc(view, *program, *version, *procedure),
        _ => false,
    }
}

/// Any tag, or the one in that place.
fn vlan(ids: &[u16], layer: Option<VlanLayer>, compare: &Compare<u16>) -> bool {
    match layer {
        None | Some(VlanLayer::Any) => ids.iter().any(|id| compare.holds(*id)),
        Some(VlanLayer::All) => !ids.is_empty() && ids.iter().all(|id| compare.holds(*id)),
        Some(VlanLayer::At(place)) => {
            let at = match usize::try_from(place) {
                Ok(at) => Some(at),
                Err(_) => ids.len().checked_sub(usize::from(place.unsigned_abs())),
            };
            at.and_then(|at| ids.get(at))
                .is_some_and(|id| compare.holds(*id))
        }
    }
}

/// Whether a checksum is right; `None` when the packet has no such one.
fn checksum(view: &View<'_>, of: ChecksumOf) -> Option<bool> {
    let has = match of {
        ChecksumOf::Ipv4 => return view.ip_checksum(),
        ChecksumOf::Tcpv4 => view.is_ipv4() && view.tcp().is_some(),
        ChecksumOf::Tcpv6 => view.is_ipv6() && view.tcp().is_some(),
        ChecksumOf::Udpv4 => view.is_ipv4() && view.udp().is_some(),
        ChecksumOf::Udpv6 => view.is_ipv6() && view.udp().is_some(),
        ChecksumOf::Icmpv4 => view.icmpv4().is_some(),
        ChecksumOf::Icmpv6 => view.icmpv6().is_some(),
        ChecksumOf::Igmp => view.igmp().is_some(),
    };
    has.then(|| view.transport_checksum())
}

/// Flags that may be ignored are, on both sides.
pub(super) fn tcp_flags(wanted: &TcpFlags, found: u8) -> bool {
    let found = found & !wanted.ignored;
    compare_bits(wanted.modifier, u16::from(wanted.flags), u16::from(found))
}

fn compare_bits(modifier: BitModifier, wanted: u16, found: u16) -> bool {
    match modifier {
        BitModifier::Exactly => found == wanted,
        BitModifier::All => found & wanted == wanted,
        BitModifier::Any => found & wanted != 0,
        // None of them, and with none wanted: not no flag at all.
        BitModifier::Not if wanted == 0 => found != 0,
        BitModifier::Not => found & wanted == 0,
    }
}

/// A Sun RPC call (RFC 5531 §9); over TCP behind the mark of its fragment (§11).
fn rpc(view: &View<'_>, program: u32, version: Option<u32>, procedure: Option<u32>) -> bool {
    const CALL: u32 = 0;
    const RPC_VERSION: u32 = 2;
    let payload = match view.protocol() {
        protocol::TCP => view.payload().get(4..),
        protocol::UDP => Some(view.payload()),
        _ => None,
    };
    let word = |at: usize| {
        let bytes = payload?.get(at * 4..at * 4 + 4)?;
        Some(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    };
    word(1) == Some(CALL)
        && word(2) == Some(RPC_VERSION)
        && word(3) == Some(program)
        && version.is_none_or(|version| word(4) == Some(version))
        && procedure.is_none_or(|procedure| word(5) == Some(procedure))
        // Without its credentials it is no call.
        && word(5).is_some()
}
