//! `$HOME_NET` and the like.

use std::collections::BTreeMap;

use crate::config::settings;

/// Values of the address and port variables of rules.
///
/// The defaults are the stock values of Suricata's configuration, so that published rules
/// load unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variables {
    addresses: BTreeMap<String, String>,
    ports: BTreeMap<String, String>,
}

impl Default for Variables {
    fn default() -> Self {
        let stock = settings::Variables::default();
        Self {
            addresses: stock.address_groups,
            ports: stock.port_groups,
        }
    }
}

impl Variables {
    /// Sets an address variable (name without `$`).
    pub fn set_addresses(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.addresses.insert(name.into(), value.into());
    }

    /// Sets a port variable (name without `$`).
    pub fn set_ports(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.ports.insert(name.into(), value.into());
    }

    pub(super) fn addresses(&self) -> &BTreeMap<String, String> {
        &self.addresses
    }

    pub(super) fn ports(&self) -> &BTreeMap<String, String> {
        &self.ports
    }
}
