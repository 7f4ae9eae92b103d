//! What the supervisor has in the kernel: the eBPF programs with their maps, and the netfilter
//! rules.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use anyhow::Context;
use ips_common::{
    Conviction, EventKind, FlowKey, HashSeed, MarkLayout, SteerConfig, SteerFlags,
    WorkerState,
};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::seat::Seat;
use crate::config::{Backend, Config, Xdp};
use crate::loader::{LoadOptions, Programs, XdpPolicy};
use crate::maps::{SteeringMaps, WorkerPages, worker_table};
use crate::metrics::snapshot::Attachment;
use crate::netfilter;
use crate::sys::process::monotonic_ns;

/// Programs, maps and rules of one instance.
pub(super) struct Steering {
    programs: Programs,
    maps: SteeringMaps,
    /// Readable when the programs have reported something.
    reported: AsyncFd<OwnedFd>,
    attachments: BTreeMap<String, Attachment>,
    netfilter: Option<netfilter::Installed>,
    /// Adoptions seen since the last line about them in the log.
    adoptions_unsaid: u64,
}

impl Steering {
    /// Loads the programs and writes their configuration; nothing is attached yet.
    pub(super) fn load(config: &Config) -> anyhow::Result<Self> {
        let options = LoadOptions {
            pin_base: config.steering.pin_directory.join(&config.name),
            max_adopted: config.steering.max_adopted,
            max_convicted: config.steering.max_convicted,
            max_fragments: config.steering.max_fragments,
        };
        let (programs, mut maps) =
            Programs::load(&options).context("loading the eBPF programs")?;
        let adopted = programs.adopted();
        if adopted.maps > 0 || adopted.links > 0 {
            log::info!(
                "adopted from a former run: {} maps, {} links",
                adopted.maps,
                adopted.links
            );
        }
        let layout = MarkLayout::new(config.steering.mark_mask, config.worker_count())?;
        // Kept from a former run, so that its flows stay where they are.
        let seed = match maps.config()?.seed {
            seed if seed != HashSeed::default() => seed,
            _ => random_seed()?,
        };
        let mut flags = 0;
        if config.steering.log {
            flags |= SteerFlags::LOG;
        }
        maps.write_config(&SteerConfig {
            seed,
            stale_ns: nanoseconds(config.stale()),
            fragment_ns: nanoseconds(Duration::from_secs(config.steering.fragment_seconds)),
            adoption_idle_ns: nanoseconds(Duration::from_secs(
                config.steering.adoption_idle_seconds,
            )),
            mark_mask: layout.mask(),
            mark_shift: layout.shift(),
            workers: config.worker_count(),
            flags: flags | SteerFlags::CONVICT_IN_TC,
        })?;
        let workers: Vec<u32> = (0..config.worker_count()).collect();
        maps.table.write(&worker_table(&workers))?;
        for seat in Seat::all(config.worker_count()) {
            maps.workers.set_state(seat.slot(), WorkerState::Down);
            maps.workers.clear_tripped(seat.slot());
            maps.workers.clear_received(seat.slot());
        }
        let reported = AsyncFd::with_interest(
            maps.events.as_fd().try_clone_to_owned()?,
            Interest::READABLE,
        )?;
        Ok(Self {
            programs,
            maps,
            reported,
            attachments: BTreeMap::new(),
            netfilter: None,
            adoptions_unsaid: 0,
        })
    }

    /// The heartbeats.
    pub(super) fn pages(&self) -> &WorkerPages {
        &self.maps.workers
    }

    /// Queues marked packets, then has packets marked.
    pub(super) fn install(&mut self, config: &Config) -> anyhow::Result<()> {
        let installed = netfilter::install(&plan(config)?).context("netfilter")?;
        log::info!("netfilter: {installed}");
        for warning in &installed.warnings {
            log::warn!("netfilter: {warning}");
        }
        self.netfilter = Some(installed);
        let policy = match config.steering.xdp {
            Xdp::Auto => XdpPolicy::Auto,
            Xdp::Native => XdpPolicy::Native,
            Xdp::Generic => XdpPolicy::Generic,
            Xdp::Off => XdpPolicy::Off,
        };
        for interface in &config.interfaces {
            let tc = self
                .programs
                .attach_tc(interface)
                .with_context(|| format!("attaching the TC program to {interface}"))?;
            let xdp = self
                .programs
                .attach_xdp(interface, policy)
                .with_context(|| format!("attaching the XDP program to {interface}"))?;
            log::info!("{interface}: tc {tc}; xdp {}: {}", xdp.mode, xdp.reason);
            let attachment = Attachment {
                tc: tc.to_string(),
                xdp: xdp.mode.to_string(),
                xdp_reason: xdp.reason,
            };
            self.attachments.insert(interface.clone(), attachment);
        }
        Ok(())
    }

    pub(super) fn set_up(&self, seat: Seat) {
        let pages = self.pages();
        pages.clear_tripped(seat.slot());
        pages.set_state(seat.slot(), WorkerState::Up);
    }

    pub(super) fn set_down(&self, seat: Seat) {
        self.pages().set_state(seat.slot(), WorkerState::Down);
    }

    pub(super) fn set_stale(&self, seat: Seat) {
        let pages = self.pages();
        pages.set_state(seat.slot(), WorkerState::Stale);
        pages.clear_tripped(seat.slot());
    }

    /// Has the programs drop the rest of a flow.
    pub(super) fn convict(&mut self, seat: Seat, key: &FlowKey, signature: u32, config: &Config) {
        let sentence = nanoseconds(Duration::from_secs(config.conviction.seconds));
        let conviction = Conviction {
            expires_ns: monotonic_ns().saturating_add(sentence),
            signature_id: signature,
            ..Conviction::default()
        };
        match self.maps.convictions.convict(key, &conviction) {
            Ok(()) => log::debug!("{seat} convicted {key} by rule {signature}"),
            // The worker goes on dropping the flow itself.
            Err(error) => log::warn!("{key} could not be convicted: {error}"),
        }
    }

    /// Waits until the programs have reported something.
    pub(super) async fn event(&self) {
        match self.reported.readable().await {
            // The events are taken out right after this: readiness starts anew.
            Ok(mut ready) => ready.clear_ready(),
            Err(error) => {
                log::error!("events of the eBPF programs: {error}");
                std::future::pending().await
            }
        }
    }

    /// Logs what the programs have reported.
    pub(super) fn drain_events(&mut self) {
        while let Some(event) = self.maps.events.next() {
            let seat = Seat::of_slot(event.worker);
            if event.kind == EventKind::Adopted as u32 {
                self.adoptions_unsaid += 1;
                log::debug!("the backup adopted {} from {seat}", event.key);
            } else if event.kind == EventKind::Stale as u32 {
                log::info!("the TC program found {seat} stale");
            } else {
                log::warn!("unknown event {} from the eBPF programs", event.kind);
            }
        }
    }

    /// Removes what has run out from the maps.
    pub(super) fn sweep(&mut self, config: &Config) {
        if self.adoptions_unsaid > 0 {
            log::info!("the backup adopted {} flows", self.adoptions_unsaid);
            self.adoptions_unsaid = 0;
        }
        let idle = Duration::from_secs(config.steering.adoption_idle_seconds);
        let now_ns = monotonic_ns();
        if let Err(error) = self.maps.adoptions.purge_idle(now_ns.saturating_sub(nanoseconds(idle)))
        {
            log::warn!("adoptions not swept: {error}");
        }
    }

    /// What the eBPF programs have counted.
    pub(super) fn counters(&self) -> BTreeMap<String, u64> {
        match self.maps.counters.read() {
            Ok(totals) => totals
                .iter()
                .map(|(counter, value)| (counter.name().to_owned(), value))
                .collect(),
            Err(error) => {
                log::warn!("counters of the eBPF programs: {error}");
                BTreeMap::new()
            }
        }
    }

    /// Flows convicted now.
    pub(super) fn convicted(&self) -> usize {
        self.maps.convictions.list(monotonic_ns()).map_or(0, |list| list.len())
    }

    /// Flows adopted by the backup now.
    pub(super) fn adopted(&self) -> usize {
        self.maps.adoptions.list().map_or(0, |list| list.len())
    }

    pub(super) fn netfilter(&self) -> String {
        self.netfilter.as_ref().map_or_else(|| "not installed".into(), ToString::to_string)
    }

    pub(super) fn attachments(&self) -> &BTreeMap<String, Attachment> {
        &self.attachments
    }

    /// No packet is queued any more; the programs still mark.
    pub(super) fn uninstall(&mut self, config: &Config) -> anyhow::Result<()> {
        self.netfilter = None;
        netfilter::remove(&config.name).context("removing the netfilter rules")
    }

    /// Detaches and unpins everything.
    pub(super) fn unload(&mut self) -> anyhow::Result<()> {
        self.attachments.clear();
        self.programs.remove().context("removing the eBPF programs")
    }
}

fn plan(config: &Config) -> anyhow::Result<netfilter::Plan> {
    let workers = config.worker_count();
    Ok(netfilter::Plan {
        instance: config.name.clone(),
        hook: config.netfilter.hook,
        priority: config.netfilter.priority,
        mark: MarkLayout::new(config.steering.mark_mask, workers)?,
        queues: Seat::all(workers)
            .map(|seat| (seat.steer(), config.queue_number(seat.position(workers))))
            .collect(),
        fail: config.fail,
        backend: match config.netfilter.backend {
            Backend::Auto => None,
            Backend::Nft => Some(netfilter::Backend::Nft),
            Backend::Iptables => Some(netfilter::Backend::IptablesNft),
        },
    })
}

fn nanoseconds(duration: Duration) -> u64 {
    duration.as_nanos().try_into().unwrap_or(u64::MAX)
}

fn random_seed() -> anyhow::Result<HashSeed> {
    let mut bytes = [0; 16];
    let mut file = std::fs::File::open("/dev/urandom").context("/dev/urandom")?;
    std::io::Read::read_exact(&mut file, &mut bytes).context("/dev/urandom")?;
    Ok(HashSeed { key: bytemuck::cast(bytes) })
}
