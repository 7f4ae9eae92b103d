//! Attempts to get an attack past the gateway, and their benign twins: a crafted sender, a
//! gateway with one drop rule, and real sockets of a Linux host that tell what arrived.
//!
//! Each case is played three times: without Sluice (what its receiver refuses by itself is left
//! out), with the attack, and with its twin. See `docs/evasion.md`.

mod case;
mod families;
mod receiver;
mod report;
#[expect(dead_code, reason = "the tests of the gateway use the rest of it")]
#[path = "../gateway/rig.rs"]
mod rig;
mod segment;
mod sender;
mod wire;

use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice::exception::ExceptionPolicy;
use sluice::metrics::board::Cell;
use sluice_tests::{Lab, LabOptions, require_queues};

use case::{ATTACK, BENIGN, Case, Listener};
use receiver::Receiver;
use report::{Mode, Outcome, Report};
use rig::Gateway;
use sender::{Play, Sender};

/// How long after its last packet an attack may still arrive.
const ATTACK_MAY_TAKE: Duration = Duration::from_millis(400);
/// And its twin: whoever shares the machine shall not count as harm.
const TWIN_MAY_TAKE: Duration = Duration::from_millis(2500);

/// How far into a stream the engine is told to look at all.
const DEPTH: u64 = 16 << 10;

#[test]
fn no_attack_arrives_and_every_ordinary_twin_does() {
    require_queues!();
    let cases = families::all();
    let mut report = Report::default();
    for mode in [Mode::Untracked, Mode::Tracked, Mode::OneWorker] {
        let began = Instant::now();
        let outcomes = run(&cases, mode);
        report.add(mode, outcomes, began.elapsed());
    }
    report.show();
    report.write();
    report.assert();
}

/// Plays every case three times.
fn run(cases: &[Case], mode: Mode) -> Vec<Outcome> {
    let lab = Arc::new(
        Lab::new(&LabOptions {
            router: true,
            ..LabOptions::default()
        })
        .expect("a lab"),
    );
    // Fast open, also without a cookie (0x200): where it is asked for only.
    lab.server()
        .sysctl("net/ipv4/tcp_fastopen", "515")
        .expect("a sysctl");
    for namespace in [lab.gateway(), lab.server()] {
        // Fragments of many datagrams at once come from our one address.
        (namespace.sysctl("net/ipv4/ipfrag_max_dist", "0")).expect("a sysctl");
    }
    if mode == Mode::Tracked {
        for program in ["iptables", "ip6tables"] {
            let rule = ["-w", "-A", "FORWARD", "-m", "conntrack", "--ctstate", "NEW"];
            lab.gateway().run(program, &rule).expect("a rule");
        }
    }
    let receiver = Receiver::start(lab.server()).expect("a receiver");
    let mut sender = Sender::new(&lab).expect("a sender");

    let cases: Vec<&Case> = cases.iter().filter(|case| mode.plays(case)).collect();
    let mut plain: Vec<Play<'_>> = cases
        .iter()
        .map(|case| sender.prepare(case, ATTACK, ATTACK_MAY_TAKE))
        .collect();
    sender.play(&mut plain, &receiver, false).expect("packets");

    let mut plays: Vec<Play<'_>> = Vec::new();
    for case in &cases {
        plays.push(sender.prepare(case, ATTACK, ATTACK_MAY_TAKE));
        let patience = match mode.is_ordinary(case) {
            true => TWIN_MAY_TAKE,
            false => ATTACK_MAY_TAKE,
        };
        plays.push(sender.prepare(case, BENIGN, patience));
    }
    // Those that begin before the inspection come first.
    plays.sort_by_key(|play| !Play::begins_before(play.case));
    let before = plays
        .iter()
        .filter(|play| Play::begins_before(play.case))
        .count();
    sender
        .play(&mut plays[..before], &receiver, true)
        .expect("packets");
    let mut gateway = Gateway::prepare(&lab, |setup| {
        setup.rules = rules();
        let reassembly = &mut setup.config.engine.stream.reassembly;
        reassembly.depth = sluice::config::settings::ByteSize(DEPTH);
        // Not seen is not let through: nothing else would be a fault of the inspection.
        setup.config.exceptions.overload = ExceptionPolicy::DropPacket;
        if mode == Mode::OneWorker {
            setup.config.workers.count = 1;
            setup.config.exceptions.fragment_order = ExceptionPolicy::Ignore;
        }
    });
    gateway.launch();
    sender.play(&mut plays, &receiver, true).expect("packets");
    // On a busy machine an answer comes late or a packet is shed. That is no harm by design: who
    // is harmed is harmed again.
    plays.sort_by_key(|play| play.port);
    let mut again = Vec::new();
    for (plain, pair) in plain.iter().zip(plays.chunks(2)) {
        let twin = &pair[1];
        let began = !Play::begins_before(plain.case);
        if began && plain.arrived && mode.is_ordinary(plain.case) && !twin.arrived {
            again.push(sender.prepare(plain.case, BENIGN, TWIN_MAY_TAKE));
        }
    }
    sender.play(&mut again, &receiver, false).expect("packets");
    for second in &again {
        println!("played twice: {}", second.case.title());
    }
    // A fault that comes and goes is one, too.
    assert!(
        again.len() * 50 <= cases.len(),
        "{} of {} did not arrive at once",
        again.len(),
        cases.len()
    );
    let shed = gateway.await_settled().total(Cell::Shed);
    println!("{}: {shed} packets shed", mode.name());
    let status = gateway.stop();
    assert!(status.success(), "{}", gateway.log());

    let outcomes = plain.iter().zip(plays.chunks(2)).map(|(plain, pair)| {
        let [attack, twin] = pair else {
            panic!("each case is played with both texts");
        };
        assert!(attack.text == ATTACK && twin.text == BENIGN);
        Outcome {
            family: plain.case.family,
            title: plain.case.title(),
            ordinary: mode.is_ordinary(plain.case),
            delivered: plain.arrived,
            // Nothing may arrive late, either.
            evaded: attack.arrived || receiver.has(attack.port, ATTACK),
            twin_arrived: twin.arrived
                || receiver.has(twin.port, BENIGN)
                || (again.iter()).any(|it| std::ptr::eq(it.case, plain.case) && it.arrived),
            got: attack.got.clone(),
            twin_got: twin.got.clone(),
        }
    });
    outcomes.collect()
}

fn rules() -> String {
    let attack = ATTACK
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<Vec<_>>()
        .join(" ");
    let mut rules = String::new();
    let mut sid = 0;
    for listener in Listener::ALL {
        let protocol = match listener {
            Listener::Datagrams => "udp",
            _ => "tcp",
        };
        for by_flow in [false, true] {
            let flow = match (by_flow, protocol) {
                (false, _) => "",
                (true, "tcp") => "flow:established,to_server; ",
                // Nobody answers, so it is not established.
                (true, _) => "flow:to_server; ",
            };
            sid += 1;
            let port = listener.port(by_flow);
            rules += &format!(
                "drop {protocol} any any -> any {port} (msg:\"attack\"; {flow}content:\"|{attack}|\"; sid:{sid};)\n"
            );
        }
    }
    rules
}
