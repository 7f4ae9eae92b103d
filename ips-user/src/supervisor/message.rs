//! What the supervisor, the launcher and the workers tell each other, over socket pairs that keep
//! message bounds and carry descriptors.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::seat::Seat;
use crate::config::Config;
use crate::desk::Desk;
use crate::sys::descriptors;

/// To the launcher.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToLauncher {
    /// First message. Carries the `WORKERS` map, the board, the events socket, the feedback
    /// socket, the rejecter's counters, the list of flows that workers died of, the workers'
    /// hands, the journal of sets and the socket for reports about them, in this order.
    Prepare {
        /// The validated configuration, for what is the same in all of them.
        config: Box<Config>,
        /// Workers print packets and verdicts.
        trace: bool,
    },
    /// Compiles the rules; workers started afterwards have them, and this configuration. One at
    /// a time. May carry the files that they were compiled from before, which are used then
    /// instead of those on disk.
    Compile {
        /// Which rules and configuration this is.
        generation: u32,
        /// Rules that are wrong are skipped; otherwise all are refused for them.
        lenient: bool,
        /// The validated configuration.
        config: Box<Config>,
    },
    /// Starts a worker. Carries the files of its desk, its end of the seat's channel, and its
    /// queue socket, except with the `nfq` transport.
    Spawn {
        /// Where.
        seat: Seat,
        /// Who serves the queue still is relieved by it.
        succeeds: bool,
    },
}

/// From the launcher.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromLauncher {
    /// The rules are compiled.
    Compiled {
        /// Which.
        generation: u32,
        /// What became of them.
        compiled: Compiled,
        /// What comes with the message.
        #[serde(skip)]
        files: Option<CompiledFiles>,
    },
    /// The rules cannot be used; what was there before stays.
    NotCompiled {
        /// Which.
        generation: u32,
        /// Why.
        message: String,
    },
    /// A worker was started.
    Spawned {
        /// Where.
        seat: Seat,
        /// Its process.
        pid: u32,
        /// Which rules and configuration it has.
        generation: u32,
    },
    /// A worker could not be started.
    NotSpawned {
        /// Where.
        seat: Seat,
        /// Why.
        message: String,
    },
    /// The rejecter was started, or has ended.
    Rejecter {
        /// Its process, when it was started.
        pid: Option<u32>,
    },
    /// A worker has ended.
    Exited {
        /// Where.
        seat: Seat,
        /// Its process.
        pid: u32,
        /// How: `exit status 1`, `signal SIGSEGV`.
        how: String,
    },
}

/// Rules that have been compiled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compiled {
    /// Rules in use.
    pub rules: u64,
    /// Rules skipped.
    pub skipped: u64,
    /// Of these: rules that are wrong, not just unsupported.
    pub wrong: u64,
    /// Memory that they take, shared by all workers, in bytes.
    pub image_bytes: u64,
    /// Memory in which the files are kept that they were compiled from, in bytes.
    #[serde(default)]
    pub source_bytes: u64,
    /// The most memory that compiling them took, the image included, in bytes.
    pub peak_bytes: u64,
    /// How long that took.
    pub took_ms: u64,
}

/// The descriptors of [`FromLauncher::Compiled`], in this order.
#[derive(Debug)]
pub struct CompiledFiles {
    /// The rules' image.
    pub image: OwnedFd,
    /// The files that they were compiled from, as they were: see [`crate::rules::Sources`].
    pub sources: OwnedFd,
    /// The sets that they use: see [`crate::detect::dataset::Catalogue`].
    pub sets: OwnedFd,
}

impl CompiledFiles {
    /// `None` when these are not three.
    pub fn of(fds: Vec<OwnedFd>) -> Option<Self> {
        let [image, sources, sets] = <[OwnedFd; 3]>::try_from(fds).ok()?;
        Some(Self {
            image,
            sources,
            sets,
        })
    }
}

/// From the supervisor to one worker, over the channel of its seat.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToWorker {
    /// Goes on with other rules and settings. Carries the rules' image.
    Reload {
        /// Which.
        generation: u32,
        /// The validated configuration; differs only in what can change while a worker runs.
        config: Box<Config>,
    },
}

/// What a worker is given of its own.
#[derive(Debug)]
pub struct Equipment {
    /// What it shares with the supervisor, and with who had the seat before.
    pub desk: Desk,
    /// What the supervisor tells it.
    pub channel: Channel,
    /// Its queue's; `None` with the `nfq` transport.
    pub socket: Option<OwnedFd>,
}

impl Equipment {
    /// From the descriptors of [`ToLauncher::Spawn`].
    ///
    /// # Errors
    /// When these are not what it carries.
    pub fn of(fds: Vec<OwnedFd>) -> io::Result<Self> {
        let mut fds = fds.into_iter();
        let mut next = || fds.next().ok_or(io::ErrorKind::UnexpectedEof);
        let files = [next()?, next()?, next()?];
        let channel = Channel::from_fd(next()?);
        Ok(Self {
            desk: Desk::of_files(files)?,
            channel,
            socket: fds.next(),
        })
    }
}

/// Largest message; the configuration is the only long part.
const MESSAGE_BYTES: usize = 192 * 1024;

/// One end of the pair.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
}

impl Channel {
    /// Two connected ends. Both are closed by exec.
    ///
    /// # Errors
    /// When descriptors run out.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )?;
        for socket in [&one, &other] {
            nix::sys::socket::setsockopt(
                socket,
                nix::sys::socket::sockopt::SndBuf,
                &(2 * MESSAGE_BYTES),
            )?;
        }
        Ok((Self { socket: one }, Self { socket: other }))
    }

    /// Has neither receiving nor sending wait at this end.
    ///
    /// # Errors
    /// When the kernel refuses, which it never does.
    pub fn never_wait(&self) -> io::Result<()> {
        let flags = OFlag::from_bits_retain(fcntl(self, FcntlArg::F_GETFL)?);
        fcntl(self, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(())
    }

    /// Takes over a descriptor that is such an end.
    pub fn from_fd(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// Gives the descriptor away.
    pub fn into_fd(self) -> OwnedFd {
        self.socket
    }

    /// Sends a message with descriptors.
    ///
    /// # Errors
    /// When the other side is gone, or the message is too long.
    pub fn send<M: Serialize>(&self, message: &M, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        if bytes.len() > MESSAGE_BYTES {
            return Err(io::Error::other(format!(
                "message of {} bytes, at most {MESSAGE_BYTES} are possible",
                bytes.len()
            )));
        }
        let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
        loop {
            match sendmsg::<()>(
                self.socket.as_raw_fd(),
                &[IoSlice::new(&bytes)],
                control,
                MsgFlags::MSG_NOSIGNAL,
                None,
            ) {
                Ok(_) => return Ok(()),
                Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Receives a message; `None` when the other side is gone (also without having read all
    /// that it was sent). Waits unless [`Self::never_wait`] was called; then fails with
    /// `WouldBlock`.
    ///
    /// # Errors
    /// When the message is not understood or the call fails.
    pub fn receive<M: DeserializeOwned>(&self) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
        let mut bytes = vec![0; MESSAGE_BYTES];
        let (length, fds) = match descriptors::receive(self, &mut bytes) {
            Err(nix::Error::ECONNRESET) => return Ok(None),
            received => received?,
        };
        if length == 0 {
            return Ok(None);
        }
        Ok(Some((serde_json::from_slice(&bytes[..length])?, fds)))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spawn(seat: Seat) -> ToLauncher {
        ToLauncher::Spawn {
            seat,
            succeeds: false,
        }
    }

    #[test]
    fn messages_keep_their_bounds_and_carry_descriptors() {
        let (one, other) = Channel::pair().unwrap();
        let board = crate::metrics::board::Board::create().unwrap();
        one.send(&spawn(Seat::Backup), &[board.as_fd()]).unwrap();
        one.send(&spawn(Seat::Worker(3)), &[]).unwrap();
        let (first, fds) = other.receive::<ToLauncher>().unwrap().unwrap();
        assert!(matches!(
            first,
            ToLauncher::Spawn {
                seat: Seat::Backup,
                ..
            }
        ));
        assert_eq!(fds.len(), 1);
        let (second, fds) = other.receive::<ToLauncher>().unwrap().unwrap();
        assert!(matches!(
            second,
            ToLauncher::Spawn {
                seat: Seat::Worker(3),
                ..
            }
        ));
        assert!(fds.is_empty());
        drop(one);
        assert!(other.receive::<ToLauncher>().unwrap().is_none());
    }

    #[test]
    fn nonsense_is_an_error_and_too_much_is_refused() {
        let (one, other) = Channel::pair().unwrap();
        one.send(&"x".repeat(MESSAGE_BYTES), &[]).unwrap_err();
        one.send(&17, &[]).unwrap();
        other.receive::<ToLauncher>().unwrap_err();
    }
}
