//! Raw frames on an interface: crafted ones out, whatever passes in.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

use crate::Namespace;

/// A packet socket bound to one interface (packet(7)): sends frames from the Ethernet header
/// on, and sees every frame that comes or goes.
#[derive(Debug)]
pub struct FrameSocket {
    socket: OwnedFd,
}

impl FrameSocket {
    /// Opens one inside `namespace`.
    ///
    /// # Errors
    /// When not root, or there is no such interface.
    pub fn open(namespace: &Namespace, interface: &str) -> io::Result<Self> {
        namespace.enter(|| {
            let index = nix::net::if_::if_nametoindex(interface)?;
            let socket = socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::EthAll,
            )?;
            let address = libc::sockaddr_ll {
                sll_family: libc::AF_PACKET as u16,
                sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
                sll_ifindex: i32::try_from(index).map_err(|_| io::ErrorKind::InvalidInput)?,
                sll_hatype: 0,
                sll_pkttype: 0,
                sll_halen: 0,
                sll_addr: [0; 8],
            };
            // SAFETY: `address` is a valid sockaddr_ll that outlives the call, and the length
            // passed is its size.
            let bound = unsafe {
                libc::bind(
                    socket.as_raw_fd(),
                    (&raw const address).cast(),
                    size_of::<libc::sockaddr_ll>() as libc::socklen_t,
                )
            };
            if bound < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(Self { socket })
        })
    }

    /// Sends one frame as it is.
    ///
    /// # Errors
    /// When the interface does not take it (too long, down).
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        send(self.socket.as_raw_fd(), frame, MsgFlags::empty())?;
        Ok(())
    }

    /// The next frame, or `None` when none comes within `timeout`.
    ///
    /// # Errors
    /// When the interface goes away.
    pub fn receive(&self, timeout: Duration) -> io::Result<Option<Vec<u8>>> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(
                &mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)],
                left,
            ) {
                Ok(0) => return Ok(None),
                Ok(_) => break,
                Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let mut buffer = vec![0; 70_000];
        let len = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT)?;
        buffer.truncate(len);
        Ok(Some(buffer))
    }

    /// Frames that `wanted` says yes to, until `count` have come or `timeout` has passed.
    ///
    /// # Errors
    /// When the interface goes away.
    pub fn collect(
        &self,
        count: usize,
        timeout: Duration,
        mut wanted: impl FnMut(&[u8]) -> bool,
    ) -> io::Result<Vec<Vec<u8>>> {
        let deadline = Instant::now() + timeout;
        let mut frames = Vec::new();
        while frames.len() < count {
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(frame) = self.receive(left)? else {
                break;
            };
            if wanted(&frame) {
                frames.push(frame);
            }
        }
        Ok(frames)
    }
}

/// The hardware address of an interface.
///
/// # Errors
/// When there is no such interface.
pub fn hardware_address(namespace: &Namespace, interface: &str) -> anyhow::Result<[u8; 6]> {
    use anyhow::Context;
    let shown = namespace.run("ip", &["-json", "link", "show", "dev", interface])?;
    let shown: serde_json::Value = serde_json::from_str(&shown)?;
    let text = shown
        .pointer("/0/address")
        .and_then(serde_json::Value::as_str)
        .context("an address")?;
    let bytes = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16))
        .collect::<Result<Vec<_>, _>>()?;
    bytes
        .try_into()
        .map_err(|_| anyhow::anyhow!("{text} is no Ethernet address"))
}

/// The Internet checksum (RFC 1071) over parts, each of even length but the last.
#[must_use]
pub fn internet_checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for part in parts {
        for pair in part.chunks(2) {
            let high = u32::from(pair[0]) << 8;
            sum += high | pair.get(1).copied().map_or(0, u32::from);
        }
        sum = (sum & 0xffff) + (sum >> 16);
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}
