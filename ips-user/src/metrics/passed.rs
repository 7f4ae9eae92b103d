//! Packets that the kernel accepted because a queue was full: it counts them nowhere, but the
//! rules count every packet that they would queue, and a queue gives no id to one that it has no
//! room for (net/netfilter/nfnetlink_queue.c, `__nfqnl_enqueue_packet`). So they are what the
//! rules counted, less the ids given, less what was dropped for want of room.

use std::collections::BTreeMap;

use super::queue_truth::QueueTruth;

/// One queue's figures when they were last read, and what has come of them.
#[derive(Clone, Copy, Debug, Default)]
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

/// All queues' accounts.
#[derive(Debug, Default)]
pub struct Passed {
    accounts: BTreeMap<u16, Account>,
}

impl Passed {
    /// Takes new readings: `rules` first, then `queues`, so that an id without its count is
    /// possible and a count without its id is not.
    pub fn update(&mut self, rules: &BTreeMap<u16, u64>, queues: &[QueueTruth]) {
        self.accounts.retain(|queue, _| rules.contains_key(queue));
        for (queue, rule) in rules {
            let Some(truth) = queues.iter().find(|truth| truth.queue == *queue) else {
                continue;
            };
            let read = Account {
                rule: *rule,
                last_id: truth.last_id,
                dropped: truth.queue_dropped,
                ..Account::default()
            };
            match self.accounts.get_mut(queue) {
                Some(account) => account.advance(read),
                None => {
                    self.accounts.insert(*queue, read);
                }
            }
        }
    }

    /// Closes the account of a queue that goes, and returns what had passed it.
    pub fn close(&mut self, queue: u16) -> u64 {
        self.accounts.remove(&queue).map_or(0, |it| it.passed)
    }

    /// Packets of a queue that passed for want of room since the first reading.
    pub fn of(&self, queue: u16) -> u64 {
        self.accounts.get(&queue).map_or(0, |it| it.passed)
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

    fn update(passed: &mut Passed, rule: u64, last_id: u32, queue_dropped: u64) -> u64 {
        let truth = QueueTruth {
            queue: 100,
            last_id,
            queue_dropped,
            ..QueueTruth::default()
        };
        passed.update(&BTreeMap::from([(100, rule)]), &[truth]);
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
    fn ids_wrap() {
        let mut passed = Passed::default();
        update(&mut passed, 0, u32::MAX - 4, 0);
        assert_eq!(update(&mut passed, 10, 5, 0), 0);
        assert_eq!(update(&mut passed, 20, 10, 0), 5);
    }
}
