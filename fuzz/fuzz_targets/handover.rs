//! Flows and connections that another process has written: what is taken over can be gone on
//! with, and handed on again.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use sluice::decode::Start;
use sluice::detect::Engine;
use sluice::flow::FlowTable;
use sluice::inspection::InspectionOptions;
use sluice::reassembly::tcp::{Session, StreamMemory, StreamOptions};
use sluice::source::Checksum;
use sluice_fuzz::Input;
use sluice_fuzz::engine::{RULES, at, engine, inspection, show};
use sluice_fuzz::seeds;

static ENGINE: LazyLock<Arc<Engine>> = LazyLock::new(|| engine(RULES));
static PACKETS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(seeds::packets);

/// A whole table, with the right checksum.
fn flows(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    let checksum = crc32fast::hash(&bytes).to_ne_bytes();
    bytes.extend(checksum);
    let options = InspectionOptions::default();
    let mut harness = inspection(&ENGINE, options.clone(), false);
    if harness.import_flows(&bytes, at(0), || {}).is_err() {
        return;
    }
    let mut written = Vec::new();
    let export = harness.flows().export(&mut written, || {});
    let count = export.expect("into memory");
    let mut table = FlowTable::new(options.flows, [3, 4]);
    let mut memory = StreamMemory::new();
    let taken = table.import_streams(&written, at(0), &options.stream, &mut memory, || {});
    let taken = taken.expect("what was written can be read");
    assert_eq!(taken.flows, count);
    for (number, packet) in (1..).zip(PACKETS.iter()) {
        let now = at(u64::from(number) * 1_000_000);
        show(
            &mut harness,
            packet,
            Start::Ip(Checksum::Unverified),
            number,
            now,
        );
    }
    harness.expire(at(400_000_000_000));
    harness.finish(at(400_000_000_000));
}

/// One connection.
fn session(bytes: &[u8], inline: bool) {
    use sluice::flow::PacketDirection::{ToClient, ToServer};
    use sluice::reassembly::tcp::Segment;
    let options = StreamOptions {
        inline,
        ..StreamOptions::default()
    };
    let mut memory = StreamMemory::new();
    let Some(mut session) = Session::import(bytes, &options, &mut memory) else {
        return;
    };
    let mut first = Vec::new();
    session.export(&mut first);
    let taken = Session::import(&first, &options, &mut memory);
    let mut second = Vec::new();
    taken
        .expect("what was written can be read")
        .export(&mut second);
    assert_eq!(first, second);
    for (direction, seq) in [
        (ToServer, 1),
        (ToClient, 0x8000_0000),
        (ToServer, u32::MAX - 5),
    ] {
        for flags in [0x10, 0x12, 0x11, 0x30, 0x02, 0x04] {
            let mut segment = Segment::new(seq, seq ^ 0xff, flags, b"some more data", &[]);
            segment.urgent = 3;
            session.packet(&segment, direction, at(5), &options, &mut memory);
            let _ = session.raw(direction, &options);
            let _ = session.raw_with_urgent(direction, &options);
            session.raw_done(direction, &options);
            session.start_reading(direction, None);
            let _ = session.contiguous(direction, &options);
            session.read(direction, 3);
            if flags == 0x30 {
                session.dropped(&mut memory);
            }
        }
    }
    session.finish();
    for direction in [ToServer, ToClient] {
        let _ = (session.stream_size(direction), session.has_ended(direction));
        let mut views = 0;
        while session.raw(direction, &options).is_some() && views < 10_000 {
            session.raw_done(direction, &options);
            views += 1;
        }
        assert!(views < 10_000, "views without end");
    }
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    match input.u8() % 3 {
        0 => flows(input.rest()),
        1 => session(input.rest(), true),
        _ => session(input.rest(), false),
    }
});
