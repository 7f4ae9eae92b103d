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
