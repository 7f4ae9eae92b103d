//! One case: a directory with `case.json`, a capture and rules.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// What `case.json` says. What is there besides is for the reader.
#[derive(Debug, Deserialize)]
pub(crate) struct Case {
    /// Its name, as that of its directory.
    pub(crate) name: String,
    /// Which part of the product it needs.
    pub(crate) tier: String,
    /// Protocols it is about; none for the core of the engine.
    #[serde(default)]
    pub(crate) families: Vec<String>,
    /// What else it is about.
    #[serde(default)]
    pub(crate) tags: Vec<String>,
    /// Whether it fails when nothing is detected.
    #[serde(default = "yes")]
    pub(crate) discriminating: bool,
    /// What must have been written.
    pub(crate) checks: Vec<Check>,
    pcap: PathBuf,
    #[serde(default)]
    rules: Vec<PathBuf>,
    #[serde(default)]
    simulate_ips: bool,
    #[serde(default = "yes")]
    checksum_validation: bool,
    #[serde(default)]
    set: BTreeMap<String, Value>,
    #[serde(default)]
    config: BTreeMap<String, Value>,
    #[serde(default)]
    env: Option<BTreeMap<String, String>>,
    #[serde(default)]
    eve_log: Option<Vec<Value>>,
    #[serde(default)]
    file_store: Option<Value>,
    #[serde(skip)]
    directory: PathBuf,
}

/// So many events must match.
#[derive(Debug, Deserialize)]
pub(crate) struct Check {
    /// How many.
    pub(crate) count: usize,
    /// What.
    #[serde(rename = "match")]
    pub(crate) filter: Map<String, Value>,
}

const fn yes() -> bool {
    true
}

impl Case {
    /// Reads every case below `corpus` whose tier and name are asked for, in the order of their
    /// names. No tiers: all; no names: all.
    pub(crate) fn read_all(corpus: &Path, tiers: &[String], names: &[String]) -> Result<Vec<Self>> {
        let entries = fs::read_dir(corpus).with_context(|| corpus.display().to_string())?;
        let mut cases = Vec::new();
        for entry in entries {
            let directory = entry.with_context(|| corpus.display().to_string())?.path();
            if directory.join("case.json").is_file() {
                cases.push(Self::read(&directory)?);
            }
        }
        if cases.is_empty() {
            bail!("{}: no directory with a case.json", corpus.display());
        }
        for name in names {
            if !cases.iter().any(|case| case.name == *name) {
                bail!("{}: no case {name:?}", corpus.display());
            }
        }
        cases.retain(|case| {
            (tiers.is_empty() || tiers.contains(&case.tier))
                && (names.is_empty() || names.contains(&case.name))
        });
        cases.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(cases)
    }

    fn read(directory: &Path) -> Result<Self> {
        let path = directory.join("case.json");
        let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
        let mut case: Self =
            serde_json::from_slice(&bytes).with_context(|| path.display().to_string())?;
        // Values may name files of the case, and the program runs elsewhere.
        case.directory =
            fs::canonicalize(directory).with_context(|| directory.display().to_string())?;
        Ok(case)
    }

    /// What it is listed under: the protocol that it is about.
    pub(crate) fn family(&self) -> &str {
        self.families.first().map_or("core", String::as_str)
    }

    /// The arguments of `sluice` that run it and write into `log_directory`.
    pub(crate) fn arguments(&self, log_directory: &Path) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["replay".into(), "--pcap".into()];
        arguments.push(self.directory.join(&self.pcap).into());
        for rules in &self.rules {
            arguments.extend(["--rules".into(), self.directory.join(rules).into()]);
        }
        if self.simulate_ips {
            arguments.push("--ips".into());
        }
        let checksums = if self.checksum_validation {
            "auto"
        } else {
            "none"
        };
        arguments.extend(["-k".into(), checksums.into()]);
        for setting in self.settings() {
            arguments.extend(["--set".into(), setting.into()]);
        }
        arguments.extend(["--log-dir".into(), log_directory.into()]);
        arguments
    }

    /// Further environment.
    pub(crate) fn environment(&self) -> impl Iterator<Item = (&String, &String)> {
        self.env.iter().flatten()
    }

    /// `NAME=VALUE`, in the order in which they are to be set: the last one wins.
    fn settings(&self) -> Vec<String> {
        let mut settings = Vec::new();
        let named = self.config.iter().chain(&self.set);
        for (name, value) in named {
            // An empty mapping of the case's YAML: nothing is set.
            if !value.is_null() {
                settings.push(format!("{name}={}", self.rendered(value)));
            }
        }
        let outputs: Vec<Value> = (self.eve_log.iter().flatten())
            .map(|output| json!({ "eve-log": output }))
            .chain(
                self.file_store
                    .iter()
                    .map(|store| json!({ "file-store": store })),
            )
            .collect();
        if !outputs.is_empty() {
            settings.push(format!("outputs={}", self.rendered(&Value::Array(outputs))));
        }
        settings
    }

    /// A value as `--set` takes it: text as it is, everything else as JSON.
    fn rendered(&self, value: &Value) -> String {
        let text = match value {
            Value::String(text) => text.clone(),
            value => value.to_string(),
        };
        text.replace("${TEST_DIR}", &self.directory.to_string_lossy())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(text: &str) -> Case {
        let mut case: Case = serde_json::from_str(text).unwrap();
        case.directory = "/corpus/it".into();
        case
    }

    fn arguments(case: &Case) -> Vec<String> {
        let arguments = case.arguments(Path::new("/out"));
        let text = |argument: OsString| argument.into_string().unwrap();
        arguments.into_iter().map(text).collect()
    }

    #[test]
    fn a_case_becomes_arguments_and_its_own_settings_come_last() {
        let case = case(
            r#"{"name": "it", "tier": "1x", "pcap": "a.pcap", "rules": ["b.rules"],
                "simulate_ips": true, "checksum_validation": false, "checks": [],
                "config": {"flow.memcap": "1mb", "capture": null, "action-order": ["drop"]},
                "set": {"flow.memcap": "2mb", "threshold-file": "${TEST_DIR}/t.config"},
                "eve_log": [{"types": ["alert"]}], "nominal_version": "8"}"#,
        );
        assert_eq!(
            arguments(&case),
            [
                "replay",
                "--pcap",
                "/corpus/it/a.pcap",
                "--rules",
                "/corpus/it/b.rules",
                "--ips",
                "-k",
                "none",
                "--set",
                r#"action-order=["drop"]"#,
                "--set",
                "flow.memcap=1mb",
                "--set",
                "flow.memcap=2mb",
                "--set",
                "threshold-file=/corpus/it/t.config",
                "--set",
                r#"outputs=[{"eve-log":{"types":["alert"]}}]"#,
                "--log-dir",
                "/out",
            ]
        );
        assert_eq!(case.family(), "core");
    }

    #[test]
    fn stock_outputs_are_not_set() {
        let case =
            case(r#"{"name": "x", "tier": "2", "pcap": "a", "checks": [], "eve_log": null}"#);
        assert_eq!(
            arguments(&case),
            [
                "replay",
                "--pcap",
                "/corpus/it/a",
                "-k",
                "auto",
                "--log-dir",
                "/out"
            ]
        );
    }
}
