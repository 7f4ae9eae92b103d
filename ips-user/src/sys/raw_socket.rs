//! Raw sockets that send packets built in userspace, from the IP header on.

use std::io;
use std::net::{IpAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, sendto,
    setsockopt, socket, sockopt,
};

use crate::verdict::RejectSender;

/// Sends rejections through the host's own routing.
///
/// `IPPROTO_RAW` means that the header is included, for IPv4 (raw(7)) and for IPv6 (Linux
/// `inet6_create`). The kernel fills in a zero IPv4 identification and the IPv4 checksum.
#[derive(Debug)]
pub struct RawSocket {
    v4: OwnedFd,
    /// `None` on hosts without IPv6.
    v6: Option<OwnedFd>,
    counters: RawSocketCounters,
}

/// Totals of a [`RawSocket`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RawSocketCounters {
    /// Packets sent.
    pub sent: u64,
    /// Packets that the kernel did not take: no route, full buffer, forbidden by a filter.
    pub failed: u64,
}

impl RawSocket {
    /// Opens both sockets, nonblocking. `mark` is the `skb->mark` of what is sent, so that
    /// Sluice's own rules can let it pass. Needs CAP_NET_RAW, with a mark CAP_NET_ADMIN too.
    ///
    /// # Errors
    /// When a socket cannot be opened or marked; that the host has no IPv6 is none.
    pub fn open(mark: Option<u32>) -> io::Result<Self> {
        let v4 = open(AddressFamily::Inet, mark)?;
        let v6 = match open(AddressFamily::Inet6, mark) {
            Ok(socket) => Some(socket),
            Err(Errno::EAFNOSUPPORT) => None,
            Err(error) => return Err(error.into()),
        };
        Ok(Self {
            v4,
            v6,
            counters: RawSocketCounters::default(),
        })
    }

    /// Totals so far.
    pub fn counters(&self) -> RawSocketCounters {
        self.counters
    }

    fn try_send(&self, packet: &[u8], to: IpAddr) -> nix::Result<usize> {
        match (to, &self.v6) {
            (IpAddr::V4(to), _) => {
                let to = SockaddrIn::from(SocketAddrV4::new(to, 0));
                sendto(self.v4.as_raw_fd(), packet, &to, MsgFlags::empty())
            }
            (IpAddr::V6(to), Some(socket)) => {
                let to = SockaddrIn6::from(SocketAddrV6::new(to, 0, 0, 0));
                sendto(socket.as_raw_fd(), packet, &to, MsgFlags::empty())
            }
            (IpAddr::V6(_), None) => Err(Errno::EAFNOSUPPORT),
        }
    }
}

fn open(family: AddressFamily, mark: Option<u32>) -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, SockType::Raw, flags, SockProtocol::Raw)?;
    if let Some(mark) = mark {
        setsockopt(&socket, sockopt::Mark, &mark)?;
    }
    Ok(socket)
}

impl RejectSender for RawSocket {
    fn send(&mut self, packet: &[u8], to: IpAddr) {
        match self.try_send(packet, to) {
            Ok(_) => self.counters.sent += 1,
            Err(_) => self.counters.failed += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use etherparse::PacketBuilder;
    use nix::sched::{CloneFlags, unshare};
    use nix::sys::socket::recv;

    use super::*;

    /// Runs `test` in a thread with a network namespace of its own; `false` when that needs
    /// rights that are not there.
    fn in_namespace(test: fn()) -> bool {
        let thread = std::thread::spawn(move || {
            if unshare(CloneFlags::CLONE_NEWNET).is_err() {
                return false;
            }
            test();
            true
        });
        thread.join().expect("the test in the namespace failed")
    }

    fn reset(v6: bool) -> Vec<u8> {
        let mut packet = Vec::new();
        match v6 {
            true => {
                let one = std::net::Ipv6Addr::LOCALHOST.octets();
                PacketBuilder::ipv6(one, one, 64).tcp(1, 2, 3, 0)
            }
            false => PacketBuilder::ipv4([127, 0, 0, 1], [127, 0, 0, 2], 64).tcp(1, 2, 3, 0),
        }
        .rst()
        .write(&mut packet, &[])
        .unwrap();
        packet
    }

    #[test]
    fn packets_are_sent_as_they_are_and_failures_are_counted() {
        let ran = in_namespace(|| {
            let mut socket = RawSocket::open(Some(0x10)).unwrap();
            // Loopback is still down.
            socket.send(&reset(false), [127, 0, 0, 2].into());
            assert_eq!(socket.counters().failed, 1);
            let up = Command::new("ip")
                .args(["link", "set", "lo", "up"])
                .status();
            assert!(up.is_ok_and(|status| status.success()), "ip link set lo up");
            let receiver = nix::sys::socket::socket(
                AddressFamily::Inet,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::Tcp,
            )
            .unwrap();
            socket.send(&reset(false), [127, 0, 0, 2].into());
            let mut bytes = [0; 100];
            let length = recv(receiver.as_raw_fd(), &mut bytes, MsgFlags::empty()).unwrap();
            assert_eq!(&bytes[20..length], &reset(false)[20..]);
            socket.send(&reset(true), std::net::Ipv6Addr::LOCALHOST.into());
            assert_eq!(socket.counters(), RawSocketCounters { sent: 2, failed: 1 });
        });
        if !ran {
            println!("skipped: a network namespace needs CAP_SYS_ADMIN");
        }
    }
}
