//! Kernel parameters, only those that matter. `/proc/sys/net` shows the calling thread's
//! network namespace.

use super::mend::{Mend, sysctl_path};
use super::{Check, Context, Status};
use crate::netfilter::{find_program, run};

fn read(name: &str) -> Option<String> {
    std::fs::read_to_string(sysctl_path(name))
        .ok()
        .map(|value| value.trim().to_owned())
}

fn number(name: &str) -> Option<u64> {
    read(name)?.parse().ok()
}

fn set(name: &str, value: u64) -> Mend {
    Mend::Sysctl {
        name: name.to_owned(),
        value: value.to_string(),
    }
}

pub(super) fn examine(context: &Context) -> Vec<Check> {
    let mut checks = vec![
        forwarding_ipv4(context),
        forwarding_ipv6(context),
        receive_buffer(),
        backlog(),
        jit(),
        unprivileged_bpf(),
        conntrack_table(),
    ];
    checks.extend(
        context
            .interfaces
            .iter()
            .filter_map(|name| reverse_path(name)),
    );
    checks
}

/// Two interfaces mean that packets go through; one may be a bridge or a host that inspects
/// its own traffic, and making that a router would be no mend.
fn forwards(context: &Context) -> bool {
    context.interfaces.len() >= 2
}

fn forwarding_ipv4(context: &Context) -> Check {
    let name = "net.ipv4.ip_forward";
    let check = Check::new(
        format!("sysctl: {name}"),
        "between two interfaces, packets are inspected on their way through the forward hook",
    );
    match number(name) {
        Some(0) if forwards(context) => check
            .is(Status::Warn, "0: this host does not route IPv4")
            .fix(set(name, 1)),
        Some(0) => check.is(
            Status::Info,
            "0: only local or bridged traffic is inspected",
        ),
        Some(value) => check.is(Status::Ok, value.to_string()),
        None => check.is(Status::Info, "not readable"),
    }
}

fn forwarding_ipv6(context: &Context) -> Check {
    let name = "net.ipv6.conf.all.forwarding";
    let check = Check::new(
        format!("sysctl: {name}"),
        "between two interfaces, packets are inspected on their way through the forward hook",
    );
    match number(name) {
        Some(0) if forwards(context) => {
            let check = check.is(Status::Warn, "0: this host does not route IPv6");
            // A router ignores router advertisements (Documentation/networking/ip-sysctl).
            if learns_default_route() {
                check.advise(format!(
                    "sysctl -w {name}=1, after accept_ra=2 on the interface whose default route comes from a router advertisement"
                ))
            } else {
                check.fix(set(name, 1))
            }
        }
        Some(0) => check.is(
            Status::Info,
            "0: only local or bridged traffic is inspected",
        ),
        Some(value) => check.is(Status::Ok, value.to_string()),
        None => check.is(Status::Info, "no IPv6"),
    }
}

fn learns_default_route() -> bool {
    find_program("ip").is_none_or(|ip| {
        run(&ip, &["-6", "route", "show", "default", "proto", "ra"], "")
            .map_or(true, |routes| !routes.trim().is_empty())
    })
}

fn receive_buffer() -> Check {
    let name = "net.core.rmem_default";
    let check = Check::new(
        format!("sysctl: {name}"),
        "the batched transport forces its own receive buffer; transport = \"nfq\" is left with this one, which GSO traffic overflows",
    );
    match number(name) {
        Some(bytes) if bytes >= 4 << 20 => check.is(Status::Ok, format!("{bytes} bytes")),
        Some(bytes) => check
            .is(Status::Info, format!("{bytes} bytes"))
            .advise(format!(
                "sysctl -w {name}=8388608, only with transport = \"nfq\""
            )),
        None => check.is(Status::Info, "not visible in this network namespace"),
    }
}

/// Drops and time squeezes of all CPUs, from `/proc/net/softnet_stat` (hexadecimal columns).
fn softnet(text: &str) -> (u64, u64) {
    text.lines().fold((0, 0), |(drops, squeezes), line| {
        let column = |index: usize| {
            line.split_whitespace()
                .nth(index)
                .and_then(|word| u64::from_str_radix(word, 16).ok())
                .unwrap_or(0)
        };
        (drops + column(1), squeezes + column(2))
    })
}

fn backlog() -> Check {
    let name = "net.core.netdev_max_backlog";
    let check = Check::new(
        format!("sysctl: {name}"),
        "with RPS, CPUMAP or veth, packets wait in a per-CPU backlog; what does not fit is lost before Sluice sees it",
    );
    let stat = std::fs::read_to_string("/proc/thread-self/net/softnet_stat").unwrap_or_default();
    let (drops, squeezes) = softnet(&stat);
    let Some(length) = number(name) else {
        return check.is(Status::Info, "not visible in this network namespace");
    };
    let found =
        format!("{length} packets, {drops} lost since boot, {squeezes} times out of budget");
    if drops > 0 && length < 10_000 {
        check.is(Status::Warn, found).fix(set(name, 10_000))
    } else {
        check.is(Status::Ok, found)
    }
}

fn jit() -> Check {
    let name = "net.core.bpf_jit_enable";
    let check = Check::new(
        format!("sysctl: {name}"),
        "interpreted, the programs cost several times as much for each packet",
    );
    match number(name) {
        Some(0) => check.is(Status::Warn, "0: interpreted").fix(set(name, 1)),
        Some(value) => check.is(Status::Ok, value.to_string()),
        None => check.is(
            Status::Info,
            "not visible in this network namespace, or always on",
        ),
    }
}

fn unprivileged_bpf() -> Check {
    let name = "kernel.unprivileged_bpf_disabled";
    let check = Check::new(
        format!("sysctl: {name}"),
        "unprivileged programs have been a way into the kernel; Sluice does not need them",
    );
    match number(name) {
        Some(0) => check
            .is(Status::Info, "0: any user may load programs")
            .advise(format!("sysctl -w {name}=2")),
        Some(value) => check.is(Status::Ok, value.to_string()),
        None => check.is(Status::Info, "not readable"),
    }
}

fn conntrack_table() -> Check {
    let name = "net.netfilter.nf_conntrack_max";
    let check = Check::new(
        format!("sysctl: {name}"),
        "when the table of connections is full, the kernel drops the first packet of every new one",
    );
    let count = number("net.netfilter.nf_conntrack_count");
    match (count, number(name)) {
        (Some(count), Some(max)) if count.saturating_mul(10) >= max.saturating_mul(8) => check
            .is(Status::Warn, format!("{count} of {max} in use"))
            .advise(format!("sysctl -w {name}={}", max.saturating_mul(2))),
        (Some(count), Some(max)) => check.is(Status::Ok, format!("{count} of {max} in use")),
        _ => check.is(Status::Info, "conntrack is not active"),
    }
}

/// The kernel uses the larger of the interface's value and that of `all`.
fn reverse_path(interface: &str) -> Option<Check> {
    let own = format!("net.ipv4.conf.{}.rp_filter", interface.replace('.', "/"));
    let value = number(&own)?.max(number("net.ipv4.conf.all.rp_filter").unwrap_or(0));
    let check = Check::new(
        format!("sysctl: rp_filter of {interface}"),
        "strict reverse path filtering drops packets whose answer would take another way, before they are inspected",
    );
    Some(if value == 1 {
        check
            .is(Status::Info, "1: strict")
            .advise(format!("sysctl -w {own}=2, when paths are asymmetric"))
    } else {
        check.is(Status::Ok, value.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softnet_columns_are_hexadecimal_and_summed_over_cpus() {
        assert_eq!(
            softnet("0000ffff 0000000a 00000001 0\n00000001 00000001 00000002\nbad\n"),
            (11, 3)
        );
        assert_eq!(softnet(""), (0, 0));
    }
}
