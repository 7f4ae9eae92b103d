//! What a supervisor takes over from its predecessor: the sockets of the queues, and what it
//! shares with the workers that serve them.
//!
//! From the program that this process was before an upgrade, everything, because it has kept
//! the descriptors open. From one that died, what its workers hold: they survive it, and
//! [`held`] says under which numbers they have it.

use std::io;
use std::os::fd::{OwnedFd, RawFd};

use super::datasets::SetsLeft;
use super::instance::{Kept, KeptRules, Record, Sitting, Started};
use super::seat::Seat;
use crate::config::{Config, Transport};
use crate::desk::Desk;
use crate::desk::watchlist::Watchlist;
use crate::metrics::board::Board;
use crate::rejecter::Tally;
use crate::source::nfqueue::NfQueue;
use crate::sys::descriptors::take_kept;
use crate::sys::pages::Pages;
use crate::sys::pidfd::PidFd;
use crate::worker::held;

const UNWATCHED: &str = "the list of flows that workers died of begins anew";

/// A seat with its queue and, if he lives, its worker.
#[derive(Debug)]
pub(super) struct Bequest {
    pub(super) seat: Seat,
    pub(super) queue: u16,
    pub(super) socket: OwnedFd,
    pub(super) desk: Desk,
    /// Who serves the queue.
    pub(super) process: Option<Started>,
}

impl Bequest {
    /// Whether it can be used for a seat as it is configured now.
    pub(super) fn fits(&self, seat: Seat, config: &Config) -> bool {
        let queue = config.queue_number(seat);
        let buffers = NfQueue::buffer_bytes(&config.queue_options(queue));
        let fits = config.queue.transport == Transport::Batched && self.queue == queue;
        self.seat == seat && fits && Pages::shared(self.desk.buffers(), buffers).is_ok()
    }
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Inheritance {
    pub(super) seats: Vec<Bequest>,
    pub(super) board: Option<Board>,
    /// Both ends of the way to the event writer.
    pub(super) events: Option<[OwnedFd; 2]>,
    /// Both ends of the way to the supervisor.
    pub(super) feedback: Option<[OwnedFd; 2]>,
    /// The rejecter's counters.
    pub(super) tally: Option<Tally>,
    /// The flows that workers died of.
    pub(super) watchlist: Option<Watchlist>,
    /// The rules in force.
    pub(super) rules: Option<KeptRules<OwnedFd>>,
    /// What has changed in sets.
    pub(super) sets: SetsLeft,
}

impl Inheritance {
    /// Fetches what there is. What cannot be had is made anew, and a worker that it cannot be
    /// had from is replaced the hard way.
    pub(super) fn of(record: &Record) -> Self {
        let ourselves = Started::of(std::process::id());
        if let Some(kept) = &record.kept
            && ourselves == Some(kept.by)
        {
            return Self::kept(record, kept);
        }
        let mut inheritance = Self::default();
        for sitting in &record.seats {
            let Some(process) = sitting.serving() else {
                continue;
            };
            match of_worker(*sitting, process) {
                Ok((bequest, board)) => {
                    inheritance.seats.push(bequest);
                    inheritance.board = inheritance.board.or(Board::map(board).ok());
                }
                Err(error) => log::warn!(
                    "{}: nothing can be taken over from pid {}: {error}",
                    sitting.seat,
                    process.pid
                ),
            }
            if inheritance.watchlist.is_none() {
                inheritance.watchlist = watchlist_of(process);
            }
            if inheritance.sets.journal.is_none() {
                // One of a former program has none.
                inheritance.sets.journal = fetch(process, held::SETS).ok();
            }
        }
        inheritance
    }

    fn kept(record: &Record, kept: &Kept) -> Self {
        let mut inheritance = Self::default();
        for (sitting, (socket, desk)) in record.seats.iter().zip(&kept.seats) {
            match of_ourselves(*sitting, *socket, *desk) {
                Ok(bequest) => inheritance.seats.push(bequest),
                Err(error) => log::warn!("{}: nothing is taken over: {error}", sitting.seat),
            }
        }
        let board = take_kept(kept.board).and_then(Board::map);
        inheritance.board = board
            .inspect_err(|error| log::warn!("the counters begin anew: {error}"))
            .ok();
        inheritance.events = both(kept.events);
        inheritance.feedback = both(kept.feedback);
        inheritance.tally = take_kept(kept.tally).and_then(Tally::map).ok();
        // A program that had none to keep said nothing of it.
        let watchlist = kept.watchlist.map(take_kept);
        inheritance.watchlist = watchlist.and_then(|file| {
            let list = file.and_then(Watchlist::map);
            list.inspect_err(|error| log::warn!("{UNWATCHED}: {error}"))
                .ok()
        });
        inheritance.rules = kept.rules.as_ref().and_then(rules_of_ourselves);
        if let Some(sets) = &kept.sets {
            inheritance.sets = SetsLeft {
                journal: take_kept(sets.journal).ok(),
                reports: both(sets.reports),
            };
        }
        inheritance
    }
}

fn rules_of_ourselves(kept: &KeptRules) -> Option<KeptRules<OwnedFd>> {
    let sources = take_kept(kept.sources);
    let sources = sources.inspect_err(|error| log::warn!("the rules in force: {error}"));
    Some(KeptRules {
        generation: kept.generation,
        settings: kept.settings.clone(),
        sources: sources.ok()?,
    })
}

/// The list as any worker has it: there is one for all.
fn watchlist_of(process: Started) -> Option<Watchlist> {
    let held_by = PidFd::open(process.pid).ok()?;
    if !process.is_alive() {
        return None;
    }
    let list = held_by.fetch(held::WATCHLIST).and_then(Watchlist::map);
    list.inspect_err(|error| log::warn!("{UNWATCHED} unless others have it: {error}"))
        .ok()
}

/// What a process holds under a number.
fn fetch(process: Started, number: RawFd) -> io::Result<OwnedFd> {
    let held_by = PidFd::open(process.pid)?;
    if !process.is_alive() {
        return Err(io::ErrorKind::NotFound.into());
    }
    held_by.fetch(number)
}

fn of_worker(sitting: Sitting, process: Started) -> io::Result<(Bequest, OwnedFd)> {
    let held_by = PidFd::open(process.pid)?;
    if !process.is_alive() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let [words, buffers, flows] = held::DESK;
    let files = [
        held_by.fetch(words)?,
        held_by.fetch(buffers)?,
        held_by.fetch(flows)?,
    ];
    let bequest = Bequest {
        seat: sitting.seat,
        queue: sitting.queue,
        socket: held_by.fetch(held::SOCKET)?,
        desk: Desk::of_files(files)?,
        process: Some(process),
    };
    Ok((bequest, held_by.fetch(held::BOARD)?))
}

fn of_ourselves(
    sitting: Sitting,
    socket: RawFd,
    [words, buffers, flows]: [RawFd; 3],
) -> io::Result<Bequest> {
    let files = [take_kept(words)?, take_kept(buffers)?, take_kept(flows)?];
    Ok(Bequest {
        seat: sitting.seat,
        queue: sitting.queue,
        socket: take_kept(socket)?,
        desk: Desk::of_files(files)?,
        // One that has died since is found to be dead: its desk says of what.
        process: sitting.serving().or(sitting.process),
    })
}

fn both([one, other]: [RawFd; 2]) -> Option<[OwnedFd; 2]> {
    Some([take_kept(one).ok()?, take_kept(other).ok()?])
}
