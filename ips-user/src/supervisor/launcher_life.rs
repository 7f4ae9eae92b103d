//! The launcher's life as the supervisor sees it: prepared, lost, replaced, and watched.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::instance::{self, Started};
use super::launching::{Common, Launching};
use super::message::{Compiled, FromLauncher};
use super::seat::Seat;
use super::{
    INTERFACES_EVERY, LAUNCHER_LIVED, LAUNCHER_PAUSE, LAUNCHERS_AT_START, LOOK_EVERY, Supervisor,
    ticks,
};
use crate::sys::process::{group_members, has_name};

/// What the launcher has not told when it was looked at.
#[derive(Debug)]
pub(super) struct Silence {
    at: Instant,
    dead: Vec<Started>,
    /// Where it has not told what became of a process that it was asked for.
    unanswered: Vec<Seat>,
}

impl Silence {
    /// About nothing, as from now on.
    pub(super) fn none() -> Self {
        Self {
            at: Instant::now(),
            dead: Vec::new(),
            unanswered: Vec::new(),
        }
    }

    /// Whether it is about the same as an earlier one. Where processes end one after the other,
    /// each may just be about to be told of.
    fn goes_on_from(&self, before: &Self) -> bool {
        let dead = |process| before.dead.contains(process);
        let unanswered = |seat| before.unanswered.contains(seat);
        self.dead.iter().any(dead) || self.unanswered.iter().any(unanswered)
    }
}

impl Supervisor {
    pub(super) fn tell_launcher(&self) -> anyhow::Result<()> {
        let common = Common {
            pages: self.steering.pages(),
            board: &self.board,
            events: &self.events,
            feedback: &self.workers_feedback,
            tally: &self.rejecter.tally,
            deaths: &self.deaths,
            sets: &self.sets,
        };
        self.launching.prepare(&self.config, self.trace, &common)?;
        // From the files as they were when these rules came into force, if they are already.
        let sources = self.sources.as_ref().map(AsFd::as_fd);
        self.launching
            .compile(self.generation, &self.config, true, sources)
    }

    /// Has the rules compiled. That may take long, and workers of a predecessor serve meanwhile.
    pub(super) async fn prepare_launcher(&mut self) -> anyhow::Result<()> {
        let mut look = ticks(LOOK_EVERY);
        let queues_go_on = self.seats.iter().any(|it| it.socket().is_some());
        for _ in 0..LAUNCHERS_AT_START {
            let told = self.tell_launcher();
            if let Err(error) = &told {
                log::warn!("{error:#}");
            }
            while told.is_ok() {
                let message = tokio::select! {
                    message = self.launching.next() => message?,
                    () = self.spoken.wait() => {
                        self.on_feedback();
                        continue;
                    }
                    _ = look.tick(), if queues_go_on => {
                        self.look_after_former();
                        continue;
                    }
                };
                match message {
                    Some(FromLauncher::Compiled {
                        compiled, files, ..
                    }) => {
                        let files = files.context("rules compiled without their files")?;
                        self.compiled = compiled;
                        self.sources = Some(files.sources);
                        self.sets.set_rules(files.sets);
                        self.former_rules = None;
                        self.launching.set_ready();
                        return Ok(());
                    }
                    Some(FromLauncher::Rejecter { pid }) => self.rejecter.became(pid),
                    Some(FromLauncher::NotCompiled { message, .. }) => {
                        self.go_back_to_former_rules(&message)?;
                    }
                    Some(other) => {
                        bail!("the launcher said {other:?} instead of compiling the rules")
                    }
                    None => break,
                }
            }
            log::error!("the launcher has ended before it had compiled the rules");
            self.launching = Launching::start()?;
        }
        bail!("{LAUNCHERS_AT_START} launchers have ended before they had compiled the rules")
    }

    /// Workers of a predecessor, while nobody can be started yet who could relieve them: one that
    /// hangs is killed, the flows of one that has ended are the backup's, and what waits there for
    /// too long goes by policy.
    fn look_after_former(&mut self) {
        self.look_after_predecessors();
        self.seats
            .settle_overdue(&self.config, &self.board, self.steering.pages());
    }

    /// The rules on disk cannot be used: those that were in force before an upgrade can, with the
    /// settings that they came with, because they were. Fails when there are none.
    fn go_back_to_former_rules(&mut self, why: &str) -> anyhow::Result<()> {
        let Some(former) = self.former_rules.take() else {
            bail!("{why}");
        };
        log::error!("the rules cannot be used: {why}");
        let settings = former.settings.put_into(&mut self.config);
        settings.context("the settings of the rules that were in force")?;
        log::warn!(
            "generation {} of the rules, in force until now, stays so: `sluice reload` when they \
             are mended",
            former.generation
        );
        self.generation = former.generation;
        let sources = self.sources.insert(former.sources);
        self.launching
            .compile(self.generation, &self.config, true, Some(sources.as_fd()))
    }

    /// The workers go on without it, but nobody could replace them.
    pub(super) fn launcher_lost(&mut self) {
        let launcher = self.launching.pid();
        self.launching.end();
        self.rejecter.launcher_lost();
        self.seats.launcher_lost();
        self.compiler_lost();
        let pause = match self.launcher_since.elapsed() {
            lived if lived >= LAUNCHER_LIVED => Duration::ZERO,
            _ => LAUNCHER_PAUSE,
        };
        if let Some(launcher) = launcher {
            self.end_unannounced(launcher);
        }
        log::error!("the launcher has ended: replaced in {pause:?}");
        self.launcher_due = Some(Instant::now() + pause);
    }

    /// Ends what a dead launcher had forked but not told of: it would serve a queue that another
    /// process is given as well.
    pub(super) fn end_unannounced(&self, launcher: u32) {
        let known: Vec<_> = self.seats.processes().map(|process| process.pid).collect();
        let mut unknown = group_members(launcher, "sluice");
        unknown.retain(|pid| !known.contains(pid) && !has_name(*pid, crate::rejecter::NAME));
        let unknown: Vec<_> = unknown.into_iter().filter_map(Started::of).collect();
        if let Err(error) = instance::end(&unknown) {
            log::error!("{error:#}");
        }
    }

    pub(super) fn replace_launcher(&mut self) {
        self.launcher_due = None;
        self.launcher_since = Instant::now();
        self.launcher_restarts += 1;
        match Launching::start() {
            Ok(launching) => self.launching = launching,
            Err(error) => {
                log::error!("no launcher: {error:#}; tried again in {LAUNCHER_PAUSE:?}");
                self.launcher_due = Some(Instant::now() + LAUNCHER_PAUSE);
                return;
            }
        }
        if let Err(error) = self.tell_launcher() {
            log::warn!("{error:#}");
            self.launcher_lost();
        }
    }

    /// A process that has ended and that the launcher does not tell of, or one that it was asked
    /// for and does not start, at two looks in a row: then the launcher hangs, and nobody would be
    /// replaced.
    pub(super) fn watch_launcher(&mut self) {
        // Late looks may come one right after the other: that leaves it no time.
        if self.launcher_silence.at.elapsed() < INTERFACES_EVERY / 2 {
            return;
        }
        let mut now = Silence::none();
        if self.launching.is_ready() {
            now.dead = self.seats.dead_unreported();
            now.unanswered = self.seats.unanswered(&self.config);
        }
        let before = std::mem::replace(&mut self.launcher_silence, now);
        if self.launcher_silence.goes_on_from(&before) {
            log::error!("the launcher does not tell what became of processes: killed");
            self.launcher_silence = Silence::none();
            self.launching.kill();
        }
    }

    /// Only workers of one launcher can share rules with those to come: the others hand over.
    pub(super) fn launcher_is_back(&mut self, compiled: Compiled) -> anyhow::Result<()> {
        self.compiled = compiled;
        log::info!("a new launcher has compiled the rules in force");
        self.launching.set_ready();
        for seat in self.seats.relieve_orphans() {
            self.spawn(seat);
        }
        self.record();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_process_untold_twice_is_silence() {
        let process = |pid| Started { pid, start_time: 7 };
        let dead = |pids: &[u32]| Silence {
            dead: pids.iter().map(|pid| process(*pid)).collect(),
            ..Silence::none()
        };
        assert!(dead(&[1, 2]).goes_on_from(&dead(&[2])));
        assert!(!dead(&[1, 3]).goes_on_from(&dead(&[2])));
        assert!(!dead(&[]).goes_on_from(&dead(&[2])));
        let unanswered = |worker| Silence {
            unanswered: vec![Seat::Worker(worker)],
            ..Silence::none()
        };
        assert!(unanswered(0).goes_on_from(&unanswered(0)));
        assert!(!unanswered(0).goes_on_from(&unanswered(1)));
        assert!(!unanswered(0).goes_on_from(&dead(&[1])));
    }
}
