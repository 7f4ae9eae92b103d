//! How the running kernel was built, where it says so: the reason behind a failed trial.

use std::collections::HashMap;
use std::process::{Command, Stdio};

/// How an option is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Built {
    /// Part of the kernel.
    In,
    /// A module.
    AsModule,
    /// Not at all.
    Not,
    /// The configuration is nowhere to be found.
    Unknown,
}

/// The running kernel's build configuration.
pub(super) struct KernelConfig {
    options: Option<HashMap<String, bool>>,
}

impl KernelConfig {
    /// From `/proc/config.gz`, `/boot/config-RELEASE` or the module directory.
    pub(super) fn of_running(release: &str) -> Self {
        let text = std::fs::read_to_string(format!("/boot/config-{release}"))
            .or_else(|_| std::fs::read_to_string(format!("/lib/modules/{release}/config")))
            .ok()
            .or_else(unpacked);
        Self {
            options: text.as_deref().map(parse),
        }
    }

    /// How an option, named with its `CONFIG_`, is set.
    pub(super) fn built(&self, option: &str) -> Built {
        match &self.options {
            None => Built::Unknown,
            Some(options) => match options.get(option) {
                Some(true) => Built::AsModule,
                Some(false) => Built::In,
                None => Built::Not,
            },
        }
    }
}

/// `/proc/config.gz` unpacked by gzip, which every distribution has.
fn unpacked() -> Option<String> {
    let output = Command::new("gzip")
        .args(["-dc", "/proc/config.gz"])
        .stderr(Stdio::null())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Options that are set, and whether as a module.
fn parse(text: &str) -> HashMap<String, bool> {
    text.lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(name, value)| name.starts_with("CONFIG_") && matches!(*value, "y" | "m"))
        .map(|(name, value)| (name.to_owned(), value == "m"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_in_as_module_or_absent() {
        let config = KernelConfig {
            options: Some(parse(
                "# comment\nCONFIG_A=y\nCONFIG_B=m\n# CONFIG_C is not set\nCONFIG_D=\"y\"\n",
            )),
        };
        assert_eq!(config.built("CONFIG_A"), Built::In);
        assert_eq!(config.built("CONFIG_B"), Built::AsModule);
        assert_eq!(config.built("CONFIG_C"), Built::Not);
        assert_eq!(config.built("CONFIG_D"), Built::Not);
        let unknown = KernelConfig { options: None };
        assert_eq!(unknown.built("CONFIG_A"), Built::Unknown);
    }
}
