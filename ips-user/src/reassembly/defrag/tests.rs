use std::net::Ipv4Addr;

use ips_common::FAMILY_IPV4;
use proptest::prelude::*;

use super::*;
use crate::config::settings::{Network, OsPolicy};
use crate::decode::{self, checksum};

const A: [u8; 4] = [192, 0, 2, 1];
const B: [u8; 4] = [198, 51, 100, 7];
/// What stands before every IP header here.
const BEFORE: [u8; 3] = [7, 8, 9];

/// An IPv4 fragment with a right checksum.
#[derive(Clone, Debug)]
struct Sent {
    id: u16,
    offset: u16,
    more: bool,
    ttl: u8,
    data: Vec<u8>,
}

impl Sent {
    fn new(offset: u16, more: bool, data: &[u8]) -> Self {
        Self {
            id: 1,
            offset,
            more,
            ttl: 64,
            data: data.to_vec(),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0x45, 0];
        bytes.extend((20 + self.data.len() as u16).to_be_bytes());
        bytes.extend(self.id.to_be_bytes());
        bytes.extend(((self.offset / 8) | (u16::from(self.more) << 13)).to_be_bytes());
        bytes.extend([self.ttl, 17, 0, 0]);
        bytes.extend(A);
        bytes.extend(B);
        let sum = !checksum::sum(0, &bytes);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        bytes.extend(&self.data);
        bytes
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Got {
    Disabled,
    Kept,
    Refused(Refusal),
    NoRoom,
    /// Data of the datagram.
    Whole(Vec<u8>),
}

struct Rig {
    defragmenter: Defragmenter,
    now: Timestamp,
    verdict: Disposition,
    /// Whether fragments are let through.
    delivers: bool,
    events: EventSet,
    vlan: Option<u16>,
    depth: u8,
}

impl Rig {
    fn new(options: DefragOptions) -> Self {
        Self {
            defragmenter: Defragmenter::new(options, [3, 4]),
            now: Timestamp::default(),
            verdict: Disposition::Accept,
            delivers: true,
            events: EventSet::default(),
            vlan: None,
            depth: 0,
        }
    }

    fn inline() -> Self {
        Self::new(DefragOptions::default())
    }

    fn passive() -> Self {
        Self::new(DefragOptions {
            inline: false,
            ..DefragOptions::default()
        })
    }

    fn wait(&mut self, seconds: u64) {
        self.now.monotonic_ns += seconds * 1_000_000_000;
    }

    fn ip(&mut self, ip: &[u8]) -> (Got, Option<Vec<u8>>) {
        let network = decode::Network::parse(ip).unwrap();
        let mut vlans = VlanIds::default();
        assert!(self.vlan.is_none_or(|id| vlans.push(id)));
        let fragment = Fragment {
            network: &network,
            part: network.part.unwrap(),
            before: &BEFORE,
            vlans,
            depth: self.depth,
        };
        self.events = EventSet::default();
        let insertion = self
            .defragmenter
            .insert(&fragment, self.now, &mut self.events);
        let got = match insertion {
            Insertion::Disabled => (Got::Disabled, None),
            Insertion::Kept => (Got::Kept, None),
            Insertion::Refused(reason) => (Got::Refused(reason), None),
            Insertion::NoRoom => (Got::NoRoom, None),
            Insertion::Complete(datagram) => {
                let bytes = datagram.bytes().to_vec();
                self.defragmenter.settle(datagram, self.verdict);
                assert_eq!(bytes[..3], BEFORE);
                let whole = decode::Network::parse(&bytes[3..]).unwrap();
                assert_eq!(whole.part, None);
                assert_eq!(whole.packet.len(), bytes.len() - 3);
                if whole.family == FAMILY_IPV4 {
                    assert_eq!(checksum::sum(0, whole.header), 0xffff);
                }
                (Got::Whole(whole.payload.to_vec()), Some(bytes))
            }
        };
        let frame = match &got {
            _ if !self.delivers => Disposition::Drop,
            (Got::Whole(_), _) => self.verdict,
            _ => Disposition::Accept,
        };
        self.defragmenter.end_frame(frame, self.now);
        got
    }

    fn send(&mut self, sent: &Sent) -> Got {
        self.ip(&sent.bytes()).0
    }

    fn part(&mut self, offset: u16, more: bool, data: &[u8]) -> Got {
        self.send(&Sent::new(offset, more, data))
    }

    fn event_names(&self) -> Vec<&'static str> {
        self.events.iter().map(Event::name).collect()
    }

    /// Nothing is held any more.
    #[track_caller]
    fn is_empty(&self) {
        let counters = self.defragmenter.counters();
        assert_eq!((counters.trackers, counters.memory), (0, 0), "{counters:?}");
        assert_eq!(self.defragmenter.trackers.fragments(), 0);
    }
}

fn letters(len: usize, first: u8) -> Vec<u8> {
    (0..len).map(|at| first + (at % 26) as u8).collect()
}

#[test]
fn fragments_in_any_order_become_the_datagram() {
    let data = letters(30, b'a');
    let parts = [
        Sent::new(0, true, &data[..16]),
        Sent::new(16, true, &data[16..24]),
        Sent::new(24, false, &data[24..]),
    ];
    for order in [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ] {
        for mut rig in [Rig::inline(), Rig::passive()] {
            assert_eq!(rig.send(&parts[order[0]]), Got::Kept);
            assert_eq!(rig.send(&parts[order[1]]), Got::Kept);
            assert_eq!(rig.send(&parts[order[2]]), Got::Whole(data.clone()));
            assert!(rig.events.is_empty());
            rig.is_empty();
            let counters = rig.defragmenter.counters();
            assert_eq!((counters.ipv4_fragments, counters.ipv4_reassembled), (3, 1));
        }
    }
}

#[test]
fn an_ipv6_datagram_looks_as_if_nobody_had_fragmented_it() {
    let packet = |extension: &[u8], first: u8, field: u16, data: &[u8]| {
        let mut bytes = vec![0x60, 0, 0, 0];
        bytes.extend((extension.len() as u16 + 8 + data.len() as u16).to_be_bytes());
        bytes.extend([first, 64]);
        bytes.extend([[0x20; 16], [0x21; 16]].concat());
        bytes.extend(extension);
        bytes.extend([17, 0]);
        bytes.extend(field.to_be_bytes());
        bytes.extend([0, 0, 0, 5]);
        bytes.extend(data);
        bytes
    };
    let options = [44, 0, 1, 4, 0, 0, 0, 0];
    for (extension, first, protocol) in [(&[][..], 44, 17), (&options, 0, 0)] {
        let mut rig = Rig::inline();
        assert_eq!(rig.ip(&packet(extension, first, 1, &[1; 16])).0, Got::Kept);
        let (got, bytes) = rig.ip(&packet(extension, first, 16, &[2; 3]));
        assert_eq!(got, Got::Whole([&[1; 16][..], &[2; 3]].concat()));
        let bytes = &bytes.unwrap()[3..];
        assert_eq!(bytes[6], protocol);
        assert_eq!(usize::from(bytes[5]), extension.len() + 19);
        if !extension.is_empty() {
            assert_eq!(bytes[40], 17);
            // Somebody may refuse a fragment for it.
            rig.wait(61);
            rig.defragmenter.expire(rig.now, 1);
        }
        rig.is_empty();
        assert_eq!(rig.defragmenter.counters().ipv6_reassembled, 1);
    }
    // RFC 8200 §4.5: more follows, so its length must be a multiple of eight.
    let mut rig = Rig::passive();
    let got = rig.ip(&packet(&[], 44, 1, &[1; 15])).0;
    assert_eq!(got, Got::Refused(Refusal::Length));
    assert_eq!(rig.event_names(), ["ipv6.frag_invalid_length"]);
    rig.is_empty();
}

#[test]
fn inline_the_first_data_counts_and_other_data_is_dropped() {
    let mut rig = Rig::inline();
    assert_eq!(rig.part(0, true, &[1; 16]), Got::Kept);
    assert_eq!(rig.part(0, true, &[1; 16]), Got::Kept);
    assert_eq!(rig.event_names(), ["ipv4.frag_overlap"]);
    assert_eq!(rig.part(8, true, &[2; 16]), Got::Refused(Refusal::Conflict));
    assert_eq!(rig.event_names(), ["ipv4.frag_overlap"]);
    assert_eq!(rig.part(8, true, &[1; 16]), Got::Kept);
    let whole = [&[1; 24][..], &[3; 4]].concat();
    assert_eq!(rig.part(24, false, &[3; 4]), Got::Whole(whole));
    let counters = rig.defragmenter.counters();
    assert_eq!(counters.overlaps, 3);
    assert_eq!(counters.refused_for(Refusal::Conflict), 1);
}

#[test]
fn what_contradicts_the_end_is_not_used() {
    for mut rig in [Rig::inline(), Rig::passive()] {
        assert_eq!(rig.part(16, false, &[2; 8]), Got::Kept);
        assert_eq!(rig.part(24, true, &[3; 8]), Got::Refused(Refusal::Conflict));
        assert_eq!(rig.event_names(), ["ipv4.frag_ignored"]);
        assert_eq!(rig.part(8, false, &[3; 8]), Got::Refused(Refusal::Conflict));
        let whole = [&[1; 16][..], &[2; 8]].concat();
        assert_eq!(rig.part(0, true, &[1; 16]), Got::Whole(whole));
    }
}

#[test]
fn nothing_completes_a_dropped_datagram_afterwards() {
    let mut rig = Rig::inline();
    rig.verdict = Disposition::Drop;
    assert_eq!(rig.part(0, true, &[1; 16]), Got::Kept);
    assert!(matches!(rig.part(16, false, &[2; 8]), Got::Whole(_)));
    rig.verdict = Disposition::Accept;
    for (offset, more, data) in [(16, false, [2; 8]), (16, false, [9; 8]), (0, true, [1; 8])] {
        let got = rig.part(offset, more, &data);
        assert_eq!(got, Got::Refused(Refusal::Condemned));
    }
    // Other datagrams are others.
    let other = Sent {
        id: 2,
        ..Sent::new(0, true, &[1; 8])
    };
    assert_eq!(rig.send(&other), Got::Kept);
    let counters = rig.defragmenter.counters();
    assert_eq!((counters.condemned, counters.trackers), (1, 2));
    rig.wait(61);
    assert_eq!(rig.part(16, false, &[2; 8]), Got::Kept);
    // Who only watches has dropped nothing.
    let mut rig = Rig::passive();
    rig.verdict = Disposition::Drop;
    rig.part(0, true, &[1; 16]);
    assert!(matches!(rig.part(16, false, &[2; 8]), Got::Whole(_)));
    assert_eq!(rig.part(16, false, &[2; 8]), Got::Kept);
}

#[test]
fn the_id_of_an_accepted_datagram_can_be_used_again() {
    for mut rig in [Rig::inline(), Rig::passive()] {
        for byte in [1, 2, 2, 3] {
            assert_eq!(rig.part(0, true, &[byte; 8]), Got::Kept);
            assert_eq!(rig.part(8, false, &[byte; 8]), Got::Whole(vec![byte; 16]));
            rig.is_empty();
        }
    }
}

#[test]
fn a_fragment_that_the_receiver_may_not_have_got_cannot_be_replaced_later() {
    // It dies on the way from here to the receiver, who waits for another one.
    let decoy = Sent {
        ttl: 1,
        ..Sent::new(0, true, b"harmless")
    };
    let evil = Sent::new(0, true, b"attack!!");
    let rest = Sent::new(8, false, b" rest");
    for order in [[&decoy, &rest], [&rest, &decoy]] {
        let mut rig = Rig::inline();
        assert_eq!(rig.send(order[0]), Got::Kept);
        assert_eq!(rig.send(order[1]), Got::Whole(b"harmless rest".to_vec()));
        assert_eq!(rig.send(&evil), Got::Refused(Refusal::Conflict));
        assert_eq!(rig.send(&rest), Got::Kept, "a repetition");
        assert_eq!(rig.send(&evil), Got::Refused(Refusal::Conflict));
        rig.wait(61);
        assert_eq!(rig.send(&evil), Got::Kept, "its receiver has given up, too");
    }
    // Stacks that drop a whole datagram for an overlap wait for all of it again.
    let mut rig = Rig::inline();
    for sent in [&decoy, &decoy] {
        assert_eq!(rig.send(sent), Got::Kept);
    }
    assert!(matches!(rig.send(&rest), Got::Whole(_)));
    assert_eq!(rig.send(&evil), Got::Refused(Refusal::Conflict));
}

#[test]
fn what_is_repeated_is_remembered_for_as_long_as_by_its_receiver() {
    let first = Sent {
        ttl: 3,
        ..Sent::new(0, true, &[1; 16])
    };
    let mut rig = Rig::inline();
    assert_eq!(rig.send(&first), Got::Kept);
    assert_eq!(
        rig.part(16, false, &[2; 8]),
        Got::Whole([&[1; 16][..], &[2; 8]].concat())
    );
    rig.wait(44);
    // The receiver has had the whole and begins anew; what ends otherwise completes it.
    assert_eq!(rig.send(&first), Got::Kept);
    rig.wait(17);
    assert_eq!(
        rig.part(8, false, &[3; 49]),
        Got::Refused(Refusal::Conflict)
    );
    rig.wait(44);
    assert_eq!(rig.part(8, false, &[3; 49]), Got::Kept);
}

#[test]
fn of_what_took_long_the_receiver_may_have_given_up_the_beginning() {
    let mut rig = Rig::inline();
    assert_eq!(rig.part(0, true, &[1; 8]), Got::Kept);
    rig.wait(47);
    assert_eq!(
        rig.part(8, false, &[2; 63]),
        Got::Whole([&[1; 8][..], &[2; 63]].concat())
    );
    // The receiver waits for another beginning since it has forgotten that one.
    assert_eq!(rig.part(0, true, &[3; 8]), Got::Refused(Refusal::Conflict));
    assert_eq!(rig.part(0, true, &[1; 8]), Got::Kept);
    // What comes soon is not remembered: the receiver has it.
    let mut rig = Rig::inline();
    assert_eq!(rig.part(0, true, &[1; 8]), Got::Kept);
    assert!(matches!(rig.part(8, false, &[2; 63]), Got::Whole(_)));
    assert_eq!(rig.part(0, true, &[3; 8]), Got::Kept);
}

#[test]
fn in_place_of_a_fragment_that_was_dropped_nothing_else_comes() {
    for dropped in 0..2 {
        let mut rig = Rig::inline();
        rig.delivers = dropped != 0;
        assert_eq!(rig.part(8, false, &[2; 20]), Got::Kept);
        rig.delivers = dropped != 1;
        assert!(matches!(rig.part(0, true, &[1; 8]), Got::Whole(_)));
        rig.delivers = true;
        // The receiver still waits for it.
        let (other, same) = match dropped {
            0 => ((8, false, [3; 63].to_vec()), (8, false, [2; 20].to_vec())),
            _ => ((0, true, [3; 8].to_vec()), (0, true, [1; 8].to_vec())),
        };
        assert_eq!(
            rig.part(other.0, other.1, &other.2),
            Got::Refused(Refusal::Conflict)
        );
        assert_eq!(rig.part(same.0, same.1, &same.2), Got::Kept);
    }
}

#[test]
fn an_accepted_datagram_cannot_be_cut_short_later() {
    let repeated = Sent {
        ttl: 3,
        ..Sent::new(0, true, &[1; 16])
    };
    let mut rig = Rig::inline();
    assert_eq!(rig.send(&repeated), Got::Kept);
    assert_eq!(rig.part(8, false, &[1; 29]), Got::Whole(vec![1; 37]));
    // The receiver has it as well and begins anew. With a sooner end it would have a shorter one,
    // which nobody inspected.
    let sooner = rig.part(16, false, &[1; 8]);
    assert_eq!(sooner, Got::Refused(Refusal::Conflict));
    assert_eq!(rig.event_names(), ["ipv4.frag_overlap"]);
    assert_eq!(rig.send(&repeated), Got::Kept);
    // The same bytes with the same end are a repetition, and so are those in the middle.
    assert_eq!(rig.part(32, false, &[1; 5]), Got::Kept);
    assert_eq!(rig.part(16, true, &[1; 8]), Got::Kept);
}

#[test]
fn a_fragment_whose_headers_the_receiver_may_refuse_cannot_be_replaced_later() {
    let fragment = |options: bool, offset: u8, more: u8, data: &[u8; 8]| {
        let mut ip = vec![0x60, 0, 0, 0, 0, if options { 24 } else { 16 }];
        ip.extend([if options { 60 } else { 44 }, 64]);
        ip.extend([0x20; 32]);
        if options {
            // Destination options, one of which is not known.
            ip.extend([44, 0, 0x5e, 4, 0, 0, 0, 0]);
        }
        ip.extend([17, 0, 0, offset | more, 0, 0, 0, 9]);
        ip.extend(data);
        ip
    };
    let mut rig = Rig::inline();
    assert_eq!(rig.ip(&fragment(false, 0, 1, b"    an a")).0, Got::Kept);
    let decoy = rig.ip(&fragment(true, 8, 0, b"pple pie")).0;
    assert_eq!(decoy, Got::Whole(b"    an apple pie".to_vec()));
    let evil = rig.ip(&fragment(false, 8, 0, b"ttack!!!")).0;
    assert_eq!(evil, Got::Refused(Refusal::Conflict));
}

#[test]
fn where_order_matters_a_datagram_begins_with_its_first_fragment() {
    let mut rig = Rig::new(DefragOptions {
        ordered: true,
        ..DefragOptions::default()
    });
    assert_eq!(rig.part(16, false, &[2; 8]), Got::Refused(Refusal::Order));
    rig.is_empty();
    assert_eq!(rig.part(0, true, &[1; 8]), Got::Kept);
    // Among themselves the others may come in any order.
    assert_eq!(rig.part(16, false, &[2; 8]), Got::Kept);
    assert!(matches!(rig.part(8, true, &[2; 8]), Got::Whole(_)));
    assert_eq!(rig.part(16, false, &[2; 8]), Got::Refused(Refusal::Order));
    rig.part(0, true, &[1; 8]);
    rig.defragmenter.give_up_all();
    rig.is_empty();
    assert_eq!(rig.part(8, false, &[1; 8]), Got::Refused(Refusal::Order));
    assert_eq!(rig.defragmenter.counters().given_up, 1);
}

#[test]
fn what_cannot_be_right_is_not_used() {
    let mut rig = Rig::inline();
    assert_eq!(rig.part(0, true, &[1; 9]), Got::Refused(Refusal::Length));
    assert_eq!(rig.part(8, true, &[]), Got::Refused(Refusal::Empty));
    assert_eq!(rig.part(8, false, &[]), Got::Refused(Refusal::Empty));
    assert_eq!(rig.event_names(), ["ipv4.frag_ignored"]);
    assert_eq!(
        rig.part(65_528, false, &[1]),
        Got::Refused(Refusal::TooLarge)
    );
    assert_eq!(rig.event_names(), ["ipv4.frag_pkt_too_large"]);
    rig.is_empty();
    // The longest that there can be: 65,535 with the header.
    assert_eq!(rig.part(0, true, &[1; 65_504]), Got::Kept);
    let got = rig.part(65_504, false, &[1; 11]);
    assert_eq!(got, Got::Whole(vec![1; 65_515]));
    rig.is_empty();
    // Passive: as Linux reads it.
    let mut rig = Rig::passive();
    assert_eq!(rig.part(0, true, &[1; 15]), Got::Kept);
    assert_eq!(
        rig.part(8, false, &[2; 1]),
        Got::Whole(vec![1, 1, 1, 1, 1, 1, 1, 1, 2])
    );
}

#[test]
fn vlans_and_tunnels_keep_datagrams_apart() {
    let mut rig = Rig::inline();
    rig.part(0, true, &[1; 8]);
    rig.depth = 1;
    assert_eq!(rig.part(8, false, &[2; 8]), Got::Kept);
    (rig.depth, rig.vlan) = (0, Some(5));
    assert_eq!(rig.part(8, false, &[2; 8]), Got::Kept);
    rig.vlan = None;
    assert!(matches!(rig.part(8, false, &[2; 8]), Got::Whole(_)));
    let mut rig = Rig::new(DefragOptions {
        vlan_tracking: false,
        ..DefragOptions::default()
    });
    rig.part(0, true, &[1; 8]);
    rig.vlan = Some(5);
    assert!(matches!(rig.part(8, false, &[2; 8]), Got::Whole(_)));
}

#[test]
fn incomplete_datagrams_are_given_up_in_time() {
    let slow = Network {
        address: Ipv4Addr::from(B).into(),
        prefix: 32,
    };
    let options = DefragOptions {
        host_timeouts: [(slow, Duration::from_secs(90))].into_iter().collect(),
        ..DefragOptions::default()
    };
    for (options, alive, over) in [(DefragOptions::default(), 59, 2), (options, 89, 2)] {
        let mut rig = Rig::new(options);
        rig.part(0, true, &[1; 8]);
        rig.wait(alive);
        assert_eq!(rig.defragmenter.expire(rig.now, 10), 0);
        // A further fragment prolongs it.
        rig.part(8, true, &[1; 8]);
        rig.wait(alive);
        assert_eq!(rig.defragmenter.expire(rig.now, 10), 0);
        rig.wait(over);
        assert_eq!(rig.defragmenter.expire(rig.now, 10), 1);
        rig.is_empty();
        assert_eq!(rig.defragmenter.counters().timed_out, 1);
        // Also without anybody who looks.
        rig.part(0, true, &[1; 8]);
        rig.wait(200);
        assert_eq!(rig.part(8, false, &[1; 8]), Got::Kept);
        assert_eq!(rig.defragmenter.counters().timed_out, 2);
    }
}

#[test]
fn off_means_off() {
    let mut rig = Rig::new(DefragOptions {
        enabled: false,
        ..DefragOptions::default()
    });
    assert_eq!(rig.part(0, true, &[1; 8]), Got::Disabled);
    assert_eq!(rig.defragmenter.counters(), DefragCounters::default());
}

/// Sends the first fragment of so many datagrams.
fn flood(rig: &mut Rig, datagrams: u16, len: usize) -> u64 {
    let mut no_room = 0;
    for id in 0..datagrams {
        let sent = Sent {
            id,
            ..Sent::new(0, true, &letters(len, b'a'))
        };
        no_room += u64::from(rig.send(&sent) == Got::NoRoom);
    }
    no_room
}

#[test]
fn every_bound_is_kept_and_counted() {
    let bounded = |inline, memcap, max_trackers, max_fragments| {
        Rig::new(DefragOptions {
            inline,
            memcap,
            max_trackers,
            max_fragments,
            ..DefragOptions::default()
        })
    };
    for inline in [true, false] {
        for (memcap, trackers, fragments) in [
            (64 << 10, u32::MAX, u32::MAX),
            (usize::MAX, 20, u32::MAX),
            (usize::MAX, u32::MAX, 20),
        ] {
            let mut rig = bounded(inline, memcap, trackers, fragments);
            let no_room = flood(&mut rig, 1000, 512);
            let counters = rig.defragmenter.counters();
            assert!(counters.memory <= memcap as u64, "{counters:?}");
            assert!(counters.trackers <= u64::from(trackers));
            assert!(rig.defragmenter.trackers.fragments() <= fragments as usize);
            let reached = counters.memcap_reached
                + counters.max_trackers_reached
                + counters.max_fragments_reached;
            if inline {
                // The first ones can still be completed: nothing is forgotten for others.
                assert!(no_room > 800, "{counters:?}");
                assert_eq!(reached, no_room);
                let rest = Sent {
                    id: 0,
                    ..Sent::new(512, false, b"end")
                };
                let complete = matches!(rig.send(&rest), Got::Whole(_));
                assert!(
                    complete || fragments == 20 || memcap == 64 << 10,
                    "{counters:?}"
                );
            } else {
                assert_eq!((no_room, reached), (0, 0));
                assert!(counters.given_up > 800, "{counters:?}");
                let rest = Sent {
                    id: 999,
                    ..Sent::new(512, false, b"end")
                };
                assert!(matches!(rig.send(&rest), Got::Whole(_)));
            }
            // When the time of all is over there is room again.
            rig.wait(61);
            let sent = Sent::new(0, true, &[1; 8]);
            assert_eq!(rig.send(&sent), Got::Kept);
        }
    }
}

#[test]
fn a_datagram_without_room_stays_without_inspection() {
    let mut rig = Rig::new(DefragOptions {
        max_fragments: 1,
        ..DefragOptions::default()
    });
    assert_eq!(rig.part(0, true, &[1; 8]), Got::Kept);
    assert_eq!(rig.part(8, true, &[1; 8]), Got::NoRoom);
    assert_eq!(rig.event_names(), ["ipv4.frag_ignored"]);
    // Room now, but the second one is missing.
    assert_eq!(rig.part(16, false, &[1; 8]), Got::NoRoom);
    rig.wait(61);
    assert_eq!(rig.part(0, true, &[1; 8]), Got::Kept);
}

#[test]
fn repetitions_do_not_grow_a_datagram() {
    let mut rig = Rig::inline();
    rig.part(0, true, &letters(1024, b'a'));
    let memory = rig.defragmenter.counters().memory;
    for _ in 0..1000 {
        assert_eq!(rig.part(0, true, &letters(1024, b'a')), Got::Kept);
    }
    assert_eq!(rig.defragmenter.counters().memory, memory);
    // Where the last one wins, each of them is kept, up to a limit.
    let mut rig = Rig::new(DefragOptions {
        inline: false,
        hosts: hosts(OsPolicy::Last),
        ..DefragOptions::default()
    });
    let mut refused = 0;
    for byte in 0..1000 {
        let data = [(byte % 251) as u8; 1024];
        refused += u32::from(rig.part(0, true, &data) == Got::Refused(Refusal::Excess));
    }
    assert!(refused > 700, "{refused}");
    assert!(rig.defragmenter.counters().memory < 2 * MAX_RECEIVED as u64);
}

/// A datagram byte by byte: for each the fragment that it is of, and its value.
struct Model {
    bytes: Vec<Option<(Extent, u8)>>,
    ends_at: Option<usize>,
}

impl Model {
    fn add(&mut self, sent: &Sent, policy: OverlapPolicy) {
        let start = usize::from(sent.offset);
        let end = start + sent.data.len();
        let extent = Extent {
            start: start as u32,
            end: end as u32,
        };
        let reached = self
            .bytes
            .iter()
            .rposition(Option::is_some)
            .map_or(0, |at| at + 1);
        let contradicts = match (sent.more, self.ends_at) {
            (true, Some(ends_at)) => end > ends_at,
            (true, None) => false,
            (false, Some(ends_at)) => end != ends_at,
            (false, None) => end < reached,
        };
        if contradicts {
            return;
        }
        if !sent.more {
            self.ends_at = Some(end);
        }
        for (at, &value) in (start..end).zip(&sent.data) {
            match &mut self.bytes[at] {
                Some((earlier, _)) if !policy.later_wins(*earlier, extent) => {}
                slot => *slot = Some((extent, value)),
            }
        }
    }

    fn whole(&self) -> Option<Vec<u8>> {
        let bytes = self.bytes[..self.ends_at?].iter();
        bytes.map(|byte| byte.map(|(_, value)| value)).collect()
    }
}

fn any_fragments() -> impl Strategy<Value = Vec<Sent>> {
    let one = (0u16..8, 1u16..6, any::<bool>(), any::<u8>());
    proptest::collection::vec(one, 1..14).prop_map(|parts| {
        parts
            .into_iter()
            .map(|(offset, len, last, byte)| {
                let last = last && offset > 4;
                let len = len * 8 - u16::from(last) * 3;
                let data = (0..len).map(|at| byte.wrapping_add(at as u8));
                Sent::new(offset * 8, !last, &data.collect::<Vec<_>>())
            })
            .collect()
    })
}

/// Every host with this stack.
fn hosts(stack: OsPolicy) -> HostPolicyTable {
    [(Network::ALL_V4, stack)].into_iter().collect()
}

fn stack_of(policy: OverlapPolicy) -> OsPolicy {
    let stack = match policy {
        OverlapPolicy::Bsd => OsPolicy::Bsd,
        OverlapPolicy::BsdRight => OsPolicy::BsdRight,
        OverlapPolicy::Linux => OsPolicy::Linux,
        OverlapPolicy::First => OsPolicy::First,
        OverlapPolicy::Last => OsPolicy::Last,
        OverlapPolicy::Windows => OsPolicy::Windows,
        OverlapPolicy::Solaris => OsPolicy::Solaris,
    };
    assert_eq!(OverlapPolicy::from(stack), policy);
    stack
}

proptest! {
    /// Every policy against the map of bytes, whatever overlaps.
    #[test]
    fn passive_reassembly_reads_overlaps_as_the_policy_says(fragments in any_fragments()) {
        for policy in OverlapPolicy::ALL {
            let mut rig = Rig::new(DefragOptions {
                inline: false,
                hosts: hosts(stack_of(policy)),
                ..DefragOptions::default()
            });
            let mut model = Model { bytes: vec![None; 200], ends_at: None };
            for sent in &fragments {
                model.add(sent, policy);
                match (rig.send(sent), model.whole()) {
                    (Got::Whole(got), Some(expect)) => {
                        prop_assert_eq!(got, expect, "{:?}", policy);
                        model = Model { bytes: vec![None; 200], ends_at: None };
                    }
                    (Got::Kept | Got::Refused(_), None) => {}
                    (got, expect) => prop_assert!(false, "{:?} {:?} {:?}", policy, got, expect),
                }
            }
        }
    }

    /// Inline: whatever the receiver's policy, and whatever of the accepted fragments it puts
    /// together first, it has what was inspected.
    #[test]
    fn inline_every_receiver_gets_what_was_inspected(fragments in any_fragments()) {
        let mut rig = Rig::inline();
        let mut passed = Vec::new();
        for sent in &fragments {
            match rig.send(sent) {
                Got::Kept => passed.push(sent.clone()),
                Got::Refused(_) => {}
                Got::Whole(inspected) => {
                    passed.push(sent.clone());
                    for policy in OverlapPolicy::ALL {
                        let mut receiver = Model { bytes: vec![None; 200], ends_at: None };
                        for sent in &passed {
                            receiver.add(sent, policy);
                        }
                        prop_assert_eq!(receiver.whole(), Some(inspected.clone()), "{:?}", policy);
                    }
                    break;
                }
                got => prop_assert!(false, "{:?}", got),
            }
        }
    }

    /// A shuffled datagram with repetitions is complete exactly when its last part is there.
    #[test]
    fn a_shuffled_datagram_is_put_together(
        len in 9usize..3000,
        cuts in proptest::collection::btree_set(1usize..370, 0..12),
        shuffle in any::<u64>(),
    ) {
        let data = letters(len, b'A');
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut * 8).filter(|&cut| cut < len).collect();
        if cuts.is_empty() {
            cuts.push(8);
        }
        cuts.push(len);
        let mut start = 0;
        let mut parts: Vec<Sent> = cuts.iter().map(|&end| {
            let part = Sent::new(start as u16, end < len, &data[start..end]);
            start = end;
            part
        }).collect();
        let mut state = shuffle | 1;
        for at in (1..parts.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            parts.swap(at, (state >> 33) as usize % (at + 1));
        }
        let mut rig = Rig::inline();
        let (last, others) = parts.split_last().unwrap();
        for part in others {
            prop_assert_eq!(rig.send(part), Got::Kept);
        }
        prop_assert_eq!(rig.send(last), Got::Whole(data));
        rig.is_empty();
    }
}
