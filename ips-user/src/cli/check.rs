//! `sluice check`

use std::process::ExitCode;

use clap::Args;

use super::Settings;
use super::rules::print_rejections;
use crate::rules::{self, Diagnostic, Severity};

/// Arguments.
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    settings: Settings,
    /// Show every rule that is not supported, too, not only how many there are.
    #[arg(short, long)]
    verbose: bool,
}

pub(super) fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let config = args.settings.load()?;
    let loaded = rules::load(&config)?;
    for diagnostic in &loaded.diagnostics {
        if args.verbose || diagnostic.severity != Severity::Unsupported {
            eprintln!("{}", diagnostic.render());
        }
    }
    if loaded.unsupported > 0 {
        print_rejections(&loaded.rejections.sorted());
    }
    let count = |severity| {
        let of_it = |found: &&Diagnostic| found.severity == severity;
        loaded.diagnostics.iter().filter(of_it).count()
    };
    println!(
        "configuration valid; {} rules: {} loaded, {} wrong, {} not supported yet, \
         {} for another engine, {} superseded; {} errors, {} warnings",
        loaded.seen,
        loaded.rules.len(),
        loaded.wrong,
        loaded.unsupported,
        loaded.not_for_us,
        loaded.superseded,
        count(Severity::Error),
        count(Severity::Warning),
    );
    Ok(if loaded.has_errors() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
