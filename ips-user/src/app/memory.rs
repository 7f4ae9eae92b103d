//! What applications take of one worker's memory, bounded: for each protocol and all together.

use std::cell::Cell;
use std::rc::Rc;

use super::options::AppOptions;
use super::protocol::AppProtocol;

/// How many protocols there are.
const PROTOCOLS: usize = AppProtocol::ALL.len();

#[derive(Debug, Default)]
struct Usage {
    of: [Cell<u64>; PROTOCOLS],
    total: Cell<u64>,
    most: Cell<u64>,
}

/// How much the applications of one worker's flows may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Caps {
    /// Of each protocol; zero for no limit of its own.
    pub(super) of: [u64; PROTOCOLS],
    /// Of all together; zero for no limit.
    pub(super) total: u64,
}

/// Bytes of a conversation that takes little: requests and answers without long bodies.
const LITTLE: u64 = 32 << 10;
/// Which part of the memory is for these, so that those who send much do not keep the others from
/// being read.
const FOR_LITTLE: u64 = 8;

/// What is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AppCounters {
    /// Bytes that all take together.
    pub memuse: u64,
    /// The most that this was.
    pub memuse_max: u64,
    /// Bytes of each protocol, in the order of [`AppProtocol::ALL`].
    pub of: [u64; PROTOCOLS],
}

/// The memory of the applications of one worker's flows.
#[derive(Debug, Default)]
pub struct AppMemory {
    usage: Rc<Usage>,
}

impl AppMemory {
    /// What is in use.
    pub fn counters(&self) -> AppCounters {
        AppCounters {
            memuse: self.used(),
            memuse_max: self.usage.most.get(),
            of: std::array::from_fn(|at| self.usage.of[at].get()),
        }
    }

    /// Bytes that all take together.
    fn used(&self) -> u64 {
        self.usage.total.get()
    }

    /// Bytes that those of a protocol take.
    fn used_by(&self, protocol: AppProtocol) -> u64 {
        self.usage.of[protocol as usize].get()
    }

    /// Whether so many more bytes fit, for an application of this protocol that has `own` already.
    /// The last eighth is for those that take little.
    pub(super) fn has_room(
        &self,
        protocol: AppProtocol,
        own: u64,
        bytes: usize,
        options: &AppOptions,
    ) -> bool {
        let more = bytes as u64;
        let fits = |used: u64, cap: u64| {
            let kept_free = match own.saturating_add(more) <= LITTLE {
                true => 0,
                false => cap / FOR_LITTLE,
            };
            cap == 0 || used.saturating_add(more).saturating_add(kept_free) <= cap
        };
        fits(self.used(), options.caps.total)
            && fits(self.used_by(protocol), options.caps.of[protocol as usize])
    }

    pub(super) fn open(&self, protocol: AppProtocol) -> Account {
        Account {
            usage: Some(Rc::clone(&self.usage)),
            protocol: protocol as usize,
            bytes: 0,
        }
    }
}

/// What one flow's application has of the memory; given back when it ends.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// None of what is a copy.
    usage: Option<Rc<Usage>>,
    protocol: usize,
    bytes: u64,
}

impl Account {
    pub(super) const fn is_open(&self) -> bool {
        self.usage.is_some()
    }

    /// Bytes that it takes.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// It takes so many bytes now.
    pub(super) fn set(&mut self, bytes: usize) {
        let before = std::mem::replace(&mut self.bytes, bytes as u64);
        let Some(usage) = &self.usage else { return };
        let of = &usage.of[self.protocol];
        for sum in [of, &usage.total] {
            sum.set((sum.get() + self.bytes).saturating_sub(before));
        }
        usage.most.set(usage.most.get().max(usage.total.get()));
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_given_back_with_its_account() {
        let memory = AppMemory::default();
        let mut options = AppOptions::default();
        options.caps = Caps::default();
        assert!(memory.has_room(AppProtocol::Dns, 0, usize::MAX, &options));
        options.caps.total = 100;
        options.caps.of[AppProtocol::Dns as usize] = 50;
        let (mut dns, mut tls) = (memory.open(AppProtocol::Dns), memory.open(AppProtocol::Tls));
        dns.set(60);
        dns.set(40);
        tls.set(50);
        assert_eq!((memory.used(), memory.counters().memuse_max), (90, 90));
        assert!(memory.has_room(AppProtocol::Dns, 0, 10, &options));
        assert!(!memory.has_room(AppProtocol::Dns, 0, 11, &options));
        assert!(memory.has_room(AppProtocol::Tls, 0, 10, &options));
        assert!(!memory.has_room(AppProtocol::Tls, 0, 11, &options));
        drop(tls);
        assert_eq!(memory.used(), 40);
        assert_eq!(memory.used_by(AppProtocol::Tls), 0);
        // One that has much may not take the last of it.
        options.caps.of = Default::default();
        let has_room = |own, bytes| memory.has_room(AppProtocol::Dns, own, bytes, &options);
        assert!(has_room(0, 60) && !has_room(0, 61));
        assert!(has_room(LITTLE, 48) && !has_room(LITTLE, 49));
        drop(dns);
        assert_eq!((memory.used(), memory.counters().memuse_max), (0, 90));
    }
}
