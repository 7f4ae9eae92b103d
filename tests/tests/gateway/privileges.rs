//! What each process of a running instance may do, and what becomes of rejections when the
//! process that sends them is not there.

use std::collections::BTreeMap;
use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sluice::metrics::board::Cell;
use sluice::sys::sandbox::{Account, Support};
use sluice_tests::patience::wait_until;
use sluice_tests::require_queues;
use sluice_tests::witness::{End, Transport, Witness, attempt};

use crate::rig::{Gateway, lab, processes, program};

/// Bits of capabilities, as in `linux/capability.h`.
const NET_ADMIN: u64 = 1 << 12;
const NET_RAW: u64 = 1 << 13;

const RULES: &str = "reject tcp any any -> any any (msg:\"told\"; content:\"evil\"; sid:1;)\n";

/// The fields of a process's status.
fn status_of(pid: u32) -> BTreeMap<String, String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields
        .map(|(field, value)| (field.to_owned(), value.trim().to_owned()))
        .collect()
}

fn assert_confined(name: &str, pid: u32, capability: u64) {
    let status = status_of(pid);
    let set = |field: &str| u64::from_str_radix(&status[field], 16).expect("a set");
    let nobody = Account::named("nobody").expect("a user nobody");
    for (field, id) in [("Uid", nobody.uid.as_raw()), ("Gid", nobody.gid.as_raw())] {
        let ids = status[field].split_ascii_whitespace();
        let wrong = ids.filter(|it| **it != id.to_string()).count();
        assert_eq!(wrong, 0, "{name}: {field} {}", status[field]);
    }
    assert_eq!(status["Groups"], "", "{name}");
    for field in ["CapEff", "CapPrm"] {
        assert_eq!(set(field), capability, "{name}: {field}");
    }
    for field in ["CapInh", "CapBnd", "CapAmb"] {
        assert_eq!(set(field), 0, "{name}: {field}");
    }
    assert_eq!(status["NoNewPrivs"], "1", "{name}");
    let filter = if Support::of_kernel().seccomp {
        "2"
    } else {
        "0"
    };
    assert_eq!(status["Seccomp"], filter, "{name}");
}

/// Fails unless a connection that says something evil ends like this.
fn say_evil(gateway: &Gateway, expected: End) {
    let address = gateway.lab.server_v4().into();
    let server = Witness::start(gateway.lab.server(), address, 0).expect("a server");
    let tried = attempt(
        gateway.lab.client(),
        Transport::Tcp,
        server.address(),
        b"hello",
        b"evil",
        expected.patience(),
    );
    let tried = tried.expect("a connection");
    let delivered = server.delivery(tried.local).expect("the greeting");
    assert_eq!(delivered.bytes, b"hello", "dropped, rejected or not");
    assert_eq!(tried.end, expected);
}

#[test]
fn every_process_has_only_what_it_needs_also_those_that_replace_others() {
    require_queues!();
    let gateway = Gateway::start(|setup| setup.rules = RULES.into());
    let status = gateway.await_status("a rejecter", |status| status.rejecter.pid != 0);
    for seat in status.seats() {
        assert_confined(&seat.seat.to_string(), seat.pid, NET_ADMIN);
    }
    assert_confined("rejecter", status.rejecter.pid, NET_RAW);
    // Nobody else is there, and those have what root gave them.
    let confined: Vec<u32> = status.seats().map(|seat| seat.pid).collect();
    let others = || {
        let mut others = processes(&gateway.lab);
        others.retain(|pid| !confined.contains(pid) && *pid != status.rejecter.pid);
        others.sort_unstable();
        others
    };
    let mut expected = [status.pid, status.launcher];
    expected.sort_unstable();
    // A tool may be looking at the netfilter rules just now.
    wait_until(
        || others() == expected,
        || format!("{:?}, not {expected:?}", others()),
    );

    let killed = &status.workers[0];
    crate::rig::signal(killed, Signal::SIGKILL);
    let status = gateway.await_status("replaced", |status| {
        let worker = &status.workers[0];
        worker.pid != killed.pid && worker.state == "up"
    });
    assert_confined("its replacement", status.workers[0].pid, NET_ADMIN);
    say_evil(&gateway, End::Reset);
}

#[test]
fn while_the_rejecter_is_away_packets_are_still_dropped_and_it_comes_back() {
    require_queues!();
    let gateway = Gateway::start(|setup| {
        setup.rules = RULES.into();
        // Repeated segments shall be seen, and not die in the kernel.
        setup.config.conviction.enabled = false;
    });
    say_evil(&gateway, End::Reset);
    let before = gateway.await_status("sent", |it| {
        it.rejecter.counters.sent > 0 && it.rejecter.pid != 0
    });
    let rejecter = Pid::from_raw(i32::try_from(before.rejecter.pid).expect("a process id"));
    kill(rejecter, Signal::SIGSTOP).expect("stop the rejecter");
    say_evil(&gateway, End::Silence);
    kill(rejecter, Signal::SIGKILL).expect("kill the rejecter");
    let after = gateway.await_status("started again", |status| {
        let now = &status.rejecter;
        now.restarts == 1 && now.pid != 0 && now.pid != before.rejecter.pid
    });
    assert_confined("the new rejecter", after.rejecter.pid, NET_RAW);
    say_evil(&gateway, End::Reset);
    let log = gateway.log();
    assert!(log.contains("ended by signal SIGKILL"), "{log}");
    let status = gateway.await_settled();
    assert_eq!(status.rejecter.counters.refused, 0, "{status}");
    assert!(status.total(Cell::Rejected) >= 3, "{status}");
}

/// What `sluice doctor --json` says in the gateway.
fn doctor(gateway: &Gateway) -> serde_json::Value {
    let mut doctor = gateway.lab.gateway().command(program());
    doctor.args(["doctor", "--json", "-c"]);
    let output = doctor.arg(gateway.config_file()).output().expect("start");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no JSON: {output:?}"))
}

/// Names and states of the checks about processes of an instance.
fn about_processes(report: &serde_json::Value) -> BTreeMap<String, String> {
    let checks = report["checks"].as_array().expect("checks");
    let checks = checks.iter().filter_map(|check| {
        let name = check["name"].as_str()?.strip_prefix("instance: ")?;
        Some((name.to_owned(), check["status"].as_str()?.to_owned()))
    });
    checks.collect()
}

#[test]
fn the_doctor_shows_what_each_process_may_do_and_warns_of_what_is_too_much() {
    require_queues!();
    let mut gateway = Gateway::prepare(&lab(), |setup| setup.config.workers.count = 1);
    let none = doctor(&gateway);
    assert_eq!(none["processes"].as_array().map(Vec::len), Some(0));
    gateway.launch();
    gateway.await_status("a rejecter", |status| status.rejecter.pid != 0);
    let report = doctor(&gateway);
    let named = ["supervisor", "launcher", "rejecter", "backup", "worker 0"];
    let found = about_processes(&report);
    for name in named {
        let expected = match Support::of_kernel() {
            Support {
                landlock: Some(_),
                seccomp: true,
            } => "ok",
            _ if matches!(name, "supervisor" | "launcher") => "ok",
            _ => "warn",
        };
        assert_eq!(found[name], expected, "{name}: {report:#}");
    }
    let shown = report["processes"].as_array().expect("processes");
    assert_eq!(shown.len(), named.len(), "{report:#}");
    let of = |name: &str| shown.iter().find(|it| it["name"] == name).expect(name);
    let worker = of("worker 0");
    let only = |capability: &str| serde_json::json!([capability]);
    assert_eq!(worker["capabilities"]["effective"], only("CAP_NET_ADMIN"));
    assert_eq!(
        of("rejecter")["capabilities"]["effective"],
        only("CAP_NET_RAW")
    );
    assert_eq!(worker["no_new_privs"], true);
    assert_eq!(of("supervisor")["uid"], 0);

    assert!(gateway.stop().success());
    gateway.config.sandbox.seccomp = false;
    gateway.write_config();
    gateway.launch();
    gateway.await_status("a rejecter", |status| status.rejecter.pid != 0);
    let report = doctor(&gateway);
    let found = about_processes(&report);
    for name in ["rejecter", "backup", "worker 0"] {
        assert_eq!(found[name], "warn", "{name}: {report:#}");
    }
    assert_eq!(found["supervisor"], "ok", "{report:#}");
}
