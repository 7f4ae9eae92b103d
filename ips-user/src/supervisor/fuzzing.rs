//! For the fuzz targets: what a predecessor has left.

use super::history::{History, totals};
use super::instance::Record;
use super::seat::Seat;

/// The record of a predecessor, gone on with.
pub fn record(text: &[u8]) {
    let Ok(record) = serde_json::from_slice::<Record>(text) else {
        return;
    };
    let (mut retired, _) = totals(&record, true);
    let mut history = History::after(&record, true, 5);
    let _ = history.next_generation();
    let mut past = history.take(Seat::Backup);
    past.ended(7, "exit status 1".into());
    let _ = past.last_exit();
    history.retire(&mut retired);
    let text = serde_json::to_vec(&record).unwrap_or_default();
    assert!(serde_json::from_slice::<Record>(&text).is_ok());
}
