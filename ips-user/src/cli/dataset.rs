//! `sluice dataset`

use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};

use super::{InstanceArgs, ask};
use crate::control::Request;
use crate::supervisor::datasets::{SetRequest, SetShown, SetValue};

/// Arguments of `dataset`.
#[derive(Debug, Args)]
pub(super) struct DatasetArgs {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    instance: InstanceArgs,
    /// The answer as JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// The sets of the rules in force.
    List,
    /// Whether a value is in a set; exit 1 when it is not.
    Lookup(ValueArgs),
    /// Add a value, for all workers.
    Add(ValueArgs),
    /// Remove a value, for all workers.
    Remove(ValueArgs),
    /// Write sets with `save` or `state` to their files now.
    Dump {
        /// Only this one.
        name: Option<String>,
    },
    /// Remove all values.
    Clear {
        /// The set.
        name: String,
    },
}

#[derive(Clone, Debug, Args)]
struct ValueArgs {
    /// The set.
    name: String,
    /// The kind of its values, as in rules: string, md5, sha256, ipv4, ip.
    #[arg(value_name = "TYPE")]
    kind: String,
    /// The value as in files: base64 for strings, hexadecimal digits, an address.
    value: String,
}

impl From<&ValueArgs> for SetValue {
    fn from(args: &ValueArgs) -> Self {
        Self {
            name: args.name.clone(),
            kind: args.kind.clone(),
            value: args.value.clone(),
        }
    }
}

pub(super) fn run(args: &DatasetArgs) -> anyhow::Result<ExitCode> {
    let request = match &args.action {
        Action::List => SetRequest::List {},
        Action::Lookup(value) => SetRequest::Lookup(value.into()),
        Action::Add(value) => SetRequest::Add(value.into()),
        Action::Remove(value) => SetRequest::Remove(value.into()),
        Action::Dump { name } => SetRequest::Dump { name: name.clone() },
        Action::Clear { name } => SetRequest::Clear { name: name.clone() },
    };
    let answer = ask(&args.instance.config()?, &Request::Dataset { request })?;
    let found = answer["found"].as_bool();
    if args.json {
        println!("{answer:#}");
    } else {
        let changed = answer["changed"].as_bool().unwrap_or(false);
        match &args.action {
            Action::List => {
                let sets: Vec<SetShown> = serde_json::from_value(answer)
                    .context("the instance is of another version of sluice; try --json")?;
                for set in sets {
                    println!("{set}");
                }
            }
            Action::Lookup(_) if found == Some(true) => println!("found"),
            Action::Lookup(_) => println!("not found"),
            Action::Add(_) if changed => println!("added"),
            Action::Add(_) => println!("was there already"),
            Action::Remove(_) if changed => println!("removed"),
            Action::Remove(_) => println!("was not there"),
            Action::Clear { .. } => println!("{} values removed", answer["removed"]),
            Action::Dump { .. } => {
                for file in answer.as_array().into_iter().flatten() {
                    let path = file["path"].as_str().unwrap_or_default();
                    println!("{path}: {} values", file["values"]);
                }
            }
        }
    }
    Ok(match found {
        Some(false) => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    })
}
