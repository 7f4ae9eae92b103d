//! The system programs that commands start: found on PATH, installed on Debian, else named.

use std::path::PathBuf;

use anyhow::{Result, bail};

use super::debian::{self, Distribution};
use super::search;

/// A program of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// Its name on PATH.
    pub(crate) executable: &'static str,
    /// What it is needed for.
    why: &'static str,
    /// The package it comes in, on Debian and Ubuntu.
    debian: &'static str,
    /// The same on Fedora and its relatives.
    fedora: &'static str,
    /// The same on Arch.
    arch: &'static str,
}

const IP: Program = Program {
    executable: "ip",
    why: "makes network namespaces and interfaces",
    debian: "iproute2",
    fedora: "iproute",
    arch: "iproute2",
};
const NFT: Program = Program {
    executable: "nft",
    why: "puts packets into the workers' queues",
    debian: "nftables",
    fedora: "nftables",
    arch: "nftables",
};
const IPTABLES: Program = Program {
    executable: "iptables",
    why: "the same where the kernel's nftables has no queue expression",
    debian: "iptables",
    fedora: "iptables-nft",
    arch: "iptables",
};
const MODPROBE: Program = Program {
    executable: "modprobe",
    why: "lets the kernel load its netfilter modules",
    debian: "kmod",
    fedora: "kmod",
    arch: "kmod",
};
const ETHTOOL: Program = Program {
    executable: "ethtool",
    why: "switches offloads of the interfaces under test",
    debian: "ethtool",
    fedora: "ethtool",
    arch: "ethtool",
};
const PING: Program = Program {
    executable: "ping",
    why: "sends ICMP in the tests",
    debian: "iputils-ping",
    fedora: "iputils",
    arch: "iputils",
};
const IPERF3: Program = Program {
    executable: "iperf3",
    why: "loads connections in tests and benchmarks",
    debian: "iperf3",
    fedora: "iperf3",
    arch: "iperf3",
};

/// What `sluice` itself and the demonstration start.
pub(crate) const RUN: &[Program] = &[IP, NFT, IPTABLES, MODPROBE, ETHTOOL];
/// What the tests and benchmarks start.
pub(crate) const ALL: &[Program] = &[IP, NFT, IPTABLES, MODPROBE, ETHTOOL, PING, IPERF3];

/// Finds the programs; what is missing is installed, or named together with the commands.
pub(crate) fn ensure(programs: &[Program]) -> Result<Vec<(Program, PathBuf)>> {
    let missing: Vec<Program> = programs.iter().copied().filter(is_missing).collect();
    if !missing.is_empty() {
        eprintln!("System programs that are missing here:");
        for program in &missing {
            eprintln!("  {:<9} {}", program.executable, program.why);
        }
        let distribution = Distribution::read();
        let packages: Vec<&str> = missing
            .iter()
            .map(|program| match distribution {
                Distribution::Fedora => program.fedora,
                Distribution::Arch => program.arch,
                Distribution::Debian | Distribution::Other => program.debian,
            })
            .collect();
        if let Err(obstacle) = debian::can_install() {
            eprintln!("They can be installed with:");
            for command in distribution.commands(&packages) {
                eprintln!("  {command}");
            }
            bail!("missing system programs ({obstacle})");
        }
        debian::install(&packages)?;
        if let Some(program) = missing.iter().find(|program| is_missing(program)) {
            bail!(
                "`{}` is still missing although {} was installed",
                program.executable,
                program.debian
            );
        }
    }
    Ok(programs
        .iter()
        .filter_map(|program| Some((*program, search::executable(program.executable)?)))
        .collect())
}

/// A kernel without loadable modules has no use for modprobe.
fn is_missing(program: &Program) -> bool {
    if *program == MODPROBE && !PathBuf::from("/proc/modules").exists() {
        return false;
    }
    search::executable(program.executable).is_none()
}
