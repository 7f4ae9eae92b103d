//! Signals to the supervisor, and how none of them gets lost when it becomes another program.

use std::io;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal as NixSignal};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;

/// A signal that a handler has caught is heard within this time.
const HEARD_WITHIN: Duration = Duration::from_millis(2);

/// What somebody outside wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Stop(&'static str),
    ReopenLog,
}

pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        let signals = Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        };
        // Whoever started this process may have blocked them, and that is inherited; what has
        // come meanwhile is heard now.
        heard().thread_unblock()?;
        Ok(signals)
    }

    /// In a thread that shall not catch any.
    pub(super) fn are_for_others() {
        if let Err(error) = heard().thread_block() {
            log::warn!("signals in a thread of its own: {error}");
        }
    }

    /// Does what a signal would interrupt, and hears of it afterwards.
    pub(super) fn undisturbed<T>(work: impl FnOnce() -> T) -> io::Result<T> {
        heard().thread_block()?;
        let done = work();
        heard().thread_unblock()?;
        Ok(done)
    }

    pub(super) async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.interrupt.recv() => Wish::Stop("SIGINT"),
            _ = self.terminate.recv() => Wish::Stop("SIGTERM"),
            _ = self.hangup.recv() => Wish::ReopenLog,
        }
    }

    /// Until a stop is wished for.
    pub(super) async fn stop(&mut self) -> &'static str {
        loop {
            if let Wish::Stop(name) = self.next().await {
                return name;
            }
        }
    }

    /// Signals that come from now on are for another program in this process, once it listens.
    /// Returns a stop that was wished for before.
    pub(super) async fn hold_back(&mut self) -> io::Result<Option<&'static str>> {
        heard().thread_block()?;
        Ok(timeout(HEARD_WITHIN, self.stop()).await.ok())
    }

    /// They are for this program, as before.
    pub(super) fn let_through(&self) -> io::Result<()> {
        Ok(heard().thread_unblock()?)
    }
}

fn heard() -> SigSet {
    [NixSignal::SIGINT, NixSignal::SIGTERM, NixSignal::SIGHUP]
        .into_iter()
        .collect()
}
