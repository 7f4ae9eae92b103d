//! Addresses and ports as they are written: values, lists, negation, variables.
//!
//! Lists are flattened: an element counts as excluded when an odd number of `!` stands before
//! it, on it or on the lists and variables around it, and the set is what is included
//! (everything, if nothing is) without what is excluded. So `[10.0.0.0/8,![10.1.0.0/16]]` and
//! `!$EXTERNAL_NET` mean what Suricata takes them to mean.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use super::ast::{AddressSet, PortSet};
use super::diagnostic::nearest;
use super::finding::Finding;
use super::range_set::RangeSet;
use super::source::Span;
use super::variables::Variables;

/// Deepest nesting of lists and variables: more is a mistake, and a cycle certainly is.
const MAX_DEPTH: usize = 16;

struct Flattener<'a, E> {
    variables: &'a BTreeMap<String, String>,
    parse: fn(&str) -> Result<E, String>,
    included: Vec<E>,
    excluded: Vec<E>,
}

impl<E> Flattener<'_, E> {
    fn list(&mut self, text: &str, at: usize, negated: bool, depth: usize) -> Result<(), Finding> {
        let whole = Span {
            start: at,
            end: at + text.len(),
        };
        let fail = |message: String, help: Option<String>| {
            Err(Finding {
                span: whole,
                message,
                help,
            })
        };
        if depth > MAX_DEPTH {
            return fail(
                format!("nested more than {MAX_DEPTH} deep"),
                Some("does a variable refer to itself?".into()),
            );
        }
        let inner = text.trim_start();
        let at = at + (text.len() - inner.len());
        let inner = inner.trim_end();
        if let Some(rest) = inner.strip_prefix('!') {
            return self.list(rest, at + 1, !negated, depth + 1);
        }
        if let Some(rest) = inner.strip_prefix('[') {
            let Some(elements) = rest.strip_suffix(']') else {
                return fail("`[` without `]` at the end".into(), None);
            };
            let mut from = 0;
            let mut open = 0i32;
            for (position, byte) in elements.bytes().chain([b',']).enumerate() {
                match byte {
                    b'[' => open += 1,
                    b']' => open -= 1,
                    b',' if open == 0 || position == elements.len() => {
                        let element = &elements[from..position];
                        self.list(element, at + 1 + from, negated, depth + 1)?;
                        from = position + 1;
                    }
                    _ => {}
                }
                if open < 0 {
                    return fail("`]` without `[`".into(), None);
                }
            }
            return Ok(());
        }
        if let Some(name) = inner.strip_prefix('$') {
            let Some(value) = self.variables.get(name) else {
                let near = nearest(name, self.variables.keys().map(String::as_str));
                return fail(
                    format!("undefined variable `${name}`"),
                    Some(match near {
                        Some(near) => format!("did you mean `${near}`?"),
                        None => "define it in the configuration".into(),
                    }),
                );
            };
            let value = value.clone();
            return self
                .list(&value, 0, negated, depth + 1)
                .map_err(|inside| Finding {
                    span: whole,
                    message: format!("in variable `${name}`: {}", inside.message),
                    help: inside.help,
                });
        }
        if inner.is_empty() {
            return fail("empty element".into(), None);
        }
        match (self.parse)(inner) {
            Ok(element) if negated => self.excluded.push(element),
            Ok(element) => self.included.push(element),
            Err(message) => return fail(message, None),
        }
        Ok(())
    }
}

fn flatten<E>(
    text: &str,
    variables: &BTreeMap<String, String>,
    parse: fn(&str) -> Result<E, String>,
) -> Result<(Vec<E>, Vec<E>), Finding> {
    let mut flattener = Flattener {
        variables,
        parse,
        included: Vec::new(),
        excluded: Vec::new(),
    };
    flattener.list(text, 0, false, 0)?;
    Ok((flattener.included, flattener.excluded))
}

fn nothing_left(text: &str) -> Finding {
    Finding {
        span: Span {
            start: 0,
            end: text.len(),
        },
        message: "matches nothing: everything in it is also excluded".into(),
        help: None,
    }
}

/// Parses an address expression.
pub(super) fn addresses(text: &str, variables: &Variables) -> Result<AddressSet, Finding> {
    let (included, excluded) = flatten(text, variables.addresses(), address)?;
    let included = match included.as_slice() {
        [] => AddressSet::all(),
        elements => union(elements),
    };
    let set = included.without(&union(&excluded));
    if set.is_empty() {
        return Err(nothing_left(text));
    }
    Ok(set)
}

/// Whether an address expression names addresses by what they are not.
pub(super) fn excludes(text: &str, variables: &Variables) -> bool {
    flatten(text, variables.addresses(), address).is_ok_and(|(_, excluded)| !excluded.is_empty())
}

/// Parses a port expression.
pub(super) fn ports(text: &str, variables: &Variables) -> Result<PortSet, Finding> {
    let (included, excluded) = flatten(text, variables.ports(), port_range)?;
    let included = match included.as_slice() {
        [] => PortSet::all(),
        _ => PortSet::of(included),
    };
    let set = included.without(&PortSet::of(excluded));
    if set.is_empty() {
        return Err(nothing_left(text));
    }
    Ok(set)
}

#[derive(Clone, Copy)]
enum AddressRange {
    Any,
    V4(u32, u32),
    V6(u128, u128),
}

fn union(elements: &[AddressRange]) -> AddressSet {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for element in elements {
        match *element {
            AddressRange::Any => return AddressSet::all(),
            AddressRange::V4(low, high) => v4.push((low, high)),
            AddressRange::V6(low, high) => v6.push((low, high)),
        }
    }
    AddressSet {
        v4: RangeSet::of(v4),
        v6: RangeSet::of(v6),
    }
}

fn address(text: &str) -> Result<AddressRange, String> {
    if text.eq_ignore_ascii_case("any") {
        return Ok(AddressRange::Any);
    }
    let not_an_address = |text: &str| format!("`{text}` is not an address");
    if let Some((low, high)) = text.split_once('-') {
        let low_address: IpAddr = low.trim().parse().map_err(|_| not_an_address(low))?;
        let high_address: IpAddr = high.trim().parse().map_err(|_| not_an_address(high))?;
        return match (low_address, high_address) {
            (IpAddr::V4(low), IpAddr::V4(high)) if low <= high => {
                Ok(AddressRange::V4(low.into(), high.into()))
            }
            (IpAddr::V6(low), IpAddr::V6(high)) if low <= high => {
                Ok(AddressRange::V6(low.into(), high.into()))
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
                Err(format!("`{text}` mixes IPv4 and IPv6"))
            }
            _ => Err(format!("`{text}` is a reversed range")),
        };
    }
    let (base, mask) = match text.split_once('/') {
        Some((base, mask)) => (base, Some(mask)),
        None => (text, None),
    };
    match base.parse().map_err(|_| not_an_address(base))? {
        IpAddr::V4(v4) => {
            let mask = match mask {
                None => u32::MAX,
                Some(mask) => v4_mask(mask).ok_or_else(|| {
                    format!("`/{mask}` is neither a prefix length up to 32 nor a netmask")
                })?,
            };
            let low = u32::from(v4) & mask;
            Ok(AddressRange::V4(low, low | !mask))
        }
        IpAddr::V6(v6) => {
            let mask = match mask {
                None => u128::MAX,
                Some(mask) => v6_mask(mask)
                    .ok_or_else(|| format!("`/{mask}` is not a prefix length up to 128"))?,
            };
            let low = u128::from(v6) & mask;
            Ok(AddressRange::V6(low, low | !mask))
        }
    }
}

fn v4_mask(text: &str) -> Option<u32> {
    if let Ok(mask) = text.parse::<Ipv4Addr>() {
        let mask = u32::from(mask);
        return (mask.leading_ones() + mask.trailing_zeros() == 32 || mask == 0).then_some(mask);
    }
    let length: u32 = decimal(text)?;
    (length <= 32).then(|| u32::MAX.checked_shl(32 - length).unwrap_or(0))
}

fn v6_mask(text: &str) -> Option<u128> {
    let length: u32 = decimal(text)?;
    (length <= 128).then(|| u128::MAX.checked_shl(128 - length).unwrap_or(0))
}

fn port_range(text: &str) -> Result<(u16, u16), String> {
    if text.eq_ignore_ascii_case("any") {
        return Ok((0, u16::MAX));
    }
    let port = |text: &str| {
        decimal::<u16>(text.trim())
            .ok_or_else(|| format!("`{}` is not a port (0 to 65535)", text.trim()))
    };
    match text.split_once(':') {
        None => {
            let port = port(text)?;
            Ok((port, port))
        }
        Some(("", "")) => Err("a range needs at least one end".into()),
        Some((low, "")) => Ok((port(low)?, u16::MAX)),
        Some(("", high)) => Ok((0, port(high)?)),
        Some((low, high)) => match (port(low)?, port(high)?) {
            (low, high) if low <= high => Ok((low, high)),
            _ => Err(format!("`{text}` is a reversed range")),
        },
    }
}

/// A decimal number without sign.
pub(super) fn decimal<N: std::str::FromStr>(text: &str) -> Option<N> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_mean_what_they_say() {
        let check = |text: &str, inside: &[&str], outside: &[&str]| {
            let set =
                addresses(text, &Variables::default()).unwrap_or_else(|e| panic!("{text}: {e:?}"));
            for ip in inside {
                assert!(set.contains(ip.parse().unwrap()), "{ip} in {text}");
            }
            for ip in outside {
                assert!(!set.contains(ip.parse().unwrap()), "{ip} not in {text}");
            }
        };
        check("any", &["1.2.3.4", "::1"], &[]);
        check(
            "192.0.2.1",
            &["192.0.2.1"],
            &["192.0.2.2", "::1", "::ffff:192.0.2.1"],
        );
        check(
            "192.0.2.77/24",
            &["192.0.2.0", "192.0.2.255"],
            &["192.0.3.0"],
        );
        check("192.0.2.77/255.255.255.0", &["192.0.2.0"], &["192.0.3.0"]);
        check("0.0.0.0/0", &["255.255.255.255"], &["::1"]);
        check("10.0.0.5-10.0.0.7", &["10.0.0.6"], &["10.0.0.8"]);
        check(
            "2001:db8::/32",
            &["2001:db8:ffff::"],
            &["2001:db9::", "1.2.3.4"],
        );
        check("!10.0.0.0/8", &["11.0.0.0", "::1"], &["10.2.3.4"]);
        check(
            "[10.0.0.0/8, !10.1.0.0/16]",
            &["10.2.0.0"],
            &["10.1.2.3", "9.9.9.9"],
        );
        check(
            "[10.0.0.0/8,![10.1.0.0/16,10.2.0.0/16]]",
            &["10.3.0.0"],
            &["10.2.0.1"],
        );
        check("$HOME_NET", &["192.168.1.1", "172.31.0.1"], &["8.8.8.8"]);
        check("$EXTERNAL_NET", &["8.8.8.8", "2001:db8::1"], &["10.0.0.1"]);
        check("!$EXTERNAL_NET", &["10.0.0.1"], &["8.8.8.8"]);
        check(
            "[$HOME_NET,8.8.8.8]",
            &["8.8.8.8", "10.0.0.1"],
            &["8.8.4.4"],
        );
    }

    #[test]
    fn ports_mean_what_they_say() {
        let check = |text: &str, expect: &[(u16, u16)]| {
            let set =
                ports(text, &Variables::default()).unwrap_or_else(|e| panic!("{text}: {e:?}"));
            assert_eq!(set.ranges(), expect, "{text}");
        };
        check("any", &[(0, 65535)]);
        check("80", &[(80, 80)]);
        check("1024:", &[(1024, 65535)]);
        check(":1023", &[(0, 1023)]);
        check("80:90", &[(80, 90)]);
        check("!80", &[(0, 79), (81, 65535)]);
        check(
            "[80,443, 8000:8100,!8080]",
            &[(80, 80), (443, 443), (8000, 8079), (8081, 8100)],
        );
        check("![25,587]", &[(0, 24), (26, 586), (588, 65535)]);
        check("$FILE_DATA_PORTS", &[(80, 80), (110, 110), (143, 143)]);
        check("!$SHELLCODE_PORTS", &[(80, 80)]);
    }

    #[test]
    fn mistakes_are_named_and_placed() {
        let check = |found: Finding, place: (usize, usize), message: &str| {
            assert_eq!((found.span.start, found.span.end), place, "{found:?}");
            assert!(found.message.contains(message), "{found:?}");
        };
        let vars = Variables::default();
        let bad_address = |text: &str| addresses(text, &vars).unwrap_err();
        let bad_port = |text: &str| ports(text, &vars).unwrap_err();
        check(bad_address("10.0.0.0/33"), (0, 11), "/33");
        check(
            bad_address("[1.1.1.1,1.2.3]"),
            (9, 14),
            "`1.2.3` is not an address",
        );
        check(bad_address("[1.1.1.1,,2.2.2.2]"), (9, 9), "empty");
        check(bad_address("[1.1.1.1"), (0, 8), "without `]`");
        check(bad_address("$HOME_NETT"), (0, 10), "undefined");
        check(bad_address("!any"), (0, 4), "matches nothing");
        check(bad_address("1.1.1.1-::1"), (0, 11), "mixes");
        check(bad_address("1.1.1.1/255.0.255.0"), (0, 19), "netmask");
        check(bad_port("99999"), (0, 5), "not a port");
        check(bad_port("90:80"), (0, 5), "reversed");
        check(bad_port(":"), (0, 1), "at least one end");
        check(bad_port("[80,!80]"), (0, 8), "matches nothing");
        check(bad_port("+80"), (0, 3), "not a port");
        assert_eq!(
            bad_address("$HOME_NETT").help.as_deref(),
            Some("did you mean `$HOME_NET`?")
        );
        let mut cyclic = Variables::default();
        cyclic.set_addresses("HOME_NET", "!$EXTERNAL_NET");
        assert!(
            addresses("$HOME_NET", &cyclic)
                .unwrap_err()
                .message
                .contains("nested")
        );
    }
}
