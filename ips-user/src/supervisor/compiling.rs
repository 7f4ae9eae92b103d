//! What the compiling process does: rules into an engine, and every file that went into it kept
//! as it was, for when the same rules have to be compiled once more.

use std::cmp::Reverse;
use std::fs::File;
use std::io;
use std::rc::Rc;

use anyhow::{Context, bail};

use crate::config::Config;
use crate::detect::{CompileOptions, Engine, Summary};
use crate::rules::{self, Diagnostic, Severity, Sources};

/// Findings about rules that go to the log.
const DIAGNOSTICS_SHOWN: usize = 20;
/// Errors in rules that are told to whoever asked for a reload.
const ERRORS_TOLD: usize = 5;

/// Where the files come from.
#[derive(Debug)]
pub(super) enum Origin {
    /// From disk; what that says is kept in this file, which is empty.
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

    fn sources(&self) -> io::Result<Sources> {
        match self {
            Self::Disk(file) => Sources::keeping(file.try_clone()?),
            Self::Kept(file) => Sources::kept(file.try_clone()?),
        }
    }
}

/// In the compiling process: the engine, and what became of the rules. What the supervisor has to
/// know of sets goes into the file `sets`, which is empty.
pub(super) fn compile(
    config: &Config,
    lenient: bool,
    origin: &Origin,
    sets: &File,
) -> anyhow::Result<(Engine, Summary)> {
    let sources = Rc::new(origin.sources().context("the files of the rules")?);
    let (set, loaded) = rules::load_from(config, &sources)?;
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
    let options = CompileOptions {
        data_directory: Some(config.rules.data_directory.clone()),
        ..CompileOptions::configured(&config.engine, &set.variables, &sources)?
    };
    let compiled = Engine::compile(loaded.rules, &options)?;
    let (engine, refused) = (compiled.engine, compiled.refused);
    for refused in refused.iter().take(DIAGNOSTICS_SHOWN) {
        log::warn!("{refused}");
    }
    // Only now is everything read.
    sources.finish().context("keeping the files of the rules")?;
    engine.write_sets(sets).context("the sets of the rules")?;
    let summary = Summary {
        rules: engine.rule_count() as u64,
        skipped: (loaded.wrong + loaded.unsupported + refused.len()) as u64,
        wrong: loaded.wrong as u64,
    };
    Ok((engine, summary))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::detect::dataset::Catalogue;

    fn sets() -> File {
        Catalogue::file().unwrap()
    }

    /// Rules that need every kind of file but a database of countries.
    fn write(directory: &Path, sid: u32, address: &str) {
        let write = |name: &str, text: &str| fs::write(directory.join(name), text).unwrap();
        let header = "alert ip any any -> any any";
        write("main.rules", "include other.rules\n");
        write(
            "other.rules",
            &format!(
                "{header} (ip.src; dataset:isset,known,type ip,load known.lst; sid:{sid};)\n\
                 {header} (ip.src; dataset:isset,absent,type ip,state absent.lst; sid:{};)\n\
                 {header} (iprep:src,Bad,>,10; sid:{};)\n",
                sid + 1,
                sid + 2
            ),
        );
        write("known.lst", &format!("{address}\n"));
        write("categories", "1,Bad,Bad\n");
        write("scores", &format!("{address},1,99\n"));
        write(
            "thresholds",
            &format!("suppress gen_id 1, sig_id {sid}, track by_src, ip {address}\n"),
        );
    }

    #[test]
    fn rules_that_are_compiled_once_more_are_the_same_whatever_the_disk_says() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let mut config = Config::default();
        config.rules.files = vec![path("m*.rules")];
        config.rules.data_directory = path("data");
        let engine = &mut config.engine;
        engine.threshold_file = path("thresholds");
        engine.reputation_categories_file = path("categories");
        engine.default_reputation_path = directory.path().into();
        engine.reputation_files = vec!["scores".into()];
        engine.detect.sgh_mpm_caching = false;
        let compiled = |origin: &Origin| {
            let (engine, summary) = compile(&config, false, origin, &sets()).unwrap();
            (format!("{engine:?}"), summary.rules, summary.skipped)
        };
        let disk = || Origin::Disk(Sources::file().unwrap());

        write(directory.path(), 7, "192.0.2.1");
        let origin = disk();
        let before = compiled(&origin);
        assert_eq!((before.1, before.2), (3, 0));
        assert_eq!(compiled(&disk()), before);
        write(directory.path(), 8, "192.0.2.99");
        // It was empty because it was not there.
        fs::write(path("absent.lst"), "192.0.2.3\n").unwrap();
        assert_ne!(compiled(&disk()), before);
        let kept = Origin::Kept(origin.into_kept());
        assert_eq!(compiled(&kept), before);
        fs::remove_dir_all(directory.path()).unwrap();
        compile(&config, true, &disk(), &sets()).unwrap_err();
        assert_eq!(compiled(&kept), before);
    }

    #[test]
    fn rules_that_cannot_be_compiled_leave_nothing_to_compile_once_more() {
        let mut config = Config::default();
        config.rules.files = vec!["/nonexistent/x.rules".into()];
        let origin = Origin::Disk(Sources::file().unwrap());
        compile(&config, true, &origin, &sets()).unwrap_err();
        let kept = Origin::Kept(origin.into_kept());
        let error = compile(&config, true, &kept, &sets()).unwrap_err();
        assert!(format!("{error:#}").contains("not finished"), "{error:#}");
    }
}
