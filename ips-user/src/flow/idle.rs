//! Flows ordered by the time since their last packet, in one list for each timeout.
//!
//! Within a list all flows have the same timeout, so the ones to expire are exactly at its
//! old end, and the longest idle flow of all is at one of the old ends: finding either takes
//! no scan. The lists are links between slots of the table, so moving a flow to the young
//! end allocates nothing.

use crate::bounded::Slab;

/// Flows with the same timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// TCP before the handshake is complete.
    TcpNew,
    /// The same, of a flow whose packets are dropped.
    TcpCondemned,
    /// TCP with a handshake, or picked up midstream.
    TcpEstablished,
    /// TCP after both FINs or a reset.
    TcpClosed,
    /// Other protocols, packets in one direction only.
    New,
    /// The same, of a flow whose packets are dropped.
    Condemned,
    /// Other protocols, packets in both directions.
    Established,
}

impl Class {
    pub(super) const ALL: [Self; 7] = [
        Self::TcpNew,
        Self::TcpCondemned,
        Self::TcpEstablished,
        Self::TcpClosed,
        Self::New,
        Self::Condemned,
        Self::Established,
    ];

    /// Those of which nobody would miss much: over, or never answered.
    pub(super) const LEAST: [Self; 3] = [Self::TcpClosed, Self::TcpNew, Self::New];
    /// The others. A flow that is dropped is among them whatever its state: it would be inspected
    /// from its middle.
    pub(super) const WORTHY: [Self; 4] = [
        Self::TcpCondemned,
        Self::TcpEstablished,
        Self::Condemned,
        Self::Established,
    ];
}

/// No slot.
const END: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Link {
    older: u32,
    younger: u32,
    class: Class,
}

#[derive(Clone, Copy, Debug)]
struct Ends {
    oldest: u32,
    youngest: u32,
}

/// Who walks through the lists to take something from flows, from the old end on. What was passed
/// has nothing to give until its next packet, which puts it at the young end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Collector {
    /// Takes sessions.
    Sessions,
    /// Takes sessions that hold data.
    Data,
}

const COLLECTORS: usize = 2;

/// The lists; slot numbers are those of the table.
#[derive(Debug)]
pub(super) struct IdleLists {
    links: Slab<Link>,
    ends: [Ends; Class::ALL.len()],
    /// Where in each list collectors go on.
    ahead: [[u32; Class::ALL.len()]; COLLECTORS],
}

impl IdleLists {
    /// Bytes for each slot.
    pub(super) const BYTES: usize = Slab::<Link>::BYTES;

    pub(super) const fn new() -> Self {
        Self {
            links: Slab::new(),
            ends: [Ends {
                oldest: END,
                youngest: END,
            }; Class::ALL.len()],
            ahead: [[END; Class::ALL.len()]; COLLECTORS],
        }
    }

    /// The next slot of a list for a collector.
    pub(super) fn next_for(&mut self, collector: Collector, class: Class) -> Option<u32> {
        let ahead = &mut self.ahead[collector as usize][class as usize];
        let slot = *ahead;
        if slot == END {
            return None;
        }
        *ahead = self.links[slot].younger;
        Some(slot)
    }

    /// A slot is at the young end: collectors that have come there have one more to look at.
    fn offer(&mut self, slot: u32, class: Class) {
        for ahead in &mut self.ahead {
            let ahead = &mut ahead[class as usize];
            if *ahead == END {
                *ahead = slot;
            }
        }
    }

    /// Puts a slot that is in no list at the young end. Slots come in their order.
    pub(super) fn insert(&mut self, slot: u32, class: Class) {
        let ends = &mut self.ends[class as usize];
        let link = Link {
            older: ends.youngest,
            younger: END,
            class,
        };
        self.links.set(slot, link);
        match ends.youngest {
            END => ends.oldest = slot,
            youngest => self.links[youngest].younger = slot,
        }
        ends.youngest = slot;
        self.offer(slot, class);
    }

    /// Takes a slot out of its list.
    pub(super) fn remove(&mut self, slot: u32) {
        let Link {
            older,
            younger,
            class,
        } = self.links[slot];
        for ahead in &mut self.ahead {
            let ahead = &mut ahead[class as usize];
            if *ahead == slot {
                *ahead = younger;
            }
        }
        let ends = &mut self.ends[class as usize];
        match older {
            END => ends.oldest = younger,
            older => self.links[older].younger = younger,
        }
        match younger {
            END => ends.youngest = older,
            younger => self.links[younger].older = older,
        }
    }

    /// Moves a slot to the young end of a list.
    pub(super) fn refresh(&mut self, slot: u32, class: Class) {
        let at_young_end = self.ends[class as usize].youngest == slot;
        if at_young_end {
            self.offer(slot, class);
        } else {
            self.remove(slot);
            self.insert(slot, class);
        }
    }

    /// The list that a slot is in.
    pub(super) fn class(&self, slot: u32) -> Class {
        self.links[slot].class
    }

    /// The longest idle slot of a list.
    pub(super) fn oldest(&self, class: Class) -> Option<u32> {
        let oldest = self.ends[class as usize].oldest;
        (oldest != END).then_some(oldest)
    }

    /// The next one in the list of a slot that is in one.
    pub(super) fn younger(&self, slot: u32) -> Option<u32> {
        let younger = self.links[slot].younger;
        (younger != END).then_some(younger)
    }
}
