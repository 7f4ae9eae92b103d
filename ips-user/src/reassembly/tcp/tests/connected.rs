use super::*;

#[track_caller]
fn check(steps: &[(&str, &str)], state: &str) {
    let mut bench = Bench::inline().connected();
    bench.check(steps);
    assert_eq!(bench.state(), state);
}

#[test]
fn fins_close_from_either_side() {
    check(&[("c FA 1 1", "")], "close_wait");
    check(&[("c FA 1 1", ""), ("s A 1 2", "")], "close_wait");
    check(&[("c FA 1 1", ""), ("s FA 1 2", "")], "last_ack");
    check(
        &[("c FA 1 1", ""), ("s FA 1 2", ""), ("c A 2 2", "")],
        "closed",
    );
    check(&[("s FA 1 1", "")], "fin_wait1");
    check(&[("s FA 1 1", ""), ("c A 1 2", "")], "fin_wait2");
    check(
        &[("s FA 1 1", ""), ("c A 1 2", ""), ("c FA 1 2", "")],
        "time_wait",
    );
    check(&[("s FA 1 1", ""), ("c FA 1 1", "")], "closing");
    check(
        &[("s FA 1 1", ""), ("c FA 1 1", ""), ("s A 2 2", "")],
        "closing",
    );
    check(
        &[("s FA 1 1", ""), ("c FA 1 2", ""), ("s A 2 2", "")],
        "closed",
    );
    check(
        &[("c FPA 1 1 bye", ""), ("s FA 1 5", ""), ("c A 5 2", "")],
        "closed",
    );
}

#[test]
fn a_fin_in_the_wrong_place_closes_nothing() {
    check(&[("c FA 90000 1", "fin_out_of_window drop")], "established");
    check(
        &[
            ("c PA 1 1 data", ""),
            ("c FA 3 1", "fin_out_of_window drop"),
        ],
        "established",
    );
    check(
        &[("c FA 1 99999", "fin_invalid_ack pkt_invalid_ack drop")],
        "established",
    );
    check(
        &[("s FA 1 1", ""), ("s FA 5 1", "fin1_fin_wrong_seq drop")],
        "fin_wait1",
    );
    check(
        &[
            ("s FA 1 1", ""),
            ("c A 1 2", ""),
            ("s FA 5 1", "fin2_fin_wrong_seq drop"),
        ],
        "fin_wait2",
    );
    check(
        &[
            ("c FA 1 1", ""),
            ("c FA 5 1", "closewait_fin_out_of_window drop"),
        ],
        "close_wait",
    );
    check(&[("c FA 1 1", ""), ("c FA 1 1", "")], "close_wait");
}

#[test]
fn nothing_follows_a_fin() {
    check(
        &[
            ("s FA 1 1", ""),
            ("s PA 2 1 EVIL", "fin1_ack_wrong_seq drop"),
        ],
        "fin_wait1",
    );
    check(
        &[
            ("s FA 1 1", ""),
            ("c A 1 2", ""),
            ("s PA 2 1 EVIL", "fin2_ack_wrong_seq drop"),
        ],
        "fin_wait2",
    );
    check(
        &[
            ("c FA 1 1", ""),
            ("c PA 2 1 EVIL", "closewait_ack_out_of_window drop"),
        ],
        "close_wait",
    );
    let both = [("c FA 1 1", ""), ("s FA 1 2", "")];
    check(
        &[
            both[0],
            both[1],
            ("c PA 2 1 EVIL", "lastack_ack_wrong_seq drop"),
        ],
        "last_ack",
    );
    check(
        &[
            ("s FA 1 1", ""),
            ("c FA 1 1", ""),
            ("c PA 2 1 EVIL", "closing_ack_wrong_seq drop"),
        ],
        "closing",
    );
    check(
        &[
            ("s FA 1 1", ""),
            ("c FA 1 2", ""),
            ("c PA 2 1 EVIL", "timewait_ack_wrong_seq drop"),
        ],
        "time_wait",
    );
    check(
        &[both[0], both[1], ("c A 2 2", ""), ("c PA 2 2 EVIL", "drop")],
        "closed",
    );
    // What is missing before it still comes.
    check(&[("c FA 5 1", ""), ("c PA 1 1 data", "")], "close_wait");
}

#[test]
fn each_state_names_its_invalid_acknowledgement() {
    let invalid = |before: &[(&str, &str)], event: &str| {
        let mut bench = Bench::inline().connected();
        bench.check(before);
        let expect = [event, "pkt_invalid_ack", "drop"].join(" ");
        assert_eq!(bench.send("c A 1 99999"), expect);
    };
    invalid(&[], "est_invalid_ack");
    invalid(&[("s FA 1 1", "")], "fin1_invalid_ack");
    invalid(&[("s FA 1 1", ""), ("c A 1 2", "")], "fin2_invalid_ack");
    invalid(&[("c FA 1 1", "")], "closewait_invalid_ack");
    invalid(&[("c FA 1 1", ""), ("s FA 1 1", "")], "lastack_invalid_ack");
    invalid(&[("s FA 1 1", ""), ("c FA 1 1", "")], "closing_invalid_ack");
    invalid(
        &[("s FA 1 1", ""), ("c FA 1 2", "")],
        "timewait_invalid_ack",
    );
}

#[test]
fn acknowledgements_long_past_are_invalid() {
    let mut bench = Bench::inline().connected();
    for (seq, _) in (0..3).map(|n| (1 + n * 50_000, ())) {
        let data = "x".repeat(50_000);
        assert_eq!(bench.send(&format!("s PA {seq} 1 {data}")), "");
        assert_eq!(bench.send(&format!("c A 1 {}", seq + 50_000)), "");
    }
    bench.check(&[
        ("c A 1 100001", ""),
        ("c PA 1 1 EVIL", "est_invalid_ack pkt_invalid_ack drop"),
    ]);
}

#[test]
fn segments_stay_in_the_window_that_was_offered() {
    check(
        &[
            ("c PA 59997 1 data", ""),
            ("c PA 59998 1 data", "est_packet_out_of_window drop"),
        ],
        "established",
    );
    check(
        &[
            ("s A 1 1 win=60001", ""),
            ("c PA 59998 1 data", ""),
            ("s A 1 1 win=10", ""),
            // It was offered once.
            ("c PA 59998 1 data", ""),
        ],
        "established",
    );
    let mut scaled = Bench::inline();
    scaled.check(&[
        ("c S 0 0 ws=2", ""),
        ("s SA 0 1 ws=3", ""),
        ("c A 1 1", ""),
        ("s A 1 1", ""),
        ("c PA 479997 1 data", ""),
        ("c PA 479998 1 data", "est_packet_out_of_window drop"),
        ("s PA 239997 1 data", ""),
        ("s PA 239998 1 data", "est_packet_out_of_window drop"),
    ]);
}

#[test]
fn a_closed_window_is_probed() {
    check(
        &[
            ("c PA 1 1 data", ""),
            ("s A 1 5 win=0", ""),
            ("s A 1 5 win=0", ""),
            ("c A 4 1", ""),
        ],
        "established",
    );
    let mut bench = Bench::inline();
    bench.check(&[
        ("c S 0 0 win=4", ""),
        ("s SA 0 1 win=4", ""),
        ("c A 1 1 win=4", ""),
        ("c PA 1 1 win=4 data", ""),
        ("s A 1 5 win=0", ""),
        ("c PA 5 1 win=4 x", ""),
        ("c PA 5 1 win=4 xy", "est_packet_out_of_window drop"),
        ("s A 1 6 win=4", "est_ack_zwp_data"),
    ]);
}

#[test]
fn keep_alives_are_no_retransmissions() {
    check(
        &[
            ("c PA 1 1 data", ""),
            ("s A 1 5", ""),
            ("c A 4 1", ""),
            ("s A 1 5", ""),
            ("c A 3 1", "est_pkt_before_last_ack"),
        ],
        "established",
    );
}

#[test]
fn old_timestamps_are_refused() {
    let mut bench = Bench::inline();
    bench.check(&[
        ("c S 0 0 ts=100,0", ""),
        ("s SA 0 1 ts=900,100", ""),
        ("c A 1 1 ts=101,900", ""),
        ("c PA 1 1 ts=50,900 EVIL", "pkt_invalid_timestamp drop"),
        ("c RA 1 1 ts=50,900", "pkt_invalid_timestamp drop"),
        ("c FA 1 1 ts=50,900", "pkt_invalid_timestamp drop"),
        ("c PA 1 1 ts=102,900 data", ""),
        // Sent later, here earlier: what it overtakes is not old.
        ("c PA 9 1 ts=110,900 more", ""),
        ("c PA 5 1 ts=105,900 data", ""),
    ]);
    assert_eq!(bench.state(), "established");
    // An invalid one changes nothing.
    bench.check(&[
        (
            "c PA 99999 1 ts=4000,900 far",
            "est_packet_out_of_window drop",
        ),
        ("c PA 13 1 ts=111,900 data", ""),
    ]);
}

#[test]
fn syns_in_the_midst() {
    let mut bench = Bench::inline().connected();
    bench.check(&[
        ("s SA 0 1", ""),
        ("c PA 1 1 data", ""),
        ("s SA 0 1", "est_synack_resend drop"),
        ("s SA 0 3", "est_synack_resend_with_different_ack drop"),
        ("s SA 9 1", "est_synack_resend_with_diff_seq drop"),
        ("c SA 0 1", "est_synack_toserver drop"),
        ("c S 0 0", "est_syn_resend drop"),
        ("c S 9 0", "est_syn_resend_diff_seq drop"),
        ("s S 0 0", "est_syn_toclient drop"),
        ("c SFA 9 1", "est_synack_toserver fin_syn drop"),
        ("c FA 5 1", ""),
        ("c S 9 0", "shutdown_syn_resend drop"),
    ]);
}

#[test]
fn only_a_reset_that_the_receiver_believes_closes() {
    let believed = |inline: bool, step: &str, expect: &str, state: &str| {
        let mut bench = match inline {
            true => Bench::inline(),
            false => Bench::watching(),
        }
        .connected();
        bench.check(&[("c PA 1 1 data", ""), (step, expect)]);
        assert_eq!(bench.state(), state, "{step}");
    };
    believed(true, "c R 5 0", "", "closed");
    believed(true, "c R 1 0", "", "closed");
    // In the window: the receiver asks.
    believed(true, "c R 3 0", "", "established");
    believed(true, "c R 90000 0", "drop", "established");
    believed(true, "s RA 1 5", "", "closed");
    believed(true, "s RA 1 99999", "rst_invalid_ack drop", "established");
    believed(
        true,
        "c RA 5 1 md5",
        "suspected_rst_inject drop",
        "established",
    );
    believed(false, "c R 5 0", "", "closed");
    believed(false, "c R 9 0", "", "established");
    believed(false, "c R 90000 0", "", "established");
}

#[test]
fn watching_linux_believes_any_reset_in_the_window() {
    let mut bench = Bench::watching();
    bench.receiver_is(OsPolicy::Linux);
    let mut bench = bench.connected();
    bench.check(&[("c R 900 0", "")]);
    assert_eq!(bench.state(), "closed");
}

#[test]
fn whoever_goes_on_after_a_reset_did_not_send_it() {
    let mut bench = Bench::inline().connected();
    bench.check(&[
        ("c PA 1 1 EV", ""),
        ("c R 3 0", ""),
        ("c PA 3 1 IL", "suspected_rst_inject"),
    ]);
    // Its receiver may have it all.
    assert_eq!(bench.raw_to_server(), "EVIL");
}

#[test]
fn ports_are_used_again_after_the_end() {
    let mut bench = Bench::inline().connected();
    bench.check(&[("c PA 1 1 old", ""), ("c R 4 0", "")]);
    bench.isn = [77, 88];
    let bench = bench.connected();
    assert_eq!(bench.state(), "established");
    assert_eq!(bench.memory.counters().sessions, 2);
}

#[test]
fn a_bad_checksum_is_dropped_or_not_looked_at() {
    check(
        &[("c PA 1 1 bad EVIL", "drop"), ("c R 1 0 bad", "drop")],
        "established",
    );
    let mut bench = Bench::watching();
    bench.check(&[("c S 0 0 bad", "")]);
    assert_eq!(bench.state(), "none");
    let mut bench = Bench::watching().connected();
    bench.check(&[
        ("c PA 1 1 bad EVIL", ""),
        ("c PA 1 1 GOOD", ""),
        ("s A 1 5", ""),
    ]);
    assert_eq!(bench.rest(), "GOOD");
    assert_eq!(bench.memory.counters().invalid_checksum, 1);
}

#[test]
fn invalid_packets_pass_when_they_shall() {
    let mut bench = Bench::inline();
    bench.options.drop_invalid = false;
    let mut bench = bench.connected();
    bench.check(&[("c PA 1 99999 EVIL", "est_invalid_ack pkt_invalid_ack")]);
}

#[test]
fn odd_flags_are_named() {
    check(
        &[("c P 1 7 data", "pkt_broken_ack"), ("c - 5 0 data", "")],
        "established",
    );
}

#[test]
fn retransmissions_are_named() {
    check(
        &[
            ("c PA 1 1 data", ""),
            ("c PA 1 1 data", "pkt_retransmission"),
            ("s A 1 5", ""),
            ("c PA 1 1 data", "pkt_spurious_retransmission"),
            ("c PA 5 1 more", ""),
            ("c PA 9 1 rest", ""),
            ("s A 1 5 sack=9-13", ""),
            ("c PA 9 1 rest", "pkt_spurious_retransmission"),
            ("c PA 5 1 more", "pkt_retransmission"),
        ],
        "established",
    );
}
