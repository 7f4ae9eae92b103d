use super::*;
use crate::exception::Treatment;

#[test]
fn without_memory_for_a_session_the_policy_applies() {
    let mut bench = Bench::inline();
    bench.options.memcap = Session::BYTES as u64 - 1;
    bench.options.memcap_policy = Treatment::DropPacket;
    let outcome = bench.outcome("c S 0 0");
    let exception = outcome.exception.unwrap();
    assert_eq!(exception.cause, StreamCause::SessionMemory);
    assert_eq!(exception.treatment, Treatment::DropPacket);
    assert_eq!(bench.state(), "none");
    let counters = bench.memory.counters();
    assert_eq!(
        (counters.ssn_memcap_drop, counters.ssn_memcap_exceptions),
        (1, 1)
    );
    assert!(bench.memory.is_short(&bench.options));
}

#[test]
fn without_memory_for_data_the_policy_applies_and_nothing_is_half_kept() {
    for inline in [true, false] {
        let mut bench = match inline {
            true => Bench::inline(),
            false => Bench::watching(),
        };
        bench.options.reassembly.memcap = 4000;
        bench.options.reassembly.memcap_policy = Treatment::DropFlow;
        let mut bench = bench.connected();
        let data = "x".repeat(2000);
        bench.check(&[(&format!("c PA 1 1 {data}"), "")]);
        let outcome = bench.outcome(&format!("c PA 2501 1 {data}"));
        let exception = outcome.exception.unwrap();
        assert_eq!(exception.cause, StreamCause::ReassemblyMemory);
        assert_eq!(exception.treatment, Treatment::DropFlow);
        assert!(!outcome.in_stream);
        assert!(outcome.events.contains(StreamEvent::ReassemblyInsertMemcap));
        let counters = bench.memory.counters();
        assert_eq!(counters.segment_memcap_drop, 1);
        assert!(
            counters.reassembly_memuse <= 4000,
            "{}",
            counters.reassembly_memuse
        );
        // What was let go makes room.
        bench.check(&[("s A 1 2001", "")]);
        if !inline {
            bench.session().flush_raw(PacketDirection::ToServer);
            bench.raw_to_server();
        }
    }
}

#[test]
fn pieces_are_limited_but_not_what_joins_them() {
    let mut bench = Bench::inline();
    bench.options.reassembly.max_regions = 1;
    let mut bench = bench.connected();
    for n in 0..128 {
        assert_eq!(bench.send(&format!("c PA {} 1 x", 1 + n * 2)), "");
    }
    assert_eq!(bench.session().max_regions(PacketDirection::ToServer), 128);
    bench.check(&[
        ("c PA 900 1 x", "reassembly_insert_limit"),
        ("c PA 2 1 x", ""),
        ("c PA 900 1 x", ""),
    ]);
}

#[test]
fn counters_have_their_names_and_start_at_zero() {
    let counters = StreamMemory::new().counters();
    let mut names: Vec<_> = counters.iter().map(|(name, _)| name).collect();
    assert!(counters.iter().all(|(_, value)| value == 0));
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), counters.iter().count());
}
