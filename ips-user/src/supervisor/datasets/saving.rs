//! Sets go to their files below `rules.data_directory`, written by a thread of its own: nobody
//! waits for the disk.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{Sets, Supervisor, command};
use crate::control::Response;
use crate::detect::dataset::catalogue::Entry;
use crate::detect::dataset::{self, Catalogue, Changes, SetId};
use crate::supervisor::signals::Signals;
use crate::sys::process::take_usual_priority;

/// How often what has changed is saved.
const SAVE_EVERY: Duration = Duration::from_secs(120);
/// How long the disk may take at a stop.
const SAVED_WITHIN: Duration = Duration::from_secs(3);

/// What a thread has saved.
#[derive(Debug)]
pub(in crate::supervisor) struct Saved {
    files: Vec<File>,
    /// Who has asked for it.
    answer: Option<oneshot::Sender<Response>>,
}

#[derive(Debug)]
struct File {
    set: SetId,
    path: PathBuf,
    /// How many values are in it.
    result: io::Result<u64>,
}

/// One that is to be written.
struct Work {
    entry: Entry,
    changes: Changes,
    path: PathBuf,
}

impl Work {
    fn carry_out(&self, catalogue: &Catalogue) -> io::Result<u64> {
        let loaded = catalogue.values(&self.entry)?;
        let loaded = loaded.iter().map(|value| &**value);
        let text = dataset::content(self.entry.kind(), loaded, &self.changes);
        write(&self.path, &text)?;
        Ok(text.lines().count() as u64)
    }
}

/// Written beside and renamed: a start never loads half a set.
fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let mut new = path.to_owned().into_os_string();
    new.push(".new");
    fs::write(&new, text)?;
    fs::rename(&new, path)
}

impl Sets {
    /// Has a thread save what is `wanted` of the sets that have a file.
    fn begin_saving(
        &mut self,
        directory: &Path,
        wanted: impl Fn(&Entry, bool) -> bool,
        answer: Option<oneshot::Sender<Response>>,
    ) -> io::Result<()> {
        let catalogue = Arc::clone(self.table.catalogue());
        let mut work = Vec::new();
        for entry in catalogue.sets() {
            // Looked at when the rules were compiled, too; but this process may write anywhere.
            let Some(path) = entry.save.as_ref().filter(|it| dataset::is_inside(it)) else {
                continue;
            };
            let held = self.table.held_mut(entry.id());
            if !wanted(entry, held.as_ref().is_some_and(|it| it.unsaved)) {
                continue;
            }
            work.push(Work {
                entry: entry.clone(),
                path: directory.join(path),
                changes: held.map_or_else(Changes::default, |held| {
                    held.unsaved = false;
                    held.changes.clone()
                }),
            });
        }
        self.saved_at = Instant::now();
        if work.is_empty() && answer.is_none() {
            return Ok(());
        }
        self.saving = true;
        let finished = self.finished.clone();
        let thread = std::thread::Builder::new().name("sluice-sets".into());
        thread.spawn(move || {
            Signals::are_for_others();
            take_usual_priority();
            let files = work.into_iter().map(|it| File {
                result: it.carry_out(&catalogue),
                set: it.entry.id(),
                path: it.path,
            });
            // The supervisor has stopped: then nobody asks.
            let _ = finished.send(Saved {
                files: files.collect(),
                answer,
            });
        })?;
        Ok(())
    }

    /// A thread has saved some.
    fn are_saved(&mut self, saved: Saved) {
        self.saving = false;
        let mut files = Vec::new();
        let mut failures = Vec::new();
        for File { set, path, result } in saved.files {
            match result {
                Ok(values) => {
                    self.figures.saved += 1;
                    files.push(json!({ "path": path, "values": values }));
                }
                Err(error) => {
                    self.figures.save_failures += 1;
                    failures.push(format!("{}: {error}", path.display()));
                    if let Some(held) = self.table.held_mut(set) {
                        held.unsaved = true;
                    }
                }
            }
        }
        for failure in &failures {
            log::error!("a set is not saved: {failure}");
        }
        if let Some(answer) = saved.answer {
            let _ = answer.send(match failures.is_empty() {
                true => Response::Ok(json!(files)),
                false => Response::Error(failures.join("; ")),
            });
        }
    }
}

impl Supervisor {
    /// Saves the sets that have changed, if nobody does so already.
    pub(in crate::supervisor) fn save_sets(&mut self) {
        if self.sets.saving {
            return;
        }
        let directory = &self.config.rules.data_directory;
        let begun = self
            .sets
            .begin_saving(directory, |_, unsaved| unsaved, None);
        if let Err(error) = begun {
            self.sets.saving = false;
            log::error!("sets are not saved: {error}");
        }
    }

    /// The same when it is time for that.
    pub(in crate::supervisor) fn save_sets_if_due(&mut self) {
        if self.sets.saved_at.elapsed() >= SAVE_EVERY {
            self.save_sets();
        }
    }

    /// A thread has saved sets.
    pub(in crate::supervisor) fn on_sets_saved(&mut self, saved: Saved) {
        self.sets.are_saved(saved);
    }

    /// Saves sets because somebody asks for it.
    pub(super) fn dump_sets(&mut self, name: Option<&str>, answer: oneshot::Sender<Response>) {
        let refusal = match name.map(|name| command::named(&self.sets.table, name)) {
            _ if self.sets.saving => Some("sets are being saved: ask again in a moment".into()),
            Some(Ok(entry)) if entry.save.is_none() => Some(format!(
                "`{}` has no file: its rules say neither `save` nor `state`",
                entry.name
            )),
            Some(Err(message)) => Some(message),
            Some(Ok(_)) | None => None,
        };
        if let Some(message) = refusal {
            let _ = answer.send(Response::Error(message));
            return;
        }
        let directory = &self.config.rules.data_directory;
        let wanted = |entry: &Entry, _| name.is_none_or(|name| entry.name == name);
        let begun = self.sets.begin_saving(directory, wanted, Some(answer));
        if let Err(error) = begun {
            self.sets.saving = false;
            log::error!("sets are not saved: {error}");
        }
    }

    /// At a stop, when the workers have ended.
    pub(in crate::supervisor) async fn save_last_sets(&mut self) {
        self.hear_last_reports();
        let saved = timeout(SAVED_WITHIN, async {
            // One thread may be at it; after that, what has changed since.
            for _ in 0..2 {
                self.save_sets();
                if !self.sets.saving {
                    break;
                }
                if let Some(saved) = self.sets.saved.recv().await {
                    self.sets.are_saved(saved);
                }
            }
        });
        if saved.await.is_err() {
            log::error!("the disk has not taken what changed in sets within {SAVED_WITHIN:?}");
        }
    }
}
