//! Which worker a flow goes to.

use ips_common::{
    Adoption, Counter, EventKind, FlowKey, Hint, Steer, SteerConfig, WorkerSlot, flow_hash,
    hint_slack, slot_of,
};

use crate::count::Counts;
use crate::liveness::{self, Liveness};
use crate::{event, maps};

/// Chooses for one packet. `None` when the table names no worker, which the supervisor never
/// writes.
#[inline(always)]
pub(crate) fn choose(
    config: &SteerConfig,
    key: &FlowKey,
    now: u64,
    counts: Counts,
) -> Option<Steer> {
    if adopted(config, key, now) {
        return Some(Steer::Backup);
    }
    let index = maps::worker_of_slot(slot_of(flow_hash(config.seed, key)))?;
    let worker = maps::worker(index)?;
    let liveness = liveness::of(worker, now, config.stale_ns);
    if liveness == Liveness::Alive {
        return Some(Steer::Worker(index));
    }
    Some(fail_over(config, key, index, worker, liveness, now, counts))
}

/// Whether the backup has this flow and is there to serve it.
#[inline(always)]
fn adopted(config: &SteerConfig, key: &FlowKey, now: u64) -> bool {
    let idle_ns = config.adoption_idle_ns;
    let slack_ns = hint_slack(idle_ns);
    let latest = maps::hint(Hint::AdoptedNs);
    if latest == 0 || now.saturating_sub(latest) > idle_ns + slack_ns {
        return false;
    }
    let Some(adoption) = maps::ADOPTED.get_ptr_mut(key) else {
        return false;
    };
    // SAFETY: elements of LRU maps are reused but never freed; aligned 64-bit accesses are
    // atomic. A value that went to another flow meanwhile makes one packet go astray.
    let idle = now.saturating_sub(unsafe { (*adoption).last_ns });
    if idle > idle_ns {
        let _ = maps::ADOPTED.remove(key);
        return false;
    }
    if !backup_is_alive(config, now) {
        return false;
    }
    if idle > slack_ns {
        // SAFETY: as above.
        unsafe { (*adoption).last_ns = now };
        maps::set_hint(Hint::AdoptedNs, now);
    }
    true
}

/// The worker is not there: the backup takes over the flow and keeps it.
#[inline(always)]
fn fail_over(
    config: &SteerConfig,
    key: &FlowKey,
    index: u32,
    worker: *mut WorkerSlot,
    liveness: Liveness,
    now: u64,
    counts: Counts,
) -> Steer {
    if liveness == Liveness::Stale && liveness::trip(worker, now) {
        event::emit(EventKind::Stale, &FlowKey::default(), index, now, counts);
    }
    if !backup_is_alive(config, now) {
        counts.one(Counter::NobodyAlive);
        return Steer::Worker(index);
    }
    let adoption = Adoption {
        last_ns: now,
        from_worker: index,
        reserved: 0,
    };
    if maps::ADOPTED.insert(key, &adoption, 0).is_ok() {
        maps::set_hint(Hint::AdoptedNs, now);
        counts.one(Counter::Adoptions);
        event::emit(EventKind::Adopted, key, index, now, counts);
    } else {
        counts.one(Counter::AdoptionsLost);
    }
    Steer::Backup
}

#[inline(always)]
fn backup_is_alive(config: &SteerConfig, now: u64) -> bool {
    match maps::backup() {
        Some(backup) => liveness::of(backup, now, config.stale_ns) == Liveness::Alive,
        None => false,
    }
}
