//! Steering rules in real network namespaces: what is queued where, and what is left behind.
//!
//! Every test gives its own thread a fresh network namespace, which is gone with the thread.

mod in_place;
mod rig;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ips_common::{MarkLayout, Steer};
use sluice::netfilter::{Backend, Fail, Hook, Plan, install, leftovers, remove};
use sluice_tests::over::OverOnDrop;
use sluice_tests::patience::{PATIENCE, wait_until};
use sluice_tests::unnamed::{in_namespace, sh};

use crate::rig::{
    FOREIGN, arrives, await_connected, backends, crosses, listen, next_queue, plan, receiver,
    routed_network, rules, send, server_address, slipped,
};

const OTHER_PEOPLES_RULES: [(&str, &str); 6] = [
    ("nothing", ""),
    (
        "a firewall in nft",
        "nft -f - <<'X'
table inet filter {
    set blocked { type ipv4_addr; elements = { 192.0.2.1 } }
    chain forward { type filter hook forward priority 0; policy drop; ip saddr @blocked drop; ct state established accept; }
}
table ip6 sluices {
    chain steer { type filter hook forward priority 150; accept; }
}
X",
    ),
    (
        "a firewall in iptables",
        "iptables-nft -A FORWARD -s 192.0.2.1 -j DROP
         iptables-nft -N SLUICE-sluice2
         iptables-nft -t mangle -A FORWARD -m mark --mark 0x10/0xf0 -j RETURN
         ip6tables-nft -A FORWARD -s 2001:db8::1 -j ACCEPT
         ip6tables-nft -t mangle -A PREROUTING -j MARK --set-mark 7",
    ),
    (
        "rules in the same chain",
        "iptables-nft -t security -A FORWARD -s 192.0.2.1 -j DROP
         ip6tables-nft -t security -A FORWARD -s 2001:db8::1 -j DROP
         iptables-nft -t security -P INPUT DROP",
    ),
    (
        "rules in the same table only",
        "iptables-nft -t security -A INPUT -s 192.0.2.1 -j DROP
         iptables-nft -t security -N SLUICE-sluice-other
         iptables-nft -t security -A SLUICE-sluice-other -j RETURN
         ip6tables-nft -t mangle -A OUTPUT -d 2001:db8::1 -j DROP",
    ),
    (
        "the same table and chain, empty",
        "iptables-nft -t security -A FORWARD -j DROP; iptables-nft -t security -F FORWARD
         nft add table ip6 security",
    ),
];

#[test]
fn removal_leaves_other_peoples_rules_as_they_were() {
    in_namespace("removal", || {
        for backend in backends() {
            for (whose, script) in OTHER_PEOPLES_RULES {
                for (hook, workers) in [
                    (Hook::Forward, 2),
                    (Hook::Input, 40),
                    (Hook::Output, 9),
                    (Hook::Prerouting, 16),
                ] {
                    sh(&format!("nft flush ruleset\n{script}"));
                    let before = rules();
                    let installed = install(&Plan {
                        hook,
                        ..plan(workers, backend)
                    })
                    .unwrap();
                    assert_eq!(installed.backend, backend);
                    let during = rules();
                    for line in before.lines() {
                        assert!(during.contains(line), "{whose}: lost {line} in {during}");
                    }
                    assert!(!leftovers("sluice").unwrap().is_empty());
                    remove("sluice").unwrap();
                    assert_eq!(rules(), before, "{backend}, {hook}, {whose}");
                    assert_eq!(leftovers("sluice").unwrap(), []);
                    remove("sluice").unwrap();
                    assert_eq!(rules(), before, "second removal");
                }
            }
        }
    });
}

#[test]
fn leftovers_of_an_unclean_stop_are_replaced_whatever_they_were() {
    in_namespace("leftovers", || {
        let mut plans = Vec::new();
        for backend in backends() {
            plans.push(plan(40, backend));
            plans.push(Plan {
                hook: Hook::Input,
                mark: MarkLayout::new(0xfff0, 3).unwrap(),
                fail: Fail::Open,
                ..plan(3, backend)
            });
            plans.push(Plan {
                priority: -150,
                ..plan(12, backend)
            });
        }
        let count = plans.len();
        let every_pair = (0..count).flat_map(|first| (0..count).map(move |second| (first, second)));
        let some_pairs = (0..count).map(|first| (first, (first + 1) % count));
        // What others have matters less to a replacement than what we had.
        for ((whose, script), pairs) in [
            (OTHER_PEOPLES_RULES[0], every_pair.collect::<Vec<_>>()),
            (OTHER_PEOPLES_RULES[3], some_pairs.clone().collect()),
            (OTHER_PEOPLES_RULES[4], some_pairs.collect()),
        ] {
            sh(&format!("nft flush ruleset\n{script}"));
            let before = rules();
            for (first, second) in pairs.into_iter().map(|(a, b)| (&plans[a], &plans[b])) {
                install(first).unwrap();
                let installed = install(second).unwrap();
                let left = leftovers("sluice").unwrap();
                assert!(!left.is_empty());
                for each in &left {
                    assert_eq!(Some(each.backend), second.backend, "{each}");
                    assert!(installed.place.contains(&each.table), "{each}");
                }
                remove("sluice").unwrap();
                assert_eq!(rules(), before, "{whose}: {first:?} then {second:?}");
            }
        }
    });
}

#[test]
fn what_others_put_beside_our_rules_meanwhile_survives_the_removal() {
    in_namespace("meanwhile", || {
        install(&plan(2, Backend::IptablesNft)).unwrap();
        sh("iptables-nft -t security -A FORWARD -s 192.0.2.1 -j DROP
            ip6tables-nft -t security -A INPUT -s 2001:db8::1 -j DROP");
        remove("sluice").unwrap();
        let rules = rules();
        assert!(rules.contains("192.0.2.1"), "{rules}");
        assert!(rules.contains("2001:db8::1"), "{rules}");
        assert!(!rules.contains("SLUICE"), "{rules}");
    });
}

#[test]
fn instances_do_not_touch_each_other() {
    in_namespace("instances", || {
        for backend in backends() {
            let named = |instance: &str| Plan {
                instance: instance.to_owned(),
                ..plan(12, backend)
            };
            install(&named("a")).unwrap();
            let only_a = leftovers("a").unwrap();
            let others = [
                "a-1",
                "an-instance-with-a-long-name-1",
                "an-instance-with-a-long-name-2",
            ];
            for other in others {
                install(&named(other)).unwrap();
            }
            for other in others {
                remove(other).unwrap();
                assert_eq!(leftovers(other).unwrap(), []);
                assert_eq!(leftovers("a").unwrap(), only_a);
            }
            remove("a").unwrap();
            assert_eq!(rules(), "");
        }
    });
}

#[test]
fn without_a_choice_the_best_backend_that_works_is_taken_and_said_why() {
    in_namespace("choice", || {
        let best = backends()[0];
        let installed = install(&Plan {
            backend: None,
            ..plan(2, best)
        })
        .unwrap();
        assert_eq!(installed.backend, best);
        if best != Backend::Nft {
            assert!(
                installed.reason.contains("CONFIG_NFT_QUEUE"),
                "{installed:?}"
            );
        }
        remove("sluice").unwrap();
        assert_eq!(rules(), "");
    });
}

#[test]
fn a_rule_that_hides_packets_from_inspection_is_named() {
    in_namespace("warning", || {
        sh("iptables-nft -t security -A FORWARD -s 192.0.2.7 -j ACCEPT");
        let installed = install(&plan(2, Backend::IptablesNft)).unwrap();
        assert_eq!(installed.warnings.len(), 1, "{installed:?}");
        assert!(installed.warnings[0].contains("192.0.2.7"), "{installed:?}");
    });
}

#[test]
fn without_a_listener_open_passes_and_closed_drops_and_only_what_is_steered() {
    in_namespace("bypass", || {
        for backend in backends() {
            for (fail, passes) in [(Fail::Open, true), (Fail::Closed, false)] {
                let plan = Plan {
                    hook: Hook::Output,
                    fail,
                    ..plan(10, backend)
                };
                install(&plan).unwrap();
                for v6 in [false, true] {
                    for &(steer, _) in &plan.queues {
                        let mark = plan.mark.write(FOREIGN, steer);
                        assert_eq!(
                            arrives(mark, v6, passes),
                            passes,
                            "{backend} {fail:?} {steer:?} v6 {v6}"
                        );
                    }
                    for steer in [Steer::Unset, Steer::Bypass] {
                        let mark = plan.mark.write(FOREIGN, steer);
                        let arrived = arrives(mark, v6, true);
                        assert!(arrived, "{backend} {fail:?} {steer:?} v6 {v6}");
                    }
                }
                remove("sluice").unwrap();
            }
        }
    });
}

#[test]
fn every_decision_reaches_its_own_queue_in_both_families() {
    in_namespace("steering", || {
        for backend in backends() {
            for workers in [1, 2, 20] {
                let plan = Plan {
                    hook: Hook::Output,
                    ..plan(workers, backend)
                };
                install(&plan).unwrap();
                let mut queue = listen(&plan);
                for v6 in [false, true] {
                    let (socket, port) = receiver(v6);
                    for &(steer, number) in &plan.queues {
                        let mark = plan.mark.write(FOREIGN, steer);
                        send(mark, v6, port);
                        assert_eq!(
                            next_queue(&mut queue),
                            (number, mark),
                            "{backend} {steer:?} v6 {v6}"
                        );
                        assert!(socket.recv(&mut [0; 16]).is_ok(), "accepted, so it arrives");
                    }
                }
                remove("sluice").unwrap();
            }
        }
    });
}

#[test]
fn forwarded_packets_are_steered_after_the_firewall_let_them_through() {
    in_namespace("forward", || {
        let (client, server) = routed_network();
        await_connected(&client, &server);
        for backend in backends() {
            let plan = plan(2, backend);
            install(&plan).unwrap();
            let mut queue = listen(&plan);
            for v6 in [false, true] {
                for (port, queued, delivered) in [
                    (5004, None, false),
                    (5001, Some((100, 0x1_0000)), true),
                    (5002, Some((101, 0x2_0000)), true),
                    (5003, None, true),
                ] {
                    let to = server_address(v6, port);
                    let time = if delivered {
                        PATIENCE
                    } else {
                        Duration::from_millis(300)
                    };
                    let arrived = crosses(&client, &server, to, time, || {
                        if let Some(queued) = queued {
                            assert_eq!(next_queue(&mut queue), queued, "{backend} {to}");
                        }
                    });
                    assert_eq!(arrived, delivered, "{backend} {to}");
                    let error = queue.recv().err().map(|error| error.kind());
                    assert_eq!(error, Some(std::io::ErrorKind::WouldBlock), "{to}");
                }
            }
            remove("sluice").unwrap();
        }
    });
}

#[test]
fn replacing_the_rules_leaves_no_gap_that_a_packet_slips_through() {
    in_namespace("gap", || {
        for backend in backends() {
            let first = Plan {
                hook: Hook::Output,
                ..plan(2, backend)
            };
            let second = Plan {
                hook: Hook::Output,
                ..plan(12, backend)
            };
            install(&first).unwrap();
            let sending = OverOnDrop::default();
            let sent = Arc::new(AtomicU32::new(0));
            // A thread started here is in the same namespace.
            let sender = std::thread::spawn({
                let (done, sent) = (sending.watch(), Arc::clone(&sent));
                let mark = first.mark.bits(Steer::Worker(0));
                move || {
                    let (socket, port) = receiver(false);
                    while !done.is_over() {
                        send(mark, false, port);
                        sent.fetch_add(1, Ordering::Relaxed);
                    }
                    slipped(&socket)
                }
            });
            for _ in 0..10 {
                install(&second).unwrap();
                install(&first).unwrap();
            }
            let change = || {
                install(&second).unwrap();
                install(&first).unwrap();
                sent.load(Ordering::Relaxed) > 1000
            };
            wait_until(change, || format!("{sent:?} packets"));
            drop(sending);
            let slipped = sender.join().unwrap();
            assert_eq!(slipped, 0, "{backend}: of {sent:?}");
            remove("sluice").unwrap();
            let mark = first.mark.bits(Steer::Worker(0));
            let arrived = arrives(mark, false, true);
            assert!(arrived, "this test can see a packet at all");
        }
    });
}
