use etherparse::{Icmpv4Type, PacketBuilder, icmpv4};

use super::*;
use crate::detect::NameId;
use crate::flow::{FlowAction, TcpState};

const CLIENT: [u8; 4] = [203, 0, 113, 9];
const SERVER: [u8; 4] = [192, 0, 2, 1];

fn at(seconds: u64) -> Timestamp {
    Timestamp {
        wall_us: 1_700_000_000_000_000 + seconds as i64 * 1_000_000,
        monotonic_ns: seconds * 1_000_000_000,
    }
}

fn table(max_flows: u32) -> FlowTable {
    let limits = FlowLimits {
        max_flows,
        ..FlowLimits::default()
    };
    FlowTable::new(limits, [1, 2])
}

/// A TCP segment; `flags` out of `SAFR`.
fn tcp(to_server: bool, port: u16, flags: &str) -> Vec<u8> {
    let (source, destination, ports) = if to_server {
        (CLIENT, SERVER, (port, 80))
    } else {
        (SERVER, CLIENT, (80, port))
    };
    let mut builder = PacketBuilder::ipv4(source, destination, 64).tcp(ports.0, ports.1, 1, 1024);
    for flag in flags.chars() {
        builder = match flag {
            'S' => builder.syn(),
            'A' => builder.ack(1),
            'F' => builder.fin(),
            _ => builder.rst(),
        };
    }
    let mut bytes = Vec::new();
    builder.write(&mut bytes, b"").unwrap();
    bytes
}

fn udp(to_server: bool, port: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    if to_server {
        PacketBuilder::ipv4(CLIENT, SERVER, 64).udp(port, 53)
    } else {
        PacketBuilder::ipv4(SERVER, CLIENT, 64).udp(53, port)
    }
    .write(&mut bytes, b"x")
    .unwrap();
    bytes
}

fn feed(table: &mut FlowTable, bytes: &[u8], seconds: u64) -> (Flow, PacketDirection) {
    let packet = Decoded::parse(bytes).unwrap();
    let (flow, direction) = table.packet(&packet, at(seconds)).unwrap().unwrap();
    (flow.clone(), direction)
}

#[test]
fn both_directions_are_one_flow() {
    let mut table = table(10);
    let (first, direction) = feed(&mut table, &tcp(true, 1000, "S"), 1);
    assert_eq!(direction, PacketDirection::ToServer);
    let (second, direction) = feed(&mut table, &tcp(false, 1000, "SA"), 2);
    assert_eq!(direction, PacketDirection::ToClient);
    assert_eq!(first.id, second.id);
    assert!(first.id < 1 << 53);
    assert_eq!((second.start, second.last), (at(1), at(2)));
    assert_eq!((second.to_server.packets, second.to_client.packets), (1, 1));
    assert_eq!(table.counters().created, 1);
    assert_eq!(table.counters().both_ways, 1);
    feed(&mut table, &tcp(true, 1000, "A"), 3);
    assert_eq!(table.counters().both_ways, 1);
}

#[test]
fn tcp_state_follows_the_flags() {
    let check = |steps: &[(bool, &str)], expect: TcpState| {
        let mut table = table(10);
        let mut state = TcpState::None;
        for (to_server, flags) in steps {
            state = feed(&mut table, &tcp(*to_server, 1, flags), 0).0.tcp;
        }
        assert_eq!(state, expect, "{steps:?}");
    };
    check(&[(true, "S")], TcpState::SynSent);
    check(&[(true, "S"), (false, "SA")], TcpState::SynReceived);
    check(
        &[(true, "S"), (false, "SA"), (true, "A")],
        TcpState::Established,
    );
    check(&[(true, "A")], TcpState::Established);
    check(
        &[(true, "S"), (false, "SA"), (true, "A"), (true, "FA")],
        TcpState::Closing,
    );
    check(
        &[(true, "A"), (true, "FA"), (true, "FA")],
        TcpState::Closing,
    );
    check(
        &[(true, "A"), (true, "FA"), (false, "FA"), (true, "A")],
        TcpState::Closed,
    );
    check(&[(true, "S"), (false, "RA")], TcpState::Closed);
}

#[test]
fn a_handshake_corrects_who_is_the_client() {
    let mut table = table(10);
    // The first packet seen is the answer.
    let (_, direction) = feed(&mut table, &tcp(false, 1, "SA"), 0);
    assert_eq!(direction, PacketDirection::ToClient);
    // A stray segment of the server, then the client opens the connection.
    let (_, direction) = feed(&mut table, &tcp(false, 2, "A"), 0);
    assert_eq!(direction, PacketDirection::ToServer);
    let (flow, direction) = feed(&mut table, &tcp(true, 2, "S"), 0);
    assert_eq!(direction, PacketDirection::ToServer);
    assert_eq!((flow.to_server.packets, flow.to_client.packets), (1, 1));
}

#[test]
fn a_full_table_evicts_the_longest_idle_flow() {
    let mut table = table(3);
    feed(&mut table, &udp(true, 1), 1);
    feed(&mut table, &tcp(true, 2, "S"), 2);
    feed(&mut table, &udp(true, 3), 3);
    feed(&mut table, &udp(false, 1), 4);
    feed(&mut table, &udp(true, 4), 5);
    let counters = table.counters();
    assert_eq!(
        (counters.current, counters.evicted, counters.created),
        (3, 1, 4)
    );
    let key = |bytes: &[u8]| Decoded::parse(bytes).unwrap().key;
    assert!(table.get(&key(&tcp(true, 2, "S"))).is_none());
    assert!(table.get(&key(&udp(true, 1))).is_some());
    assert_eq!(table.iter().count(), 3);
}

#[test]
fn a_table_full_of_flows_that_are_spared_takes_no_new_one() {
    let limits = FlowLimits {
        max_flows: 2,
        spared: Duration::from_secs(10),
        ..FlowLimits::default()
    };
    let mut table = FlowTable::new(limits, [1, 2]);
    for (port, seconds) in [(1, 0), (2, 5)] {
        feed(&mut table, &udp(true, port), seconds);
        feed(&mut table, &udp(false, port), seconds);
    }
    let bytes = udp(true, 3);
    let newcomer = Decoded::parse(&bytes).unwrap();
    assert_eq!(table.packet(&newcomer, at(9)).err(), Some(TableFull));
    let counters = table.counters();
    assert_eq!((counters.evicted, counters.refused), (0, 1));
    // Those that are remembered go on.
    feed(&mut table, &udp(false, 2), 9);
    feed(&mut table, &udp(true, 3), 10);
    let counters = table.counters();
    assert_eq!((counters.current, counters.evicted), (2, 1));
    assert!(
        table
            .get(&Decoded::parse(&udp(true, 1)).unwrap().key)
            .is_none()
    );
}

#[test]
fn what_was_never_answered_or_is_over_makes_room_first_unless_it_is_dropped() {
    let key = |bytes: &[u8]| Decoded::parse(bytes).unwrap().key;
    let limits = FlowLimits {
        max_flows: 4,
        spared: Duration::from_secs(10),
        ..FlowLimits::default()
    };
    let mut table = FlowTable::new(limits, [1, 2]);
    // Answered, dropped, half open, over.
    feed(&mut table, &udp(true, 1), 0);
    feed(&mut table, &udp(false, 1), 0);
    let bytes = tcp(true, 2, "S");
    let packet = Decoded::parse(&bytes).unwrap();
    let (flow, _) = table.packet(&packet, at(1)).unwrap().unwrap();
    flow.action = FlowAction::Drop { signature_id: 1 };
    table.settle(&key(&bytes));
    feed(&mut table, &tcp(true, 3, "S"), 2);
    feed(&mut table, &tcp(true, 4, "R"), 3);
    for port in 5..100 {
        feed(&mut table, &tcp(true, port, "S"), 4);
    }
    assert_eq!(table.len(), 4);
    assert!(table.get(&key(&udp(true, 1))).is_some());
    assert!(table.get(&key(&tcp(true, 2, "S"))).is_some());
    assert!(table.get(&key(&tcp(true, 98, "S"))).is_some());
    let counters = table.counters();
    assert_eq!((counters.emergencies, counters.recoveries), (1, 0));
    // In the emergency half-open ones are forgotten sooner.
    assert_eq!(table.expire(at(8), 100), 0);
    assert_eq!(table.expire(at(9), 100), 2);
    let counters = table.counters();
    assert_eq!((counters.emergencies, counters.recoveries), (1, 1));
}

#[test]
fn what_rules_note_is_paid_for_and_values_that_do_not_fit_are_not_kept() {
    let mut table = table(20);
    let most = u64::from(table.max_flows()) * BYTES_OF_FLOW;
    let name = NameId::of("x");
    for port in 1..=100 {
        let bytes = udp(true, port);
        let packet = Decoded::parse(&bytes).unwrap();
        let (flow, _) = table.packet(&packet, at(1)).unwrap().unwrap();
        flow.marks.note_for_test(name, &[7; 2000]);
        table.settle(&packet.key);
        assert!(table.counters().memuse <= most, "{:?}", table.counters());
        assert!(table.get(&packet.key).unwrap().marks.bit(name));
    }
    let counters = table.counters();
    assert_eq!(counters.unnoted, 0, "{counters:?}");
    assert!(table.len() >= 4, "{counters:?}");
    let bytes = udp(true, 101);
    let packet = Decoded::parse(&bytes).unwrap();
    let (flow, _) = table.packet(&packet, at(1)).unwrap().unwrap();
    flow.marks.note_for_test(name, &[7; 20_000]);
    table.settle(&packet.key);
    let counters = table.counters();
    assert!(
        counters.unnoted == 1 && counters.memuse <= most,
        "{counters:?}"
    );
    assert!(table.get(&packet.key).unwrap().marks.bit(name));
    while table.expire(at(1000), 100) > 0 {}
    assert_eq!(table.all_noted, 0);
}

#[test]
fn a_lower_limit_evicts_the_longest_idle_flows_at_once() {
    let mut table = table(9);
    for port in 1..=9 {
        feed(&mut table, &udp(true, port), u64::from(port));
    }
    table.set_limits(FlowLimits {
        max_flows: 2,
        ..FlowLimits::default()
    });
    let counters = table.counters();
    assert_eq!((counters.current, counters.evicted), (2, 7));
    let key = |port| Decoded::parse(&udp(true, port)).unwrap().key;
    assert!(table.get(&key(7)).is_none());
    assert!(table.get(&key(8)).is_some());
    feed(&mut table, &udp(true, 10), 10);
    assert_eq!(table.counters().current, 2);
}

#[test]
fn flows_expire_by_the_timeout_of_their_state() {
    let mut table = table(100);
    feed(&mut table, &udp(true, 1), 0);
    feed(&mut table, &udp(true, 2), 0);
    feed(&mut table, &udp(false, 2), 0);
    feed(&mut table, &tcp(true, 3, "S"), 0);
    feed(&mut table, &tcp(true, 4, "A"), 0);
    for (seconds, left) in [
        (29, 4),
        (30, 3),
        (59, 3),
        (60, 2),
        (300, 1),
        (599, 1),
        (600, 0),
    ] {
        table.expire(at(seconds), 100);
        assert_eq!(table.counters().current, left, "after {seconds} s");
    }
    assert_eq!(table.counters().expired, 4);
}

#[test]
fn expiry_stops_at_its_budget() {
    let mut table = table(100);
    for port in 1..=10 {
        feed(&mut table, &udp(true, port), 0);
    }
    assert_eq!(table.expire(at(1000), 4), 4);
    assert_eq!(table.counters().current, 6);
}

#[test]
fn ports_used_again_after_the_end_make_a_new_flow() {
    let mut table = table(10);
    let (first, _) = feed(&mut table, &tcp(true, 1, "S"), 0);
    feed(&mut table, &tcp(false, 1, "RA"), 0);
    let (second, _) = feed(&mut table, &tcp(true, 1, "S"), 1);
    assert_ne!(first.id, second.id);
    assert_eq!(second.tcp, TcpState::SynSent);
    assert_eq!(table.counters().reused, 1);
    assert_eq!(table.counters().current, 1);
}

#[test]
fn an_icmp_error_belongs_to_a_known_flow_and_opens_none() {
    let quote = udp(true, 7);
    let mut error = Vec::new();
    PacketBuilder::ipv4(SERVER, CLIENT, 64)
        .icmpv4(Icmpv4Type::DestinationUnreachable(
            icmpv4::DestUnreachableHeader::Port,
        ))
        .write(&mut error, &quote)
        .unwrap();
    let mut table = table(10);
    let decoded = Decoded::parse(&error).unwrap();
    assert!(table.packet(&decoded, at(0)).unwrap().is_none());
    let (flow, _) = feed(&mut table, &quote, 1);
    let (same, direction) = feed(&mut table, &error, 2);
    assert_eq!(flow.id, same.id);
    assert_eq!(direction, PacketDirection::ToClient);
}

#[test]
fn what_was_decided_for_a_flow_stays() {
    let mut table = table(10);
    let bytes = tcp(true, 1, "S");
    let packet = Decoded::parse(&bytes).unwrap();
    let drop = FlowAction::Drop { signature_id: 5 };
    table.packet(&packet, at(0)).unwrap().unwrap().0.action = drop;
    assert_eq!(feed(&mut table, &tcp(false, 1, "SA"), 1).0.action, drop);
    assert!(table.remove(&packet.key).is_some());
    assert_eq!(feed(&mut table, &bytes, 2).0.action, FlowAction::Inspect);
}

#[test]
fn slots_are_reused_under_churn() {
    let mut table = table(16);
    for round in 0..2000u64 {
        feed(
            &mut table,
            &udp(round % 3 != 0, (round % 97) as u16 + 1),
            round / 10,
        );
        if round % 50 == 0 {
            table.expire(at(round / 10), 5);
        }
        assert!(table.flows.len() <= 16);
        assert!(table.counters().current <= 16);
    }
    let counters = table.counters();
    assert_eq!(
        counters.created,
        counters.current + counters.expired + counters.evicted
    );
}

#[test]
fn a_tcp_flow_without_its_syn_counts_as_learnt_from_the_middle() {
    let mut table = table(10);
    feed(&mut table, &tcp(true, 1000, "S"), 1);
    feed(&mut table, &tcp(false, 1000, "SA"), 1);
    feed(&mut table, &tcp(true, 1000, "A"), 1);
    feed(&mut table, &udp(true, 1000), 1);
    assert_eq!(table.counters().midstream, 0);
    feed(&mut table, &tcp(true, 1001, "A"), 2);
    feed(&mut table, &tcp(true, 1001, "A"), 2);
    feed(&mut table, &tcp(false, 1002, "AF"), 3);
    assert_eq!(table.counters().midstream, 2);
}

mod connections {
    use super::*;
    use crate::reassembly::tcp::{
        Begun, Session, SessionState, StreamDisposition, StreamMemory, StreamOptions,
    };

    /// A table whose TCP flows are tracked inline.
    struct Tracked {
        table: FlowTable,
        options: StreamOptions,
        memory: StreamMemory,
    }

    impl Tracked {
        fn new(max_flows: u32) -> Self {
            Self {
                table: table(max_flows),
                options: StreamOptions {
                    inline: true,
                    ..StreamOptions::default()
                },
                memory: StreamMemory::new(),
            }
        }

        /// One segment; whether it may go on.
        fn feed(&mut self, bytes: &[u8], seconds: u64) -> bool {
            let packet = Decoded::parse(bytes).unwrap();
            let now = at(seconds);
            let (flow, direction) = self.table.packet(&packet, now).unwrap().unwrap();
            let before = flow.tcp;
            let (options, memory) = (&self.options, &mut self.memory);
            let outcome = flow
                .track(&packet, direction, now, options, memory)
                .unwrap();
            if flow.tcp != before {
                self.table.settle(&packet.key);
            }
            !matches!(outcome.disposition, StreamDisposition::Drop(_))
        }

        fn handshake(&mut self, port: u16, seconds: u64) {
            for (to_server, flags) in [(true, "S"), (false, "SA"), (true, "A")] {
                assert!(self.feed(&segment(to_server, port, flags, 0, b""), seconds));
            }
        }

        fn flow(&self, port: u16) -> &Flow {
            let bytes = tcp(true, port, "A");
            let key = Decoded::parse(&bytes).unwrap().key;
            self.table.get(&key).expect("a flow")
        }
    }

    /// A segment whose numbers fit a connection after its handshake, `ahead` bytes further.
    fn segment(to_server: bool, port: u16, flags: &str, ahead: u32, data: &[u8]) -> Vec<u8> {
        let (source, destination, ports) = match to_server {
            true => (CLIENT, SERVER, (port, 80)),
            false => (SERVER, CLIENT, (80, port)),
        };
        let first = u32::from(!flags.contains('S'));
        let seq = 1000 + first + ahead;
        let mut builder =
            PacketBuilder::ipv4(source, destination, 64).tcp(ports.0, ports.1, seq, 1024);
        for flag in flags.chars() {
            builder = match flag {
                'S' => builder.syn(),
                'A' => builder.ack(1001),
                'F' => builder.fin(),
                _ => builder.rst(),
            };
        }
        let mut bytes = Vec::new();
        builder.write(&mut bytes, data).unwrap();
        bytes
    }

    #[test]
    fn a_forged_reset_does_not_end_a_flow() {
        let mut tracked = Tracked::new(10);
        tracked.handshake(1, 0);
        assert!(!tracked.feed(&segment(true, 1, "R", 90_000, b""), 1));
        assert_eq!(tracked.flow(1).tcp, TcpState::Established);
        // Nor does a SYN make it another connection.
        assert!(!tracked.feed(&segment(true, 1, "S", 7, b""), 2));
        assert_eq!(tracked.table.counters().created, 1);
        assert_eq!(tracked.table.expire(at(500), 10), 0);
        assert!(tracked.feed(&segment(true, 1, "R", 0, b""), 501));
        assert_eq!(tracked.flow(1).tcp, TcpState::Closed);
        assert_eq!(tracked.table.expire(at(562), 10), 1);
        assert_eq!(tracked.memory.counters().active_sessions, 0);
    }

    #[test]
    fn a_dropped_packet_does_not_change_the_state() {
        let mut tracked = Tracked::new(10);
        tracked.handshake(1, 0);
        let bytes = segment(true, 1, "FA", 0, b"EVIL");
        assert!(tracked.feed(&bytes, 1));
        assert_eq!(tracked.flow(1).tcp, TcpState::Closing);
        let packet = Decoded::parse(&bytes).unwrap();
        let (flow, _) = tracked.table.packet(&packet, at(1)).unwrap().unwrap();
        flow.dropped(None, &mut tracked.memory);
        assert_eq!(flow.tcp, TcpState::Established);
    }

    #[test]
    fn flows_that_leave_are_there_to_be_finished() {
        let mut tracked = Tracked::new(2);
        tracked.table.tell_ends(true);
        for port in 1..=3 {
            tracked.handshake(port, port.into());
        }
        assert!(tracked.feed(&segment(true, 2, "R", 0, b""), 4));
        assert!(tracked.feed(&segment(true, 2, "S", 0, b""), 5));
        tracked.table.expire(at(5000), 10);
        let ended: Vec<_> = std::iter::from_fn(|| tracked.table.take_ended())
            .map(|(flow, end)| {
                let port = flow.key.low_port.min(flow.key.high_port);
                (port, end, flow.session.map(|session| session.state()))
            })
            .collect();
        let find = |end| ended.iter().filter(|(_, other, _)| *other == end).count();
        assert_eq!(
            (
                find(FlowEnd::Forced),
                find(FlowEnd::TcpReuse),
                find(FlowEnd::Timeout)
            ),
            (1, 1, 2)
        );
        assert!(ended.contains(&(2, FlowEnd::TcpReuse, Some(SessionState::Closed))));
        assert!(ended.contains(&(2, FlowEnd::Timeout, Some(SessionState::SynSent))));
        drop(ended);
        assert_eq!(tracked.memory.counters().active_sessions, 0);
    }

    #[test]
    fn connections_that_are_over_make_room() {
        let mut tracked = Tracked::new(1000);
        tracked.options.memcap = 100 * 720;
        tracked.handshake(1, 0);
        for port in 2..=60 {
            tracked.handshake(port, 1);
            assert!(tracked.feed(&segment(true, port, "R", 0, b""), 2));
        }
        let before = tracked.memory.counters().active_sessions;
        assert_eq!(
            (before, tracked.memory.is_short(&tracked.options)),
            (60, false)
        );
        tracked.options.memcap = 50 * 720;
        let (options, memory) = (&tracked.options, &mut tracked.memory);
        let bytes = segment(true, 1000, "S", 0, b"");
        let packet = Decoded::parse(&bytes).unwrap();
        let relieved = tracked.table.relieve(&packet, memory, options, 1000);
        assert!((10..=20).contains(&relieved), "{relieved}");
        assert!(!tracked.memory.is_short(&tracked.options));
        assert!(tracked.flow(1).session.is_some());
        // Whoever is over gives up his session, not his flow.
        assert!(tracked.flow(2).session.is_none());
        assert_eq!(tracked.table.len(), 60);
    }

    #[test]
    fn a_handshake_in_hand_keeps_its_connection_and_no_flow_is_looked_at_twice() {
        let mut tracked = Tracked::new(1000);
        let relieve = |tracked: &mut Tracked, bytes: &[u8]| {
            let packet = Decoded::parse(bytes).unwrap();
            let (options, memory) = (&tracked.options, &mut tracked.memory);
            tracked.table.relieve(&packet, memory, options, 8)
        };
        tracked.options.memcap = 5 * Session::BYTES as u64;
        tracked.handshake(1, 0);
        for port in 2..=5 {
            assert!(tracked.feed(&segment(true, port, "S", 0, b""), 1));
        }
        let opening = segment(true, 6, "S", 0, b"");
        assert_eq!(relieve(&mut tracked, &opening), 1);
        assert!(tracked.feed(&opening, 2));
        assert!(tracked.flow(2).session.is_none());
        let answer = segment(false, 6, "SA", 0, b"");
        assert_eq!(relieve(&mut tracked, &answer), 0);
        assert!(tracked.feed(&answer, 2) && tracked.flow(6).session.is_some());
        // All half-open ones, but none that is complete.
        tracked.options.memcap = 1;
        let other = segment(true, 7, "S", 0, b"");
        assert_eq!(relieve(&mut tracked, &other), 4);
        assert!(tracked.flow(1).session.is_some());
        let class = Class::TcpNew;
        assert_eq!(
            tracked.table.idle.next_for(Collector::Sessions, class),
            None
        );
        // Another packet, and so perhaps another connection.
        assert!(tracked.feed(&segment(true, 2, "S", 9, b""), 3));
        let next = tracked.table.idle.next_for(Collector::Sessions, class);
        assert_eq!(next.map(|slot| tracked.table.flows[slot].last), Some(at(3)));
    }

    #[test]
    fn flows_without_a_connection_do_not_hide_those_with_one() {
        let mut tracked = Tracked::new(1000);
        for port in 1..=300 {
            let bytes = segment(true, port, "S", 0, b"");
            let packet = Decoded::parse(&bytes).unwrap();
            tracked.table.packet(&packet, at(0)).unwrap();
        }
        assert!(tracked.feed(&segment(true, 301, "S", 0, b""), 1));
        tracked.options.memcap = Session::BYTES as u64;
        let bytes = segment(true, 302, "S", 0, b"");
        let packet = Decoded::parse(&bytes).unwrap();
        let (options, memory) = (&tracked.options, &mut tracked.memory);
        assert_eq!(tracked.table.relieve(&packet, memory, options, 8), 1);
        assert!(tracked.flow(301).session.is_none());
    }

    #[test]
    fn connections_that_wait_give_back_spare_memory_when_data_needs_it() {
        let mut tracked = Tracked::new(1000);
        tracked.handshake(1, 0);
        // Its buffer grows by half, and is not full.
        for number in 0..8 {
            let data = [b'x'; 90];
            assert!(tracked.feed(&segment(true, 1, "A", number * 90, &data), 1));
        }
        let before = tracked.memory.counters().reassembly_memuse;
        tracked.options.reassembly.memcap = 10_000;
        let bytes = segment(true, 2, "A", 0, b"data");
        let packet = Decoded::parse(&bytes).unwrap();
        let (options, memory) = (&tracked.options, &mut tracked.memory);
        assert_eq!(tracked.table.relieve(&packet, memory, options, 8), 0);
        let counters = tracked.memory.counters();
        assert_eq!(counters.ssn_compacted, 1);
        assert!(counters.reassembly_memuse < before, "{counters:?}");
        assert!(tracked.flow(1).session.is_some());
    }

    #[test]
    fn connections_go_with_their_flows_to_another_process() {
        let mut tracked = Tracked::new(10);
        tracked.handshake(1, 0);
        tracked.handshake(2, 1);
        assert!(tracked.feed(&segment(true, 1, "A", 2, b"IL"), 2));
        let mut bytes = Vec::new();
        tracked.table.export(&mut bytes, || {}).unwrap();

        let mut other = Tracked::new(10);
        let imported = other
            .table
            .import_streams(&bytes, at(3), &other.options, &mut other.memory, || {})
            .unwrap();
        assert_eq!((imported.sessions, imported.sessions_lost), (2, 0));
        assert_eq!(other.memory.counters().active_sessions, 2);
        assert!(other.feed(&segment(true, 1, "A", 0, b"EV"), 4));
        let key = other.flow(1).key;
        let bytes_of_1 = segment(true, 1, "A", 0, b"EV");
        let packet = Decoded::parse(&bytes_of_1).unwrap();
        assert_eq!(packet.key, key);
        let options = other.options.clone();
        let (flow, direction) = other.table.packet(&packet, at(4)).unwrap().unwrap();
        let view = flow.session.as_mut().unwrap().raw(direction, &options);
        assert_eq!(view.unwrap().data, b"EVIL");

        // One that cannot take them picks them up from their middle, whatever the settings.
        let mut third = Tracked::new(10);
        let imported = third.table.import(&bytes, at(3), || {}).unwrap();
        assert_eq!((imported.sessions, imported.sessions_lost), (0, 2));
        assert_eq!(third.flow(1).begun, Begun::Inherited);
        assert!(third.feed(&segment(true, 1, "A", 0, b"EV"), 4));
        assert!(third.flow(1).session.as_ref().unwrap().is_midstream());
    }
}
