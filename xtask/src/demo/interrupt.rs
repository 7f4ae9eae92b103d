//! Ctrl-C and SIGTERM as something that can be asked about, so that everything is taken down in
//! order: the namespaces, the running Sluice, its pins.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};

/// The run was ended by a signal.
#[derive(Debug)]
pub(super) struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// Whether a signal has come.
#[derive(Clone)]
pub(super) struct Interrupt {
    came: Arc<AtomicBool>,
}

impl Interrupt {
    /// Takes over SIGINT, SIGTERM and SIGHUP. To be called before any other thread exists:
    /// threads inherit the mask, and an unmasked one would be ended by the signal.
    pub(super) fn take_over() -> Result<Self> {
        let mut signals = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            signals.add(signal);
        }
        signals.thread_block().context("blocking signals")?;
        let came = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&came);
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                while let Ok(signal) = signals.wait() {
                    if !flag.swap(true, Ordering::Relaxed) {
                        eprintln!("\n{signal}: stopping and cleaning up");
                    }
                }
            })
            .context("starting the signal thread")?;
        Ok(Self { came })
    }

    /// An error when a signal has come.
    pub(super) fn check(&self) -> Result<()> {
        if self.came.load(Ordering::Relaxed) {
            return Err(Interrupted.into());
        }
        Ok(())
    }

    /// Sleeps, unless a signal comes.
    pub(super) fn pause(&self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        loop {
            self.check()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(Duration::from_millis(20)));
        }
    }
}
