//! `sluice replay`: a capture through the same inspection that workers use, without a kernel.
//!
//! Everything is as the capture says, time included: the same capture, rules and settings write
//! the same records.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, bail};
use ips_common::FlowKey;

use crate::config::settings::EngineSettings;
use crate::decode::{LinkType, Start};
use crate::detect::{CompileOptions, Engine};
use crate::inspection::{
    Feedback, Inspection, InspectionCounters, InspectionOptions, RejectSender, Timestamp, Unguarded,
};
use crate::log::EventSink;
use crate::log::eve;
use crate::log::output::Outputs;
use crate::rules::{Loaded, RuleSet, Sources};
use crate::source::{Checksum, Packet, PacketId};

pub mod capture;
mod stats;

use capture::Capture;

/// What is replayed, and how.
#[derive(Clone, Debug)]
pub struct Replay {
    /// The capture.
    pub capture: PathBuf,
    /// Rule files.
    pub rules: Vec<PathBuf>,
    /// Whether packets are dropped as they would be inline.
    pub ips: bool,
    /// The engine's settings.
    pub settings: EngineSettings,
    /// Where records go; created when it is not there.
    pub log_directory: PathBuf,
}

/// What a replay has shown.
#[derive(Clone, Debug, Default)]
pub struct Replayed {
    /// Packets in the capture.
    pub packets: u64,
    /// Of these: of a kind of frame that is unknown here.
    pub not_shown: u64,
    /// Why the capture could not be read to its end.
    pub damage: Option<String>,
    /// What the inspection has counted.
    pub counters: InspectionCounters,
    /// Records written.
    pub records: u64,
}

/// Nobody is there to be told.
struct Nobody;

impl RejectSender for Nobody {
    fn send(&mut self, _packet: &[u8], _to: IpAddr) {}
}

impl Feedback for Nobody {
    fn convict(&mut self, _key: &FlowKey, _signature_id: u32) {}
}

/// Flow ids and hashes shall be the same in every run; nobody attacks the table of a replay.
const SEED: [u64; 2] = [0x736c_7569_6365_0001, 0x7265_706c_6179_0002];

impl Replay {
    /// Reads the capture to its end. `findings` is shown what is wrong with the rules.
    ///
    /// # Errors
    /// When there is no such capture, rules cannot be read, or records cannot be written.
    pub fn run(&self, findings: impl FnOnce(&Loaded)) -> anyhow::Result<Replayed> {
        let engine = self.engine(findings)?;
        let mut capture =
            Capture::open(&self.capture).with_context(|| self.capture.display().to_string())?;
        fs::create_dir_all(&self.log_directory)
            .with_context(|| self.log_directory.display().to_string())?;
        let outputs = Outputs::create(&self.settings.outputs, &self.log_directory, 0)?;
        let mut inspection = Inspection::new(
            Arc::new(engine),
            self.options()?,
            outputs,
            Nobody,
            Nobody,
            None,
        );
        let mut replayed = Replayed::default();
        let mut now = Timestamp::default();
        loop {
            let packet = match capture.next_packet() {
                Ok(Some(packet)) => packet,
                Ok(None) => break,
                Err(error) => {
                    replayed.damage = Some(error.to_string());
                    break;
                }
            };
            replayed.packets = packet.number;
            now = later(now, packet.wall_us);
            // As a worker does between two batches.
            inspection.expire(now);
            let Some(link) = LinkType::from_number(u32::from(packet.link_type)) else {
                if packet.number == 1 {
                    bail!(
                        "{}: frames of link type {} are unknown here",
                        self.capture.display(),
                        packet.link_type
                    );
                }
                replayed.not_shown += 1;
                continue;
            };
            let packet = Packet {
                id: PacketId(packet.number as u32),
                hook: 0,
                ethertype: 0,
                mark: 0,
                in_interface: 0,
                out_interface: 0,
                payload: packet.bytes,
                original_len: packet.original_len,
                checksum: Checksum::Unverified,
                gso: false,
            };
            // There is nobody to send it on to; what follows from the verdict is in the flow.
            let _ = inspection.inspect_frame(packet, Start::Link(link), now, &mut Unguarded);
        }
        inspection.finish(now);
        for (path, content) in inspection.sets_to_save() {
            let path = self.log_directory.join(path);
            fs::write(&path, content).with_context(|| path.display().to_string())?;
        }
        replayed.counters = inspection.counters();
        if self.settings.stats.enabled {
            let counts = inspection.figures().counts();
            let tree = stats::stats(&replayed.counters, counts, &self.settings.stats);
            let line = eve::own(now, 0, "stats", &tree);
            inspection.events_mut().emit(&line);
        }
        let outputs = inspection.events_mut();
        outputs.flush(SystemTime::now());
        let (written, lost) = outputs.totals();
        if lost > 0 {
            bail!("{lost} records could not be written");
        }
        replayed.records = written;
        Ok(replayed)
    }

    fn engine(&self, findings: impl FnOnce(&Loaded)) -> anyhow::Result<Engine> {
        let sources = Rc::new(Sources::disk());
        let set = RuleSet::with_settings(&self.settings, &sources)?;
        if let Some(missing) = self.rules.iter().find(|path| !path.exists()) {
            bail!("{}: no such file", missing.display());
        }
        let loaded = set.load(&self.rules, &sources);
        findings(&loaded);
        let options = CompileOptions::configured(&self.settings, &set.variables, &sources)?;
        let compiled = Engine::compile(loaded.rules, &options).context("compiling the rules")?;
        for refused in &compiled.refused {
            log::warn!("{refused}");
        }
        Ok(compiled.engine)
    }

    fn options(&self) -> anyhow::Result<InspectionOptions> {
        let options = InspectionOptions::of_replay(&self.settings, self.ips);
        Ok(InspectionOptions {
            seed: SEED,
            capture: Some(name_of(&self.capture)),
            ..options.map_err(anyhow::Error::msg)?
        })
    }
}

/// The time of the next packet. Captures of several interfaces are not always in order, and
/// intervals must not be negative.
fn later(before: Timestamp, wall_us: i64) -> Timestamp {
    let ns = u64::try_from(wall_us).unwrap_or(0).saturating_mul(1000);
    Timestamp {
        wall_us,
        monotonic_ns: ns.max(before.monotonic_ns),
    }
}

fn name_of(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
