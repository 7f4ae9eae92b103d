//! Which stack an address has: `host-os-policy`, by the longest prefix.

use std::net::IpAddr;
use std::ops::Range;

use crate::config::settings::{HostPolicies, Network, OsPolicy};

/// Networks with a value each, asked for the longest that contains an address.
///
/// IPv4 networks are kept as IPv4-mapped ones, so that one order suffices. A question costs a
/// binary search for each length of prefix that is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixTable<T> {
    /// Sorted by length, the longest first, then by prefix.
    networks: Vec<(u128, T)>,
    lengths: Vec<(u8, Range<usize>)>,
}

impl<T> Default for PrefixTable<T> {
    fn default() -> Self {
        Self {
            networks: Vec::new(),
            lengths: Vec::new(),
        }
    }
}

impl<T: Copy> FromIterator<(Network, T)> for PrefixTable<T> {
    /// Of two equal networks the last counts.
    fn from_iter<I: IntoIterator<Item = (Network, T)>>(networks: I) -> Self {
        let mut all: Vec<(u8, u128, T)> = networks
            .into_iter()
            .map(|(network, value)| {
                let mapped = if network.address.is_ipv4() { 96 } else { 0 };
                let len = network.prefix.saturating_add(mapped).min(128);
                (len, masked(number(network.address), len), value)
            })
            .collect();
        // Stable, so that equal networks stay in their order.
        all.sort_by_key(|(len, prefix, _)| (std::cmp::Reverse(*len), *prefix));
        let mut table = Self::default();
        for (len, prefix, value) in all {
            let at = table.networks.len();
            match table.lengths.last_mut() {
                Some((last, range)) if *last == len => {
                    if let Some(equal) = table.networks.last_mut()
                        && equal.0 == prefix
                    {
                        equal.1 = value;
                        continue;
                    }
                    range.end = at + 1;
                }
                _ => table.lengths.push((len, at..at + 1)),
            }
            table.networks.push((prefix, value));
        }
        table
    }
}

impl<T: Copy> PrefixTable<T> {
    /// The value of the longest network that contains `address`.
    pub fn get(&self, address: IpAddr) -> Option<T> {
        let address = number(address);
        self.lengths.iter().find_map(|(len, range)| {
            let networks = self.networks.get(range.clone())?;
            let wanted = masked(address, *len);
            let found = networks.binary_search_by_key(&wanted, |(prefix, _)| *prefix);
            found.ok().and_then(|at| networks.get(at)).map(|it| it.1)
        })
    }
}

fn number(address: IpAddr) -> u128 {
    u128::from(match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    })
}

fn masked(address: u128, len: u8) -> u128 {
    address & u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0)
}

/// The stacks of hosts; BSD's where nothing is known, as in Suricata.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostPolicyTable(PrefixTable<OsPolicy>);

impl HostPolicyTable {
    /// Ready to be asked for every new flow and datagram.
    pub fn new(settings: &HostPolicies) -> Self {
        settings.networks().collect()
    }

    /// The stack of a host.
    pub fn of(&self, host: IpAddr) -> OsPolicy {
        self.0.get(host).unwrap_or(OsPolicy::Bsd)
    }
}

impl FromIterator<(Network, OsPolicy)> for HostPolicyTable {
    fn from_iter<I: IntoIterator<Item = (Network, OsPolicy)>>(networks: I) -> Self {
        Self(networks.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn network(address: IpAddr, prefix: u8) -> Network {
        Network { address, prefix }
    }

    #[test]
    fn the_longest_prefix_counts_and_the_last_of_equals() {
        let parse = |text: &str| {
            let (address, prefix) = text.split_once('/').unwrap();
            network(address.parse().unwrap(), prefix.parse().unwrap())
        };
        let table: PrefixTable<u8> = [
            ("0.0.0.0/0", 1),
            ("10.0.0.0/8", 2),
            ("10.1.2.3/32", 3),
            ("10.0.0.0/8", 4),
            ("2001:db8::/32", 5),
            ("::/0", 6),
        ]
        .map(|(text, value)| (parse(text), value))
        .into_iter()
        .collect();
        for (address, expect) in [
            ("192.0.2.1", 1),
            ("10.9.9.9", 4),
            ("10.1.2.3", 3),
            ("2001:db8::9", 5),
            ("fe80::1", 6),
        ] {
            assert_eq!(
                table.get(address.parse().unwrap()),
                Some(expect),
                "{address}"
            );
        }
        assert_eq!(PrefixTable::<u8>::default().get([1, 1, 1, 1].into()), None);
    }

    proptest! {
        #[test]
        fn a_table_agrees_with_a_look_at_every_network(
            networks in proptest::collection::vec((0u32..64, 24u8..=32, any::<u8>()), 0..40),
            asked in 0u32..64,
        ) {
            let address = |low: u32| IpAddr::from([10, 0, 0, low as u8]);
            let networks: Vec<_> = networks
                .into_iter()
                .map(|(low, prefix, value)| (network(address(low), prefix), value))
                .collect();
            let slow = networks
                .iter()
                .enumerate()
                .filter(|(_, (network, _))| network.contains(address(asked)))
                .max_by_key(|(at, (network, _))| (network.prefix, *at))
                .map(|(_, (_, value))| *value);
            let table: PrefixTable<u8> = networks.into_iter().collect();
            prop_assert_eq!(table.get(address(asked)), slow);
        }
    }
}
