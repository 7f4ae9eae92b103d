//! What was searched once and found quiet is not searched again: that must not show.

use super::tests::{Tested, feed, segment, with};

/// Rules with literals of all lengths, alone and behind each other, of both kinds.
const RULES: &str = "\
    alert tcp any any -> any any (content:\"abbaabba\"; sid:1;)\n\
    alert tcp any any -> any 80 (content:\"aabbb\"; content:\"babab\"; distance:0; sid:2;)\n\
    alert tcp-pkt any any -> any any (content:\"bbbbbb\"; sid:3;)\n\
    alert tcp any any -> any any (content:\"abababababababababababab\"; sid:4;)\n\
    alert tcp any any -> any any (content:\"aaaaaaaaa\"; content:!\"bbbbb\"; within:20; sid:5;)\n\
    drop tcp any any -> any any (content:\"babbabbabbab\"; dsize:<30; sid:6;)\n";

struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

/// The client's segments of a stream: cut anywhere, some late, some twice.
fn segments(dice: &mut Dice) -> Vec<(u32, Vec<u8>)> {
    // Long stretches without any literal, so that there is something to be left out.
    let stream: Vec<u8> = (0..40)
        .flat_map(|_| {
            let len = dice.below(60);
            let noisy = dice.below(3) == 0;
            let mut byte = || if noisy { b"ab"[dice.below(2)] } else { b'.' };
            (0..len).map(|_| byte()).collect::<Vec<_>>()
        })
        .collect();
    let mut segments = Vec::new();
    let mut at = 0;
    while at < stream.len() {
        let len = (1 + dice.below(40)).min(stream.len() - at);
        segments.push((at as u32, stream[at..at + len].to_vec()));
        at += len;
    }
    for _ in 0..dice.below(4) {
        let (one, other) = (dice.below(segments.len()), dice.below(segments.len()));
        match dice.below(2) {
            0 => segments.swap(one, other),
            _ => segments.insert(one, segments[other].clone()),
        }
    }
    segments
}

fn open(inspection: &mut Tested) {
    feed(inspection, &segment(true, "S", (4999, 0), b""));
    feed(inspection, &segment(false, "SA", (6999, 5000), b""));
    feed(inspection, &segment(true, "A", (5000, 7000), b""));
}

#[test]
fn nothing_is_missed_by_searching_only_what_is_new() {
    let mut dice = Dice(0x5eed);
    let mut alerts = 0;
    for _ in 0..150 {
        let (mut once, mut always) = (with(RULES), with(RULES));
        for inspection in [&mut once, &mut always] {
            inspection
                .examiner
                .options
                .stream
                .reassembly
                .toserver_chunk_size = 64;
            open(inspection);
        }
        for (number, (at, data)) in segments(&mut dice).iter().enumerate() {
            let bytes = segment(true, "A", (5000 + at, 7000), data);
            // Other rules, as far as it knows: everything is searched.
            always.examiner.epoch += 1;
            let ends = [feed(&mut once, &bytes), feed(&mut always, &bytes)];
            assert_eq!(ends[0], ends[1], "segment {number}");
            let count = |it: &Tested| it.counters().alerts;
            assert_eq!(count(&once), count(&always), "segment {number}");
            if number % 8 == 7 && dice.below(2) == 0 {
                let ack = segment(false, "A", (7000, 5000 + at), b"");
                feed(&mut once, &ack);
                feed(&mut always, &ack);
            }
        }
        alerts += once.counters().alerts;
    }
    assert!(alerts > 500, "{alerts} alerts are too few to show anything");
}

#[test]
fn quiet_bytes_are_not_searched_again_and_noisy_ones_are() {
    let mut inspection = with("alert tcp any any -> any any (content:\"needle\"; sid:1;)");
    open(&mut inspection);
    let mut quiet = |at: u32, data: &[u8]| {
        feed(
            &mut inspection,
            &segment(true, "A", (5000 + at, 7000), data),
        );
        inspection.examiner.quiet
    };
    assert!(quiet(0, b"nothing at all nee"));
    // Across the border.
    assert!(!quiet(18, b"dle"));
    // It is in the window still.
    assert!(!quiet(21, b"and more"));
}
