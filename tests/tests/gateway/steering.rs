//! Where packets go. The evidence is the kernel's: it numbers the packets of each queue, so the
//! numbers before and after one flow's traffic tell which queue every packet went through.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use sluice::supervisor::seat::Seat;
use sluice_tests::datagram::{Replier, RequestPlan, Requester};
use sluice_tests::icmp::ping;
use sluice_tests::patience::wait_until;
use sluice_tests::stream::{Echo, exchange};
use sluice_tests::{Lab, Side, require_queues, skip_if};

use crate::rig::{Gateway, PATIENCE, lab};

const WORKERS: u32 = 4;
/// Requests of one UDP flow; each is answered.
const REQUESTS: u32 = 3;

fn four_workers() -> Gateway {
    Gateway::start(|setup| setup.config.workers.count = WORKERS)
}

/// Fails unless all packets of a flow went through one queue, and returns it.
fn one_queue(what: &str, through: &BTreeMap<u16, u32>) -> u16 {
    let queues: Vec<_> = through.keys().collect();
    assert_eq!(queues.len(), 1, "{what} went through {through:?}");
    *queues[0]
}

/// Fails unless the flows went to more than one worker and none to the backup: then that each
/// flow stayed together was no matter of course.
fn spread(gateway: &Gateway, queues: &[u16]) {
    let mut different = queues.to_vec();
    different.sort_unstable();
    different.dedup();
    println!("queues of {} flows: {queues:?}", queues.len());
    assert!(different.len() > 1, "all flows in queue {different:?}");
    let backup = gateway.config.queue_number(Seat::Backup);
    assert!(!different.contains(&backup), "the backup got a flow");
}

fn request(gateway: &Gateway, plan: RequestPlan) {
    let report = Requester::run(gateway.lab.client(), plan).expect("requests");
    assert_eq!((report.lost, report.corrupt), (0, 0), "{report:?}");
}

/// A UDP socket in the client, connected.
fn udp_socket(gateway: &Gateway, to: SocketAddr) -> UdpSocket {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = gateway.lab.client().enter(|| UdpSocket::bind((any, 0)));
    let socket = socket.expect("a UDP socket");
    socket.connect(to).expect("connect");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket
}

/// Waits until the server has nothing left of its connections: no packet of theirs comes any more.
fn await_closed(gateway: &Gateway) {
    const LISTENS: &str = "0A";
    let open = || {
        let sockets = ["tcp", "tcp6"].map(|file| gateway.lab.server().proc_net(file));
        let sockets = sockets
            .map(|text| text.expect("the server's sockets"))
            .concat();
        let states = sockets
            .lines()
            .filter_map(|line| line.split_whitespace().nth(3));
        states.filter(|it| !matches!(*it, "st" | LISTENS)).count()
    };
    wait_until(|| open() == 0, || format!("{} are open", open()));
    gateway.await_settled();
}

#[test]
fn both_directions_of_a_udp_flow_reach_the_same_worker() {
    require_queues!();
    let gateway = four_workers();
    for address in gateway.lab.server_addresses() {
        let replier = Replier::start(gateway.lab.server(), address, 0).expect("a server");
        let mut queues = Vec::new();
        for _ in 0..24 {
            let plan = RequestPlan {
                requests: REQUESTS.into(),
                interval: Duration::ZERO,
                ..RequestPlan::to(replier.address())
            };
            let through = gateway.through(|| request(&gateway, plan));
            let queue = one_queue("a UDP flow", &through);
            assert_eq!(through[&queue], 2 * REQUESTS, "every packet is queued once");
            queues.push(queue);
        }
        spread(&gateway, &queues);
    }
}

#[test]
fn both_directions_of_a_tcp_connection_reach_the_same_worker() {
    require_queues!();
    let gateway = four_workers();
    for address in gateway.lab.server_addresses() {
        let echo = Echo::start(gateway.lab.server(), address, 0).expect("a server");
        let mut queues = Vec::new();
        for _ in 0..8 {
            let through = gateway.through(|| {
                let request = b"the same bytes come back";
                let answer = exchange(gateway.lab.client(), echo.address(), request, PATIENCE);
                assert_eq!(answer.expect("an answer"), request);
                await_closed(&gateway);
            });
            let queue = one_queue("a TCP connection", &through);
            // Handshake, request, reply, closing: four packets from each end.
            assert!(through[&queue] >= 7, "{through:?}");
            queues.push(queue);
        }
        spread(&gateway, &queues);
    }
}

#[test]
fn both_directions_of_pings_reach_the_same_worker() {
    require_queues!();
    let gateway = four_workers();
    for address in gateway.lab.server_addresses() {
        let through = gateway.through(|| {
            let answered = ping(gateway.lab.client(), address, 5, 56, PATIENCE);
            assert_eq!(answered.expect("ping"), 5);
        });
        let queue = one_queue("echo requests and replies", &through);
        assert_eq!(through[&queue], 10);
    }
}

#[test]
fn flows_spread_evenly_over_the_workers_and_leave_the_backup_idle() {
    require_queues!();
    let gateway = four_workers();
    let replier = Replier::start(gateway.lab.server(), gateway.lab.server_v6().into(), 0);
    let replier = replier.expect("a server");
    let flows = 240;
    let plan = RequestPlan {
        flows,
        requests: flows as u64,
        ..RequestPlan::to(replier.address())
    };
    let through = gateway.through(|| request(&gateway, plan));
    println!("packets through each queue: {through:?}");
    assert_eq!(through.len(), WORKERS as usize, "{through:?}");
    for worker in 0..WORKERS {
        // Two packets a flow. A fair die with four sides gives 60 of 240 throws, and stays
        // between 25 and 100 but for one time in 10^6.
        let packets = through[&gateway.config.queue_number(Seat::Worker(worker))];
        assert!((50..=200).contains(&packets), "{through:?}");
    }
    assert_eq!(through.values().sum::<u32>(), 2 * flows as u32);
}

#[test]
fn the_fragments_of_a_datagram_reach_the_worker_of_its_flow() {
    require_queues!();
    let gateway = four_workers();
    for address in gateway.lab.server_addresses() {
        let replier = Replier::start(gateway.lab.server(), address, 0).expect("a server");
        let before = gateway.status().counters;
        let mut queues = Vec::new();
        for _ in 0..10 {
            let socket = udp_socket(&gateway, replier.address());
            let exchange = |size: usize| {
                let sent: Vec<u8> = (0..size).map(|index| index as u8).collect();
                let mut received = vec![0; 8192];
                socket.send(&sent).expect("send");
                let length = socket.recv(&mut received).expect("a reply");
                assert_eq!(received[..length], sent);
            };
            let whole = gateway.through(|| exchange(64));
            let queue = one_queue("a short datagram and its reply", &whole);
            let fragments = gateway.through(|| exchange(4000));
            assert_eq!(one_queue("the fragments", &fragments), queue);
            queues.push(queue);
        }
        spread(&gateway, &queues);
        let after = gateway.status().counters;
        let grown = |name: &str| after[name] - before[name];
        // Three fragments each way.
        assert_eq!(grown("fragments.first"), 20, "{after:?}");
        assert_eq!(grown("fragments.followed"), 40, "{after:?}");
        assert_eq!(grown("fragments.orphaned"), 0, "{after:?}");
    }
}

#[test]
fn a_port_unreachable_reaches_the_worker_of_the_flow_it_is_about() {
    require_queues!();
    let gateway = four_workers();
    for address in gateway.lab.server_addresses() {
        let mut queues = Vec::new();
        for port in 40_000..40_012 {
            let through = gateway.through(|| {
                let socket = udp_socket(&gateway, (address, port).into());
                socket.send(b"is anybody there?").expect("send");
                let error = socket.recv(&mut [0; 64]).expect_err("nobody answers");
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
            });
            let queue = one_queue("a datagram and the error about it", &through);
            assert_eq!(through[&queue], 2);
            queues.push(queue);
        }
        spread(&gateway, &queues);
    }
}

#[test]
fn a_time_exceeded_from_beyond_reaches_the_worker_of_the_flow_it_is_about() {
    require_queues!();
    let gateway = four_workers();
    let lab = &gateway.lab;
    // The server becomes a router to networks that nobody needs to be in: packets with a hop
    // limit of 2 die there.
    for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
        lab.server().sysctl(key, "1").expect("sysctl");
    }
    let beyond: [(IpAddr, String, &str, &str); 2] = [
        (
            [10, 77, 3, 1].into(),
            lab.server_v4().to_string(),
            "10.77.3.0/24",
            "-4",
        ),
        (
            "fd77:3::1".parse().expect("an address"),
            lab.server_v6().to_string(),
            "fd77:3::/64",
            "-6",
        ),
    ];
    for (address, via, network, family) in beyond {
        let route = [family, "route", "add", network, "via", &via];
        lab.gateway().run("ip", &route).expect("a route");
        let mut queues = Vec::new();
        for port in 40_000..40_012 {
            let through = gateway.through(|| {
                let socket = udp_socket(&gateway, (address, port).into());
                if address.is_ipv4() {
                    setsockopt(&socket, sockopt::Ipv4Ttl, &2).expect("TTL");
                    setsockopt(&socket, sockopt::Ipv4RecvErr, &true).expect("IP_RECVERR");
                } else {
                    setsockopt(&socket, sockopt::Ipv6Ttl, &2).expect("hop limit");
                    setsockopt(&socket, sockopt::Ipv6RecvErr, &true).expect("IPV6_RECVERR");
                }
                socket.send(b"how far is it?").expect("send");
                let error = socket.recv(&mut [0; 64]).expect_err("it dies on the way");
                assert_eq!(error.kind(), ErrorKind::HostUnreachable, "{error}");
            });
            let queue = one_queue("a datagram and the error about it", &through);
            assert_eq!(through[&queue], 2);
            queues.push(queue);
        }
        spread(&gateway, &queues);
    }
}

/// Adds a VLAN interface; `None` with the reason where the kernel has none.
fn add_vlan(lab: &Lab, side: Side, interface: &str, address: &str) -> Result<(), String> {
    let namespace = match side {
        Side::Client => lab.client(),
        Side::Server => lab.gateway(),
    };
    let name = format!("{interface}.7");
    let add = ["link", "add", "link", interface, "name", &name];
    namespace
        .run("ip", &[&add[..], &["type", "vlan", "id", "7"]].concat())
        .map_err(|error| format!("the kernel makes no VLAN interface: {error:#}"))?;
    for command in [
        &["addr", "add", address, "dev", &name][..],
        &["link", "set", &name, "up"],
    ] {
        namespace.run("ip", command).expect("configure the VLAN");
    }
    Ok(())
}

#[test]
fn packets_with_a_vlan_tag_reach_the_worker_of_their_flow() {
    require_queues!();
    let lab = lab();
    let client = add_vlan(&lab, Side::Client, Lab::CLIENT_INTERFACE, "10.78.1.1/24");
    skip_if!(client.err());
    add_vlan(
        &lab,
        Side::Server,
        Lab::GATEWAY_CLIENT_INTERFACE,
        "10.78.1.254/24",
    )
    .expect("the gateway can do what the client can");
    // Requests arrive tagged at g0, replies untagged at g1.
    let server = lab.server_v4();
    let route = ["route", "add", &format!("{server}/32"), "via"];
    let route = [&route[..], &["10.78.1.254", "src", "10.78.1.1"]].concat();
    lab.client().run("ip", &route).expect("a route");
    let mut gateway = Gateway::prepare(&lab, |setup| setup.config.workers.count = WORKERS);
    gateway.launch();
    let replier = Replier::start(lab.server(), server.into(), 0).expect("a server");
    let mut queues = Vec::new();
    for _ in 0..16 {
        let plan = RequestPlan {
            requests: REQUESTS.into(),
            ..RequestPlan::to(replier.address())
        };
        let through = gateway.through(|| request(&gateway, plan));
        queues.push(one_queue("a flow with tags one way", &through));
    }
    spread(&gateway, &queues);
}

#[test]
fn mark_bits_outside_the_mask_are_left_as_they_are() {
    require_queues!();
    let gateway = Gateway::start(|setup| setup.config.steering.mark_mask = 0x00f0_0000);
    let lab = &gateway.lab;
    // Somebody else marks with every other bit, after the TC program and before the queues;
    // at the very end each packet is looked at.
    let rules = "table inet other {
            chain before {
                type filter hook prerouting priority mangle;
                iifname { g0, g1 } meta mark set meta mark | 0xff0fffff
            }
            chain after {
                type filter hook postrouting priority srcnat + 50;
                oifname { g0, g1 } meta mark & 0xff0fffff == 0xff0fffff meta mark & 0x00f00000 != 0 counter
                oifname { g0, g1 } counter
            }
        }";
    std::fs::write(gateway.directory.path().join("other.nft"), rules).expect("write the rules");
    let file = gateway.directory.path().join("other.nft");
    let file = file.to_str().expect("a path");
    lab.gateway().run("nft", &["-f", file]).expect("nft");
    for address in lab.server_addresses() {
        let replier = Replier::start(lab.server(), address, 0).expect("a server");
        let plan = RequestPlan {
            flows: 20,
            ..RequestPlan::to(replier.address())
        };
        let through = gateway.through(|| request(&gateway, plan));
        assert_eq!(through.values().sum::<u32>(), 200, "{through:?}");
    }
    let chain = ["list", "chain", "inet", "other", "after"];
    let shown = lab.gateway().run("nft", &chain).expect("nft");
    let counts: Vec<u64> = shown
        .lines()
        .filter_map(|line| {
            let (_, count) = line.split_once("counter packets ")?;
            count.split_whitespace().next()?.parse().ok()
        })
        .collect();
    let [intact, all] = counts[..] else {
        panic!("two counters expected: {shown}");
    };
    // Neighbour discovery of the gateway's own may be among them, without a mark of ours.
    assert!(
        intact >= 400 && all - intact < 20,
        "{intact} of {all} intact"
    );
}

#[test]
fn only_what_arrives_on_a_configured_interface_and_is_forwarded_is_queued() {
    require_queues!();
    let gateway = Gateway::start(|setup| {
        setup.config.interfaces = vec![Lab::GATEWAY_CLIENT_INTERFACE.to_owned()];
    });
    let lab = &gateway.lab;
    for address in lab.server_addresses() {
        let replier = Replier::start(lab.server(), address, 0).expect("a server");
        let plan = RequestPlan::to(replier.address());
        let through = gateway.through(|| request(&gateway, plan));
        assert_eq!(
            through.values().sum::<u32>(),
            100,
            "the requests are queued, the replies are not: {through:?}"
        );
    }
    let (v4, v6) = lab.interface_addresses(Lab::GATEWAY_CLIENT_INTERFACE);
    let through = gateway.through(|| {
        for own in [IpAddr::from(v4), v6.into()] {
            assert_eq!(ping(lab.client(), own, 3, 56, PATIENCE).expect("ping"), 3);
        }
    });
    assert!(
        through.is_empty(),
        "traffic of the gateway itself: {through:?}"
    );
}
