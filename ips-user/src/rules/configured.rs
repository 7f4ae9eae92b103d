//! The rules that a configuration names.

use std::fs;
use std::io;

use thiserror::Error;

use super::load::{Loaded, RuleSet};
use crate::config;

/// A file that the configuration names cannot be read.
#[derive(Debug, Error)]
#[error("{}: {source}", path.display())]
pub struct Unreadable {
    /// The file.
    path: std::path::PathBuf,
    /// Why.
    source: io::Error,
}

impl RuleSet {
    /// Variables and classes of a configuration, on top of the built-in ones.
    ///
    /// A variable whose name ends in `PORTS` or `PORT` is one of ports, any other one of
    /// addresses, as in Suricata's `vars.port-groups` and `vars.address-groups`.
    ///
    /// # Errors
    /// When the classification file cannot be read.
    pub fn configured(rules: &config::Rules) -> Result<Self, Unreadable> {
        let mut set = Self::default();
        for (name, value) in &rules.variables {
            if name.ends_with("PORTS") || name.ends_with("PORT") {
                set.variables.set_ports(name, value);
            } else {
                set.variables.set_addresses(name, value);
            }
        }
        let path = &rules.classification;
        if !path.as_os_str().is_empty() {
            let bytes = fs::read(path).map_err(|source| Unreadable {
                path: path.clone(),
                source,
            })?;
            for line in set.classification.add(&String::from_utf8_lossy(&bytes)) {
                log::warn!("{}:{line}: not a classification, skipped", path.display());
            }
        }
        Ok(set)
    }
}

/// Loads every rule file of a configuration.
///
/// # Errors
/// When a file cannot be read: unlike a rule that cannot be used, that is surely not meant.
pub fn load(rules: &config::Rules) -> Result<Loaded, Unreadable> {
    for path in &rules.files {
        if let Err(source) = fs::File::open(path) {
            return Err(Unreadable {
                path: path.clone(),
                source,
            });
        }
    }
    Ok(RuleSet::configured(rules)?.load(&rules.files))
}
