//! Tables with bounds: fragments, flows, hosts and pairs of hosts.

use super::node::settings;
use super::value::{ByteSize, Seconds};
use crate::exception::ExceptionPolicy;

settings! {
    /// `defrag`
    pub Defrag {
        /// Most memory.
        memcap("memcap"): ByteSize = ByteSize::mib(32),
        /// What happens then.
        memcap_policy("memcap-policy"): ExceptionPolicy = ExceptionPolicy::Auto,
        /// Packets that are put together at a time.
        trackers("trackers"): u32 = 65_535,
        /// Fragments that are kept, of all packets.
        max_frags("max-frags"): u32 = 65_535,
        /// How long a packet may take to be complete.
        timeout("timeout"): Seconds = Seconds(60),
    }
}

settings! {
    /// `flow`
    pub Flow {
        /// Most memory.
        memcap("memcap"): ByteSize = ByteSize::mib(128),
        /// What happens then.
        memcap_policy("memcap-policy"): ExceptionPolicy = ExceptionPolicy::Auto,
        /// Percentage of flows that must be free for an emergency to end.
        emergency_recovery("emergency-recovery"): u8 = 30,
    }
}

settings! {
    /// `flow-timeouts`
    pub FlowTimeouts {
        /// Protocols without a table of their own.
        default("default"): FlowTimes = FlowTimes::default(),
        /// TCP.
        tcp("tcp"): FlowTimes = FlowTimes {
            new: Seconds(60),
            established: Seconds(600),
            closed: Seconds(60),
            emergency_new: Seconds(5),
            emergency_closed: Seconds(10),
            ..FlowTimes::default()
        },
        /// UDP.
        udp("udp"): FlowTimes = FlowTimes::default(),
        /// ICMP.
        icmp("icmp"): FlowTimes = FlowTimes::default(),
    }
}

settings! {
    /// The times of one protocol: how long a flow of it may be idle, by its state.
    pub FlowTimes {
        /// Packets in one direction only.
        new("new"): Seconds = Seconds(30),
        /// Packets in both.
        established("established"): Seconds = Seconds(300),
        /// Ended.
        closed("closed"): Seconds = Seconds(0),
        /// Released from inspection.
        bypassed("bypassed"): Seconds = Seconds(100),
        /// The same when memory is short.
        emergency_new("emergency-new"): Seconds = Seconds(10),
        /// The same when memory is short.
        emergency_established("emergency-established"): Seconds = Seconds(100),
        /// The same when memory is short.
        emergency_closed("emergency-closed"): Seconds = Seconds(0),
        /// The same when memory is short.
        emergency_bypassed("emergency-bypassed"): Seconds = Seconds(50),
    }
}

settings! {
    /// `host` and `ippair`
    pub Table {
        /// Most memory.
        memcap("memcap"): ByteSize = ByteSize::mib(32),
    }
}
