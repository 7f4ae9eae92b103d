//! Threads on a CPU of choice.

use std::thread;

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Which CPU each part of a measurement runs on.
///
/// Left to the scheduler, both ends of a connection come to lie on one CPU or on two as chance
/// has it, and results of several streams differ by a factor of two.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub(crate) struct Cpus {
    pub(crate) client: usize,
    pub(crate) server: usize,
    pub(crate) inspector: usize,
}

impl Cpus {
    /// Three CPUs where there are as many. With two, both ends share one and the inspector has
    /// the other, as it has on a gateway, where the ends are other machines: an end on the
    /// inspector's CPU would take from it what plain forwarding leaves to the end.
    pub(crate) fn choose() -> Result<Self> {
        let allowed = sched_getaffinity(Pid::from_raw(0)).context("sched_getaffinity")?;
        let cpus: Vec<usize> = (0..CpuSet::count())
            .filter(|cpu| allowed.is_set(*cpu).unwrap_or(false))
            .collect();
        let at = |index: usize| cpus[index.min(cpus.len() - 1)];
        Ok(Self {
            client: at(0),
            server: if cpus.len() > 2 { at(2) } else { at(0) },
            inspector: at(1),
        })
    }
}

/// Runs a closure on a thread of its own on one CPU; threads that it starts stay there too.
pub(crate) fn on_cpu<T: Send>(cpu: usize, body: impl FnOnce() -> T + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let mut cpus = CpuSet::new();
            cpus.set(cpu)
                .and_then(|()| sched_setaffinity(Pid::from_raw(0), &cpus))
                .with_context(|| format!("run on CPU {cpu}"))?;
            Ok(body())
        });
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
