//! `cargo xtask fuzz`: the fuzz targets in `fuzz/`, built with libFuzzer's coverage and
//! AddressSanitizer, and run; and captures replayed in the same build. `fuzz/README.md` describes
//! the targets.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::build;
use crate::toolchain::bpf;
use crate::workspace::Workspace;

mod captures;
mod instrumented;
mod report;
mod target;

use instrumented::Instrumented;
use target::Target;

/// Options of `cargo xtask fuzz`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Which targets; all of them without any
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// How long each one runs
    #[arg(long, default_value_t = 60, value_name = "N")]
    seconds: u64,
    /// Folder with captures and rules that become first inputs; repeat for each
    #[arg(long, value_name = "DIR")]
    corpus: Vec<PathBuf>,
    /// Targets at a time
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    jobs: u64,
    /// Instead of the targets: every capture in this folder through the inspection
    #[arg(long, value_name = "DIR", conflicts_with_all = ["targets", "seconds", "corpus", "keep"])]
    captures: Option<PathBuf>,
    /// Rules for --captures; a small set of our own without
    #[arg(long, value_name = "FILE", requires = "captures")]
    rules: Option<PathBuf>,
    /// Add to fuzz/seeds the smallest set of inputs that covers what was found
    #[arg(long)]
    keep: bool,
    /// Names of the targets, nothing else
    #[arg(long)]
    list: bool,
}

/// Runs the command.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<ExitCode> {
    let known = Target::names(workspace)?;
    if arguments.list {
        println!("{}", known.join("\n"));
        return Ok(ExitCode::SUCCESS);
    }
    let chosen = match arguments.targets.is_empty() {
        true => known,
        false => {
            let unknown = (arguments.targets.iter()).find(|name| !known.contains(name));
            if let Some(unknown) = unknown {
                bail!("no fuzz target `{unknown}`; there are {}", known.join(", "));
            }
            arguments.targets.clone()
        }
    };
    let corpus = absolute(&arguments.corpus)?;
    build::object(workspace, bpf::ensure(workspace)?)?;
    let built = Instrumented::build(workspace, &chosen)?;
    if let Some(folder) = &arguments.captures {
        let rules = match &arguments.rules {
            Some(rules) => rules.clone(),
            None => workspace.root.join("fuzz/src/fuzz.rules"),
        };
        return captures::run(&built, folder, &rules, arguments.jobs);
    }
    let targets = chosen
        .iter()
        .map(|name| Target::prepare(workspace, &built, name, &corpus))
        .collect::<Result<Vec<_>>>()?;
    let results = target::run_all(&built, &targets, arguments.seconds, arguments.jobs)?;
    print!("{}", report::table(&results));
    println!("{}", built.describe());
    if arguments.keep {
        for target in &targets {
            target.keep(workspace, &built)?;
        }
    }
    Ok(match results.iter().all(report::Result::is_clean) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn absolute(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let one = |path: &PathBuf| fs::canonicalize(path).with_context(|| path.display().to_string());
    paths.iter().map(one).collect()
}

/// Makes a folder, and those above it.
fn make(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())
}
