//! Fragments put together, IPv4 (RFC 791 §3.2) and IPv6 (RFC 8200 §4.5).
//!
//! Fragments go on one by one: a verdict cannot wait for the next. So inline, what the receiver
//! will put together must be what was inspected, whatever stack it has: the first data counts, a
//! fragment that says something else about the same bytes is dropped, and the fragment that
//! completes a datagram carries the datagram's verdict. A datagram that was dropped is
//! remembered, so that no repetition of a fragment completes it at the receiver. When something
//! about an accepted one was unusual (a TTL that differs, an overlap, headers or options for which
//! somebody may refuse a fragment), its bytes are remembered,
//! too: its receiver may have a part of it only, and wait for another.
//!
//! In passive mode overlaps are read as the receiver's stack reads them (`host-os-policy`).

use std::time::Duration;

use ips_common::HashSeed;

use crate::config::settings::EngineSettings;
use crate::decode::{DecodeEvent as Event, EventSet, Network, Part, VlanIds};
use crate::flow::Timestamp;
use crate::source::Disposition;

mod assembly;
mod policy;
mod table;

pub use policy::{Extent, OverlapPolicy};

use super::host_policy::{HostPolicyTable, PrefixTable};
use assembly::{Overlap, Piece};
use table::{Key, State, Trackers};

/// How fragments are put together: `defrag.*` of Suricata's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefragOptions {
    /// Whether they are at all.
    pub enabled: bool,
    /// Whether the verdict decides what the receiver gets.
    pub inline: bool,
    /// Whether a fragment is refused whose datagram has not begun with its first one here. Where
    /// several workers share the traffic that may have gone to another one, or none.
    pub ordered: bool,
    /// Most memory for fragments, in bytes.
    pub memcap: usize,
    /// Most datagrams at a time.
    pub max_trackers: u32,
    /// Most fragments at a time, of all datagrams.
    pub max_fragments: u32,
    /// How long after its last fragment a datagram is given up.
    pub timeout: Duration,
    /// The same by destination, where it differs.
    pub host_timeouts: PrefixTable<Duration>,
    /// Whether the VLANs of a datagram's fragments must be the same.
    pub vlan_tracking: bool,
    /// How the receivers read overlaps, in passive mode.
    pub hosts: HostPolicyTable,
}

impl DefragOptions {
    /// As configured.
    pub fn new(settings: &EngineSettings, inline: bool) -> Self {
        Self {
            enabled: true,
            inline,
            ordered: false,
            memcap: settings.defrag.memcap.bytes(),
            max_trackers: settings.defrag.trackers,
            max_fragments: settings.defrag.max_frags,
            timeout: settings.defrag.timeout.duration(),
            host_timeouts: PrefixTable::default(),
            vlan_tracking: settings.vlan.use_for_tracking,
            hosts: HostPolicyTable::new(&settings.host_os_policy),
        }
    }
}

impl Default for DefragOptions {
    fn default() -> Self {
        Self::new(&EngineSettings::default(), true)
    }
}

/// Why a fragment is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It says something else than an earlier one: about the same bytes, or about where the
    /// datagram ends. Inline also when its datagram is complete already.
    Conflict,
    /// Its datagram was dropped.
    Condemned,
    /// The datagram would be longer than an IP packet can be.
    TooLarge,
    /// More is to follow, but its length is no multiple of eight.
    Length,
    /// It has no data.
    Empty,
    /// Its IPv4 header checksum is wrong: no receiver will use it.
    Checksum,
    /// It is cut short.
    Truncated,
    /// It repeats or replaces more than its datagram can hold.
    Excess,
    /// Its datagram has not begun here.
    Order,
}

impl Refusal {
    /// Every reason.
    pub const ALL: [Self; 9] = [
        Self::Conflict,
        Self::Condemned,
        Self::TooLarge,
        Self::Length,
        Self::Empty,
        Self::Checksum,
        Self::Truncated,
        Self::Excess,
        Self::Order,
    ];

    /// Name, as in statistics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::Condemned => "condemned",
            Self::TooLarge => "too_large",
            Self::Length => "length",
            Self::Empty => "empty",
            Self::Checksum => "checksum",
            Self::Truncated => "truncated",
            Self::Excess => "excess",
            Self::Order => "order",
        }
    }
}

/// Totals, and what is there now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DefragCounters {
    /// IPv4 fragments seen.
    pub ipv4_fragments: u64,
    /// IPv4 datagrams completed.
    pub ipv4_reassembled: u64,
    /// IPv6 fragments seen.
    pub ipv6_fragments: u64,
    /// IPv6 datagrams completed.
    pub ipv6_reassembled: u64,
    /// Datagrams given up because their rest did not come in time.
    pub timed_out: u64,
    /// Fragments that overlapped others.
    pub overlaps: u64,
    /// Fragments not used, in the order of [`Refusal::ALL`].
    pub refused: [u64; Refusal::ALL.len()],
    /// Completed datagrams that were dropped.
    pub condemned: u64,
    /// Fragments without room because of the memory cap.
    pub memcap_reached: u64,
    /// Fragments without room because of the number of datagrams.
    pub max_trackers_reached: u64,
    /// Fragments without room because of the number of fragments.
    pub max_fragments_reached: u64,
    /// Datagrams that were given up to make room for others, and incomplete ones that went by
    /// policy because there was none.
    pub given_up: u64,
    /// Datagrams at the moment: incomplete, or remembered.
    pub trackers: u64,
    /// Memory at the moment, in bytes.
    pub memory: u64,
    /// The most that was taken.
    pub memory_max: u64,
}

impl DefragCounters {
    /// Fragments not used for this reason.
    pub const fn refused_for(&self, reason: Refusal) -> u64 {
        self.refused[reason as usize]
    }
}

/// A fragment as it was decoded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fragment<'a> {
    pub(crate) network: &'a Network<'a>,
    pub(crate) part: Part<'a>,
    /// What stands before the IP header.
    pub(crate) before: &'a [u8],
    pub(crate) vlans: VlanIds,
    /// How many packets are around it.
    pub(crate) depth: u8,
}

/// What became of a fragment.
#[derive(Debug)]
pub(crate) enum Insertion {
    /// Nobody puts fragments together.
    Disabled,
    /// It waits for others, or repeats what was accepted already.
    Kept,
    /// It was the last one. [`Defragmenter::settle`] has to follow.
    Complete(Datagram),
    /// It is not used.
    Refused(Refusal),
    /// There is no room for it: its datagram will not be inspected.
    NoRoom,
}

/// A fragment of the frame that is being decoded.
#[derive(Clone, Copy, Debug)]
struct Held {
    tracker: u32,
    generation: u64,
    /// What became of the datagram that it completed.
    verdict: Option<Disposition>,
}

/// A complete datagram, which waits to be inspected.
#[derive(Debug)]
#[must_use = "its verdict has to be settled"]
pub(crate) struct Datagram {
    bytes: Vec<u8>,
    /// Which of the frame's fragments completed it.
    held: usize,
}

impl Datagram {
    /// From the first byte of the frame of its first fragment on.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// After this time its receiver may have given up a datagram and begun anew: Linux does after 30
/// seconds, which can be configured.
const LATE_NS: u64 = 1_000_000_000;
/// Most bytes kept for one datagram, replaced ones included: each byte four times.
const MAX_RECEIVED: usize = 4 * 65_535;
/// Buffers for datagrams that are kept for the next.
const SPARE_BUFFERS: usize = 4;

/// Puts fragments together, within the bounds of its options.
///
/// Its state is lost when a worker ends. What a successor sees of a datagram that began before
/// has not begun for it, and is refused where fragments must be in order.
#[derive(Debug)]
pub struct Defragmenter {
    options: DefragOptions,
    trackers: Trackers,
    counters: DefragCounters,
    /// Fragments of the frame that is being decoded.
    in_hand: Vec<Held>,
    scratch: Vec<Piece>,
    spare: Vec<Vec<u8>>,
}

impl Defragmenter {
    /// Without any fragments. `seed` keys the hash: random, different for each worker.
    pub fn new(options: DefragOptions, seed: [u64; 2]) -> Self {
        Self {
            trackers: Trackers::new(HashSeed { key: seed }, most_trackers(&options)),
            options,
            counters: DefragCounters::default(),
            in_hand: Vec::new(),
            scratch: Vec::new(),
            spare: Vec::new(),
        }
    }

    /// Goes on with other options; what is there stays.
    pub fn set_options(&mut self, options: DefragOptions) {
        self.trackers.resize(most_trackers(&options));
        self.options = options;
    }

    /// Totals so far.
    pub fn counters(&self) -> DefragCounters {
        DefragCounters {
            trackers: self.trackers.len() as u64,
            memory: self.trackers.memory() as u64,
            memory_max: self.trackers.most() as u64,
            ..self.counters
        }
    }

    /// Gives up datagrams whose time is over; looks at up to `budget`. To be called regularly.
    pub fn expire(&mut self, now: Timestamp, budget: usize) -> usize {
        let mut given_up = 0;
        let mut next = self.trackers.oldest();
        for _ in 0..budget {
            let Some(index) = next else { break };
            next = self.trackers.after(index);
            if self.trackers.get(index).deadline_ns <= now.monotonic_ns {
                self.time_out(index);
                given_up += 1;
            } else if self.options.host_timeouts == PrefixTable::default() {
                // In order of their deadlines.
                break;
            }
        }
        given_up
    }

    /// Forgets everything; counts what was incomplete.
    pub fn give_up_all(&mut self) {
        while let Some(index) = self.trackers.oldest() {
            if matches!(self.trackers.get(index).state, State::Open(_)) {
                self.counters.given_up += 1;
            }
            self.trackers.remove(index);
        }
    }

    /// Whether a fragment that is not used is to be dropped.
    pub(crate) const fn drops_refused(&self) -> bool {
        self.options.inline
    }

    /// Counts a fragment that cannot be used whatever its datagram is.
    pub(crate) fn refuse(&mut self, fragment: &Fragment<'_>, reason: Refusal) -> Insertion {
        if !self.options.enabled {
            return Insertion::Disabled;
        }
        self.count_fragment(fragment);
        self.refused(reason)
    }

    /// Adds a fragment to its datagram; `events` are those of the fragment.
    pub(crate) fn insert(
        &mut self,
        fragment: &Fragment<'_>,
        now: Timestamp,
        events: &mut EventSet,
    ) -> Insertion {
        if !self.options.enabled {
            return Insertion::Disabled;
        }
        self.count_fragment(fragment);
        let key = Key::new(fragment, self.options.vlan_tracking, self.trackers.seed());
        let mut found = self.trackers.find(&key);
        if let Some(index) = found
            && self.trackers.get(index).deadline_ns <= now.monotonic_ns
        {
            self.time_out(index);
            found = None;
        }
        if found.is_none() && self.options.ordered && fragment.part.offset != 0 {
            return self.refused(Refusal::Order);
        }
        let ttl = fragment.network.hop_limit();
        let index = match found {
            Some(index) => index,
            None => match self.begin(key, fragment, now) {
                Some(index) => index,
                None => return Insertion::NoRoom,
            },
        };
        let insertion = self.insert_into(index, fragment, ttl, now, events);
        if found.is_none() && !matches!(insertion, Insertion::Kept | Insertion::Complete(_)) {
            // Nothing is remembered of a datagram that has not begun.
            if matches!(insertion, Insertion::Refused(_)) {
                self.trackers.remove(index);
            }
        }
        insertion
    }

    /// What became of a datagram; [`Self::end_frame`] has to follow.
    pub(crate) fn settle(&mut self, datagram: Datagram, verdict: Disposition) {
        let Datagram { bytes, held } = datagram;
        if self.spare.len() < SPARE_BUFFERS {
            self.spare.push(bytes);
        }
        self.in_hand[held].verdict = Some(verdict);
    }

    /// What became of the frame whose fragments were inserted. When it was dropped, what the
    /// receiver of a datagram has is another one, whatever the datagram's verdict.
    pub(crate) fn end_frame(&mut self, disposition: Disposition, now: Timestamp) {
        let mut in_hand = std::mem::take(&mut self.in_hand);
        for held in in_hand.drain(..) {
            let there = self.trackers.is_generation(held.tracker, held.generation);
            if there && disposition == Disposition::Drop {
                self.trackers.get_mut(held.tracker).unusual = true;
            }
            if held.verdict == Some(Disposition::Drop) {
                self.counters.condemned += 1;
            }
            if there && let Some(verdict) = held.verdict {
                self.finish(held.tracker, verdict, now);
            }
        }
        self.in_hand = in_hand;
    }

    /// Inline, nothing of a datagram that was dropped is let through afterwards.
    fn finish(&mut self, index: u32, verdict: Disposition, now: Timestamp) {
        let slot = self.trackers.get_mut(index);
        if !self.options.inline {
            self.trackers.remove(index);
        } else if verdict == Disposition::Drop {
            slot.deadline_ns = now.monotonic_ns.saturating_add(slot.timeout_ns);
            self.trackers.set_state(index, State::Condemned);
        } else if slot.unusual {
            let state = match std::mem::replace(&mut slot.state, State::Condemned) {
                State::Settling(assembly) => State::Finished(assembly),
                other => other,
            };
            slot.state = state;
        } else {
            self.trackers.remove(index);
        }
    }

    fn count_fragment(&mut self, fragment: &Fragment<'_>) {
        match is_v4(fragment) {
            true => self.counters.ipv4_fragments += 1,
            false => self.counters.ipv6_fragments += 1,
        }
    }

    fn refused(&mut self, reason: Refusal) -> Insertion {
        self.counters.refused[reason as usize] += 1;
        Insertion::Refused(reason)
    }

    fn time_out(&mut self, index: u32) {
        if matches!(self.trackers.get(index).state, State::Open(_)) {
            self.counters.timed_out += 1;
        }
        self.trackers.remove(index);
    }

    /// Room for one more datagram; `None` when there is none.
    fn begin(&mut self, key: Key, fragment: &Fragment<'_>, now: Timestamp) -> Option<u32> {
        while self.trackers.len() >= self.options.max_trackers as usize {
            if !self.make_room(None, now) {
                self.counters.max_trackers_reached += 1;
                return None;
            }
        }
        while self.trackers.taken_with_another() > self.options.memcap {
            if !self.make_room(None, now) {
                self.counters.memcap_reached += 1;
                return None;
            }
        }
        let destination = fragment.network.destination_ip();
        let timeout = self.options.host_timeouts.get(destination);
        let timeout = timeout.unwrap_or(self.options.timeout);
        let policy = match self.options.inline {
            true => OverlapPolicy::First,
            false => self.options.hosts.of(destination).into(),
        };
        Some(self.trackers.add(
            key,
            fragment.network.hop_limit(),
            policy,
            u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX),
            now,
        ))
    }

    /// Frees what has timed out and, in passive mode, the oldest datagram. Inline, a datagram
    /// whose fragments have gone on must not be forgotten for another: the receiver would not.
    fn make_room(&mut self, keep: Option<u32>, now: Timestamp) -> bool {
        let mut next = self.trackers.oldest();
        while let Some(index) = next {
            next = self.trackers.after(index);
            if Some(index) == keep {
                continue;
            }
            let tracker = self.trackers.get(index);
            if tracker.deadline_ns <= now.monotonic_ns {
                self.time_out(index);
                return true;
            }
            if self.options.inline {
                return false;
            }
            if !matches!(tracker.state, State::Settling(_)) {
                self.counters.given_up += 1;
                self.trackers.remove(index);
                return true;
            }
        }
        false
    }

    fn insert_into(
        &mut self,
        index: u32,
        fragment: &Fragment<'_>,
        ttl: u8,
        now: Timestamp,
        events: &mut EventSet,
    ) -> Insertion {
        let v4 = is_v4(fragment);
        let of_family = |v4_event, v6_event| if v4 { v4_event } else { v6_event };
        let overlap_event = of_family(Event::Ipv4FragOverlap, Event::Ipv6FragOverlap);
        let ignored_event = of_family(Event::Ipv4FragIgnored, Event::Ipv6FragIgnored);
        let mut part = fragment.part;
        let inline = self.options.inline;

        let tracker = self.trackers.get(index);
        let assembly = match &tracker.state {
            State::Open(assembly) => assembly,
            State::Condemned => return self.refused(Refusal::Condemned),
            State::Unwatched => return Insertion::NoRoom,
            State::Settling(_) => return self.refused(Refusal::Conflict),
            State::Finished(assembly) => {
                let overlap = assembly.overlap(&part);
                if overlap != Overlap::None {
                    self.counters.overlaps += 1;
                    events.insert(overlap_event);
                }
                // A part that says the datagram ends sooner makes another one of the same bytes
                // for a receiver that begins anew.
                let repeats = overlap == Overlap::Same { whole: true };
                if !repeats || assembly.contradicts_end(&part) {
                    return self.refused(Refusal::Conflict);
                }
                // Its receiver may begin anew with it, and remembers it from now on.
                self.trackers.prolong(index, now);
                self.hold(index);
                return Insertion::Kept;
            }
        };

        // The fixed header of IPv6 is not in its length field.
        let counted = part.header_len - if v4 { 0 } else { 40 };
        let end = part.offset as usize + part.data.len();
        if counted + end > usize::from(u16::MAX) {
            events.insert(of_family(Event::Ipv4FragTooLarge, Event::Ipv6FragTooLarge));
            return self.refused(Refusal::TooLarge);
        }
        if part.more && !part.data.len().is_multiple_of(8) {
            events.insert(of_family(
                Event::Ipv4FragIgnored,
                Event::Ipv6FragInvalidLength,
            ));
            if inline || !v4 {
                return self.refused(Refusal::Length);
            }
            // Most stacks refuse it, Linux takes what is left without the rest.
            part.data = &part.data[..part.data.len() & !7];
        }
        if part.data.is_empty() {
            events.insert(ignored_event);
            return self.refused(Refusal::Empty);
        }
        let overlap = assembly.overlap(&part);
        let contradicts = assembly.contradicts_end(&part);
        let received = assembly.received();
        let room = assembly.room_for(&part, fragment.before.len());
        let before = assembly.footprint();
        if overlap != Overlap::None {
            self.counters.overlaps += 1;
            events.insert(overlap_event);
        }
        let conflict = contradicts || (inline && overlap == Overlap::Different);
        // Options and headers for which somebody behind may refuse a fragment.
        let extended = part.header_len > if v4 { 20 } else { 40 };
        let tracker = self.trackers.get_mut(index);
        let late = now.monotonic_ns.saturating_sub(tracker.since_ns) >= LATE_NS;
        tracker.unusual |=
            conflict || overlap != Overlap::None || tracker.ttl != ttl || extended || late;
        if conflict {
            events.insert(match overlap {
                Overlap::None => ignored_event,
                _ => overlap_event,
            });
            return self.refused(Refusal::Conflict);
        }
        if received + part.data.len() > MAX_RECEIVED {
            events.insert(ignored_event);
            return self.refused(Refusal::Excess);
        }
        if !self.has_room(index, room.bytes().saturating_sub(before), now) {
            events.insert(ignored_event);
            self.counters.given_up += 1;
            self.trackers.set_state(index, State::Unwatched);
            return Insertion::NoRoom;
        }

        let header = fragment.network.packet.get(..part.header_len);
        let policy = self.trackers.get(index).policy;
        let scratch = &mut self.scratch;
        self.trackers.change(index, now, |assembly| {
            assembly.add(
                &part,
                fragment.before,
                header.unwrap_or_default(),
                policy,
                room,
                scratch,
            );
        });
        self.complete(index, v4, events)
    }

    /// Whether a datagram may take so much more; counts why not.
    fn has_room(&mut self, index: u32, more: usize, now: Timestamp) -> bool {
        while self.trackers.fragments() >= self.options.max_fragments as usize {
            if !self.make_room(Some(index), now) {
                self.counters.max_fragments_reached += 1;
                return false;
            }
        }
        while self.trackers.taken() + more > self.options.memcap {
            if !self.make_room(Some(index), now) {
                self.counters.memcap_reached += 1;
                return false;
            }
        }
        true
    }

    fn complete(&mut self, index: u32, v4: bool, events: &mut EventSet) -> Insertion {
        let Some(assembly) = self.trackers.open(index).filter(|it| it.is_complete()) else {
            self.hold(index);
            return Insertion::Kept;
        };
        let mut bytes = self.spare.pop().unwrap_or_default();
        if !assembly.write(&mut bytes) {
            // Options in the first fragment only: together they are too long.
            events.insert(match v4 {
                true => Event::Ipv4FragTooLarge,
                false => Event::Ipv6FragTooLarge,
            });
            return self.refused(Refusal::TooLarge);
        }
        match v4 {
            true => self.counters.ipv4_reassembled += 1,
            false => self.counters.ipv6_reassembled += 1,
        }
        self.trackers.settling(index);
        let held = self.hold(index);
        Insertion::Complete(Datagram { bytes, held })
    }

    /// Notes that a fragment's datagram depends on what becomes of the frame. Returns its place
    /// in the frame.
    fn hold(&mut self, index: u32) -> usize {
        self.in_hand.push(Held {
            tracker: index,
            generation: self.trackers.get(index).generation,
            verdict: None,
        });
        self.in_hand.len() - 1
    }
}

/// How many there can be.
fn most_trackers(options: &DefragOptions) -> usize {
    (options.max_trackers as usize).min(options.memcap / Trackers::COST)
}

fn is_v4(fragment: &Fragment<'_>) -> bool {
    fragment.network.family == ips_common::FAMILY_IPV4
}

#[cfg(test)]
mod tests;
