//! What the compiling process does: rule files into an engine, and the files as they were kept
//! for when the same rules have to be compiled once more.

use std::cmp::Reverse;
use std::fs::File;

use anyhow::{Context, bail};

use crate::config::Config;
use crate::detect::{Daachorse, Engine, Summary};
use crate::rules::{self, Diagnostic, Severity, Sources};

/// Findings about rules that go to the log.
const DIAGNOSTICS_SHOWN: usize = 20;
/// Errors in rules that are told to whoever asked for a reload.
const ERRORS_TOLD: usize = 5;

/// Where the rule files come from.
#[derive(Debug)]
pub(super) enum Origin {
    /// From disk; what they say is kept in this file, which is empty.
    Disk(File),
    /// From where they were kept.
    Kept(File),
}

impl Origin {
    /// The file in which they are kept once they are compiled.
    pub(super) fn into_kept(self) -> File {
        match self {
            Self::Disk(file) | Self::Kept(file) => file,
        }
    }

    fn sources(&self, config: &Config) -> anyhow::Result<Sources> {
        match self {
            Self::Disk(keep) => {
                let sources = Sources::read(&config.rules)?;
                sources.keep(keep).context("keeping the rule files")?;
                Ok(sources)
            }
            Self::Kept(file) => Sources::kept(file).context("reading the rule files again"),
        }
    }
}

/// In the compiling process: the engine, and what became of the rules.
pub(super) fn compile(
    config: &Config,
    lenient: bool,
    origin: &Origin,
) -> anyhow::Result<(Engine, Summary)> {
    let loaded = rules::load_from(&config.rules, origin.sources(config)?)?;
    if loaded.has_errors() && !lenient {
        let errors = loaded.diagnostics.iter();
        let errors: Vec<_> = errors
            .filter(|found| found.severity == Severity::Error)
            .map(Diagnostic::render)
            .collect();
        let shown = errors.iter().take(ERRORS_TOLD);
        let shown: Vec<_> = shown.map(String::as_str).collect();
        bail!(
            "{} errors in the rules:\n{}",
            errors.len(),
            shown.join("\n")
        );
    }
    // The worst first: errors must not drown in what is merely not supported yet.
    let mut diagnostics: Vec<_> = loaded.diagnostics.iter().collect();
    diagnostics.sort_by_key(|found| Reverse(found.severity));
    for diagnostic in diagnostics.into_iter().take(DIAGNOSTICS_SHOWN) {
        log::warn!("{}", diagnostic.render());
    }
    if loaded.diagnostics.len() > DIAGNOSTICS_SHOWN {
        log::warn!(
            "{} more findings in the rules: `sluice check` shows all",
            loaded.diagnostics.len() - DIAGNOSTICS_SHOWN
        );
    }
    let engine = Engine::compile(loaded.rules, Daachorse::build)?;
    let summary = Summary {
        rules: engine.rule_count() as u64,
        skipped: (loaded.wrong + loaded.unsupported) as u64,
        wrong: loaded.wrong as u64,
    };
    Ok((engine, summary))
}
