//! The rules that a configuration names.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::list;
use super::load::{Loaded, RuleSet};
use super::source::RuleSource;
use super::sources::{SourceFile, Sources};
use crate::config;

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
    /// Variables and classes of a configuration, on top of the built-in ones.
    ///
    /// A variable whose name ends in `PORTS` or `PORT` is one of ports, any other one of
    /// addresses, as in Suricata's `vars.port-groups` and `vars.address-groups`.
    ///
    /// # Errors
    /// When a variable has no usable value.
    fn configured(
        rules: &config::Rules,
        classification: Option<&SourceFile>,
    ) -> Result<Self, Unusable> {
        let mut set = Self::default();
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
        if let Some(SourceFile { name, bytes }) = classification {
            for line in set.classification.add(&String::from_utf8_lossy(bytes)) {
                log::warn!("{}:{line}: not a classification, skipped", name.display());
            }
        }
        Ok(set)
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

fn is_of_ports(name: &str) -> bool {
    name.ends_with("PORTS") || name.ends_with("PORT")
}

/// Whether the files of a configuration can be read, and its variables have usable values: without
/// that there are no rules at all, whatever they say.
///
/// # Errors
/// When not.
pub fn check_sources(rules: &config::Rules) -> Result<(), Unusable> {
    let sources = Sources::read(rules)?;
    RuleSet::configured(rules, sources.classification.as_ref()).map(drop)
}

/// Loads every rule file of a configuration.
///
/// # Errors
/// When a file cannot be read, or a variable has no usable value.
pub fn load(rules: &config::Rules) -> Result<Loaded, Unusable> {
    load_from(rules, Sources::read(rules)?)
}

/// Loads rules from files that have been read already, with the variables of a configuration.
///
/// # Errors
/// When a variable has no usable value.
pub fn load_from(rules: &config::Rules, sources: Sources) -> Result<Loaded, Unusable> {
    let set = RuleSet::configured(rules, sources.classification.as_ref())?;
    let files = sources.rules.into_iter();
    let files: Vec<_> = files
        .map(|SourceFile { name, bytes }| RuleSource::new(name, bytes))
        .collect();
    Ok(set.load_sources(&files))
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
            let message = RuleSet::configured(&rules, None)
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
    fn rules_are_what_the_files_said_when_they_were_read() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("t.rules");
        let classification = directory.path().join("classes");
        let rule = "alert tcp $HERE any -> any any (classtype:mine; sid:7;)\n";
        std::fs::write(&file, rule).unwrap();
        std::fs::write(&classification, "config classification: mine,Mine,3\n").unwrap();
        let rules = config::Rules {
            files: vec![file.clone()],
            classification: classification.clone(),
            variables: [("HERE".to_owned(), "192.0.2.0/24".to_owned())].into(),
            ..config::Rules::default()
        };
        let sources = Sources::read(&rules).unwrap();
        std::fs::write(&file, "nonsense\n").unwrap();
        std::fs::remove_file(&classification).unwrap();
        let loaded = load_from(&rules, sources).unwrap();
        assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
        assert_eq!(loaded.rules[0].options.signature_id, 7);
        assert_eq!(loaded.rules[0].file, file);
        load(&rules).unwrap_err();
    }

    #[test]
    fn a_file_that_cannot_be_read_is_refused_by_its_name_once() {
        for path in ["/nonexistent/x.rules", "/"] {
            let rules = config::Rules {
                files: vec![path.into()],
                ..config::Rules::default()
            };
            let error = load(&rules).unwrap_err();
            assert_eq!(error.to_string(), path);
            assert!(std::error::Error::source(&error).is_some());
        }
    }
}
