//! Raw sockets that send packets built in userspace, from the IP header on.

use std::io;
use std::net::{IpAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, sendto,
    setsockopt, socket, sockopt,
};

/// Sends rejections through the host's own routing.
///
/// `IPPROTO_RAW` means that the header is included, for IPv4 (raw(7)) and for IPv6 (Linux
/// `inet6_create`). The kernel fills in a zero IPv4 identification and the IPv4 checksum.
#[derive(Debug)]
pub(super) struct RawSocket {
    v4: OwnedFd,
    /// `None` on hosts without IPv6.
    v6: Option<OwnedFd>,
}

impl RawSocket {
    /// Opens both sockets, nonblocking. `mark` is the `skb->mark` of what is sent, so that
    /// Sluice's own rules can let it pass. Needs CAP_NET_RAW, for the mark CAP_NET_ADMIN too
    /// (before Linux 5.17); sending needs neither.
    ///
    /// # Errors
    /// When a socket cannot be opened or marked; that the host has no IPv6 is none.
    pub(super) fn open(mark: u32) -> io::Result<Self> {
        let v4 = open(AddressFamily::Inet, mark)?;
        let v6 = match open(AddressFamily::Inet6, mark) {
            Ok(socket) => Some(socket),
            Err(Errno::EAFNOSUPPORT) => None,
            Err(error) => return Err(error.into()),
        };
        Ok(Self { v4, v6 })
    }

    /// Its descriptors.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [Some(&self.v4), self.v6.as_ref()]
            .into_iter()
            .flatten()
            .map(AsFd::as_fd)
    }

    /// Sends a packet that is complete from the IP header on.
    ///
    /// # Errors
    /// When the kernel does not take it: no route, full buffer, forbidden by a filter.
    pub(super) fn send(&self, packet: &[u8], to: IpAddr) -> nix::Result<usize> {
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

fn open(family: AddressFamily, mark: u32) -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, SockType::Raw, flags, SockProtocol::Raw)?;
    setsockopt(&socket, sockopt::Mark, &mark)?;
    Ok(socket)
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
    fn packets_are_sent_as_they_are_and_failures_are_told() {
        let ran = in_namespace(|| {
            let socket = RawSocket::open(0x10).unwrap();
            // Loopback is still down.
            socket
                .send(&reset(false), [127, 0, 0, 2].into())
                .unwrap_err();
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
            socket.send(&reset(false), [127, 0, 0, 2].into()).unwrap();
            let mut bytes = [0; 100];
            let length = recv(receiver.as_raw_fd(), &mut bytes, MsgFlags::empty()).unwrap();
            assert_eq!(&bytes[20..length], &reset(false)[20..]);
            let localhost = std::net::Ipv6Addr::LOCALHOST.into();
            socket.send(&reset(true), localhost).unwrap();
        });
        if !ran {
            println!("skipped: a network namespace needs CAP_SYS_ADMIN");
        }
    }
}
