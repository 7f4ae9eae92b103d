//! `cargo xtask bench transport`: what an inspector costs that accepts everything.
//!
//! Plain forwarding, the batched transport and the `nfq` crate's take turns in every run, so
//! that whatever else happens on the machine meets all three. The ratios carry over to other
//! machines, the absolute figures do not.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sluice_tests::{Lab, LabOptions, http, iperf};

use super::generator::Generator;
use super::path::{Gateway, Mode};
use super::pinned::{Cpus, on_cpu};
use super::report::{self, Target, Workload};
use super::udp::{self, Account};
use crate::toolchain::{bpf, system};
use crate::workspace::Workspace;
use crate::{build, progress};

/// Options of `cargo xtask bench transport`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct TransportArgs {
    /// Measurements of each workload in each mode; medians are shown
    #[arg(long, default_value_t = 5)]
    pub(crate) runs: u32,
    /// Length of one measurement
    #[arg(long, default_value_t = 3)]
    pub(crate) seconds: u32,
    /// Write all results to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// One run of one second: whether it works, not how fast it is
    #[arg(long)]
    pub(crate) quick: bool,
    /// Only workloads whose name contains this
    #[arg(long, value_name = "TEXT")]
    pub(crate) only: Option<String>,
    /// CPU of the client (and of the packet generator)
    #[arg(long)]
    pub(crate) client_cpu: Option<usize>,
    /// CPU of the server
    #[arg(long)]
    pub(crate) server_cpu: Option<usize>,
    /// CPU of the inspector
    #[arg(long)]
    pub(crate) inspector_cpu: Option<usize>,
    /// Further arguments of `sluice accept-all`
    #[arg(last = true)]
    pub(crate) further: Vec<String>,
}

/// Connections of the HTTP workload.
const CONNECTIONS: usize = 32;
/// Bytes of its page.
const PAGE: usize = 1024;

#[derive(Clone, Copy)]
enum Load {
    Tcp { streams: usize },
    Http,
    Udp,
}

struct Bench<'a> {
    lab: Lab,
    generator: Generator,
    sluice: PathBuf,
    cpus: Cpus,
    arguments: &'a TransportArgs,
    seconds: u32,
    accounts: Vec<(Mode, Account)>,
    /// Microseconds of CPU that the inspector spent on a packet, kernel included: less
    /// disturbed by what else the machine does than the rates are.
    costs_us: BTreeMap<Mode, Vec<f64>>,
}

/// Runs the command.
pub(crate) fn transport(workspace: &Workspace, arguments: &TransportArgs) -> Result<ExitCode> {
    if let Some(missing) = sluice_tests::requirement::missing_for_queues() {
        bail!("the benchmark cannot run: {missing}");
    }
    system::ensure(system::ALL)?;
    build::object(workspace, bpf::ensure(workspace)?)?;
    build::program(workspace, true)?;
    for namespace in sluice_tests::sweep() {
        eprintln!("removed the leftover {namespace}");
    }

    let mut cpus = Cpus::choose()?;
    for (cpu, chosen) in [
        (&mut cpus.client, arguments.client_cpu),
        (&mut cpus.server, arguments.server_cpu),
        (&mut cpus.inspector, arguments.inspector_cpu),
    ] {
        *cpu = chosen.unwrap_or(*cpu);
    }
    let lab = Lab::new(&LabOptions::default())?;
    udp::prepare(&lab)?;
    let object = workspace.bpf_object().with_file_name("generator");
    let bench = Bench {
        generator: Generator::load(&object, &lab)?,
        sluice: workspace.sluice(true),
        cpus,
        arguments,
        seconds: if arguments.quick {
            1
        } else {
            arguments.seconds
        },
        accounts: Vec::new(),
        costs_us: BTreeMap::new(),
        lab,
    };
    bench.run()
}

impl Bench<'_> {
    fn run(mut self) -> Result<ExitCode> {
        let runs = if self.arguments.quick {
            1
        } else {
            self.arguments.runs.max(1)
        };
        let mut workloads = [
            (
                Load::Tcp { streams: 1 },
                Workload::new("TCP, 1 stream", "Gbit/s"),
            ),
            (
                Load::Tcp { streams: 8 },
                Workload::new("TCP, 8 streams", "Gbit/s"),
            ),
            (Load::Http, Workload::new("HTTP, 32 connections", "kreq/s")),
            (Load::Udp, Workload::new("UDP, 60 bytes", "kpps")),
        ]
        .into_iter()
        .filter(|(_, workload)| {
            self.arguments
                .only
                .as_ref()
                .is_none_or(|text| workload.name.contains(text.as_str()))
        })
        .collect::<Vec<_>>();
        eprintln!(
            "client on CPU {}, server on {}, inspector on {}; {} measurements of {} s",
            self.cpus.client,
            self.cpus.server,
            self.cpus.inspector,
            workloads.len() * Mode::ALL.len() * runs as usize,
            self.seconds
        );
        for run in 0..runs {
            for (load, workload) in &mut workloads {
                // Another one begins each time: none is always the one after the pause.
                for turn in 0..Mode::ALL.len() {
                    let mode = Mode::ALL[(turn + run as usize) % Mode::ALL.len()];
                    let mut line = progress::Progress::new(format!("run {} of {runs}", run + 1));
                    line.tick(&format!("{}, {}", workload.name, mode.name()));
                    let result = self
                        .measure(*load, mode)
                        .with_context(|| format!("{}, {}", workload.name, mode.name()))?;
                    line.clear();
                    eprintln!(
                        "run {} of {runs}: {}, {}: {result:.2} {}",
                        run + 1,
                        workload.name,
                        mode.name(),
                        workload.unit
                    );
                    workload.add(mode, result);
                }
            }
        }
        let workloads: Vec<Workload> = workloads.into_iter().map(|(_, w)| w).collect();
        self.conclude(&workloads)
    }

    fn measure(&mut self, load: Load, mode: Mode) -> Result<f64> {
        let gateway = Gateway::set_up(
            &self.lab,
            mode,
            &self.sluice,
            self.cpus.inspector,
            &self.arguments.further,
        )?;
        let duration = Duration::from_secs(self.seconds.into());
        let result = match load {
            Load::Tcp { streams } => {
                let running = iperf::start(
                    (self.lab.client(), Some(self.cpus.client)),
                    (self.lab.server(), Some(self.cpus.server)),
                    self.lab.server_v4().into(),
                    streams,
                    self.seconds,
                )?;
                running.finish()?.bits_per_second / 1e9
            }
            Load::Http => {
                let (lab, cpus) = (&self.lab, self.cpus);
                let server = on_cpu(cpus.server, || {
                    http::Server::start(lab.server(), lab.server_v4().into(), 0, &[b'x'; PAGE])
                })??;
                let report = on_cpu(cpus.client, || {
                    http::load(lab.client(), server.address(), "/", CONNECTIONS, duration)
                })?;
                if report.errors > 0 {
                    eprintln!("{} connections broke", report.errors);
                }
                report.rate() / 1e3
            }
            Load::Udp => {
                let measured = udp::measure(
                    &self.lab,
                    &mut self.generator,
                    &gateway,
                    self.cpus,
                    (duration, None),
                )?;
                eprintln!(
                    "  generated {:.0} kpps; {}",
                    measured.generated_pps / 1e3,
                    show(&measured.account)
                );
                self.accounts.push((mode, measured.account));
                measured.delivered_pps / 1e3
            }
        };
        if let Some(counters) = gateway.finish()? {
            let counter = |name| counters.get(name).and_then(serde_json::Value::as_u64);
            if counter("refused") != Some(0) || counter("undecodable") != Some(0) {
                eprintln!("  the inspector's counters: {counters}");
            }
            if let (Load::Udp, Some(cpu_us), Some(packets)) =
                (load, counter("cpu_us"), counter("received"))
            {
                #[expect(clippy::cast_precision_loss, reason = "a mean is for people")]
                let cost_us = cpu_us as f64 / packets.max(1) as f64;
                eprintln!("  inspector: {cost_us:.2} µs of CPU a packet");
                self.costs_us.entry(mode).or_default().push(cost_us);
            }
        }
        Ok(result)
    }

    fn conclude(&self, workloads: &[Workload]) -> Result<ExitCode> {
        let mut targets = Vec::new();
        let ratio = |name: &str, to| {
            workloads
                .iter()
                .find(|workload| workload.name == name)
                .map(|workload| workload.ratio(Mode::Batched, to))
        };
        let tcp: Vec<f64> = ["TCP, 1 stream", "TCP, 8 streams"]
            .iter()
            .filter_map(|name| ratio(name, Mode::Plain))
            .collect();
        if !tcp.is_empty() {
            targets.push(Target::at_least(
                "batched TCP to plain forwarding, over the stream counts",
                0.75,
                report::median(&tcp),
            ));
        }
        if let Some(udp) = ratio("UDP, 60 bytes", Mode::Nfq) {
            targets.push(Target::at_least("batched UDP to nfq", 1.5, udp));
        }
        println!();
        report::print(workloads, &targets);
        let unaccounted: i64 = self
            .accounts
            .iter()
            .map(|(_, account)| account.unaccounted.abs())
            .sum();
        if !self.accounts.is_empty() {
            println!("unaccounted: {unaccounted}");
        }
        for (mode, costs_us) in &self.costs_us {
            let (name, cost_us) = (mode.name(), report::median(costs_us));
            println!("{name} inspector: {cost_us:.2} µs of CPU per UDP packet");
        }
        if let Some(file) = &self.arguments.json {
            let document = serde_json::json!({
                "cpus": self.cpus,
                "seconds": self.seconds,
                "workloads": workloads.iter().map(|workload| serde_json::json!({
                    "name": workload.name,
                    "unit": workload.unit,
                    "results": workload.results,
                    "median": Mode::ALL.map(|mode| (mode.name(), workload.median(mode)))
                        .into_iter().collect::<BTreeMap<_, _>>(),
                    "batched_to_plain": workload.ratio(Mode::Batched, Mode::Plain),
                    "batched_to_nfq": workload.ratio(Mode::Batched, Mode::Nfq),
                })).collect::<Vec<_>>(),
                "targets": targets,
                "udp_accounts": self.accounts,
                "udp_inspector_cpu_us_per_packet": self.costs_us,
                "unaccounted": unaccounted,
            });
            let text = serde_json::to_string_pretty(&document)?;
            std::fs::write(file, text + "\n")
                .with_context(|| format!("write {}", file.display()))?;
        }
        let kept =
            unaccounted == 0 && (self.arguments.quick || targets.iter().all(|target| target.met));
        Ok(if kept {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

fn show(account: &Account) -> String {
    let mut text = format!(
        "{} generated = {} delivered",
        account.generated, account.delivered
    );
    for (name, packets) in &account.dropped {
        text.push_str(&format!(" + {packets} {name}"));
    }
    text.push_str(&format!("; unaccounted {}", account.unaccounted));
    text
}
