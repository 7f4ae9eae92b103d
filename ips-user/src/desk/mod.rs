//! A seat's desk: what its workers and the supervisor share, and what outlives each worker.
//!
//! Three anonymous files. The *desk* itself holds words: the note about the packet in hand, a
//! mailbox for commands, the level of overload. The *buffers* are where the worker receives
//! packets, so that the packet that killed it can still be read. Into the *flows* a worker
//! writes its flow table when it is asked to.
//!
//! Each word has one writer, and says at [`Word`] who that is.

pub mod hands;
pub mod journal;
pub mod watchlist;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use bytemuck::Zeroable;
use ips_common::FlowKey;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::uio::pread;

use crate::source::PacketId;
use crate::sys::pages;
use crate::sys::shared_words::SharedWords;

/// The words of a desk.
#[derive(Clone, Copy, Debug)]
#[repr(usize)]
enum Word {
    /// Worker: id of the packet in hand in the upper half, [`IN_HAND`] and [`KEYED`] below.
    Packet,
    /// Worker: where that packet is in the buffers, offset in the upper half, length below.
    Place,
    /// Worker: the flow key of that packet, five words.
    Key,
    /// Supervisor: the last command; its number in the upper bits, what is wanted in the lowest
    /// eight.
    Command = Word::Key as usize + KEY_WORDS,
    /// Worker: number of the last command carried out.
    Answer,
    /// Worker: what came of that command, for example how many flows were written.
    Result,
    /// Supervisor: how many messages it has put into the seat's channel.
    Mail,
    /// Supervisor: [`Overload`].
    Overload,
    /// How many there are.
    Count,
}

const KEY_WORDS: usize = size_of::<FlowKey>() / size_of::<u64>();
const _: () = assert!(size_of::<FlowKey>().is_multiple_of(size_of::<u64>()));

/// A packet is being inspected.
const IN_HAND: u64 = 1;
/// Its flow key is known.
const KEYED: u64 = 1 << 1;

/// What the supervisor wants of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Command {
    /// Finish the batch, write the flows into the flows file, and end.
    HandOver = 1,
    /// Write the keys of the flows into the flows file.
    ListFlows = 2,
}

impl Command {
    const fn of(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::HandOver),
            2 => Some(Self::ListFlows),
            _ => None,
        }
    }
}

/// How much of its work a worker leaves undone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u64)]
pub enum Overload {
    /// None.
    #[default]
    None = 0,
    /// The flows that are least risky.
    Some = 1,
    /// All.
    All = 2,
}

/// Number of a command: the answer names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandNumber(u64);

/// The packet that a worker was inspecting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InHand {
    /// Its id.
    pub id: PacketId,
    /// Its flow, unless the worker had not got that far.
    pub key: Option<FlowKey>,
    offset: u32,
    /// Its bytes in the buffers; zero when it was not there.
    pub length: u32,
}

/// See the module.
#[derive(Debug)]
pub struct Desk {
    words: SharedWords,
    buffers: OwnedFd,
    flows: OwnedFd,
}

impl Desk {
    /// A desk with nothing on it, and `buffers` bytes to receive packets in.
    ///
    /// # Errors
    /// When memory or descriptors run out.
    pub fn create(buffers: usize) -> io::Result<Self> {
        Ok(Self {
            words: SharedWords::create(c"sluice-desk", Word::Count as usize)?,
            buffers: pages::file(c"sluice-buffers", buffers)?,
            flows: memfd_create(c"sluice-flows", MFdFlags::MFD_CLOEXEC)?,
        })
    }

    /// A desk that another process has made: its [`Self::files`], in that order.
    ///
    /// # Errors
    /// When these are no desk, or one of another version.
    pub fn of_files([words, buffers, flows]: [OwnedFd; 3]) -> io::Result<Self> {
        let words = SharedWords::map(words)?;
        if words.words().len() != Word::Count as usize {
            return Err(io::Error::other("a desk of another version"));
        }
        Ok(Self {
            words,
            buffers,
            flows,
        })
    }

    /// The files, for another process.
    pub fn files(&self) -> [BorrowedFd<'_>; 3] {
        [self.words.as_fd(), self.buffers.as_fd(), self.flows.as_fd()]
    }

    /// Where packets are received.
    pub fn buffers(&self) -> BorrowedFd<'_> {
        self.buffers.as_fd()
    }

    /// Where flows are written.
    pub fn flows(&self) -> BorrowedFd<'_> {
        self.flows.as_fd()
    }

    fn word(&self, word: Word) -> &AtomicU64 {
        &self.words.words()[word as usize]
    }

    fn get(&self, word: Word) -> u64 {
        self.word(word).load(Ordering::Acquire)
    }

    fn set(&self, word: Word, value: u64) {
        self.word(word).store(value, Ordering::Release);
    }

    /// Worker: takes a packet into its hands. `offset` is its place in the buffers.
    pub fn take_in_hand(&self, id: PacketId, offset: usize, length: usize) {
        // Not in hand while place and id do not belong together.
        self.word(Word::Packet).store(0, Ordering::Relaxed);
        self.set(Word::Place, (offset as u64) << 32 | length as u64);
        self.set(Word::Packet, u64::from(id.0) << 32 | IN_HAND);
    }

    /// Worker: has found out the flow of the packet in hand.
    pub fn note_flow(&self, key: &FlowKey) {
        let values: [u64; KEY_WORDS] = bytemuck::cast(*key);
        let words = &self.words.words()[Word::Key as usize..];
        for (word, value) in words.iter().zip(values) {
            word.store(value, Ordering::Relaxed);
        }
        let packet = self.word(Word::Packet).load(Ordering::Relaxed);
        self.set(Word::Packet, packet | KEYED);
    }

    /// Worker: has nothing in its hands.
    pub fn put_down(&self) {
        self.set(Word::Packet, 0);
    }

    /// What the seat's worker has in its hands, or had when it ended.
    pub fn in_hand(&self) -> Option<InHand> {
        let packet = self.get(Word::Packet);
        if packet & IN_HAND == 0 {
            return None;
        }
        let place = self.get(Word::Place);
        let mut values = [0; KEY_WORDS];
        let words = &self.words.words()[Word::Key as usize..];
        for (value, word) in values.iter_mut().zip(words) {
            *value = word.load(Ordering::Relaxed);
        }
        let mut key = FlowKey::zeroed();
        bytemuck::bytes_of_mut(&mut key).copy_from_slice(bytemuck::cast_slice(&values));
        Some(InHand {
            id: PacketId((packet >> 32) as u32),
            key: (packet & KEYED != 0).then_some(key),
            offset: (place >> 32) as u32,
            length: place as u32,
        })
    }

    /// The bytes of the packet that the seat's worker had in its hands when it ended, at most
    /// `limit`; empty when they were not in the buffers.
    ///
    /// # Errors
    /// When the file cannot be read there.
    pub fn packet(&self, in_hand: &InHand, limit: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; limit.min(in_hand.length as usize)];
        let read = pread(&self.buffers, &mut bytes, in_hand.offset.into())?;
        bytes.truncate(read);
        Ok(bytes)
    }

    /// Supervisor: gives a command; it is seen when the worker's loop comes round.
    pub fn give(&self, command: Command) -> CommandNumber {
        let number = (self.get(Word::Command) >> 8) + 1;
        self.set(Word::Command, number << 8 | command as u64);
        CommandNumber(number)
    }

    /// Supervisor: what came of a command, `None` as long as it has not been carried out.
    pub fn answer(&self, number: CommandNumber) -> Option<u64> {
        (self.get(Word::Answer) == number.0).then(|| self.get(Word::Result))
    }

    /// Worker: a command that has not been carried out yet. Costs two loads.
    pub fn command(&self) -> Option<(CommandNumber, Command)> {
        let command = self.word(Word::Command).load(Ordering::Acquire);
        let number = command >> 8;
        if number == self.word(Word::Answer).load(Ordering::Relaxed) {
            return None;
        }
        Some((CommandNumber(number), Command::of(command as u8)?))
    }

    /// How many commands have been carried out, or taken back: who waits for that of another
    /// process sees it change.
    pub fn commands_done(&self) -> u64 {
        self.get(Word::Answer)
    }

    /// What came of the last one of [`Self::commands_done`].
    pub fn last_result(&self) -> u64 {
        self.get(Word::Result)
    }

    /// Worker (or the supervisor, for one that has ended): has carried out a command.
    pub fn carried_out(&self, number: CommandNumber, result: u64) {
        self.set(Word::Result, result);
        self.set(Word::Answer, number.0);
    }

    /// Supervisor: takes back what nobody has carried out, before a new worker takes the seat.
    pub fn clear_command(&self) {
        let number = self.get(Word::Command) >> 8;
        self.set(Word::Answer, number);
    }

    /// Supervisor: has put a message into the seat's channel.
    pub fn announce_mail(&self) {
        // Whatever a worker has written there.
        self.set(Word::Mail, self.get(Word::Mail).wrapping_add(1));
    }

    /// Worker: how many messages have been put into the seat's channel.
    pub fn mail(&self) -> u64 {
        self.get(Word::Mail)
    }

    /// Supervisor: says how overloaded the worker is.
    pub fn set_overload(&self, level: Overload) {
        self.set(Word::Overload, level as u64);
    }

    /// How overloaded the worker is.
    pub fn overload(&self) -> Overload {
        match self.word(Word::Overload).load(Ordering::Relaxed) {
            0 => Overload::None,
            1 => Overload::Some,
            _ => Overload::All,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_sides() -> (Desk, Desk) {
        let supervisor = Desk::create(4096).unwrap();
        let files = supervisor
            .files()
            .map(|file| file.try_clone_to_owned().unwrap());
        let worker = Desk::of_files(files).unwrap();
        (supervisor, worker)
    }

    #[test]
    fn what_a_worker_writes_cannot_stop_the_supervisor() {
        let desk = Desk::create(4096).unwrap();
        for word in desk.words.words() {
            word.store(u64::MAX, Ordering::Relaxed);
        }
        desk.announce_mail();
        assert_eq!(desk.mail(), 0);
        desk.give(Command::ListFlows);
        assert!(matches!(desk.command(), Some((_, Command::ListFlows))));
        desk.clear_command();
        assert_eq!(desk.command(), None);
    }

    #[test]
    fn what_was_in_hand_is_known_with_as_much_as_the_worker_had_found_out() {
        let (supervisor, worker) = two_sides();
        assert_eq!(supervisor.in_hand(), None);
        let mut pages = pages::Pages::shared(worker.buffers(), 4096).unwrap();
        pages.as_mut_slice()[100..103].copy_from_slice(b"bad");
        worker.take_in_hand(PacketId(u32::MAX), 100, 3);
        let in_hand = supervisor.in_hand().unwrap();
        assert_eq!((in_hand.id, in_hand.key), (PacketId(u32::MAX), None));
        assert_eq!(supervisor.packet(&in_hand, 65_535).unwrap(), b"bad");
        assert_eq!(supervisor.packet(&in_hand, 2).unwrap(), b"ba");
        let key = FlowKey {
            low_port: 7,
            high_port: 9,
            ..FlowKey::zeroed()
        };
        worker.note_flow(&key);
        assert_eq!(supervisor.in_hand().unwrap().key, Some(key));
        worker.take_in_hand(PacketId(1), 0, 0);
        assert_eq!(supervisor.in_hand().unwrap().key, None);
        worker.put_down();
        assert_eq!(supervisor.in_hand(), None);
    }

    #[test]
    fn a_command_is_carried_out_once_and_its_result_belongs_to_it() {
        let (supervisor, worker) = two_sides();
        assert_eq!(worker.command(), None);
        let first = supervisor.give(Command::ListFlows);
        assert_eq!(supervisor.answer(first), None);
        let (number, command) = worker.command().unwrap();
        assert_eq!((number, command), (first, Command::ListFlows));
        worker.carried_out(number, 12);
        assert_eq!(worker.command(), None);
        assert_eq!(supervisor.answer(first), Some(12));
        let second = supervisor.give(Command::HandOver);
        assert_eq!(supervisor.answer(second), None);
        // Its worker died: the next one shall not end at once.
        supervisor.clear_command();
        assert_eq!(worker.command(), None);
    }

    #[test]
    fn mail_and_overload_are_seen() {
        let (supervisor, worker) = two_sides();
        supervisor.announce_mail();
        assert_eq!(worker.mail(), 1);
        supervisor.set_overload(Overload::All);
        assert_eq!(worker.overload(), Overload::All);
    }

    #[test]
    fn files_of_something_else_are_no_desk() {
        let words = SharedWords::create(c"other", 3).unwrap();
        let other = || words.as_fd().try_clone_to_owned().unwrap();
        Desk::of_files([other(), other(), other()]).unwrap_err();
    }
}
