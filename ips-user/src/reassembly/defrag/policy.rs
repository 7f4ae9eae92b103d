//! Who wins where fragments overlap.
//!
//! The seven ways that stacks have were described by Novak, "Target-Based Fragmentation
//! Reassembly" (2005), and are what Suricata and Snort tell apart.

use crate::config::settings::OsPolicy;

/// Where a fragment's data begins and ends in its datagram, as it was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First byte.
    pub start: u32,
    /// Behind the last.
    pub end: u32,
}

/// How a stack reads overlapping fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverlapPolicy {
    /// The earlier one, unless the later begins before it.
    Bsd,
    /// The later one, unless it begins before the earlier.
    BsdRight,
    /// The earlier one if it begins before the later.
    Linux,
    /// The earlier one.
    First,
    /// The later one.
    Last,
    /// The earlier one, unless the later begins before and ends after it.
    Windows,
    /// The earlier one, unless the later begins before it and ends with or after it.
    Solaris,
}

impl OverlapPolicy {
    /// Every policy.
    pub const ALL: [Self; 7] = [
        Self::Bsd,
        Self::BsdRight,
        Self::Linux,
        Self::First,
        Self::Last,
        Self::Windows,
        Self::Solaris,
    ];

    /// Whether the bytes of `later` replace those of `earlier` where they overlap.
    pub const fn later_wins(self, earlier: Extent, later: Extent) -> bool {
        match self {
            Self::Bsd => later.start < earlier.start,
            Self::BsdRight => later.start >= earlier.start,
            Self::Linux => later.start <= earlier.start,
            Self::First => false,
            Self::Last => true,
            Self::Windows => later.start < earlier.start && later.end > earlier.end,
            Self::Solaris => later.start < earlier.start && later.end >= earlier.end,
        }
    }
}

impl From<OsPolicy> for OverlapPolicy {
    fn from(stack: OsPolicy) -> Self {
        match stack {
            OsPolicy::Bsd | OsPolicy::Hpux10 | OsPolicy::Irix => Self::Bsd,
            OsPolicy::BsdRight => Self::BsdRight,
            OsPolicy::OldLinux | OsPolicy::Linux => Self::Linux,
            OsPolicy::OldSolaris | OsPolicy::Hpux11 | OsPolicy::Macos | OsPolicy::First => {
                Self::First
            }
            OsPolicy::Solaris => Self::Solaris,
            OsPolicy::Windows | OsPolicy::Vista | OsPolicy::Windows2k3 => Self::Windows,
            OsPolicy::Last => Self::Last,
        }
    }
}
