//! `sluice upgrade`: another program goes on in the place of the running one.

use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;

use super::{Settings, ask};
use crate::config::Config;
use crate::control::Request;
use crate::metrics::snapshot::{Snapshot, Worker};
use crate::{rules, supervisor};

/// How long every worker may take to be relieved.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Arguments.
#[derive(Debug, Args)]
pub(super) struct UpgradeArgs {
    #[command(flatten)]
    instance: super::InstanceArgs,
    /// The program that goes on [default: this one].
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

pub(super) fn run(args: &UpgradeArgs) -> anyhow::Result<ExitCode> {
    let config = args.instance.config()?;
    let program = match &args.program {
        Some(program) => program
            .canonicalize()
            .with_context(|| program.display().to_string())?,
        None => std::env::current_exe().context("the path of this program")?,
    };
    let began = Instant::now();
    let answer = ask(
        &config,
        &Request::Upgrade {
            program: program.clone(),
        },
    )?;
    let before = answer["upgrades"].as_u64().context("an unknown answer")?;
    loop {
        sleep(LOOK_EVERY);
        // In between nobody listens.
        let status = ask(&config, &Request::Status {}).ok();
        let status = status.and_then(|value| serde_json::from_value::<Snapshot>(value).ok());
        if let Some(status) = status
            && status.upgrades > before
            && status.seats().all(Worker::serves)
        {
            println!(
                "{} goes on in process {} after {:.1} s",
                program.display(),
                status.pid,
                began.elapsed().as_secs_f32()
            );
            return Ok(ExitCode::SUCCESS);
        }
        if began.elapsed() > PATIENCE {
            bail!("not every worker has been relieved within {PATIENCE:?}: see the log");
        }
    }
}

/// Arguments.
#[derive(Debug, Args)]
pub(super) struct CanSucceedArgs {
    #[command(flatten)]
    settings: Settings,
    #[arg(short, long)]
    verbose: bool,
}

/// Says whether this program could go on in the place of one that was given these arguments.
pub(super) fn can_succeed(args: &CanSucceedArgs) -> anyhow::Result<ExitCode> {
    check(&args.settings.load()?)?;
    println!("{}", supervisor::upgrade::can_succeed()?);
    Ok(ExitCode::SUCCESS)
}

/// What a start needs and no configuration says by itself. An interface that is absent is no
/// reason: the instance goes on without it, as it does when one goes away.
fn check(config: &Config) -> anyhow::Result<()> {
    super::run::check_interfaces(config)?;
    rules::check_sources(config).context("the rules")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_would_have_no_rules_or_no_interface_does_not_take_over() {
        let directory = tempfile::tempdir().unwrap();
        let good = directory.path().join("good.rules");
        std::fs::write(&good, "alert tcp any any -> any any (sid:1;)\n").unwrap();
        let usable = || {
            let mut config = Config {
                interfaces: vec!["absent0".into()],
                ..Config::default()
            };
            config.rules.files = vec![good.clone()];
            config
        };
        check(&usable()).unwrap();
        let refused = |change: &dyn Fn(&mut Config), why: &str| {
            let mut config = usable();
            change(&mut config);
            let error = format!("{:#}", check(&config).unwrap_err());
            assert!(error.contains(why) && !error.contains('\n'), "{error}");
        };
        let missing = directory.path().join("missing");
        let files = |it: &mut Config| it.rules.files.push(missing.clone());
        refused(&files, "missing: No such file");
        let classes = |it: &mut Config| it.rules.classification.clone_from(&missing);
        refused(&classes, "missing: No such file");
        let variable = |it: &mut Config| {
            it.rules.variables.insert("HOME_NET".into(), "10/99".into());
        };
        refused(&variable, "rules.variables.HOME_NET");
        refused(&|it: &mut Config| it.interfaces.clear(), "no interfaces");
    }
}
