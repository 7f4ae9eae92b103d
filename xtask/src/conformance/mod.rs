//! `cargo xtask conformance`: cases with a known result, run through `sluice replay` and judged
//! by what it wrote. `docs/conformance.md` describes the cases.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::build;
use crate::progress::Progress;
use crate::toolchain::bpf;
use crate::workspace::Workspace;

mod case;
mod filter;
mod report;
mod trial;

use case::Case;
use report::{Judged, Rates};
use trial::Outcome;

/// Options of `cargo xtask conformance`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Directory with a directory for each case
    #[arg(long, value_name = "DIR")]
    corpus: PathBuf,
    /// Only cases of these tiers, separated by commas
    #[arg(long, value_name = "TIER", value_delimiter = ',')]
    tier: Vec<String>,
    /// Only this case; repeat for each
    #[arg(long = "case", value_name = "NAME")]
    cases: Vec<String>,
    /// Write everything found as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Exit with 1 when fewer of the discriminating cases pass
    #[arg(long, value_name = "PERCENT")]
    at_least: Option<f64>,
    /// Cases at a time, 0 = one for each CPU
    #[arg(long, default_value_t = 0, value_name = "N")]
    jobs: usize,
    /// Longest time of one case
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    timeout: u64,
    /// Leave what each case wrote in this directory
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Use this program instead of building one
    #[arg(long, value_name = "FILE")]
    sluice: Option<PathBuf>,
    /// Build with optimisation
    #[arg(long, conflicts_with = "sluice")]
    release: bool,
    /// Print only the pass rates
    #[arg(long, short)]
    quiet: bool,
}

/// Runs the command.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<ExitCode> {
    let cases = Case::read_all(&arguments.corpus, &arguments.tier, &arguments.cases)?;
    if cases.is_empty() {
        bail!("{}: no case of this tier", arguments.corpus.display());
    }
    let sluice = match &arguments.sluice {
        Some(sluice) => fs::canonicalize(sluice).with_context(|| sluice.display().to_string())?,
        None => {
            build::object(workspace, bpf::ensure(workspace)?)?;
            build::program(workspace, arguments.release)?;
            workspace.sluice(arguments.release)
        }
    };
    // Removed at the end, unless it is to be kept.
    let temporary;
    let directory = match &arguments.keep {
        Some(keep) => {
            fs::create_dir_all(keep).with_context(|| keep.display().to_string())?;
            fs::canonicalize(keep)?
        }
        None => {
            temporary = tempfile::tempdir().context("no temporary directory")?;
            temporary.path().to_owned()
        }
    };
    let started = Instant::now();
    let all = run_all(cases, arguments, &|case| {
        let directory = directory.join(&case.name);
        if arguments.keep.is_some() {
            // What an earlier run wrote is not this run's.
            let _ = fs::remove_dir_all(&directory);
        }
        let limit = Duration::from_secs(arguments.timeout);
        trial::run(case, &sluice, &directory, limit)
    });
    let rates = Rates::of(&all);
    if !arguments.quiet {
        print!("{}", report::failures(&all));
        println!();
    }
    print!("{}", rates.render());
    println!("{} s", started.elapsed().as_secs());
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&report::json(&all, &rates))?;
        fs::write(path, text + "\n").with_context(|| path.display().to_string())?;
    }
    let enough = arguments
        .at_least
        .is_none_or(|least| rates.total.percent() >= least);
    Ok(match enough {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Several at once; the result is in the order of the cases.
fn run_all(
    cases: Vec<Case>,
    arguments: &Arguments,
    trial: &(dyn Fn(&Case) -> Outcome + Sync),
) -> Vec<Judged> {
    let jobs = match arguments.jobs {
        0 => thread::available_parallelism().map_or(1, usize::from),
        jobs => jobs,
    };
    let next = AtomicUsize::new(0);
    let progress = Mutex::new(Progress::new("conformance"));
    let results: Vec<Mutex<Option<(Outcome, Duration)>>> =
        cases.iter().map(|_| Mutex::new(None)).collect();
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let (Some(case), Some(result)) = (cases.get(index), results.get(index)) else {
                        return;
                    };
                    let started = Instant::now();
                    let outcome = trial(case);
                    if let Ok(mut progress) = progress.lock() {
                        progress.tick(&format!("{} of {}", index + 1, cases.len()));
                    }
                    if let Ok(mut result) = result.lock() {
                        *result = Some((outcome, started.elapsed()));
                    }
                }
            });
        }
    });
    if let Ok(progress) = progress.into_inner() {
        progress.clear();
    }
    let results = results.into_iter().map(|result| {
        let result = result.into_inner().unwrap_or_default();
        result.unwrap_or_else(|| {
            let problem = "was not run".to_owned();
            (Outcome::Broken { problem }, Duration::ZERO)
        })
    });
    let judged = |(case, (outcome, took))| Judged {
        case,
        outcome,
        took,
    };
    cases.into_iter().zip(results).map(judged).collect()
}
