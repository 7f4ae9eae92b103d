//! iperf3 through the lab.

use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::{Namespace, Process};

/// What one measurement gave.
#[derive(Clone, Debug, Serialize)]
pub struct IperfReport {
    /// Bits a second that the receiver got.
    pub bits_per_second: f64,
    /// TCP retransmissions.
    pub retransmissions: u64,
}

/// A running measurement.
#[derive(Debug)]
pub struct Iperf {
    client: Process,
    _server: Process,
    patience: Duration,
}

/// Starts iperf3: `streams` TCP streams from `client` to `server` for `seconds`, each end on
/// the CPU given, if any.
///
/// # Errors
/// When iperf3 is not installed or the server does not start to listen.
pub fn start(
    client: (&Namespace, Option<usize>),
    server: (&Namespace, Option<usize>),
    address: IpAddr,
    streams: usize,
    seconds: u32,
) -> Result<Iperf> {
    const PORT: &str = "5201";
    let address = address.to_string();
    let mut command = on_cpu(server);
    command.args([
        "--server",
        "--one-off",
        "--forceflush",
        "--bind",
        &address,
        "--port",
        PORT,
    ]);
    let mut server = Process::spawn(&mut command)?;
    server.wait_for_line("Server listening", Duration::from_secs(5))?;
    let mut command = on_cpu(client);
    command.args(["--json", "--client", &address, "--port", PORT]);
    command.args([
        "--parallel",
        &streams.to_string(),
        "--time",
        &seconds.to_string(),
    ]);
    Ok(Iperf {
        client: Process::spawn(&mut command)?,
        _server: server,
        patience: Duration::from_secs(u64::from(seconds) + 20),
    })
}

impl Iperf {
    /// Waits for the end.
    ///
    /// # Errors
    /// When iperf3 fails or its output is not understood.
    pub fn finish(mut self) -> Result<IperfReport> {
        self.client.wait(self.patience)?;
        let log = self.client.log();
        let report: serde_json::Value =
            serde_json::from_str(&log).with_context(|| format!("iperf3 printed {log:?}"))?;
        let number = |pointer: &str| {
            report
                .pointer(pointer)
                .with_context(|| match report.pointer("/error") {
                    Some(error) => format!("iperf3: {error}"),
                    None => format!("iperf3 reports no {pointer}"),
                })
        };
        Ok(IperfReport {
            bits_per_second: number("/end/sum_received/bits_per_second")?
                .as_f64()
                .context("a number")?,
            retransmissions: number("/end/sum_sent/retransmits")?
                .as_u64()
                .unwrap_or_default(),
        })
    }
}

fn on_cpu((namespace, cpu): (&Namespace, Option<usize>)) -> Command {
    let mut command;
    if let Some(cpu) = cpu {
        command = namespace.command("taskset");
        command.args(["--cpu-list", &cpu.to_string(), "iperf3"]);
    } else {
        command = namespace.command("iperf3");
    }
    command
}
