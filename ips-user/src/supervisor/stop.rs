//! A stop: nothing is queued any more, the workers empty their queues and end, everything is
//! removed.

use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use super::message::FromLauncher;
use super::{LOOK_EVERY, Supervisor, ticks};

/// How long workers may take to empty their queues.
pub(super) const STOP_WITHIN: Duration = Duration::from_secs(3);
/// How long killed workers may take to be gone.
const KILL_WITHIN: Duration = Duration::from_secs(1);

impl Supervisor {
    /// Undoes everything, in the reverse order of the start; goes on after a failure.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        if !self.took_over && !self.left.alive().is_empty() {
            log::warn!("the workers of a former run, and what it installed, are left as they are");
            self.launching.end();
            return Ok(());
        }
        if self.upgrade.take().is_some()
            && let Err(error) = self.resume_events()
        {
            log::error!("events of this stop are lost: {error}");
        }
        // The rules go last: with a base chain the kernel drops what is queued anywhere in the
        // network namespace (nfqnl_nf_hook_drop).
        let abandoned = self.abandon_scaling();
        let released = self.steering.release();
        self.seats.ask_to_stop();
        let ended = timeout(STOP_WITHIN, self.await_ended()).await;
        if ended.is_err() {
            log::warn!("workers did not end within {STOP_WITHIN:?}: killed");
            self.seats.kill();
            self.await_killed().await;
        }
        let launcher = self.launching.pid();
        // Closing its socket ends the launcher.
        self.launching.end();
        if let Some(launcher) = launcher {
            self.end_unannounced(launcher);
        }
        self.seats
            .settle_pending(&self.config, &self.board, self.steering.pages());
        self.save_last_sets().await;
        // Whatever still changes rules has to come to its end first.
        if let Some(rules) = abandoned {
            let _ = rules.await;
        }
        self.end_upkeep().await;
        let removed = self.steering.uninstall(&self.config);
        self.emit_stats();
        let unloaded = self.steering.unload();
        // Absent when the start failed early.
        let _ = std::fs::remove_file(self.config.control_socket());
        self.instance.forget();
        log::info!("stopped");
        released.and(removed).and(unloaded)
    }

    /// Until no worker is left, of those that were asked to stop.
    async fn await_ended(&mut self) {
        let mut look = ticks(LOOK_EVERY);
        let mut told = self.launcher_due.is_none();
        while self.seats.any_running() {
            tokio::select! {
                message = self.launching.next(), if told => match message {
                    Ok(Some(FromLauncher::Exited { seat, pid, how })) => {
                        self.seats.ended(seat, pid, &how);
                    }
                    Ok(Some(FromLauncher::Spawned { seat, pid, .. })) => {
                        self.seats.spawned(seat, pid);
                        self.seats.ask_to_stop();
                    }
                    Ok(Some(FromLauncher::NotSpawned { seat, message })) => {
                        self.seats.not_spawned(seat, &message, &self.config);
                    }
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => told = false,
                },
                _ = look.tick() => {
                    // Of those that other launchers have started nobody tells.
                    let pages = self.steering.pages();
                    for departed in self.seats.look_after_predecessors(&self.config, pages) {
                        self.seats.let_go_on(&departed);
                    }
                    self.seats.look_after_orphans(&self.config);
                    if !told {
                        self.seats.forget_ended();
                    }
                }
            }
        }
    }

    /// SIGKILL takes effect a moment after it was sent, and a process inside the kernel later.
    async fn await_killed(&mut self) {
        let deadline = Instant::now() + KILL_WITHIN;
        while self.seats.any_running() && Instant::now() < deadline {
            sleep(LOOK_EVERY).await;
            self.seats.forget_ended();
        }
    }
}
