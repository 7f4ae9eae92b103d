//! Countries of addresses, for `geoip`.
//!
//! A database is read once, when rules are compiled, into sets of addresses like those of rules'
//! headers: nothing of it is needed afterwards.

use std::path::Path;

use crate::rules::Sources;
use crate::rules::ast::AddressSet;
use crate::rules::range_set::RangeSet;

/// Ranges of IPv4 and of IPv6 addresses.
#[derive(Default)]
struct Ranges {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

/// Addresses of some countries, and all whose country is known.
pub(super) struct Found {
    pub(super) of: AddressSet,
    pub(super) known: AddressSet,
}

/// Reads a MaxMind database.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read(
    database: &Path,
    sources: &Sources,
    countries: &[String],
) -> Result<Found, String> {
    let fail = |error: maxminddb::MaxMindDbError| format!("{}: {error}", database.display());
    let bytes = sources.read(database);
    let bytes = bytes.map_err(|error| format!("{}: {error}", database.display()))?;
    let reader = maxminddb::Reader::from_source(bytes).map_err(fail)?;
    let path = [
        maxminddb::PathElement::Key("country"),
        maxminddb::PathElement::Key("iso_code"),
    ];
    let (mut of, mut known) = (Ranges::default(), Ranges::default());
    for network in reader
        .networks(maxminddb::WithinOptions::default())
        .map_err(fail)?
    {
        let network = network.map_err(fail)?;
        let Some(code) = network.decode_path::<String>(&path).map_err(fail)? else {
            continue;
        };
        let prefix = network.network().map_err(fail)?;
        let wanted = countries
            .iter()
            .any(|country| country.eq_ignore_ascii_case(&code));
        let length = u32::from(prefix.prefix());
        let add = |sets: &mut Ranges| match prefix.ip() {
            std::net::IpAddr::V4(address) => {
                let size = u32::MAX.checked_shr(length).unwrap_or(0);
                let low = u32::from(address) & !size;
                sets.v4.push((low, low | size));
            }
            std::net::IpAddr::V6(address) => {
                // IPv4 is the beginning of the tree of IPv6.
                let low = u128::from(address);
                if length >= 96 && low <= u128::from(u32::MAX) {
                    let size = u32::MAX.checked_shr(length - 96).unwrap_or(0);
                    sets.v4.push((low as u32, low as u32 | size));
                } else {
                    let size = u128::MAX.checked_shr(length).unwrap_or(0);
                    sets.v6.push((low & !size, low | size));
                }
            }
        };
        if wanted {
            add(&mut of);
        }
        add(&mut known);
    }
    let set = |ranges: Ranges| AddressSet {
        v4: RangeSet::of(ranges.v4),
        v6: RangeSet::of(ranges.v6),
    };
    Ok(Found {
        of: set(of),
        known: set(known),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// A string, map or number of the MaxMind DB format: control byte, then content.
    fn string(text: &str) -> Vec<u8> {
        [&[0x40 | text.len() as u8][..], text.as_bytes()].concat()
    }

    fn map(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = vec![0xe0 | entries.len() as u8];
        for (key, value) in entries {
            bytes.extend(string(key));
            bytes.extend(value);
        }
        bytes
    }

    fn u16(value: u16) -> Vec<u8> {
        [&[0xa2][..], &value.to_be_bytes()].concat()
    }

    fn u32(value: u32) -> Vec<u8> {
        [&[0xc4][..], &value.to_be_bytes()].concat()
    }

    /// Maps 1.0.0.0/8 to AU and 2.0.0.0/7 to DE.
    fn database() -> Vec<u8> {
        let countries = [("AU", 1u32, 8), ("DE", 2, 7)];
        let record = |code: &str| map(&[("country", map(&[("iso_code", string(code))]))]);
        let data: Vec<Vec<u8>> = countries.iter().map(|(code, ..)| record(code)).collect();
        // Nodes as pairs; u32::MAX: nothing, and with the highest bit: which country.
        let mut nodes: Vec<[u32; 2]> = vec![[u32::MAX; 2]];
        const COUNTRY: u32 = 1 << 31;
        for (number, (_, first_byte, length)) in (0u32..).zip(countries) {
            let mut node = 0;
            for at in 0..length {
                let side = (first_byte >> (7 - at) & 1) as usize;
                if at + 1 == length {
                    nodes[node][side] = COUNTRY | number;
                } else {
                    if nodes[node][side] == u32::MAX {
                        nodes.push([u32::MAX; 2]);
                        nodes[node][side] = nodes.len() as u32 - 1;
                    }
                    node = nodes[node][side] as usize;
                }
            }
        }
        let count = nodes.len() as u32;
        let mut bytes = Vec::new();
        for value in nodes.iter().flatten() {
            let value = match *value {
                u32::MAX => count,
                it if it & COUNTRY != 0 => {
                    let before = &data[..(it & !COUNTRY) as usize];
                    count + 16 + before.iter().map(Vec::len).sum::<usize>() as u32
                }
                it => it,
            };
            bytes.extend(&value.to_be_bytes()[1..]);
        }
        bytes.extend([0; 16]);
        bytes.extend(data.concat());
        bytes.extend(b"\xab\xcd\xefMaxMind.com");
        bytes.extend(map(&[
            ("binary_format_major_version", u16(2)),
            ("binary_format_minor_version", u16(0)),
            ("build_epoch", u32(1)),
            ("database_type", string("Test")),
            ("description", map(&[])),
            ("ip_version", u16(4)),
            ("languages", vec![0x00, 0x04]),
            ("node_count", u32(count)),
            ("record_size", u16(24)),
        ]));
        bytes
    }

    #[test]
    fn addresses_are_told_by_country() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&database()).unwrap();
        let of = |countries: &[&str]| {
            let countries: Vec<String> = countries.iter().map(|it| (*it).into()).collect();
            let found = read(file.path(), &Sources::disk(), &countries).unwrap();
            (
                found.of.v4.ranges().to_vec(),
                found.known.v4.ranges().to_vec(),
            )
        };
        let known = vec![(0x0100_0000, 0x03ff_ffff)];
        assert_eq!(
            of(&["AU"]),
            (vec![(0x0100_0000, 0x01ff_ffff)], known.clone())
        );
        assert_eq!(
            of(&["de", "FR"]),
            (vec![(0x0200_0000, 0x03ff_ffff)], known.clone())
        );
        assert_eq!(of(&["FR"]), (vec![], known.clone()));
        assert_eq!(of(&["DE", "AU"]), (known.clone(), known));
    }

    #[test]
    fn what_is_no_database_is_named() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"something else").unwrap();
        let error = read(file.path(), &Sources::disk(), &[]).err().unwrap();
        assert!(
            error.contains(&file.path().display().to_string()),
            "{error}"
        );
        assert!(read(Path::new("/nonexistent"), &Sources::disk(), &[]).is_err());
    }

    #[test]
    fn countries_stay_as_they_were_when_rules_were_compiled() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&database()).unwrap();
        let path = file.path().to_owned();
        let kept = Sources::file().unwrap();
        let keeping = Sources::keeping(kept.try_clone().unwrap()).unwrap();
        let before = read(&path, &keeping, &["DE".into()]).unwrap().of;
        drop(file);
        // Of other countries, with the same database.
        let other = read(&path, &keeping, &["AU".into()]).unwrap().of;
        assert_ne!(before, other);
        keeping.finish().unwrap();
        let again = read(&path, &Sources::kept(kept).unwrap(), &["DE".into()]);
        assert_eq!(again.unwrap().of, before);
    }
}
