//! The gateway in one of the three states that are compared.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use sluice_tests::queue_state::{self, QueueState};
use sluice_tests::{Lab, Process};

use super::udp::Inspected;

/// The queue of the inspector.
pub(crate) const QUEUE: u16 = 0;

/// How packets get through the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// Routed, no queue.
    Plain,
    /// Through `sluice accept-all` with Sluice's own transport.
    Batched,
    /// Through `sluice accept-all` with the `nfq` crate's.
    Nfq,
}

impl Mode {
    pub(crate) const ALL: [Self; 3] = [Self::Plain, Self::Batched, Self::Nfq];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Batched => "batched",
            Self::Nfq => "nfq",
        }
    }
}

/// The gateway in a mode; goes back to plain forwarding on drop.
pub(crate) struct Gateway<'a> {
    lab: &'a Lab,
    inspector: Option<Process>,
}

impl<'a> Gateway<'a> {
    /// Starts the inspector on its CPU, and only then sends packets to it.
    pub(crate) fn set_up(
        lab: &'a Lab,
        mode: Mode,
        sluice: &Path,
        cpu: usize,
        further: &[String],
    ) -> Result<Self> {
        let mut gateway = Self {
            lab,
            inspector: None,
        };
        if mode != Mode::Plain {
            let mut command = lab.gateway().command(sluice);
            command.args(["accept-all", "--queue", &QUEUE.to_string()]);
            command.args(["--transport", mode.name(), "--cpu", &cpu.to_string()]);
            command.args(further);
            let mut inspector = Process::spawn(&mut command)?;
            inspector.wait_for_line("ready", Duration::from_secs(5))?;
            gateway.inspector = Some(inspector);
            gateway.rule("-A")?;
        }
        Ok(gateway)
    }

    /// Ends the inspector in order and returns its counters.
    pub(crate) fn finish(mut self) -> Result<Option<serde_json::Value>> {
        let Some(mut inspector) = self.inspector.take() else {
            return Ok(None);
        };
        self.rule("-D")?;
        inspector.stop(Signal::SIGTERM, Duration::from_secs(5))?;
        let log = inspector.log();
        let counters = log.lines().last().unwrap_or_default();
        let counters = serde_json::from_str(counters)
            .with_context(|| format!("the inspector printed {log:?}"))?;
        Ok(Some(counters))
    }

    fn rule(&self, action: &str) -> Result<()> {
        for iptables in ["iptables", "ip6tables"] {
            let queue = QUEUE.to_string();
            let rule = [
                "-t",
                "mangle",
                action,
                "FORWARD",
                "-j",
                "NFQUEUE",
                "--queue-num",
                &queue,
            ];
            self.lab.gateway().run(iptables, &rule)?;
        }
        Ok(())
    }
}

impl Inspected for Gateway<'_> {
    fn waiting(&self) -> Result<u64> {
        let state = queue_state::of(self.lab.gateway(), QUEUE)?;
        Ok(state.map_or(0, |state| state.waiting.into()))
    }

    fn dropped(&self) -> Result<BTreeMap<String, u64>> {
        Ok(dropped_by(queue_state::of(self.lab.gateway(), QUEUE)?))
    }
}

/// What the kernel says that queues have dropped.
pub(crate) fn dropped_by(queues: impl IntoIterator<Item = QueueState>) -> BTreeMap<String, u64> {
    let mut dropped = BTreeMap::new();
    for queue in queues {
        for (cause, packets) in [
            ("queue full", queue.queue_dropped),
            ("receive buffer full", queue.user_dropped),
        ] {
            *dropped.entry(cause.to_owned()).or_default() += packets;
        }
    }
    dropped
}

impl Drop for Gateway<'_> {
    fn drop(&mut self) {
        if self.inspector.is_some()
            && let Err(error) = self.rule("-D")
        {
            eprintln!("the rules of the gateway stay behind: {error:#}");
        }
    }
}
