//! Builds, demonstrates, tests and measures Sluice: `cargo xtask --help`.
//!
//! Every command first sees to what it needs ([`toolchain`]): the BPF compiler and the system
//! programs, found or installed after saying what and why.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod bench;
mod build;
mod chaos;
mod conformance;
mod demo;
mod fuzz;
mod progress;
mod run;
mod setup;
mod stage;
mod test;
mod toolchain;
mod workspace;

use toolchain::search;
use workspace::Workspace;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Builds, demonstrates, tests and measures Sluice"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Find or install the BPF toolchain and the system programs, build nothing
    Setup,
    /// Build the eBPF object and the `sluice` program
    Build(build::Arguments),
    /// Without arguments the demonstration; with --interface or --config, Sluice on real interfaces
    Run(run::Arguments),
    /// Unit, eBPF and namespace tests
    Test(test::Arguments),
    /// Measure
    Bench(bench::Arguments),
    /// Random faults under mixed load: nothing may be lost, broken or unaccounted for
    Chaos(chaos::Arguments),
    /// Cases with a known result, replayed and judged
    Conformance(conformance::Arguments),
    /// Fuzz targets, and captures, with AddressSanitizer
    Fuzz(fuzz::Arguments),
}

fn main() -> ExitCode {
    match dispatch() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    search::with_full_path()?;
    let workspace = Workspace::find()?;
    match arguments.command {
        Command::Setup => setup::run(&workspace),
        Command::Build(arguments) => build::run(&workspace, &arguments),
        Command::Run(arguments) => run::run(&workspace, &arguments),
        Command::Test(arguments) => test::run(&workspace, &arguments),
        Command::Bench(arguments) => bench::run(&workspace, &arguments),
        Command::Chaos(arguments) => chaos::run(&workspace, &arguments),
        Command::Conformance(arguments) => conformance::run(&workspace, &arguments),
        Command::Fuzz(arguments) => fuzz::run(&workspace, &arguments),
    }
}
