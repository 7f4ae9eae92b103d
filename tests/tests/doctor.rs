//! The doctor on a real kernel: what it sees, what `--fix` changes, and that it touches
//! nothing else.

use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use sluice::doctor::{Check, Context, Report, Status, examine, render};
use sluice::netfilter;
use sluice::sys::bpf_probe::{AttachPoint, ProgramKind, attach, load_program};
use sluice_tests::unnamed::{in_namespace, sh};

fn context(interfaces: &[&str]) -> Context {
    Context {
        interfaces: interfaces.iter().map(|&name| name.to_owned()).collect(),
        mark_mask: 0x00ff_0000,
        workers: 2,
        first_queue: 100,
        instance: None,
        fix: false,
    }
}

fn check<'a>(report: &'a Report, name: &str) -> &'a Check {
    report
        .checks
        .iter()
        .find(|check| check.name == name)
        .unwrap_or_else(|| panic!("no check {name}: {}", render(report)))
}

#[test]
fn a_machine_that_can_run_sluice_is_healthy_and_left_alone() {
    in_namespace("healthy", || {
        sh("ip link add va type veth peer name vb; ip link set va up; ip link set vb up");
        let state = "nft -a list ruleset; ip -d -o link; cat /proc/net/netfilter/nfnetlink_queue 2>/dev/null || true
             cat /proc/sys/net/ipv4/ip_forward; ethtool -k va; mount";
        let before = sh(state);
        let report = examine(&context(&["va", "vb"]));
        println!("{}", render(&report));
        assert_eq!(sh(state), before);
        assert!(report.healthy(), "{}", render(&report));
        assert!(report.applied.is_empty());
        for name in [
            "kernel: LRU hash map",
            "kernel: mapped array (BPF_F_MMAPABLE)",
            "kernel: ring buffer map",
            "kernel: TC classifier program",
            "kernel: nfnetlink_queue",
            "process: CAP_NET_ADMIN",
            "marks in use",
            "queues in use",
        ] {
            assert_eq!(check(&report, name).status, Status::Ok, "{name}");
        }
        let nft = check(&report, "kernel: nft queue expression");
        if nft.status != Status::Ok {
            assert!(nft.found.contains("is used instead"), "{nft:?}");
            assert!(nft.found.contains("CONFIG_NFT_QUEUE"), "{nft:?}");
        }
    });
}

#[test]
fn fix_mends_what_is_safe_and_tells_old_and_new() {
    in_namespace("fix", || {
        sh(
            "ip link add va type veth peer name vb; ip link set va up; ip link set vb up
            ethtool -K va gro off; ethtool -K vb gro on
            echo 0 > /proc/sys/net/ipv4/ip_forward; echo 0 > /proc/sys/net/ipv6/conf/all/forwarding",
        );
        let before = examine(&context(&["va", "vb"]));
        let gro = "va: generic receive offload";
        let forward = "sysctl: net.ipv4.ip_forward";
        assert_eq!(check(&before, gro).status, Status::Warn);
        assert!(check(&before, gro).fixable);
        assert_eq!(check(&before, forward).status, Status::Warn);
        // A file system in the machine's own mount namespace is not this test's to mount.
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).unwrap();
        sh("mount --make-rprivate /");
        let after = examine(&Context {
            fix: true,
            ..context(&["va", "vb"])
        });
        println!("{}", render(&after));
        for (name, old, new) in [(gro, "off", "on"), (forward, "0", "1")] {
            assert_eq!(check(&after, name).status, Status::Ok);
            let applied = after
                .applied
                .iter()
                .find(|each| each.check == name)
                .unwrap();
            assert_eq!((applied.old.as_str(), applied.new.as_str()), (old, new));
            assert_eq!(applied.error, None);
        }
        assert!(
            !after
                .applied
                .iter()
                .any(|each| each.check == "vb: generic receive offload")
        );
        assert_eq!(check(&after, "kernel: BPF file system").status, Status::Ok);
        assert!(sh("ethtool -k va").contains("generic-receive-offload: on"));
    });
}

#[test]
fn a_single_interface_does_not_turn_a_host_into_a_router() {
    in_namespace("router", || {
        sh("ip link add va type veth peer name vb; echo 0 > /proc/sys/net/ipv4/ip_forward");
        let report = examine(&context(&["va"]));
        let forward = check(&report, "sysctl: net.ipv4.ip_forward");
        assert_eq!(forward.status, Status::Info);
        assert!(!forward.fixable);
    });
}

#[test]
fn other_peoples_marks_queues_and_programs_are_named() {
    in_namespace("others", || {
        sh(
            "ip link add va type veth peer name vb; ip link set va up; ip link set vb up
            iptables-nft -t mangle -A PREROUTING -j MARK --set-mark 7
            nft -f - <<'X'
table inet shaping {
    chain c {
        type filter hook forward priority 5
        meta mark & 0x00f00000 == 0x00100000 accept
    }
}
X
            ip rule add fwmark 0x10000/0x10000 lookup 100",
        );
        let mut queue = nfq::Queue::open().unwrap();
        queue.bind(102).unwrap();
        let index = nix::net::if_::if_nametoindex("va").unwrap();
        let xdp = load_program(ProgramKind::Xdp).unwrap();
        let _xdp = attach(&xdp, index, AttachPoint::XdpGeneric).unwrap();
        let tc = load_program(ProgramKind::SchedClassifier).unwrap();
        let tcx = attach(&tc, index, AttachPoint::TcxIngress);
        if let Err(error) = &tcx {
            println!("skipped: a TC program of somebody else: tcx needs Linux 6.6: {error}");
        }

        let report = examine(&context(&["va", "vb"]));
        println!("{}", render(&report));
        let marks = check(&report, "marks in use");
        assert_eq!(marks.status, Status::Warn);
        for part in [
            "sets 0xffffffff",
            "table inet shaping",
            "compares 0x00f00000",
            "ip rule",
            "fwmark 0x10000",
        ] {
            assert!(marks.found.contains(part), "{part}: {marks:?}");
        }
        assert!(marks.mend.as_ref().unwrap().contains("0xff000000"));
        let queues = check(&report, "queues in use");
        assert_eq!(queues.status, Status::Warn);
        assert!(queues.found.contains("102 is bound"), "{queues:?}");
        for (name, status) in [
            ("va: XDP program", Status::Warn),
            (
                "va: TC ingress programs",
                if tcx.is_ok() {
                    Status::Warn
                } else {
                    Status::Ok
                },
            ),
            ("vb: XDP program", Status::Ok),
            ("vb: TC ingress programs", Status::Ok),
        ] {
            assert_eq!(check(&report, name).status, status, "{name}");
        }
    });
}

#[test]
fn sluices_own_rules_are_not_other_peoples() {
    in_namespace("own", || {
        let plan = netfilter::Plan {
            instance: "sluice".to_owned(),
            hook: netfilter::Hook::Forward,
            priority: netfilter::DEFAULT_PRIORITY,
            mark: ips_common::MarkLayout::new(0x00ff_0000, 1).unwrap(),
            queues: vec![(ips_common::Steer::Worker(0), 100)],
            interfaces: Vec::new(),
            fail: netfilter::Fail::Open,
            backend: None,
        };
        netfilter::install(&plan).unwrap();
        let mut queue = nfq::Queue::open().unwrap();
        queue.bind(100).unwrap();
        let report = examine(&context(&[]));
        assert_eq!(check(&report, "marks in use").status, Status::Ok);
        assert_eq!(check(&report, "queues in use").status, Status::Info);
    });
}

const JSON_BEGINS: &str = "report as JSON: ";

#[test]
#[ignore = "the child of the test below, which takes its capabilities away"]
fn examines_as_it_is() {
    let report = examine(&context(&["lo"]));
    let json = serde_json::to_string(&report).unwrap();
    println!("\n{JSON_BEGINS}{json}");
}

#[test]
fn without_privilege_it_runs_and_says_what_it_could_not_try() {
    // Another process: changing the user changes all threads, and other tests need theirs. It
    // keeps the user, who may not even read this binary otherwise, and loses what root means.
    let output = Command::new("setpriv")
        .args(["--inh-caps=-all", "--bounding-set=-all"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "--nocapture", "examines_as_it_is"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let json = text
        .lines()
        .find_map(|line| line.strip_prefix(JSON_BEGINS))
        .unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    let report: serde_json::Value = serde_json::from_str(json).unwrap();
    let status = |name: &str| {
        report["checks"]
            .as_array()
            .unwrap()
            .iter()
            .find(|check| check["name"] == name)
            .map(|check| check["status"].as_str().unwrap().to_owned())
    };
    assert_eq!(status("process: CAP_NET_ADMIN").as_deref(), Some("fail"));
    assert_eq!(status("process: CAP_BPF").as_deref(), Some("fail"));
    assert_eq!(status("kernel: trials").as_deref(), Some("info"));
    assert_ne!(status("kernel: version").as_deref(), Some("fail"));
    // Rules cannot be listed, so nothing is said to be free.
    assert_eq!(status("marks in use").as_deref(), Some("info"));
}
