//! Programs that Sluice, or the kernel on its behalf, calls.

use std::path::Path;

use super::{Check, Status};
use crate::netfilter::find_program;

pub(super) fn examine() -> Vec<Check> {
    let mut checks = Vec::new();
    let nft = find_program("nft");
    let iptables =
        find_program("iptables-nft-restore").or_else(|| find_program("iptables-restore"));
    let check = Check::new(
        "tool: nft",
        "installs the steering table, and tidies up after iptables",
    );
    checks.push(match (&nft, &iptables) {
        (Some(path), _) => check.is(Status::Ok, path.display().to_string()),
        (None, Some(_)) => check
            .is(Status::Warn, "not installed; iptables is used instead")
            .advise("apt-get install nftables"),
        (None, None) => check
            .is(Status::Fail, "not installed, and neither is iptables")
            .advise("apt-get install nftables"),
    });
    let check = Check::new(
        "tool: iptables",
        "installs the steering rules where the kernel has no nft queue expression",
    );
    checks.push(match iptables {
        Some(path) => check.is(Status::Ok, path.display().to_string()),
        None => check
            .is(Status::Info, "not installed")
            .advise("apt-get install iptables"),
    });
    for (program, package, matters) in [
        (
            "ip",
            "iproute2",
            "shows routing rules and interfaces to this doctor; inspection does without",
        ),
        (
            "tc",
            "iproute2",
            "shows other people's TC programs to this doctor; inspection does without",
        ),
    ] {
        let check = Check::new(format!("tool: {program}"), matters);
        checks.push(match find_program(program) {
            Some(path) => check.is(Status::Ok, path.display().to_string()),
            None => check
                .is(Status::Info, "not installed")
                .advise(format!("apt-get install {package}")),
        });
    }
    checks.push(examine_modprobe());
    checks
}

fn examine_modprobe() -> Check {
    let check = Check::new(
        "tool: modprobe",
        "the kernel calls it to load nft_queue, nfnetlink_queue and others by itself",
    );
    if !Path::new("/proc/modules").exists() {
        return check.is(
            Status::Ok,
            "not needed: this kernel has no loadable modules",
        );
    }
    // The path that the kernel really calls; a static kernel has none.
    let called = std::fs::read_to_string("/proc/sys/kernel/modprobe").map_or_else(
        |_| "/sbin/modprobe".to_owned(),
        |path| path.trim().to_owned(),
    );
    if !called.is_empty() && Path::new(&called).exists() {
        check.is(Status::Ok, called)
    } else {
        check
            .is(Status::Warn, format!("{called} does not exist"))
            .advise("apt-get install kmod")
    }
}
