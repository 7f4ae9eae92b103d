//! How much memory an instance and the kernel use while something goes on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use sluice_tests::Namespace;

use crate::stage::processes;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);

/// The most that was seen.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub(crate) struct Peak {
    /// Resident kilobytes of the largest process of each name.
    pub(crate) resident_kb: BTreeMap<String, u64>,
    /// Kilobytes of kernel objects (`Slab` of `/proc/meminfo`), of the whole machine.
    pub(crate) slab_kb: u64,
}

impl Peak {
    /// One look.
    pub(crate) fn now(namespace: &Namespace) -> Result<Self> {
        let mut peak = Self::default();
        peak.look(namespace)?;
        Ok(peak)
    }

    /// Looks while `body` runs.
    pub(crate) fn during<T: Send>(
        namespace: &Namespace,
        body: impl FnOnce() -> Result<T>,
    ) -> Result<(T, Self)> {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let watch = scope.spawn(|| {
                let mut peak = Self::default();
                while !over.load(Ordering::Relaxed) {
                    peak.look(namespace)?;
                    std::thread::sleep(LOOK);
                }
                anyhow::Ok(peak)
            });
            let done = body();
            over.store(true, Ordering::Relaxed);
            let peak = watch.join().expect("the watch does not panic")?;
            Ok((done?, peak))
        })
    }

    fn look(&mut self, namespace: &Namespace) -> Result<()> {
        for member in processes::of(namespace)? {
            if let Some(resident) = processes::kilobytes(member.pid, "VmRSS") {
                let peak = self.resident_kb.entry(member.name).or_default();
                *peak = resident.max(*peak);
            }
        }
        self.slab_kb = self.slab_kb.max(slab_kb()?);
        Ok(())
    }
}

fn slab_kb() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
    text.lines()
        .find_map(|line| line.strip_prefix("Slab:")?.split_whitespace().next())
        .and_then(|kilobytes| kilobytes.parse().ok())
        .context("Slab in /proc/meminfo")
}
