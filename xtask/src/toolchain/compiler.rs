//! A C++ compiler, for libraries that come as sources.

use anyhow::{Result, bail};

use super::debian::{self, Distribution};
use super::search;

/// What builds C++.
pub(crate) struct CxxCompiler;

impl CxxCompiler {
    /// Sees to it that there is one, or says what is missing.
    pub(crate) fn ensure() -> Result<()> {
        let is_there = || {
            let named = std::env::var_os("CXX").is_some();
            named || search::executable("c++").is_some()
        };
        if is_there() {
            return Ok(());
        }
        eprintln!("A C++ compiler is missing here: libFuzzer comes as sources.");
        if let Err(obstacle) = debian::can_install() {
            eprintln!("It can be installed with:");
            let package = match Distribution::read() {
                Distribution::Fedora => "gcc-c++",
                Distribution::Arch => "gcc",
                Distribution::Debian | Distribution::Other => "g++",
            };
            for command in Distribution::read().commands(&[package]) {
                eprintln!("  {command}");
            }
            bail!("missing C++ compiler ({obstacle})");
        }
        debian::install(&["g++"])?;
        match is_there() {
            true => Ok(()),
            false => bail!("`c++` is still missing although g++ was installed"),
        }
    }
}
