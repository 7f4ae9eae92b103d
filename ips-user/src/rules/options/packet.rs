//! Keywords about the headers of a packet.

use super::super::ast::{BitModifier, ChecksumOf, Condition, IpOption, TcpFlags, VlanLayer};
use super::super::finding::Finding;
use super::super::item::Item;
use super::super::text::Text;
use super::number::{compare, number, ranged};
use super::{Builder, Handler};

pub(super) const KEYWORDS: &[(&str, Handler)] = &[
    ("ttl", ttl),
    ("tos", tos),
    ("id", id),
    ("ipopts", ipopts),
    ("fragbits", fragbits),
    ("fragoffset", fragoffset),
    ("ip_proto", ip_proto),
    ("l3_proto", l3_proto),
    ("sameip", sameip),
    ("flags", flags),
    ("tcp.flags", flags),
    ("seq", seq),
    ("tcp.seq", seq),
    ("ack", ack),
    ("tcp.ack", ack),
    ("window", window),
    ("tcp.window", window),
    ("tcp.mss", tcp_mss),
    ("tcp.wscale", tcp_wscale),
    ("itype", itype),
    ("icode", icode),
    ("icmp_id", icmp_id),
    ("icmp_seq", icmp_seq),
    ("icmpv6.mtu", icmpv6_mtu),
    ("igmp.type", igmp_type),
    ("dsize", dsize),
    ("vlan.id", vlan_id),
    ("vlan.layers", vlan_layers),
    ("tunnel", tunnel),
    ("ipv4-csum", checksum),
    ("tcpv4-csum", checksum),
    ("tcpv6-csum", checksum),
    ("udpv4-csum", checksum),
    ("udpv6-csum", checksum),
    ("icmpv4-csum", checksum),
    ("icmpv6-csum", checksum),
    ("igmp-csum", checksum),
    ("rpc", rpc),
];

type Done = Result<(), Finding>;

fn ttl(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    builder.condition(item, Condition::Ttl(compare(item.text()?.unquoted())?));
    Ok(())
}

/// Hexadecimal also as `x1c`.
fn tos(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    let text = item.text()?.unquoted();
    let (negated, rest) = text.negation();
    let hex = rest
        .as_str()
        .strip_prefix(['x', 'X'])
        .and_then(|digits| u8::from_str_radix(digits, 16).ok());
    let value = match (hex, negated) {
        (Some(value), true) => super::super::ast::Compare::NotEqual(value),
        (Some(value), false) => super::super::ast::Compare::Equal(value),
        (None, _) => compare(text)?,
    };
    builder.condition(item, Condition::Tos(value));
    Ok(())
}

fn id(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    let value = number(item.text()?.unquoted())?;
    builder.condition(item, Condition::IpId(value));
    Ok(())
}

/// Numbers of RFC 791 §3.1 and IANA's "IP Option Numbers".
const IP_OPTIONS: [(&str, IpOption); 12] = [
    ("any", IpOption::Any),
    ("eol", IpOption::Number(0)),
    ("nop", IpOption::Number(1)),
    ("rr", IpOption::Number(7)),
    ("ts", IpOption::Number(68)),
    ("sec", IpOption::Number(130)),
    ("lsrr", IpOption::Number(131)),
    ("esec", IpOption::Number(133)),
    ("cipso", IpOption::Number(134)),
    ("satid", IpOption::Number(136)),
    ("ssrr", IpOption::Number(137)),
    ("rtralt", IpOption::Number(148)),
];

fn ipopts(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    let option = item.text()?.choose("an IP option", &IP_OPTIONS)?;
    builder.condition(item, Condition::IpOption(option));
    Ok(())
}

/// A modifier in front of letters or behind them.
fn modifier(text: Text<'_>) -> (BitModifier, Text<'_>) {
    let signs = [
        ("+", BitModifier::All),
        ("*", BitModifier::Any),
        ("!", BitModifier::Not),
        ("=", BitModifier::Exactly),
    ];
    for (sign, modifier) in signs {
        if let Some(rest) = text.strip_prefix(sign).or(text.strip_suffix(sign)) {
            return (modifier, rest);
        }
    }
    (BitModifier::Exactly, text)
}

/// The bits that letters stand for.
fn letters<N>(text: Text<'_>, bit: impl Fn(char) -> Option<N>, known: &str) -> Result<N, Finding>
where
    N: Default + std::ops::BitOr<Output = N>,
{
    if text.is_empty() {
        return Err(text.fail("letters are missing", known));
    }
    text.as_str()
        .chars()
        .filter(|c| !c.is_ascii_whitespace())
        .try_fold(N::default(), |bits, letter| {
            bit(letter)
                .map(|bit| bits | bit)
                .ok_or_else(|| text.fail(format!("`{letter}` is none of the letters known"), known))
        })
}

fn fragbits(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    let (modifier, text) = modifier(item.text()?);
    let bit = |letter: char| match letter.to_ascii_uppercase() {
        'M' => Some(0x2000),
        'D' => Some(0x4000),
        'R' => Some(0x8000),
        _ => None,
    };
    let bits = letters(text, bit, "M more fragments, D do not fragment, R reserved")?;
    builder.condition(item, Condition::FragBits { modifier, bits });
    Ok(())
}

fn fragoffset(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    let value = compare(item.text()?.unquoted())?;
    builder.condition(item, Condition::FragOffset(value));
    Ok(())
}

/// Names as in `/etc/protocols`; numbers of IANA's "Protocol Numbers".
const IP_PROTOCOLS: [(&str, u8); 30] = [
    ("ip", 0),
    ("hopopt", 0),
    ("icmp", 1),
    ("igmp", 2),
    ("ggp", 3),
    ("ipencap", 4),
    ("st", 5),
    ("tcp", 6),
    ("egp", 8),
    ("igp", 9),
    ("pup", 12),
    ("udp", 17),
    ("dccp", 33),
    ("ipv6", 41),
    ("ipv6-route", 43),
    ("ipv6-frag", 44),
    ("rsvp", 46),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("ipv6-icmp", 58),
    ("ipv6-nonxt", 59),
    ("ipv6-opts", 60),
    ("eigrp", 88),
    ("ospf", 89),
    ("pim", 103),
    ("ipcomp", 108),
    ("vrrp", 112),
    ("l2tp", 115),
    ("sctp", 132),
];

fn ip_proto(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    use super::super::ast::Compare;
    let text = item.text()?.unquoted();
    let (negated, name) = text.negation();
    let named = name
        .as_str()
        .starts_with(|first: char| first.is_ascii_alphabetic());
    let value = match named {
        true => {
            let number = name.choose("an IP protocol", &IP_PROTOCOLS)?;
            match negated {
                true => Compare::NotEqual(number),
                false => Compare::Equal(number),
            }
        }
        false => compare(text)?,
    };
    builder.condition(item, Condition::IpProtocol(value));
    Ok(())
}

fn l3_proto(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    let versions = [("ipv4", 4), ("ip4", 4), ("ipv6", 6), ("ip6", 6)];
    let version = item.text()?.choose("an IP version", &versions)?;
    builder.condition(item, Condition::IpVersion(version));
    Ok(())
}

fn sameip(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    item.no_value()?;
    builder.condition(item, Condition::SameIp);
    Ok(())
}

fn flags(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    let text = item.text()?;
    let (wanted, ignored) = match text.split_once(",") {
        Some((wanted, ignored)) => (wanted, Some(ignored)),
        None => (text, None),
    };
    let bit = |letter: char| match letter.to_ascii_uppercase() {
        'F' => Some(0x01u8),
        'S' => Some(0x02),
        'R' => Some(0x04),
        'P' => Some(0x08),
        'A' => Some(0x10),
        'U' => Some(0x20),
        'E' | '2' => Some(0x40),
        'C' | '1' => Some(0x80),
        '0' => Some(0),
        _ => None,
    };
    let known = "letters: F S R P A U, C or 1 (CWR), E or 2 (ECE), 0 for none";
    let (modifier, wanted) = modifier(wanted);
    let flags = letters(wanted, bit, known)?;
    if flags == 0 && modifier != BitModifier::Exactly && modifier != BitModifier::Not {
        return Err(wanted.fail("`0`, no flag, goes without a modifier", "flags:0;"));
    }
    let ignored_bits = match ignored {
        Some(text) => letters(text, bit, known)?,
        None => 0,
    };
    if let Some(text) = ignored
        && flags & ignored_bits != 0
        && modifier == BitModifier::Exactly
    {
        return Err(text.fail(
            "a flag is both wanted and ignored: this never matches",
            "behind the comma stand the flags that do not count",
        ));
    }
    builder.condition(
        item,
        Condition::TcpFlags(TcpFlags {
            modifier,
            flags,
            ignored: ignored_bits,
        }),
    );
    Ok(())
}

fn seq(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    let value = number(item.text()?.unquoted())?;
    builder.condition(item, Condition::Seq(value));
    Ok(())
}

fn ack(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    let value = number(item.text()?.unquoted())?;
    builder.condition(item, Condition::Ack(value));
    Ok(())
}

fn window(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    let (negated, text) = item.text()?.negation();
    let value = number(text)?;
    builder.condition(item, Condition::Window { negated, value });
    Ok(())
}

fn tcp_mss(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    builder.condition(item, Condition::TcpMss(compare(item.text()?)?));
    Ok(())
}

fn tcp_wscale(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    builder.condition(item, Condition::TcpWscale(compare(item.text()?)?));
    Ok(())
}

fn itype(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    let value = compare(item.text()?.unquoted())?;
    builder.condition(item, Condition::IcmpType(value));
    Ok(())
}

fn icode(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    let value = compare(item.text()?.unquoted())?;
    builder.condition(item, Condition::IcmpCode(value));
    Ok(())
}

fn icmp_id(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    let value = number(item.text()?.unquoted())?;
    builder.condition(item, Condition::IcmpId(value));
    Ok(())
}

fn icmp_seq(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    let value = number(item.text()?.unquoted())?;
    builder.condition(item, Condition::IcmpSeq(value));
    Ok(())
}

fn icmpv6_mtu(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    builder.condition(item, Condition::Icmpv6Mtu(compare(item.text()?)?));
    Ok(())
}

fn igmp_type(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    builder.condition(item, Condition::IgmpType(compare(item.text()?)?));
    Ok(())
}

fn dsize(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    let text = item.text()?;
    let value = compare(text)?;
    if builder.dsize.replace((value, text.span())).is_some() {
        return Err(Finding::with_help(
            item.name_span,
            "`dsize` twice",
            "one of them can say it: dsize:low<>high;",
        ));
    }
    builder.condition(item, Condition::PayloadSize(value));
    Ok(())
}

fn vlan_id(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    let text = item.text()?;
    let (id, layer) = match text.split_once(",") {
        Some((id, layer)) => (id, Some(layer)),
        None => (text, None),
    };
    let value = compare::<u16>(id)?;
    use super::super::ast::Compare;
    let beyond = match value {
        Compare::Equal(id) | Compare::AtLeast(id) => id > 4095,
        Compare::Greater(id) => id >= 4095,
        Compare::Between(low, _) => low >= 4095,
        _ => false,
    };
    if beyond {
        return Err(id.fail("no VLAN id is above 4095", "0 to 4095"));
    }
    let layers = [
        ("any", VlanLayer::Any),
        ("all", VlanLayer::All),
        ("0", VlanLayer::At(0)),
        ("1", VlanLayer::At(1)),
        ("2", VlanLayer::At(2)),
        ("-1", VlanLayer::At(-1)),
        ("-2", VlanLayer::At(-2)),
        ("-3", VlanLayer::At(-3)),
    ];
    let layer = layer
        .map(|text| text.choose("a VLAN layer", &layers))
        .transpose()?;
    let condition = Condition::VlanId {
        layer,
        compare: value,
    };
    builder.condition(item, condition);
    Ok(())
}

fn vlan_layers(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    builder.condition(item, Condition::VlanLayers(compare(item.text()?)?));
    Ok(())
}

fn tunnel(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    item.no_value()?;
    builder.condition(item, Condition::Tunnel);
    Ok(())
}

fn checksum(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    const OF: [ChecksumOf; 8] = [
        ChecksumOf::Ipv4,
        ChecksumOf::Tcpv4,
        ChecksumOf::Tcpv6,
        ChecksumOf::Udpv4,
        ChecksumOf::Udpv6,
        ChecksumOf::Icmpv4,
        ChecksumOf::Icmpv6,
        ChecksumOf::Igmp,
    ];
    let valid = [("valid", true), ("invalid", false)];
    let valid = item
        .text()?
        .unquoted()
        .choose("`valid` or `invalid`", &valid)?;
    if let Some(of) = OF
        .into_iter()
        .find(|of| of.keyword().eq_ignore_ascii_case(item.name))
    {
        builder.condition(item, Condition::Checksum { of, valid });
    }
    Ok(())
}

fn rpc(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    let text = item.text()?;
    let mut parts = text.split(',');
    let program = ranged(parts.next().unwrap_or(text), 0, u32::MAX)?;
    let mut or_any = || match parts.next() {
        None => Ok(None),
        Some(part) if part.as_str() == "*" => Ok(None),
        Some(part) => number(part).map(Some),
    };
    let (version, procedure) = (or_any()?, or_any()?);
    if let Some(more) = parts.next() {
        return Err(more.fail("a value too many", "rpc:program, version, procedure;"));
    }
    let condition = Condition::Rpc {
        program,
        version,
        procedure,
    };
    builder.condition(item, condition);
    Ok(())
}
