//! `sluice check`

use std::process::ExitCode;

use clap::Args;

use super::Settings;
use crate::rules::{self, Diagnostic, Severity};

/// Arguments.
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    settings: Settings,
}

pub(super) fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let config = args.settings.load()?;
    let loaded = rules::load(&config)?;
    for diagnostic in &loaded.diagnostics {
        eprintln!("{}", diagnostic.render());
    }
    for (word, count) in &loaded.unsupported_words {
        eprintln!("not supported yet: {word} ({count} rules)");
    }
    let count = |severity| {
        let of_it = |found: &&Diagnostic| found.severity == severity;
        loaded.diagnostics.iter().filter(of_it).count()
    };
    println!(
        "configuration valid; {} rules: {} loaded, {} wrong, {} not supported yet, {} superseded; \
         {} errors, {} warnings",
        loaded.seen,
        loaded.rules.len(),
        loaded.wrong,
        loaded.unsupported,
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
