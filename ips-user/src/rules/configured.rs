//! The rules that a configuration names.

use std::path::{Path, PathBuf};
use std::{fs, io};

use thiserror::Error;

use super::PortSet;
use super::files;
use super::list;
use super::load::{Loaded, RuleSet};
use super::source::RuleSource;
use super::variables::Variables;
use crate::config::settings::EngineSettings;
use crate::config::{self, Config};

/// What a configuration says about rules cannot be used.
#[derive(Debug, Error)]
pub enum Unusable {
    /// A file that it names cannot be read.
    #[error("{}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A variable has no usable name or value.
    #[error("rules.variables.{name}: {message}")]
    Variable {
        /// Its name.
        name: String,
        /// What is wrong, and what would be right.
        message: String,
    },
}

impl RuleSet {
    /// Variables and classes of a configuration: those of `rules` on top of the engine's.
    ///
    /// A variable of `rules` whose name ends in `PORTS` or `PORT` is one of ports, any other one of
    /// addresses, as in Suricata's `vars.port-groups` and `vars.address-groups`.
    ///
    /// # Errors
    /// When the classification file cannot be read, or a variable has no usable value.
    pub fn configured(rules: &config::Rules, settings: &EngineSettings) -> Result<Self, Unusable> {
        let mut set = Self::with_settings(settings)?;
        for (name, value) in &rules.variables {
            if is_of_ports(name) {
                set.variables.set_ports(name, value);
            } else {
                set.variables.set_addresses(name, value);
            }
        }
        for (name, value) in &rules.variables {
            set.check_variable(name, value)?;
        }
        set.classify(&rules.classification)?;
        Ok(set)
    }

    /// Variables and classes of the engine's settings.
    ///
    /// # Errors
    /// When the classification file cannot be read.
    pub fn with_settings(settings: &EngineSettings) -> Result<Self, Unusable> {
        let mut set = Self::default();
        for (name, value) in &settings.vars.address_groups {
            set.variables.set_addresses(name, value);
        }
        for (name, value) in &settings.vars.port_groups {
            set.variables.set_ports(name, value);
        }
        set.classify(&settings.classification_file)?;
        let path = &settings.reference_config_file;
        for line in read_lines(path, |text| set.references.add(text))? {
            log::warn!("{}:{line}: not a reference, skipped", path.display());
        }
        Ok(set)
    }

    fn classify(&mut self, path: &Path) -> Result<(), Unusable> {
        for line in read_lines(path, |text| self.classification.add(text))? {
            log::warn!("{}:{line}: not a classification, skipped", path.display());
        }
        Ok(())
    }

    /// A mistake here would show at every rule that uses the variable, or, worse, at none.
    fn check_variable(&self, name: &str, value: &str) -> Result<(), Unusable> {
        let fail = |message: String| {
            Err(Unusable::Variable {
                name: name.to_owned(),
                message,
            })
        };
        let letters = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if name.is_empty() || !name.bytes().all(letters) {
            return fail("a name has letters, digits and `_` only, and no `$`".into());
        }
        let found = if is_of_ports(name) {
            list::ports(value, &self.variables).err()
        } else {
            list::addresses(value, &self.variables).err()
        };
        let Some(found) = found else { return Ok(()) };
        let help = match found.help {
            Some(help) => format!(" ({help})"),
            None if !is_of_ports(name) && list::ports(value, &self.variables).is_ok() => {
                " (the name of a variable of ports ends in PORT or PORTS)".into()
            }
            None => String::new(),
        };
        fail(format!("{}{help}", found.message))
    }
}

/// Gives a file, if one is named, to `add`; returns the lines that it did not understand.
fn read_lines(path: &Path, add: impl FnOnce(&str) -> Vec<usize>) -> Result<Vec<usize>, Unusable> {
    if path.as_os_str().is_empty() {
        return Ok(Vec::new());
    }
    let bytes = fs::read(path).map_err(|source| Unusable::File {
        path: path.to_owned(),
        source,
    })?;
    Ok(add(&String::from_utf8_lossy(&bytes)))
}

/// The ports that a setting names, written as in the header of a rule.
///
/// # Errors
/// The sentence for whoever wrote it.
pub fn ports_of_setting(text: &str, variables: &Variables) -> Result<PortSet, String> {
    list::ports(text, variables).map_err(|found| match found.help {
        Some(help) => format!("{} ({help})", found.message),
        None => found.message,
    })
}

fn is_of_ports(name: &str) -> bool {
    name.ends_with("PORTS") || name.ends_with("PORT")
}

/// Loads every rule file of a configuration.
///
/// # Errors
/// When a file cannot be read: unlike a rule that cannot be used, that is surely not meant.
pub fn load(config: &Config) -> Result<Loaded, Unusable> {
    let rules = &config.rules;
    let set = RuleSet::configured(rules, &config.engine)?;
    let read = |path: &PathBuf| {
        RuleSource::read(path).map_err(|source| Unusable::File {
            path: path.clone(),
            source,
        })
    };
    let mut sources = Vec::new();
    for path in &rules.files {
        let files = files::expand(path).map_err(|source| Unusable::File {
            path: path.clone(),
            source,
        })?;
        for file in &files {
            sources.push(read(file)?);
        }
    }
    let mut diagnostics = Vec::new();
    let sources = files::follow(sources, &mut diagnostics);
    let mut loaded = set.load_sources(&sources);
    diagnostics.append(&mut loaded.diagnostics);
    loaded.diagnostics = diagnostics;
    Ok(loaded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_without_a_usable_value_is_refused() {
        let check = |name: &str, value: &str, expect: Option<&str>| {
            let rules = config::Rules {
                variables: [(name.to_owned(), value.to_owned())].into(),
                ..config::Rules::default()
            };
            let message = RuleSet::configured(&rules, &EngineSettings::default())
                .err()
                .map(|e| e.to_string());
            match (message, expect) {
                (None, None) => {}
                (Some(message), Some(expect)) => {
                    assert!(
                        message.contains(name) && message.contains(expect),
                        "{message}"
                    );
                }
                (message, _) => panic!("{name} = {value}: {message:?}"),
            }
        };
        check("HOME_NET", "any", None);
        check("HOME_NET", "[192.0.2.0/24,2001:db8::/32]", None);
        check("MY_PORTS", "[80,8000:8100]", None);
        check("HOME_NET", "10.0.0.0/33", Some("/33"));
        check("HOME_NET", "$HOME_NETT", Some("did you mean `$HOME_NET`?"));
        check("HOME_NET", "$HOME_NET", Some("nested"));
        check("HOME_NET", "", Some("empty"));
        check("$HOME_NET", "any", Some("no `$`"));
        check("HTTP_PORTS", "99999", Some("not a port"));
        check("WEB", "80", Some("ends in PORT"));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_refused_by_its_name_once() {
        for path in ["/nonexistent/x.rules", "/"] {
            let mut config = Config::default();
            config.rules.files.push(path.into());
            let error = load(&config).unwrap_err();
            assert_eq!(error.to_string(), path);
            assert!(std::error::Error::source(&error).is_some());
        }
    }
}
