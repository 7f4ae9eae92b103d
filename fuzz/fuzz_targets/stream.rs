//! Segments of a connection. What the victim's application can read has been inspected as it reads
//! it, whichever copy of a byte its stack keeps; and what is in order and well-formed arrives.
//!
//! One end attacks and sends anything; the other is an honest stack that acknowledges what it has.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice::exception::Treatment;
use sluice::flow::{PacketDirection, Timestamp};
use sluice::reassembly::tcp::{
    Begun, Segment, Session, StreamDisposition, StreamMemory, StreamOptions, StreamOutcome,
    UrgentPolicy, track,
};
use sluice_fuzz::Input;
use sluice_fuzz::receiver::StreamReceiver;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const PSH: u8 = 8;
const ACK: u8 = 16;
const URG: u8 = 32;

/// What the victim offers, scaled.
const WINDOW: u32 = 8000;

struct Bench {
    options: StreamOptions,
    memory: StreamMemory,
    session: Option<Box<Session>>,
    now: Timestamp,
    from_attacker: PacketDirection,
}

impl Bench {
    fn give(&mut self, attacker: bool, segment: &Segment<'_>) -> StreamOutcome {
        let direction = match (attacker, self.from_attacker) {
            (true, direction) => direction,
            (false, PacketDirection::ToServer) => PacketDirection::ToClient,
            (false, PacketDirection::ToClient) => PacketDirection::ToServer,
        };
        self.now.monotonic_ns += 1_000_000;
        track(
            &mut self.session,
            Begun::Unknown,
            segment,
            direction,
            self.now,
            &self.options,
            &mut self.memory,
        )
    }

    /// Whether the session survives being handed to another process.
    fn hand_over(&mut self) -> bool {
        let Some(session) = self.session.take() else {
            return false;
        };
        let mut bytes = Vec::new();
        session.export(&mut bytes);
        drop(session);
        let taken = Session::import(&bytes, &self.options, &mut self.memory);
        let mut again = Vec::new();
        if let Some(taken) = &taken {
            taken.export(&mut again);
            assert_eq!(bytes, again);
        }
        self.session = taken.map(Box::new);
        self.session.is_some()
    }
}

fn rewritten(data: &[u8], disposition: &StreamDisposition) -> Option<Vec<u8>> {
    let mut data = data.to_vec();
    match disposition {
        StreamDisposition::Accept => {}
        StreamDisposition::Drop(_) => return None,
        StreamDisposition::Replace(replacement) => {
            for (at, bytes) in &replacement.bytes {
                data[*at..*at + bytes.len()].copy_from_slice(bytes);
            }
        }
    }
    Some(data)
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let flags = input.u8();
    let more = input.u8();
    let mut options = StreamOptions {
        inline: true,
        midstream_policy: Treatment::Ignore,
        ..StreamOptions::default()
    };
    let reassembly = &mut options.reassembly;
    reassembly.depth = input.one_of(&[1 << 20, 0, 50, 300]);
    reassembly.max_regions = if flags & 2 != 0 { 1 } else { 8 };
    let chunk = input.one_of(&[2560, 8, 1, 100]);
    reassembly.toserver_chunk_size = chunk;
    reassembly.toclient_chunk_size = chunk;
    // `gap` lets through what is in no stream, whatever a receiver makes of it: not here.
    reassembly.urgent = match more & 3 {
        0 | 3 => UrgentPolicy::Oob,
        1 => UrgentPolicy::Inline,
        _ => UrgentPolicy::Drop,
    };
    let attacker_is_client = flags & 1 == 0;
    let timestamps = flags & 4 != 0;
    let mut bench = Bench {
        options,
        memory: StreamMemory::new(),
        session: None,
        now: Timestamp {
            wall_us: 0,
            monotonic_ns: 1,
        },
        from_attacker: match attacker_is_client {
            true => PacketDirection::ToServer,
            false => PacketDirection::ToClient,
        },
    };
    // Near the wrap of the numbers as well.
    let isn = input.one_of(&[5u32, u32::MAX - 60, u32::MAX / 2 - 30, 1_000_000]);
    let victim_isn = input.one_of(&[900_000u32, u32::MAX - 3]);
    let stamp = |value: u32, echo: u32| {
        let mut option = vec![1, 1, 8, 10];
        option.extend(value.to_be_bytes());
        option.extend(echo.to_be_bytes());
        if timestamps { option } else { Vec::new() }
    };
    let (opening, plain) = (stamp(100, 0), stamp(100, 100));
    for (attacker, bits) in [(true, SYN), (false, SYN | ACK), (true, ACK)] {
        let attacker = attacker == attacker_is_client;
        let first = bits & ACK == 0;
        let own = if attacker { isn } else { victim_isn };
        let other = if attacker { victim_isn } else { isn };
        let after = u32::from(bits == ACK);
        let ack = if first { 0 } else { other.wrapping_add(1) };
        let mut segment = Segment::new(
            own.wrapping_add(after),
            ack,
            bits,
            &[],
            if first { &opening } else { &plain },
        );
        segment.window = WINDOW as u16;
        let outcome = bench.give(attacker, &segment);
        assert_eq!(outcome.disposition, StreamDisposition::Accept, "{bits}");
    }
    let mut victim = StreamReceiver {
        window: WINDOW,
        ..StreamReceiver::default()
    };
    // Whether the attacker has done nothing yet after which a receiver may refuse anything.
    let mut well_behaved = true;
    let mut handed_over = false;
    let mut steps = 0;
    while !input.is_empty() && steps < 150 {
        steps += 1;
        let kind = input.u8();
        if kind & 7 == 0 {
            // The victim acknowledges what it has.
            let acked = victim.acknowledge();
            let number = isn.wrapping_add(1).wrapping_add(acked);
            let mut segment = Segment::new(victim_isn.wrapping_add(1), number, ACK, &[], &plain);
            segment.window = WINDOW as u16;
            let outcome = bench.give(false, &segment);
            if well_behaved {
                assert_eq!(outcome.disposition, StreamDisposition::Accept);
            }
            continue;
        }
        if kind == 0xff {
            if !bench.hand_over() {
                return;
            }
            handed_over = true;
            continue;
        }
        // Most segments are near what comes next, some anywhere.
        let next = i64::from(victim.in_order());
        let at = match kind >> 3 & 3 {
            0 => next,
            1 => next + i64::from(input.u8() as i8),
            2 => i64::from(input.u8()),
            _ => next + i64::from(input.u16() as i16),
        };
        let len = match kind & 0x20 {
            0 => usize::from(input.u8() & 31),
            _ => usize::from(input.u8()) * 4,
        };
        let seed = input.u8() & 1;
        let payload: Vec<u8> = (at..)
            .map(|place| (place / 3) as u8 ^ (seed * 0x55))
            .take(len)
            .collect();
        let odd = kind & 0x40 != 0;
        let mut bits = ACK | PSH;
        let mut ack = victim_isn.wrapping_add(1);
        let mut window = 5000;
        let mut urgent = 0;
        let mut bad = false;
        let mut options = plain.clone();
        if odd {
            let what = input.u8();
            let value = input.u8();
            match what & 7 {
                0 => bits = value & 0x3f,
                1 => ack = ack.wrapping_add_signed(i32::from(value as i8) * 1000),
                2 => (bits, urgent) = (bits | URG, u16::from(value & 31)),
                3 => bad = true,
                4 => options = stamp(u32::from(value), 100),
                5 => bits |= FIN,
                6 => window = u16::from(value),
                _ => options = vec![19, 18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            }
            well_behaved &= what & 7 == 3 || what & 7 == 6;
        }
        let seq = isn.wrapping_add(1).wrapping_add(at as u32);
        let mut segment = Segment::new(seq, ack, bits, &payload, &options);
        (segment.window, segment.urgent, segment.bad_checksum) = (window, urgent, bad);
        let outcome = bench.give(true, &segment);
        if outcome.exception.is_some() {
            // Goes by a policy that is not asked here.
            return;
        }
        let delivered = rewritten(&payload, &outcome.disposition);
        let dropped_by_rule = kind & 0x80 != 0 && kind & 6 == 6;
        let in_order = at == next && len > 0 && u32::try_from(len).is_ok_and(|it| it <= WINDOW);
        let reaches = u32::try_from(at).is_ok_and(|at| at + len as u32 <= victim.acked + WINDOW);
        if well_behaved && !bad && in_order && reaches && !handed_over {
            assert!(
                delivered.is_some(),
                "{at}+{len} is in order and dropped: {outcome:?}"
            );
        }
        let Some(delivered) = delivered else {
            continue;
        };
        if dropped_by_rule {
            if let Some(session) = &mut bench.session {
                session.dropped(&mut bench.memory);
            }
            continue;
        }
        if bits & (SYN | RST) != 0 {
            // Opens anew, or ends it: another story, or none.
            if bits & RST != 0 && len == 0 {
                return;
            }
            well_behaved = false;
            continue;
        }
        if bad || delivered.is_empty() || bits & ACK == 0 {
            continue;
        }
        // Before the beginning there is nothing to take.
        let skip = (-at).clamp(0, delivered.len() as i64) as usize;
        if skip == delivered.len() {
            continue;
        }
        let from = (at + skip as i64) as u32;
        let fresh = &delivered[skip..];
        victim.take(from, fresh);
        let (low, high) = (
            from.max(victim.acked),
            (from + fresh.len() as u32).min(victim.acked + WINDOW),
        );
        if low >= high {
            continue;
        }
        let Some(session) = &mut bench.session else {
            panic!("{low}..{high} was delivered without a session");
        };
        let direction = bench.from_attacker;
        let out_of_band = session.raw_with_urgent(direction, &bench.options).is_some();
        let view = match out_of_band {
            true => session.raw_with_urgent(direction, &bench.options),
            false => session.raw(direction, &bench.options),
        };
        let Some(view) = view else {
            panic!("{low}..{high} was delivered and not inspected: {outcome:?}");
        };
        // Places count from the SYN.
        let begin = view.offset as u32;
        let end = begin + view.data.len() as u32;
        assert!(
            begin <= low && high <= end,
            "{low}..{high} was delivered, {begin}..{end} inspected"
        );
        for (place, byte) in (begin..).zip(view.data) {
            let Some(values) = victim.delivered.get(&place) else {
                continue;
            };
            // What is acknowledged is read already.
            if place >= victim.acked {
                let same = values.iter().all(|value| value == byte);
                assert!(
                    same,
                    "{place}: {values:02x?} delivered, {byte:02x} inspected"
                );
            }
        }
        let left = begin
            .checked_sub(1)
            .filter(|_| low - begin.min(low) < chunk);
        if let Some(left) = left.filter(|left| *left >= victim.acked) {
            assert!(!victim.delivered.contains_key(&left), "{left} is left out");
        }
        if end - high < chunk && end < victim.acked + WINDOW {
            assert!(!victim.delivered.contains_key(&end), "{end} is left out");
        }
        session.raw_done(direction, &bench.options);
    }
});
