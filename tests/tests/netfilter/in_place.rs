//! Rules that change under traffic, the gate, and what is counted and noticed.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ips_common::{MarkLayout, Steer};
use nix::sys::socket::{setsockopt, sockopt};
use sluice::netfilter::{
    Backend, Fail, Gate, Hook, Plan, RuleWatch, close_gate, close_gate_beside, gate, install,
    is_intact, leftovers, open_gate, queue_counters, remove,
};
use sluice_tests::over::OverOnDrop;
use sluice_tests::patience::{PATIENCE, wait_until};
use sluice_tests::unnamed::{in_namespace, sh};

use crate::rig::{
    Neighbour, arrives, await_connected, backends, bind, crosses, listen, next_queue, plan,
    receiver, routed_network, rules, send, server_address, slipped,
};

/// The listing of chains and rules with their handles: equal means that nothing was touched.
fn handles() -> String {
    let listed = rules();
    assert!(listed.contains("# handle"), "{listed}");
    listed
}

/// The lines of base chains: name, handle, hook.
fn base_chains() -> Vec<String> {
    let listed = handles();
    let lines: Vec<_> = listed.lines().collect();
    lines
        .windows(2)
        .filter(|pair| pair[1].contains(" hook "))
        .map(<[&str]>::concat)
        .collect()
}

/// In nf_tables, so that handles show what was touched.
fn backends_with_handles() -> impl Iterator<Item = Backend> {
    let backends = backends().into_iter();
    backends.filter(|backend| *backend != Backend::IptablesLegacy)
}

fn plans(backend: Backend) -> Vec<Plan> {
    let mut plans: Vec<_> = [1, 2, 3, 9, 40, 2].map(|it| plan(it, backend)).into();
    plans.push(Plan {
        fail: Fail::Open,
        ..plan(2, backend)
    });
    plans.push(Plan {
        mark: MarkLayout::new(0xfff0, 3).unwrap(),
        ..plan(3, backend)
    });
    plans.push(Plan {
        interfaces: vec!["c".to_owned(), "s".to_owned()],
        ..plan(3, backend)
    });
    plans
}

#[test]
fn a_second_installation_of_the_same_plan_touches_nothing() {
    in_namespace("same", || {
        for backend in backends_with_handles() {
            for plan in plans(backend) {
                install(&plan).unwrap();
                let before = handles();
                let installed = install(&plan).unwrap();
                assert_eq!(handles(), before, "{plan:?}");
                assert!(is_intact(&installed).unwrap());
                close_gate(&plan).unwrap();
                let before = handles();
                close_gate(&plan).unwrap();
                close_gate_beside(&plan).unwrap();
                assert_eq!(handles(), before, "{plan:?}");
                remove("sluice").unwrap();
            }
        }
    });
}

#[test]
fn another_plan_takes_effect_without_a_new_base_chain() {
    in_namespace("change", || {
        for backend in backends_with_handles() {
            install(&plan(5, backend)).unwrap();
            let base = base_chains();
            assert!(!base.is_empty());
            for plan in plans(backend) {
                install(&plan).unwrap();
                assert_eq!(base_chains(), base, "{plan:?}");
                let fresh = rules_of(&plan);
                close_gate(&plan).unwrap();
                assert_eq!(base_chains(), base, "{plan:?}");
                install(&plan).unwrap();
                assert_eq!(base_chains(), base, "{plan:?}");
                assert_eq!(rules_of(&plan), fresh);
            }
            remove("sluice").unwrap();
            assert_eq!(rules(), "");
        }
    });
}

/// What an instance's rules say, sorted, so that the way to them does not matter.
fn rules_of(plan: &Plan) -> Vec<String> {
    let listed = match plan.backend {
        Some(Backend::Nft) => sh("nft list ruleset"),
        _ => sh("iptables-nft-save -t security; ip6tables-nft-save -t security"),
    };
    let ours = |line: &&str| line.starts_with("-A") || line.contains("queue");
    let mut lines: Vec<_> = listed.lines().filter(ours).map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn whatever_was_there_before_a_plan_is_installed_as_if_nothing_had_been() {
    in_namespace("as-new", || {
        for backend in backends_with_handles() {
            for to in plans(backend) {
                install(&to).unwrap();
                let fresh = rules_of(&to);
                remove("sluice").unwrap();
                for from in plans(backend) {
                    install(&from).unwrap();
                    install(&to).unwrap();
                    assert_eq!(rules_of(&to), fresh, "{from:?}");
                    remove("sluice").unwrap();
                }
            }
        }
    });
}

#[test]
fn packets_that_wait_in_a_queue_survive_every_change_of_the_rules() {
    in_namespace("waiting", || {
        for backend in backends() {
            let first = Plan {
                hook: Hook::Output,
                ..plan(2, backend)
            };
            install(&first).unwrap();
            let mut queue = listen(&first);
            let (socket, port) = receiver(false);
            let mark = first.mark.bits(Steer::Worker(1));
            for to in plans(backend) {
                send(mark, false, port);
                let to = Plan {
                    hook: Hook::Output,
                    ..to
                };
                install(&to).unwrap();
                // The one that was queued before is still there.
                assert_eq!(next_queue(&mut queue), (101, mark), "{backend} {to:?}");
                assert!(socket.recv(&mut [0; 16]).is_ok(), "{backend} {to:?}");
                install(&first).unwrap();
            }
            remove("sluice").unwrap();
        }
    });
}

#[test]
fn rules_count_the_packets_of_each_queue_and_go_on_counting_after_a_change() {
    in_namespace("counters", || {
        for backend in backends() {
            let first = Plan {
                hook: Hook::Output,
                fail: Fail::Open,
                ..plan(2, backend)
            };
            let installed = install(&first).unwrap();
            let (_socket, port) = receiver(false);
            let (_socket6, port6) = receiver(true);
            // Nobody listens: they pass, and are counted all the same.
            for (steer, packets) in [(Steer::Worker(0), 5), (Steer::Backup, 2)] {
                for _ in 0..packets {
                    send(first.mark.bits(steer), false, port);
                    send(first.mark.bits(steer), true, port6);
                }
            }
            let counted = queue_counters(&installed).unwrap();
            let expected = [(99, 4), (100, 10), (101, 0)].into();
            assert_eq!(counted, expected, "{backend}");
            // The rules themselves change: ip6tables-nft takes no counters (1.8.9), so those of
            // IPv6 may begin anew.
            let closed = |workers| Plan {
                hook: Hook::Output,
                ..plan(workers, backend)
            };
            let installed = install(&closed(2)).unwrap();
            let changed = queue_counters(&installed).unwrap();
            let kept = |queue| changed[&queue] == counted[&queue];
            let halved = |queue| changed[&queue] * 2 == counted[&queue];
            assert!(
                kept(99) && kept(100) || halved(99) && halved(100),
                "{changed:?}"
            );
            // Now they do not.
            let installed = install(&closed(6)).unwrap();
            let more = queue_counters(&installed).unwrap();
            assert_eq!(more.len(), 7);
            for (queue, packets) in &changed {
                assert_eq!(more[queue], *packets, "{backend} {more:?}");
            }
            remove("sluice").unwrap();
            assert_eq!(queue_counters(&installed).unwrap(), [].into(), "{backend}");
        }
    });
}

/// Whether a datagram with this mark crosses; the firewall marks by destination port.
fn passes(client: &Neighbour, server: &Neighbour, v6: bool, port: u16) -> bool {
    let to = server_address(v6, port);
    // A drop shall not be a lost neighbour request.
    (0..2).any(|_| crosses(client, server, to, Duration::from_secs(5), || {}))
}

/// Whether none does.
fn is_dropped(client: &Neighbour, server: &Neighbour, v6: bool, port: u16) -> bool {
    let to = server_address(v6, port);
    (0..2).all(|_| !crosses(client, server, to, Duration::from_millis(250), || {}))
}

const UNMARKED: u16 = 5000;
const WORKER: u16 = 5001;
const BYPASS: u16 = 5003;

#[test]
fn a_gate_drops_what_carries_no_decision_and_came_by_a_steered_interface() {
    in_namespace("gate", || {
        let (client, server) = routed_network();
        await_connected(&client, &server);
        for backend in backends() {
            let closed = plan(2, backend);
            assert_eq!(closed.interfaces, ["c"]);
            for v6 in [false, true] {
                let crosses = |port| passes(&client, &server, v6, port);
                let is_dropped = |port| is_dropped(&client, &server, v6, port);
                install(&closed).unwrap();
                assert!(is_dropped(UNMARKED), "{backend} v6 {v6}");
                assert!(is_dropped(WORKER), "nobody listens: {backend} v6 {v6}");
                assert!(crosses(BYPASS), "{backend} v6 {v6}");
                // The server's side is not steered, nor is this host itself.
                let other_way = server_to_client(&client, &server, v6);
                assert!(other_way, "{backend} v6 {v6}");
                assert!(arrives(0, v6, true), "{backend} v6 {v6}");
                let found = gate("sluice").unwrap().expect("a gate");
                assert!(found.dropped >= 2 && found.queues, "{found:?}");

                close_gate(&closed).unwrap().expect("a gate");
                for port in [UNMARKED, WORKER, BYPASS] {
                    assert!(is_dropped(port), "gate alone: {backend} v6 {v6} {port}");
                }
                assert!(server_to_client(&client, &server, v6), "{backend} v6 {v6}");
                assert!(arrives(0, v6, true), "{backend} v6 {v6}");
                let found = gate("sluice").unwrap().expect("a gate");
                assert!(!found.queues && found.interfaces == ["c".to_owned()].into());

                let open = Plan {
                    fail: Fail::Open,
                    ..closed.clone()
                };
                assert_eq!(close_gate(&open).unwrap(), None, "no gate with fail open");
                assert!(gate("sluice").unwrap().is_some(), "and none is opened");
                install(&open).unwrap();
                assert_eq!(gate("sluice").unwrap(), None);
                for port in [UNMARKED, WORKER, BYPASS] {
                    assert!(crosses(port), "open: {backend} v6 {v6} {port}");
                }
                open_gate("sluice").unwrap();
                assert_eq!(leftovers("sluice").unwrap(), []);
                assert!(crosses(UNMARKED), "{backend} v6 {v6}");
            }
        }
    });
}

/// The other direction, from an interface that is not steered.
fn server_to_client(client: &Neighbour, server: &Neighbour, v6: bool) -> bool {
    let (to, from) = if v6 {
        ("[fd00:1::2]:6000", "[::]:0")
    } else {
        ("10.0.1.2:6000", "0.0.0.0:0")
    };
    let socket = client.run(move || bind(6000, v6));
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    server.run(move || {
        let socket = UdpSocket::bind(from).unwrap();
        socket.send_to(b"sluice", to).unwrap();
    });
    socket.recv(&mut [0; 16]).is_ok()
}

#[test]
fn a_gate_beside_the_rules_of_a_former_run_leaves_its_workers_their_packets() {
    in_namespace("beside", || {
        let (client, server) = routed_network();
        await_connected(&client, &server);
        for backend in backends() {
            let former = Plan {
                fail: Fail::Open,
                ..plan(2, backend)
            };
            install(&former).unwrap();
            // The new configuration has another mask, other workers, and fails closed.
            let now = Plan {
                mark: MarkLayout::new(0xff00, 3).unwrap(),
                ..plan(3, backend)
            };
            close_gate_beside(&now).unwrap().expect("a gate");
            for v6 in [false, true] {
                let is_dropped = |port| is_dropped(&client, &server, v6, port);
                assert!(is_dropped(UNMARKED), "{backend} v6 {v6}");
                assert!(is_dropped(WORKER), "nobody listens: {backend} v6 {v6}");
                let bypasses = passes(&client, &server, v6, BYPASS);
                assert!(bypasses, "{backend} v6 {v6}");
                let mut queue = listen(&former);
                let to = server_address(v6, WORKER);
                let crossed = crosses(&client, &server, to, PATIENCE, || {
                    let queued = next_queue(&mut queue);
                    assert_eq!(queued, (100, 0x1_0000), "{backend} v6 {v6}");
                });
                assert!(crossed, "{backend} v6 {v6}");
            }
            remove("sluice").unwrap();
        }
    });
}

#[test]
fn with_the_output_hook_there_is_no_gate_and_a_warning_says_so() {
    in_namespace("output", || {
        for backend in backends() {
            let plan = Plan {
                hook: Hook::Output,
                ..plan(2, backend)
            };
            let installed = install(&plan).unwrap();
            let warned = installed.warnings.iter().any(|it| it.contains("output"));
            assert!(warned, "{installed:?}");
            assert_eq!(gate("sluice").unwrap(), None);
            assert_eq!(close_gate(&plan).unwrap(), None);
            remove("sluice").unwrap();
        }
    });
}

#[test]
fn with_the_input_and_prerouting_hooks_a_gate_is_for_the_host_as_well() {
    in_namespace("hooks", || {
        for backend in backends() {
            for hook in [Hook::Input, Hook::Prerouting] {
                let mut plan = Plan {
                    hook,
                    ..plan(2, backend)
                };
                close_gate(&plan).unwrap().expect("a gate");
                assert!(
                    arrives(0, false, true),
                    "loopback is not steered: {backend} {hook}"
                );
                plan.interfaces = vec!["lo".to_owned()];
                close_gate(&plan).unwrap().expect("a gate");
                let found = gate("sluice").unwrap().expect("a gate");
                assert_eq!(
                    (found.interfaces, found.queues),
                    (["lo".to_owned()].into(), false)
                );
                for v6 in [false, true] {
                    assert!(!arrives(0, v6, false), "{backend} {hook} v6 {v6}");
                }
                remove("sluice").unwrap();
                assert!(arrives(0, false, true));
            }
        }
    });
}

#[test]
fn going_between_rules_and_a_gate_alone_leaves_no_gap_that_a_packet_slips_through() {
    in_namespace("gate-gap", || {
        for backend in backends() {
            let full = Plan {
                hook: Hook::Input,
                interfaces: vec!["lo".to_owned()],
                ..plan(2, backend)
            };
            close_gate(&full).unwrap().expect("a gate");
            let (socket, port) = receiver(false);
            let mark = full.mark.bits(Steer::Worker(0));
            let sending = OverOnDrop::default();
            let sent = Arc::new(AtomicU32::new(0));
            let sender = std::thread::spawn({
                let (done, sent) = (sending.watch(), Arc::clone(&sent));
                move || {
                    let from = UdpSocket::bind("127.0.0.1:0").unwrap();
                    while !done.is_over() {
                        // Marked and unmarked in turn.
                        let number = sent.fetch_add(1, Ordering::Relaxed);
                        setsockopt(&from, sockopt::Mark, &(mark * (number & 1))).unwrap();
                        let _ = from.send_to(b"sluice", ("127.0.0.1", port));
                    }
                }
            });
            let began = Instant::now();
            let change = || {
                install(&full).unwrap();
                close_gate(&full).unwrap();
                let enough = sent.load(Ordering::Relaxed) > 1000;
                enough && began.elapsed() >= Duration::from_millis(400)
            };
            wait_until(change, || format!("{sent:?} packets"));
            drop(sending);
            sender.join().unwrap();
            assert_eq!(slipped(&socket), 0, "{backend}: of {sent:?}");
            remove("sluice").unwrap();
        }
    });
}

#[test]
fn a_flush_is_heard_and_seen_and_mended() {
    in_namespace("flush", || {
        let watch = RuleWatch::open().unwrap();
        for backend in backends() {
            for flush in ["nft flush ruleset", "iptables-nft -t security -F"] {
                let plan = plan(2, backend);
                let installed = install(&plan).unwrap();
                watch.has_changed();
                assert!(!watch.has_changed(), "nothing has happened");
                assert!(is_intact(&installed).unwrap());
                sh(flush);
                let harmed = match backend {
                    Backend::IptablesNft => true,
                    Backend::Nft => flush == "nft flush ruleset",
                    _ => false,
                };
                if harmed {
                    assert!(watch.has_changed(), "{backend}: {flush}");
                }
                assert_eq!(
                    is_intact(&installed).unwrap(),
                    !harmed,
                    "{backend}: {flush}"
                );
                let again = install(&plan).unwrap();
                assert!(is_intact(&again).unwrap());
                remove("sluice").unwrap();
            }
        }
        // Of the legacy tables nothing is heard, but it is seen.
        let installed = install(&plan(2, Backend::IptablesLegacy)).unwrap();
        sh("iptables-legacy -t security -F");
        assert!(!is_intact(&installed).unwrap());
        remove("sluice").unwrap();
        assert_eq!(gate("sluice").unwrap(), None::<Gate>);
    });
}
