//! Ctrl-C and SIGTERM as something that can be asked about, so that everything is taken down in
//! order: the namespaces, the running Sluice, its pins.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// What a process ended by SIGINT reports (128 + 2), as shells do.
pub(crate) const INTERRUPTED: u8 = 130;

/// The run was ended by a signal.
#[derive(Debug)]
pub(crate) struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// Whether a signal has come.
#[derive(Clone)]
pub(crate) struct Interrupt {
    came: Arc<AtomicBool>,
}

impl Interrupt {
    /// Takes over SIGINT, SIGTERM and SIGHUP. By handlers, not by a mask: a mask would be
    /// inherited by every process started from here, and Sluice could not be stopped.
    pub(crate) fn take_over() -> Result<Self> {
        let came = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&came))
                .with_context(|| format!("handling signal {signal}"))?;
        }
        Ok(Self { came })
    }

    /// An error when a signal has come.
    pub(crate) fn check(&self) -> Result<()> {
        if self.came.load(Ordering::Relaxed) {
            return Err(Interrupted.into());
        }
        Ok(())
    }

    /// Sleeps, unless a signal comes.
    pub(crate) fn pause(&self, time: Duration) -> Result<()> {
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
