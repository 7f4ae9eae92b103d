use proptest::prelude::*;

use super::*;

fn exported(session: &Session) -> Vec<u8> {
    let mut bytes = Vec::new();
    session.export(&mut bytes);
    bytes
}

fn busy() -> Bench {
    let mut bench = Bench::inline().connected();
    bench
        .session()
        .start_reading(PacketDirection::ToServer, Some(99));
    bench.check(&[
        ("c PAU 1 1 urg=2 EVx", ""),
        ("c PA 9 1 later", ""),
        ("s PA 1 4 ok", ""),
        ("s FA 3 4", ""),
    ]);
    bench
}

#[test]
fn a_session_goes_on_in_another_process() {
    let mut bench = busy();
    let bytes = exported(bench.session());
    let mut memory = StreamMemory::new();
    let session = Session::import(&bytes, &bench.options, &mut memory).unwrap();
    assert_eq!(session.control, bench.session().control);
    assert_eq!(exported(&session), bytes);
    assert_eq!(memory.counters().active_sessions, 1);
    bench.session = Some(Box::new(session));
    bench.memory = memory;
    bench.check(&[("c PA 1 1 EVxIL", "")]);
    assert_eq!(bench.raw_to_server(), "ExIL");
}

#[test]
fn another_format_and_any_cut_are_refused() {
    let mut bench = busy();
    let bytes = exported(bench.session());
    let mut memory = StreamMemory::new();
    for len in 0..bytes.len() {
        assert!(Session::import(&bytes[..len], &bench.options, &mut memory).is_none());
    }
    let mut other = bytes.clone();
    other[0] += 1;
    assert!(Session::import(&other, &bench.options, &mut memory).is_none());
    bench.options.memcap = 1;
    assert!(Session::import(&bytes, &bench.options, &mut memory).is_none());
    assert_eq!(memory.counters().active_sessions, 0);
}

proptest! {
    #[test]
    fn damaged_sessions_are_refused_or_do_no_harm(
        changes in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..6),
    ) {
        let mut bench = busy();
        let mut bytes = exported(bench.session());
        for (at, value) in changes {
            let at = usize::from(at) % bytes.len();
            bytes[at] = value;
        }
        let mut memory = StreamMemory::new();
        if let Some(session) = Session::import(&bytes, &bench.options, &mut memory) {
            bench.session = Some(Box::new(session));
            bench.memory = memory;
            for step in ["c PA 4 1 data", "s PA 3 8 more", "c A 9 9", "c R 9 0", "c PA 1 1 EVIL"] {
                bench.outcome(step);
                bench.raw_to_server();
                bench.raw(PacketDirection::ToClient);
            }
        }
    }
}
