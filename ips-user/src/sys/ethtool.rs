//! `SIOCETHTOOL`: what a network driver can do and has switched on.
//!
//! The ioctl, unlike `/sys/class/net`, answers for the calling thread's network namespace.
//! Numbers and layouts: `linux/ethtool.h`.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

const SIOCETHTOOL: libc::c_ulong = 0x8946;

const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GRINGPARAM: u32 = 0x10;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_SFLAGS: u32 = 0x26;
const ETHTOOL_GGRO: u32 = 0x2b;
const ETHTOOL_SGRO: u32 = 0x2c;
const ETHTOOL_GCHANNELS: u32 = 0x3c;

const ETH_FLAG_RXVLAN: u32 = 1 << 8;
const ETH_FLAG_LRO: u32 = 1 << 15;
const ETH_FLAG_RXHASH: u32 = 1 << 28;

/// Receive offloads of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offloads {
    /// Software aggregation that can be undone when forwarding (generic receive offload).
    pub gro: bool,
    /// Hardware aggregation that cannot (large receive offload).
    pub lro: bool,
    /// The VLAN tag is taken out of the frame and kept beside it.
    pub rx_vlan: bool,
    /// The hardware computes a receive hash.
    pub rx_hash: bool,
}

/// Receive queues of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channels {
    /// Queues in use that receive.
    pub receiving: u32,
    /// Most that the driver offers.
    pub receiving_max: u32,
}

/// Receive ring of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiveRing {
    /// Descriptors in use.
    pub entries: u32,
    /// Most that the driver offers.
    pub entries_max: u32,
}

/// One interface, addressed by name.
#[derive(Debug)]
pub struct Ethtool {
    socket: OwnedFd,
    name: [libc::c_char; libc::IFNAMSIZ],
}

/// A request of `N` 32-bit words, the first of which is the command.
type Words<const N: usize> = [u32; N];

impl Ethtool {
    /// Prepares requests about `interface` in the calling thread's network namespace.
    ///
    /// # Errors
    /// When the name cannot be an interface's or no socket can be made.
    pub fn new(interface: &str) -> io::Result<Self> {
        let mut name = [0; libc::IFNAMSIZ];
        if interface.is_empty() || interface.len() >= libc::IFNAMSIZ || interface.contains('\0') {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        for (slot, byte) in name.iter_mut().zip(interface.bytes()) {
            *slot = libc::c_char::from_ne_bytes([byte]);
        }
        let socket = socket(
            AddressFamily::Inet,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC,
            None,
        )?;
        Ok(Self { socket, name })
    }

    fn request<const N: usize>(&self, words: &mut Words<N>) -> io::Result<()> {
        let mut request = libc::ifreq {
            ifr_name: self.name,
            ifr_ifru: libc::__c_anonymous_ifr_ifru {
                ifru_data: words.as_mut_ptr().cast(),
            },
        };
        // SAFETY: `request` and what it points to live through the call. Every caller sizes
        // `words` as the structure of its command, which has a fixed size in the kernel's ABI,
        // so the kernel writes inside of it only.
        let result = unsafe { libc::ioctl(self.socket.as_raw_fd(), SIOCETHTOOL, &mut request) };
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }

    /// The hardware type (`ARPHRD_`, linux/if_arp.h).
    ///
    /// # Errors
    /// `ENODEV` when there is no such interface.
    pub fn hardware_type(&self) -> io::Result<u16> {
        let mut request = libc::ifreq {
            ifr_name: self.name,
            ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: 0 },
        };
        // SAFETY: `request` lives through the call, which writes inside of it only.
        let result =
            unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::SIOCGIFHWADDR, &mut request) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: SIOCGIFHWADDR has filled in this variant (netdevice(7)).
        Ok(unsafe { request.ifr_ifru.ifru_hwaddr.sa_family })
    }

    fn value(&self, command: u32) -> io::Result<u32> {
        let mut words = [command, 0]; // struct ethtool_value
        self.request(&mut words)?;
        Ok(words[1])
    }

    /// The driver's name.
    ///
    /// # Errors
    /// `ENODEV` when there is no such interface, `EOPNOTSUPP` when the driver does not say.
    pub fn driver(&self) -> io::Result<String> {
        let mut words = [0; 49]; // struct ethtool_drvinfo: 196 bytes
        words[0] = ETHTOOL_GDRVINFO;
        self.request(&mut words)?;
        // char driver[32] follows the command.
        let name = words[1..9]
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .take_while(|&byte| byte != 0)
            .collect();
        String::from_utf8(name).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
    }

    /// Receive offloads.
    ///
    /// # Errors
    /// The ioctl's.
    pub fn offloads(&self) -> io::Result<Offloads> {
        let flags = self.value(ETHTOOL_GFLAGS)?;
        Ok(Offloads {
            gro: self.value(ETHTOOL_GGRO)? != 0,
            lro: flags & ETH_FLAG_LRO != 0,
            rx_vlan: flags & ETH_FLAG_RXVLAN != 0,
            rx_hash: flags & ETH_FLAG_RXHASH != 0,
        })
    }

    /// Switches generic receive offload.
    ///
    /// # Errors
    /// The ioctl's.
    pub fn set_gro(&self, on: bool) -> io::Result<()> {
        self.request(&mut [ETHTOOL_SGRO, u32::from(on)])
    }

    /// Switches large receive offload off.
    ///
    /// # Errors
    /// The ioctl's.
    pub fn disable_lro(&self) -> io::Result<()> {
        let flags = self.value(ETHTOOL_GFLAGS)?;
        self.request(&mut [ETHTOOL_SFLAGS, flags & !ETH_FLAG_LRO])
    }

    /// Receive queues.
    ///
    /// # Errors
    /// `EOPNOTSUPP` when the driver has no notion of them.
    pub fn channels(&self) -> io::Result<Channels> {
        // cmd, max rx/tx/other/combined, then the same four as they are.
        let mut words = [0; 9];
        words[0] = ETHTOOL_GCHANNELS;
        self.request(&mut words)?;
        Ok(Channels {
            receiving: words[5].saturating_add(words[8]),
            receiving_max: words[1].saturating_add(words[4]),
        })
    }

    /// Receive ring.
    ///
    /// # Errors
    /// `EOPNOTSUPP` when the driver has none.
    pub fn receive_ring(&self) -> io::Result<ReceiveRing> {
        // cmd, max rx/mini/jumbo/tx, then the same four as they are.
        let mut words = [0; 9];
        words[0] = ETHTOOL_GRINGPARAM;
        self.request(&mut words)?;
        Ok(ReceiveRing {
            entries: words[5],
            entries_max: words[1],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_does_not_exist_is_an_error() {
        let error = Ethtool::new("sluice-none").unwrap().driver().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }

    #[test]
    fn names_that_no_interface_can_have_are_refused() {
        for name in ["", "a-name-much-too-long", "a\0b"] {
            assert!(Ethtool::new(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn the_loopback_interface_has_generic_receive_offload_state() {
        let loopback = Ethtool::new("lo").unwrap();
        assert!(!loopback.offloads().unwrap().lro);
    }
}
