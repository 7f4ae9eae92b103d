//! `sluice rules`: about rule files, without a running instance.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::rules::{Coverage, Rejection, RuleSet, Sources};

/// Arguments.
#[derive(Debug, Args)]
pub(super) struct RulesArgs {
    #[command(subcommand)]
    command: RulesCommand,
}

#[derive(Debug, Subcommand)]
enum RulesCommand {
    /// How many rules of these files are used, and why the others are not.
    Coverage(CoverageArgs),
}

/// Arguments of `coverage`.
#[derive(Debug, Args)]
struct CoverageArgs {
    /// Rule files, directories with `*.rules`, or patterns such as `et-*.rules`.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// As JSON: active, loaded, and rejected by reason and keyword.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &RulesArgs) -> anyhow::Result<ExitCode> {
    let RulesCommand::Coverage(args) = &args.command;
    coverage(args)
}

fn coverage(args: &CoverageArgs) -> anyhow::Result<ExitCode> {
    let loaded = RuleSet::default().load(&args.files, &Sources::disk());
    let coverage = Coverage::from(&loaded);
    let unread: Vec<_> = loaded
        .diagnostics
        .iter()
        .filter(|found| found.message.starts_with("cannot read"))
        .collect();
    for diagnostic in &unread {
        eprintln!("{}", diagnostic.render());
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&coverage)?);
    } else {
        print_rejections(&coverage.rejected);
        let percent = 100.0 * coverage.loaded as f64 / coverage.active.max(1) as f64;
        println!(
            "{} of {} rules are used ({percent:.1} %)",
            coverage.loaded, coverage.active
        );
    }
    Ok(if unread.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// A line for each reason.
pub(super) fn print_rejections(rejections: &[Rejection]) {
    for rejection in rejections {
        let keyword = match rejection.keyword.as_str() {
            "" => String::new(),
            keyword => format!("{keyword}: "),
        };
        println!(
            "{:>7}  {keyword}{} (first at {})",
            rejection.count, rejection.reason, rejection.example
        );
    }
}
