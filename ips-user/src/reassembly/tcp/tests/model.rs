//! Random segments against a map of bytes.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const TO: PacketDirection = PacketDirection::ToServer;

/// One step: a segment, or the receiver's word, or an event around them.
#[derive(Clone, Debug)]
enum Step {
    /// Data at a place; `seed` makes its bytes, `drop` is a rule's verdict.
    Data {
        at: u32,
        len: u8,
        seed: u8,
        drop: bool,
    },
    /// The receiver acknowledges what it has in order.
    Ack,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let data = (0u32..400, 1u8..60, 0u8..3, prop::bool::weighted(0.15));
    let data = data.prop_map(|(at, len, seed, drop)| Step::Data {
        at,
        len,
        seed,
        drop,
    });
    prop::collection::vec(prop_oneof![8 => data, 2 => Just(Step::Ack)], 1..120)
}

fn bytes(at: u32, len: u8, seed: u8) -> String {
    (at..at + u32::from(len))
        .map(|at| char::from(b'a' + ((at * 7 + u32::from(seed) * 3) % 26) as u8))
        .collect()
}

/// What a receiver gets: it may keep either of two segments for one place.
#[derive(Default)]
struct Receiver {
    /// Every value delivered for a place.
    delivered: BTreeMap<u32, Vec<u8>>,
    acked: u32,
}

impl Receiver {
    fn take(&mut self, at: u32, data: &[u8]) {
        for (place, &byte) in (at..).zip(data) {
            if place >= self.acked {
                self.delivered.entry(place).or_default().push(byte);
            }
        }
    }

    fn in_order(&self) -> u32 {
        (self.acked..)
            .find(|place| !self.delivered.contains_key(place))
            .unwrap_or_default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever the receiver keeps, it has been inspected with all that is around it.
    #[test]
    fn inline_what_is_delivered_is_what_was_inspected(
        steps in steps(),
        isn in prop_oneof![Just(u32::MAX - 100), any::<u32>()],
        chunk in prop_oneof![Just(8u32), Just(2560)],
    ) {
        let mut bench = Bench::inline();
        bench.isn = [isn, 5];
        bench.options.reassembly.toserver_chunk_size = chunk;
        let mut bench = bench.connected();
        let options = bench.options.clone();
        let mut receiver = Receiver::default();
        for step in steps {
            match step {
                Step::Data { at, len, seed, drop } => {
                    let data = bytes(at, len, seed);
                    let outcome = bench.outcome(&format!("c PA {} 1 {data}", at + 1));
                    let mut sent = data.into_bytes();
                    match &outcome.disposition {
                        StreamDisposition::Accept => {}
                        StreamDisposition::Drop(_) => panic!("dropped at {at}"),
                        StreamDisposition::Replace(replacement) => {
                            for (at, new) in &replacement.bytes {
                                sent[*at..at + new.len()].copy_from_slice(new);
                            }
                        }
                    }
                    if drop {
                        bench.dropped();
                        continue;
                    }
                    receiver.take(at, &sent);
                    let end = at + u32::from(len);
                    if end <= receiver.acked {
                        continue;
                    }
                    let view = bench.session().raw(TO, &options).expect("a window");
                    let from = view.offset as u32;
                    let to = from + view.data.len() as u32;
                    prop_assert!(from <= at.max(receiver.acked) && end <= to);
                    for (place, byte) in (from..).zip(view.data) {
                        let Some(values) = receiver.delivered.get(&place) else {
                            continue;
                        };
                        prop_assert!(
                            values.iter().all(|value| value == byte),
                            "{place}: {values:?} delivered, {byte} inspected",
                        );
                    }
                    // The window reaches as far as what is there, or a chunk.
                    let left = from.checked_sub(1).filter(|_| at - from.min(at) < chunk);
                    if let Some(left) = left.filter(|left| *left >= receiver.acked) {
                        prop_assert!(!receiver.delivered.contains_key(&left), "{left} left out");
                    }
                    if to - end < chunk {
                        prop_assert!(!receiver.delivered.contains_key(&to), "{to} left out");
                    }
                }
                Step::Ack => {
                    receiver.acked = receiver.in_order();
                    let step = format!("s A 1 {}", receiver.acked + 1);
                    prop_assert_eq!(bench.send(&step), "");
                }
            }
        }
        let state = bench.session().control.sides[0];
        prop_assert_eq!(state.next as u32, receiver.in_order());
    }

    /// Watching a receiver that keeps the first, everything is inspected once, as it has it.
    #[test]
    fn watching_what_the_receiver_keeps_is_what_is_inspected(
        steps in steps(),
        isn in prop_oneof![Just(u32::MAX - 100), any::<u32>()],
        chunk in 1u32..50,
        last in any::<bool>(),
    ) {
        let mut bench = Bench::watching();
        let policy = if last { OsPolicy::Last } else { OsPolicy::First };
        bench.receiver_is(policy);
        bench.options.reassembly.toserver_chunk_size = chunk;
        bench.isn = [isn, 5];
        let mut bench = bench.connected();
        let options = bench.options.clone();
        let mut kept: BTreeMap<u32, u8> = BTreeMap::new();
        let mut acked = 0;
        let mut inspected: BTreeMap<u32, u8> = BTreeMap::new();
        let mut look = |bench: &mut Bench| {
            while let Some(view) = bench.session().raw(TO, &options) {
                for (place, &byte) in (view.offset as u32..).zip(view.data) {
                    assert_eq!(inspected.insert(place, byte), None, "{place} twice");
                }
                bench.session().raw_done(TO, &options);
            }
        };
        for step in steps {
            match step {
                Step::Data { at, len, seed, .. } => {
                    let data = bytes(at, len, seed);
                    bench.outcome(&format!("c PA {} 1 {data}", at + 1));
                    for (place, byte) in (at..).zip(data.bytes()) {
                        if last && place >= acked {
                            kept.insert(place, byte);
                        } else {
                            kept.entry(place).or_insert(byte);
                        }
                    }
                }
                Step::Ack => {
                    acked = (0..).find(|place| !kept.contains_key(place)).unwrap();
                    prop_assert_eq!(bench.send(&format!("s A 1 {}", acked + 1)), "");
                }
            }
            look(&mut bench);
        }
        bench.session().finish();
        look(&mut bench);
        prop_assert_eq!(inspected, kept);
    }

    /// Any numbers and flags at all.
    #[test]
    fn nothing_panics_and_memory_is_accounted(
        segments in prop::collection::vec(
            (any::<bool>(), any::<u8>(), -70_000i64..70_000, -70_000i64..70_000, 0usize..40, any::<u16>(), any::<bool>()),
            1..60,
        ),
        inline in any::<bool>(),
        midstream in any::<bool>(),
        async_oneside in any::<bool>(),
        depth in prop_oneof![Just(0u64), Just(50), Just(1 << 20)],
        memcap in prop_oneof![Just(0u64), Just(300), Just(1 << 20)],
        options in prop::collection::vec(any::<u8>(), 0..24),
    ) {
        let mut bench = Bench::new(StreamOptions { inline, midstream, async_oneside, ..StreamOptions::default() });
        bench.options.reassembly.depth = depth;
        bench.options.reassembly.memcap = memcap;
        bench.options.reassembly.toserver_chunk_size = 16;
        for (to_server, flags, seq, ack, len, window, bad) in segments {
            let (direction, isn) = match to_server {
                true => (TO, bench.isn),
                false => (PacketDirection::ToClient, [bench.isn[1], bench.isn[0]]),
            };
            // Small numbers are the ones that fit.
            let near = |number: i64| if number % 3 == 0 { number } else { number % 7 };
            let data = vec![b'x'; len];
            let (seq, ack) = (near(seq), near(ack));
            let seq = isn[0].wrapping_add(seq as u32);
            let ack = isn[1].wrapping_add(ack as u32);
            let mut segment = Segment::new(seq, ack, flags, &data, &options);
            segment.window = window;
            segment.urgent = window % 9;
            segment.bad_checksum = bad && len % 5 == 0;
            let now = Timestamp { wall_us: 0, monotonic_ns: 5 };
            let outcome = track(
                &mut bench.session, bench.begun, &segment, direction, now, &bench.options, &mut bench.memory,
            );
            if !inline {
                prop_assert_eq!(&outcome.disposition, &StreamDisposition::Accept);
            }
            if bench.session.is_some() {
                bench.raw(direction);
                let options = bench.options.clone();
                bench.session().raw_with_urgent(direction, &options);
                bench.session().contiguous(direction, &options);
                if window % 11 == 0 {
                    bench.dropped();
                }
                if window % 13 == 0 {
                    bench.session().start_reading(direction, None);
                }
            }
            bench.check_memory();
        }
        bench.session = None;
        bench.check_memory();
    }
}
