//! What workers tell the supervisor while they run: that they have started or taken over other
//! rules, and which flows shall die in the kernel. Fixed-size messages over a socket pair that all workers share.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use bytemuck::{Pod, Zeroable};
use ips_common::FlowKey;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, recv, send, setsockopt, socketpair, sockopt,
};

use super::seat::Seat;

/// A message as it stands on the wire.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Wire {
    key: FlowKey,
    kind: u32,
    slot: u32,
    number: u32,
    generation: u32,
}

const STARTED: u32 = 1;
const CONVICT: u32 = 2;
const WAITING: u32 = 3;
const LOADED: u32 = 4;

/// Bytes that may wait for the supervisor.
const BUFFER_BYTES: usize = 1 << 20;

/// What a worker says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// It has settled what its predecessor left and serves its queue.
    Started {
        /// Who.
        seat: Seat,
        /// Its process.
        pid: u32,
    },
    /// It could serve its queue as soon as who does so still hands it over.
    Waiting {
        /// Who.
        seat: Seat,
        /// Its process.
        pid: u32,
    },
    /// It has taken over other rules.
    Loaded {
        /// Who.
        seat: Seat,
        /// Its process.
        pid: u32,
        /// Which rules.
        generation: u32,
    },
    /// The rest of a flow shall be dropped by the eBPF programs.
    Convict {
        /// Who says so.
        seat: Seat,
        /// The flow.
        key: FlowKey,
        /// The rule that matched.
        signature_id: u32,
    },
}

/// One end of the pair.
#[derive(Debug)]
pub struct FeedbackSocket {
    socket: OwnedFd,
}

impl FeedbackSocket {
    /// The supervisor's end, non-blocking, and the workers' end.
    ///
    /// # Errors
    /// When descriptors run out.
    pub fn pair() -> io::Result<(Self, Self)> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (supervisor, workers) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        setsockopt(&workers, sockopt::SndBuf, &BUFFER_BYTES)?;
        Ok((Self { socket: supervisor }, Self { socket: workers }))
    }

    /// Takes over a descriptor that is such an end.
    pub fn from_fd(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// Sends without waiting.
    ///
    /// # Errors
    /// When the supervisor is gone or does not keep up.
    pub fn send(&self, message: Message) -> io::Result<()> {
        let mut wire = Wire::zeroed();
        match message {
            Message::Started { seat, pid } => {
                wire.kind = STARTED;
                wire.slot = seat.slot();
                wire.number = pid;
            }
            Message::Waiting { seat, pid } => {
                wire.kind = WAITING;
                wire.slot = seat.slot();
                wire.number = pid;
            }
            Message::Loaded {
                seat,
                pid,
                generation,
            } => {
                wire.kind = LOADED;
                wire.slot = seat.slot();
                wire.number = pid;
                wire.generation = generation;
            }
            Message::Convict {
                seat,
                key,
                signature_id,
            } => {
                wire.kind = CONVICT;
                wire.slot = seat.slot();
                wire.number = signature_id;
                wire.key = key;
            }
        }
        send(
            self.socket.as_raw_fd(),
            bytemuck::bytes_of(&wire),
            MsgFlags::MSG_NOSIGNAL,
        )?;
        Ok(())
    }

    /// The next message; `WouldBlock` when none waits.
    ///
    /// # Errors
    /// `InvalidData` for what is no message: workers parse hostile input, so what comes from
    /// them is checked.
    pub fn receive(&self) -> io::Result<Message> {
        let mut wire = Wire::zeroed();
        let bytes = bytemuck::bytes_of_mut(&mut wire);
        let length = recv(self.socket.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT)?;
        let nonsense = || io::Error::from(io::ErrorKind::InvalidData);
        if length != size_of::<Wire>() || wire.slot >= ips_common::WORKER_SLOTS {
            return Err(nonsense());
        }
        let seat = Seat::of_slot(wire.slot);
        match wire.kind {
            STARTED => Ok(Message::Started {
                seat,
                pid: wire.number,
            }),
            WAITING => Ok(Message::Waiting {
                seat,
                pid: wire.number,
            }),
            LOADED => Ok(Message::Loaded {
                seat,
                pid: wire.number,
                generation: wire.generation,
            }),
            CONVICT => Ok(Message::Convict {
                seat,
                key: wire.key,
                signature_id: wire.number,
            }),
            _ => Err(nonsense()),
        }
    }
}

impl AsFd for FeedbackSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for FeedbackSocket {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.socket.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_and_nonsense_is_refused() {
        let (supervisor, worker) = FeedbackSocket::pair().unwrap();
        let key = FlowKey {
            low_port: 7,
            ..FlowKey::zeroed()
        };
        for message in [
            Message::Started {
                seat: Seat::Backup,
                pid: 42,
            },
            Message::Waiting {
                seat: Seat::Worker(7),
                pid: 43,
            },
            Message::Loaded {
                seat: Seat::Worker(1),
                pid: 43,
                generation: 7,
            },
            Message::Convict {
                seat: Seat::Worker(2),
                key,
                signature_id: 9,
            },
        ] {
            worker.send(message).unwrap();
            assert_eq!(supervisor.receive().unwrap(), message);
        }
        assert_eq!(
            supervisor.receive().unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        for bytes in [&[0xff; 56][..], &[1, 2, 3]] {
            send(worker.as_raw_fd(), bytes, MsgFlags::empty()).unwrap();
            assert_eq!(
                supervisor.receive().unwrap_err().kind(),
                io::ErrorKind::InvalidData
            );
        }
    }
}
