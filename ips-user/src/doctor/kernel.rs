//! The kernel: version, BPF, queues, conntrack; tried rather than believed.

use super::config_gz::{Built, KernelConfig};
use super::mend::Mend;
use super::trial::{self, Outcome, Trials};
use super::{Check, Status};
use crate::netfilter::Backend;
use crate::sys::bpf_probe::MapKind;

/// The running kernel's release, for example `6.18.44`.
pub(super) fn release() -> String {
    nix::sys::utsname::uname().map_or_else(
        |_| "unknown".to_owned(),
        |name| name.release().to_string_lossy().into_owned(),
    )
}

/// Major and minor version of a release.
pub(super) fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Whether a BPF file system is mounted at `/sys/fs/bpf` in this mount namespace.
pub(super) fn bpffs_is_mounted() -> bool {
    std::fs::read_to_string("/proc/thread-self/mounts").is_ok_and(|mounts| {
        mounts.lines().any(|line| {
            let mut fields = line.split(' ').skip(1);
            fields.next() == Some("/sys/fs/bpf") && fields.next() == Some("bpf")
        })
    })
}

pub(super) fn examine() -> Vec<Check> {
    let release = release();
    let config = KernelConfig::of_running(&release);
    let mut checks = vec![examine_version(&release), examine_bpffs(), examine_btf()];
    match trial::run_all() {
        Ok(trials) => {
            checks.extend(examine_bpf(&trials));
            checks.extend(examine_queueing(&trials, &config));
        }
        Err(reason) => checks.push(
            Check::new(
                "kernel: trials",
                "what the kernel can do is tried in a network namespace of its own",
            )
            .is(Status::Info, format!("not tried: {reason}"))
            .advise("run the doctor as root"),
        ),
    }
    checks
}

fn examine_version(release: &str) -> Check {
    let check = Check::new(
        "kernel: version",
        "5.8 brings ring buffers, 6.6 brings tcx links that survive a restart without a gap",
    );
    match version(release) {
        Some(version) if version >= (6, 6) => check.is(Status::Ok, release),
        Some(version) if version >= (5, 8) => check
            .is(Status::Warn, format!("{release}: TC attaches by clsact"))
            .advise("a kernel from 6.6 on attaches by tcx"),
        Some(_) => check
            .is(Status::Fail, release)
            .advise("use a kernel from 5.8 on, better 6.6"),
        None => check.is(Status::Info, format!("{release}: not understood")),
    }
}

fn examine_bpffs() -> Check {
    let check = Check::new(
        "kernel: BPF file system",
        "programs and maps are pinned under /sys/fs/bpf, so that they outlive a crash of Sluice",
    );
    if bpffs_is_mounted() {
        check.is(Status::Ok, "mounted at /sys/fs/bpf")
    } else {
        check
            .is(Status::Warn, "not mounted at /sys/fs/bpf")
            .fix(Mend::MountBpffs)
    }
}

fn examine_btf() -> Check {
    let check = Check::new(
        "kernel: own type information",
        "bpftool and tracing show names instead of numbers; Sluice itself does without",
    );
    if std::path::Path::new("/sys/kernel/btf/vmlinux").exists() {
        check.is(Status::Ok, "/sys/kernel/btf/vmlinux")
    } else {
        check.is(Status::Info, "not there (CONFIG_DEBUG_INFO_BTF)")
    }
}

/// A check of something without which Sluice does not run.
fn needed(name: &str, matters: &str, outcome: &Outcome, since: &str) -> Check {
    let check = Check::new(format!("kernel: {name}"), matters);
    match outcome {
        Ok(()) => check.is(Status::Ok, "tried, works"),
        Err(error) => check
            .is(Status::Fail, format!("tried, refused: {error}"))
            .advise(format!(
                "needs {since}, and CAP_BPF and CAP_NET_ADMIN (or root)"
            )),
    }
}

fn examine_bpf(trials: &Trials) -> Vec<Check> {
    let mut checks = vec![needed(
        "type information for programs",
        "the loader hands over the types of maps and programs",
        &trials.btf,
        "Linux 4.18 with CONFIG_BPF_SYSCALL",
    )];
    for (kind, outcome) in &trials.maps {
        let (name, matters, since) = match kind {
            MapKind::PerCpuArray => (
                "per-CPU array map",
                "counters without contention",
                "Linux 4.6",
            ),
            MapKind::LruHash => (
                "LRU hash map",
                "exceptions and convictions that a flood cannot fill up",
                "Linux 4.10",
            ),
            MapKind::MappedArray => (
                "mapped array (BPF_F_MMAPABLE)",
                "heartbeats without a system call",
                "Linux 5.5",
            ),
            MapKind::RingBuffer => (
                "ring buffer map",
                "adoptions and state changes reach the supervisor",
                "Linux 5.8",
            ),
        };
        checks.push(needed(name, matters, outcome, since));
    }
    checks.push(needed(
        "TC classifier program",
        "writes the steering decision into the packet's mark",
        &trials.classifier,
        "CONFIG_NET_CLS_BPF or tcx",
    ));
    checks.push(examine_attachment(trials));
    let check = Check::new(
        "kernel: XDP",
        "convicted flows die before they cost an skb; without it they die in TC",
    );
    checks.push(match &trials.xdp {
        Ok(()) => check.is(Status::Ok, "tried, works (generic mode)"),
        Err(error) => check
            .is(Status::Warn, format!("tried, refused: {error}"))
            .advise("use a kernel from 5.9 on, or set xdp = \"off\""),
    });
    let check = Check::new(
        "kernel: XDP live frames",
        "the load generator sends from inside the kernel; inspection does without",
    );
    checks.push(match &trials.live_frames {
        Ok(()) => check.is(Status::Ok, "tried, works"),
        Err(error) => check.is(
            Status::Info,
            format!("tried, refused: {error} (Linux 5.18)"),
        ),
    });
    checks
}

fn examine_attachment(trials: &Trials) -> Check {
    let check = Check::new(
        "kernel: TC attachment",
        "the steering program sits at the ingress of each interface",
    );
    match (&trials.tcx, &trials.clsact) {
        (Ok(()), _) => check.is(Status::Ok, "tried, tcx works"),
        (Err(tcx), Ok(())) => check
            .is(
                Status::Warn,
                format!("tried, tcx refused: {tcx}; clsact works and is used instead"),
            )
            .advise("a kernel from 6.6 on attaches by tcx, whose links survive a restart"),
        (Err(tcx), Err(clsact)) => check
            .is(
                Status::Fail,
                format!("tried, tcx refused: {tcx}; clsact refused: {clsact}"),
            )
            .advise("use a kernel with CONFIG_NET_XGRESS (6.6) or CONFIG_NET_SCH_INGRESS"),
    }
}

/// Adds the reason from the kernel's configuration, and the mend that follows from it.
fn with_module(
    check: Check,
    status: Status,
    found: &str,
    config: &KernelConfig,
    option: &str,
    module: &'static str,
) -> Check {
    match config.built(option) {
        Built::AsModule => check
            .is(status, format!("{found} ({option}=m)"))
            .fix(Mend::Modprobe { module }),
        Built::Not => check
            .is(status, format!("{found} ({option} is not set)"))
            .advise(format!("use a kernel with {option}")),
        Built::In => check
            .is(status, format!("{found}, although {option}=y"))
            .advise("run the doctor as root"),
        Built::Unknown => check
            .is(status, found)
            .advise(format!("modprobe {module}, or a kernel with {option}")),
    }
}

fn examine_queueing(trials: &Trials, config: &KernelConfig) -> Vec<Check> {
    let mut checks = Vec::new();
    let check = Check::new(
        "kernel: nfnetlink_queue",
        "packets reach the workers through NFQUEUE sockets",
    );
    checks.push(match &trials.queue_socket {
        Ok(()) => check.is(Status::Ok, "tried, a queue can be bound"),
        Err(error) => with_module(
            check,
            Status::Fail,
            &format!("tried, refused: {error}"),
            config,
            "CONFIG_NETFILTER_NETLINK_QUEUE",
            "nfnetlink_queue",
        ),
    });
    for (name, outcome, matters) in [
        (
            "kernel: NFQUEUE aggregates (GSO)",
            &trials.queue_gso,
            "up to 64 KiB of a flow are inspected at once",
        ),
        (
            "kernel: NFQUEUE fail-open",
            &trials.queue_fail_open,
            "with fail = \"open\", what does not fit into a full queue passes",
        ),
    ] {
        let check = Check::new(name, matters);
        checks.push(match outcome {
            Ok(()) => check.is(Status::Ok, "tried, works"),
            Err(error) => check
                .is(Status::Warn, format!("tried, refused: {error}"))
                .advise("use a newer kernel (3.10)"),
        });
    }
    checks.extend(examine_backends(trials, config));
    let check = Check::new(
        "kernel: conntrack",
        "needed for NAT (the decision is kept in the connmark); with it, fragments are put together before they are queued",
    );
    checks.push(match &trials.conntrack {
        Ok(()) => check.is(Status::Ok, "tried, works"),
        Err(error) => check.is(Status::Info, format!("tried, refused: {error}")),
    });
    checks
}

fn examine_backends(trials: &Trials, config: &KernelConfig) -> Vec<Check> {
    let works = |wanted: Backend| {
        trials
            .backends
            .iter()
            .find(|(backend, _)| *backend == wanted)
            .is_some_and(|(_, outcome)| outcome.is_ok())
    };
    let chosen = trials
        .backends
        .iter()
        .find(|(_, outcome)| outcome.is_ok())
        .map(|(backend, _)| *backend);
    let mut checks = Vec::new();
    for (backend, outcome) in &trials.backends {
        let (name, matters, option, module) = match backend {
            Backend::Nft => (
                "kernel: nft queue expression",
                "one map rule leads every mark to its queue",
                "CONFIG_NFT_QUEUE",
                "nft_queue",
            ),
            Backend::IptablesNft => (
                "kernel: NFQUEUE and mark match through iptables-nft",
                "stands in for the nft queue expression, with a rule for each queue",
                "CONFIG_NETFILTER_XT_TARGET_NFQUEUE",
                "xt_NFQUEUE",
            ),
            Backend::IptablesLegacy => (
                "kernel: NFQUEUE and mark match through iptables-legacy",
                "the last resort of steering",
                "CONFIG_NETFILTER_XT_TARGET_NFQUEUE",
                "xt_NFQUEUE",
            ),
        };
        let check = Check::new(name, matters);
        let used = if chosen == Some(*backend) {
            "; this is what is used"
        } else {
            ""
        };
        checks.push(match outcome {
            Ok(place) => check.is(Status::Ok, format!("tried, works ({place}){used}")),
            Err(error) => match (backend, chosen) {
                (Backend::Nft, Some(instead)) => with_module(
                    check,
                    Status::Warn,
                    &format!("tried, refused: {error}. NFQUEUE of {instead} is used instead"),
                    config,
                    option,
                    module,
                ),
                (_, Some(_)) => check.is(Status::Info, format!("tried, refused: {error}")),
                (_, None) => with_module(
                    check,
                    Status::Fail,
                    &format!("tried, refused: {error}"),
                    config,
                    option,
                    module,
                ),
            },
        });
    }
    // iptables is needed only where nft does not do.
    if works(Backend::Nft) {
        checks.retain(|check| {
            check.status != Status::Info || check.name.contains("nft queue expression")
        });
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_all_distributions_are_understood() {
        for (release, expected) in [
            ("6.18.44-fc-v657", Some((6, 18))),
            ("5.15.0-1034-aws", Some((5, 15))),
            ("7.0-rc1", Some((7, 0))),
            ("6.1", Some((6, 1))),
            ("strange", None),
            ("", None),
        ] {
            assert_eq!(version(release), expected, "{release}");
        }
    }
}
