use super::*;
use crate::exception::Treatment;

/// Steps, findings, and the state that they end in, inline and watching alike.
#[track_caller]
fn both(steps: &[(&str, &str)], state: &str) {
    for mut bench in [Bench::watching(), Bench::inline()] {
        for (step, expect) in steps {
            let expect = match bench.options.inline {
                true => expect.to_string(),
                false => expect.trim_end_matches("drop").trim_end().to_owned(),
            };
            assert_eq!(bench.send(step), expect, "{step}");
        }
        assert_eq!(bench.state(), state);
    }
}

#[test]
fn three_ways() {
    both(&[("c S 0 0", "")], "syn_sent");
    both(&[("c S 0 0", ""), ("s SA 0 1", "")], "syn_recv");
    both(
        &[("c S 0 0", ""), ("s SA 0 1", ""), ("c A 1 1", "")],
        "established",
    );
    // The last ACK is lost, or carries data.
    both(
        &[("c S 0 0", ""), ("s SA 0 1", ""), ("c PA 1 1 GET", "")],
        "established",
    );
    both(
        &[("c S 0 0", ""), ("s SA 0 1", ""), ("c PA 4 1 GET", "")],
        "established",
    );
    both(
        &[("c S 0 0", ""), ("s SA 0 1", ""), ("c FA 1 1", "")],
        "close_wait",
    );
}

#[test]
fn the_second_of_three_is_wrong() {
    let wrong = |step, event| both(&[("c S 0 0", ""), (step, event)], "syn_sent");
    wrong("s SA 0 2", "3whs_synack_with_wrong_ack drop");
    wrong("c SA 0 1", "3whs_synack_in_wrong_direction drop");
    wrong("s RA 0 9", "rst_invalid_ack drop");
    both(&[("c S 0 0", ""), ("s RA 0 1", "")], "closed");
}

#[test]
fn the_third_of_three_is_wrong() {
    let wrong = |step, event| {
        both(
            &[("c S 0 0", ""), ("s SA 0 1", ""), (step, event)],
            "syn_recv",
        );
    };
    wrong("c A 1 7", "3whs_right_seq_wrong_ack_evasion drop");
    wrong("c A 99999 7", "3whs_wrong_seq_wrong_ack drop");
    wrong("c SA 0 1", "3whs_synack_toserver_on_syn_recv drop");
    wrong("s SA 0 3", "3whs_synack_resend_with_different_ack drop");
    wrong("s SA 0 1", "");
    wrong("c S 0 0", "");
    wrong("c S 5 0", "3whs_syn_resend_diff_seq_on_syn_recv drop");
    wrong("s S 5 0", "3whs_syn_toclient_on_syn_recv drop");
    wrong("s A 1 1", "3whs_ack_in_wrong_dir drop");
}

#[test]
fn the_server_chooses_among_syns_the_client_among_synacks() {
    both(
        &[
            ("c S 0 0", ""),
            ("c S 5000 0", ""),
            ("s SA 0 5001", ""),
            ("s SA 777 5001", ""),
            ("c A 5001 778", ""),
            ("c PA 5001 778 GET", ""),
        ],
        "established",
    );
}

#[test]
fn so_many_syns_are_remembered_and_the_latest_go_on() {
    let mut bench = Bench::watching();
    assert_eq!(bench.send("c S 0 0"), "");
    for number in 1..=10 {
        assert_eq!(bench.send(&format!("c S {} 0", number * 1000)), "");
    }
    assert_eq!(bench.send("c S 20000 0"), "3whs_syn_flood");
    bench.check(&[("s SA 0 20001", ""), ("c A 20001 1", "")]);
    assert_eq!(bench.state(), "established");
}

#[test]
fn so_many_synacks_are_remembered() {
    let mut bench = Bench::inline();
    bench.check(&[("c S 0 0", ""), ("s SA 0 1", "")]);
    for number in 1..=5 {
        assert_eq!(bench.send(&format!("s SA {} 1", number * 1000)), "");
    }
    bench.check(&[("s SA 9000 1", "3whs_synack_flood drop")]);
}

#[test]
fn four_and_five_ways() {
    both(
        &[
            ("c S 0 0", ""),
            ("s S 0 0", ""),
            ("c SA 0 1", ""),
            ("s A 1 1", ""),
            ("c A 1 1 EVIL", ""),
        ],
        "established",
    );
    both(
        &[
            ("c S 0 0", ""),
            ("s A 0 1", ""),
            ("s S 1000 0", ""),
            ("c SA 0 1001", ""),
            ("s A 1001 1", ""),
            ("c A 1 1001 EVIL", ""),
        ],
        "established",
    );
    // Both at once.
    both(
        &[
            ("c S 0 0", ""),
            ("s S 0 0", ""),
            ("s SA 0 1", ""),
            ("c SA 0 1", ""),
            ("c A 1 1 EVIL", ""),
        ],
        "established",
    );
    let begun = [("c S 0 0", ""), ("s S 0 0", "")];
    let wrong = |step, event, state| both(&[begun[0], begun[1], (step, event)], state);
    wrong("c SA 0 2", "4whs_synack_with_wrong_ack drop", "syn_sent");
    wrong("c SA 9 1", "4whs_synack_with_wrong_syn drop", "syn_sent");
    let wrong = |step, event| {
        both(
            &[begun[0], begun[1], ("c SA 0 1", ""), (step, event)],
            "syn_recv",
        );
    };
    wrong("s A 9 1", "4whs_wrong_seq drop");
    wrong("s A 1 9", "4whs_invalid_ack drop");
}

#[test]
fn data_of_a_fast_open_syn_counts_when_the_server_takes_it() {
    for mut bench in [Bench::watching(), Bench::inline()] {
        bench.check(&[
            ("c S 0 0 tfo GET", ""),
            ("s SA 0 4", ""),
            ("c A 4 1", ""),
            ("c PA 4 1 /", ""),
            ("s A 1 5", ""),
        ]);
        assert_eq!(bench.session().stream_size(PacketDirection::ToServer), 5);
        if !bench.options.inline {
            assert_eq!(bench.rest(), "GET/");
        }
    }
    for mut bench in [Bench::watching(), Bench::inline()] {
        bench.check(&[
            ("c S 0 0 tfo GET", ""),
            ("s SA 0 1", "3whs_synack_tfo_data_ignored"),
            ("c PA 1 1 PUT", ""),
            ("s A 1 4", ""),
        ]);
        if !bench.options.inline {
            assert_eq!(bench.rest(), "PUT");
        }
    }
    // The server goes on before the client's ACK.
    both(
        &[
            ("c S 0 0 tfo GET", ""),
            ("s SA 0 4", ""),
            ("s PA 1 4 200", ""),
            ("c A 4 4", ""),
        ],
        "established",
    );
}

#[test]
fn data_of_a_plain_syn_is_known_inline_before_the_server_takes_it() {
    let mut bench = Bench::inline();
    bench.check(&[("c S 0 0 EV", "")]);
    assert_eq!(bench.raw_to_server(), "EV");
    bench.check(&[("s SA 0 3", ""), ("c PA 3 1 IL", "")]);
    assert_eq!(bench.raw_to_server(), "EVIL");
    // Another SYN cannot bring other data for the server to choose.
    let mut bench = Bench::inline();
    bench.check(&[
        ("c S 0 0 EV", ""),
        (
            "c S 0 0 XX",
            "pkt_retransmission reassembly_overlap_different_data =EV",
        ),
        ("c S 700 0 XX", "drop"),
        ("c S 700 0", ""),
    ]);
}

#[test]
fn timestamps_answer_those_of_the_syn() {
    both(
        &[
            ("c S 0 0 ts=500,0", ""),
            ("s RA 0 1 ts=100,100", "pkt_invalid_timestamp drop"),
            ("s FA 0 1 ts=100,100", "pkt_invalid_timestamp drop"),
            ("c R 1 0", ""),
            ("s SA 26175 1 ts=500,0", ""),
            ("c A 1 26176 ts=501,500", ""),
        ],
        "established",
    );
    both(
        &[
            ("c S 0 0", ""),
            ("s RA 0 1 ts=100,100", "pkt_invalid_timestamp drop"),
            ("s SA 0 1", ""),
        ],
        "syn_recv",
    );
}

#[test]
fn an_answer_to_an_earlier_syn_that_others_have_seen_is_taken() {
    // Their worker died with the first answer in hand; the server repeats it.
    both(
        &[
            ("c S 0 0 ts=901500,0", ""),
            ("s SA 0 1 ts=70,901501", "pkt_invalid_timestamp drop"),
            ("s SA 0 1 ts=70,601499", "pkt_invalid_timestamp drop"),
            ("s RA 0 1 ts=70,900500", "pkt_invalid_timestamp drop"),
            ("s SA 0 1 ts=70,900500", ""),
            ("c A 1 1 ts=901501,70", ""),
        ],
        "established",
    );
    // One that its client does not take does not keep the other from being taken.
    both(
        &[
            ("c S 0 0 ts=901500,0", ""),
            ("s SA 700 1 ts=70,900500", ""),
            ("s SA 0 1 ts=70,901500", ""),
            ("c A 1 1 ts=901501,70", ""),
        ],
        "established",
    );
}

#[test]
fn without_a_syn_there_is_no_session_unless_midstream_is_on() {
    for step in ["c A 1 1", "c PA 1 1 x", "s SA 0 1"] {
        let mut bench = Bench::watching();
        bench.options.midstream_policy = Treatment::PassFlow;
        let outcome = bench.outcome(step);
        let treatment = Treatment::PassFlow;
        let cause = StreamCause::Midstream;
        assert_eq!(
            outcome.exception,
            Some(StreamException { cause, treatment })
        );
        assert_eq!(bench.state(), "none");
        bench.options.midstream = true;
        assert!(bench.outcome(step).exception.is_some());
        assert_ne!(bench.state(), "none");
        bench.session = None;
        bench.options.midstream_policy = Treatment::DropFlow;
        assert!(bench.outcome(step).exception.is_some());
        assert_eq!(bench.state(), "none");
        // Whoever had the flow before knew it.
        bench.options.midstream = false;
        bench.begun = Begun::Inherited;
        assert_eq!(bench.outcome(step).exception, None);
        assert_ne!(bench.state(), "none");
    }
    let mut bench = Bench::watching();
    bench.check(&[
        ("c R 1 0", "rst_but_no_session"),
        ("c FA 1 1", "fin_but_no_session"),
    ]);
    assert_eq!(bench.state(), "none");
}

#[test]
fn midstream_from_the_synack_or_the_middle() {
    let mut bench = Bench::watching();
    bench.options.midstream = true;
    bench.check(&[
        ("s SA 0 1", ""),
        ("c A 1 1", ""),
        ("c PA 1 1 GET", ""),
        ("s A 1 4", ""),
    ]);
    assert_eq!(
        (bench.state(), bench.rest().as_str()),
        ("established", "GET")
    );
    let mut bench = Bench::watching();
    bench.options.midstream = true;
    bench.check(&[
        ("c PA 500 300 GET", ""),
        ("s PA 300 503 200", ""),
        ("c A 503 303", ""),
        ("c FA 503 303", ""),
        ("s FA 303 504", ""),
        ("c A 504 304", ""),
    ]);
    assert_eq!((bench.state(), bench.rest().as_str()), ("closed", "GET"));
    // Only the server is seen, and nobody has said that this is usual here.
    let mut bench = Bench::watching();
    bench.options.midstream = true;
    bench.check(&[
        ("s SA 0 1", ""),
        ("s A 1 80", "reassembly_seq_gap"),
        ("s PA 1 80 200", ""),
        ("s FA 4 80", ""),
    ]);
    assert_eq!(bench.state(), "fin_wait1");
}

#[test]
fn one_side_is_enough_when_that_is_usual() {
    let mut bench = Bench::watching();
    bench.options.async_oneside = true;
    bench.check(&[
        ("c S 0 0", ""),
        ("c A 1 1", ""),
        ("c PA 1 1 GET", ""),
        ("c A 4 300", ""),
        ("c PA 4 300 /", ""),
        ("c FA 5 900", ""),
    ]);
    assert_eq!(
        (bench.state(), bench.rest().as_str()),
        ("close_wait", "GET/")
    );
    let mut bench = Bench::watching();
    bench.options.async_oneside = true;
    bench.check(&[("c S 0 0", ""), ("c A 7 1", "3whs_async_wrong_seq")]);
    assert_eq!(bench.state(), "syn_sent");
    let mut bench = Bench::watching();
    bench.check(&[("c S 0 0", ""), ("c A 1 1", ""), ("c PA 1 1 GET", "")]);
    assert_eq!(bench.state(), "syn_sent");
}

#[test]
fn inline_nothing_passes_a_handshake_unseen() {
    let mut bench = Bench::inline();
    bench.check(&[
        ("c S 0 0", ""),
        // Without a SYN-ACK that went another way.
        ("c PA 1 1 EV", ""),
    ]);
    assert_eq!(bench.raw_to_server(), "EV");
    bench.check(&[
        ("c PA 90000 1 IL", "3whs_wrong_seq_wrong_ack drop"),
        ("c P 1 0 XX", "drop"),
        ("s A 900 1", ""),
        ("s A 900 1 XX", "drop"),
    ]);
}

#[test]
fn data_of_crossing_syns_is_known_inline() {
    let mut bench = Bench::inline();
    bench.check(&[("c S 0 0 EV", ""), ("s S 0 0 OK", "")]);
    assert_eq!(bench.raw(PacketDirection::ToClient), "OK");
    bench.check(&[
        ("c SA 0 1 EV", "pkt_retransmission"),
        ("s A 1 1", ""),
        ("c A 3 1 IL", ""),
    ]);
    assert_eq!(bench.raw_to_server(), "EVIL");
}

#[test]
fn a_server_that_sends_data_has_seen_the_clients_ack_even_if_we_have_not() {
    let begun = [("c S 0 0", ""), ("s SA 0 1", "")];
    let mut bench = Bench::watching();
    bench.check(&begun);
    bench.check(&[("s PA 1 1 220", ""), ("c PA 1 4 HELO", "")]);
    assert_eq!(
        (bench.state(), bench.rest().as_str()),
        ("established", "HELO")
    );
    let mut bench = Bench::inline();
    bench.check(&begun);
    bench.check(&[(
        "s PA 1 1 220",
        "3whs_ack_in_wrong_dir 3whs_ack_data_inject drop",
    )]);
    assert_eq!(bench.state(), "syn_recv");
}

#[test]
fn a_connection_that_follows_another_has_begun_when_it_is_answered() {
    // Neither the reset nor the SYN may have got to the server, for which all is one stream.
    let mut bench = Bench::inline().connected();
    bench.check(&[("c PA 1 1 EV", ""), ("c R 3 0", ""), ("c S 2 0", "")]);
    bench.check(&[("c PA 3 1 IL", "3whs_wrong_seq_wrong_ack drop")]);
    bench.check(&[("s SA 0 3", ""), ("c A 3 1", ""), ("c PA 3 1 IL", "")]);
    assert_eq!(bench.raw_to_server(), "IL");
}

#[test]
fn data_of_a_simultaneous_open_may_come_in_another_order() {
    let mut bench = Bench::inline();
    bench.check(&[("c S 0 0", ""), ("s S 0 0", ""), ("s SA 0 1", "")]);
    bench.check(&[("s PA 3 1 IL", ""), ("s PA 1 1 EV", "")]);
    assert_eq!(bench.state(), "established");
}
