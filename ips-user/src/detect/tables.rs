//! What a worker remembers beyond flows: hosts, pairs of hosts, counts of thresholds, sets.
//! It outlives a reload of the rules.

use std::net::IpAddr;

use super::dataset::Datasets;
use super::hosts::{HostTable, Pair};
use super::threshold::ThresholdTable;
use crate::config::settings::EngineSettings;
use crate::flow::Timestamp;

/// Bytes that each table may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableLimits {
    /// `host.memcap`
    pub hosts: u64,
    /// `ippair.memcap`
    pub pairs: u64,
    /// `detect.thresholds.memcap`
    pub thresholds: u64,
}

impl TableLimits {
    /// As the settings say.
    pub fn configured(settings: &EngineSettings) -> Self {
        Self {
            hosts: settings.host.memcap.0,
            pairs: settings.ippair.memcap.0,
            thresholds: settings.detect.thresholds.memcap.0,
        }
    }
}

impl Default for TableLimits {
    /// Those of Suricata's stock configuration.
    fn default() -> Self {
        Self {
            hosts: 32 << 20,
            pairs: 32 << 20,
            thresholds: 16 << 20,
        }
    }
}

/// What a table takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableUse {
    /// Bytes taken now.
    pub memuse: u64,
    /// The most that this was.
    pub memuse_max: u64,
    /// How often there was no room.
    pub refused: u64,
}

/// What each table takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableCounters {
    /// By address.
    pub hosts: TableUse,
    /// By pair of addresses.
    pub pairs: TableUse,
    /// Counts of thresholds.
    pub thresholds: TableUse,
}

/// The tables of one worker.
#[derive(Debug)]
pub struct Tables {
    /// By address.
    pub hosts: HostTable<IpAddr>,
    /// By pair of addresses.
    pub pairs: HostTable<Pair>,
    /// Counts of thresholds.
    pub thresholds: ThresholdTable,
    /// Changes of sets.
    pub datasets: Datasets,
}

impl Tables {
    /// Empty ones.
    pub fn new(limits: TableLimits) -> Self {
        Self {
            hosts: HostTable::new(limits.hosts),
            pairs: HostTable::new(limits.pairs),
            thresholds: ThresholdTable::new(limits.thresholds),
            datasets: Datasets::default(),
        }
    }

    /// What they take, and what had no room.
    pub fn counters(&self) -> TableCounters {
        TableCounters {
            hosts: self.hosts.usage(),
            pairs: self.pairs.usage(),
            thresholds: self.thresholds.usage(),
        }
    }

    /// Forgets what does not hold any more. To be called now and then: it looks at everything.
    pub fn expire(&mut self, now: Timestamp) {
        self.hosts.expire(now);
        self.pairs.expire(now);
        self.thresholds.expire(now);
    }
}

impl Default for Tables {
    fn default() -> Self {
        Self::new(TableLimits::default())
    }
}
