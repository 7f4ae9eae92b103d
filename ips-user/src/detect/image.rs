//! The compiled rules as an image in memory: made once, mapped by every worker.
//!
//! The launcher forks a process that compiles the rules in the ordinary way, copies the finished
//! [`Engine`] into the image and ends, with all that compiling needed. So the launcher stays
//! small, goes on starting workers meanwhile, and survives what compiling may run into. Workers
//! map the image; it is gone when the last of them has another and its file is closed.
//!
//! # What can be in it
//! Whatever an `Engine`'s clone allocates ([`Freeze`](crate::sys::frozen::Freeze)): memory with
//! pointers, to itself and to the program's code. A database of another library is
//! position-independent bytes (Hyperscan's is, once serialised, and can be deserialised into
//! memory that the clone provides: `hs_deserialize_database_at`) and fits as it is. What holds
//! memory that a library allocates by itself, machine code above all (PCRE2's JIT), does not, and
//! neither does anything that is written later: the image is mapped for reading only. Of a PCRE2
//! expression it then has the pattern, and each worker compiles that when it first needs it, into
//! memory of its own that belongs with the scratch space, and not with the `Engine`.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytemuck::{Pod, Zeroable};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;
use thiserror::Error;

use super::engine::Engine;
use crate::sys::frozen::{self, Frozen, FrozenFile};
use crate::sys::process;

/// Exit status of a compiling process that found the rules unusable and has said why.
const REFUSED: i32 = 1;
/// Longest explanation that is passed on, in bytes.
const EXPLANATION: u64 = 16 * 1024;

/// How long threads that have been joined may be seen for.
const THREADS_END: Duration = Duration::from_secs(1);

/// Bytes that [`MappedEngine::warm`] has ready: a fraction of a millisecond.
const WARMED_AT_ONCE: usize = 1 << 20;

/// What became of the rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Summary {
    /// Rules in use.
    pub rules: u64,
    /// Rules skipped.
    pub skipped: u64,
    /// Of these: rules that are wrong, not just unsupported.
    pub wrong: u64,
}

/// The image's note.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Note {
    /// A `u32`; without padding.
    generation: u64,
    peak_bytes: u64,
    summary: Summary,
}

/// Why there is no image.
#[derive(Debug, Error)]
pub enum ImageError {
    /// The rules cannot be used.
    #[error("{0}")]
    Refused(String),
    /// The compiling process died.
    #[error("compiling the rules ended by {how}; {hint}")]
    Died {
        /// How it ended: `signal SIGKILL`.
        how: String,
        /// What that usually means.
        hint: &'static str,
    },
    /// It was killed because it took too long.
    #[error(
        "compiling the rules has not come to its end within {} s (rules.compile_seconds): given up",
        limit.as_secs()
    )]
    Late {
        /// How long it could have taken.
        limit: Duration,
    },
    /// What it left cannot be used.
    #[error("the rules' image")]
    Unusable(#[from] io::Error),
}

/// An image that is being made.
#[derive(Debug)]
pub struct Building {
    process: Pid,
    file: File,
    generation: u32,
    since: Instant,
}

/// A finished image.
#[derive(Debug)]
pub struct Image {
    file: FrozenFile<Engine, Note>,
    took: Duration,
}

impl Image {
    /// Begins to make an image: forks a process in which `compile` runs. The caller goes on, and
    /// calls [`Building::finish`] when that process has ended.
    ///
    /// # Errors
    /// When there cannot be another process or file, or this process has several threads.
    pub fn build(
        generation: u32,
        compile: impl FnOnce() -> anyhow::Result<(Engine, Summary)>,
    ) -> io::Result<Building> {
        let file = frozen::file(c"sluice-rules")?;
        let process = process::fork(|| {
            make(&file, generation, compile).map_or_else(|error| explain(&file, &error), |()| 0)
        })?;
        Ok(Building {
            process,
            file,
            generation,
            since: Instant::now(),
        })
    }

    /// Takes an image that another process of the same launcher has received.
    ///
    /// # Errors
    /// When it is none, or one of another launcher.
    pub fn open(file: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            file: FrozenFile::open(file)?,
            took: Duration::ZERO,
        })
    }

    /// Maps its engine into this process.
    ///
    /// # Errors
    /// When something else is mapped at its address, or memory runs out.
    pub fn map(&self) -> io::Result<MappedEngine> {
        Ok(MappedEngine {
            engine: self.file.map()?,
            generation: self.generation(),
        })
    }

    /// Which one it is.
    pub fn generation(&self) -> u32 {
        self.file.note().generation as u32
    }

    /// What became of the rules.
    pub fn summary(&self) -> Summary {
        self.file.note().summary
    }

    /// Its length in bytes: the memory that all workers share.
    pub fn bytes(&self) -> u64 {
        self.file.bytes()
    }

    /// The most memory that the compiling process had, in bytes, the image included.
    pub fn peak_bytes(&self) -> u64 {
        self.file.note().peak_bytes
    }

    /// How long it took to make, in the process that had it made.
    pub fn took(&self) -> Duration {
        self.took
    }
}

impl AsFd for Image {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Building {
    /// The process that makes it.
    pub fn process(&self) -> Pid {
        self.process
    }

    /// Which one it will be.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// How much of `limit` is left for it.
    pub fn left_of(&self, limit: Duration) -> Duration {
        limit.saturating_sub(self.since.elapsed())
    }

    /// Kills the process, because it has taken longer than `limit`. It may be inside the kernel,
    /// with a file system that does not answer: nobody waits for its end, but it is to be reaped.
    pub fn give_up(self, limit: Duration) -> ImageError {
        // It may just have ended: then it is as good as killed.
        let _ = kill(self.process, Signal::SIGKILL);
        ImageError::Late { limit }
    }

    /// The image, once the process has ended as `how` says.
    ///
    /// # Errors
    /// When the rules cannot be used, or compiling them failed in some other way.
    pub fn finish(self, how: &WaitStatus) -> Result<Image, ImageError> {
        match how {
            WaitStatus::Exited(_, 0) => Ok(Image {
                file: FrozenFile::open(self.file.into())?,
                took: self.since.elapsed(),
            }),
            WaitStatus::Exited(_, REFUSED) => Err(ImageError::Refused(explanation(&self.file)?)),
            WaitStatus::Exited(_, status) => Err(ImageError::Died {
                how: format!("exit status {status}"),
                hint: "the log says more",
            }),
            WaitStatus::Signaled(_, signal, _) => Err(ImageError::Died {
                how: format!("signal {signal}"),
                hint: match signal {
                    Signal::SIGKILL | Signal::SIGABRT => "most likely memory ran out",
                    _ => "this is a bug",
                },
            }),
            other => Err(ImageError::Died {
                how: format!("{other:?}"),
                hint: "this is a bug",
            }),
        }
    }
}

/// In the compiling process: compiles, and writes the image.
fn make(
    file: &File,
    generation: u32,
    compile: impl FnOnce() -> anyhow::Result<(Engine, Summary)>,
) -> anyhow::Result<()> {
    process::set_name("sluice-compile");
    process::end_with_parent()?;
    // It is the one that can be done without. Where it cannot be said, the kernel chooses.
    let _ = process::be_first_out_of_memory();
    let (engine, summary) = compile()?;
    process::settle_threads(THREADS_END)?;
    let generation = u64::from(generation);
    frozen::freeze(&engine, file, generation, || Note {
        generation,
        peak_bytes: process::peak_memory(),
        summary,
    })?;
    Ok(())
}

/// In the compiling process: leaves the reason in the file instead of an image.
fn explain(file: &File, error: &anyhow::Error) -> i32 {
    let text = format!("{error:#}");
    match file
        .set_len(0)
        .and_then(|()| file.write_all_at(text.as_bytes(), 0))
    {
        Ok(()) => REFUSED,
        Err(unwritten) => {
            log::error!("{text} (and {unwritten})");
            process::PANICKED
        }
    }
}

fn explanation(file: &File) -> io::Result<String> {
    let mut bytes = vec![0; file.metadata()?.len().min(EXPLANATION) as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// An engine in an image, mapped into this process.
#[derive(Debug)]
pub struct MappedEngine {
    engine: Frozen<Engine>,
    generation: u32,
}

impl MappedEngine {
    /// Has a part of it ready for use, so that the packets that first need it do not wait for
    /// that. To be called until it returns false, between packets: the whole of a large one at
    /// once takes milliseconds.
    pub fn warm(&mut self) -> bool {
        self.engine.warm(WARMED_AT_ONCE)
    }

    /// Which image it is in.
    pub fn generation(&self) -> u32 {
        self.generation
    }
}

impl Deref for MappedEngine {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        &self.engine
    }
}

/// The engine that a worker uses: of an image, or its own.
#[derive(Debug)]
pub enum Rules {
    /// Shared with other processes.
    Mapped(MappedEngine),
    /// In this process's memory.
    Own(Arc<Engine>),
}

impl Rules {
    /// Has a part of it ready for use, as [`MappedEngine::warm`]; false when all of it is.
    pub fn warm(&mut self) -> bool {
        match self {
            Self::Mapped(engine) => engine.warm(),
            Self::Own(_) => false,
        }
    }
}

impl From<MappedEngine> for Rules {
    fn from(engine: MappedEngine) -> Self {
        Self::Mapped(engine)
    }
}

impl From<Arc<Engine>> for Rules {
    fn from(engine: Arc<Engine>) -> Self {
        Self::Own(engine)
    }
}

impl Deref for Rules {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        match self {
            Self::Mapped(engine) => engine,
            Self::Own(engine) => engine,
        }
    }
}
