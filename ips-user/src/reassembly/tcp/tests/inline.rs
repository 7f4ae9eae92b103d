use super::*;

#[test]
fn each_segment_is_inspected_with_what_is_around_it() {
    let mut bench = Bench::inline().connected();
    let mut step = |step: &str, expect: &str| {
        assert_eq!(bench.send(step), "", "{step}");
        assert_eq!(bench.raw_to_server(), expect, "{step}");
    };
    step("c PA 1 1 E", "E");
    step("c PA 4 1 L", "L");
    step("c PA 3 1 I", "IL");
    step("c PA 7 1 beyond", "beyond");
    step("c PA 2 1 V", "EVIL");
    step("c A 5 1", "");
    step("c PA 5 1 --", "EVIL--beyond");
}

#[test]
fn a_window_is_a_chunk_to_either_side() {
    let mut bench = Bench::inline();
    bench.options.reassembly.toserver_chunk_size = 3;
    let mut bench = bench.connected();
    bench.check(&[
        ("c PA 1 1 abcdef", ""),
        ("c PA 9 1 ijklmn", ""),
        ("c PA 7 1 gh", ""),
    ]);
    let options = bench.options.clone();
    let session = bench.session();
    let view = session.raw(PacketDirection::ToServer, &options).unwrap();
    assert_eq!((view.offset, view.fresh_from), (3, 3));
    assert_eq!(view.data, b"defghijk");
    session.raw_done(PacketDirection::ToServer, &options);
    assert_eq!(session.raw(PacketDirection::ToServer, &options), None);
}

#[test]
fn other_data_for_the_same_place_becomes_what_was_inspected() {
    const DIFFERS: &str = "reassembly_overlap_different_data";
    let mut bench = Bench::inline().connected();
    bench.check(&[
        ("c PA 1 1 GOOD", ""),
        (
            "c PA 1 1 EVIL",
            &format!("pkt_retransmission {DIFFERS} =GOOD"),
        ),
        ("c PA 2 1 ZZZmore", &format!("{DIFFERS} =OODmore")),
        ("c PA 1 1 GOOD", "pkt_retransmission"),
        // Out of order, and around.
        ("c PA 12 1 later", ""),
        ("c PA 10 1 ABCDEFGHI", &format!("{DIFFERS} =ABlaterHI")),
        ("c PA 9 1 #", ""),
    ]);
    assert_eq!(bench.raw_to_server(), "GOODmore#ABlaterHI");
    assert_eq!(bench.memory.counters().rewritten, 3);
}

#[test]
fn what_has_arrived_is_not_compared() {
    let mut bench = Bench::inline().connected();
    bench.check(&[
        ("c PA 1 1 GOOD", ""),
        ("s A 1 5", ""),
        ("c PA 1 1 EVIL", "pkt_spurious_retransmission"),
        ("c PA 3 1 XXmore", ""),
    ]);
    assert_eq!(bench.raw_to_server(), "GOODmore");
    // A keep-alive's byte is none of the stream.
    bench.check(&[
        ("s A 1 9", ""),
        ("c A 8 1 !", "pkt_spurious_retransmission"),
    ]);
    assert_eq!(bench.raw_to_server(), "");
}

#[test]
fn a_dropped_packet_leaves_nothing_behind() {
    let mut bench = Bench::inline().connected();
    bench.check(&[("c PA 1 1 EV", ""), ("c PA 7 1 more", "")]);
    let control = bench.session().control;
    let buffer = bench.session().streams[0].buffer.clone();
    for step in [
        "c PA 3 1 IL",
        "c PA 1 1 EVIL--more",
        "c FPA 3 1 IL",
        "c R 3 0",
        "c PA 1 1 win=3 EVIL--more.",
    ] {
        bench.outcome(step);
        bench.dropped();
        let mut after = bench.session().control;
        after.sides[0].flags = control.sides[0].flags;
        assert_eq!(after, control, "{step}");
        assert_eq!(bench.session().streams[0].buffer, buffer, "{step}");
    }
    // Its sender tries something else, which is what arrives.
    bench.check(&[("c PA 3 1 EN-", "")]);
    assert_eq!(bench.raw_to_server(), "EVEN-");
}

#[test]
fn places_wrap_with_the_sequence_numbers() {
    let mut bench = Bench::inline();
    bench.isn = [u32::MAX - 2, u32::MAX];
    let mut bench = bench.connected();
    bench.check(&[
        ("c PA 1 1 EV", ""),
        ("c PA 5 1 --", ""),
        ("c PA 3 1 IL", ""),
    ]);
    assert_eq!(bench.raw_to_server(), "EVIL--");
    bench.check(&[("s A 1 7", ""), ("c PA 7 1 more", "")]);
    assert_eq!(bench.raw_to_server(), "EVIL--more");
}

#[test]
fn after_a_gap_both_directions_go_on() {
    let mut bench = Bench::inline().connected();
    bench.check(&[
        ("c PA 1 1 one", ""),
        ("c PA 9 1 three", ""),
        ("s PA 1 14 ok", "reassembly_seq_gap"),
        ("c PA 14 3 four", ""),
    ]);
    assert_eq!(bench.raw_to_server(), "threefour");
    assert!(bench.session().has_gap(PacketDirection::ToServer));
    bench.check(&[("c A 18 90", "reassembly_seq_gap"), ("s PA 90 18 on", "")]);
    assert_eq!(bench.raw(PacketDirection::ToClient), "on");
    let counters = bench.memory.counters();
    assert_eq!((counters.reassembly_gap, counters.ack_unseen_data), (2, 1));
}

#[test]
fn picked_up_midstream_the_receiver_tells_where_the_stream_is() {
    let midstream = || {
        let mut bench = Bench::inline();
        bench.options.midstream = true;
        bench
    };
    // Out of order at the pick-up.
    let mut bench = midstream();
    bench.check(&[
        ("c PA 5003 1 IL", ""),
        ("c PA 5001 1 EV", "pkt_retransmission"),
    ]);
    assert_eq!(bench.raw_to_server(), "EVIL");
    bench.check(&[("s A 1 5005", ""), ("c PA 5005 1 on", "")]);
    assert_eq!(bench.raw_to_server(), "EVILon");
    bench.check(&[("c PA 5001 1 EVIL", "pkt_spurious_retransmission")]);
    // A decoy within the largest window, then the real thing.
    let mut bench = midstream();
    bench.check(&[
        ("c PA 900000000 1 decoy", ""),
        ("c PA 5001 1 EV", "pkt_retransmission"),
        ("s A 1 5003", ""),
        ("c PA 5003 1 IL", "pkt_retransmission"),
    ]);
    assert_eq!(bench.raw_to_server(), "EVIL");
    // A decoy far away, then the real thing: it waits for the receiver's word.
    let mut bench = midstream();
    bench.check(&[
        ("c PA 2000000000 1 decoy", ""),
        (
            "c PA 5001 1 EV",
            "pkt_retransmission reassembly_insert_invalid drop",
        ),
        ("s A 1 5001", ""),
        ("c PA 5001 1 EV", ""),
        ("c PA 5003 1 IL", ""),
    ]);
    assert_eq!(bench.raw_to_server(), "EVIL");
}

#[test]
fn one_sided_retransmissions_are_compared_as_well() {
    let mut bench = Bench::inline();
    bench.options.async_oneside = true;
    bench.check(&[
        ("c S 0 0", ""),
        ("c A 1 1", ""),
        ("c PA 1 1 GOOD", ""),
        ("c PA 5 9 more", ""),
        (
            "c PA 1 9 EVIL",
            "pkt_retransmission reassembly_overlap_different_data =GOOD",
        ),
    ]);
}

#[test]
fn beyond_the_depth_the_window_slides_on() {
    let mut bench = Bench::inline();
    bench.options.reassembly.depth = 4;
    let mut bench = bench.connected();
    bench
        .session()
        .start_reading(PacketDirection::ToServer, None);
    bench.check(&[
        ("c PA 1 1 1234", ""),
        ("c PA 5 1 EV", "reassembly_depth_reached"),
        ("c PA 7 1 IL", ""),
    ]);
    assert_eq!(bench.raw_to_server(), "1234EVIL");
    let options = bench.options.clone();
    let next = bench
        .session()
        .contiguous(PacketDirection::ToServer, &options);
    let data = b"1234";
    assert_eq!(
        next,
        Some(Contiguous::Data {
            offset: 0,
            data: data.into(),
            behind: Behind::End,
        })
    );
    bench.session().read(PacketDirection::ToServer, 4);
    assert_eq!(
        bench
            .session()
            .contiguous(PacketDirection::ToServer, &options),
        None
    );
    // As Suricata has it.
    let mut bench = Bench::inline();
    bench.options.reassembly.depth = 4;
    bench.options.reassembly.window_beyond_depth = false;
    bench.options.bypass = true;
    let mut bench = bench.connected();
    bench.check(&[("c PA 1 1 1234", "")]);
    let outcome = bench.outcome("c PA 5 1 EV");
    assert!(outcome.bypass && !outcome.in_stream);
    assert_eq!(bench.raw_to_server(), "");
}

#[test]
fn only_what_is_needed_is_kept() {
    let mut bench = Bench::inline();
    bench.options.reassembly.depth = 0;
    let mut bench = bench.connected();
    let data = "x".repeat(1000);
    let mut most = 0;
    for n in 0..3000 {
        let seq = 1 + n * 1000;
        assert_eq!(bench.send(&format!("c PA {seq} 1 {data}")), "");
        assert_eq!(bench.send(&format!("s A 1 {}", seq + 1000)), "");
        most = most.max(bench.memory.counters().reassembly_memuse);
    }
    assert!(most < 20_000, "{most} bytes");
}

#[test]
fn a_reader_gets_all_of_it_in_order_and_the_gaps() {
    const TO: PacketDirection = PacketDirection::ToServer;
    let mut bench = Bench::inline().connected();
    let options = bench.options.clone();
    bench.session().start_reading(TO, Some(0));
    bench.check(&[("c PA 1 1 one", ""), ("c PA 7 1 three", "")]);
    let next = |bench: &mut Bench| match bench.session().contiguous(TO, &options) {
        Some(Contiguous::Data {
            offset,
            data,
            behind,
        }) => {
            let (len, text) = (data.len(), String::from_utf8_lossy(&data).into_owned());
            bench.session().read(TO, len as u64);
            format!("{offset} {text}, then {behind:?}")
        }
        Some(Contiguous::Gap { offset, len }) => {
            bench.session().read(TO, len);
            format!("{offset} gap of {len}")
        }
        None => "-".into(),
    };
    assert_eq!(next(&mut bench), "0 one, then More");
    assert_eq!(next(&mut bench), "-");
    bench.check(&[("s A 1 20", "reassembly_seq_gap")]);
    assert_eq!(next(&mut bench), "3 gap of 3");
    assert_eq!(next(&mut bench), "6 three, then Gap");
    assert_eq!(next(&mut bench), "11 gap of 8");
    assert_eq!(next(&mut bench), "-");
    bench.check(&[("c PA 20 1 four", "")]);
    assert_eq!(next(&mut bench), "19 four, then More");
}
