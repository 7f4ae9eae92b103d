use super::*;

#[test]
fn data_is_inspected_in_chunks_once_it_is_acknowledged() {
    let mut bench = Bench::watching();
    bench.options.reassembly.toserver_chunk_size = 6;
    let mut bench = bench.connected();
    let mut step = |step: &str, expect: &str| {
        assert_eq!(bench.send(step), "", "{step}");
        assert_eq!(bench.raw_to_server(), expect, "{step}");
    };
    step("c PA 1 1 abcd", "");
    step("s A 1 5", "");
    step("c PA 5 1 efgh", "");
    step("s A 1 9", "abcdefgh");
    step("c PA 9 1 ij", "");
    step("c FPA 11 1 kl", "");
    // About to close: what is acknowledged, however little.
    step("s A 1 11", "ij");
    assert_eq!(bench.rest(), "kl");
}

#[test]
fn a_parser_can_ask_for_less_than_a_chunk() {
    let mut bench = Bench::watching().connected();
    bench.check(&[("c PA 1 1 abcd", ""), ("s A 1 4", "")]);
    assert_eq!(bench.raw_to_server(), "");
    bench.session().flush_raw(PacketDirection::ToServer);
    assert_eq!(bench.raw_to_server(), "abc");
    bench.check(&[("s A 1 5", "")]);
    assert_eq!(bench.raw_to_server(), "");
}

#[test]
fn a_reset_leaves_everything_to_inspect() {
    let mut bench = Bench::watching().connected();
    bench.check(&[
        ("c PA 1 1 one", ""),
        ("c PA 9 1 three", ""),
        ("s RA 1 4", ""),
    ]);
    let options = bench.options.clone();
    assert_eq!(bench.state(), "closed");
    bench.session().finish();
    assert!(bench.session().is_left(PacketDirection::ToServer, &options));
    assert!(!bench.session().is_left(PacketDirection::ToClient, &options));
    assert_eq!(bench.raw_to_server(), "one|three");
    assert!(!bench.session().is_left(PacketDirection::ToServer, &options));
}

#[test]
fn a_gap_is_said_to_be_one() {
    let mut bench = Bench::watching().connected();
    bench.check(&[
        ("c A 5 1 GOOD", ""),
        ("c A 9 1 DATA", ""),
        ("s A 1 13", "reassembly_seq_gap"),
    ]);
    let options = bench.options.clone();
    bench.session().finish();
    let view = bench.session().raw(PacketDirection::ToServer, &options);
    let view = view.unwrap();
    assert_eq!(
        (view.data, view.offset, view.missing),
        (&b"GOODDATA"[..], 4, 4)
    );
}

#[test]
fn data_that_is_captured_after_its_acknowledgement_is_still_put_in() {
    let mut bench = Bench::watching().connected();
    bench.check(&[
        ("c A 1 1 one", ""),
        ("s A 1 7", "reassembly_seq_gap"),
        ("c A 4 1 two", "pkt_spurious_retransmission"),
    ]);
    assert_eq!(bench.rest(), "onetwo");
}

use OsPolicy::{
    Bsd, BsdRight, First, Hpux10, Hpux11, Irix, Last, Linux, Macos, OldLinux, OldSolaris, Solaris,
    Vista, Windows, Windows2k3,
};

const FIRST: &[OsPolicy] = &[First, Vista, Windows2k3];
const LIKE_BSD: &[OsPolicy] = &[Bsd, Hpux10, Irix, Macos];
const LIKE_SOLARIS: &[OsPolicy] = &[Solaris, OldSolaris, Hpux11];

/// Each stack's view of segments with the bytes of their number, before they are acknowledged.
#[track_caller]
fn policies(segments: &[(i64, i64)], expect: &[(&[&[OsPolicy]], &str)]) {
    let all = expect.iter().flat_map(|(stacks, _)| stacks.concat());
    assert_eq!(all.count(), 15);
    for (stacks, expect) in expect {
        for policy in stacks.concat() {
            let mut bench = Bench::watching();
            bench.receiver_is(policy);
            let mut bench = bench.connected();
            for (number, (from, to)) in segments.iter().enumerate() {
                let data = number.to_string().repeat((to - from) as usize);
                bench.outcome(&format!("c PA {} 1 {data}", from + 1));
            }
            assert_eq!(bench.rest(), *expect, "{policy:?}");
        }
    }
}

#[test]
fn a_receivers_policy_decides_about_overlaps() {
    // The later one covers the earlier one and more.
    policies(
        &[(2, 4), (0, 6)],
        &[
            (&[FIRST, &[BsdRight]], "110011"),
            (
                &[LIKE_BSD, LIKE_SOLARIS, &[Last, Linux, OldLinux, Windows]],
                "111111",
            ),
        ],
    );
    // The same place.
    policies(
        &[(0, 4), (0, 4)],
        &[
            (&[FIRST, LIKE_BSD, LIKE_SOLARIS, &[Linux, Windows]], "0000"),
            (&[&[Last, BsdRight, OldLinux]], "1111"),
        ],
    );
    // The later one begins inside and ends after.
    policies(
        &[(0, 4), (2, 6)],
        &[
            (&[FIRST, LIKE_BSD, &[Linux, OldLinux, Windows]], "000011"),
            (&[LIKE_SOLARIS, &[Last, BsdRight]], "001111"),
        ],
    );
    // The later one begins before and ends inside.
    policies(
        &[(2, 6), (0, 4)],
        &[
            (&[FIRST, LIKE_SOLARIS, &[BsdRight, Windows]], "110000"),
            (&[LIKE_BSD, &[Last, Linux, OldLinux]], "111100"),
        ],
    );
    // The same beginning, longer.
    policies(
        &[(0, 3), (0, 5)],
        &[
            (&[FIRST, LIKE_BSD, &[Windows]], "00011"),
            (&[LIKE_SOLARIS, &[Last, BsdRight, Linux, OldLinux]], "11111"),
        ],
    );
}

#[test]
fn other_data_in_the_same_place_is_found_whoever_wins() {
    for check in [true, false] {
        let mut bench = Bench::watching();
        bench.options.reassembly.check_overlap_different_data = check;
        let mut bench = bench.connected();
        let expect = match check {
            true => "pkt_retransmission reassembly_overlap_different_data",
            false => "pkt_retransmission",
        };
        bench.check(&[("c A 1 1 GOOD", ""), ("c A 1 1 EVIL", expect)]);
        assert_eq!(bench.rest(), "GOOD");
    }
}

#[test]
fn what_is_acknowledged_stays_whatever_the_policy() {
    let mut bench = Bench::watching();
    bench.receiver_is(Last);
    let mut bench = bench.connected();
    bench.check(&[("c A 1 1 GOOD", ""), ("s A 1 3", "")]);
    bench.outcome("c A 1 1 EVIL");
    assert_eq!(bench.rest(), "GOIL");
}

#[test]
fn data_beyond_the_depth_is_left_out() {
    let mut bench = Bench::watching();
    bench.options.reassembly.depth = 6;
    let mut bench = bench.connected();
    bench.check(&[
        ("c A 1 1 1234", ""),
        ("c A 5 1 5678", "reassembly_depth_reached"),
        ("c A 9 1 90", ""),
        ("s A 1 11", ""),
    ]);
    assert_eq!(bench.raw_to_server(), "123456");
    assert_eq!(bench.session().stream_size(PacketDirection::ToServer), 11);
    assert_eq!(bench.memory.counters().stream_depth_reached, 1);
}

#[test]
fn only_what_is_needed_is_kept() {
    let mut bench = Bench::watching();
    bench.options.reassembly.depth = 0;
    let mut bench = bench.connected();
    let data = "x".repeat(1000);
    let mut most = 0;
    for n in 0..3000 {
        let seq = 1 + n * 1000;
        assert_eq!(bench.send(&format!("c PA {seq} 1 {data}")), "");
        bench.raw_to_server();
        assert_eq!(bench.send(&format!("s A 1 {}", seq + 1000)), "");
        most = most.max(bench.memory.counters().reassembly_memuse);
    }
    assert!(most < 20_000, "{most} bytes");
}
