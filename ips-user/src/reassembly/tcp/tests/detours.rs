//! Connections of which some packets went another way.

use super::*;

fn inline() -> Bench {
    let mut bench = Bench::inline().connected();
    bench.check(&[("c PA 1 1 hello", ""), ("s PA 1 6 welcome", "")]);
    bench
}

impl Bench {
    fn detour(&mut self) {
        self.memory.set_detours(1, self.now_ns);
    }
}

#[test]
fn after_a_detour_a_connection_is_picked_up_where_it_is_now() {
    let mut bench = inline();
    bench.detour();
    // Both ends have gone on meanwhile, further than any window.
    bench.check(&[
        ("c PA 90000001 80000001 at", ""),
        ("s PA 80000001 90000003 ok", ""),
    ]);
    assert_eq!(bench.memory.counters().picked_up_again, 1);
    bench.check(&[("c PA 90000003 80000003 tack", "")]);
    assert_eq!(bench.raw_to_server(), "attack");
    // As out of place as ever.
    assert_eq!(
        bench.send("c PA 190000001 80000003 x"),
        "est_packet_out_of_window drop"
    );
}

#[test]
fn without_a_detour_what_is_out_of_place_stays_out() {
    let mut bench = inline();
    bench.detour();
    // The other end agrees with what is known here, when all that went another way has arrived.
    bench.now_ns += 1_000_000_000;
    bench.check(&[("s A 8 6", ""), ("c A 6 8", "")]);
    assert_eq!(
        bench.send("c PA 90000001 8 x"),
        "est_packet_out_of_window drop"
    );
    assert_eq!(bench.memory.counters().picked_up_again, 0);
}

#[test]
fn what_both_ends_agree_on_says_nothing_while_packets_may_be_passing_by() {
    let mut bench = inline();
    bench.detour();
    bench.check(&[
        ("s A 8 6", ""),
        ("c A 6 8", ""),
        ("c PA 90000001 80000001 at", ""),
    ]);
    assert_eq!(bench.memory.counters().picked_up_again, 1);
}

#[test]
fn a_packet_that_was_not_shown_is_one_for_its_own_connection_only() {
    let mut bench = inline();
    bench.session().misses_packet();
    bench.check(&[("c PA 90000001 8 at", "")]);
    assert_eq!(bench.memory.counters().picked_up_again, 1);
}

#[test]
fn a_reset_after_a_detour_passes_and_a_syn_does_not_begin_anew() {
    let mut bench = inline();
    bench.detour();
    assert!(!bench.send("c R 90000001 0").contains("drop"));
    assert!(bench.send("c S 90000001 0").contains("drop"));
    assert_eq!(bench.state(), "established");
}

#[test]
fn what_was_in_flight_before_a_pick_up_may_come_again_from_far_behind() {
    let mut bench = Bench::inline();
    bench.begun = Begun::Inherited;
    bench.check(&[
        ("c PA 30000001 1 ts=50,1 tack", ""),
        // Sent before, and late: its receiver has not seen the other one's timestamp.
        ("c PA 29999999 1 ts=49,1 at", "pkt_retransmission"),
        // Lost a whole window earlier.
        ("c PA 1 1 ts=51,1 hello", "pkt_retransmission"),
    ]);
    bench.begun = Begun::Unknown;
    assert_eq!(bench.send("s A 1 30000005 ts=9,51"), "");
}
