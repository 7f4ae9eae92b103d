//! Data with the SYN and before the handshake ends, several SYNs, and what confuses a handshake.

use super::EVERYWHERE;
use super::overlaps::other;
use crate::case::{Case, LEN, Listener, Step, opened, pause_ms, send};
use crate::segment::{Segment, ack, bare, data, syn};
use crate::wire::{ACK, FIN, PSH, RST, SYN, URG};

type Make = fn(&[u8; LEN]) -> Vec<Step>;

/// TCP option 34 (RFC 7413) without a cookie.
const FAST_OPEN: [u8; 4] = [34, 2, 1, 1];
const CWR_ECE: u8 = 0xc0;

fn syn_with(text: &[u8]) -> Segment {
    syn().with(|it| it.data = text.to_vec())
}

fn fast_syn(text: &[u8]) -> Segment {
    syn_with(text).options(&FAST_OPEN)
}

/// SYN, SYN-ACK, then these.
fn after(first: Segment, rest: impl IntoIterator<Item = Segment>) -> Vec<Step> {
    let mut steps = vec![send(first), Step::AwaitAnswer];
    for segment in rest {
        steps.push(send(segment));
        steps.push(pause_ms(2));
    }
    steps
}

/// These before the SYN.
fn before(first: impl IntoIterator<Item = Segment>, text: &[u8; LEN]) -> Vec<Step> {
    let mut steps = Vec::new();
    for segment in first {
        steps.push(send(segment));
        steps.push(pause_ms(2));
    }
    steps.extend(opened());
    steps.push(send(data(0, text)));
    steps
}

const SYN_DATA: [(&str, bool, Make); 16] = [
    ("all in the SYN, and again", true, |t| {
        after(fast_syn(t), [ack(), data(0, t)])
    }),
    ("a part in the SYN, and again", true, |t| {
        after(fast_syn(&t[..9]), [ack(), data(0, t)])
    }),
    ("a part in the SYN, then the rest", true, |t| {
        after(fast_syn(&t[..9]), [ack(), data(9, &t[9..])])
    }),
    ("a part in the SYN, the rest with the ACK", true, |t| {
        after(fast_syn(&t[..9]), [data(9, &t[9..])])
    }),
    ("a part in the SYN, the rest backward", true, |t| {
        after(
            fast_syn(&t[..9]),
            [ack(), data(15, &t[15..]), data(9, &t[9..15])],
        )
    }),
    ("a part in the SYN, then all", true, |t| {
        after(fast_syn(&t[..9]), [data(9, &t[9..]), data(0, t)])
    }),
    ("only in the SYN", true, |t| after(fast_syn(t), [ack()])),
    ("only in the SYN, never completed", false, |t| {
        after(fast_syn(t), [])
    }),
    ("other data in the SYN", false, |t| {
        after(fast_syn(&[b'~'; 9]), [ack(), data(0, t)])
    }),
    ("other data in the SYN, then the rest", false, |t| {
        after(fast_syn(&[b'~'; 9]), [data(9, &t[9..]), data(0, t)])
    }),
    ("a part in the SYN, then otherwise", false, |t| {
        after(fast_syn(&t[..9]), [ack(), other(0, 9), data(9, &t[9..])])
    }),
    ("two SYNs with other data, the second right", false, |t| {
        let mut steps = vec![send(fast_syn(&[b'~'; 9]).dying()), pause_ms(2)];
        steps.extend(after(fast_syn(&t[..9]), [ack(), data(9, &t[9..])]));
        steps
    }),
    ("a corrupt SYN with other data first", false, |t| {
        let mut steps = vec![send(fast_syn(&[b'~'; 9]).corrupt()), pause_ms(2)];
        steps.extend(after(fast_syn(&t[..9]), [ack(), data(9, &t[9..])]));
        steps
    }),
    ("an empty SYN that dies, then one with data", false, |t| {
        let mut steps = vec![send(fast_syn(b"").dying()), pause_ms(2)];
        steps.extend(after(fast_syn(t), [ack()]));
        steps
    }),
    ("without the option", false, |t| {
        after(syn_with(t), [ack(), data(0, t)])
    }),
    ("without the option, other data", false, |t| {
        after(syn_with(&[b'~'; LEN]), [ack(), data(0, t)])
    }),
];

const BEFORE_THE_END: [(&str, bool, Make); 30] = [
    ("data with the ACK", true, |t| after(syn(), [data(0, t)])),
    ("data before the ACK, backward", true, |t| {
        after(syn(), [data(12, &t[12..]), data(0, &t[..12]), ack()])
    }),
    ("data before the ACK, forward", true, |t| {
        after(syn(), [data(0, &t[..12]), ack(), data(12, &t[12..])])
    }),
    ("data with the ACK and the FIN", true, |t| {
        after(syn(), [data(0, t).fin()])
    }),
    ("data in thirds, the ACK last", true, |t| {
        after(
            syn(),
            [
                data(16, &t[16..]),
                data(8, &t[8..16]),
                data(0, &t[..8]),
                ack(),
            ],
        )
    }),
    ("the SYN twice", true, |t| {
        let mut steps = vec![send(syn()), pause_ms(2)];
        steps.extend(after(syn(), [ack(), data(0, t)]));
        steps
    }),
    ("the SYN again after its answer", true, |t| {
        after(syn(), [syn(), ack(), data(0, t)])
    }),
    ("the SYN asks for ECN", true, |t| {
        after(syn().flags(SYN | CWR_ECE), [ack(), data(0, t)])
    }),
    ("the SYN is urgent", false, |t| {
        after(syn().flags(SYN | URG), [ack(), data(0, t)])
    }),
    ("the SYN pushes", false, |t| {
        after(syn().flags(SYN | PSH), [ack(), data(0, t)])
    }),
    ("the SYN ends", false, |t| {
        after(syn().flags(SYN | FIN), [ack(), data(0, t)])
    }),
    ("no window in the SYN", true, |t| {
        after(syn().with(|it| it.window = 0), [ack(), data(0, t)])
    }),
    ("data without ACK before the ACK", false, |t| {
        after(syn(), [other(0, 24).flags(PSH), ack(), data(0, t)])
    }),
    ("data with a wrong ACK before the ACK", false, |t| {
        after(
            syn(),
            [other(0, 24).with(|it| it.ack = 1000), ack(), data(0, t)],
        )
    }),
    ("data with an old ACK before the ACK", false, |t| {
        after(
            syn(),
            [other(0, 24).with(|it| it.ack = -1000), ack(), data(0, t)],
        )
    }),
    ("data that dies before the ACK", false, |t| {
        after(syn(), [other(0, 24).dying(), ack(), data(0, t)])
    }),
    ("corrupt data before the ACK", false, |t| {
        after(syn(), [other(0, 24).corrupt(), ack(), data(0, t)])
    }),
    ("a RST that dies before the ACK", false, |t| {
        after(syn(), [Segment::reset(0).dying(), ack(), data(0, t)])
    }),
    ("a corrupt RST before the ACK", false, |t| {
        after(syn(), [Segment::reset(0).corrupt(), ack(), data(0, t)])
    }),
    ("a RST elsewhere before the ACK", false, |t| {
        after(syn(), [Segment::reset(500), ack(), data(0, t)])
    }),
    ("a FIN that dies before the ACK", false, |t| {
        after(syn(), [bare(FIN | ACK, 0).dying(), ack(), data(0, t)])
    }),
    ("another SYN before the ACK", false, |t| {
        after(
            syn(),
            [syn().with(|it| it.shifted = 0x100_0000), ack(), data(0, t)],
        )
    }),
    ("another SYN that dies first", false, |t| {
        before([syn().with(|it| it.shifted = 0x100_0000).dying()], t)
    }),
    ("a corrupt SYN first", false, |t| {
        before([syn().with(|it| it.shifted = 0x100_0000).corrupt()], t)
    }),
    ("twelve other SYNs that die first", false, |t| {
        let others = (1..=12).map(|n| syn().with(|it| it.shifted = n << 20).dying());
        before(others, t)
    }),
    ("a SYN-ACK first", false, |t| {
        before([bare(SYN | ACK, -1)], t)
    }),
    ("a RST first", false, |t| before([bare(RST, -1)], t)),
    ("a FIN first", false, |t| before([bare(FIN | ACK, 0)], t)),
    ("data that dies first", false, |t| {
        before([other(0, 24).dying()], t)
    }),
    (
        "the attack's place otherwise that dies, then the SYN",
        false,
        |t| before([bare(ACK, 0).dying(), other(0, 12).dying()], t),
    ),
];

/// The port is used again.
const AGAIN: [(&str, bool, Make); 4] = [
    ("after a reset", true, |t| {
        let mut steps = opened();
        steps.extend([
            send(data(0, b"hello")),
            pause_ms(20),
            send(Segment::reset(5)),
        ]);
        again(steps, t)
    }),
    ("after both FINs", true, |t| {
        let mut steps = opened();
        steps.extend([
            send(data(0, b"hello").fin()),
            Step::AwaitEnd,
            send(bare(ACK, 6).with(|it| it.ack = 1)),
        ]);
        again(steps, t)
    }),
    ("after a reset of which nothing came before", true, |t| {
        let mut steps = opened();
        steps.push(send(Segment::reset(0)));
        again(steps, t)
    }),
    ("after a reset that was not answered", false, |t| {
        let steps = vec![send(syn()), Step::AwaitAnswer, send(Segment::reset(0))];
        again(steps, t)
    }),
];

fn again(mut steps: Vec<Step>, text: &[u8; LEN]) -> Vec<Step> {
    let of_second = |segment: Segment| segment.with(|it| it.shifted = 0x0100_0000);
    steps.extend([
        pause_ms(20),
        send(of_second(syn())),
        Step::AwaitAnswer,
        send(of_second(ack())),
        pause_ms(2),
        send(of_second(data(0, &text[..12]))),
        pause_ms(2),
        send(of_second(data(12, &text[12..]))),
    ]);
    steps
}

pub(crate) fn add(cases: &mut Vec<Case>) {
    for (ipv6, by_flow) in EVERYWHERE {
        let mut add = |case: Case| cases.push(case.ipv6(ipv6).by_flow(by_flow));
        for (name, ordinary, make) in SYN_DATA {
            // With the SYN nothing is established: such a rule does not look there.
            let covered =
                !by_flow || !name.starts_with("only in") && !name.ends_with("one with data");
            if covered {
                let case = Case::new("data in the SYN", format!("{name}, fast open"), make);
                add(case.to(Listener::FastOpen).ordinary(ordinary));
            }
            add(Case::new("data in the SYN", name, make).ordinary(ordinary));
        }
        for (name, ordinary, make) in BEFORE_THE_END {
            add(Case::new("handshake", name, make).ordinary(ordinary));
        }
        for (name, ordinary, make) in AGAIN {
            add(Case::new("port used again", name, make).ordinary(ordinary));
        }
    }
}
