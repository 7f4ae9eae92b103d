//! `sluice reload`: other rules and settings under the running workers.
//!
//! The configuration is read again and checked, the rules are compiled by a process of the
//! launcher's, and only when all of that has succeeded is anything changed: then every worker is
//! sent the new image and the new configuration, and takes them over between two batches. A
//! worker that does not do so in time is killed, because its replacement has them from its start.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::oneshot;

use super::Supervisor;
use super::message::{Compiled, CompiledFiles, ToWorker};
use super::seat::Seat;
use crate::config::{self, Config};
use crate::control::Response;
use crate::flow::Timestamp;
use crate::log::{eve, pipe};
use crate::sys::process::{monotonic_ns, wall_us};

/// How long a worker may take from being told to having other rules. It looks after each batch.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(2);

/// What a reload has brought about.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Counts rules and configurations, the one of the start being the first.
    pub generation: u32,
    /// The rules.
    #[serde(flatten)]
    pub compiled: Compiled,
    /// Workers that inspect by them: all that there are, the backup included.
    pub seats: usize,
    /// How long all of it took, in milliseconds.
    pub total_ms: u64,
}

/// A reload that is going on.
pub(super) struct Reloading {
    generation: u32,
    config: Config,
    since: Instant,
    /// Nobody may wait for it any more.
    answer: oneshot::Sender<Response>,
    stage: Stage,
}

#[derive(Clone, Copy)]
enum Stage {
    /// The launcher has the rules compiled. Nothing has changed yet.
    Compiling,
    /// The workers have been told.
    TakingOver { compiled: Compiled, until: Instant },
}

impl Supervisor {
    /// Begins a reload; `answer` is given when it is over.
    pub(super) fn begin_reload(&mut self, lenient: bool, answer: oneshot::Sender<Response>) {
        let busy = if self.reloading.is_some() {
            Some("a reload is going on")
        } else if self.upgrade.is_some() {
            Some("an upgrade is going on")
        } else if !self.launching.is_ready() || self.seats.any_predecessor() {
            // Rules that one launcher has compiled are of no use to workers of another.
            Some("the launcher was replaced, and the workers are being relieved")
        } else {
            None
        };
        if let Some(busy) = busy {
            // The client may have gone: its answer is then nobody's.
            let _ = answer.send(Response::Error(format!(
                "{busy}: ask again when that is over"
            )));
            return;
        }
        let generation = self.last_generation + 1;
        let begun = self.reread().and_then(|config| {
            self.launching.compile(generation, &config, lenient, None)?;
            Ok(config)
        });
        match begun {
            Ok(config) => {
                log::info!("reload: compiling the rules of generation {generation}");
                self.last_generation = generation;
                self.reloading = Some(Reloading {
                    generation,
                    config,
                    since: Instant::now(),
                    answer,
                    stage: Stage::Compiling,
                });
            }
            Err(error) => self.reload_failed(generation, &format!("{error:#}"), answer),
        }
    }

    /// The configuration as it stands in the file now, if it can be changed to that.
    pub(super) fn reread(&self) -> anyhow::Result<Config> {
        let config = (self.read_config)()?;
        let fixed = config::fixed_differences(&self.config, &config);
        if !fixed.is_empty() {
            bail!("{}", fixed.join("\n"));
        }
        Ok(config)
    }

    /// The rules of a reload are compiled: from here on things change.
    pub(super) fn compiled(
        &mut self,
        generation: u32,
        compiled: Compiled,
        files: Option<CompiledFiles>,
    ) -> anyhow::Result<()> {
        let CompiledFiles {
            image,
            sources,
            sets,
        } = files.context("rules compiled without an image and their files")?;
        let Some(mut reloading) = self
            .reloading
            .take_if(|reloading| reloading.generation == generation)
        else {
            bail!("the launcher compiled generation {generation}, which nobody asked for");
        };
        let former = std::mem::replace(&mut self.config, reloading.config.clone());
        (self.generation, self.compiled) = (generation, compiled);
        self.sources = Some(sources);
        // What is forgotten with sets that are no more stays in their files.
        self.save_sets();
        self.sets.set_rules(sets);
        if let Err(error) = self.steering.set_times(&self.config) {
            log::error!("reload: the eBPF programs keep their times: {error:#}");
        }
        if self.config.queue.length != former.queue.length {
            self.seats.set_queue_length(self.config.queue.length);
        }
        let message = ToWorker::Reload {
            generation,
            config: Box::new(self.config.clone()),
        };
        self.seats
            .tell_outdated(generation, &message, &[image.as_fd()]);
        reloading.stage = Stage::TakingOver {
            compiled,
            until: Instant::now() + TAKEN_OVER_WITHIN,
        };
        self.reloading = Some(reloading);
        self.pursue_reload();
        Ok(())
    }

    /// The rules of a reload cannot be used: nothing has changed.
    pub(super) fn not_compiled(&mut self, generation: u32, message: &str) -> anyhow::Result<()> {
        match self
            .reloading
            .take_if(|reloading| reloading.generation == generation)
        {
            Some(reloading) => self.reload_failed(generation, message, reloading.answer),
            None => bail!("the launcher could not compile generation {generation}: {message}"),
        }
        Ok(())
    }

    /// The launcher has ended, and with it the process that compiled the rules of a reload.
    pub(super) fn compiler_lost(&mut self) {
        let compiling = |it: &mut Reloading| matches!(it.stage, Stage::Compiling);
        if let Some(reloading) = self.reloading.take_if(compiling) {
            let why = "the launcher, which has the rules compiled, has ended";
            self.reload_failed(reloading.generation, why, reloading.answer);
        }
    }

    /// A worker has taken over other rules.
    pub(super) fn on_loaded(&mut self, seat: Seat, pid: u32, generation: u32) {
        self.seats.has_generation(seat, pid, generation);
        self.pursue_reload();
    }

    /// Ends a reload when everybody has taken it over, and workers that are late with it. To be
    /// called regularly.
    pub(super) fn pursue_reload(&mut self) {
        let Some(reloading) = &mut self.reloading else {
            return;
        };
        let Stage::TakingOver { compiled, until } = &mut reloading.stage else {
            return;
        };
        let generation = reloading.generation;
        if !self.seats.all_have(generation) {
            if Instant::now() >= *until {
                *until += TAKEN_OVER_WITHIN;
                self.seats.end_outdated(generation);
            }
            return;
        }
        let reloaded = Reloaded {
            generation,
            compiled: *compiled,
            seats: self.seats.iter().count(),
            total_ms: reloading.since.elapsed().as_millis() as u64,
        };
        log::info!(
            "reload: generation {generation} with {} rules ({} skipped) is in use by all, \
             after {} ms",
            compiled.rules,
            compiled.skipped,
            reloaded.total_ms
        );
        let mut details = json!(reloaded);
        details["event"] = "reloaded".into();
        self.tell(&details);
        if let Some(reloading) = self.reloading.take() {
            let _ = reloading.answer.send(Response::Ok(json!(reloaded)));
        }
    }

    fn reload_failed(&self, generation: u32, why: &str, answer: oneshot::Sender<Response>) {
        log::error!("reload: nothing is changed: {why}");
        self.tell(&json!({ "event": "reload_failed", "generation": generation, "why": why }));
        let _ = answer.send(Response::Error(why.to_owned()));
    }

    fn tell(&self, details: &serde_json::Value) {
        let now = Timestamp {
            wall_us: wall_us(),
            monotonic_ns: monotonic_ns(),
        };
        let line = eve::incident(now, self.utc_offset_s, None, details);
        if self.events.emit(&line) == pipe::Emitted::Lost {
            log::warn!("an event was lost: the event writer does not keep up");
        }
    }
}
