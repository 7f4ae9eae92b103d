//! The flows that workers died of, and how long that is held against them.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use ips_common::FlowKey;

use crate::desk::watchlist::{CAPACITY, Standing, Watched, Watchlist};

/// Deaths with the same flow in hand that end its inspection.
const QUARANTINED_AT: u32 = 2;

/// How long a flow is remembered after the last death.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    /// One that was in hand once.
    pub(super) suspect: Duration,
    /// One that was in hand more often.
    pub(super) quarantined: Duration,
}

/// Totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SuspectCounters {
    /// Flows that became suspects.
    pub(super) suspected: u64,
    /// Flows quarantined.
    pub(super) quarantined: u64,
    /// Flows forgotten early because the list was full.
    pub(super) evicted: u64,
}

/// The supervisor's end of the list.
#[derive(Debug)]
pub(super) struct Suspects {
    list: Watchlist,
    /// What the list says.
    flows: Vec<Watched>,
    counters: SuspectCounters,
}

impl Suspects {
    /// Goes on with an empty list or that of a predecessor, who may have died in the middle of a
    /// change: what can be read is taken. Its workers go on reading it.
    pub(super) fn resume(list: Watchlist, counters: SuspectCounters, now_ns: u64) -> Self {
        let mut flows = list.salvage();
        for flow in &mut flows {
            // Workers can write there as well: nothing is held against a flow for ever.
            flow.since_ns = flow.since_ns.min(now_ns);
        }
        list.publish(&flows);
        Self {
            list,
            flows,
            counters,
        }
    }

    /// A worker died or hung with a packet of this flow in hand. When this returns, every
    /// worker knows. Returns the flow, and another one that had to be forgotten for it.
    pub(super) fn accuse(&mut self, key: &FlowKey, now_ns: u64) -> (Watched, Option<Watched>) {
        let mut forgotten = None;
        let known = self.flows.iter().position(|flow| flow.key == *key);
        let at = known.unwrap_or_else(|| {
            if self.flows.len() >= CAPACITY {
                forgotten = self.make_room();
            }
            self.counters.suspected += 1;
            self.flows.push(Watched {
                key: *key,
                standing: Standing::Suspect,
                deaths: 0,
                since_ns: now_ns,
            });
            self.flows.len() - 1
        });
        let flow = &mut self.flows[at];
        flow.deaths = flow.deaths.saturating_add(1);
        flow.since_ns = now_ns;
        if flow.deaths >= QUARANTINED_AT && flow.standing == Standing::Suspect {
            flow.standing = Standing::Quarantined;
            self.counters.quarantined += 1;
        }
        let flow = *flow;
        self.list.publish(&self.flows);
        (flow, forgotten)
    }

    /// Takes the oldest suspect off, or the oldest of all when all are quarantined.
    fn make_room(&mut self) -> Option<Watched> {
        let oldest = self.flows.iter().enumerate();
        let (at, _) = oldest
            .min_by_key(|(_, flow)| (flow.standing == Standing::Quarantined, flow.since_ns))?;
        self.counters.evicted += 1;
        Some(self.flows.swap_remove(at))
    }

    /// Forgets the flows of which nobody has died for long enough; returns them.
    pub(super) fn forget_old(&mut self, now_ns: u64, memory: Memory) -> Vec<Watched> {
        let is_old = |flow: &mut Watched| {
            let kept = match flow.standing {
                Standing::Suspect => memory.suspect,
                Standing::Quarantined => memory.quarantined,
            };
            Duration::from_nanos(now_ns.saturating_sub(flow.since_ns)) >= kept
        };
        let forgotten: Vec<_> = self.flows.extract_if(.., is_old).collect();
        if !forgotten.is_empty() {
            self.list.publish(&self.flows);
        }
        forgotten
    }

    /// The flows on the list.
    pub(super) fn flows(&self) -> &[Watched] {
        &self.flows
    }

    /// Totals so far.
    pub(super) const fn counters(&self) -> SuspectCounters {
        self.counters
    }
}

impl AsFd for Suspects {
    /// The list, for the workers.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.list.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY: Memory = Memory {
        suspect: Duration::from_nanos(100),
        quarantined: Duration::from_nanos(1000),
    };

    fn new() -> Suspects {
        let list = Watchlist::create().unwrap();
        Suspects::resume(list, SuspectCounters::default(), 0)
    }

    fn key(port: u16) -> FlowKey {
        FlowKey {
            low_port: port,
            ..FlowKey::default()
        }
    }

    fn published(suspects: &Suspects) -> Vec<Watched> {
        suspects.list.read().unwrap()
    }

    #[test]
    fn a_flow_is_suspected_after_one_death_and_quarantined_after_two() {
        let mut suspects = new();
        for (deaths, standing) in [
            (1, Standing::Suspect),
            (2, Standing::Quarantined),
            (3, Standing::Quarantined),
        ] {
            let (flow, forgotten) = suspects.accuse(&key(1), deaths);
            let expected = Watched {
                key: key(1),
                standing,
                deaths: deaths as u32,
                since_ns: deaths,
            };
            assert_eq!((flow, forgotten), (expected, None));
            assert_eq!(published(&suspects), [expected]);
        }
        let counters = suspects.counters();
        assert_eq!((counters.suspected, counters.quarantined), (1, 1));
    }

    #[test]
    fn a_successor_goes_on_with_the_list_and_so_do_the_workers_that_have_it() {
        let mut former = new();
        former.accuse(&key(1), 5);
        former.accuse(&key(2), 6);
        former.accuse(&key(2), 7);
        former.accuse(&key(3), 900);
        let workers = Watchlist::map(former.as_fd().try_clone_to_owned().unwrap()).unwrap();
        let list = Watchlist::map(former.as_fd().try_clone_to_owned().unwrap()).unwrap();
        let (flows, counters) = (former.flows().to_vec(), former.counters());
        drop(former);
        let mut suspects = Suspects::resume(list, counters, 100);
        assert_eq!(suspects.flows()[..2], flows[..2]);
        assert_eq!(suspects.flows()[2].since_ns, 100, "not in the future");
        let (accused, _) = suspects.accuse(&key(1), 101);
        assert_eq!(
            (accused.standing, accused.deaths),
            (Standing::Quarantined, 2)
        );
        assert_eq!(workers.read().unwrap(), suspects.flows());
        let counters = suspects.counters();
        assert_eq!((counters.suspected, counters.quarantined), (3, 2));
    }

    #[test]
    fn suspects_are_forgotten_sooner_than_quarantined_flows() {
        let mut suspects = new();
        suspects.accuse(&key(1), 0);
        suspects.accuse(&key(2), 0);
        suspects.accuse(&key(2), 10);
        assert!(suspects.forget_old(99, MEMORY).is_empty());
        let forgotten = suspects.forget_old(100, MEMORY);
        assert_eq!(forgotten.len(), 1);
        assert_eq!(forgotten[0].key, key(1));
        assert_eq!(published(&suspects).len(), 1);
        assert!(suspects.forget_old(1009, MEMORY).is_empty());
        assert_eq!(suspects.forget_old(1010, MEMORY)[0].key, key(2));
        assert!(published(&suspects).is_empty());
        // It begins anew.
        assert_eq!(suspects.accuse(&key(2), 2000).0.deaths, 1);
    }

    #[test]
    fn when_the_list_is_full_the_oldest_suspect_makes_room() {
        let mut suspects = new();
        suspects.accuse(&key(0), 0);
        suspects.accuse(&key(0), 0);
        for port in 1..CAPACITY as u16 {
            suspects.accuse(&key(port), port.into());
        }
        let (_, forgotten) = suspects.accuse(&key(5000), 5000);
        assert_eq!(forgotten.unwrap().key, key(1), "not the quarantined one");
        assert_eq!(suspects.flows().len(), CAPACITY);
        assert_eq!(published(&suspects), suspects.flows());
        assert_eq!(suspects.counters().evicted, 1);
    }
}
