//! Steering rules in real network namespaces: what is queued where, and what is left behind.
//!
//! Every test gives its own thread a fresh network namespace, which is gone with the thread.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use ips_common::{MarkLayout, Steer};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{setsockopt, sockopt};
use sluice::netfilter::{Backend, DEFAULT_PRIORITY, Fail, Hook, Plan, install, leftovers, remove};
use sluice_tests::unnamed::{in_namespace, sh};

const MASK: u32 = 0x00ff_0000;
/// Bits that belong to somebody else.
const FOREIGN: u32 = 0x8000_0007;

/// All rules of nf_tables with their handles, without counters.
fn rules() -> String {
    sh("nft -s -a list ruleset 2>/dev/null")
}

fn plan(workers: u32, backend: Backend) -> Plan {
    let mut queues: Vec<_> = (0..workers)
        .map(|index| (Steer::Worker(index), 100 + u16::try_from(index).unwrap()))
        .collect();
    queues.push((Steer::Backup, 99));
    Plan {
        instance: "sluice".to_owned(),
        hook: Hook::Forward,
        priority: DEFAULT_PRIORITY,
        mark: MarkLayout::new(MASK, workers).unwrap(),
        queues,
        interfaces: vec!["c".to_owned()],
        fail: Fail::Closed,
        backend: Some(backend),
    }
}

/// The backends that this kernel can run, best first.
fn backends() -> Vec<Backend> {
    let mut usable = vec![Backend::IptablesNft, Backend::IptablesLegacy];
    match install(&plan(1, Backend::Nft)) {
        Ok(_) => {
            remove("sluice").unwrap();
            usable.insert(0, Backend::Nft);
        }
        Err(error) => println!("skipped: backend nft: {error}"),
    }
    usable
}

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

fn any(v6: bool) -> IpAddr {
    if v6 {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    }
}

fn localhost(v6: bool) -> IpAddr {
    if v6 {
        Ipv6Addr::LOCALHOST.into()
    } else {
        Ipv4Addr::LOCALHOST.into()
    }
}

/// Sends one datagram with a mark to ourselves. An error is a dropped packet's, and whether
/// it was dropped is asked of the receiver.
fn send(mark: u32, v6: bool, port: u16) {
    let socket = UdpSocket::bind((localhost(v6), 0)).unwrap();
    setsockopt(&socket, sockopt::Mark, &mark).unwrap();
    let _ = socket.send_to(b"sluice", (localhost(v6), port));
}

fn receiver(v6: bool) -> (UdpSocket, u16) {
    let socket = UdpSocket::bind((localhost(v6), 0)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(60)))
        .unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

fn arrives(mark: u32, v6: bool) -> bool {
    let (socket, port) = receiver(v6);
    send(mark, v6, port);
    socket.recv(&mut [0; 16]).is_ok()
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
                            arrives(mark, v6),
                            passes,
                            "{backend} {fail:?} {steer:?} v6 {v6}"
                        );
                    }
                    for steer in [Steer::Unset, Steer::Bypass] {
                        let mark = plan.mark.write(FOREIGN, steer);
                        assert!(arrives(mark, v6), "{backend} {fail:?} {steer:?} v6 {v6}");
                    }
                }
                remove("sluice").unwrap();
            }
        }
    });
}

/// Accepts the next packet: the queue it came to, and its mark.
fn next_queue(queue: &mut nfq::Queue) -> Option<(u16, u32)> {
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline {
        match queue.recv() {
            Ok(mut message) => {
                let found = (message.get_queue_num(), message.get_nfmark());
                message.set_verdict(nfq::Verdict::Accept);
                queue.verdict(message).unwrap();
                return Some(found);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => panic!("{error}"),
        }
    }
    None
}

fn listen(plan: &Plan) -> nfq::Queue {
    let mut queue = nfq::Queue::open().unwrap();
    for &(_, number) in &plan.queues {
        queue.bind(number).unwrap();
    }
    queue.set_nonblocking(true);
    queue
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
                            Some((number, mark)),
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

type Job = Box<dyn FnOnce() + Send>;

/// A thread with a namespace of its own that lives until this is dropped.
struct Neighbour {
    jobs: mpsc::Sender<Job>,
    tid: i32,
}

impl Neighbour {
    fn new() -> Self {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (ready, is_ready) = mpsc::channel();
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            ready.send(nix::unistd::gettid().as_raw()).unwrap();
            queue.into_iter().for_each(|job| job());
        });
        Self {
            jobs,
            tid: is_ready.recv().unwrap(),
        }
    }

    fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, is_done) = mpsc::channel();
        self.jobs
            .send(Box::new(move || {
                let _ = done.send(job());
            }))
            .unwrap();
        is_done.recv().unwrap()
    }
}

/// A routed network client – here – server, where a firewall marks UDP by destination port
/// and drops port 5004 in its forward chain.
fn routed_network() -> (Neighbour, Neighbour) {
    let (client, server) = (Neighbour::new(), Neighbour::new());
    for (name, neighbour, net) in [("c", &client, 1), ("s", &server, 2)] {
        // While its link-local address is tentative, a router asks for no neighbour.
        sh(&format!(
            "ip link add {name} type veth peer name eth netns {tid}
             ip addr add 10.0.{net}.1/24 dev {name}
             ip addr add fd00:{net}::1/64 dev {name} nodad
             echo 0 > /proc/sys/net/ipv6/conf/{name}/accept_dad
             ip link set {name} up",
            tid = neighbour.tid
        ));
        neighbour.run(move || {
            sh(&format!(
                "ip addr add 10.0.{net}.2/24 dev eth
                 ip addr add fd00:{net}::2/64 dev eth nodad
                 echo 0 > /proc/sys/net/ipv6/conf/eth/accept_dad
                 ip link set eth up
                 ip route add default via 10.0.{net}.1
                 ip route add default via fd00:{net}::1"
            ));
        });
    }
    sh("echo 1 > /proc/sys/net/ipv4/ip_forward
        echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
        nft -f - <<'X'
table inet test {
    chain marking {
        type filter hook prerouting priority -300;
        meta mark set udp dport map { 5001 : 0x10000, 5002 : 0x20000, 5003 : 0xff0000, 5004 : 0x10000 }
    }
    chain firewall {
        type filter hook forward priority 0;
        udp dport 5004 drop
    }
}
X");
    (client, server)
}

fn server_address(v6: bool, port: u16) -> SocketAddr {
    if v6 {
        (Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 2), port).into()
    } else {
        (Ipv4Addr::new(10, 0, 2, 2), port).into()
    }
}

/// Sends a datagram from the client; whether the server got it in time.
fn crosses(
    client: &Neighbour,
    server: &Neighbour,
    to: SocketAddr,
    time: Duration,
    on_the_way: impl FnOnce(),
) -> bool {
    let v6 = to.is_ipv6();
    let socket = server.run(move || UdpSocket::bind((any(v6), to.port())).unwrap());
    socket.set_read_timeout(Some(time)).unwrap();
    client.run(move || {
        let socket = UdpSocket::bind((any(v6), 0)).unwrap();
        socket.send_to(b"sluice", to).unwrap();
    });
    on_the_way();
    socket.recv(&mut [0; 16]).is_ok()
}

#[test]
fn forwarded_packets_are_steered_after_the_firewall_let_them_through() {
    in_namespace("forward", || {
        let (client, server) = routed_network();
        // A link becomes usable some time after `ip link` has returned, and a neighbour that
        // was asked for too early is asked for again only a second later.
        for v6 in [false, true] {
            let to = server_address(v6, 5000);
            let connected =
                (0..100).any(|_| crosses(&client, &server, to, Duration::from_millis(100), || {}));
            assert!(connected, "{to} is never reached");
        }
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
                    let time = Duration::from_millis(if delivered { 5000 } else { 300 });
                    let arrived = crosses(&client, &server, to, time, || {
                        if queued.is_some() {
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
            let done = Arc::new(AtomicBool::new(false));
            // A thread started here is in the same namespace.
            let sender = std::thread::spawn({
                let done = Arc::clone(&done);
                let mark = first.mark.bits(Steer::Worker(0));
                move || {
                    let (socket, port) = receiver(false);
                    let mut sent = 0u32;
                    while !done.load(Ordering::Relaxed) {
                        send(mark, false, port);
                        sent += 1;
                    }
                    let slipped = std::iter::from_fn(|| socket.recv(&mut [0; 16]).ok()).count();
                    (sent, slipped)
                }
            });
            for _ in 0..10 {
                install(&second).unwrap();
                install(&first).unwrap();
            }
            done.store(true, Ordering::Relaxed);
            let (sent, slipped) = sender.join().unwrap();
            assert!(sent > 1000, "{sent}");
            assert_eq!(slipped, 0, "{backend}: of {sent}");
            remove("sluice").unwrap();
            let mark = first.mark.bits(Steer::Worker(0));
            assert!(arrives(mark, false), "this test can see a packet at all");
        }
    });
}
