//! 60-byte UDP from the kernel-side generator, every packet accounted for.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sluice_tests::{Lab, Namespace};

use super::generator::{Generator, PORT};
use super::pinned::{Cpus, on_cpu};

/// The rate is measured from here on: before, queues fill.
const WARM_UP: Duration = Duration::from_millis(300);

/// What packets go through on their way, as far as this is about it.
pub(crate) trait Inspected {
    /// Packets without a verdict now.
    fn waiting(&self) -> Result<u64>;

    /// What it has dropped so far, by cause.
    fn dropped(&self) -> Result<BTreeMap<String, u64>>;
}

/// Where packets ended.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Account {
    /// Frames that the generator made.
    pub(crate) generated: u64,
    /// Packets that arrived in the server's network stack.
    pub(crate) delivered: u64,
    /// Packets that each counter says were dropped there.
    pub(crate) dropped: BTreeMap<String, u64>,
    /// Generated, but neither delivered nor in a counter; negative when counted twice.
    pub(crate) unaccounted: i64,
}

/// What one measurement gave.
#[derive(Clone, Debug)]
pub(crate) struct Measurement {
    pub(crate) delivered_pps: f64,
    pub(crate) generated_pps: f64,
    pub(crate) account: Account,
}

/// Puts the rule in place that counts and swallows what arrives at the server.
pub(crate) fn prepare(lab: &Lab) -> Result<()> {
    let port = PORT.to_string();
    let rule = [
        "-t",
        "raw",
        "-A",
        "PREROUTING",
        "-p",
        "udp",
        "--dport",
        &port,
        "-j",
        "DROP",
    ];
    lab.server().run("iptables", &rule)?;
    Ok(())
}

/// Generates for `duration`, at no more than `pace` packets a second if that is given, and waits
/// until the last packet has been dealt with.
pub(crate) fn measure(
    lab: &Lab,
    generator: &mut Generator,
    inspected: &dyn Inspected,
    cpus: Cpus,
    (duration, pace): (Duration, Option<f64>),
) -> Result<Measurement> {
    let before = Counters::read(lab, inspected)?;
    let server = lab.server();
    let (generated, elapsed, window) = std::thread::scope(|scope| {
        let watch = scope.spawn(move || -> Result<(u64, Duration)> {
            std::thread::sleep(WARM_UP);
            let (first, started) = (received(server)?, Instant::now());
            std::thread::sleep(duration.saturating_sub(WARM_UP * 2));
            Ok((received(server)? - first, started.elapsed()))
        });
        let started = Instant::now();
        let generated = on_cpu(cpus.client, || generator.run(duration, pace))??;
        let elapsed = started.elapsed();
        let window = watch.join().expect("the watch does not panic")?;
        anyhow::Ok((generated, elapsed, window))
    })?;
    settle(lab, inspected)?;
    let after = Counters::read(lab, inspected)?;
    let rate = |packets: u64, time: Duration| {
        #[expect(clippy::cast_precision_loss, reason = "a rate is for people")]
        let packets = packets as f64;
        packets / time.as_secs_f64()
    };
    Ok(Measurement {
        delivered_pps: rate(window.0, window.1),
        generated_pps: rate(generated, elapsed),
        account: after.account_since(&before, generated)?,
    })
}

/// Waits until the queue is empty and nothing arrives any more.
fn settle(lab: &Lab, inspected: &dyn Inspected) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut last = received(lab.server())?;
    loop {
        std::thread::sleep(Duration::from_millis(100));
        let now = received(lab.server())?;
        let waiting = inspected.waiting()?;
        if now == last && waiting == 0 {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "{waiting} packets are still in the queue"
        );
        last = now;
    }
}

/// Packets that the server's interface has received.
fn received(server: &Namespace) -> Result<u64> {
    let devices = server.proc_net("dev")?;
    let prefix = format!("{}:", Lab::SERVER_INTERFACE);
    devices
        .lines()
        .find_map(|line| line.trim_start().strip_prefix(&prefix))
        .and_then(|counters| counters.split_whitespace().nth(1)?.parse().ok())
        .context("the server's interface in /proc/net/dev")
}

/// Every counter that a packet of the generator can end in.
struct Counters {
    delivered: u64,
    dropped: BTreeMap<String, u64>,
}

impl Counters {
    fn read(lab: &Lab, inspected: &dyn Inspected) -> Result<Self> {
        let mut dropped = inspected.dropped()?;
        for (namespace, interface) in lab.interfaces() {
            for (name, value) in interface_drops(namespace, interface)? {
                dropped.insert(format!("{interface} {name}"), value);
            }
        }
        for (name, namespace) in [("gateway", lab.gateway()), ("server", lab.server())] {
            for counter in [
                "InHdrErrors",
                "InAddrErrors",
                "InDiscards",
                "OutDiscards",
                "OutNoRoutes",
            ] {
                let value = ip_counter(namespace, counter)?;
                dropped.insert(format!("{name} Ip{counter}"), value);
            }
        }
        dropped.insert("softnet backlog".to_owned(), softnet_drops(lab.gateway())?);
        Ok(Self {
            delivered: rule_counter(lab.server())?,
            dropped,
        })
    }

    fn account_since(&self, before: &Self, generated: u64) -> Result<Account> {
        let delivered = self.delivered - before.delivered;
        let dropped: BTreeMap<String, u64> = self
            .dropped
            .iter()
            .map(|(name, value)| {
                let earlier = before.dropped.get(name).copied().unwrap_or_default();
                (name.clone(), value - earlier)
            })
            .filter(|(_, value)| *value > 0)
            .collect();
        let accounted = delivered + dropped.values().sum::<u64>();
        Ok(Account {
            generated,
            delivered,
            unaccounted: i64::try_from(generated)? - i64::try_from(accounted)?,
            dropped,
        })
    }
}

/// Packets that the counting rule has swallowed.
fn rule_counter(server: &Namespace) -> Result<u64> {
    let shown = server.run(
        "iptables",
        &["-t", "raw", "-L", "PREROUTING", "-v", "-x", "-n"],
    )?;
    shown
        .lines()
        .find(|line| line.contains("DROP"))
        .and_then(|line| line.split_whitespace().next()?.parse().ok())
        .context("the counting rule")
}

fn interface_drops(namespace: &Namespace, interface: &str) -> Result<Vec<(String, u64)>> {
    let mut drops = Vec::new();
    for counter in ["rx_dropped", "tx_dropped", "rx_errors", "tx_errors"] {
        drops.push((
            counter.to_owned(),
            namespace.interface_counter(interface, counter)?,
        ));
    }
    // Frames that XDP could not put into the peer's ring are no errors of the interface.
    for line in namespace.run("ethtool", &["-S", interface])?.lines() {
        if let Some((name, value)) = line.trim().split_once(':')
            && (name.ends_with("xdp_drops") || name.contains("xdp_xmit_err"))
            && let Ok(value) = value.trim().parse()
        {
            drops.push((name.to_owned(), value));
        }
    }
    Ok(drops)
}

/// A counter of `/proc/net/snmp`'s Ip lines.
fn ip_counter(namespace: &Namespace, counter: &str) -> Result<u64> {
    let snmp = namespace.proc_net("snmp")?;
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Ip:"));
    let (names, values) = lines.next().zip(lines.next()).context("Ip in snmp")?;
    names
        .split_whitespace()
        .zip(values.split_whitespace())
        .find(|(name, _)| *name == counter)
        .and_then(|(_, value)| value.parse().ok())
        .with_context(|| format!("Ip{counter} in snmp"))
}

/// Packets that found the backlog of a CPU full (of the whole machine).
fn softnet_drops(namespace: &Namespace) -> Result<u64> {
    namespace
        .proc_net("softnet_stat")?
        .lines()
        .map(|line| {
            let field = line.split_whitespace().nth(1).context("a second field")?;
            Ok(u64::from_str_radix(field, 16)?)
        })
        .sum()
}
