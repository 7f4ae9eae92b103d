//! The rules that a configuration names.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use thiserror::Error;

use super::PortSet;
use super::files::Reader;
use super::list;
use super::load::{Loaded, RuleSet};
use super::sources::Sources;
use super::variables::Variables;
use crate::config::settings::EngineSettings;
use crate::config::{self, Config};
use crate::detect::CompileOptions;

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

impl Unusable {
    /// A file that cannot be read.
    pub fn file(path: &Path, source: io::Error) -> Self {
        Self::File {
            path: path.to_owned(),
            source,
        }
    }
}

impl RuleSet {
    /// Variables and classes of a configuration: those of `rules` on top of the engine's.
    ///
    /// A variable of `rules` whose name ends in `PORTS` or `PORT` is one of ports, any other one of
    /// addresses, as in Suricata's `vars.port-groups` and `vars.address-groups`.
    ///
    /// # Errors
    /// When a file cannot be read, or a variable has no usable value.
    pub fn configured(
        rules: &config::Rules,
        settings: &EngineSettings,
        from: &Sources,
    ) -> Result<Self, Unusable> {
        let mut set = Self::with_settings(settings, from)?;
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
        set.classify(&rules.classification, from)?;
        Ok(set)
    }

    /// Variables, classes and references of the engine's settings.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn with_settings(settings: &EngineSettings, from: &Sources) -> Result<Self, Unusable> {
        let mut set = Self::default();
        for (name, value) in &settings.vars.address_groups {
            set.variables.set_addresses(name, value);
        }
        for (name, value) in &settings.vars.port_groups {
            set.variables.set_ports(name, value);
        }
        set.classify(&settings.classification_file, from)?;
        let path = &settings.reference_config_file;
        for line in read_lines(path, from, |text| set.references.add(text))? {
            log::warn!("{}:{line}: not a reference, skipped", path.display());
        }
        Ok(set)
    }

    fn classify(&mut self, path: &Path, from: &Sources) -> Result<(), Unusable> {
        for line in read_lines(path, from, |text| self.classification.add(text))? {
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
fn read_lines(
    path: &Path,
    from: &Sources,
    add: impl FnOnce(&str) -> Vec<usize>,
) -> Result<Vec<usize>, Unusable> {
    if path.as_os_str().is_empty() {
        return Ok(Vec::new());
    }
    let bytes = from
        .read(path)
        .map_err(|source| Unusable::file(path, source))?;
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

/// Whether the files of a configuration can be read, and its variables have usable values: without
/// that there are no rules at all, whatever they say. (What a rule alone needs, such as the values
/// of a set, is a matter of that rule.)
///
/// # Errors
/// When not.
pub fn check_sources(config: &Config) -> Result<(), Unusable> {
    let from = Rc::new(Sources::disk());
    let set = RuleSet::configured(&config.rules, &config.engine, &from)?;
    CompileOptions::configured(&config.engine, &set.variables, &from)?;
    read_all(&config.rules, &from).map(drop)
}

/// Loads every rule file of a configuration.
///
/// # Errors
/// When a file cannot be read, or a variable has no usable value.
pub fn load(config: &Config) -> Result<Loaded, Unusable> {
    load_from(config, &Sources::disk()).map(|(_, loaded)| loaded)
}

/// Loads every rule file of a configuration from these sources, with what it says to read them by.
///
/// # Errors
/// When a file cannot be read: unlike a rule that cannot be used, that is surely not meant. Or when
/// a variable has no usable value.
pub fn load_from(config: &Config, from: &Sources) -> Result<(RuleSet, Loaded), Unusable> {
    let set = RuleSet::configured(&config.rules, &config.engine, from)?;
    let loaded = set.load_read(read_all(&config.rules, from)?);
    Ok((set, loaded))
}

fn read_all<'a>(rules: &config::Rules, from: &'a Sources) -> Result<Reader<'a>, Unusable> {
    let mut reader = Reader::new(from);
    for path in &rules.files {
        let added = reader.add(path);
        added.map_err(|source| Unusable::file(path, source))?;
    }
    Ok(reader)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::rules::Diagnostic;

    #[test]
    fn a_variable_without_a_usable_value_is_refused() {
        let check = |name: &str, value: &str, expect: Option<&str>| {
            let rules = config::Rules {
                variables: [(name.to_owned(), value.to_owned())].into(),
                ..config::Rules::default()
            };
            let settings = EngineSettings::default();
            let message = RuleSet::configured(&rules, &settings, &Sources::disk())
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
        let path = |name: &str| directory.path().join(name);
        let write = |name: &str, text: &str| fs::write(path(name), text).unwrap();
        let rule = |sid: u32| {
            format!(
                "alert tcp $HERE any -> any any (classtype:mine; reference:ours,1; sid:{sid};)\n"
            )
        };
        let text = format!("include more\ninclude gone.rules\n{}", rule(1));
        write("main.rules", &text);
        fs::create_dir(path("more")).unwrap();
        for sid in [2, 3] {
            write(&format!("more/{sid}.rules"), &rule(sid));
        }
        write("classes", "config classification: mine,Mine,3\n");
        write("references", "config reference: ours http://ours/\n");
        let mut config = Config::default();
        config.rules.files = vec![path("*.rules")];
        config.rules.classification = path("classes");
        config.engine.reference_config_file = path("references");
        let here = ("HERE".to_owned(), "192.0.2.0/24".to_owned());
        config.rules.variables.extend([here]);
        let file = Sources::file().unwrap();
        let keeping = Sources::keeping(file.try_clone().unwrap()).unwrap();
        let summary = |from: &Sources| {
            let (_, loaded) = load_from(&config, from).unwrap();
            let found: Vec<_> = loaded.diagnostics.iter().map(Diagnostic::render).collect();
            (format!("{:?}", loaded.rules), found)
        };
        let before = summary(&keeping);
        keeping.finish().unwrap();
        assert_eq!(before.0.matches("http://ours/").count(), 3, "{}", before.0);
        assert!(before.1.len() == 1 && before.1[0].contains("gone.rules"));
        // There is one more, another one, and one less.
        write("gone.rules", &rule(4));
        write("main.rules", &rule(5));
        fs::remove_dir_all(path("more")).unwrap();
        assert_ne!(summary(&Sources::disk()), before);
        fs::remove_file(path("classes")).unwrap();
        load(&config).unwrap_err();
        assert_eq!(summary(&Sources::kept(file).unwrap()), before);
    }

    #[test]
    fn every_file_that_there_are_no_rules_without_is_looked_for() {
        let missing = "/nonexistent/x";
        check_sources(&Config::default()).unwrap();
        let changes: [&dyn Fn(&mut Config); 7] = [
            &|it| it.rules.files.push(missing.into()),
            &|it| it.rules.classification = missing.into(),
            &|it| it.engine.classification_file = missing.into(),
            &|it| it.engine.reference_config_file = missing.into(),
            &|it| it.engine.threshold_file = missing.into(),
            &|it| it.engine.reputation_categories_file = missing.into(),
            &|it| {
                it.engine.reputation_categories_file = "/proc/version".into();
                it.engine.default_reputation_path = "/nonexistent".into();
                it.engine.reputation_files = vec!["x".into()];
            },
        ];
        for change in changes {
            let mut config = Config::default();
            change(&mut config);
            let error = check_sources(&config).unwrap_err();
            assert_eq!(error.to_string(), missing);
        }
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
