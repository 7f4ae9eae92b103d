//! Which worker a flow goes to.
//!
//! Nearly every flow goes where the table says, and nothing is remembered about it. The others
//! are placed: at the backup that took them over, at the worker that keeps them although the
//! table has changed, or at nobody.

use ips_common::{
    BACKUP, BYPASS, Counter, EventKind, FlowKey, Hint, MOVING, Placement, PlacementReason, Steer,
    SteerConfig, WorkerSlot, flow_hash, hint_slack, slot_of, table_worker,
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
    let placed = placed(config, key, now);
    if let Some(target) = placed {
        if target == BYPASS {
            return Some(Steer::Bypass);
        }
        if target == BACKUP {
            if backup_is_alive(config, now) {
                return Some(Steer::Backup);
            }
        } else if let Some(worker) = maps::worker(target) {
            let liveness = liveness::of(worker, now, config.stale_ns);
            if liveness == Liveness::Alive {
                return Some(Steer::Worker(target));
            }
            report_stale(liveness, worker, target, now, counts);
            if backup_is_alive(config, now) {
                place(key, BACKUP, target, PlacementReason::Adopted, now, counts);
                return Some(Steer::Backup);
            }
        }
        // Nobody is where the flow was placed: as if it were not, but it stays placed.
    }
    let entry = maps::table_entry(slot_of(flow_hash(config.seed, key)))?;
    let index = table_worker(entry);
    let worker = maps::worker(index)?;
    let liveness = liveness::of(worker, now, config.stale_ns);
    if liveness == Liveness::Alive {
        if entry & MOVING != 0 && placed.is_none() {
            place(key, index, index, PlacementReason::Kept, now, counts);
        }
        return Some(Steer::Worker(index));
    }
    report_stale(liveness, worker, index, now, counts);
    if !backup_is_alive(config, now) {
        counts.one(Counter::NobodyAlive);
        return Some(Steer::Worker(index));
    }
    place(key, BACKUP, index, PlacementReason::Adopted, now, counts);
    Some(Steer::Backup)
}

/// Where the flow is placed, if it is, and not idle for too long.
#[inline(always)]
fn placed(config: &SteerConfig, key: &FlowKey, now: u64) -> Option<u32> {
    let idle_ns = config.placement_idle_ns;
    let slack_ns = hint_slack(idle_ns);
    let latest = maps::hint(Hint::PlacedNs);
    if latest == 0 || now.saturating_sub(latest) > idle_ns + slack_ns {
        return None;
    }
    let placement = maps::PLACED.get_ptr_mut(key)?;
    // SAFETY: elements of LRU maps are reused but never freed; aligned accesses of a word are
    // atomic. A value that went to another flow meanwhile makes one packet go astray.
    let (idle, target) = unsafe {
        (
            now.saturating_sub((*placement).last_ns),
            (*placement).target,
        )
    };
    if idle > idle_ns {
        let _ = maps::PLACED.remove(key);
        return None;
    }
    if idle > slack_ns {
        // SAFETY: as above.
        unsafe { (*placement).last_ns = now };
        maps::set_hint(Hint::PlacedNs, now);
    }
    Some(target)
}

/// Places a flow from this packet on.
#[inline(always)]
fn place(
    key: &FlowKey,
    target: u32,
    from_worker: u32,
    reason: PlacementReason,
    now: u64,
    counts: Counts,
) {
    let placement = Placement {
        last_ns: now,
        target,
        from_worker,
        reason: reason as u32,
        reserved: 0,
    };
    if maps::PLACED.insert(key, &placement, 0).is_err() {
        counts.one(Counter::PlacementsLost);
        return;
    }
    maps::set_hint(Hint::PlacedNs, now);
    if target == BACKUP {
        counts.one(Counter::Adoptions);
        event::emit(EventKind::Adopted, key, from_worker, now, counts);
    } else {
        counts.one(Counter::Kept);
    }
}

/// Tells the supervisor of a heartbeat that has just been found too old.
#[inline(always)]
fn report_stale(liveness: Liveness, worker: *mut WorkerSlot, index: u32, now: u64, counts: Counts) {
    if liveness == Liveness::Stale && liveness::trip(worker, now) {
        event::emit(EventKind::Stale, &FlowKey::default(), index, now, counts);
    }
}

#[inline(always)]
fn backup_is_alive(config: &SteerConfig, now: u64) -> bool {
    match maps::backup() {
        Some(backup) => liveness::of(backup, now, config.stale_ns) == Liveness::Alive,
        None => false,
    }
}
