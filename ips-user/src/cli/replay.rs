//! `sluice replay`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::config::settings::{EngineSettings, SettingError, is_without_effect};
use crate::replay::Replay;

/// Arguments.
#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    /// Capture: pcap or pcapng.
    #[arg(long, value_name = "FILE")]
    pcap: PathBuf,
    /// Rule file; repeat for each.
    #[arg(short, long, value_name = "FILE")]
    rules: Vec<PathBuf>,
    /// Drop packets as inline: what is dropped is not seen by what follows.
    #[arg(long)]
    ips: bool,
    /// Whether packets with wrong checksums are taken for what their receiver takes them for.
    #[arg(short = 'k', value_name = "MODE", default_value = "auto")]
    checksums: Checksums,
    /// Setting of the engine by its dotted name, for example `stream.midstream=true`; repeat for
    /// each, the last one counts. Lists and tables are JSON.
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_setting)]
    set: Vec<(String, String)>,
    /// Where `eve.json` is written.
    #[arg(short, long, value_name = "DIR")]
    log_dir: PathBuf,
}

/// `-k`
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Checksums {
    /// Every checksum is taken to be right.
    None,
    /// All are checked.
    All,
    /// All are checked until too many are wrong for a capture from the wire.
    Auto,
}

fn parse_setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| format!("expected NAME=VALUE, not {text:?}"))?;
    Ok((name.trim().to_owned(), value.to_owned()))
}

pub(super) fn run(args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    let replay = Replay {
        capture: args.pcap.clone(),
        rules: args.rules.clone(),
        ips: args.ips,
        settings: settings(args)?,
        log_directory: args.log_dir.clone(),
    };
    let replayed = replay.run(|loaded| {
        for diagnostic in &loaded.diagnostics {
            eprintln!("{}", diagnostic.render());
        }
    })?;
    if let Some(damage) = &replayed.damage {
        log::warn!(
            "{}: {damage}; what came before was inspected",
            args.pcap.display()
        );
    }
    let counters = &replayed.counters;
    println!(
        "{} packets, {} of them of unknown kind; {} alerts, {} dropped, {} flows, {} records",
        replayed.packets,
        replayed.not_shown,
        counters.alerts,
        counters.dropped,
        counters.flows.created,
        replayed.records,
    );
    Ok(ExitCode::SUCCESS)
}

fn settings(args: &ReplayArgs) -> anyhow::Result<EngineSettings> {
    let mut settings = EngineSettings::stock();
    let checksums: &[(&str, &str)] = match args.checksums {
        Checksums::None => &[
            ("stream.checksum-validation", "no"),
            ("pcap-file.checksum-checks", "no"),
        ],
        Checksums::All => &[("pcap-file.checksum-checks", "yes")],
        Checksums::Auto => &[],
    };
    let own = args
        .set
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in checksums.iter().copied().chain(own) {
        match settings.set(name, value) {
            Ok(()) => {}
            Err(SettingError::Unknown { .. }) if is_without_effect(name) => {
                log::info!("{name}: nothing depends on this setting here");
            }
            Err(error @ SettingError::Unknown { .. }) => log::warn!("{error}, ignored"),
            Err(error @ SettingError::Wrong { .. }) => return Err(error.into()),
        }
    }
    for name in &settings.outputs.ignored {
        log::info!("{name}: not written here");
    }
    Ok(settings)
}
