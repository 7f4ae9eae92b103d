//! What rules do to real traffic, seen from both ends and in the event log.

use std::net::IpAddr;

use serde_json::Value;
use sluice::config::Transport as QueueTransport;
use sluice::loader::XdpPolicy;
use sluice::metrics::board::Cell;
use sluice::metrics::snapshot::Snapshot;
use sluice_tests::patience::wait_for;
use sluice_tests::require_queues;
use sluice_tests::witness::{Attempt, End, Transport, Witness, attempt};

use crate::rig::Gateway;

/// Goes before every attack, to show that the connection worked until then.
const GREETING: &[u8] = b"good morning";

/// A rule, what sets it off, and what each end sees then.
struct Case {
    action: &'static str,
    transport: Transport,
    sid: u32,
    /// In the rule and in the payload.
    content: &'static str,
    delivered: bool,
    client: End,
    server: Option<End>,
    /// `verdict.reject` of the records.
    reject: Option<&'static str>,
}

const CASES: [Case; 9] = [
    Case {
        action: "alert",
        transport: Transport::Tcp,
        sid: 1,
        content: "look at this",
        delivered: true,
        client: End::Answered,
        server: None,
        reject: None,
    },
    Case {
        action: "alert",
        transport: Transport::Udp,
        sid: 2,
        content: "look at that",
        delivered: true,
        client: End::Answered,
        server: None,
        reject: None,
    },
    Case {
        action: "drop",
        transport: Transport::Tcp,
        sid: 3,
        content: "drop this stream",
        delivered: false,
        client: End::Silence,
        server: None,
        reject: None,
    },
    Case {
        action: "drop",
        transport: Transport::Udp,
        sid: 4,
        content: "drop this datagram",
        delivered: false,
        client: End::Silence,
        server: None,
        reject: None,
    },
    Case {
        action: "reject",
        transport: Transport::Tcp,
        sid: 5,
        content: "reject this stream",
        delivered: false,
        client: End::Reset,
        server: None,
        reject: Some("tcp-reset"),
    },
    Case {
        action: "reject",
        transport: Transport::Udp,
        sid: 6,
        content: "reject this datagram",
        delivered: false,
        client: End::Unreachable,
        server: None,
        reject: Some("icmp-prohib"),
    },
    Case {
        action: "rejectdst",
        transport: Transport::Tcp,
        sid: 7,
        content: "tell the server",
        delivered: false,
        client: End::Silence,
        server: Some(End::Reset),
        reject: Some("tcp-reset"),
    },
    Case {
        action: "rejectboth",
        transport: Transport::Tcp,
        sid: 8,
        content: "tell both",
        delivered: false,
        client: End::Reset,
        server: Some(End::Reset),
        reject: Some("tcp-reset"),
    },
    Case {
        action: "pass",
        transport: Transport::Tcp,
        sid: 9,
        content: "a friend may drop this stream",
        delivered: true,
        client: End::Answered,
        server: None,
        reject: None,
    },
];

fn rules() -> String {
    CASES
        .iter()
        .map(|case| {
            let protocol = case.transport.name().to_lowercase();
            let Case {
                action,
                sid,
                content,
                ..
            } = case;
            format!(
                "{action} {protocol} any any -> any any (msg:\"Case {sid}\"; \
                 content:\"{content}\"; classtype:trojan-activity; sid:{sid}; rev:4;)\n"
            )
        })
        .collect()
}

/// Plays every case over both families.
fn play(gateway: &Gateway) {
    for address in gateway.lab.server_addresses() {
        let server = Witness::start(gateway.lab.server(), address, 0).expect("a server");
        for case in &CASES {
            let what = format!("{} {} to {address}", case.action, case.transport.name());
            let payload = case.content.as_bytes();
            let tried = try_on(gateway, &server, case.transport, payload, case.client);
            assert_eq!(tried.greeting, End::Answered, "{what}: the greeting");
            assert_eq!(tried.end, case.client, "{what}: the client");
            if let Some(end) = case.server {
                assert_eq!(server_end(&server, &tried), end, "{what}: the server");
            }
            let expected = match case.delivered {
                true => [GREETING, case.content.as_bytes()].concat(),
                false => GREETING.to_vec(),
            };
            let delivery = server.delivery(tried.local).expect("the greeting");
            assert_eq!(delivery.bytes, expected, "{what}: what was delivered");
            records(gateway, case, &tried, &server, &what);
        }
    }
}

/// Tries it, waiting for an end as is `expected`.
fn try_on(
    gateway: &Gateway,
    server: &Witness,
    transport: Transport,
    payload: &[u8],
    expected: End,
) -> Attempt {
    let (client, to) = (gateway.lab.client(), server.address());
    let tried = attempt(
        client,
        transport,
        to,
        GREETING,
        payload,
        expected.patience(),
    );
    tried.expect("a connection")
}

fn server_end(server: &Witness, tried: &Attempt) -> End {
    let look = || server.delivery(tried.local)?.end;
    wait_for(look, || "no end for the server".to_owned())
}

/// Whether a record is about a packet from the client of this attempt.
fn from_client(event: &Value, tried: &Attempt) -> bool {
    event["src_ip"] == logged(tried.local.ip()) && event["src_port"] == tried.local.port()
}

/// An address as records have it: nothing of an IPv6 address is left out.
fn logged(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let groups = address.segments().map(|group| format!("{group:04x}"));
            groups.join(":")
        }
    }
}

/// Looks at the records of a case, field by field.
fn records(gateway: &Gateway, case: &Case, tried: &Attempt, server: &Witness, what: &str) {
    if case.action == "pass" {
        // Pass rules make no alert; and that nothing else did is the point of them.
        let events = gateway.events();
        let about: Vec<_> = events.iter().filter(|it| from_client(it, tried)).collect();
        assert!(about.is_empty(), "{what}: {about:#?}");
        return;
    }
    let alert = gateway.await_event(what, |event| {
        event["event_type"] == "alert" && from_client(event, tried)
    });
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    common_fields(&alert, case, server);
    let fields = &alert["alert"];
    assert_eq!(fields["signature_id"], case.sid, "{alert:#}");
    assert_eq!(fields["signature"], format!("Case {}", case.sid));
    assert_eq!(fields["gid"], 1, "{alert:#}");
    assert_eq!(fields["rev"], 4, "{alert:#}");
    assert_eq!(fields["severity"], 1, "{alert:#}");
    assert_eq!(fields["category"], "A Network Trojan was detected");
    let action = if case.delivered { "allowed" } else { "blocked" };
    assert_eq!(fields["action"], action, "{alert:#}");
    let flow = &alert["flow"];
    assert_eq!(flow["src_ip"], alert["src_ip"], "{alert:#}");
    assert_eq!(flow["dest_port"], alert["dest_port"], "{alert:#}");
    assert!(flow["pkts_toserver"].as_u64() >= Some(2), "{alert:#}");
    assert!(flow["pkts_toclient"].as_u64() >= Some(1), "{alert:#}");
    assert!(flow["start"].is_string(), "{alert:#}");
    let verdict = &alert["verdict"];
    assert_eq!(text(&verdict["reject"][0]), case.reject.unwrap_or_default());

    let of_drop = |event: &Value| event["event_type"] == "drop" && from_client(event, tried);
    if case.delivered {
        assert!(!gateway.events().iter().any(of_drop), "{what}");
        return;
    }
    let drop = gateway.await_event(what, of_drop);
    common_fields(&drop, case, server);
    assert_eq!(drop["flow_id"], alert["flow_id"], "{drop:#}");
    assert_eq!(drop["drop"]["reason"], "rules", "{drop:#}");
    assert_eq!(drop["alert"]["signature_id"], case.sid, "{drop:#}");
    assert_eq!(verdict["action"], "drop", "{alert:#}");
    let headers = match (server.address().is_ipv4(), case.transport) {
        (true, Transport::Tcp) => ["len", "ttl", "ipid", "tcpseq"],
        (true, Transport::Udp) => ["len", "ttl", "tos", "udplen"],
        (false, Transport::Tcp) => ["len", "hoplimit", "tc", "tcpack"],
        (false, Transport::Udp) => ["len", "hoplimit", "flowlbl", "udplen"],
    };
    for field in headers {
        assert!(drop["drop"][field].is_number(), "{field}: {drop:#}");
    }
}

fn common_fields(event: &Value, case: &Case, server: &Witness) {
    let to = server.address();
    assert_eq!(event["dest_ip"], logged(to.ip()), "{event:#}");
    assert_eq!(event["dest_port"], to.port(), "{event:#}");
    assert_eq!(event["proto"], case.transport.name(), "{event:#}");
    assert_eq!(event["in_iface"], "g0", "{event:#}");
    assert_eq!(event["direction"], "to_server", "{event:#}");
    assert!(event["flow_id"].is_u64(), "{event:#}");
    // 2026-01-31T12:00:00.000000+0000
    let time = event["timestamp"].as_str().unwrap_or_default();
    assert!(
        time.len() == 31 && time.as_bytes()[10] == b'T' && time.as_bytes()[19] == b'.',
        "{event:#}"
    );
}

/// How many packets of ours a case brings about.
fn ends_told(case: &Case) -> usize {
    match case.action {
        "rejectboth" => 2,
        _ => usize::from(case.reject.is_some()),
    }
}

fn counted(status: &Snapshot) {
    // Each family once; the dropped TCP segments come again until their flow is convicted.
    let blocked = CASES.iter().filter(|case| !case.delivered).count() as u64;
    let rejected = CASES.iter().filter(|it| it.reject.is_some()).count() as u64;
    assert_eq!(status.total(Cell::RuleDropped), 2 * blocked, "{status}");
    assert_eq!(status.total(Cell::Rejected), 2 * rejected, "{status}");
    assert_eq!(status.total(Cell::RejectsLost), 0, "{status}");
    let told: usize = CASES.iter().map(ends_told).sum();
    assert_eq!(status.rejecter.counters.sent, 2 * told as u64, "{status}");
    assert_eq!(status.rejecter.counters.refused, 0, "{status}");
    assert_eq!(status.total(Cell::EventsLost), 0, "{status}");
    assert!(status.total(Cell::Alerts) >= 2 * blocked + 4, "{status}");
    assert_eq!(status.rules, CASES.len() as u64, "{status}");
}

#[test]
fn every_action_does_what_it_says_and_convicted_flows_die_in_xdp() {
    require_queues!();
    let gateway = Gateway::start(|setup| {
        setup.rules = rules();
        setup.config.steering.xdp = XdpPolicy::Native;
    });
    play(&gateway);
    let status = gateway.await_status("convicted in XDP", |status| {
        status.counters["xdp.convicted"] > 0
    });
    println!("{status}");
    counted(&status);
    assert_eq!(status.counters["tc.convicted"], 0, "{status}");
    assert!(status.total(Cell::Convictions) > 0, "{status}");
    gateway.await_settled();
}

#[test]
fn every_action_does_what_it_says_with_the_nfq_transport() {
    require_queues!();
    let gateway = Gateway::start(|setup| {
        setup.rules = rules();
        setup.config.queue.transport = QueueTransport::Nfq;
    });
    play(&gateway);
    // Without XDP they die in the TC program.
    let status = gateway.await_status("convicted in TC", |status| {
        status.counters["tc.convicted"] > 0
    });
    counted(&status);
    assert_eq!(status.transport, "nfq");
    gateway.await_settled();
}

#[test]
fn a_dropped_flow_is_dropped_to_its_end_also_where_nothing_convicts_it() {
    require_queues!();
    let gateway = Gateway::start(|setup| {
        setup.rules = rules();
        setup.config.conviction.enabled = false;
    });
    let address = gateway.lab.server_v4().into();
    let server = Witness::start(gateway.lab.server(), address, 0).expect("a server");
    let (transport, payload) = (Transport::Tcp, b"drop this stream");
    let tried = try_on(&gateway, &server, transport, payload, End::Silence);
    assert_eq!(tried.end, End::Silence);
    // The segment is sent again, and dropped as the rest of its flow.
    let status = gateway.await_status("the flow dropped", |status| {
        status.total(Cell::FlowDropped) > 0
    });
    assert_eq!(status.total(Cell::RuleDropped), 1, "{status}");
    assert_eq!(status.total(Cell::Convictions), 0, "{status}");
    assert_eq!(status.counters["tc.convicted"], 0, "{status}");
    let delivery = server.delivery(tried.local).expect("the greeting");
    assert_eq!(delivery.bytes, GREETING);
    // Other flows between the same ends are none of its business.
    let other = try_on(&gateway, &server, transport, b"harmless", End::Answered);
    assert_eq!(other.end, End::Answered);
}

#[test]
fn both_directions_of_every_flow_are_seen_by_one_flow_table() {
    require_queues!();
    let gateway = Gateway::start(|setup| setup.config.workers.count = 4);
    let flows = 40;
    for address in gateway.lab.server_addresses() {
        let server = Witness::start(gateway.lab.server(), address, 0).expect("a server");
        for _ in 0..flows / 4 {
            for transport in [Transport::Tcp, Transport::Udp] {
                let tried = try_on(&gateway, &server, transport, b"harmless", End::Answered);
                assert_eq!(tried.end, End::Answered);
            }
        }
    }
    let status = gateway.await_settled();
    assert_eq!(status.total(Cell::FlowsCreated), flows, "{status}");
    assert_eq!(status.total(Cell::FlowsBothWays), flows, "{status}");
}
