//! Pings (RFC 792, RFC 4443) from a raw socket.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, recv,
    sendto, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use crate::Namespace;
use crate::frame::internet_checksum;

/// Sends `count` echo requests of `size` data bytes from inside `namespace`, one after the
/// other, and returns how many were answered with the same data within `timeout` each.
///
/// # Errors
/// When no raw socket can be made.
pub fn ping(
    namespace: &Namespace,
    to: IpAddr,
    count: u16,
    size: usize,
    timeout: Duration,
) -> io::Result<u16> {
    namespace.enter(|| {
        let socket = open(to)?;
        let identifier = u16::try_from(std::process::id() & 0xffff).unwrap_or_default();
        let mut answered = 0;
        for sequence in 0..count {
            let request = echo_request(to, identifier, sequence, size);
            let sent = match to {
                IpAddr::V4(to) => {
                    let to = SockaddrIn::from(std::net::SocketAddrV4::new(to, 0));
                    sendto(socket.as_raw_fd(), &request, &to, MsgFlags::empty())
                }
                IpAddr::V6(to) => {
                    let to = SockaddrIn6::from(std::net::SocketAddrV6::new(to, 0, 0, 0));
                    sendto(socket.as_raw_fd(), &request, &to, MsgFlags::empty())
                }
            };
            // A packet that a local rule refuses (EPERM) is simply not answered.
            if sent.is_ok() && await_reply(&socket, to, &request, timeout) {
                answered += 1;
            }
        }
        Ok(answered)
    })
}

fn open(to: IpAddr) -> io::Result<OwnedFd> {
    let (family, protocol) = match to {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
    };
    let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(0, 20_000))?;
    Ok(socket)
}

fn echo_request(to: IpAddr, identifier: u16, sequence: u16, size: usize) -> Vec<u8> {
    let mut request = vec![if to.is_ipv4() { 8 } else { 128 }, 0, 0, 0];
    request.extend(identifier.to_be_bytes());
    request.extend(sequence.to_be_bytes());
    request.extend((0_u8..=255).cycle().take(size));
    if to.is_ipv4() {
        // For ICMPv6 the kernel fills it in (RFC 3542, section 3.1).
        let checksum = internet_checksum(&[&request]);
        request[2..4].copy_from_slice(&checksum.to_be_bytes());
    }
    request
}

fn await_reply(socket: &OwnedFd, to: IpAddr, request: &[u8], timeout: Duration) -> bool {
    let deadline = Instant::now() + timeout;
    let mut buffer = vec![0; 65_536];
    while Instant::now() < deadline {
        let Ok(len) = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) else {
            continue;
        };
        // IPv4 raw sockets deliver the IP header, IPv6 ones do not.
        let header = match to {
            IpAddr::V4(_) => usize::from(buffer[0] & 0xf) * 4,
            IpAddr::V6(_) => 0,
        };
        let wanted = if to.is_ipv4() { 0 } else { 129 };
        if let Some(reply) = buffer[..len].get(header..)
            && reply.first() == Some(&wanted)
            && reply.get(4..) == request.get(4..)
        {
            return true;
        }
    }
    false
}
