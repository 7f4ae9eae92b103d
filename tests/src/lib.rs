//! The namespace lab: client, gateway and server on one machine, with real traffic.
//!
//! ```text
//!  client ns                  gateway ns                  server ns
//!  10.77.1.1      c0 ═══ g0  10.77.1.254
//!  fd77:1::1                 fd77:1::fe
//!                            10.77.2.254  g1 ═══ s0  10.77.2.1
//!                            fd77:2::fe              fd77:2::1
//! ```
//!
//! The gateway routes; what Sluice does happens there. [`Lab`] builds and removes the three
//! [`Namespace`]s, [`Process`] runs programs in them, and the traffic actors ([`stream`],
//! [`datagram`], [`http`], [`icmp`], [`frame`], [`iperf`], [`witness`]) put real packets on the wires.
//!
//! # What the machine must offer
//! Root (`CAP_NET_ADMIN`, `CAP_SYS_ADMIN`), `ip` from iproute2, and a kernel with network
//! namespaces (`CONFIG_NET_NS`), `CONFIG_VETH`, IPv4 and IPv6, `CONFIG_PACKET`. `ethtool` is
//! needed for [`LabOptions::gro`], `iperf3` for [`iperf`], and the tests of the queues need
//! `CONFIG_NETFILTER_NETLINK_QUEUE` with either `CONFIG_NFT_QUEUE` or
//! `CONFIG_NETFILTER_XT_TARGET_NFQUEUE` and `iptables`. [`require_lab!`] names what is absent.

pub mod datagram;
pub mod elsewhere;
pub mod flood;
pub mod frame;
pub mod http;
pub mod icmp;
pub mod iperf;
mod lab;
mod namespace;
pub mod over;
pub mod patience;
mod process;
pub mod queue_state;
pub mod requirement;
pub mod rule_set;
pub mod sabotage;
pub mod stream;
pub mod unnamed;
pub mod witness;

pub use lab::{Lab, LabOptions, Side, sweep};
pub use namespace::Namespace;
pub use process::{Process, await_stopped};
