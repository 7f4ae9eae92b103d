//! One target: its inputs, its run, and what libFuzzer says meanwhile.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::instrumented::Instrumented;
use super::make;
use super::report::{self, Status};
use crate::progress::Progress;
use crate::workspace::Workspace;

/// An input that takes longer is a finding, in seconds.
const LONGEST_INPUT: u64 = 10;
/// So is one that takes more memory, in MiB.
const MOST_MEMORY: u64 = 2048;
/// Lines of libFuzzer's output that are shown when it has found something.
const TAIL: usize = 40;

/// A target with its folders.
pub(super) struct Target {
    pub(super) name: String,
    /// What libFuzzer reads first and adds to.
    corpus: PathBuf,
    /// What it writes when it has found something.
    artifacts: PathBuf,
}

impl Target {
    /// Of all targets.
    pub(super) fn names(workspace: &Workspace) -> Result<Vec<String>> {
        let folder = workspace.root.join("fuzz/fuzz_targets");
        let files = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
        let mut names: Vec<String> = files
            .filter_map(|file| {
                let path = file.ok()?.path();
                Some(path.file_stem()?.to_str()?.to_owned())
            })
            .collect();
        names.sort();
        Ok(names)
    }

    /// Its folders, with first inputs.
    pub(super) fn prepare(
        workspace: &Workspace,
        built: &Instrumented,
        name: &str,
        corpus: &[PathBuf],
    ) -> Result<Self> {
        let this = Self {
            name: name.to_owned(),
            corpus: built.work.join("corpus").join(name),
            artifacts: built.work.join("artifacts").join(name),
        };
        make(&this.corpus)?;
        make(&this.artifacts)?;
        let mut seeds = built.command("seeds");
        seeds.arg(name).arg(&this.corpus).args(corpus);
        let output = seeds.output().context("cannot start the maker of seeds")?;
        if !output.status.success() {
            bail!("seeds {name}: {}", String::from_utf8_lossy(&output.stderr));
        }
        for file in fs::read_dir(kept(workspace, name)).into_iter().flatten() {
            let file = file?;
            fs::copy(file.path(), this.corpus.join(file.file_name()))?;
        }
        Ok(this)
    }

    fn run(
        &self,
        built: &Instrumented,
        seconds: u64,
        seen: &dyn Fn(&str),
    ) -> Result<report::Result> {
        let mut command = built.command(&self.name);
        let begun = Instant::now();
        let mut child = command
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-timeout={LONGEST_INPUT}"))
            .arg(format!("-rss_limit_mb={MOST_MEMORY}"))
            .arg(format!("-artifact_prefix={}/", self.artifacts.display()))
            .arg(format!("-max_len={}", longest(&self.name)))
            .args(["-print_final_stats=1", "-reload=0"])
            .arg(&self.corpus)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", self.name))?;
        let mut status = Status::default();
        let mut tail = VecDeque::new();
        if let Some(stderr) = child.stderr.take() {
            let mut reader = BufReader::new(stderr);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line)? > 0 {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                line.clear();
                if status.line(&text) {
                    seen(&text);
                }
                if tail.len() == TAIL {
                    tail.pop_front();
                }
                tail.push_back(text);
            }
        }
        let ended = child.wait()?;
        if !ended.success() {
            eprintln!("--- {}: {ended}", self.name);
            for line in &tail {
                eprintln!("    {line}");
            }
        }
        Ok(report::Result {
            target: self.name.clone(),
            took: begun.elapsed(),
            status,
            failed: !ended.success(),
        })
    }

    /// The smallest set of inputs that covers as much, into the tree.
    pub(super) fn keep(&self, workspace: &Workspace, built: &Instrumented) -> Result<()> {
        let folder = kept(workspace, &self.name);
        make(&folder)?;
        let mut command = built.command(&self.name);
        command
            .args(["-merge=1", "-max_len=600"])
            .arg(&folder)
            .arg(&self.corpus);
        let output = command.output()?;
        if !output.status.success() {
            bail!("{}: merging the inputs failed", self.name);
        }
        println!("{}: {} inputs", folder.display(), count(&folder));
        Ok(())
    }
}

fn kept(workspace: &Workspace, name: &str) -> PathBuf {
    workspace.root.join("fuzz/seeds").join(name)
}

fn count(folder: &Path) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

/// Longest input: more than that says nothing new.
fn longest(name: &str) -> u32 {
    match name {
        "inspection" => 16_384,
        "decode" | "steering" | "pcre" | "defrag" => 1024,
        "stream" => 512,
        "config" => 20_000,
        _ => 4096,
    }
}

/// Runs all of them, some at a time; in their order.
pub(super) fn run_all(
    built: &Instrumented,
    targets: &[Target],
    seconds: u64,
    jobs: u64,
) -> Result<Vec<report::Result>> {
    let next = AtomicUsize::new(0);
    let progress = Mutex::new(Progress::new("fuzz"));
    let results: Vec<Mutex<Option<Result<report::Result>>>> =
        targets.iter().map(|_| Mutex::new(None)).collect();
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let (Some(target), Some(slot)) = (targets.get(index), results.get(index))
                    else {
                        return;
                    };
                    let result = target.run(built, seconds, &|line| {
                        if let Ok(mut progress) = progress.lock() {
                            progress.tick(&format!("{} {line}", target.name));
                        }
                    });
                    if let Ok(mut slot) = slot.lock() {
                        *slot = Some(result);
                    }
                    // Not all at the same moment.
                    thread::sleep(Duration::from_millis(10));
                }
            });
        }
    });
    if let Ok(progress) = progress.into_inner() {
        progress.clear();
    }
    let results = results.into_iter().map(|slot| {
        let result = slot.into_inner().ok().flatten();
        result.context("a target was not run")?
    });
    results.collect()
}
