//! What a seat is there for: new workers come, others keep their flows only, and go.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::config::Config;

/// What a seat is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Duty {
    /// New: it gets no packets yet.
    Joining,
    /// The table names it: new flows come to it.
    Serving,
    /// It gets no new flows but keeps those that it holds, until it is resumed.
    Drained,
    /// The same, until it holds none any more; then it goes.
    Retiring {
        /// It goes at this time, flows or not.
        until: Instant,
    },
    /// No packet comes any more; its process ends and is not replaced.
    Leaving,
}

/// A duty that outlasts the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum LastingDuty {
    Serving,
    Drained,
    Retiring,
}

impl Duty {
    /// As a predecessor has left it.
    pub(super) fn of(lasting: LastingDuty, config: &Config) -> Self {
        match lasting {
            LastingDuty::Serving => Self::Serving,
            LastingDuty::Drained => Self::Drained,
            LastingDuty::Retiring => Self::retiring(config),
        }
    }

    /// As a successor has to know it; `None` for a seat that is about to come or go.
    pub(super) fn lasting(self) -> Option<LastingDuty> {
        match self {
            Self::Serving => Some(LastingDuty::Serving),
            Self::Drained => Some(LastingDuty::Drained),
            Self::Retiring { .. } => Some(LastingDuty::Retiring),
            Self::Joining | Self::Leaving => None,
        }
    }

    /// From now on.
    pub(super) fn retiring(config: &Config) -> Self {
        let patience = Duration::from_secs(config.scaling.drain_seconds);
        Self::Retiring {
            until: Instant::now() + patience,
        }
    }
}
