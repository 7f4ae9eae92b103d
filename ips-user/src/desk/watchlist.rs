//! The flows that workers died of, in memory that all workers read: what to be careful with.
//!
//! The supervisor writes it, seldom; workers look at it for every packet, without a lock. A
//! sequence number, odd during a change, tells a worker that its own copy is old and whether
//! what it reads now is whole (a seqlock). While nothing changes, a packet costs one load.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering, fence};

use ips_common::FlowKey;

use crate::sys::shared_words::SharedWords;

/// Most flows on the list.
pub const CAPACITY: usize = 1024;

const SEQUENCE: usize = 0;
const COUNT: usize = 1;
const FORM: usize = 2;
/// Says what the words mean: to be changed with them, because another program may take over.
const THIS_FORM: u64 = u64::from_le_bytes(*b"watched1");
/// The first flow has a cache line of its own.
const FLOWS: usize = 8;
/// Words of a flow: the key, standing and deaths, since when, one spare.
const WIDTH: usize = 8;
const KEY_WORDS: usize = size_of::<FlowKey>() / size_of::<u64>();
const STANDING: usize = KEY_WORDS;
const SINCE: usize = KEY_WORDS + 1;
const WORDS: usize = FLOWS + CAPACITY * WIDTH;

/// What is thought of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A worker died, or hung, with a packet of it in hand: only that flow's own worker shall
    /// try again.
    Suspect,
    /// It happened again: nobody inspects it.
    Quarantined,
}

/// A flow on the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watched {
    /// The flow.
    pub key: FlowKey,
    /// What is thought of it.
    pub standing: Standing,
    /// Workers that died or hung with it in hand.
    pub deaths: u32,
    /// When the last of them did, CLOCK_MONOTONIC.
    pub since_ns: u64,
}

const SUSPECT: u64 = 1;
const QUARANTINED: u64 = 2;

impl Watched {
    fn words(&self) -> [u64; WIDTH] {
        let mut words = [0; WIDTH];
        words[..KEY_WORDS].copy_from_slice(&bytemuck::cast::<FlowKey, [u64; KEY_WORDS]>(self.key));
        words[STANDING] = u64::from(self.deaths) << 32
            | match self.standing {
                Standing::Suspect => SUSPECT,
                Standing::Quarantined => QUARANTINED,
            };
        words[SINCE] = self.since_ns;
        words
    }

    /// `None` for what no supervisor writes.
    fn of(words: &[u64; WIDTH]) -> Option<Self> {
        let mut key = [0; KEY_WORDS];
        key.copy_from_slice(&words[..KEY_WORDS]);
        Some(Self {
            key: bytemuck::cast(key),
            standing: match words[STANDING] & 0xffff_ffff {
                SUSPECT => Standing::Suspect,
                QUARANTINED => Standing::Quarantined,
                _ => return None,
            },
            deaths: (words[STANDING] >> 32) as u32,
            since_ns: words[SINCE],
        })
    }
}

/// The list.
#[derive(Debug)]
pub struct Watchlist {
    memory: SharedWords,
}

impl Watchlist {
    /// Creates an empty list.
    ///
    /// # Errors
    /// When memory or descriptors run out.
    pub fn create() -> io::Result<Self> {
        let memory = SharedWords::create(c"sluice-watchlist", WORDS)?;
        memory.words()[FORM].store(THIS_FORM, Ordering::Relaxed);
        Ok(Self { memory })
    }

    /// Maps a list created by another process.
    ///
    /// # Errors
    /// When the descriptor is no list, or one of another form.
    pub fn map(file: OwnedFd) -> io::Result<Self> {
        let memory = SharedWords::map(file)?;
        let words = memory.words();
        if words.len() != WORDS || words[FORM].load(Ordering::Relaxed) != THIS_FORM {
            return Err(io::Error::other("the shared file is no list of flows"));
        }
        Ok(Self { memory })
    }

    /// Replaces what is on the list; beyond [`CAPACITY`] nothing is taken. One process at a
    /// time may: the supervisor.
    pub fn publish(&self, flows: &[Watched]) {
        // None becomes visible before those that came before it: a worker sees the odd number
        // first, and a successor finds a change that was broken off as far as it had come.
        self.change(flows, |word, value| word.store(value, Ordering::Release));
    }

    fn change(&self, flows: &[Watched], store: impl Fn(&AtomicU64, u64)) {
        let words = self.memory.words();
        let flows = &flows[..flows.len().min(CAPACITY)];
        // A predecessor may have died in the middle of a change: the number was odd then.
        let changing = words[SEQUENCE].load(Ordering::Relaxed) | 1;
        store(&words[SEQUENCE], changing);
        for (flow, place) in flows.iter().zip(words[FLOWS..].chunks_exact(WIDTH)) {
            put(flow, place, &store);
        }
        // Flows move forward only, or in from behind: until now each that stays is to be found in
        // its old place or in its new one.
        store(&words[COUNT], flows.len() as u64);
        store(&words[SEQUENCE], changing.wrapping_add(1));
    }

    /// What can be read of a list that its writer has left, perhaps in the middle of a change:
    /// each flow once, with the worst that was thought of it. For a successor, while nobody
    /// writes.
    pub fn salvage(&self) -> Vec<Watched> {
        let mut flows: Vec<Watched> = Vec::new();
        for found in self.flows() {
            match flows.iter_mut().find(|flow| flow.key == found.key) {
                Some(flow) if flow.deaths < found.deaths => *flow = found,
                Some(_) => {}
                None => flows.push(found),
            }
        }
        flows
    }

    /// The flows as they stand in memory.
    fn flows(&self) -> impl Iterator<Item = Watched> {
        let words = self.memory.words();
        let count = words[COUNT].load(Ordering::Acquire).min(CAPACITY as u64) as usize;
        let places = words[FLOWS..].chunks_exact(WIDTH).take(count);
        places.filter_map(|place| {
            let mut copied = [0; WIDTH];
            for (value, word) in copied.iter_mut().zip(place) {
                *value = word.load(Ordering::Relaxed);
            }
            Watched::of(&copied)
        })
    }

    /// What is on the list; `None` while it is being changed.
    pub fn read(&self) -> Option<Vec<Watched>> {
        let mut flows = Vec::new();
        let sequence = self.sequence();
        self.copy(sequence, &mut flows).then_some(flows)
    }

    fn sequence(&self) -> u64 {
        self.memory.words()[SEQUENCE].load(Ordering::Acquire)
    }

    /// Copies the list as it was at `sequence` to `flows`; false when it is not that any more,
    /// or was being changed.
    fn copy(&self, sequence: u64, flows: &mut Vec<Watched>) -> bool {
        flows.clear();
        if sequence % 2 == 1 {
            return false;
        }
        flows.extend(self.flows());
        // No word above is loaded after the number below.
        fence(Ordering::Acquire);
        self.memory.words()[SEQUENCE].load(Ordering::Relaxed) == sequence
    }
}

/// Writes a flow so that there is never half of one: a place that changes hands is nobody's
/// meanwhile.
fn put(flow: &Watched, place: &[AtomicU64], store: impl Fn(&AtomicU64, u64)) {
    let words = flow.words();
    let mut key = place[..KEY_WORDS].iter().zip(&words);
    if !key.all(|(word, value)| word.load(Ordering::Relaxed) == *value) {
        store(&place[STANDING], 0);
        for (word, value) in place[..KEY_WORDS].iter().zip(&words) {
            store(word, *value);
        }
    }
    store(&place[SINCE], words[SINCE]);
    store(&place[STANDING], words[STANDING]);
}

impl AsFd for Watchlist {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

/// A worker's view of the list.
#[derive(Debug)]
pub struct Watch<'a> {
    list: &'a Watchlist,
    /// The sequence number of the copy.
    seen: u64,
    /// Ordered by key.
    flows: Vec<Watched>,
    /// A copy in the making.
    next: Vec<Watched>,
}

impl<'a> Watch<'a> {
    /// Begins to watch.
    pub fn new(list: &'a Watchlist) -> Self {
        Self {
            list,
            // Zero is that of a list that was never written to, which is empty.
            seen: 0,
            flows: Vec::with_capacity(CAPACITY),
            next: Vec::with_capacity(CAPACITY),
        }
    }

    /// What is thought of a flow; `None` of most.
    pub fn standing(&mut self, key: &FlowKey) -> Option<Standing> {
        let sequence = self.list.sequence();
        if sequence != self.seen {
            self.renew(sequence);
        }
        if self.flows.is_empty() {
            return None;
        }
        let at = self.flows.binary_search_by(|flow| flow.key.cmp(key));
        Some(self.flows[at.ok()?].standing)
    }

    /// Copies the list, unless it is being changed: then the old copy does until the next
    /// packet.
    #[cold]
    fn renew(&mut self, sequence: u64) {
        if self.list.copy(sequence, &mut self.next) {
            self.next.sort_unstable_by_key(|flow| flow.key);
            std::mem::swap(&mut self.flows, &mut self.next);
            self.seen = sequence;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn flow(port: u16, standing: Standing) -> Watched {
        Watched {
            key: key(port),
            standing,
            deaths: 2,
            since_ns: 7,
        }
    }

    fn key(port: u16) -> FlowKey {
        FlowKey {
            low_port: port,
            ..FlowKey::default()
        }
    }

    #[test]
    fn what_is_published_is_seen_through_another_mapping() {
        let list = Watchlist::create().unwrap();
        let other = Watchlist::map(list.as_fd().try_clone_to_owned().unwrap()).unwrap();
        let mut watch = Watch::new(&other);
        assert_eq!(watch.standing(&key(1)), None);
        let flows = [flow(9, Standing::Suspect), flow(1, Standing::Quarantined)];
        list.publish(&flows);
        assert_eq!(watch.standing(&key(1)), Some(Standing::Quarantined));
        assert_eq!(watch.standing(&key(9)), Some(Standing::Suspect));
        assert_eq!(watch.standing(&key(2)), None);
        assert_eq!(other.read().unwrap(), flows);
        list.publish(&[]);
        assert_eq!(watch.standing(&key(1)), None);
    }

    #[test]
    fn a_full_list_is_read_as_it_was_written_and_takes_no_more() {
        let list = Watchlist::create().unwrap();
        let flows: Vec<_> = (0..=CAPACITY as u16)
            .map(|port| flow(port, Standing::Suspect))
            .collect();
        list.publish(&flows);
        assert_eq!(list.read().unwrap(), flows[..CAPACITY]);
    }

    #[test]
    fn during_a_change_a_worker_goes_by_its_copy_and_a_successor_ends_the_change() {
        let list = Watchlist::create().unwrap();
        let mut watch = Watch::new(&list);
        list.publish(&[flow(1, Standing::Suspect)]);
        assert_eq!(watch.standing(&key(1)), Some(Standing::Suspect));
        // The writer has died here.
        list.memory.words()[SEQUENCE].fetch_add(1, Ordering::Relaxed);
        list.memory.words()[COUNT].store(0, Ordering::Relaxed);
        assert_eq!(watch.standing(&key(1)), Some(Standing::Suspect));
        assert_eq!(list.read(), None);
        assert!(list.salvage().is_empty());
        list.publish(&[flow(2, Standing::Suspect)]);
        assert_eq!(watch.standing(&key(1)), None);
        assert_eq!(watch.standing(&key(2)), Some(Standing::Suspect));
    }

    /// What is found after a writer that died in the middle of a change, for each of its stores.
    fn interrupted(before: &[Watched], after: &[Watched]) -> Vec<Vec<Watched>> {
        let mut found = Vec::new();
        for lived in 0.. {
            let (list, stores) = (Watchlist::create().unwrap(), Cell::new(0));
            list.publish(before);
            list.change(after, |word, value| {
                if stores.get() < lived {
                    word.store(value, Ordering::Relaxed);
                }
                stores.set(stores.get() + 1);
            });
            found.push(list.salvage());
            if lived == stores.get() {
                break;
            }
        }
        assert_eq!(found.last().unwrap(), after);
        found
    }

    #[test]
    fn of_a_list_left_in_the_middle_of_a_change_no_flow_is_lost_that_was_to_stay() {
        let [a, b, c, d, e] = [1, 2, 3, 4, 5].map(|port| flow(port, Standing::Suspect));
        let worse = Watched {
            deaths: 3,
            ..flow(2, Standing::Quarantined)
        };
        for (before, after) in [
            // One more, one forgotten, several forgotten, one in the place of another, one worse.
            (vec![a, b], vec![a, b, c]),
            (vec![a, b, c, d], vec![b, c, d]),
            (vec![a, b, c, d], vec![b, d]),
            (vec![a, b, c, d], vec![a, d, c, e]),
            (vec![a, b, c], vec![a, worse, c]),
            (vec![a], vec![]),
        ] {
            let of = |flow: &Watched, flows: &[Watched]| {
                flows
                    .iter()
                    .any(|it| it.key == flow.key && it.deaths >= flow.deaths)
            };
            for salvaged in interrupted(&before, &after) {
                let what = format!("{before:?} to {after:?}: {salvaged:?}");
                for flow in before.iter().filter(|it| of(it, &after)) {
                    assert!(of(flow, &salvaged), "lost: {what}");
                }
                for (at, flow) in salvaged.iter().enumerate() {
                    assert!(before.contains(flow) || after.contains(flow), "{what}");
                    let twice = |it: &Watched| it.key == flow.key;
                    assert!(!salvaged[..at].iter().any(twice), "twice: {what}");
                }
            }
        }
    }

    #[test]
    fn readers_never_see_half_a_change() {
        let list = Watchlist::create().unwrap();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for round in 0..20_000_u32 {
                    let flow = |port| Watched {
                        deaths: round,
                        since_ns: round.into(),
                        ..flow(port, Standing::Suspect)
                    };
                    list.publish(&[flow(1), flow(2), flow(3)]);
                }
            });
            while !writer.is_finished() {
                let Some(flows) = list.read() else { continue };
                for flow in &flows {
                    assert_eq!(u64::from(flow.deaths), flow.since_ns);
                    assert_eq!(flow.deaths, flows[0].deaths, "{flows:?}");
                }
            }
        });
    }

    #[test]
    fn another_file_is_no_list() {
        let other = SharedWords::create(c"test", 4).unwrap();
        Watchlist::map(other.as_fd().try_clone_to_owned().unwrap()).unwrap_err();
        let unmarked = SharedWords::create(c"test", WORDS).unwrap();
        Watchlist::map(unmarked.as_fd().try_clone_to_owned().unwrap()).unwrap_err();
    }
}
