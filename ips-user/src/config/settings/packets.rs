//! What concerns single packets: `decoder`, `vlan`, `pcap-file`, `host-os-policy`.

use std::net::IpAddr;

use serde::Serialize;
use serde_json::Value;

use super::node::{Fault, Leaf, settings};
use super::value::choice;

settings! {
    /// `decoder`
    pub Decoder {
        /// Most protocols on top of each other.
        max_layers("max-layers"): u8 = 16,
        /// IPv6 in UDP (RFC 4380).
        teredo("teredo"): PortDecoder = PortDecoder::on("$TEREDO_PORTS"),
        /// RFC 7348.
        vxlan("vxlan"): PortDecoder = PortDecoder::on("$VXLAN_PORTS"),
        /// RFC 8926.
        geneve("geneve"): PortDecoder = PortDecoder::on("$GENEVE_PORTS"),
        /// Mirrored frames in GRE.
        erspan("erspan"): Erspan = Erspan::default(),
        /// Whether the same addresses in and out of a tunnel are different flows.
        recursion_level("recursion-level"): Tracking = Tracking::default(),
    }
}

settings! {
    /// A tunnel that is known by its UDP port.
    pub PortDecoder {
        /// Whether it is looked into.
        enabled("enabled"): bool = true,
        /// Ports, as in the header of a rule.
        ports("ports"): String = String::new(),
    }
}

impl PortDecoder {
    fn on(ports: &str) -> Self {
        Self {
            ports: ports.to_owned(),
            ..Self::default()
        }
    }
}

settings! {
    /// `decoder.erspan`
    pub Erspan {
        /// Frames without a header of ERSPAN's own.
        type1("typeI"): ErspanType1 = ErspanType1::default(),
    }
}

settings! {
    /// `decoder.erspan.typeI`
    pub ErspanType1 {
        /// Whether they are looked into: anything in GRE could be one.
        enabled("enabled"): bool = false,
    }
}

settings! {
    /// Whether something tells flows apart: `vlan`, `decoder.recursion-level`.
    pub Tracking {
        /// Whether equal addresses are different flows when it differs.
        use_for_tracking("use-for-tracking"): bool = true,
    }
}

settings! {
    /// `pcap-file`
    pub PcapFile {
        /// Whether checksums in captures mean anything.
        checksum_checks("checksum-checks"): ChecksumChecks = ChecksumChecks::Auto,
    }
}

choice! {
    /// `pcap-file.checksum-checks`
    pub ChecksumChecks {
        /// Until too many of them are wrong: then the capture was made where they are computed
        /// by the card.
        Auto = "auto",
        /// Yes.
        Yes = "yes" | "true" | "on" | "1",
        /// No.
        No = "no" | "false" | "off" | "0",
    }
}

choice! {
    /// A stack, by how it reads fragments and segments that overlap.
    pub OsPolicy {
        /// `windows`
        Windows = "windows",
        /// `bsd`
        Bsd = "bsd",
        /// `bsd-right`
        BsdRight = "bsd-right",
        /// `old-linux`
        OldLinux = "old-linux",
        /// `linux`
        Linux = "linux",
        /// `old-solaris`
        OldSolaris = "old-solaris",
        /// `solaris`
        Solaris = "solaris",
        /// `hpux10`
        Hpux10 = "hpux10",
        /// `hpux11`
        Hpux11 = "hpux11",
        /// `irix`
        Irix = "irix",
        /// `macos`
        Macos = "macos",
        /// `vista`
        Vista = "vista",
        /// `windows2k3`
        Windows2k3 = "windows2k3",
        /// `first`
        First = "first",
        /// `last`
        Last = "last",
    }
}

settings! {
    /// `host-os-policy`: networks by the stack of their hosts. The longest prefix counts.
    pub HostPolicies {
        /// See [`OsPolicy`].
        windows("windows"): Vec<Network> = vec![Network::ALL_V4],
        /// See [`OsPolicy`].
        bsd("bsd"): Vec<Network> = Vec::new(),
        /// See [`OsPolicy`].
        bsd_right("bsd-right"): Vec<Network> = Vec::new(),
        /// See [`OsPolicy`].
        old_linux("old-linux"): Vec<Network> = Vec::new(),
        /// See [`OsPolicy`].
        linux("linux"): Vec<Network> = Vec::new(),
        /// See [`OsPolicy`].
        old_solaris("old-solaris"): Vec<Network> = Vec::new(),
        /// See [`OsPolicy`].
        solaris("solaris"): Vec<Network> = Vec::new(),
        /// See [`OsPolicy`].
        hpux10("hpux10"): Vec<Network> = Vec::new(),
        /// See [`OsPolicy`].
        hpux11("hpux11"): Vec<Network> = Vec::new(),
        /// See [`OsPolicy`].
        irix("irix"): Vec<Network> = Vec::new(),
        /// See [`OsPolicy`].
        macos("macos"): Vec<Network> = Vec::new(),
        /// See [`OsPolicy`].
        vista("vista"): Vec<Network> = Vec::new(),
        /// See [`OsPolicy`].
        windows2k3("windows2k3"): Vec<Network> = Vec::new(),
    }
}

impl HostPolicies {
    /// Every network with its stack.
    pub fn networks(&self) -> impl Iterator<Item = (Network, OsPolicy)> {
        let all = [
            (&self.windows, OsPolicy::Windows),
            (&self.bsd, OsPolicy::Bsd),
            (&self.bsd_right, OsPolicy::BsdRight),
            (&self.old_linux, OsPolicy::OldLinux),
            (&self.linux, OsPolicy::Linux),
            (&self.old_solaris, OsPolicy::OldSolaris),
            (&self.solaris, OsPolicy::Solaris),
            (&self.hpux10, OsPolicy::Hpux10),
            (&self.hpux11, OsPolicy::Hpux11),
            (&self.irix, OsPolicy::Irix),
            (&self.macos, OsPolicy::Macos),
            (&self.vista, OsPolicy::Vista),
            (&self.windows2k3, OsPolicy::Windows2k3),
        ];
        all.into_iter()
            .flat_map(|(networks, policy)| networks.iter().map(move |network| (*network, policy)))
    }

    /// The stack of a host: of the smallest network that it is in, BSD's when it is in none.
    pub fn of(&self, host: IpAddr) -> OsPolicy {
        self.networks()
            .filter(|(network, _)| network.contains(host))
            .max_by_key(|(network, _)| network.prefix)
            .map_or(OsPolicy::Bsd, |(_, policy)| policy)
    }
}

/// An address with the length of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Any address in it.
    pub address: IpAddr,
    /// Bits that all its addresses have in common.
    pub prefix: u8,
}

impl Network {
    /// Every IPv4 address.
    pub const ALL_V4: Self = Self {
        address: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        prefix: 0,
    };

    /// Whether `host` is in it.
    pub fn contains(&self, host: IpAddr) -> bool {
        let (a, b, bits) = match (self.address, host) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                (u128::from(u32::from(a)), u128::from(u32::from(b)), 32)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => (u128::from(a), u128::from(b), 128),
            _ => return false,
        };
        (a ^ b)
            .checked_shr(bits - u32::from(self.prefix))
            .unwrap_or(0)
            == 0
    }
}

impl Serialize for Network {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}/{}", self.address, self.prefix))
    }
}

impl Leaf for Network {
    fn parse(value: &Value) -> Result<Self, Fault> {
        let wrong = || Fault::expected("a network, for example 192.0.2.0/24", value);
        let text = value.as_str().ok_or_else(wrong)?.trim();
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.trim().parse().map_err(|_| wrong())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => bits,
            Some(prefix) => prefix.trim().parse().map_err(|_| wrong())?,
        };
        match prefix <= bits {
            true => Ok(Self { address, prefix }),
            false => Err(wrong()),
        }
    }
}
