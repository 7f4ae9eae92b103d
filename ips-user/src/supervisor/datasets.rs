//! What has changed in the sets of rules: the supervisor is who knows, because each worker sees
//! only its own flows, and can be replaced.
//!
//! Workers report what their rules change ([`super::set_reports`]), commands change sets as well;
//! both go into the table, bounded by each set's memory, and from there into the journal that every
//! worker reads ([`crate::desk::journal`]). A successor of this supervisor finds the journal: its
//! own after an upgrade, a worker's after a takeover.

mod command;
mod saving;
mod table;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use tokio::sync::mpsc;

pub use self::command::{SetRequest, SetShown, SetValue};
use self::saving::Saved;
use self::table::{Outcome, Refusal, Table};
use super::Supervisor;
use super::set_reports::{REPORT_BYTES, SetReports};
use crate::desk::journal::{Journal, News, Reader};
use crate::detect::dataset::record::{self, Next};
use crate::detect::dataset::{Catalogue, Changes, SetId};
use crate::metrics::snapshot::SetFigures;
use crate::sys::readable::Readable;

/// Reports handled before anything else has its turn.
const AT_ONCE: usize = 4;
/// A journal that is shorter is left as it is.
const SHORT: u64 = 1 << 20;

/// All that is known of sets.
#[derive(Debug)]
pub(super) struct Sets {
    pub(super) journal: Journal,
    table: Table,
    reports: SetReports,
    /// When workers have reported something.
    pub(super) spoken: Readable,
    pub(super) workers_reports: SetReports,
    figures: SetFigures,
    /// Where threads that have saved sets come back.
    finished: mpsc::UnboundedSender<Saved>,
    pub(super) saved: mpsc::UnboundedReceiver<Saved>,
    saving: bool,
    saved_at: Instant,
}

/// What a predecessor has left.
#[derive(Debug, Default)]
pub(super) struct SetsLeft {
    /// Its journal.
    pub(super) journal: Option<OwnedFd>,
    /// Both ends of the way to the supervisor.
    pub(super) reports: Option<[OwnedFd; 2]>,
}

impl Sets {
    /// With what a predecessor knew. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When memory or descriptors run out.
    pub(super) fn new(left: SetsLeft) -> anyhow::Result<Self> {
        let (reports, workers_reports) = match left.reports {
            Some(ends) => ends.map(SetReports::from_fd).into(),
            None => SetReports::pair()?,
        };
        let mut table = Table::default();
        if let Some(journal) = left.journal {
            match read(journal) {
                Ok(changes) => table.adopt(changes),
                Err(error) => log::error!("changes of sets are lost: {error}"),
            }
        }
        let (finished, saved) = mpsc::unbounded_channel();
        Ok(Self {
            journal: Journal::create()?,
            table,
            spoken: Readable::of(&reports)?,
            reports,
            workers_reports,
            figures: SetFigures::default(),
            finished,
            saved,
            saving: false,
            saved_at: Instant::now(),
        })
    }

    /// These are the sets of the rules that come into force.
    pub(super) fn set_rules(&mut self, sets: OwnedFd) {
        let catalogue = Catalogue::read(sets).context("the sets of the rules");
        match catalogue {
            Ok(catalogue) => self.table.set_rules(Arc::new(catalogue)),
            Err(error) => log::error!("{error:#}: what changes in them is not known"),
        }
        self.rewrite();
    }

    /// What `sluice status` shows.
    pub(super) fn figures(&self) -> SetFigures {
        let (values, bytes) = self.table.totals();
        SetFigures {
            sets: self.table.catalogue().sets().len() as u64,
            changes: values,
            bytes,
            ..self.figures
        }
    }

    /// Both ends of the way from the workers.
    pub(super) fn reports(&self) -> [&SetReports; 2] {
        [&self.reports, &self.workers_reports]
    }

    fn rewrite(&mut self) {
        let records = self.table.records();
        if let Err(error) = self.journal.rewrite(&records) {
            log::error!("telling the workers what has changed in sets: {error}");
        }
    }

    /// Tells the workers; when most of what they were told has been overtaken, more shortly.
    fn tell(&mut self, records: &[u8]) {
        if records.is_empty() {
            return;
        }
        if let Err(error) = self.journal.append(records) {
            log::error!("telling the workers what has changed in sets: {error}");
        }
        let (_, needed) = self.table.totals();
        if self.journal.bytes() > SHORT.max(4 * needed) {
            self.rewrite();
        }
    }

    /// What a worker has reported.
    fn hear(&mut self, mut rest: &[u8]) {
        let mut told = Vec::new();
        while !rest.is_empty() {
            let Next::Record(set, change, length) = record::next(rest) else {
                self.figures.nonsense += 1;
                break;
            };
            rest = &rest[length..];
            match self.table.change(set, change) {
                Ok(Outcome::Changed) => {
                    self.figures.reported += 1;
                    record::push(&mut told, set, change);
                }
                Ok(Outcome::AsItWas) => self.figures.reported += 1,
                Err(Refusal::Full) => self.figures.refused += 1,
                // Of rules that were in force before, or made up.
                Err(Refusal::Unknown | Refusal::Misfit) => self.figures.unknown += 1,
                Err(Refusal::Failed(error)) => {
                    self.figures.unknown += 1;
                    log::error!("{error}");
                }
            }
        }
        self.tell(&told);
    }
}

/// What a predecessor's journal says.
fn read(journal: OwnedFd) -> io::Result<Vec<(SetId, Changes)>> {
    let mut reader = Reader::of(journal)?;
    if reader.is_broken_off() {
        return Err(io::Error::other("they were being written"));
    }
    let mut changes = Vec::<(SetId, Changes)>::new();
    loop {
        let mut length = 0;
        match reader.read()? {
            News::Nothing => return Ok(changes),
            News::Anew => changes.clear(),
            News::Records(bytes) => {
                while let Next::Record(set, change, more) = record::next(&bytes[length..]) {
                    let at = changes.iter().position(|(known, _)| *known == set);
                    let at = at.unwrap_or_else(|| {
                        changes.push((set, Changes::default()));
                        changes.len() - 1
                    });
                    changes[at].1.apply(change, None);
                    length += more;
                }
                if length == 0 {
                    return Err(io::Error::other("what is no record"));
                }
            }
        }
        reader.taken(length);
    }
}

impl Supervisor {
    /// What workers have reported, up to a bound.
    pub(super) fn on_set_reports(&mut self) {
        let mut buffer = [0; REPORT_BYTES];
        for _ in 0..AT_ONCE {
            match self.sets.reports.receive(&mut buffer) {
                Ok([]) => return,
                Ok(records) => self.sets.hear(records),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    log::warn!("what workers change in sets: {error}");
                    return;
                }
            }
        }
        self.sets.spoken.again();
    }

    /// All that they have reported, when they have ended.
    fn hear_last_reports(&mut self) {
        let mut buffer = [0; REPORT_BYTES];
        while let Ok(records) = self.sets.reports.receive(&mut buffer)
            && !records.is_empty()
        {
            self.sets.hear(records);
        }
    }
}

#[cfg(test)]
mod tests;
