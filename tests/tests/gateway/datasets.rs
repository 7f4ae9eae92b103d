//! Sets of rules: what one worker, or a command, changes holds for all, and stays.

use std::fs;
use std::net::UdpSocket;
use std::process::Output;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use sluice::metrics::board::Cell;
use sluice::metrics::snapshot::Worker;
use sluice_tests::datagram::Replier;
use sluice_tests::patience::wait_until;
use sluice_tests::require_queues;
use sluice_tests::witness::SILENCE;

use crate::reload::reload;
use crate::rig::{Gateway, PATIENCE, all_up, signal, sluice};
use crate::succession::upgrade;

/// Flows for one look at all workers: that one of three gets none is as likely as 1 in 10^7.
const FLOWS: usize = 40;

/// Answers repeat what was asked: they are not meant.
const RULES: &str = "\
alert udp any any -> any any (flow:to_server; content:\"learn\"; ip.src; \
    dataset:set,seen,type ip,state seen.lst; sid:1;)
drop udp any any -> any any (flow:to_server; content:\"ask\"; ip.src; \
    dataset:isset,seen,type ip; sid:2;)
";

fn dataset(gateway: &Gateway, arguments: &[&str]) -> Output {
    let file = gateway.config_file();
    let file = file.to_str().expect("a path in UTF-8");
    sluice(&[&["dataset"], arguments, &["-c", file]].concat())
}

fn says(gateway: &Gateway, arguments: &[&str]) -> String {
    let output = dataset(gateway, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Sends this in so many flows; how many of them are answered within `patience` after their
/// verdicts.
fn answered(
    gateway: &Gateway,
    server: &Replier,
    text: &str,
    flows: usize,
    patience: Duration,
) -> usize {
    let address = server.address();
    gateway.lab.client().enter(|| {
        let sockets: Vec<_> = (0..flows)
            .map(|_| {
                let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
                socket.set_nonblocking(true).expect("non-blocking");
                socket.send_to(text.as_bytes(), address).expect("sent");
                socket
            })
            .collect();
        gateway.await_settled();
        let deadline = Instant::now() + patience;
        let mut waiting: Vec<_> = sockets.iter().collect();
        while !waiting.is_empty() && Instant::now() < deadline {
            waiting.retain(|socket| socket.recv(&mut [0; 64]).is_err());
            sleep(Duration::from_millis(2));
        }
        flows - waiting.len()
    })
}

/// Until the flows of all workers are dropped, or none is.
fn await_all(gateway: &Gateway, server: &Replier, dropped: bool) {
    let wanted = if dropped { 0 } else { FLOWS };
    wait_until(
        || answered(gateway, server, "ask", FLOWS, SILENCE) == wanted,
        || {
            let (status, log) = (gateway.status(), gateway.log());
            format!("never {wanted} of {FLOWS} answered: {status}\n{log}")
        },
    );
}

#[test]
fn what_one_worker_learns_all_know_and_it_outlives_workers_rules_programs_and_the_instance() {
    require_queues!();
    let mut gateway = Gateway::start(|setup| {
        setup.rules = RULES.into();
        setup.config.workers.count = 3;
    });
    let address = gateway.lab.server_v4().into();
    let server = Replier::start(gateway.lab.server(), address, 0).expect("a server");
    let client = gateway.lab.client_v4().to_string();
    await_all(&gateway, &server, false);
    assert_eq!(answered(&gateway, &server, "learn", 1, PATIENCE), 1);
    await_all(&gateway, &server, true);
    let status = gateway.status();
    let dropping = |worker: &&Worker| worker.cell(Cell::RuleDropped) > 0;
    assert_eq!(
        status.workers.iter().filter(dropping).count(),
        3,
        "{status}"
    );
    assert_eq!((status.datasets.reported, status.datasets.changes), (1, 1));

    // By command.
    let value = ["seen", "ip", &client];
    let ask = |what: &'static str| [&[what], &value[..]].concat();
    assert_eq!(says(&gateway, &ask("lookup")), "found\n");
    assert_eq!(says(&gateway, &ask("remove")), "removed\n");
    await_all(&gateway, &server, false);
    assert_eq!(dataset(&gateway, &ask("lookup")).status.code(), Some(1));
    assert_eq!(says(&gateway, &ask("add")), "added\n");
    assert_eq!(says(&gateway, &ask("add")), "was there already\n");
    await_all(&gateway, &server, true);

    // Workers, rules, programs and supervisors come and go.
    for worker in &status.workers {
        signal(worker, Signal::SIGKILL);
    }
    gateway.await_status("replaced", |status| {
        all_up(status) && status.workers.iter().all(|it| it.restarts > 0)
    });
    await_all(&gateway, &server, true);
    reload(&gateway);
    await_all(&gateway, &server, true);
    upgrade(&gateway);
    await_all(&gateway, &server, true);
    // What no file has yet.
    let unsaved = |what: &'static str| [what, "seen", "ip", "2001:db8::9"];
    assert_eq!(says(&gateway, &unsaved("add")), "added\n");
    gateway.kill_supervisor();
    gateway.launch();
    await_all(&gateway, &server, true);
    assert_eq!(says(&gateway, &unsaved("lookup")), "found\n");
    let list = says(&gateway, &["list"]);
    assert!(list.contains("seen (ip): 2 values"), "{list}");

    // What was saved is there after a stop.
    let file = gateway.config.rules.data_directory.join("seen.lst");
    let dumped = says(&gateway, &["dump", "seen"]);
    assert!(dumped.ends_with("seen.lst: 2 values\n"), "{dumped}");
    let saved = || fs::read_to_string(&file).expect("the set");
    assert!(saved().contains(&client) && saved().contains("2001:db8::9\n"));
    assert_eq!(
        says(&gateway, &["add", "seen", "ip", "2001:db8::1"]),
        "added\n"
    );
    assert!(gateway.stop().success(), "{}", gateway.log());
    assert!(saved().contains("2001:db8::1\n"), "{}", saved());
    gateway.launch();
    await_all(&gateway, &server, true);
    assert_eq!(says(&gateway, &["clear", "seen"]), "3 values removed\n");
    await_all(&gateway, &server, false);

    for (arguments, said) in [
        (&["add", "sen", "ip", "192.0.2.1"][..], "have seen"),
        (&["add", "seen", "md5", "00"], "of type ip, not md5"),
        (&["add", "seen", "addresses", "x"], "sha256, ipv4"),
        (
            &["add", "seen", "ip", "192.0.2.256"],
            "an IPv4 or IPv6 address",
        ),
        (&["dump", "unseen"], "no set is called `unseen`"),
    ] {
        let output = dataset(&gateway, arguments);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains(said), "{arguments:?}: {error}");
    }
}
