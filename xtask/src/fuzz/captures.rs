//! `--captures`: every capture of a folder through the inspection. What a capture kills is started
//! again with those after it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::instrumented::Instrumented;
use crate::progress::Progress;

/// Captures that one process is given.
const AT_A_TIME: usize = 40;
/// Slower ones are named.
const SLOW: Duration = Duration::from_secs(5);

/// What was found.
#[derive(Debug, Default)]
struct Found {
    replayed: usize,
    packets: u64,
    /// That are no captures, or of a link type that is unknown.
    refused: Vec<String>,
    failed: Vec<String>,
    slow: Vec<(Duration, String)>,
}

/// Replays all captures below a folder.
pub(super) fn run(
    built: &Instrumented,
    folder: &Path,
    rules: &Path,
    jobs: u64,
) -> Result<ExitCode> {
    let rules = fs::canonicalize(rules).with_context(|| rules.display().to_string())?;
    let captures = below(folder)?;
    if captures.is_empty() {
        bail!("{}: no captures", folder.display());
    }
    let begun = Instant::now();
    let left = Mutex::new(captures.clone());
    let found = Mutex::new(Found::default());
    let progress = Mutex::new(Progress::new("captures"));
    thread::scope(|scope| -> Result<()> {
        let workers: Vec<_> = (0..jobs)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    loop {
                        let some: Vec<PathBuf> = {
                            let mut left = lock(&left);
                            let at = left.len().saturating_sub(AT_A_TIME);
                            left.split_off(at)
                        };
                        if some.is_empty() {
                            return Ok(());
                        }
                        replay(built, &rules, &some, &found)?;
                        let done = lock(&found).replayed;
                        lock(&progress).tick(&format!("{done} of {}", captures.len()));
                    }
                })
            })
            .collect();
        for worker in workers {
            match worker.join() {
                Ok(result) => result?,
                Err(_) => bail!("a thread has panicked"),
            }
        }
        Ok(())
    })?;
    lock(&progress).clear();
    let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!(
        "{} captures, {} packets, inline and watching, {} s; {} refused, {} slow, {} failed",
        captures.len(),
        found.packets,
        begun.elapsed().as_secs(),
        found.refused.len(),
        found.slow.len(),
        found.failed.len()
    );
    for line in &found.refused {
        println!("refused: {line}");
    }
    for (took, path) in &found.slow {
        println!("{:.1} s: {path}", took.as_secs_f64());
    }
    for line in &found.failed {
        println!("FAILED: {line}");
    }
    println!("{}", built.describe());
    Ok(match found.failed.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives captures to a process; what it died of is left out of the next one.
fn replay(
    built: &Instrumented,
    rules: &Path,
    captures: &[PathBuf],
    found: &Mutex<Found>,
) -> Result<()> {
    let mut rest = captures;
    while !rest.is_empty() {
        let mut said = tempfile::tempfile()?;
        let mut child = built
            .command("captures")
            .arg(rules)
            .args(rest)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(said.try_clone()?)
            .spawn()
            .context("cannot start the replay")?;
        let mut hand: Option<String> = None;
        let mut begun = 0;
        if let Some(stdout) = child.stdout.take() {
            for line in BufReader::new(stdout).lines() {
                let line = line?;
                let (word, text) = line.split_once(' ').unwrap_or((&line, ""));
                if word == "begin" {
                    if hand.as_deref() != Some(text) {
                        begun += 1;
                    }
                    hand = Some(text.to_owned());
                    continue;
                }
                let path = hand.clone().unwrap_or_default();
                note(&mut lock(found), &path, word, text);
            }
        }
        let ended = child.wait()?;
        lock(found).replayed += begun;
        if ended.success() {
            return Ok(());
        }
        let path = hand.unwrap_or_else(|| "before any capture".into());
        let mut text = String::new();
        said.rewind()?;
        said.read_to_string(&mut text)?;
        let why = text
            .lines()
            .find(|line| line.contains("ERROR"))
            .unwrap_or("");
        lock(found).failed.push(format!("{path}: {ended}: {why}"));
        eprintln!("--- {path}: {ended}\n{text}");
        rest = rest.get(begun.max(1)..).unwrap_or_default();
    }
    Ok(())
}

/// `end PACKETS MS`, `refused MS WHY`, `panic MS`.
fn note(found: &mut Found, path: &str, word: &str, text: &str) {
    let mut words = text.split(' ');
    if word == "end" {
        let packets: u64 = words.next().and_then(|it| it.parse().ok()).unwrap_or(0);
        found.packets += packets;
    }
    let took = words.next().and_then(|it| it.parse().ok()).unwrap_or(0);
    let took = Duration::from_millis(took);
    if took >= SLOW {
        found.slow.push((took, path.to_owned()));
    }
    match word {
        "end" => {}
        "refused" => {
            let why: Vec<&str> = words.collect();
            let line = format!("{path}: {}", why.join(" "));
            if !found.refused.contains(&line) {
                found.refused.push(line);
            }
        }
        _ => found.failed.push(format!("{path}: {word}")),
    }
}

/// Captures by their names, in all folders.
fn below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut folders = vec![folder.to_owned()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
        for entry in entries {
            let path = entry?.path();
            let ending = path.extension().and_then(|it| it.to_str()).unwrap_or("");
            if path.is_dir() {
                folders.push(path);
            } else if ["pcap", "pcapng", "cap", "trace"].contains(&ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_replay_says_is_counted() {
        let mut found = Found::default();
        note(&mut found, "a", "end", "17 4");
        note(&mut found, "b", "end", "3 6000");
        note(&mut found, "c", "refused", "0 no capture");
        note(&mut found, "c", "refused", "0 no capture");
        note(&mut found, "d", "panic", "1");
        assert_eq!(found.packets, 20);
        assert_eq!(found.slow, [(Duration::from_secs(6), "b".to_owned())]);
        assert_eq!(found.refused, ["c: no capture"]);
        assert_eq!(found.failed, ["d: panic"]);
    }
}
