//! Hears that somebody has changed nf_tables rules: a firewall's reload may have taken ours.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};

/// `NFNLGRP_NFTABLES` (`linux/netfilter/nfnetlink.h`) as bind(2) wants it.
const GROUPS: u32 = 1 << (7 - 1);

/// A socket that hears every change of tables, chains and rules in the network namespace that
/// it was opened in. The legacy tables of iptables are not part of nf_tables: of them nothing
/// is heard.
#[derive(Debug)]
pub struct RuleWatch(OwnedFd);

impl RuleWatch {
    /// Begins to listen. Needs CAP_NET_ADMIN.
    ///
    /// # Errors
    /// When the kernel has no nf_tables, or refuses.
    pub fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let netfilter = SockProtocol::NetlinkNetFilter;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, netfilter)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))?;
        Ok(Self(socket))
    }

    /// Whether anything has changed since the last call, whoever did it.
    pub fn has_changed(&self) -> bool {
        let mut changed = false;
        // That something was said is enough: what there is now is read anew.
        let mut ignored = [0; 1];
        loop {
            match recv(self.0.as_raw_fd(), &mut ignored, MsgFlags::MSG_TRUNC) {
                Ok(_) => changed = true,
                Err(Errno::EAGAIN) => return changed,
                // More was said than the buffer holds.
                Err(Errno::ENOBUFS) => changed = true,
                Err(Errno::EINTR) => {}
                // Rather looked at once too often.
                Err(_) => return true,
            }
        }
    }
}
