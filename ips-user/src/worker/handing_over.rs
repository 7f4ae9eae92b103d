//! From one worker of a seat to the next while the queue goes on filling: the old one writes its
//! flows into the desk's file and ends, the new one takes them over and serves.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::bail;

use crate::desk::Desk;

/// What a command's result says when nothing was written.
pub const NOTHING: u64 = u64::MAX;

/// How often a successor looks whether it is its turn.
const LOOK_EVERY: Duration = Duration::from_micros(100);

/// The desk's file of flows, empty.
pub(super) fn empty_file(flows: BorrowedFd<'_>) -> io::Result<File> {
    let mut file = File::from(flows.try_clone_to_owned()?);
    file.set_len(0)?;
    file.rewind()?;
    Ok(file)
}

/// Waits until a predecessor has handed over, `patience` at most, and returns what it has
/// written: nothing when it died before it could. `None` when `stop` was set and the predecessor
/// has not been told to hand over: then it works off its queue itself.
pub(super) fn await_flows(
    desk: &Desk,
    done_before: u64,
    patience: Duration,
    stop: &AtomicBool,
) -> anyhow::Result<Option<Vec<u8>>> {
    let began = Instant::now();
    while desk.commands_done() == done_before {
        // In this order: what is carried out in between is no pending command any more.
        let untold = stop.load(Ordering::Relaxed) && desk.command().is_none();
        if untold && desk.commands_done() == done_before {
            return Ok(None);
        }
        if began.elapsed() > patience {
            bail!("the predecessor has not handed over within {patience:?}");
        }
        sleep(LOOK_EVERY);
    }
    let mut bytes = Vec::new();
    if desk.last_result() != NOTHING {
        let mut file = File::from(desk.flows().try_clone_to_owned()?);
        file.rewind()?;
        file.read_to_end(&mut bytes)?;
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::desk::Command;

    #[test]
    fn a_successor_reads_what_its_predecessor_has_written_and_nothing_else() {
        let desk = Desk::create(4096).unwrap();
        let patience = Duration::from_secs(20);
        // A command that was given is waited for also at a stop.
        let stop = AtomicBool::new(true);
        for (text, result, expected) in [("flows", 1, "flows"), ("x", 1, "x"), ("y", NOTHING, "")] {
            let before = desk.commands_done();
            let number = desk.give(Command::HandOver);
            std::thread::scope(|scope| {
                let waiting = scope.spawn(|| await_flows(&desk, before, patience, &stop).unwrap());
                empty_file(desk.flows())
                    .unwrap()
                    .write_all(text.as_bytes())
                    .unwrap();
                desk.carried_out(number, result);
                assert_eq!(waiting.join().unwrap().unwrap(), expected.as_bytes());
            });
        }
        let go_on = AtomicBool::new(false);
        let before = desk.commands_done();
        await_flows(&desk, before, Duration::ZERO, &go_on).unwrap_err();
        let stopped = await_flows(&desk, before, patience, &stop);
        assert_eq!(stopped.unwrap(), None, "nobody will hand over to it");
    }
}
