//! `$HOME_NET` and the like.

use std::collections::BTreeMap;

/// Values of the address and port variables of rules.
///
/// The defaults are the stock values of Suricata's configuration, so that published rules
/// load unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variables {
    addresses: BTreeMap<String, String>,
    ports: BTreeMap<String, String>,
}

const ADDRESSES: [(&str, &str); 15] = [
    ("HOME_NET", "[192.168.0.0/16,10.0.0.0/8,172.16.0.0/12]"),
    ("EXTERNAL_NET", "!$HOME_NET"),
    ("HTTP_SERVERS", "$HOME_NET"),
    ("SMTP_SERVERS", "$HOME_NET"),
    ("SQL_SERVERS", "$HOME_NET"),
    ("DNS_SERVERS", "$HOME_NET"),
    ("TELNET_SERVERS", "$HOME_NET"),
    ("AIM_SERVERS", "$EXTERNAL_NET"),
    ("DC_SERVERS", "$HOME_NET"),
    ("DNP3_SERVER", "$HOME_NET"),
    ("DNP3_CLIENT", "$HOME_NET"),
    ("MODBUS_CLIENT", "$HOME_NET"),
    ("MODBUS_SERVER", "$HOME_NET"),
    ("ENIP_CLIENT", "$HOME_NET"),
    ("ENIP_SERVER", "$HOME_NET"),
];

const PORTS: [(&str, &str); 12] = [
    ("HTTP_PORTS", "80"),
    ("SHELLCODE_PORTS", "!80"),
    ("ORACLE_PORTS", "1521"),
    ("SSH_PORTS", "22"),
    ("DNP3_PORTS", "20000"),
    ("MODBUS_PORTS", "502"),
    ("FILE_DATA_PORTS", "[$HTTP_PORTS,110,143]"),
    ("FTP_PORTS", "21"),
    ("GENEVE_PORTS", "6081"),
    ("VXLAN_PORTS", "4789"),
    ("TEREDO_PORTS", "3544"),
    ("SIP_PORTS", "[5060,5061]"),
];

impl Default for Variables {
    fn default() -> Self {
        let owned = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect()
        };
        Self {
            addresses: owned(&ADDRESSES),
            ports: owned(&PORTS),
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
