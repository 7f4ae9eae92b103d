//! What this process may do, and what it may run on.

use std::thread::available_parallelism;

use nix::sys::resource::{Resource, getrlimit};

use super::{Check, Context, Status, kernel};

/// Capabilities by their number in `linux/capability.h`.
const CAPABILITIES: [(u32, &str, Status, &str); 9] = [
    (
        5,
        "CAP_KILL",
        Status::Warn,
        "the supervisor ends workers, which run as another user",
    ),
    (
        6,
        "CAP_SETGID",
        Status::Warn,
        "workers leave their group and supplementary groups",
    ),
    (
        7,
        "CAP_SETUID",
        Status::Warn,
        "workers become a user without login",
    ),
    (
        8,
        "CAP_SETPCAP",
        Status::Warn,
        "workers empty their bounding set",
    ),
    (
        12,
        "CAP_NET_ADMIN",
        Status::Fail,
        "queues, verdicts, netfilter rules and attaching programs need it",
    ),
    (
        13,
        "CAP_NET_RAW",
        Status::Warn,
        "reject answers with packets of its own",
    ),
    (
        19,
        "CAP_SYS_PTRACE",
        Status::Info,
        "a new supervisor fetches descriptors from workers that survived the former one",
    ),
    (
        21,
        "CAP_SYS_ADMIN",
        Status::Info,
        "stands in for CAP_BPF; mounts the BPF file system; makes the doctor's trial namespace",
    ),
    (
        23,
        "CAP_SYS_NICE",
        Status::Info,
        "lets workers run at a higher priority",
    ),
];
const CAP_SYS_ADMIN: u32 = 21;
const CAP_BPF: u32 = 39;

fn effective_capabilities() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/thread-self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

pub(super) fn examine() -> Vec<Check> {
    let Some(effective) = effective_capabilities() else {
        return vec![
            Check::new("process: capabilities", "Sluice needs some of them")
                .is(Status::Info, "not to be found out: /proc is not readable"),
        ];
    };
    let has = |bit: u32| effective & (1 << bit) != 0;
    let advice = "run as root, or give the capability in the systemd unit (AmbientCapabilities=)";
    let mut checks: Vec<_> = CAPABILITIES
        .into_iter()
        .map(|(bit, name, without, matters)| {
            let check = Check::new(format!("process: {name}"), matters);
            if has(bit) {
                check.is(Status::Ok, "held")
            } else {
                check.is(without, "not held").advise(advice)
            }
        })
        .collect();
    let check = Check::new(
        "process: CAP_BPF",
        "programs and maps are loaded with it (Linux 5.8; before that with CAP_SYS_ADMIN)",
    );
    checks.push(if has(CAP_BPF) {
        check.is(Status::Ok, "held")
    } else if has(CAP_SYS_ADMIN) {
        check.is(Status::Ok, "not held, CAP_SYS_ADMIN stands in for it")
    } else {
        check.is(Status::Fail, "not held").advise(advice)
    });
    checks.push(examine_memlock());
    checks
}

/// Before 5.11, maps were charged to `RLIMIT_MEMLOCK`.
fn examine_memlock() -> Check {
    let check = Check::new(
        "process: locked memory",
        "kernels before 5.11 charge BPF maps to RLIMIT_MEMLOCK",
    );
    if kernel::version(&kernel::release()).is_some_and(|version| version >= (5, 11)) {
        return check.is(Status::Ok, "not charged by this kernel");
    }
    match getrlimit(Resource::RLIMIT_MEMLOCK) {
        Ok((soft, _)) if soft == libc::RLIM_INFINITY => check.is(Status::Ok, "unlimited"),
        Ok((soft, _)) => check
            .is(Status::Warn, format!("{soft} bytes"))
            .advise("ulimit -l unlimited, or LimitMEMLOCK=infinity in the systemd unit"),
        Err(errno) => check.is(Status::Info, errno.to_string()),
    }
}

pub(super) fn examine_cpus(context: &Context) -> Vec<Check> {
    let mut checks = Vec::new();
    let check = Check::new(
        "cpu: workers",
        "one worker a CPU: with more, workers wait for each other; the backup is idle until needed",
    );
    let workers = context.workers;
    checks.push(match available_parallelism() {
        Ok(cpus) if workers as usize > cpus.get() => check
            .is(
                Status::Warn,
                format!("{workers} workers on {cpus} usable CPUs"),
            )
            .advise(format!("set workers = {cpus}, or allow more CPUs")),
        Ok(cpus) => check.is(
            Status::Ok,
            format!("{workers} workers on {cpus} usable CPUs"),
        ),
        Err(error) => check.is(Status::Info, error.to_string()),
    });
    checks.push(examine_governor());
    checks.push(examine_irqbalance());
    checks
}

fn examine_governor() -> Check {
    let check = Check::new(
        "cpu: frequency governor",
        "a CPU that first has to clock up makes every burst wait",
    );
    match std::fs::read_to_string("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") {
        Ok(governor) if governor.trim() == "performance" => check.is(Status::Ok, "performance"),
        Ok(governor) => check
            .is(Status::Info, governor.trim().to_owned())
            .advise("cpupower frequency-set -g performance, where latency counts"),
        Err(_) => check.is(Status::Info, "none: not scaled, or scaled by the host"),
    }
}

fn examine_irqbalance() -> Check {
    let check = Check::new(
        "cpu: irqbalance",
        "it moves receive interrupts away from the CPUs that workers are pinned beside",
    );
    let runs = std::fs::read_dir("/proc").is_ok_and(|entries| {
        entries.flatten().any(|entry| {
            std::fs::read_to_string(entry.path().join("comm"))
                .is_ok_and(|name| name.trim() == "irqbalance")
        })
    });
    if runs {
        check
            .is(Status::Info, "running")
            .advise("systemctl stop irqbalance, when queues and workers are aligned by hand")
    } else {
        check.is(Status::Ok, "not running")
    }
}
