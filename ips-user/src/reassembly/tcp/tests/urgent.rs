use super::*;

fn with(policy: UrgentPolicy, inline: bool) -> Bench {
    let mut bench = match inline {
        true => Bench::inline(),
        false => Bench::watching(),
    };
    bench.options.reassembly.urgent = policy;
    bench.connected()
}

#[test]
fn an_out_of_band_byte_is_none_of_the_stream() {
    let mut bench = with(UrgentPolicy::Oob, true);
    bench.check(&[("c PAU 1 1 urg=3 EVx", ""), ("c PA 4 1 IL", "")]);
    let options = bench.options.clone();
    let session = bench.session();
    let view = session.raw(PacketDirection::ToServer, &options).unwrap();
    assert_eq!((view.data, view.fresh_from), (&b"EVIL"[..], 2));
    // For a receiver that reads it inline.
    let view = session
        .raw_with_urgent(PacketDirection::ToServer, &options)
        .unwrap();
    assert_eq!((view.data, view.fresh_from), (&b"EVxIL"[..], 3));
    let mut bench = with(UrgentPolicy::Oob, false);
    bench.check(&[("c PAU 1 1 urg=3 EVx", ""), ("c PA 4 1 IL", "")]);
    assert_eq!(bench.rest(), "EVIL");
}

#[test]
fn inline_one_urgent_byte_at_a_time_is_told_to_the_receiver() {
    let mut bench = with(UrgentPolicy::Oob, true);
    bench.check(&[
        ("c PAU 1 1 urg=2 EV", ""),
        // Again the same one.
        ("c PAU 1 1 urg=2 EV", "pkt_retransmission"),
        // A second one would make the first part of the stream.
        ("c PAU 3 1 urg=2 Ix", "=Ix -urg"),
        // One that has passed already is no longer urgent.
        ("c PAU 1 1 urg=1 EV", "pkt_retransmission =EV -urg"),
    ]);
    let data = "x".repeat(50_000);
    bench.check(&[
        (&format!("c PA 5 1 {data}"), ""),
        ("s A 1 50005", ""),
        (&format!("c PA 50005 1 {data}"), ""),
        ("c PAU 100005 1 urg=1 z", ""),
    ]);
}

#[test]
fn the_other_policies() {
    let mut bench = with(UrgentPolicy::Inline, true);
    bench.check(&[("c PAU 1 1 urg=3 EVx", "=EVx -urg")]);
    assert_eq!(bench.raw_to_server(), "EVx");
    let mut bench = with(UrgentPolicy::Drop, true);
    bench.check(&[("c PAU 1 1 urg=3 EVx", "drop-urgent")]);
    assert_eq!(bench.raw_to_server(), "");
    for inline in [true, false] {
        let mut bench = with(UrgentPolicy::Gap, inline);
        assert!(!bench.outcome("c PAU 1 1 urg=3 EVx").in_stream);
        bench.check(&[("c PA 4 1 IL", ""), ("s A 1 6", "reassembly_seq_gap")]);
    }
    let mut bench = with(UrgentPolicy::Inline, false);
    bench.check(&[("c PAU 1 1 urg=3 EVx", "")]);
    assert_eq!(bench.rest(), "EVx");
}

#[test]
fn out_of_band_bytes_are_limited() {
    const REACHED: &str = "reassembly_urgent_oob_limit_reached";
    let mut bench = with(UrgentPolicy::Oob, false);
    for n in 0..64 {
        assert_eq!(bench.send(&format!("c PAU {} 1 urg=1 x", n + 1)), "");
    }
    bench.check(&[("c PAU 65 1 urg=1 x", REACHED)]);
    assert_eq!(bench.memory.counters().urgent_oob_data, 64);
    bench.options.reassembly.urgent_oob_limit = UrgentPolicy::Inline;
    bench.check(&[("c PAU 65 1 urg=1 y", REACHED)]);
    assert_eq!(bench.rest(), "y");
}
