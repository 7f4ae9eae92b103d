//! Flows ordered by the time since their last packet, in one list for each timeout.
//!
//! Within a list all flows have the same timeout, so the ones to expire are exactly at its
//! old end, and the longest idle flow of all is at one of the old ends: finding either takes
//! no scan. The lists are links between slots of the table, so moving a flow to the young
//! end allocates nothing.

/// Flows with the same timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// TCP before the handshake is complete.
    TcpNew,
    /// TCP with a handshake, or picked up midstream.
    TcpEstablished,
    /// TCP after both FINs or a reset.
    TcpClosed,
    /// Other protocols, packets in one direction only.
    New,
    /// Other protocols, packets in both directions.
    Established,
}

impl Class {
    pub(super) const ALL: [Self; 5] = [
        Self::TcpNew,
        Self::TcpEstablished,
        Self::TcpClosed,
        Self::New,
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

/// The lists; slot numbers are those of the table.
#[derive(Debug)]
pub(super) struct IdleLists {
    links: Vec<Link>,
    ends: [Ends; Class::ALL.len()],
}

impl IdleLists {
    pub(super) const fn new() -> Self {
        Self {
            links: Vec::new(),
            ends: [Ends {
                oldest: END,
                youngest: END,
            }; Class::ALL.len()],
        }
    }

    /// Puts a slot that is in no list at the young end.
    pub(super) fn insert(&mut self, slot: u32, class: Class) {
        let index = slot as usize;
        if index >= self.links.len() {
            let empty = Link {
                older: END,
                younger: END,
                class,
            };
            self.links.resize(index + 1, empty);
        }
        let ends = &mut self.ends[class as usize];
        self.links[index] = Link {
            older: ends.youngest,
            younger: END,
            class,
        };
        match ends.youngest {
            END => ends.oldest = slot,
            youngest => self.links[youngest as usize].younger = slot,
        }
        ends.youngest = slot;
    }

    /// Takes a slot out of its list.
    pub(super) fn remove(&mut self, slot: u32) {
        let Link {
            older,
            younger,
            class,
        } = self.links[slot as usize];
        let ends = &mut self.ends[class as usize];
        match older {
            END => ends.oldest = younger,
            older => self.links[older as usize].younger = younger,
        }
        match younger {
            END => ends.youngest = older,
            younger => self.links[younger as usize].older = older,
        }
    }

    /// Moves a slot to the young end of a list.
    pub(super) fn refresh(&mut self, slot: u32, class: Class) {
        let at_young_end = self.ends[class as usize].youngest == slot;
        if !at_young_end {
            self.remove(slot);
            self.insert(slot, class);
        }
    }

    /// The longest idle slot of a list.
    pub(super) fn oldest(&self, class: Class) -> Option<u32> {
        let oldest = self.ends[class as usize].oldest;
        (oldest != END).then_some(oldest)
    }

    /// The next one in the list of a slot that is in one.
    pub(super) fn younger(&self, slot: u32) -> Option<u32> {
        let younger = self.links[slot as usize].younger;
        (younger != END).then_some(younger)
    }
}
