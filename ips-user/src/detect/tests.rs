//! Rules from their text to what they say about packets, with each prefilter.

use etherparse::PacketBuilder;

use super::prefilter::BuildPrefilter;
use super::transactions::AppGroup;
use super::*;
use crate::app::{AppLayer, AppProtocol, Ear, Heard, Ports};
use crate::decode::Decoded;
use crate::flow::{PacketDirection, Tally, Timestamp};
use crate::rules::ast::{
    Action, AddressSet, BitChange, Compare, Condition, Effect, FlowCondition, FlowIntAsked,
    FlowIntChange, FlowIntOperator, FlowIntValue, GeoSide, Options, Tag, TagOf, TagUnit, Threshold,
    ThresholdKind, Track,
};
use crate::rules::range_set::RangeSet;
use crate::rules::{Rule, RuleSet, RuleSource, ThresholdEntry};

mod budget;

fn prefilters() -> Vec<BuildPrefilter> {
    vec![
        Daachorse::build,
        #[cfg(libhs)]
        prefilter::Hyperscan::build,
    ]
}

fn rules(text: &str) -> Vec<Rule> {
    let loaded = RuleSet::default().load_sources(&[RuleSource::new("t", text.into())]);
    assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
    loaded.rules
}

/// A rule of which the rest is added.
fn rule(text: &str, add: impl FnOnce(&mut Options)) -> Rule {
    let mut rules = rules(text);
    assert_eq!(rules.len(), 1, "{text}");
    add(&mut rules[0].options);
    rules.remove(0)
}

fn engine(rules: Vec<Rule>, options: &CompileOptions) -> Engine {
    let compiled = Engine::compile(rules, options).unwrap();
    assert!(compiled.refused.is_empty(), "{:?}", compiled.refused);
    compiled.engine
}

const A: [u8; 4] = [192, 0, 2, 1];
const B: [u8; 4] = [198, 51, 100, 2];

fn tcp(payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    PacketBuilder::ipv4(A, B, 64)
        .tcp(1000, 80, 7, 512)
        .write(&mut bytes, payload)
        .unwrap();
    bytes
}

fn udp(payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    PacketBuilder::ipv4(A, B, 64)
        .udp(1000, 53)
        .write(&mut bytes, payload)
        .unwrap();
    bytes
}

/// A worker with one flow.
struct Bench {
    engine: Engine,
    scratch: Scratch,
    tables: Tables,
    marks: FlowMarks,
    now: Timestamp,
    direction: PacketDirection,
    established: bool,
    /// What its application says.
    app: AppLayer,
}

/// What came out, for comparing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Out {
    alerts: Vec<u32>,
    acts: Vec<(u32, bool)>,
    beyond_limit: u32,
    suppressed: u32,
    tagged: bool,
    bypass: bool,
    given_up: u32,
    out_of_time: bool,
    replaced: Vec<(usize, Vec<u8>)>,
}

impl Bench {
    fn new(rules: Vec<Rule>) -> Self {
        Self::with(rules, &CompileOptions::default())
    }

    fn with(rules: Vec<Rule>, options: &CompileOptions) -> Self {
        let engine = engine(rules, options);
        Self {
            scratch: engine.scratch(),
            engine,
            tables: Tables::default(),
            marks: FlowMarks::default(),
            now: Timestamp::default(),
            direction: PacketDirection::ToServer,
            established: true,
            app: AppLayer::default(),
        }
    }

    fn packet(&mut self, packet: &[u8]) -> Out {
        self.streamed(packet, None)
    }

    fn streamed(&mut self, packet: &[u8], stream: Option<StreamData<'_>>) -> Out {
        let packet = Decoded::parse(packet).unwrap();
        let tally = Tally {
            packets: 3,
            bytes: 300,
        };
        let flow = FlowView {
            direction: self.direction,
            established: self.established,
            age_s: 5,
            to_server: tally,
            to_client: Tally::default(),
            stream_sizes: Some((100, 200)),
            app: self.app.known(),
            marks: &mut self.marks,
        };
        let input = Inspected {
            packet: &packet,
            flow: Some(flow),
            stream,
            stream_events: crate::reassembly::tcp::StreamEvents::NONE,
            only_stream: false,
            only_established: false,
            app: Some(AppView {
                transactions: self.app.transactions(),
                epoch: 1,
            }),
            now: self.now,
            tables: &mut self.tables,
        };
        let detection = self.engine.inspect(input, &mut self.scratch);
        let sid = |index| self.engine.rule(index).options.signature_id;
        Out {
            alerts: detection
                .alerts
                .iter()
                .map(|alert| sid(alert.rule))
                .collect(),
            acts: detection
                .acts
                .iter()
                .map(|alert| (sid(alert.rule), alert.whole_flow))
                .collect(),
            beyond_limit: detection.beyond_limit,
            suppressed: detection.suppressed,
            tagged: detection.tagged,
            bypass: detection.bypass,
            given_up: detection.given_up,
            out_of_time: detection.out_of_time,
            replaced: detection
                .replacements()
                .map(|(at, bytes)| (at, bytes.to_vec()))
                .collect(),
        }
    }

    /// The client says something in a datagram.
    fn hears(&mut self, payload: &[u8]) {
        let ports = Ports {
            client: 1000,
            server: 53,
        };
        let mut ear = Ear::default();
        let hearing = &mut ear.datagrams();
        let direction = PacketDirection::ToServer;
        assert_eq!(
            self.app.datagram(direction, payload, ports, hearing),
            Heard::Well
        );
    }

    fn alerts(&mut self, packet: &[u8]) -> Vec<u32> {
        self.packet(packet).alerts
    }
}

fn check(text: &str, packet: &[u8], expect: &[u32]) {
    for prefilter in prefilters() {
        let mut bench = Bench::with(rules(text), &CompileOptions::with(prefilter));
        let mut alerts = bench.alerts(packet);
        alerts.sort_unstable();
        assert_eq!(alerts, expect, "{text} on {packet:02x?}");
    }
}

#[test]
fn protocol_addresses_and_ports_of_the_header_count() {
    let text = "alert tcp any any -> any 80 (content:\"x\"; sid:1;)\n\
                alert tcp any any -> any 81 (content:\"x\"; sid:2;)\n\
                alert udp any any -> any any (content:\"x\"; sid:3;)\n\
                alert ip any any -> any any (content:\"x\"; sid:4;)\n\
                alert tcp 192.0.2.0/24 any -> !192.0.2.0/24 [79:90,!81] (content:\"x\"; sid:5;)\n\
                alert tcp 198.51.100.0/24 80 <> any any (content:\"x\"; sid:6;)\n\
                alert tcp 198.51.100.0/24 80 -> any any (content:\"x\"; sid:7;)\n\
                alert icmp any any -> any any (content:\"x\"; sid:8;)\n\
                alert tcp-pkt any any -> any 80 (content:\"x\"; sid:9;)\n";
    check(text, &tcp(b"-x-"), &[1, 4, 5, 6, 9]);
    check(text, &udp(b"-x-"), &[3, 4]);
    check(text, &tcp(b"---"), &[]);
    check(text, &tcp(b""), &[]);
}

#[test]
fn literals_in_either_case_and_none_at_all_select_rules() {
    let text = "alert tcp any any -> any any (content:\"AbC\"; nocase; sid:1;)\n\
                alert tcp any any -> any any (content:\"AbC\"; sid:2;)\n\
                alert tcp any any -> any any (content:!\"abc\"; sid:3;)\n\
                alert tcp any any -> any any (content:\"|00 01|\"; content:\"ab\"; sid:4;)\n\
                alert tcp any any -> any any (content:\"b\"; content:\"xyzxyz\"; fast_pattern; sid:5;)\n";
    check(text, &tcp(b"abc"), &[1]);
    check(text, &tcp(b"AbC"), &[1, 2, 3]);
    check(text, &tcp(b"\0\x01.ab"), &[3, 4]);
    check(text, &tcp(b"xyzxyzb"), &[3, 5]);
    check(text, &tcp(b""), &[]);
}

#[test]
fn rules_about_addresses_are_asked_once_for_each_direction() {
    let text = "alert tcp any any -> any any (sid:1;)\n\
                alert ip 192.0.2.1 any -> any any (sid:2;)\n\
                alert ip any any -> 198.51.100.0/24 any (sid:3;)\n\
                alert ip 203.0.113.1 any -> any any (sid:4;)\n\
                alert udp any any -> any any (sid:5;)\n\
                alert ip !203.0.113.1 any -> any any (sid:6;)\n";
    let mut bench = Bench::new(rules(text));
    assert_eq!(bench.alerts(&tcp(b"")), [1, 2, 3, 6]);
    // What excludes addresses is asked for every packet.
    assert_eq!(bench.alerts(&tcp(b"")), [6]);
    bench.direction = PacketDirection::ToClient;
    assert_eq!(bench.alerts(&tcp(b"")), [1, 2, 3, 6]);
    assert_eq!(bench.alerts(&tcp(b"")), [6]);
}

#[test]
fn the_order_is_by_action_then_what_is_left_behind_then_priority() {
    let set = |bits: &str| Effect::FlowBits {
        change: BitChange::Set,
        names: vec![bits.into()],
    };
    let is_set = |bits: &str| Condition::FlowBits {
        set: true,
        any_of: vec![bits.into()],
    };
    let all = vec![
        rule(
            "alert udp any any -> any any (content:\"x\"; priority:9; sid:1;)",
            |_| {},
        ),
        rule(
            "alert udp any any -> any any (content:\"x\"; priority:1; sid:2;)",
            |_| {},
        ),
        rule(
            "alert udp any any -> any any (content:\"x\"; sid:3;)",
            |options| {
                options.conditions.push(is_set("b"));
            },
        ),
        rule(
            "alert udp any any -> any any (content:\"x\"; sid:4;)",
            |options| {
                options.effects.push(set("b"));
            },
        ),
        rule(
            "drop udp any any -> any any (content:\"x\"; sid:5;)",
            |_| {},
        ),
    ];
    let mut bench = Bench::new(all);
    assert_eq!(bench.alerts(&udp(b"x")), [5, 4, 3, 2, 1]);
}

#[test]
fn a_pass_rule_ends_it_where_it_stands_in_the_order() {
    let text = "alert udp any any -> any any (content:\"x\"; sid:1;)\n\
                pass udp any any -> any any (content:\"x\"; sid:2;)\n\
                drop udp any any -> any any (content:\"x\"; sid:3;)\n";
    let out = Bench::new(rules(text)).packet(&udp(b"x"));
    assert_eq!((out.alerts, out.acts), (vec![], vec![(2, false)]));
    use ActionKind::{Alert, Drop, Pass, Reject};
    let with = |order| CompileOptions {
        action_order: ActionOrder::of(order),
        ..CompileOptions::default()
    };
    let out = Bench::with(rules(text), &with([Drop, Alert, Pass, Reject])).packet(&udp(b"x"));
    assert_eq!(
        (out.alerts, out.acts),
        (vec![3, 1], vec![(3, false), (2, false)])
    );
    let out = Bench::with(rules(text), &with([Alert, Pass, Drop, Reject])).packet(&udp(b"x"));
    assert_eq!((out.alerts, out.acts), (vec![1], vec![(2, false)]));
}

#[test]
fn the_kind_of_a_rule_decides_how_far_it_reaches() {
    let check = |text: &str, packet: &[u8], stream, expect: bool| {
        let out = Bench::new(rules(text)).streamed(packet, stream);
        assert_eq!(out.acts, [(1, expect)], "{text}");
    };
    let data = |holds_packet| {
        Some(StreamData {
            data: b"..needle..",
            holds_packet,
            ..StreamData::default()
        })
    };
    let nothing = Some(StreamData::default());
    let stream = "drop tcp any any -> any any (content:\"needle\"; sid:1;)";
    let both = "drop tcp any any -> any any (content:\"needle\"; offset:2; sid:1;)";
    let packet = "drop tcp-pkt any any -> any any (content:\"needle\"; sid:1;)";
    check(stream, &tcp(b""), data(true), true);
    check(both, &tcp(b""), data(true), true);
    // In no stream: the packet alone.
    check(stream, &tcp(b"needle"), nothing, false);
    check(both, &tcp(b"..needle"), nothing, false);
    check(packet, &tcp(b"needle"), data(true), false);
    // Where streams are not known, a payload is one.
    check(stream, &tcp(b"needle"), None, true);
    check(packet, &tcp(b"needle"), None, false);
    check(
        "drop udp any any -> any any (content:\"needle\"; sid:1;)",
        &udp(b"needle"),
        None,
        false,
    );
    check(
        "drop ip any any -> any any (content:\"needle\"; sid:1;)",
        &udp(b"needle"),
        None,
        false,
    );
    check(
        "drop ip 192.0.2.1 any -> any any (sid:1;)",
        &udp(b""),
        None,
        true,
    );
    check(
        "drop ip !192.0.2.9 any -> any any (sid:1;)",
        &udp(b""),
        None,
        true,
    );
    check("drop tcp any any -> any 80 (sid:1;)", &tcp(b""), None, true);
}

#[test]
fn a_stream_is_searched_in_place_of_the_packets_in_it() {
    let text = "alert tcp any any -> any any (content:\"needle\"; sid:1;)\n\
                alert tcp any any -> any any (content:\"needle\"; depth:6; sid:2;)\n\
                alert tcp-pkt any any -> any any (content:\"needle\"; sid:3;)\n";
    for prefilter in prefilters() {
        let mut bench = Bench::with(rules(text), &CompileOptions::with(prefilter));
        let mut of = |payload: &[u8], data: &'static [u8], holds_packet| {
            let stream = Some(StreamData {
                data,
                holds_packet,
                ..StreamData::default()
            });
            let mut alerts = bench.streamed(&tcp(payload), stream).alerts;
            alerts.sort_unstable();
            alerts
        };
        assert_eq!(of(b"dle", b"needle", true), [1, 2]);
        assert_eq!(of(b"dle", b"..needle", true), [1]);
        assert_eq!(of(b"needle", b"", true), [2, 3]);
        assert_eq!(of(b"needle", b"", false), [1, 2, 3]);
        assert!(of(b"", b"", false).is_empty());
    }
}

#[test]
fn flow_conditions_are_asked_of_the_flow() {
    let flow = |condition: FlowCondition| {
        rule("alert udp any any -> any any (sid:1;)", |options| {
            options.conditions.push(Condition::Flow(condition));
        })
    };
    let check = |condition: FlowCondition, direction, established, expect: bool| {
        let mut bench = Bench::new(vec![flow(condition)]);
        bench.direction = direction;
        bench.established = established;
        let alerts = bench.alerts(&udp(b"")).len();
        assert_eq!(alerts, usize::from(expect), "{condition:?}");
    };
    use PacketDirection::{ToClient, ToServer};
    let none = FlowCondition::default();
    let to_server = FlowCondition {
        to_server: Some(true),
        ..none
    };
    check(to_server, ToServer, true, true);
    check(to_server, ToClient, true, false);
    let to_client = FlowCondition {
        to_server: Some(false),
        ..none
    };
    check(to_client, ToClient, false, true);
    check(to_client, ToServer, false, false);
    let established = FlowCondition {
        established: Some(true),
        ..none
    };
    check(established, ToServer, true, true);
    check(established, ToServer, false, false);
    let not = FlowCondition {
        established: Some(false),
        ..none
    };
    check(not, ToServer, false, true);
    check(not, ToServer, true, false);
    let check = |condition: Condition, expect: bool| {
        let rule = rule("alert udp any any -> any any (sid:1;)", |options| {
            options.conditions.push(condition.clone());
        });
        let alerts = Bench::new(vec![rule]).alerts(&udp(b"")).len();
        assert_eq!(alerts, usize::from(expect), "{condition:?}");
    };
    use crate::rules::ast::StreamSide::{Both, Client, Either, Server};
    let size = |side, compare| Condition::StreamSize { side, compare };
    check(size(Client, Compare::Equal(100)), true);
    check(size(Server, Compare::Equal(100)), false);
    check(size(Both, Compare::AtLeast(100)), true);
    check(size(Both, Compare::Greater(100)), false);
    check(size(Either, Compare::Greater(100)), true);
    check(Condition::FlowAge(Compare::Equal(5)), true);
    check(Condition::FlowAge(Compare::Less(5)), false);
    let packets = |side, compare| Condition::FlowPackets { side, compare };
    check(packets(Client, Compare::Equal(3)), true);
    check(packets(Server, Compare::Equal(0)), true);
    let bytes = |side, compare| Condition::FlowBytes { side, compare };
    check(bytes(Client, Compare::Greater(299)), true);
    check(bytes(Both, Compare::Greater(299)), false);
}

#[test]
fn what_rules_leave_in_a_flow_later_ones_find() {
    let bits = |change, name: &str| Effect::FlowBits {
        change,
        names: vec![name.into()],
    };
    let asked = |set, name: &[&str]| Condition::FlowBits {
        set,
        any_of: name.iter().map(|name| (*name).into()).collect(),
    };
    let int = |asked| Condition::FlowInt {
        name: "n".into(),
        asked,
    };
    let change = |change, value| Effect::FlowInt {
        name: "n".into(),
        change,
        value: FlowIntValue::Literal(value),
    };
    let compare = |operator, value| {
        int(FlowIntAsked::Compare {
            operator,
            with: FlowIntValue::Literal(value),
        })
    };
    let on = |content: &str, sid: u32, add: &dyn Fn(&mut Options)| {
        let text = format!("alert udp any any -> any any (content:\"{content}\"; sid:{sid};)");
        rule(&text, |options| add(options))
    };
    let all = vec![
        on("set", 1, &|options| {
            options.effects.push(bits(BitChange::Set, "a"));
        }),
        on("unset", 2, &|options| {
            options.effects.push(bits(BitChange::Unset, "a"));
        }),
        on("toggle", 3, &|options| {
            options.effects.push(bits(BitChange::Toggle, "a"));
        }),
        on("ask", 10, &|options| {
            options.conditions.push(asked(true, &["z", "a"]));
        }),
        on("ask", 11, &|options| {
            options.conditions.push(asked(false, &["z", "a"]));
        }),
        on("add", 20, &|options| {
            options.effects.push(change(FlowIntChange::Add, 2));
        }),
        on("less", 21, &|options| {
            options.effects.push(change(FlowIntChange::Subtract, 9));
        }),
        on("ask", 30, &|options| {
            options
                .conditions
                .push(compare(FlowIntOperator::AtLeast, 4));
        }),
        on("ask", 31, &|options| {
            options.conditions.push(int(FlowIntAsked::IsNotSet));
        }),
    ];
    let mut bench = Bench::new(all);
    let mut say = |text: &str| {
        let mut alerts = bench.alerts(&udp(text.as_bytes()));
        alerts.retain(|sid| matches!(sid, 10 | 11 | 30 | 31));
        alerts.sort_unstable();
        alerts
    };
    assert_eq!(say("ask"), [11, 31]);
    // Within one packet those that set go first.
    assert_eq!(say("ask, set"), [10, 31]);
    assert_eq!(say("ask"), [10, 31]);
    assert!(say("toggle").is_empty());
    assert_eq!(say("ask add"), [11]);
    assert_eq!(say("ask add"), [11, 30]);
    assert!(say("less").is_empty());
    assert_eq!(say("ask toggle"), [10]);
}

#[test]
fn bits_of_hosts_are_left_across_flows() {
    let set = Effect::HostBits {
        change: BitChange::Set,
        name: "seen".into(),
        track: Track::Source,
        expire: Some(10),
    };
    let asked = Condition::HostBits {
        set: true,
        name: "seen".into(),
        track: Track::Source,
    };
    let mut bench = Bench::new(vec![
        rule(
            "alert udp any any -> any any (content:\"set\"; sid:1;)",
            |options| {
                options.effects.push(set);
            },
        ),
        rule(
            "alert udp any any -> any any (content:\"ask\"; sid:2;)",
            |options| {
                options.conditions.push(asked);
            },
        ),
    ]);
    assert!(bench.alerts(&udp(b"ask")).is_empty());
    assert_eq!(bench.alerts(&udp(b"set")), [1]);
    bench.marks = FlowMarks::default();
    assert_eq!(bench.alerts(&udp(b"ask")), [2]);
    bench.now.monotonic_ns = 11_000_000_000;
    assert!(bench.alerts(&udp(b"ask")).is_empty());
}

fn threshold(kind: ThresholdKind, track: Track, count: u32) -> Threshold {
    Threshold {
        kind,
        track,
        count,
        seconds: 60,
    }
}

#[test]
fn a_threshold_silences_but_a_drop_goes_on_dropping() {
    let limited = rule(
        "drop udp any any -> any any (content:\"x\"; sid:1;)",
        |options| {
            options.threshold = Some(threshold(ThresholdKind::Limit, Track::Source, 1));
        },
    );
    let mut bench = Bench::new(vec![limited]);
    let first = bench.packet(&udp(b"x"));
    assert_eq!((first.alerts, first.acts.len()), (vec![1], 1));
    let second = bench.packet(&udp(b"x"));
    assert_eq!(
        (second.alerts, second.acts.len(), second.suppressed),
        (vec![], 1, 1)
    );
    let filtered = rule(
        "drop udp any any -> any any (content:\"x\"; sid:1;)",
        |options| {
            let kind = ThresholdKind::DetectionFilter;
            options.threshold = Some(threshold(kind, Track::Source, 1));
        },
    );
    let mut bench = Bench::new(vec![filtered]);
    assert_eq!(bench.packet(&udp(b"x")).acts, []);
    assert_eq!(bench.packet(&udp(b"x")).acts, [(1, false)]);
}

#[test]
fn threshold_config_goes_before_what_the_rule_says() {
    let own = || {
        rule(
            "alert udp any any -> any any (content:\"x\"; sid:7;)",
            |options| {
                options.threshold = Some(threshold(ThresholdKind::Limit, Track::Source, 1));
            },
        )
    };
    let with = |group_id, signature_id, threshold| CompileOptions {
        thresholds: vec![ThresholdEntry {
            group_id: Some(group_id).filter(|id| *id != 0),
            signature_id: Some(signature_id).filter(|id| *id != 0),
            threshold,
            file: "t".into(),
            line: 1,
        }],
        ..CompileOptions::default()
    };
    let counts = |options: &CompileOptions| -> Vec<usize> {
        let mut bench = Bench::with(vec![own()], options);
        (0..4).map(|_| bench.alerts(&udp(b"x")).len()).collect()
    };
    let third = threshold(ThresholdKind::Threshold, Track::Rule, 3);
    assert_eq!(counts(&CompileOptions::default()), [1, 0, 0, 0]);
    assert_eq!(counts(&with(1, 7, third.clone())), [0, 0, 1, 0]);
    assert_eq!(counts(&with(1, 8, third)), [1, 0, 0, 0]);
    let only = AddressSet {
        v4: RangeSet::of(vec![(u32::from_be_bytes(A), u32::from_be_bytes(A))]),
        v6: RangeSet::empty(),
    };
    let suppress = |track| {
        let addresses = Some(only.clone());
        threshold(ThresholdKind::Suppress { addresses }, track, 0)
    };
    assert_eq!(counts(&with(0, 0, suppress(Track::Source))), [0, 0, 0, 0]);
    assert_eq!(
        counts(&with(0, 0, suppress(Track::Destination))),
        [1, 0, 0, 0]
    );
    let rate = ThresholdKind::Rate {
        new_action: Action::Drop,
        timeout: 60,
    };
    let options = with(1, 7, threshold(rate, Track::Source, 2));
    let mut bench = Bench::with(
        vec![rule(
            "alert udp any any -> any any (content:\"x\"; sid:7;)",
            |_| {},
        )],
        &options,
    );
    let acts: Vec<usize> = (0..4)
        .map(|_| bench.packet(&udp(b"x")).acts.len())
        .collect();
    assert_eq!(acts, [0, 0, 1, 1]);
}

#[test]
fn alerts_of_a_packet_are_bounded_but_not_what_acts() {
    let mut text: String = (1..=20)
        .map(|sid| format!("alert udp any any -> any any (content:\"x\"; sid:{sid};)\n"))
        .collect();
    text += "alert udp any any -> any any (content:\"x\"; priority:1; sid:90;)\n";
    text += "alert udp any any -> any any (content:\"x\"; noalert; sid:91;)\n";
    let out = Bench::new(rules(&text)).packet(&udp(b"x"));
    assert_eq!(out.alerts.len(), PACKET_ALERT_MAX);
    assert_eq!(out.alerts[0], 90, "the highest priority is kept");
    assert_eq!((out.beyond_limit, out.suppressed), (6, 1));
    let options = CompileOptions {
        packet_alert_max: 2,
        action_order: ActionOrder::of([ActionKind::Alert]),
        ..CompileOptions::default()
    };
    text += "drop udp any any -> any any (content:\"x\"; sid:92;)\n";
    let out = Bench::with(rules(&text), &options).packet(&udp(b"x"));
    assert_eq!((out.alerts.len(), out.acts), (2, vec![(92, false)]));
}

#[test]
fn tagged_packets_are_told() {
    let tag = |of| Tag {
        of,
        amount: 2,
        unit: TagUnit::Packets,
    };
    for of in [TagOf::Session, TagOf::SourceHost, TagOf::DestinationHost] {
        let tagging = rule(
            "alert udp any any -> any any (content:\"x\"; sid:1;)",
            |options| {
                options.effects.push(Effect::Tag(tag(of)));
            },
        );
        let mut bench = Bench::new(vec![tagging]);
        let tagged: Vec<bool> = [&b"."[..], b"x", b".", b"."]
            .iter()
            .map(|payload| bench.packet(&udp(payload)).tagged)
            .collect();
        assert_eq!(tagged, [false, false, true, false], "{of:?}");
    }
}

#[test]
fn bypass_is_told() {
    let bypassing = rule(
        "alert udp any any -> any any (content:\"x\"; sid:1;)",
        |options| {
            options.effects.push(Effect::Bypass);
        },
    );
    let mut bench = Bench::new(vec![bypassing]);
    assert!(!bench.packet(&udp(b".")).bypass);
    assert!(bench.packet(&udp(b"x")).bypass);
}

#[test]
fn rules_are_selected_by_numbers_in_headers() {
    let with = |condition: Condition| {
        rule("alert udp any any -> any any (sid:1;)", |options| {
            options.conditions.push(condition);
        })
    };
    for prefilter in prefilters() {
        let mut bench = Bench::with(
            vec![with(Condition::PayloadSize(Compare::Equal(3)))],
            &CompileOptions::with(prefilter),
        );
        assert_eq!(bench.alerts(&udp(b"abc")), [1]);
        assert!(bench.alerts(&udp(b"abcd")).is_empty());
        assert!(bench.alerts(&udp(b"")).is_empty());
    }
}

#[test]
fn what_cannot_be_evaluated_is_refused_and_named() {
    let check = |condition: Condition, keyword: &str| {
        let rule = rule("alert udp any any -> any any (sid:1;)", |options| {
            options.conditions.push(condition);
        });
        let compiled = Engine::compile(vec![rule], &CompileOptions::default()).unwrap();
        assert_eq!(compiled.engine.rule_count(), 0);
        let refused = &compiled.refused[0];
        assert_eq!(
            (refused.signature_id, refused.reason.keyword.as_str()),
            (1, keyword)
        );
        assert!(refused.to_string().contains("1:1"), "{refused}");
    };
    check(
        Condition::GeoIp {
            side: GeoSide::Source,
            countries: vec!["DE".into()],
            negated: false,
        },
        "geoip",
    );
    check(
        Condition::Reputation {
            side: crate::rules::ast::ReputationSide::Any,
            category: "Bad".into(),
            compare: Compare::Greater(1),
        },
        "iprep",
    );
    check(
        Condition::App {
            keyword: "ntp.mode".into(),
            value: "1".into(),
        },
        "ntp.mode",
    );
}

#[test]
fn a_packet_that_takes_too_long_is_let_go_and_counted() {
    // Each rule alone is bounded by its steps; all of them together by the packet's bytes.
    let text: String = (1..=200)
        .map(|sid| {
            format!(
                "alert udp any any -> any any (content:\"a\"; content:\"a\"; within:60000; \
                 content:\"b{sid}\"; within:60000; sid:{sid};)\n"
            )
        })
        .collect();
    let payload = [vec![b'a'; 60_000], b"b".to_vec()].concat();
    let mut bench = Bench::with(rules(&text), &CompileOptions::default());
    let mut packet = Vec::new();
    PacketBuilder::ipv4(A, B, 64)
        .udp(1000, 53)
        .write(&mut packet, &payload)
        .unwrap();
    let started = std::time::Instant::now();
    bench.packet(&packet);
    // In a build without optimisation.
    assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
}

#[test]
fn a_rule_is_asked_of_each_transaction_and_matches_once_in_it() {
    let text = "alert dns any any -> any any (dns.query; content:\"two\"; sid:1;)\n\
                alert dns any any -> any any (dns.query; content:\"three\"; sid:2;)\n\
                alert dns any any -> any any (dns.query; dotprefix; content:\".one.\"; sid:3;)\n\
                alert udp any any -> any any (dns.query; content:!\"one\"; sid:4;)\n\
                alert udp any any -> any any (dns.answers.rrname; content:\"one\"; sid:5;)\n\
                alert dns any any -> any any (dns.opcode:0; dns.rrtype:AAAA; sid:6;)\n";
    let mut bench = Bench::new(rules(text));
    assert!(bench.alerts(&udp(b"x")).is_empty());
    let mut message = vec![0, 1, 1, 0, 0, 2, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(b"\x03one\x07example\0\0\x01\0\x01");
    message.extend_from_slice(b"\x03two\x07example\0\0\x1c\0\x01");
    bench.hears(&message);
    assert_eq!(bench.alerts(&udp(b"x")), [1, 3, 4, 6]);
    // Nothing has come of it since.
    assert!(bench.alerts(&udp(b"x")).is_empty());
    bench.hears(&message);
    assert_eq!(bench.alerts(&udp(b"x")), [1, 3, 4, 6]);
    // In the other direction there is nothing of it.
    bench.hears(&message);
    bench.direction = PacketDirection::ToClient;
    assert!(bench.alerts(&udp(b"x")).is_empty());
}

#[test]
fn transactions_are_searched_for_rules_of_their_protocol_only() {
    let text = "alert http any any -> any any (http.uri; content:\"a\"; sid:1;)\n\
                alert tcp any any -> any any (http.method; content:\"b\"; sid:2;)\n\
                alert dns any any -> any any (dns.query; content:\"c\"; sid:3;)\n\
                alert tcp any any -> any any (tls.sni; content:\"d\"; sid:4;)\n";
    let engine = engine(rules(text), &CompileOptions::default());
    let [[tcp, _], [udp, _]] = &engine.app;
    let scans = |groups: &[AppGroup]| {
        let counts = groups.iter().map(|it| it.scans().count());
        let named = AppProtocol::ALL.iter().zip(counts);
        let mut named: Vec<_> = named.filter(|it| it.1 > 0).collect();
        named.sort_unstable();
        named
    };
    use AppProtocol::{Dns, Http1, Tls};
    assert_eq!(scans(tcp), [(&Dns, 1), (&Http1, 2), (&Tls, 1)]);
    assert_eq!(scans(udp), [(&Dns, 1)]);
}

#[test]
fn rules_about_a_protocol_alone_match_once_in_each_direction() {
    let text = "alert udp any any -> any any (app-layer-protocol:dns; sid:2;)\n\
                alert udp any any -> any any (app-layer-protocol:!dns; sid:3;)\n\
                alert udp any any -> any any (app-layer-protocol:failed; sid:4;)\n\
                alert udp any any -> any any (app-layer-protocol:unknown; sid:5;)\n";
    let mut bench = Bench::new(rules(text));
    assert_eq!(bench.alerts(&udp(b"x")), [5]);
    assert_eq!(bench.alerts(&udp(b"x")), [5]);
    bench.app = AppLayer::Failed;
    assert_eq!(bench.alerts(&udp(b"x")), [3, 4]);
    assert!(bench.alerts(&udp(b"x")).is_empty());
    bench.direction = PacketDirection::ToClient;
    assert_eq!(bench.alerts(&udp(b"x")), [3, 4]);
}
