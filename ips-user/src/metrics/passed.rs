//! Packets that the kernel accepted because a queue was full: it counts them nowhere, but the
//! rules count every packet that they would queue, and a queue gives no id to one that it has no
//! room for (net/netfilter/nfnetlink_queue.c, `__nfqnl_enqueue_packet`). So they are what the
//! rules counted, less the ids given, less what was dropped for want of room.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::queue_truth::QueueTruth;

/// Readings that are older say nothing any more, because ids wrap: for that it would take seven
/// million packets a second.
const USABLE: Duration = Duration::from_secs(600);

/// One queue's figures when they were last read, and what has come of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Account {
    rule: u64,
    last_id: u32,
    dropped: u64,
    /// Counted by the rule, less ids and drops, since the first reading.
    difference: i64,
    /// The most that this has been: the figures are read one after the other, and packets that
    /// come in between must not count twice.
    passed: u64,
}

/// All queues' accounts. A successor goes on with those of its predecessor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Passed {
    accounts: BTreeMap<u16, Account>,
    /// What was counted until other accounts were begun.
    before: BTreeMap<u16, u64>,
    /// When the figures were read, CLOCK_MONOTONIC.
    read_ns: u64,
}

impl Passed {
    /// Goes on with the accounts of a predecessor of the queues that it has left bound, also with
    /// what has passed since, and with the totals of the others.
    pub fn resume(mut self, now_ns: u64, bound: &[u16]) -> Self {
        let age = Duration::from_nanos(now_ns.saturating_sub(self.read_ns));
        let over = |queue: &u16, _: &mut Account| age > USABLE || !bound.contains(queue);
        for (queue, account) in self.accounts.extract_if(.., over) {
            *self.before.entry(queue).or_default() += account.passed;
        }
        self
    }

    /// Takes new readings: `rules` first, then `queues`, so that an id without its count is
    /// possible and a count without its id is not. A queue that was not read before begins with
    /// what it was `earlier` than the rules, for the same reason.
    pub fn update(
        &mut self,
        now_ns: u64,
        earlier: &[QueueTruth],
        rules: &BTreeMap<u16, u64>,
        queues: &[QueueTruth],
    ) {
        self.read_ns = now_ns;
        for (queue, rule) in rules {
            let read = |truths: &[QueueTruth]| {
                let truth = truths.iter().find(|truth| truth.queue == *queue)?;
                Some(Account {
                    rule: *rule,
                    last_id: truth.last_id,
                    dropped: truth.queue_dropped,
                    ..Account::default()
                })
            };
            match self.accounts.get_mut(queue) {
                Some(account) => {
                    if let Some(read) = read(queues) {
                        account.advance(read);
                    }
                }
                None => self
                    .accounts
                    .extend(read(earlier).map(|read| (*queue, read))),
            }
        }
    }

    /// Closes the account of a queue that goes, and returns what had passed it.
    pub fn close(&mut self, queue: u16) -> u64 {
        let passed = self.of(queue);
        self.accounts.remove(&queue);
        self.before.remove(&queue);
        passed
    }

    /// The same for all queues but these.
    pub fn close_others(&mut self, but: &[u16]) -> u64 {
        let queues = self.accounts.keys().chain(self.before.keys());
        let others: BTreeSet<_> = queues.filter(|queue| !but.contains(queue)).collect();
        let others: Vec<u16> = others.into_iter().copied().collect();
        others.into_iter().map(|queue| self.close(queue)).sum()
    }

    /// Packets of all queues that passed for want of room.
    pub fn total(&self) -> u64 {
        let open = self.accounts.values().map(|account| account.passed);
        self.before.values().copied().chain(open).sum()
    }

    /// Packets of a queue that passed for want of room since the first reading.
    pub fn of(&self, queue: u16) -> u64 {
        let before = self.before.get(&queue).copied().unwrap_or(0);
        before + self.accounts.get(&queue).map_or(0, |it| it.passed)
    }
}

impl Account {
    fn advance(&mut self, read: Self) {
        // A rule that is written anew counts from zero.
        let counted = read.rule.checked_sub(self.rule).unwrap_or(read.rule);
        // A queue that is bound anew counts from zero as well, but then all of it is new.
        let ids = read.last_id.wrapping_sub(self.last_id);
        let dropped = read.dropped.saturating_sub(self.dropped);
        self.difference += counted.cast_signed() - i64::from(ids) - dropped.cast_signed();
        self.passed = self.passed.max(self.difference.max(0).cast_unsigned());
        (self.rule, self.last_id, self.dropped) = (read.rule, read.last_id, read.dropped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn truth(last_id: u32, queue_dropped: u64) -> QueueTruth {
        QueueTruth {
            queue: 100,
            last_id,
            queue_dropped,
            ..QueueTruth::default()
        }
    }

    fn update(passed: &mut Passed, rule: u64, last_id: u32, queue_dropped: u64) -> u64 {
        let truth = truth(last_id, queue_dropped);
        passed.update(7, &[truth], &BTreeMap::from([(100, rule)]), &[truth]);
        passed.of(100)
    }

    #[test]
    fn what_has_no_id_and_was_not_dropped_has_passed() {
        let mut passed = Passed::default();
        // What was before the first reading is nobody's.
        assert_eq!(update(&mut passed, 1000, 10, 0), 0);
        assert_eq!(update(&mut passed, 1100, 110, 0), 0);
        assert_eq!(update(&mut passed, 1200, 150, 20), 40);
        // Ten packets between the two readings are counted by the rule at the next one.
        assert_eq!(update(&mut passed, 1200, 160, 20), 40);
        assert_eq!(update(&mut passed, 1210, 160, 20), 40);
        assert_eq!(update(&mut passed, 1215, 160, 20), 45);
        // The rule was written anew, and ids have wrapped.
        assert_eq!(update(&mut passed, 5, 165, 20), 45);
        assert_eq!(passed.of(101), 0);
        // A queue that comes back begins anew.
        assert_eq!(passed.close(100), 45);
        assert_eq!(passed.of(100), 0);
    }

    #[test]
    fn what_comes_while_a_queue_is_first_read_has_not_passed() {
        let mut passed = Passed::default();
        // Under load from the beginning; so many packets come between two readings.
        let mut look = |packets: u32, between: u32| {
            let ids = [packets - between, packets + between];
            let [earlier, later] = ids.map(|id| truth(id, 0));
            let rules = BTreeMap::from([(100, u64::from(packets))]);
            passed.update(7, &[earlier], &rules, &[later]);
            passed.of(100)
        };
        assert_eq!([look(1000, 100), look(2000, 10), look(3000, 0)], [0, 0, 0]);
    }

    #[test]
    fn a_successor_counts_on_what_has_passed_meanwhile_included() {
        let mut former = Passed::default();
        update(&mut former, 1000, 10, 0);
        assert_eq!(update(&mut former, 1100, 70, 0), 40);
        let soon = 7 + 1_000_000_000;
        let resumed = |now_ns, bound: &[u16]| {
            let text = serde_json::to_string(&former).unwrap();
            let left: Passed = serde_json::from_str(&text).unwrap();
            left.resume(now_ns, bound)
        };
        let mut passed = resumed(soon, &[100]);
        assert_eq!(passed.of(100), 40);
        assert_eq!(update(&mut passed, 1200, 160, 0), 50);
        // The queue was bound anew, or the ids may have wrapped.
        let late = soon + USABLE.as_nanos() as u64;
        for mut passed in [resumed(soon, &[101]), resumed(late, &[100])] {
            assert_eq!(passed.of(100), 40);
            assert_eq!(update(&mut passed, 1200, 5, 0), 40);
            assert_eq!(update(&mut passed, 1220, 15, 0), 50);
            let again = passed.clone().resume(late, &[]);
            assert_eq!(again.of(100), 50);
            // Somebody has flushed the rules: that takes nothing back.
            passed.update(8, &[], &BTreeMap::new(), &[]);
            assert_eq!(passed.close_others(&[100]), 0);
            assert_eq!(passed.of(100), 50);
            assert_eq!(passed.close_others(&[101]), 50);
            assert_eq!(passed.of(100), 0);
        }
    }

    #[test]
    fn ids_wrap() {
        let mut passed = Passed::default();
        update(&mut passed, 0, u32::MAX - 4, 0);
        assert_eq!(update(&mut passed, 10, 5, 0), 0);
        assert_eq!(update(&mut passed, 20, 10, 0), 5);
    }
}
