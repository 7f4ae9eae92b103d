//! Sets of rules are the same for all workers: this one says what its rules change in them, and
//! does what others have changed.

use anyhow::Context;

use super::{Shared, Turn, WorkersInspection};
use crate::desk::journal::{News, Reader};
use crate::detect::dataset::record::{self, Next};
use crate::supervisor::set_reports::REPORT_BYTES;
use crate::sys::process::monotonic_ns;

/// Parts of the journal that are read between two batches.
const AT_ONCE: usize = 4;

/// What others have changed, from the beginning on.
pub(super) fn journal(shared: &Shared) -> anyhow::Result<Reader> {
    let file = shared.sets.try_clone().context("the journal of sets")?;
    Reader::of(file).context("the journal of sets")
}

/// Does all that others have done so far: before packets are looked at.
pub(super) fn catch_up(
    reader: &mut Reader,
    inspection: &mut WorkersInspection<'_>,
    beat: impl Fn(),
) -> anyhow::Result<()> {
    while follow(reader, inspection)? {
        beat();
    }
    Ok(())
}

/// Reads a part of the journal; whether there may be more.
fn follow(reader: &mut Reader, inspection: &mut WorkersInspection<'_>) -> anyhow::Result<bool> {
    let bytes = match reader.read().context("reading the journal of sets")? {
        News::Nothing => return Ok(false),
        News::Anew => {
            inspection.sets_mut().forget();
            return Ok(true);
        }
        News::Records(bytes) => bytes,
    };
    let mut length = 0;
    loop {
        match record::next(&bytes[length..]) {
            Next::Record(set, change, more) => {
                inspection.change_set(set, change);
                length += more;
            }
            Next::Cut if length > 0 => break,
            // One fits: then this is none.
            Next::Cut | Next::Nonsense => {
                log::error!("the journal of sets has what is no record: passed over");
                length = bytes.len();
                break;
            }
        }
    }
    reader.taken(length);
    Ok(true)
}

impl Turn<'_> {
    /// Sets were loaded once more, perhaps with other values: what has changed in them since is
    /// in the journal, from its start on.
    pub(super) fn begin_sets_anew(&mut self) -> anyhow::Result<()> {
        self.inspection.sets_mut().forget();
        self.mail.sets.restart();
        let (pages, slot) = (&self.shared.pages, self.seat.slot());
        catch_up(&mut self.mail.sets, &mut self.inspection, || {
            pages.stamp(slot, monotonic_ns());
        })
    }

    /// Tells what rules have changed in sets, and does what others have changed. Costs a few loads
    /// when there is neither.
    pub(super) fn follow_sets(&mut self) -> anyhow::Result<()> {
        let reports = &self.shared.set_reports;
        let sets = self.inspection.sets_mut();
        match sets.report(REPORT_BYTES, |records| reports.send(records)) {
            Ok(()) => {}
            // It may keep up again later.
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            // Without a supervisor the others do not hear of it.
            Err(_) => sets.give_up_reporting(),
        }
        for _ in 0..AT_ONCE {
            let sets = &mut self.mail.sets;
            if !sets.is_behind() || !follow(sets, &mut self.inspection)? {
                break;
            }
        }
        Ok(())
    }
}
