//! What the supervisor has in the kernel: the eBPF programs with their maps, and the netfilter
//! rules.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use ips_common::{
    BACKUP, Conviction, EventKind, FlowKey, HashSeed, MarkError, MarkLayout, SteerConfig,
    SteerFlags, WORKER_SLOTS, WorkerState, flow_hash, slot_of,
};
use nix::net::if_::if_nametoindex;

use super::duty::{Duty, LastingDuty};
use super::seat::Seat;
use super::seats::Seats;
use crate::config::{Backend, Config};
use crate::loader::{self, Adopted, KernelLog, LoadOptions, Programs, XdpMode, XdpPolicy};
use crate::maps::{PlacementCount, Placements, SteeringMaps, WorkerPages, worker_table};
use crate::metrics::snapshot::Attachment;
use crate::netfilter;
use crate::sys::process::{monotonic_ns, random_words};
use crate::sys::readable::Readable;

/// Events handled before anything else has its turn.
const EVENTS_AT_ONCE: usize = 1024;

/// Programs, maps and rules of one instance.
pub(super) struct Steering {
    programs: Programs,
    maps: SteeringMaps,
    /// What the programs shall do once the rules are there.
    steer: SteerConfig,
    /// Readable when the programs have reported something.
    reported: Readable,
    /// What the programs log, if they shall.
    kernel_log: Option<(KernelLog, Readable)>,
    attachments: BTreeMap<String, Attachment>,
    /// Index of each interface when it was last looked at, `None` when it was not there.
    indices: BTreeMap<String, Option<u32>>,
    netfilter: Option<netfilter::Installed>,
    /// Adoptions seen since the last line about them in the log.
    adoptions_unsaid: u64,
}

impl Steering {
    /// Loads the programs; nothing is attached yet, and the programs of a dead predecessor go
    /// on as they were configured.
    pub(super) fn load(config: &Config, workers: &[(Seat, LastingDuty)]) -> anyhow::Result<Self> {
        let pin_base = config.steering.pin_directory.join(&config.name);
        let fresh = !pin_base.exists();
        Self::load_pinned(config, workers, pin_base.clone()).inspect_err(|_| {
            // What a former run left is for the next start; what this one began is not.
            if fresh && let Err(error) = loader::remove_leftovers(&pin_base) {
                log::warn!("{}: {error}", pin_base.display());
            }
        })
    }

    fn load_pinned(
        config: &Config,
        workers: &[(Seat, LastingDuty)],
        pin_base: PathBuf,
    ) -> anyhow::Result<Self> {
        let options = LoadOptions {
            pin_base,
            max_placed: config.steering.max_placed,
            max_convicted: config.steering.max_convicted,
            max_fragments: config.steering.max_fragments,
        };
        let (mut programs, maps) = Programs::load(&options).context("loading the eBPF programs")?;
        report_adopted(programs.adopted());
        let layout = layout(config, workers.iter().map(|(seat, _)| *seat))?;
        let serves = |(_, duty): &&(Seat, LastingDuty)| *duty == LastingDuty::Serving;
        let serving = workers.iter().filter(serves).count();
        // Kept from a former run, so that its flows stay where they are and its convictions hold.
        let former = maps.config()?;
        let seed = match former.seed {
            seed if seed != HashSeed::default() => seed,
            _ => HashSeed {
                key: random_words().context("getrandom")?,
            },
        };
        let steer = SteerConfig {
            seed,
            mark_mask: layout.mask(),
            mark_shift: layout.shift(),
            workers: serving as u32,
            flags: if config.steering.log {
                SteerFlags::LOG
            } else {
                0
            },
            ..SteerConfig::default()
        };
        let kernel_log = match config.steering.log {
            true => Some(watched(programs.kernel_log()?)?),
            false => None,
        };
        let reported = Readable::of(&maps.events)?;
        let mut this = Self {
            programs,
            maps,
            steer,
            reported,
            kernel_log,
            attachments: BTreeMap::new(),
            indices: BTreeMap::new(),
            netfilter: None,
            adoptions_unsaid: 0,
        };
        this.note_times(config);
        Ok(this)
    }

    fn note_times(&mut self, config: &Config) {
        let steering = &config.steering;
        let seconds = |seconds| nanoseconds(Duration::from_secs(seconds));
        self.steer.stale_ns = nanoseconds(config.stale());
        self.steer.fragment_ns = seconds(steering.fragment_seconds);
        self.steer.placement_idle_ns = seconds(steering.placement_idle_seconds);
    }

    /// Has the programs, which are marking packets, go by other times.
    pub(super) fn set_times(&mut self, config: &Config) -> anyhow::Result<()> {
        self.note_times(config);
        Ok(self.maps.write_config(&self.steer)?)
    }

    /// The heartbeats.
    pub(super) fn pages(&self) -> &WorkerPages {
        &self.maps.workers
    }

    /// Id of the map in which the workers stamp their heartbeats.
    pub(super) fn workers_map(&self) -> anyhow::Result<u32> {
        self.pages().id().context("the map of the workers")
    }

    /// Forgets a predecessor's workers, except for those that will hand over: every other seat
    /// is down, nothing has been received.
    pub(super) fn vacate(&self, seats: &Seats) {
        let inherited: Vec<_> = seats.iter().filter(|it| it.socket().is_some()).collect();
        for slot in 0..WORKER_SLOTS {
            match inherited.iter().find(|it| it.seat.slot() == slot) {
                None => self.vacate_slot(slot),
                // The queue goes on, and with it its ids.
                Some(it) if it.predecessor.is_none() => self.set_down(it.seat),
                Some(_) => {}
            }
        }
    }

    /// Has packets marked. The rules that queue them are there already. With `going_on`, a
    /// predecessor's programs have them marked until now, and an interface to which ours cannot be
    /// attached is tried again by [`Self::follow_interfaces`].
    pub(super) fn begin_marking(
        &mut self,
        config: &Config,
        seats: &Seats,
        going_on: bool,
    ) -> anyhow::Result<()> {
        self.configure(&seats.workers(|duty| duty == Duty::Serving))?;
        for interface in &config.interfaces {
            match self.attach(interface, config.steering.xdp) {
                Err(error) if going_on => {
                    log::error!("{interface} is NOT inspected by this program: {error:#}");
                    self.indices.insert(interface.clone(), None);
                }
                attached => attached?,
            }
        }
        self.maps.write_config(&self.steer)?;
        let keep: Vec<_> = config.interfaces.iter().map(String::as_str).collect();
        for link in self.programs.retire_leftovers(&keep)? {
            log::info!("{link}: detached, it is not configured any more");
        }
        Ok(())
    }

    /// The rules as they are now.
    pub(super) fn note_rules(&mut self, installed: netfilter::Installed) {
        for warning in &installed.warnings {
            log::warn!("netfilter: {warning}");
        }
        self.netfilter = Some(installed);
    }

    /// The same rules as before, put in once more: what they warn of has been said.
    pub(super) fn put_back(&mut self, installed: netfilter::Installed) {
        self.netfilter = Some(installed);
    }

    /// The rules, once they are installed.
    pub(super) fn installed(&self) -> Option<&netfilter::Installed> {
        self.netfilter.as_ref()
    }

    /// The entries of the table.
    pub(super) fn table(&self) -> &[u32] {
        self.maps.table.slots()
    }

    /// Writes the entries that differ.
    pub(super) fn write_table(&mut self, entries: &[u32]) -> anyhow::Result<()> {
        self.pages().note_detour();
        self.maps.table.write(entries)?;
        Ok(())
    }

    /// Tells the programs how many workers the table has.
    pub(super) fn write_workers(&mut self, workers: u32) -> anyhow::Result<()> {
        self.steer.workers = workers;
        Ok(self.maps.write_config(&self.steer)?)
    }

    /// The table's slot of a flow.
    pub(super) fn slot_of(&self, key: &FlowKey) -> usize {
        slot_of(flow_hash(self.steer.seed, key)) as usize
    }

    /// Flows that go elsewhere than the table says.
    pub(super) fn placements(&mut self) -> &mut Placements {
        &mut self.maps.placements
    }

    /// How long a placement lasts without a packet, nanoseconds.
    pub(super) fn placement_idle_ns(&self) -> u64 {
        self.steer.placement_idle_ns
    }

    /// Forgets who had a seat: it is down, nothing has been received.
    pub(super) fn vacate_slot(&self, slot: u32) {
        let pages = self.pages();
        pages.set_state(slot, WorkerState::Down);
        pages.clear_tripped(slot);
        pages.clear_received(slot);
    }

    /// Has the packets of an interface marked.
    fn attach(&mut self, interface: &str, policy: XdpPolicy) -> anyhow::Result<()> {
        let index = if_nametoindex(interface).ok();
        let tc = self
            .programs
            .attach_tc(interface)
            .with_context(|| format!("attaching the TC program to {interface}"))?;
        let xdp = self
            .programs
            .attach_xdp(interface, policy)
            .with_context(|| format!("attaching the XDP program to {interface}"))?;
        log::info!(
            "{interface}: tc {}; xdp {}: {}",
            tc.mode,
            xdp.mode,
            xdp.reason
        );
        if xdp.mode == XdpMode::Off {
            self.steer.flags |= SteerFlags::CONVICT_IN_TC;
        }
        let attachment = Attachment {
            tc: tc.mode.to_string(),
            xdp: xdp.mode.to_string(),
            xdp_reason: xdp.reason,
        };
        self.attachments.insert(interface.to_owned(), attachment);
        self.indices.insert(interface.to_owned(), index);
        Ok(())
    }

    /// An interface that goes away takes its programs with it, and one that comes back under
    /// the same name has none: its packets would pass uninspected.
    pub(super) fn follow_interfaces(&mut self, config: &Config) {
        for interface in &config.interfaces {
            let index = if_nametoindex(interface.as_str()).ok();
            if self.indices.get(interface) == Some(&index) {
                continue;
            }
            self.indices.insert(interface.clone(), index);
            if index.is_none() {
                log::warn!("{interface} is gone");
                continue;
            }
            log::warn!("{interface} is another interface now");
            let attached = self.attach(interface, config.steering.xdp);
            let attached = attached.and_then(|()| Ok(self.maps.write_config(&self.steer)?));
            if let Err(error) = attached {
                log::error!("{interface} is NOT inspected: {error:#}");
            }
        }
    }

    /// Has the programs write the marks that the rules, now installed, understand. A
    /// predecessor's programs may be attached still: the table first, then what names its
    /// workers.
    fn configure(&mut self, workers: &[u32]) -> anyhow::Result<()> {
        self.maps.table.write(&worker_table(workers))?;
        let mut steer = self.steer;
        steer.flags |= self.maps.config()?.flags & SteerFlags::CONVICT_IN_TC;
        Ok(self.maps.write_config(&steer)?)
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

    /// Has the programs drop a quarantined flow.
    pub(super) fn shut_out(&mut self, key: &FlowKey, until_ns: u64) {
        let conviction = Conviction {
            expires_ns: until_ns,
            ..Conviction::default()
        };
        if let Err(error) = self.maps.convictions.convict(key, &conviction) {
            // The workers go on dropping it.
            log::warn!("{key} is not dropped by the kernel: {error}");
        }
    }

    /// Lets a flow in that was shut out.
    pub(super) fn acquit(&mut self, key: &FlowKey) {
        if let Err(error) = self.maps.convictions.pardon(key) {
            log::warn!("{key} is still dropped by the kernel: {error}");
        }
    }

    /// Has a flow that the backup took over go to its own worker again.
    pub(super) fn give_back(&mut self, key: &FlowKey) {
        self.pages().note_detour();
        if let Err(error) = self.maps.placements.remove_from(key, BACKUP) {
            log::warn!("{key} stays with the backup: {error}");
        }
    }

    /// Waits until the programs have reported something.
    pub(super) async fn event(&self) {
        let logged = async {
            match &self.kernel_log {
                Some((_, readable)) => readable.wait().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.reported.wait() => {}
            () = logged => {}
        }
    }

    /// Logs what the programs have reported, up to a bound: under a flood of new flows they
    /// report as fast as this process reads.
    pub(super) fn drain_events(&mut self) {
        if let Some((kernel_log, _)) = &mut self.kernel_log {
            kernel_log.flush();
        }
        for _ in 0..EVENTS_AT_ONCE {
            let Some(event) = self.maps.events.next() else {
                return;
            };
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
        self.reported.again();
    }

    /// Removes what has run out from the maps.
    pub(super) fn sweep(&mut self, config: &Config) {
        if self.adoptions_unsaid > 0 {
            log::info!("the backup adopted {} flows", self.adoptions_unsaid);
            self.adoptions_unsaid = 0;
        }
        let idle = Duration::from_secs(config.steering.placement_idle_seconds);
        let oldest_ns = monotonic_ns().saturating_sub(nanoseconds(idle));
        if let Err(error) = self.maps.placements.sweep(oldest_ns) {
            log::warn!("placements not swept: {error}");
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
        self.maps
            .convictions
            .list(monotonic_ns())
            .map_or(0, |list| list.len())
    }

    /// Flows placed elsewhere than the table says now.
    pub(super) fn placed(&self) -> PlacementCount {
        self.maps.placements.count().unwrap_or_default()
    }

    pub(super) fn netfilter(&self) -> String {
        self.netfilter
            .as_ref()
            .map_or_else(|| "not installed".into(), ToString::to_string)
    }

    pub(super) fn attachments(&self) -> &BTreeMap<String, Attachment> {
        &self.attachments
    }

    /// No packet is marked any more, so none is queued; rules and programs stay.
    pub(super) fn release(&mut self) -> anyhow::Result<()> {
        self.steer.workers = 0;
        let written = self.maps.write_config(&self.steer);
        written.context("having the eBPF programs stop marking")
    }

    /// The same until [`Self::install`]; otherwise the programs go on as a predecessor has
    /// configured them.
    pub(super) fn suspend(&mut self) -> anyhow::Result<()> {
        let mut steer = self.maps.config()?;
        steer.workers = 0;
        let written = self.maps.write_config(&steer);
        written.context("having the eBPF programs stop marking")
    }

    /// Removes the rules, but for the gate; nothing may be queued any more.
    pub(super) fn uninstall(&mut self, config: &Config) -> anyhow::Result<()> {
        self.netfilter = None;
        let plan = plan(config, Seat::all(config.worker_count()))?;
        if let Some(closed) = netfilter::close_gate(&plan).context("leaving the gate closed")? {
            log::warn!(
                "fail is closed: what comes in by {} is dropped until Sluice runs again or \
                 `sluice gate open` ({})",
                config.interfaces.join(", "),
                closed.place
            );
            return Ok(());
        }
        netfilter::remove(&config.name).context("removing the netfilter rules")
    }

    /// Detaches and unpins everything.
    pub(super) fn unload(self) -> anyhow::Result<()> {
        self.programs.remove().context("removing the eBPF programs")
    }
}

fn watched(log: KernelLog) -> anyhow::Result<(KernelLog, Readable)> {
    let readable = Readable::of(&log)?;
    Ok((log, readable))
}

fn report_adopted(adopted: &Adopted) {
    for map in &adopted.discarded {
        log::warn!(
            "map {} of a former run does not fit and starts empty: {map:?}",
            map.name
        );
    }
    if adopted.maps > 0 || adopted.links > 0 {
        log::info!(
            "adopted from a former run: {} maps, {} links",
            adopted.maps,
            adopted.links
        );
    }
}

/// The marks for these seats.
fn layout(config: &Config, seats: impl Iterator<Item = Seat>) -> Result<MarkLayout, MarkError> {
    let workers = seats.filter(|seat| *seat != Seat::Backup);
    let needed = workers.map(|seat| seat.slot() + 1).max().unwrap_or(0);
    MarkLayout::new(config.steering.mark_mask, needed)
}

/// What netfilter is to do for these seats.
pub(super) fn plan(
    config: &Config,
    seats: impl Iterator<Item = Seat> + Clone,
) -> anyhow::Result<netfilter::Plan> {
    Ok(netfilter::Plan {
        instance: config.name.clone(),
        hook: config.netfilter.hook,
        priority: config.netfilter.priority,
        mark: layout(config, seats.clone())?,
        queues: seats
            .map(|seat| (seat.steer(), config.queue_number(seat)))
            .collect(),
        interfaces: config.interfaces.clone(),
        fail: config.fail,
        backend: match config.netfilter.backend {
            Backend::Auto => None,
            Backend::Nft => Some(netfilter::Backend::Nft),
            Backend::Iptables => Some(netfilter::Backend::IptablesNft),
        },
    })
}

pub(super) fn nanoseconds(duration: Duration) -> u64 {
    duration.as_nanos().try_into().unwrap_or(u64::MAX)
}
