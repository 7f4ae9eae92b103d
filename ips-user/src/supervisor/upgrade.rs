//! Becomes another program without stopping: the process stays, and so do the queues' sockets
//! and what is shared with the workers, which go on until they are relieved one by one
//! ([`super::succession`]).

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use ips_common::LAYOUT_VERSION;
use tokio::process::Command;
use tokio::sync::oneshot;
use tokio::time::{sleep_until, timeout};

use super::Supervisor;
use super::instance::{Kept, KeptRules, KeptSets, KeptSettings, RECORD_FORM, Record, Started};
use super::signals::Signals;
use crate::config::Transport;
use crate::control::Response;
use crate::sys::descriptors::{close_on_exec, keep_over_exec};
use crate::sys::process::take_usual_priority;

/// How long the answer has to reach who asked.
const ANSWERED_WITHIN: Duration = Duration::from_millis(100);
/// How long the event writer may take to pause; after that the disk does not answer, and the new
/// program could not open the log either.
const PAUSED_WITHIN: Duration = Duration::from_secs(2);
/// How often it is looked whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// How long the new program may take to say that it can go on here.
const CHECKED_WITHIN: Duration = Duration::from_secs(20);

/// An upgrade that is under way.
pub(super) struct Upgrade {
    program: PathBuf,
    /// When to look at it again.
    due: Instant,
    /// Until when the event writer has to have paused, once it has been told to.
    paused_by: Option<Instant>,
}

impl Upgrade {
    /// Waits until it is to be looked at; for ever when there is none.
    pub(super) async fn due(upgrade: Option<&Self>) {
        match upgrade {
            Some(upgrade) => sleep_until(upgrade.due.into()).await,
            None => std::future::pending().await,
        }
    }
}

/// What came of asking a program whether it can go on here.
pub(super) struct Checked {
    program: PathBuf,
    result: anyhow::Result<()>,
    answer: oneshot::Sender<Response>,
}

/// The environment variable that tells a program which form of record it would find. Programs
/// that know form 1 only do not know it either: they answer without, and so this one to them.
const RECORD_FOUND: &str = "SLUICE_RECORD";

/// What a program says that can take over from the one that asks: see [`crate::cli`].
///
/// # Errors
/// When it would not understand that one's record.
pub fn can_succeed() -> anyhow::Result<String> {
    // Started by a supervisor that goes on serving.
    take_usual_priority();
    answer(std::env::var(RECORD_FOUND).ok().as_deref())
}

fn answer(record: Option<&str>) -> anyhow::Result<String> {
    let layout = format!("can succeed: layout {LAYOUT_VERSION}");
    let Some(record) = record else {
        return Ok(layout);
    };
    match record.parse::<u32>() {
        Ok(form) if form <= RECORD_FORM => Ok(format!("{layout}, record {form}")),
        _ => bail!("a record of form {record} is not understood, at most {RECORD_FORM} is"),
    }
}

/// Whether a program that has said this can take over from this one; otherwise why not.
fn heed(said: &str) -> Result<(), &'static str> {
    let layout = format!("can succeed: layout {LAYOUT_VERSION}");
    match said.trim().strip_prefix(&layout) {
        Some(record) if record == format!(", record {RECORD_FORM}") => Ok(()),
        Some("") => Err("does not understand the record that this one leaves"),
        _ => Err("has another layout of what is in the kernel"),
    }
}

impl Supervisor {
    /// Asks the program whether it can go on here; [`Self::upgrade_checked`] follows. It is
    /// asked beside everything else, because it may take its time.
    pub(super) fn prepare_upgrade(&mut self, program: PathBuf, answer: oneshot::Sender<Response>) {
        if let Some(why) = self.cannot_upgrade() {
            // The client may have gone: its answer is then nobody's.
            let _ = answer.send(Response::Error(why.into()));
            return;
        }
        // What only a restart can change would have the queues dropped.
        if let Err(error) = self.reread() {
            let _ = answer.send(Response::Error(format!("{error:#}; nothing was changed")));
            return;
        }
        // The other program loads what sets have been saved as.
        self.save_sets();
        let checks = self.upgrade_checks.clone();
        tokio::spawn(async move {
            let result = check(&program).await;
            // The supervisor has stopped: then nobody is answered.
            let _ = checks.send(Checked {
                program,
                result,
                answer,
            });
        });
    }

    /// The program has said whether it can go on here. If so, it does that soon.
    pub(super) fn upgrade_checked(&mut self, checked: Checked) {
        let response = match (checked.result, self.cannot_upgrade()) {
            (Err(error), _) => Response::Error(format!("{error:#}; nothing was changed")),
            (Ok(()), Some(why)) => Response::Error(why.into()),
            (Ok(()), None) => {
                self.upgrade = Some(Upgrade {
                    program: checked.program,
                    due: Instant::now() + ANSWERED_WITHIN,
                    paused_by: None,
                });
                Response::Ok(serde_json::json!({ "upgrades": self.upgrades }))
            }
        };
        let _ = checked.answer.send(response);
    }

    /// Why there can be no upgrade at this moment.
    fn cannot_upgrade(&self) -> Option<&'static str> {
        if self.upgrade.is_some() {
            return Some("an upgrade is under way");
        }
        if self.config.queue.transport == Transport::Nfq {
            return Some(
                "with transport = \"nfq\" the queues cannot be handed over: restart instead",
            );
        }
        if self.reloading.is_some() || self.scaling.is_changing() {
            return Some("rules or workers are being changed: try again in a moment");
        }
        if self.rests_on_former {
            return Some("the netfilter rules are still to be put in: try again in a moment");
        }
        if !self.seats.all_up() || self.seats.any_predecessor() || !self.launching.is_ready() {
            return Some("not every worker is up: try again in a moment");
        }
        None
    }

    /// An upgrade is due: has the event writer pause, and when it has, becomes the other program.
    /// Nobody waits for the writer meanwhile. Returns a stop as [`Self::become_other_program`] does.
    pub(super) async fn advance_upgrade(
        &mut self,
        signals: &mut Signals,
    ) -> anyhow::Result<Option<&'static str>> {
        let upgrade = self.upgrade.as_mut().context("no upgrade is due")?;
        let now = Instant::now();
        let paused_by = *upgrade.paused_by.get_or_insert_with(|| {
            self.writer.pause();
            now + PAUSED_WITHIN
        });
        if self.writer.has_paused() {
            return self.become_other_program(signals).await.map(Some);
        }
        if now < paused_by {
            upgrade.due = now + LOOK_EVERY;
            return Ok(None);
        }
        self.upgrade = None;
        self.resume_events()?;
        bail!("the event log has taken nothing for {PAUSED_WITHIN:?}");
    }

    /// Does not return when it succeeds. Returns a stop that was wished for just before that.
    async fn become_other_program(
        &mut self,
        signals: &mut Signals,
    ) -> anyhow::Result<&'static str> {
        let Upgrade { program, .. } = self.upgrade.take().context("no upgrade is due")?;
        let path = CString::new(program.as_os_str().as_bytes())?;
        let arguments: Vec<_> = std::env::args_os()
            .map(|argument| CString::new(argument.as_bytes()))
            .collect::<Result<_, _>>()?;
        log::info!("upgrade: {} goes on from here", program.display());
        let result = match signals.hold_back().await {
            Ok(Some(stop)) => Ok(stop),
            Ok(None) => Err(match self.leave_for_successor() {
                Ok(()) => {
                    let Err(errno) = nix::unistd::execv(&path, &arguments);
                    anyhow::Error::from(io::Error::from(errno))
                }
                Err(error) => error,
            }),
            Err(error) => Err(error.into()),
        };
        // Nothing has happened, except that nobody writes events.
        signals.let_through()?;
        self.keep_no_more();
        self.resume_events()?;
        self.record();
        result.with_context(|| format!("becoming {}", program.display()))
    }

    /// No upgrade after all: events are written on.
    pub(super) fn resume_events(&mut self) -> io::Result<()> {
        self.writer
            .go_on(|| self.config.event_logs(self.utc_offset_s))
    }

    /// Records everything, and keeps it open.
    fn leave_for_successor(&self) -> anyhow::Result<()> {
        let record = Record {
            upgrades: self.upgrades + 1,
            kept: Some(self.keep().context("keeping descriptors open")?),
            ..self.for_successor()?
        };
        Ok(self.instance.write(&record)?)
    }

    /// After a failure: no program that this one starts shall hold a queue.
    fn keep_no_more(&self) {
        let of_seats = self.seats.iter().flat_map(|it| {
            let socket = it.socket().map(AsFd::as_fd);
            it.desk.files().into_iter().chain(socket)
        });
        let shared = [
            self.board.as_fd(),
            self.events.as_fd(),
            self.writer.reader(),
            self.feedback.as_fd(),
            self.workers_feedback.as_fd(),
            self.rejecter.tally.as_fd(),
            self.deaths.watchlist(),
            self.sets.journal.readers(),
        ];
        let reports = self.sets.reports().map(AsFd::as_fd);
        let sources = self.sources.as_ref().map(AsFd::as_fd);
        for descriptor in of_seats.chain(shared).chain(reports).chain(sources) {
            if let Err(error) = close_on_exec(&descriptor) {
                log::error!("a descriptor stays open for programs started: {error}");
            }
        }
    }

    /// The successor compiles the files as the disk has them, unless these have become unusable
    /// since it was asked whether it can go on.
    fn keep_rules(&self) -> io::Result<Option<KeptRules>> {
        let Some(sources) = &self.sources else {
            return Ok(None);
        };
        Ok(Some(KeptRules {
            generation: self.generation,
            settings: KeptSettings::of(&self.config)?,
            sources: keep_over_exec(sources)?,
        }))
    }

    fn keep_sets(&self) -> io::Result<KeptSets> {
        let [supervisor, workers] = self.sets.reports();
        Ok(KeptSets {
            journal: keep_over_exec(&self.sets.journal.readers())?,
            reports: both(supervisor, workers)?,
        })
    }

    /// Keeps everything open that a successor in this process takes over.
    fn keep(&self) -> anyhow::Result<Kept> {
        let mut seats = Vec::new();
        for occupancy in self.seats.iter() {
            let socket = occupancy.socket().context("a seat without a socket")?;
            let [words, buffers, flows] = occupancy.desk.files();
            let desk = [
                keep_over_exec(&words)?,
                keep_over_exec(&buffers)?,
                keep_over_exec(&flows)?,
            ];
            seats.push((keep_over_exec(socket)?, desk));
        }
        Ok(Kept {
            by: Started::of(std::process::id()).context("/proc/self")?,
            seats,
            board: keep_over_exec(&self.board)?,
            events: both(&self.events, &self.writer.reader())?,
            feedback: both(&self.feedback, &self.workers_feedback)?,
            tally: keep_over_exec(&self.rejecter.tally)?,
            watchlist: Some(keep_over_exec(&self.deaths.watchlist())?),
            rules: self.keep_rules()?,
            sets: Some(self.keep_sets()?),
        })
    }
}

fn both(one: &impl AsFd, other: &impl AsFd) -> io::Result<[RawFd; 2]> {
    Ok([keep_over_exec(one)?, keep_over_exec(other)?])
}

/// Runs the program to see whether it would go on here, with the arguments of this one.
async fn check(program: &Path) -> anyhow::Result<()> {
    let mut command = Command::new(program);
    command.arg("can-succeed");
    command.args(std::env::args_os().skip(2));
    command.env(RECORD_FOUND, RECORD_FORM.to_string());
    command.kill_on_drop(true);
    let output = timeout(CHECKED_WITHIN, command.output())
        .await
        .with_context(|| format!("{} says nothing for {CHECKED_WITHIN:?}", program.display()))?
        .with_context(|| format!("running {}", program.display()))?;
    let said = String::from_utf8_lossy(&output.stdout);
    if output.status.success() && said.starts_with("can succeed: ") {
        let program = program.display();
        return heed(&said).map_err(|why| {
            anyhow::anyhow!("{program} {why}: stop this instance and start the new one")
        });
    }
    let why = String::from_utf8_lossy(&output.stderr);
    let why = why.lines().last().unwrap_or("it does not say why");
    bail!("{} cannot go on here: {why}", program.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_that_would_misunderstand_the_record_do_not_take_over() {
        let form = RECORD_FORM.to_string();
        heed(&format!("{}\n", answer(Some(&form)).unwrap())).unwrap();
        // One that knows form 1 only, which the question means nothing to.
        let why = heed(&answer(None).unwrap()).unwrap_err();
        assert!(why.contains("record"), "{why}");
        // What it gets when it asks, word for word.
        let layout = format!("can succeed: layout {LAYOUT_VERSION}");
        assert_eq!(answer(None).unwrap(), layout);
        assert_eq!(answer(Some("1")).unwrap(), format!("{layout}, record 1"));
        for later in [(RECORD_FORM + 1).to_string(), "x".into(), String::new()] {
            answer(Some(&later)).unwrap_err();
        }
        let why = heed("can succeed: layout 99, record 2").unwrap_err();
        assert!(why.contains("layout"), "{why}");
        // Two is not the beginning of twenty-two.
        heed(&format!("{layout}{RECORD_FORM}, record {RECORD_FORM}")).unwrap_err();
    }
}
