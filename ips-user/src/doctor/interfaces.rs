//! The configured interfaces: drivers, offloads, queues, other people's programs.

use nix::net::if_::if_nametoindex;
use serde_json::Value;

use super::mend::Mend;
use super::{Check, Context, Status};
use crate::netfilter::{find_program, run};
use crate::sys::bpf_probe;
use crate::sys::ethtool::Ethtool;

/// Drivers with native XDP in the mainline kernel. Not every device of a driver can, and some
/// learned it late: attaching is what decides.
const NATIVE_XDP: [&str; 40] = [
    "atlantic",
    "bnxt_en",
    "bonding",
    "cpsw",
    "ena",
    "fec",
    "fsl_dpa",
    "fsl_dpaa2_eth",
    "fsl_enetc",
    "fsl_enetc_vf",
    "funeth",
    "gve",
    "hv_netvsc",
    "i40e",
    "ice",
    "igb",
    "igc",
    "ionic",
    "ixgbe",
    "ixgbevf",
    "lan966x",
    "mana",
    "mlx4_en",
    "mlx5_core",
    "mtk_soc_eth",
    "mvneta",
    "mvpp2",
    "netsec",
    "nfp",
    "nicvf",
    "qede",
    "rvu_nicpf",
    "rvu_nicvf",
    "sfc",
    "st_gmac",
    "tsnep",
    "tun",
    "veth",
    "virtio_net",
    "xen_netfront",
];

pub(super) fn examine(context: &Context) -> Vec<Check> {
    if context.interfaces.is_empty() {
        return vec![
            Check::new(
                "interfaces",
                "offloads, queues and attached programs are examined for each",
            )
            .is(Status::Info, "none is configured"),
        ];
    }
    context
        .interfaces
        .iter()
        .flat_map(|name| examine_one(name, context))
        .collect()
}

fn examine_one(name: &str, context: &Context) -> Vec<Check> {
    let exists = Check::new(
        format!("{name}: link"),
        "steering is attached to its ingress",
    );
    let (Ok(index), Ok(device)) = (if_nametoindex(name), Ethtool::new(name)) else {
        return vec![
            exists
                .is(
                    Status::Fail,
                    "there is no such interface in this network namespace",
                )
                .advise("see `ip link`; correct the configuration"),
        ];
    };
    let details = link_details(name);
    vec![
        examine_link(exists, details.as_ref()),
        examine_driver(name, &device),
        examine_gro(name, &device),
        examine_lro(name, &device),
        examine_vlan(name, &device),
        examine_queues(name, &device, context),
        examine_ring(name, &device),
        examine_xdp(name, details.as_ref()),
        examine_tc(name, index),
    ]
}

/// `ip -j -d link show`: unlike sysfs it follows the thread into its namespace.
fn link_details(name: &str) -> Option<Value> {
    let ip = find_program("ip")?;
    let text = run(&ip, &["-j", "-d", "link", "show", "dev", name], "").ok()?;
    let list: Value = serde_json::from_str(&text).ok()?;
    list.get(0).cloned()
}

fn examine_link(check: Check, details: Option<&Value>) -> Check {
    let Some(details) = details else {
        return check.is(Status::Info, "exists; nothing more is known without `ip`");
    };
    let flags: Vec<_> = details["flags"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let mtu = &details["mtu"];
    let master = details["master"].as_str();
    if !flags.contains(&"UP") {
        return check
            .is(Status::Warn, "is down")
            .advise("ip link set INTERFACE up");
    }
    let carrier = if flags.contains(&"LOWER_UP") {
        "up"
    } else {
        "up, but without a carrier"
    };
    match master {
        Some(master) => check
            .is(Status::Info, format!("{carrier}, MTU {mtu}, member of {master}"))
            .advise(format!(
                "packets of a bridge's members pass the IP forward hook only with br_netfilter; for a bond, configure {master}"
            )),
        None => check.is(Status::Ok, format!("{carrier}, MTU {mtu}")),
    }
}

fn examine_driver(name: &str, device: &Ethtool) -> Check {
    let check = Check::new(
        format!("{name}: driver"),
        "with native XDP, convicted flows are dropped before the kernel spends anything on them",
    );
    match device.driver() {
        Ok(driver) if driver == "veth" => check.is(
            Status::Info,
            "veth: native XDP, but it takes GSO from the other end of the pair",
        ),
        Ok(driver) if NATIVE_XDP.contains(&driver.as_str()) => {
            check.is(Status::Ok, format!("{driver}: known for native XDP"))
        }
        Ok(driver) => check.is(
            Status::Info,
            format!("{driver}: not known for native XDP; generic XDP works everywhere"),
        ),
        Err(error) => check.is(Status::Info, format!("does not say: {error}")),
    }
}

fn examine_gro(name: &str, device: &Ethtool) -> Check {
    let check = Check::new(
        format!("{name}: generic receive offload"),
        "up to 64 KiB are steered, queued and inspected as one packet: several times the throughput",
    );
    match device.offloads() {
        Ok(offloads) if offloads.gro => check.is(Status::Ok, "on"),
        Ok(_) => check.is(Status::Warn, "off").fix(Mend::GroOn {
            interface: name.to_owned(),
        }),
        Err(error) => check.is(Status::Info, error.to_string()),
    }
}

fn examine_lro(name: &str, device: &Ethtool) -> Check {
    let check = Check::new(
        format!("{name}: large receive offload"),
        "what the hardware has merged cannot be taken apart again: forwarding breaks",
    );
    match device.offloads() {
        Ok(offloads) if !offloads.lro => check.is(Status::Ok, "off"),
        Ok(_) => check.is(Status::Warn, "on").fix(Mend::LroOff {
            interface: name.to_owned(),
        }),
        Err(error) => check.is(Status::Info, error.to_string()),
    }
}

fn examine_vlan(name: &str, device: &Ethtool) -> Check {
    let check = Check::new(
        format!("{name}: VLAN tags"),
        "XDP sees no tag that the hardware took out, TC does; steering reads both forms",
    );
    match device.offloads() {
        Ok(offloads) if offloads.rx_vlan => check.is(Status::Ok, "taken out by the hardware"),
        Ok(_) => check.is(Status::Ok, "left in the frame"),
        Err(error) => check.is(Status::Info, error.to_string()),
    }
}

fn examine_queues(name: &str, device: &Ethtool, context: &Context) -> Check {
    let check = Check::new(
        format!("{name}: receive queues"),
        "each is served by one CPU, which forwards and steers what it receives; workers have CPUs of their own",
    );
    let workers = context.workers;
    match device.channels() {
        Ok(channels) => {
            let found = format!(
                "{} of {} for {workers} workers",
                channels.receiving, channels.receiving_max
            );
            if channels.receiving < workers && channels.receiving_max > channels.receiving {
                let wanted = channels.receiving_max.min(workers);
                check
                    .is(Status::Info, found)
                    .advise(format!("ethtool -L {name} combined {wanted}"))
            } else {
                check.is(Status::Ok, found)
            }
        }
        Err(_) => check.is(Status::Info, format!("one, for {workers} workers")),
    }
}

fn examine_ring(name: &str, device: &Ethtool) -> Check {
    let check = Check::new(
        format!("{name}: receive ring"),
        "a burst that does not fit is lost in the hardware, and counted only there",
    );
    match device.receive_ring() {
        Ok(ring) if ring.entries_max == 0 => check.is(Status::Ok, "none"),
        Ok(ring) if ring.entries < 1024 && ring.entries_max > ring.entries => check
            .is(
                Status::Info,
                format!("{} of {} descriptors", ring.entries, ring.entries_max),
            )
            .advise(format!(
                "ethtool -G {name} rx {}, when `ethtool -S {name}` counts missed packets",
                ring.entries_max.min(4096)
            )),
        Ok(ring) => check.is(
            Status::Ok,
            format!("{} of {} descriptors", ring.entries, ring.entries_max),
        ),
        Err(_) => check.is(Status::Ok, "none"),
    }
}

fn program(id: u32) -> String {
    match bpf_probe::program_name(id) {
        Ok(name) if !name.is_empty() => format!("{name} (id {id})"),
        _ => format!("id {id}"),
    }
}

fn examine_xdp(name: &str, details: Option<&Value>) -> Check {
    let check = Check::new(
        format!("{name}: XDP program"),
        "an interface has room for one XDP program in each mode",
    );
    let Some(details) = details else {
        return check.is(Status::Info, "not to be found out without `ip`");
    };
    let id = details["xdp"]["prog"]["id"]
        .as_u64()
        .and_then(|id| u32::try_from(id).ok());
    match id {
        None => check.is(Status::Ok, "none attached"),
        Some(id) => {
            let program = program(id);
            if program.starts_with("sluice") {
                check.is(Status::Ok, format!("ours: {program}"))
            } else {
                check
                    .is(
                        Status::Warn,
                        format!("attached by somebody else: {program}"),
                    )
                    .advise(format!(
                        "ip link set dev {name} xdp off, or set xdp = \"off\" in the configuration"
                    ))
            }
        }
    }
}

fn examine_tc(name: &str, index: u32) -> Check {
    let check = Check::new(
        format!("{name}: TC ingress programs"),
        "a program of somebody else before ours may take packets away or change their marks",
    );
    let mut programs = Vec::new();
    // Before 6.6, and without privilege, there is nothing to be asked.
    if let Ok(ids) = bpf_probe::tcx_ingress_programs(index) {
        programs.extend(ids.into_iter().map(program));
    }
    if let Some(tc) = find_program("tc")
        && let Ok(text) = run(&tc, &["-j", "filter", "show", "dev", name, "ingress"], "")
        && let Ok(Value::Array(filters)) = serde_json::from_str(&text)
    {
        programs.extend(filters.iter().filter_map(|filter| {
            let options = filter.get("options")?;
            let label = options["bpf_name"].as_str().or(filter["kind"].as_str())?;
            Some(format!("{label} (clsact)"))
        }));
    }
    let others: Vec<_> = programs
        .iter()
        .filter(|program| !program.starts_with("sluice"))
        .cloned()
        .collect();
    if !others.is_empty() {
        check
            .is(Status::Warn, format!("others: {}", others.join(", ")))
            .advise(format!(
                "see `bpftool net show` and `tc filter show dev {name} ingress`; make sure that they let packets and marks alone"
            ))
    } else if programs.is_empty() {
        check.is(Status::Ok, "none attached")
    } else {
        check.is(Status::Ok, format!("ours: {}", programs.join(", ")))
    }
}
