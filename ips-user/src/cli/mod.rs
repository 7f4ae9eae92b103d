//! The command line: arguments in, exit status out.

mod check;
mod config;
mod dataset;
mod doctor;
mod gate;
mod launcher;
mod measure;
mod reload;
mod replay;
mod rules;
mod run;
mod scale;
mod status;
mod upgrade;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};

use crate::config::Config;
use crate::control::{self, Request, Response};
use crate::netfilter::Fail;

/// Inline intrusion prevention: eBPF steering, NFQUEUE workers, Suricata rules.
#[derive(Debug, Parser)]
#[command(name = "sluice", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Inspect traffic until stopped (SIGINT, SIGTERM); SIGHUP reopens the event log.
    Run(run::RunArgs),
    /// Check configuration and rules; exit 1 on any error.
    Check(check::CheckArgs),
    /// About rule files: what of them is used.
    Rules(rules::RulesArgs),
    /// Show a running instance.
    Status(status::StatusArgs),
    /// Change the number of workers of a running instance; flows stay where they are.
    Scale(scale::ScaleArgs),
    /// Give a worker no new flows; it keeps those that it has.
    Drain(scale::WorkerArgs),
    /// Give a drained worker new flows again.
    Resume(scale::WorkerArgs),
    /// Show and change the sets that rules name with `dataset`, in a running instance.
    Dataset(dataset::DatasetArgs),
    /// Take over changed rules and settings in a running instance; exit 1 and change nothing
    /// when they cannot be used.
    Reload(reload::ReloadArgs),
    /// Have another program go on in the place of the running one, without losing a packet.
    Upgrade(upgrade::UpgradeArgs),
    /// Run by an instance that is to be upgraded.
    #[command(hide = true)]
    CanSucceed(upgrade::CanSucceedArgs),
    /// Inspect a capture file, write the records, and end.
    Replay(replay::ReplayArgs),
    /// Examine the machine: what Sluice needs, what is missing, what is used instead.
    Doctor(doctor::DoctorArgs),
    /// Open, close or show the gate: what passes while Sluice does not run.
    Gate(gate::GateArgs),
    /// Show the configuration.
    Config(config::ConfigArgs),
    /// Accept every packet of one queue: the transport alone, for measurements.
    #[command(hide = true)]
    AcceptAll(accept_all::AcceptAllArgs),
    /// How fast packets are inspected on one core, without a kernel, for measurements.
    #[command(hide = true)]
    Measure(measure::MeasureArgs),
    /// Started by `run`: compiles the rules and forks the workers.
    #[command(hide = true)]
    Launcher,
}

mod accept_all;

/// Where the configuration comes from: a file, then these arguments.
#[derive(Clone, Debug, Default, Args)]
struct Settings {
    /// Configuration file [default: /etc/sluice/sluice.toml if it exists].
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Interface whose incoming packets are steered; repeat for each (replaces the file's).
    #[arg(short, long, value_name = "IF")]
    interface: Vec<String>,
    /// Number of workers, 0 = one per CPU.
    #[arg(short, long, value_name = "N")]
    workers: Option<u32>,
    /// Rule file; repeat for each (replaces the file's).
    #[arg(short, long, value_name = "FILE")]
    rules: Vec<PathBuf>,
    /// What happens to traffic that cannot be inspected.
    #[arg(long, value_name = "POLICY", value_parser = parse_fail)]
    fail: Option<Fail>,
}

/// Which running instance is meant.
#[derive(Clone, Debug, Args)]
struct InstanceArgs {
    /// Configuration file, for the instance's name and run directory.
    #[arg(short, long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Instance, when not the configuration's.
    #[arg(long, value_name = "NAME", global = true)]
    instance: Option<String>,
}

impl InstanceArgs {
    /// The instance's configuration.
    fn config(&self) -> anyhow::Result<Config> {
        let settings = Settings {
            config: self.config.clone(),
            ..Settings::default()
        };
        let mut config = settings.load()?;
        if let Some(instance) = &self.instance {
            config.name.clone_from(instance);
            config.validate()?;
        }
        Ok(config)
    }
}

/// Asks a running instance.
fn ask(config: &Config, request: &Request) -> anyhow::Result<serde_json::Value> {
    let path = config.control_socket();
    let response = match control::ask(&path, request) {
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::ConnectionRefused
            ) =>
        {
            bail!(
                "instance {:?} is not running (nobody listens at {})",
                config.name,
                path.display()
            )
        }
        result => result.with_context(|| path.display().to_string())?,
    };
    match response {
        Response::Ok(value) => Ok(value),
        Response::Error(message) => bail!("{message}"),
    }
}

/// Read when `-c` is not given and the file exists.
const DEFAULT_FILE: &str = "/etc/sluice/sluice.toml";

fn parse_fail(text: &str) -> Result<Fail, String> {
    match text {
        "open" => Ok(Fail::Open),
        "closed" => Ok(Fail::Closed),
        _ => Err("expected `open` or `closed`".into()),
    }
}

impl Settings {
    /// The configuration, validated.
    fn load(&self) -> anyhow::Result<Config> {
        let default = Path::new(DEFAULT_FILE);
        let mut config = match &self.config {
            Some(path) => Config::read(path)?,
            None if default.exists() => Config::read(default)?,
            None => Config::default(),
        };
        if !self.interface.is_empty() {
            config.interfaces.clone_from(&self.interface);
        }
        if let Some(workers) = self.workers {
            config.workers.count = workers;
        }
        if !self.rules.is_empty() {
            config.rules.files.clone_from(&self.rules);
        }
        if let Some(fail) = self.fail {
            config.fail = fail;
        }
        let origin = self
            .config
            .as_deref()
            .map_or("configuration".into(), Path::to_string_lossy);
        config.validate().with_context(|| origin.into_owned())?;
        Ok(config)
    }
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let environment = env_logger::Env::default().filter_or("SLUICE_LOG", "info");
    env_logger::Builder::from_env(environment)
        .format_target(false)
        .format_timestamp_millis()
        .init();
    let result = match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Rules(args) => rules::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Scale(args) => scale::scale(&args),
        Command::Drain(args) => scale::drain(&args),
        Command::Resume(args) => scale::resume(&args),
        Command::Dataset(args) => dataset::run(&args),
        Command::Reload(args) => reload::run(&args),
        Command::Upgrade(args) => upgrade::run(&args),
        Command::CanSucceed(args) => upgrade::can_succeed(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Gate(args) => gate::run(&args),
        Command::Config(args) => config::run(&args),
        Command::AcceptAll(args) => accept_all::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Measure(args) => measure::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Launcher => launcher::run().map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        eprintln!("sluice: {error:#}");
        ExitCode::FAILURE
    })
}
