//! `sluice gate`

use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};

use super::Settings;
use crate::config::Config;
use crate::supervisor::gate;

/// Arguments.
#[derive(Debug, Args)]
pub(super) struct GateArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Drop what comes in by the steered interfaces until Sluice runs (for boot scripts).
    Close(Which),
    /// Let everything pass uninspected; refused while the instance runs.
    Open(Which),
    /// Show whether the gate is closed and what it dropped.
    Status(Which),
}

#[derive(Debug, Args)]
struct Which {
    #[command(flatten)]
    settings: Settings,
    /// Instance, when not the configuration's.
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,
}

impl Which {
    fn load(&self) -> anyhow::Result<Config> {
        let mut config = self.settings.load()?;
        if let Some(instance) = &self.instance {
            config.name.clone_from(instance);
            config.validate()?;
        }
        Ok(config)
    }
}

pub(super) fn run(args: &GateArgs) -> anyhow::Result<ExitCode> {
    match &args.action {
        Action::Close(which) => {
            let config = which.load()?;
            if gate::close(&config).context("the gate is not closed")? {
                let interfaces = config.interfaces.join(", ");
                println!("closed: what comes in by {interfaces} is dropped until Sluice runs");
            } else {
                println!(
                    "nothing done: fail is {}, hook {}, {} interfaces; a gate is for fail = \"closed\" \
                     and another hook than output",
                    config.fail,
                    config.netfilter.hook,
                    config.interfaces.len()
                );
            }
        }
        Action::Open(which) => {
            gate::open(&which.load()?).context("the gate is not opened")?;
            println!("open: everything passes uninspected");
        }
        Action::Status(which) => match gate::status(&which.load()?)? {
            Some(gate) => {
                let interfaces: Vec<_> = gate.interfaces.into_iter().collect();
                println!(
                    "closed: {} for {}; {} packets dropped",
                    if gate.queues {
                        "what carries no decision is dropped"
                    } else {
                        "everything is dropped"
                    },
                    interfaces.join(", "),
                    gate.dropped
                );
            }
            None => println!("open"),
        },
    }
    Ok(ExitCode::SUCCESS)
}
