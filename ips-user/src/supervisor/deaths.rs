//! What a worker had in hand when it died or hung: which flow that makes a suspect, and what is
//! saved and reported of it.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::Duration;

use ips_common::FlowKey;
use serde_json::{Value, json};

use super::saved_packets::SavedPackets;
use super::seat::Seat;
use super::succession::UNSEEN;
use super::suspects::{Memory, SuspectCounters, Suspects};
use crate::config::Config;
use crate::desk::hands::Hands;
use crate::desk::watchlist::{Standing, Watched, Watchlist};
use crate::desk::{Desk, InHand};
use crate::metrics::snapshot;

/// How a worker came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// Its seat.
    pub(super) seat: Seat,
    /// Its process.
    pub(super) pid: u32,
    /// `signal SIGSEGV`, `exit status 101`, `hung`.
    pub(super) how: String,
}

/// The packet that a worker had in hand. It has died of parsing it, or hangs there: nobody
/// here does that.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Remains {
    /// What was noted.
    note: InHand,
    /// From the IP header on, as much as shall be saved.
    bytes: Vec<u8>,
}

/// What has been found about an end.
#[derive(Debug)]
pub(super) struct Finding {
    end: End,
    remains: Option<Remains>,
    /// The flow in hand as it is thought of now; `None` when nothing is held against it.
    pub(super) accused: Option<Watched>,
    /// A flow that had to be forgotten for it.
    pub(super) forgotten: Option<Watched>,
}

/// Keeps the list of suspects, and the packets.
#[derive(Debug)]
pub(super) struct Deaths {
    suspects: Suspects,
    hands: Hands,
    memory: Memory,
    saved: Option<SavedPackets>,
    counters: snapshot::Deaths,
    /// The kernel's count of processes that it killed for want of memory.
    out_of_memory: u64,
}

impl Deaths {
    /// Goes on with the list of a predecessor, or an empty one, and counts on from `before`.
    ///
    /// # Errors
    /// When memory or descriptors run out.
    pub(super) fn new(
        config: &Config,
        list: Option<Watchlist>,
        before: snapshot::Deaths,
        now_ns: u64,
    ) -> io::Result<Self> {
        let failover = &config.failover;
        let saved = || {
            SavedPackets::new(
                config.packet_directory(),
                &config.name,
                failover.packet_limit_bytes,
                failover.packet_files,
            )
        };
        let counters = SuspectCounters {
            suspected: before.suspected,
            quarantined: before.quarantined,
            evicted: before.evicted,
        };
        let list = list.map_or_else(Watchlist::create, Ok)?;
        let suspects = Suspects::resume(list, counters, now_ns);
        if !suspects.flows().is_empty() {
            let flows = suspects.flows().len();
            log::warn!("{flows} flows that workers died of are watched as before");
        }
        Ok(Self {
            suspects,
            hands: Hands::create()?,
            memory: Memory {
                suspect: Duration::from_secs(failover.suspect_seconds),
                quarantined: Duration::from_secs(failover.quarantine_seconds),
            },
            saved: failover.save_packets.then(saved),
            counters: before,
            out_of_memory: out_of_memory_kills(),
        })
    }

    /// A process has ended. When this returns, every worker knows what to think of the flow
    /// that it had in hand; only then may the flow's next packet go elsewhere.
    pub(super) fn ended(&mut self, end: End, desk: &Desk, now_ns: u64) -> Finding {
        let before = std::mem::replace(&mut self.out_of_memory, out_of_memory_kills());
        let starved = self.out_of_memory != before;
        let blamed = starved || !is_sent(&end.how);
        let note = desk.in_hand();
        let mut finding = Finding {
            remains: note.filter(|_| blamed).map(|note| self.remains(note, desk)),
            end,
            accused: None,
            forgotten: None,
        };
        match note.map(|note| note.key) {
            _ if !blamed => self.counters.killed += 1,
            None => self.counters.idle += 1,
            Some(None) => self.counters.undecoded += 1,
            Some(Some(key)) => {
                self.counters.in_flow += 1;
                let (accused, forgotten) = self.suspects.accuse(&key, now_ns);
                (finding.accused, finding.forgotten) = (Some(accused), forgotten);
            }
        }
        // The successor may end before it takes anything in hand.
        desk.put_down();
        self.hands.of(finding.end.seat).put_down();
        finding
    }

    fn remains(&self, note: InHand, desk: &Desk) -> Remains {
        let limit = self.saved.as_ref().map_or(0, SavedPackets::limit);
        let bytes = desk.packet(&note, limit).unwrap_or_else(|error| {
            log::warn!("the packet in hand cannot be read: {error}");
            Vec::new()
        });
        Remains { note, bytes }
    }

    /// Saves the packet, if that is wanted, and says in the log what has happened. Returns what
    /// an event tells of it, and the flow that it is about.
    pub(super) fn report(&mut self, finding: Finding, wall_us: i64) -> Report {
        let Finding {
            end,
            remains,
            accused,
            forgotten,
        } = finding;
        let saved = remains
            .as_ref()
            .and_then(|packet| self.save(packet, &end, wall_us));
        let End { seat, pid, how } = &end;
        let mut details = json!({
            "event": "worker_ended",
            "seat": seat.to_string(),
            "pid": pid,
            "how": how,
        });
        if let Some(Remains { note, .. }) = &remains {
            details["packet_id"] = note.id.0.into();
            details["packet_bytes"] = note.length.into();
        }
        if let Some(path) = &saved {
            details["packet_file"] = path.to_string_lossy().into();
        }
        if let Some(flow) = &accused {
            details["standing"] = standing_name(flow.standing).into();
            details["deaths"] = flow.deaths.into();
        }
        let beside = match &saved {
            Some(path) => format!(", saved as {}", path.display()),
            None => String::new(),
        };
        match (&accused, &remains) {
            (Some(flow), _) => {
                let what = match flow.standing {
                    Standing::Suspect => "is a suspect: only its own worker inspects it again",
                    Standing::Quarantined => "is quarantined: nobody inspects it any more",
                };
                log::warn!(
                    "{seat} (pid {pid}), ended by {how}, had a packet of {} in hand{beside}; \
                     that is death {} of this flow, which {what}",
                    flow.key,
                    flow.deaths
                );
            }
            (None, Some(packet)) => log::warn!(
                "{seat} (pid {pid}), ended by {how}, was decoding packet {}{beside}",
                packet.note.id.0
            ),
            (None, None) => {}
        }
        if let Some(flow) = &forgotten {
            log::warn!("{} is not watched any more: the list is full", flow.key);
        }
        Report {
            flow: accused.map(|flow| flow.key),
            details,
        }
    }

    fn save(&mut self, packet: &Remains, end: &End, wall_us: i64) -> Option<PathBuf> {
        let saved = self.saved.as_ref()?;
        let Remains { note, bytes } = packet;
        match saved.save(bytes, note.length, end.seat, end.pid, wall_us) {
            Ok(path) => {
                self.counters.packets_saved += 1;
                Some(path)
            }
            Err(error) => {
                self.counters.packets_unsaved += 1;
                log::warn!("the packet in hand is not saved: {error}");
                None
            }
        }
    }

    /// Forgets what has been long ago; returns the flows that are inspected again.
    pub(super) fn forget_old(&mut self, now_ns: u64) -> Vec<Watched> {
        let forgotten = self.suspects.forget_old(now_ns, self.memory);
        for flow in &forgotten {
            log::info!(
                "{} is not watched any more: nothing happened for long enough",
                flow.key
            );
        }
        forgotten
    }

    /// The list of flows, for the workers.
    pub(super) fn watchlist(&self) -> BorrowedFd<'_> {
        self.suspects.as_fd()
    }

    /// The workers' hands, for them.
    pub(super) fn hands(&self) -> BorrowedFd<'_> {
        self.hands.as_fd()
    }

    /// How long a flow is quarantined.
    pub(super) const fn quarantine(&self) -> Duration {
        self.memory.quarantined
    }

    /// The flows on the list.
    pub(super) fn flows(&self) -> &[Watched] {
        self.suspects.flows()
    }

    /// For the snapshot.
    pub(super) fn counters(&self) -> snapshot::Deaths {
        let SuspectCounters {
            suspected,
            quarantined,
            evicted,
        } = self.suspects.counters();
        snapshot::Deaths {
            suspected,
            quarantined,
            evicted,
            ..self.counters
        }
    }
}

/// What there is to write about an end.
#[derive(Debug)]
pub(super) struct Report {
    /// The flow that it is about.
    pub(super) flow: Option<FlowKey>,
    /// What happened.
    pub(super) details: Value,
}

/// The name of a standing in events and in the status.
pub(super) const fn standing_name(standing: Standing) -> &'static str {
    match standing {
        Standing::Suspect => "suspect",
        Standing::Quarantined => "quarantined",
    }
}

/// Whether a process ended as it was told to, and not by what it was doing: by a signal that
/// nothing which it does can bring about, or in order.
fn is_sent(how: &str) -> bool {
    const SENT: [&str; 7] = [
        UNSEEN,
        "exit status 0",
        "hung: stopped",
        "signal SIGKILL",
        "signal SIGTERM",
        "signal SIGINT",
        "signal SIGHUP",
    ];
    SENT.contains(&how)
}

/// Processes that the kernel has killed for want of memory since it was booted (Linux 4.13);
/// the signal is the same as anybody's SIGKILL.
fn out_of_memory_kills() -> u64 {
    let counters = fs::read_to_string("/proc/vmstat").unwrap_or_default();
    let kills = counters
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill "));
    kills.and_then(|kills| kills.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::PacketId;
    use crate::sys::pages::Pages;

    fn end(how: &str) -> End {
        End {
            seat: Seat::Worker(1),
            pid: 42,
            how: how.into(),
        }
    }

    /// A desk with a packet in hand, whose flow is known if there is a port.
    fn desk(port: Option<u16>) -> Desk {
        let desk = Desk::create(4096).unwrap();
        let mut buffers = Pages::shared(desk.buffers(), 4096).unwrap();
        buffers.as_mut_slice()[100..106].copy_from_slice(b"packet");
        desk.take_in_hand(PacketId(7), 100, 6);
        if let Some(low_port) = port {
            desk.note_flow(&FlowKey {
                low_port,
                family: 4,
                protocol: 17,
                ..FlowKey::default()
            });
        }
        desk
    }

    fn deaths(adjust: impl FnOnce(&mut Config)) -> Deaths {
        let mut config = Config::default();
        adjust(&mut config);
        Deaths::new(&config, None, snapshot::Deaths::default(), 0).unwrap()
    }

    #[test]
    fn only_ends_that_a_packet_can_cause_are_held_against_its_flow() {
        for (how, blamed) in [
            ("signal SIGSEGV", true),
            ("signal SIGABRT", true),
            ("signal SIGSYS", true),
            ("exit status 101", true),
            ("hung: sleeps", true),
            ("hung: stopped", false),
            ("exit status 0", false),
            ("signal SIGKILL", false),
            ("signal SIGTERM", false),
        ] {
            let mut deaths = deaths(|_| {});
            let desk = desk(Some(1));
            // Elsewhere on this machine nobody is short of memory meanwhile.
            let finding = deaths.ended(end(how), &desk, 5);
            assert_eq!(finding.accused.is_some(), blamed, "{how}");
            let counters = deaths.counters();
            let expected = (u64::from(blamed), u64::from(!blamed));
            assert_eq!((counters.in_flow, counters.killed), expected, "{how}");
            assert_eq!(desk.in_hand(), None, "nobody is told twice");
        }
    }

    #[test]
    fn the_second_death_quarantines() {
        let mut deaths = deaths(|_| {});
        let finding = deaths.ended(end("signal SIGABRT"), &desk(Some(1)), 5);
        assert_eq!(finding.accused.unwrap().standing, Standing::Suspect);
        deaths.ended(end("signal SIGABRT"), &desk(Some(2)), 6);
        deaths.ended(end("signal SIGKILL"), &desk(Some(1)), 6);
        let finding = deaths.ended(end("signal SIGABRT"), &desk(Some(1)), 7);
        assert_eq!(finding.accused.unwrap().standing, Standing::Quarantined);
        let report = deaths.report(finding, 0);
        assert_eq!(report.flow, Some(deaths.flows()[0].key));
        let expected = json!({
            "event": "worker_ended", "seat": "worker 1", "pid": 42, "how": "signal SIGABRT",
            "packet_id": 7, "packet_bytes": 6, "standing": "quarantined", "deaths": 2,
        });
        assert_eq!(report.details, expected);
        let later = deaths.quarantine().as_nanos() as u64 + 7;
        assert_eq!(deaths.forget_old(later - 1).len(), 1, "the suspect");
        assert_eq!(deaths.forget_old(later).len(), 1);
    }

    #[test]
    fn a_packet_is_saved_though_it_was_not_decoded_and_a_full_disk_is_counted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("packets");
        let mut deaths = deaths(|config| {
            config.failover.save_packets = true;
            config.failover.packet_directory.clone_from(&path);
        });
        let undecoded = desk(None);
        let finding = deaths.ended(end("signal SIGSEGV"), &undecoded, 5);
        assert_eq!(finding.accused, None);
        let report = deaths.report(finding, 1_700_000_000_000_000);
        let file = report.details["packet_file"].as_str().unwrap();
        assert!(fs::read(file).unwrap().ends_with(b"packet"));
        // The successor has ended at its start.
        let finding = deaths.ended(end("exit status 1"), &undecoded, 6);
        assert!(deaths.report(finding, 0).details.get("packet_id").is_none());
        fs::remove_dir_all(&path).unwrap();
        fs::write(&path, "").unwrap();
        let finding = deaths.ended(end("signal SIGSEGV"), &desk(Some(1)), 7);
        let report = deaths.report(finding, 0);
        assert!(report.details.get("packet_file").is_none());
        let counters = deaths.counters();
        assert_eq!((counters.undecoded, counters.idle), (1, 1));
        assert_eq!((counters.packets_saved, counters.packets_unsaved), (1, 1));
    }
}
