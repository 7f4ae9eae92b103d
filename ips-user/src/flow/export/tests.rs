use std::time::Instant;

use ips_common::FAMILY_IPV4;
use proptest::prelude::*;

use super::*;
use crate::app::AppLayer;
use crate::decode::Decoded;
use crate::flow::FlowLimits;

/// Later than everything in these tests.
const NOW: Timestamp = Timestamp {
    wall_us: 2_000_000_000_000_000,
    monotonic_ns: u64::MAX,
};

fn table(max_flows: u32) -> FlowTable {
    let limits = FlowLimits {
        max_flows,
        ..FlowLimits::default()
    };
    FlowTable::new(limits, [3, 4])
}

fn at(nanoseconds: u64) -> Timestamp {
    Timestamp {
        wall_us: 1_700_000_000_000_000 + nanoseconds as i64,
        monotonic_ns: nanoseconds,
    }
}

/// The flow of client port `port`, last active at `last`.
fn flow(port: u32, last: u64) -> Flow {
    Flow {
        id: u64::from(port),
        key: FlowKey {
            low_address: [0, 0xffff_0a00_0001],
            high_address: [0, 0xffff_0a00_0002 + (u64::from(port) >> 16)],
            low_port: port as u16,
            high_port: 443,
            protocol: 6,
            family: FAMILY_IPV4,
            zone: 0,
        },
        client: Direction::LowToHigh,
        start: at(1),
        last: at(last),
        to_server: Tally::default(),
        to_client: Tally::default(),
        tcp: TcpState::Established,
        action: FlowAction::Inspect,
        clean_bytes: Some(0),
        marks: FlowMarks::default(),
        convicted: None,
        session: None,
        app: AppLayer::default(),
        begun: Begun::Unknown,
        observed: Observed::default(),
        fin: None,
    }
}

fn filled(flows: impl IntoIterator<Item = Flow>) -> FlowTable {
    let mut table = table(1 << 20);
    for flow in flows {
        assert!(table.adopt(flow));
    }
    table
}

fn exported(table: &FlowTable) -> Vec<u8> {
    let mut bytes = Vec::new();
    let count = table.export(&mut bytes, || {}).unwrap();
    assert_eq!(count, table.len() as u64);
    bytes
}

fn in_order(table: &FlowTable) -> Vec<Flow> {
    table.oldest_first().cloned().collect()
}

prop_compose! {
    fn any_flow()(
        key in any::<[u64; 4]>(),
        ports in any::<(u16, u16, u8)>(),
        id in 0..IDS,
        times in any::<(i64, u32, i64, u32)>(),
        tallies in any::<[u64; 4]>(),
        convicted in any::<Option<(i64, u64)>>(),
        (client, tcp, action, fin, begun) in (0..2_u8, 0..6_u8, 0..4_u8, 0..3_u8, 0..2_u8),
        signature_id in any::<u32>(),
        cause in 0..Cause::ALL.len(),
        clean_bytes in any::<Option<u64>>(),
    ) -> Flow {
        Flow {
            id,
            key: FlowKey {
                low_address: [key[0], key[1]],
                high_address: [key[2], key[3]],
                low_port: ports.0,
                high_port: ports.1,
                protocol: ports.2,
                family: FAMILY_IPV4,
                zone: 0,
            },
            client: [Direction::LowToHigh, Direction::HighToLow][client as usize],
            start: Timestamp { wall_us: times.0, monotonic_ns: times.1.into() },
            last: Timestamp { wall_us: times.2, monotonic_ns: times.3.into() },
            to_server: tally([tallies[0], tallies[1]]),
            to_client: tally([tallies[2], tallies[3]]),
            tcp: [
                TcpState::None,
                TcpState::SynSent,
                TcpState::SynReceived,
                TcpState::Established,
                TcpState::Closing,
                TcpState::Closed,
            ][tcp as usize],
            action: [
                FlowAction::Inspect,
                FlowAction::Pass,
                FlowAction::Drop { signature_id },
                FlowAction::Refuse { cause: Cause::ALL[cause] },
            ][action as usize],
            clean_bytes,
            marks: FlowMarks::default(),
            convicted: convicted.map(|(wall_us, monotonic_ns)| Timestamp { wall_us, monotonic_ns }),
            session: None,
            app: [AppLayer::default(), AppLayer::Failed][begun as usize].clone(),
            begun: [Begun::Unknown, Begun::Inherited][begun as usize],
            observed: Observed::default(),
            fin: [None, Some(PacketDirection::ToServer), Some(PacketDirection::ToClient)][fin as usize],
        }
    }
}

fn any_table() -> impl Strategy<Value = FlowTable> {
    prop::collection::vec(any_flow(), 0..40).prop_map(|mut flows| {
        flows.sort_by_key(|flow| flow.last.monotonic_ns);
        filled(flows)
    })
}

proptest! {
    #[test]
    fn flows_come_back_as_they_were_and_in_their_order(table in any_table()) {
        let mut other = self::table(1 << 20);
        let imported = other.import(&exported(&table), NOW, || {}).unwrap();
        prop_assert_eq!(imported.flows, table.len() as u64);
        prop_assert_eq!(imported.beyond_limit, 0);
        prop_assert_eq!(in_order(&other), in_order(&table));
        for flow in table.iter() {
            prop_assert_eq!(other.get(&flow.key), Some(flow));
        }
    }

    #[test]
    fn a_part_of_an_export_is_refused(table in any_table(), kept in 0.0..1.0) {
        let bytes = exported(&table);
        let kept = (bytes.len() as f64 * kept) as usize;
        let mut other = self::table(100);
        let refused = other.import(&bytes[..kept], NOW, || {}).unwrap_err();
        prop_assert!(
            matches!(refused, ImportError::NotFlows { .. } | ImportError::CutShort { .. }),
            "{refused}"
        );
        prop_assert!(other.is_empty());
    }

    #[test]
    fn a_changed_byte_is_noticed(table in any_table(), place in 0.0..1.0, change in 1..=u8::MAX) {
        let mut bytes = exported(&table);
        let place = (bytes.len() as f64 * place) as usize;
        bytes[place] ^= change;
        let mut other = self::table(100);
        let refused = other.import(&bytes, NOW, || {});
        prop_assert!(refused.is_err());
        prop_assert!(other.is_empty());
    }

    #[test]
    fn any_bytes_with_the_right_checksum_are_read_or_refused(
        records in prop::collection::vec(any::<u8>(), 0..2000),
        fixed in RECORD as u32..RECORD as u32 + 40,
        count in 0..16_u64,
    ) {
        let header = Header { magic: MAGIC, format: FORMAT, record: fixed, count };
        let mut bytes = bytemuck::bytes_of(&header).to_vec();
        bytes.extend_from_slice(&records);
        // Where it must stand is known only when the records are all there.
        let parsed = Records { rest: &records, fixed: fixed as usize, count };
        if let Ok(len) = parsed.extent() {
            let end = size_of::<Header>() + len;
            let checksum = crc32fast::hash(&bytes[..end]);
            bytes.truncate(end);
            bytes.extend_from_slice(&checksum.to_ne_bytes());
        }
        let mut table = table(100);
        match table.import(&bytes, NOW, || {}) {
            Ok(imported) => prop_assert_eq!(imported.flows, count),
            Err(_) => prop_assert!(table.is_empty()),
        }
    }
}

/// One flow's export with `change` made to it, and its checksum made right again.
fn refused(change: impl FnOnce(&mut Header, &mut Record)) -> ImportError {
    let bytes = exported(&filled([flow(1, 1)]));
    let (header, rest) = bytes.split_at(size_of::<Header>());
    let mut header: Header = bytemuck::pod_read_unaligned(header);
    let mut record: Record = bytemuck::pod_read_unaligned(&rest[..RECORD]);
    change(&mut header, &mut record);
    let mut bytes = [bytemuck::bytes_of(&header), bytemuck::bytes_of(&record)].concat();
    bytes.extend(crc32fast::hash(&bytes).to_ne_bytes());
    let mut table = table(10);
    let refused = table.import(&bytes, NOW, || {}).unwrap_err();
    assert!(table.is_empty(), "{refused}");
    refused
}

#[test]
fn what_another_version_wrote_differently_is_refused_by_name() {
    let check = |refused: ImportError, expected: &str| {
        let message = refused.to_string();
        assert!(message.contains(expected), "{message}");
    };
    check(refused(|header, _| header.format = 2), "format 2");
    check(
        refused(|header, _| header.magic[0] = 0),
        "no exported flows",
    );
    check(refused(|header, _| header.record = 8), "no exported flows");
    check(refused(|header, _| header.count = 2), "record 1 of 2");
    check(refused(|_, record| record.extension = 5), "record 0 of 1");
    check(refused(|_, record| record.tcp = 9), "TCP state 9");
    check(refused(|_, record| record.action = 7), "action 7");
    check(refused(|_, record| record.client = 2), "client 2");
    check(refused(|_, record| record.fin = 3), "FIN 3");
    check(refused(|_, record| record.id = IDS), "flow id");
}

#[test]
fn what_a_newer_version_added_is_passed_over() {
    let flows = [flow(1, 1), flow(2, 2)];
    let header = Header {
        magic: MAGIC,
        format: FORMAT,
        record: RECORD as u32 + 24,
        count: 2,
    };
    let mut bytes = bytemuck::bytes_of(&header).to_vec();
    for (flow, extension) in flows.iter().zip([0, 13]) {
        let record = Record {
            extension,
            flags: 1 << 31 | flags::TRACKS,
            ..Record::of(flow)
        };
        bytes.extend_from_slice(bytemuck::bytes_of(&record));
        bytes.extend(vec![0xaa; 24 + extension as usize]);
    }
    bytes.extend(crc32fast::hash(&bytes).to_ne_bytes());
    bytes.extend(b"left by something longer that was there before");
    let mut table = table(10);
    table.import(&bytes, NOW, || {}).unwrap();
    assert_eq!(in_order(&table), flows);
}

#[test]
fn a_flow_that_is_there_twice_is_refused() {
    let bytes = exported(&filled([flow(1, 1)]));
    let (header, rest) = bytes.split_at(size_of::<Header>());
    let mut header: Header = bytemuck::pod_read_unaligned(header);
    header.count = 2;
    let record = &rest[..RECORD];
    let mut bytes = [bytemuck::bytes_of(&header), record, record].concat();
    bytes.extend(crc32fast::hash(&bytes).to_ne_bytes());
    let mut table = table(10);
    assert_eq!(
        table.import(&bytes, NOW, || {}),
        Err(ImportError::Twice { record: 1 })
    );
    assert!(table.is_empty());
}

#[test]
fn a_smaller_table_takes_the_flows_that_were_active_last() {
    let bytes = exported(&filled((1..=10).map(|port| flow(port, port.into()))));
    let mut smaller = table(3);
    let imported = smaller.import(&bytes, NOW, || {}).unwrap();
    assert_eq!((imported.flows, imported.beyond_limit), (3, 7));
    assert_eq!(smaller.counters().evicted, 7);
    let ports: Vec<_> = in_order(&smaller).iter().map(|flow| flow.id).collect();
    assert_eq!(ports, [8, 9, 10]);
    let mut keys: Vec<_> = smaller.keys().map(|key| key.low_port).collect();
    keys.sort_unstable();
    assert_eq!(keys, [8, 9, 10]);
}

#[test]
fn a_table_with_flows_imports_nothing() {
    let bytes = exported(&filled([flow(1, 1)]));
    let mut table = filled([flow(2, 2)]);
    assert_eq!(
        table.import(&bytes, NOW, || {}),
        Err(ImportError::InUse { flows: 1 })
    );
    assert_eq!(in_order(&table), [flow(2, 2)]);
}

#[test]
fn a_flow_from_the_future_becomes_idle_like_any_other() {
    let bytes = exported(&filled([flow(1, u64::MAX)]));
    let mut table = table(10);
    table.import(&bytes, at(1000), || {}).unwrap();
    assert_eq!(table.expire(at(600_000_000_999), 10), 0);
    assert_eq!(table.expire(at(600_000_001_000), 10), 1);
}

#[test]
fn a_flow_that_was_counted_to_the_end_goes_on() {
    let full = Tally {
        packets: u64::MAX,
        bytes: u64::MAX - 1,
    };
    let mut observed = Observed::default();
    // The number of VLANs, of a flow that has seen no packet.
    let bytes = bytemuck::bytes_of_mut(&mut observed);
    let count = bytes.len() - 2;
    bytes[count..].fill(0xff);
    let mut packet = Vec::new();
    etherparse::PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        .tcp(1, 443, 1, 1024)
        .write(&mut packet, b"x")
        .unwrap();
    let mut packet = Decoded::parse(&packet).unwrap();
    assert!(packet.link.vlans.push(23));
    let counted = Flow {
        key: packet.key,
        to_server: full,
        to_client: full,
        observed,
        ..flow(1, 1)
    };
    let mut table = table(10);
    table
        .import(&exported(&filled([counted])), NOW, || {})
        .unwrap();
    let (flow, direction) = table.packet(&packet, NOW).unwrap().unwrap();
    assert_eq!(direction, PacketDirection::ToServer);
    let most = Tally {
        packets: u64::MAX,
        bytes: u64::MAX,
    };
    assert_eq!((flow.to_server, flow.to_client), (most, full));
    assert_eq!(flow.observed.vlans(), [23]);
}

#[test]
fn a_failing_writer_is_reported_and_what_it_took_is_refused() {
    /// Takes so many bytes.
    struct Full(Vec<u8>, usize);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.1 - self.0.len());
            self.0.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let table = filled((0..10_000).map(|port| flow(port, 1)));
    let mut full = Full(Vec::new(), 1 << 20);
    let error = table.export(&mut full, || {}).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WriteZero);
    let refused = self::table(100).import(&full.0, NOW, || {}).unwrap_err();
    assert!(
        matches!(refused, ImportError::CutShort { count: 10_000, .. }),
        "{refused}"
    );
}

#[test]
fn a_full_table_is_handed_over_in_little_time_with_progress_all_along() {
    let count = FlowLimits::default().max_flows;
    let table = filled((0..count).map(|port| flow(port, port.into())));
    let mut bytes = Vec::with_capacity(64 << 20);
    let (mut calls, began) = (0, Instant::now());
    table.export(&mut bytes, || calls += 1).unwrap();
    println!(
        "{count} flows, {} bytes: written in {:?}",
        bytes.len(),
        began.elapsed()
    );
    assert_eq!(calls, count as usize / PROGRESS_EVERY);
    let mut other = self::table(count);
    let (mut calls, began) = (0, Instant::now());
    other.import(&bytes, NOW, || calls += 1).unwrap();
    println!("read in {:?}", began.elapsed());
    // For the checksum, and for the flows.
    assert!(calls >= 2 * count as usize / PROGRESS_EVERY, "{calls}");
    assert_eq!(other.len(), count as usize);
}

#[test]
fn what_rules_have_noted_goes_along() {
    // Both directions' addresses checked, one bit, and nothing else.
    let mut bytes = vec![3, 1, 0, 0, 0];
    bytes.extend(4711u64.to_le_bytes());
    bytes.extend([0; 16]);
    let marks = FlowMarks::decode(&mut &bytes[..]).unwrap();
    assert_eq!(marks.bits().len(), 1);
    let noted = Flow {
        marks: marks.clone(),
        ..flow(1, 5)
    };
    let exported = exported(&filled([noted.clone(), flow(2, 6)]));
    let mut imported = table(1 << 20);
    imported
        .import_with(&exported, at(9), |_| None, || {})
        .unwrap();
    assert_eq!(imported.get(&noted.key).unwrap().marks, marks);
    let other = imported.get(&flow(2, 6).key).unwrap();
    assert_eq!(other.marks, FlowMarks::default());
}
