//! What listening needs, by itself: for tests and fuzz targets.

use super::{AppMemory, AppOptions, Hearing};
use crate::decode::protocol;
use crate::metrics::figures::Figures;

/// Somebody who listens, of what no other flow says anything.
#[derive(Debug, Default)]
pub(crate) struct Ear {
    pub(crate) options: AppOptions,
    pub(crate) memory: AppMemory,
    pub(crate) figures: Figures,
}

impl Ear {
    pub(crate) fn datagrams(&mut self) -> Hearing<'_> {
        self.hearing(protocol::UDP)
    }

    #[cfg(feature = "fuzzing")]
    pub(crate) fn streams(&mut self) -> Hearing<'_> {
        self.hearing(protocol::TCP)
    }

    fn hearing(&mut self, transport: u8) -> Hearing<'_> {
        Hearing {
            options: &self.options,
            memory: &self.memory,
            figures: &mut self.figures,
            transport,
        }
    }
}
