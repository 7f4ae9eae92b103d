//! Frames in their order through the whole inspection, with rules of every kind: every packet
//! gets a verdict, every record is JSON.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use sluice::config::settings::EngineSettings;
use sluice::decode::{LinkType, Start};
use sluice::detect::Engine;
use sluice::inspection::InspectionOptions;
use sluice::source::Checksum;
use sluice_fuzz::Input;
use sluice_fuzz::engine::{RULES, at, engine, inspection, show};

static ENGINE: LazyLock<Arc<Engine>> = LazyLock::new(|| engine(RULES));

static OPTIONS: LazyLock<[InspectionOptions; 3]> = LazyLock::new(|| {
    let settings = EngineSettings::stock();
    [
        InspectionOptions {
            records: settings.records(),
            ..InspectionOptions::default()
        },
        InspectionOptions::of_replay(&settings, true).expect("stock settings"),
        InspectionOptions::of_replay(&settings, false).expect("stock settings"),
    ]
});

const LINKS: [LinkType; 5] = [
    LinkType::Ethernet,
    LinkType::LinuxSll,
    LinkType::LinuxSll2,
    LinkType::Null,
    LinkType::Raw,
];

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let flags = input.u8();
    let start = match input.u8() {
        kind @ 0..128 => Start::Link(LINKS[usize::from(kind) % LINKS.len()]),
        kind if kind & 1 == 0 => Start::Ip(Checksum::Unverified),
        _ => Start::Ip(Checksum::NotReady),
    };
    let mut options = OPTIONS[usize::from(flags & 3).min(2)].clone();
    if flags & 4 != 0 {
        options.stream.midstream = true;
    }
    if flags & 8 != 0 {
        options.stream.reassembly.depth = 100;
        options.stream.reassembly.memcap = 4096;
        options.defrag.memcap = 4096;
        options.flows.max_flows = 3;
    }
    let mut harness = inspection(&ENGINE, options, flags & 16 != 0);
    let mut now = 0u64;
    let mut packets = 0;
    while !input.is_empty() && packets < 200 {
        now += u64::from(input.u8()).pow(3) * 1_000_000;
        let bytes = input.chunk();
        packets += 1;
        show(&mut harness, bytes, start, packets, at(now));
        if packets % 16 == 0 {
            harness.expire(at(now));
        }
    }
    harness.expire(at(now + 3_600_000_000_000));
    harness.finish(at(now + 3_600_000_000_000));
    let counters = harness.counters();
    assert_eq!(counters.packets, u64::from(packets));
});
