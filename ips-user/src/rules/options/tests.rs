//! Keywords and what they become.

use super::super::ast::*;
use super::super::{Diagnostic, RuleSet, RuleSource, Severity};

fn set() -> RuleSet {
    RuleSet {
        supported: |_| Ok(()),
        ..RuleSet::default()
    }
}

fn read(options: &str) -> Options {
    let text = format!("alert ip any any -> any any ({options} sid:1;)");
    let mut loaded = set().load_sources(&[RuleSource::new("t", text.into())]);
    let told: Vec<String> = loaded.diagnostics.iter().map(Diagnostic::render).collect();
    assert_eq!(loaded.rules.len(), 1, "{options}\n{}", told.concat());
    loaded.rules.remove(0).options
}

#[track_caller]
fn condition(options: &str, expect: Condition) {
    assert_eq!(read(options).conditions, [expect], "{options}");
}

#[track_caller]
fn effect(options: &str, expect: Effect) {
    assert_eq!(read(options).effects, [expect], "{options}");
}

fn app(keyword: &str, value: &str) -> Condition {
    Condition::App {
        keyword: keyword.into(),
        value: value.into(),
    }
}

#[test]
fn conditions_about_the_packet() {
    use Condition as C;
    condition("ttl:64;", C::Ttl(Compare::Equal(64)));
    condition("ttl:<5;", C::Ttl(Compare::Less(5)));
    condition("tos:!8;", C::Tos(Compare::NotEqual(8)));
    condition("tos:x0C;", C::Tos(Compare::Equal(12)));
    condition("id:31337;", C::IpId(31337));
    condition("ipopts:lsrr;", C::IpOption(IpOption::Number(131)));
    condition("ipopts:any;", C::IpOption(IpOption::Any));
    let fragbits = |modifier, bits| C::FragBits { modifier, bits };
    condition("fragbits:M;", fragbits(BitModifier::Exactly, 0x2000));
    condition("fragbits:+DR;", fragbits(BitModifier::All, 0xc000));
    condition("fragbits:!M;", fragbits(BitModifier::Not, 0x2000));
    condition("fragoffset:>0;", C::FragOffset(Compare::Greater(0)));
    condition("ip_proto:PIM;", C::IpProtocol(Compare::Equal(103)));
    condition("ip_proto:!6;", C::IpProtocol(Compare::NotEqual(6)));
    condition("l3_proto:ipv6;", C::IpVersion(6));
    condition("sameip;", C::SameIp);
    let flags = |modifier, flags, ignored| {
        C::TcpFlags(TcpFlags {
            modifier,
            flags,
            ignored,
        })
    };
    condition("flags:S;", flags(BitModifier::Exactly, 2, 0));
    condition("tcp.flags:S,12;", flags(BitModifier::Exactly, 2, 0xc0));
    condition("flags:SA+,CE;", flags(BitModifier::All, 0x12, 0xc0));
    condition("flags:*FPU;", flags(BitModifier::Any, 0x29, 0));
    condition("flags:!A;", flags(BitModifier::Not, 0x10, 0));
    condition("flags:0;", flags(BitModifier::Exactly, 0, 0));
    condition("seq:0;", C::Seq(0));
    condition("tcp.seq:4294967295;", C::Seq(u32::MAX));
    condition("ack:1;", C::Ack(1));
    condition("tcp.ack:0x10;", C::Ack(16));
    let window = |negated, value| C::Window { negated, value };
    condition("window:55808;", window(false, 55808));
    condition("tcp.window:!0;", window(true, 0));
    condition("tcp.mss:<536;", C::TcpMss(Compare::Less(536)));
    condition("tcp.wscale:>10;", C::TcpWscale(Compare::Greater(10)));
    condition("itype:7<>20;", C::IcmpType(Compare::Between(7, 20)));
    condition("itype: <= 8;", C::IcmpType(Compare::AtMost(8)));
    condition("icode:0;", C::IcmpCode(Compare::Equal(0)));
    condition("icmp_id:\"300\";", C::IcmpId(300));
    condition("icmp_seq:5000;", C::IcmpSeq(5000));
    condition("icmpv6.mtu:<1280;", C::Icmpv6Mtu(Compare::Less(1280)));
    condition("igmp.type:0x11;", C::IgmpType(Compare::Equal(17)));
    condition(
        "dsize:100<>200;",
        C::PayloadSize(Compare::Between(100, 200)),
    );
    let vlan = |layer, compare| C::VlanId { layer, compare };
    condition("vlan.id:300;", vlan(None, Compare::Equal(300)));
    let last = Some(VlanLayer::At(-1));
    condition("vlan.id:!0x12C,-1;", vlan(last, Compare::NotEqual(300)));
    let all = Some(VlanLayer::All);
    condition("vlan.id:>100,all;", vlan(all, Compare::Greater(100)));
    condition("vlan.layers:2;", C::VlanLayers(Compare::Equal(2)));
    let checksum = |of, valid| C::Checksum { of, valid };
    condition("ipv4-csum:invalid;", checksum(ChecksumOf::Ipv4, false));
    condition("tcpv6-csum:valid;", checksum(ChecksumOf::Tcpv6, true));
    let rpc = C::Rpc {
        program: 100_009,
        version: None,
        procedure: Some(3),
    };
    condition("rpc:100009,*,3;", rpc);
}

#[test]
fn conditions_about_the_flow() {
    use Condition as C;
    let flow = |text: &str, expect: FlowCondition| condition(text, C::Flow(expect));
    let none = FlowCondition::default();
    flow(
        "flow:established,from_client;",
        FlowCondition {
            to_server: Some(true),
            established: Some(true),
            ..none
        },
    );
    flow(
        "flow: to_client , not_established, no_frag;",
        FlowCondition {
            to_server: Some(false),
            established: Some(false),
            fragment: Some(false),
            ..none
        },
    );
    flow(
        "flow:stateless,only_stream;",
        FlowCondition {
            stateless: true,
            stream: Some(true),
            ..none
        },
    );
    let bits = |set, names: &[&str]| C::FlowBits {
        set,
        any_of: names.iter().map(|name| (*name).to_owned()).collect(),
    };
    condition("flowbits:isset,a|b;", bits(true, &["a", "b"]));
    condition("flowbits: isnotset, a;", bits(false, &["a"]));
    let int = |asked| C::FlowInt {
        name: "n".into(),
        asked,
    };
    condition("flowint:n,notset;", int(FlowIntAsked::IsNotSet));
    let compare = |operator, with| FlowIntAsked::Compare { operator, with };
    condition(
        "flowint: n, >=, 10;",
        int(compare(FlowIntOperator::AtLeast, FlowIntValue::Literal(10))),
    );
    condition(
        "flowint:n,==,m;",
        int(compare(
            FlowIntOperator::Equal,
            FlowIntValue::Variable("m".into()),
        )),
    );
    let host = |set, track| C::HostBits {
        set,
        name: "x".into(),
        track,
    };
    condition("xbits:isset,x,track ip_pair;", host(true, Track::Pair));
    condition("hostbits:isnotset,x,dst;", host(false, Track::Destination));
    let size = |side, compare| C::StreamSize { side, compare };
    condition(
        "stream_size:either,>=,100;",
        size(StreamSide::Either, Compare::AtLeast(100)),
    );
    condition("flow.age:>3600;", C::FlowAge(Compare::Greater(3600)));
    let packets = |side, compare| C::FlowPackets { side, compare };
    condition(
        "flow.pkts_toclient:10;",
        packets(StreamSide::Server, Compare::Equal(10)),
    );
    condition(
        "flow.pkts:toserver,=10;",
        packets(StreamSide::Client, Compare::Equal(10)),
    );
    let bytes = |side, compare| C::FlowBytes { side, compare };
    condition(
        "flow.bytes:both,<2kb;",
        bytes(StreamSide::Both, Compare::Less(2048)),
    );
    let variable = C::Variable {
        scope: CaptureScope::Flow,
        name: "v".into(),
        negated: false,
        value: b"a\0".to_vec(),
    };
    condition("flowvar:v,\"a|00|\";", variable);
}

#[test]
fn conditions_about_events_protocols_and_lists() {
    use Condition as C;
    let event = |kind, name: &str| C::Event {
        kind,
        name: name.into(),
    };
    condition(
        "decode-event:ipv4.pkt_too_small;",
        event(EventKind::Decode, "ipv4.pkt_too_small"),
    );
    condition(
        "stream-event:3whs_synack_with_wrong_ack;",
        event(EventKind::Stream, "3whs_synack_with_wrong_ack"),
    );
    condition(
        "app-layer-event:http.bad;",
        event(EventKind::App, "http.bad"),
    );
    let protocol = |negated, name: &str, mode| C::AppProtocol {
        negated,
        name: name.into(),
        mode,
    };
    condition(
        "app-layer-protocol:!ssl,either;",
        protocol(true, "tls", AppProtocolMode::Either),
    );
    condition(
        "app-layer-protocol:failed;",
        protocol(false, "failed", AppProtocolMode::Direction),
    );
    condition("dns.opcode:!0;", app("dns.opcode", "!0"));
    condition("tls_cert_expired;", app("tls_cert_expired", ""));
    condition(
        "filesize:to_client, <100;",
        app("filesize", "to_client, <100"),
    );
    condition("websocket.opcode:text;", app("websocket.opcode", "text"));
    let rep = |compare| C::Reputation {
        side: ReputationSide::Destination,
        category: "CnC".into(),
        compare,
    };
    condition("iprep:dst,CnC,>,30;", rep(Compare::Greater(30)));
    condition("iprep:dst,CnC,isnotset;", rep(Compare::Equal(0)));
    let geo = |side, countries: &[&str], negated| C::GeoIp {
        side,
        countries: countries.iter().map(|code| (*code).to_owned()).collect(),
        negated,
    };
    condition(
        "geoip:both,cn,RU;",
        geo(GeoSide::Both, &["CN", "RU"], false),
    );
    condition("geoip:src,!US;", geo(GeoSide::Source, &["US"], true));
}

#[test]
fn effects() {
    let bits = |change, names: &[&str]| Effect::FlowBits {
        change,
        names: names.iter().map(|name| (*name).to_owned()).collect(),
    };
    effect("flowbits:set,a;", bits(BitChange::Set, &["a"]));
    effect("flowbits:toggle,a;", bits(BitChange::Toggle, &["a"]));
    let int = |change, value| Effect::FlowInt {
        name: "n".into(),
        change,
        value,
    };
    effect(
        "flowint:n,+,1;",
        int(FlowIntChange::Add, FlowIntValue::Literal(1)),
    );
    effect(
        "flowint:n,=,m;",
        int(FlowIntChange::Set, FlowIntValue::Variable("m".into())),
    );
    let host = |change, track, expire| Effect::HostBits {
        change,
        name: "x".into(),
        track,
        expire,
    };
    effect(
        "xbits:set, x, track ip_src, expire 3600;",
        host(BitChange::Set, Track::Source, Some(3600)),
    );
    effect(
        "hostbits:unset,x;",
        host(BitChange::Unset, Track::Source, None),
    );
    let tag = |of, amount, unit| Effect::Tag(Tag { of, amount, unit });
    effect("tag:session;", tag(TagOf::Session, 256, TagUnit::Packets));
    effect(
        "tag:host,3600,seconds,src;",
        tag(TagOf::SourceHost, 3600, TagUnit::Seconds),
    );
    effect("bypass;", Effect::Bypass);
    let mark = Effect::SetMark {
        value: 2,
        mask: 0xff,
    };
    effect("nfq_set_mark:0x2/0xff;", mark);
    let config = "logging disable, type tx, scope tx";
    let changed = Effect::Config {
        options: config.into(),
    };
    effect(&format!("config:{config};"), changed);
    effect(
        "filestore;",
        Effect::FileStore {
            options: String::new(),
        },
    );
    assert!(read("flowbits:noalert;").no_alert);
    assert!(read("alert;").alert);
    assert_eq!(read("target:dest_ip;").target, Some(Target::Destination));
}

#[test]
fn thresholds() {
    let check = |options: &str, kind, track, count, seconds| {
        let expect = Threshold {
            kind,
            track,
            count,
            seconds,
        };
        assert_eq!(read(options).threshold, Some(expect), "{options}");
    };
    check(
        "threshold:type limit, track by_src, seconds 60, count 1;",
        ThresholdKind::Limit,
        Track::Source,
        1,
        60,
    );
    check(
        "threshold:type backoff,track by_flow,count 1,multiplier 10;",
        ThresholdKind::Backoff { multiplier: 10 },
        Track::Flow,
        1,
        0,
    );
    check(
        "detection_filter:track by_both,count 15,seconds 2;",
        ThresholdKind::DetectionFilter,
        Track::Both,
        15,
        2,
    );
}

/// The sections of a rule in short: buffer, transforms, matches.
fn shape(options: &str) -> Vec<(&'static str, Vec<&'static str>, Vec<&'static str>)> {
    let options = read(options);
    let sections = options.sections.iter();
    sections
        .map(|section| {
            (
                section.buffer.name(),
                section.transforms.iter().map(Transform::keyword).collect(),
                section.matches.iter().map(Match::keyword).collect(),
            )
        })
        .collect()
}

#[test]
fn matches_go_to_the_buffer_that_they_are_about() {
    let check = |options: &str, expect: &[(&'static str, &[&'static str], &[&'static str])]| {
        let expect: Vec<_> = expect
            .iter()
            .map(|(buffer, transforms, matches)| (*buffer, transforms.to_vec(), matches.to_vec()))
            .collect();
        assert_eq!(shape(options), expect, "{options}");
    };
    let content: &[&str] = &["content"];
    check("content:\"a\";", &[("pkt_data", &[], content)]);
    check(
        "http.uri; content:\"a\"; http.method; content:\"b\"; http.uri; content:\"c\";",
        &[
            ("http.uri", &[], &["content", "content"]),
            ("http.method", &[], content),
        ],
    );
    check(
        "file_data; content:\"a\"; pkt_data; content:\"b\";",
        &[("file.data", &[], content), ("pkt_data", &[], content)],
    );
    check(
        "content:\"a\"; http_uri; content:\"b\"; http_header; nocase; content:\"c\"; distance:0; http_uri;",
        &[
            ("http.uri", &[], &["content", "content"]),
            ("http.header", &[], content),
        ],
    );
    check(
        "uricontent:\"a\"; urilen:<70; urilen:5,raw;",
        &[
            ("http.uri", &[], &["content", "bsize"]),
            ("http.uri.raw", &[], &["bsize"]),
        ],
    );
    check(
        "dns.query; content:\"a\"; dns.query; content:\"b\";",
        &[("dns.query", &[], content), ("dns.query", &[], content)],
    );
    check(
        "http.uri; content:\"a\"; from_base64:offset 6; gunzip:max-size 8; content:\"b\";",
        &[
            ("http.uri", &[], content),
            ("http.uri", &["from_base64", "gunzip"], content),
        ],
    );
    check(
        "dns_query; to_lowercase; to_md5; dataset:isset,x;",
        &[("dns.query", &["to_lowercase", "to_md5"], &["dataset"])],
    );
    check(
        "pcre:\"/a/U\"; pcre:\"/b/\";",
        &[("http.uri", &[], &["pcre"]), ("pkt_data", &[], &["pcre"])],
    );
    check(
        "pcre:/a\\.b/I; content:!\"c\"; within:5; http_raw_uri;",
        &[("http.uri.raw", &[], &["pcre", "content"])],
    );
    check(
        "content:\"a\"; http_uri; isdataat:5,relative; byte_test:1,>,2,0,relative;",
        &[("http.uri", &[], &["content", "isdataat", "byte_test"])],
    );
    check(
        "content:\"x\"; base64_decode:bytes 8,offset 1,relative; base64_data; content:\"a\";",
        &[
            ("pkt_data", &[], &["content", "base64_decode"]),
            ("base64_data", &[], content),
        ],
    );
    check(
        "ipv4.hdr; content:\"|06|\"; offset:9; depth:1; tcp.hdr; content:\"|02 04|\"; offset:20; \
         byte_test:2,<,536,0,big,relative;",
        &[
            ("ipv4.hdr", &[], content),
            ("tcp.hdr", &[], &["content", "byte_test"]),
        ],
    );
    check(
        "ip.src; dataset:isset,bad, type ip, load bad.lst; http.referer; absent:or_else; content:!\"a\";",
        &[
            ("ip.src", &[], &["dataset"]),
            ("http.referer", &[], &["absent", "content"]),
        ],
    );
    check(
        "file.data; entropy:value >= 7.5; asn1:oversize_length 500;",
        &[("file.data", &[], &["entropy", "asn1"])],
    );
}

fn first_match(options: &str) -> Match {
    let mut options = read(options);
    let matches = &mut options.sections.last_mut().unwrap().matches;
    matches.pop().unwrap()
}

#[test]
fn numbers_in_bytes() {
    let field = |bytes, offset, relative, encoding| Field {
        bytes: Value::Literal(bytes),
        offset: Value::Literal(offset),
        relative,
        encoding,
        bitmask: None,
    };
    let check =
        |options: &str, expect: Match| assert_eq!(first_match(options), expect, "{options}");
    check(
        "byte_test:2,!>,0x10,4,relative,little;",
        Match::ByteTest(ByteTest {
            field: field(2, 4, true, Encoding::LittleEndian),
            negated: true,
            operator: TestOperator::Greater,
            value: Value::Literal(16),
        }),
    );
    check(
        "byte_test:1,=,0x07,0,bitmask 0xF8;",
        Match::ByteTest(ByteTest {
            field: Field {
                bitmask: Some(0xf8),
                ..field(1, 0, false, Encoding::BigEndian)
            },
            negated: false,
            operator: TestOperator::Equal,
            value: Value::Literal(7),
        }),
    );
    check(
        "byte_extract:2,0,len,string,dec; byte_test:4,<,len,-1,string,hex;",
        Match::ByteTest(ByteTest {
            field: field(4, -1, false, Encoding::Hexadecimal),
            negated: false,
            operator: TestOperator::Less,
            value: Value::Variable(Variable(0)),
        }),
    );
    check(
        "byte_jump:0,0,from_end,post_offset -8;",
        Match::ByteJump(ByteJump {
            field: field(0, 0, false, Encoding::BigEndian),
            multiplier: 1,
            align: false,
            from: JumpFrom::End,
            post_offset: Value::Literal(-8),
        }),
    );
    check(
        "byte_jump:4,2,relative,multiplier 2,align,dce,from_beginning;",
        Match::ByteJump(ByteJump {
            field: field(4, 2, true, Encoding::Dce),
            multiplier: 2,
            align: true,
            from: JumpFrom::Beginning,
            post_offset: Value::Literal(0),
        }),
    );
    check(
        "byte_extract:1, 2, x, relative, multiplier 3, align 4;",
        Match::ByteExtract(ByteExtract {
            field: field(1, 2, true, Encoding::BigEndian),
            multiplier: 3,
            align: Some(4),
            result: Variable(0),
        }),
    );
    check(
        "byte_extract:1,0,a; byte_math:bytes 1, offset 1, oper <<, rvalue a, result b, endian little;",
        Match::ByteMath(ByteMath {
            field: field(1, 1, false, Encoding::LittleEndian),
            operator: MathOperator::ShiftLeft,
            operand: Value::Variable(Variable(0)),
            result: Variable(1),
        }),
    );
    check(
        "isdataat:!10,relative;",
        Match::IsDataAt(IsDataAt {
            position: Value::Literal(10),
            negated: true,
            relative: true,
        }),
    );
}

#[test]
fn contents_and_their_places() {
    let Match::Content(content) = first_match(
        "byte_extract:1,0,n; content:\"a\"; content:!\"bcd\"; nocase; distance:n; within:9;",
    ) else {
        panic!("no content");
    };
    assert!(content.negated && content.nocase);
    let expect = Position::Relative {
        distance: Value::Variable(Variable(0)),
        within: Some(Value::Literal(9)),
    };
    assert_eq!(content.position, expect);
    let Match::Content(content) = first_match(
        "content:\"abcd\"; startswith; endswith; fast_pattern:1,2; replace:\"|00|xyz\";",
    ) else {
        panic!("no content");
    };
    assert!(content.at_start && content.at_end);
    let chop = FastPattern::Chop {
        offset: 1,
        length: 2,
    };
    assert_eq!(content.fast_pattern, Some(chop));
    assert_eq!(content.replacement.as_deref(), Some(&b"\0xyz"[..]));
    let Match::Pcre(pcre) = first_match("pcre:!\"/^(.*)\\/(\\d+)/smiR,flow:key,pkt:value\";")
    else {
        panic!("no pcre");
    };
    assert!(pcre.negated && pcre.relative && pcre.caseless && pcre.multi_line && pcre.dot_all);
    let scopes: Vec<_> = pcre
        .captures
        .iter()
        .map(|c| (c.scope, c.name.as_str()))
        .collect();
    let expect = [(CaptureScope::Flow, "key"), (CaptureScope::Packet, "value")];
    assert_eq!(scopes, expect);
    let read = |text| match first_match(text) {
        Match::Dataset(set) => set,
        other => panic!("{other:?}"),
    };
    let set = read("http.host; dataset:set,seen,type string,state seen.csv,memcap 10mb;");
    assert_eq!(set.save.as_deref(), Some("seen.csv"));
    assert_eq!(
        (set.load.as_deref(), set.memcap),
        (Some("seen.csv"), Some(10 << 20))
    );
    let set = read("dns.query; to_md5; datarep:bad, >, 200, load bad.rep, type md5;");
    let expect = DatasetCommand::Reputation(Compare::Greater(200));
    assert_eq!((set.command, set.kind), (expect, DatasetKind::Md5));
}

#[test]
fn prefilter_marks_the_match_or_condition_before_it() {
    assert_eq!(
        read("dsize:1; ttl:2; prefilter; content:\"a\";").prefilter,
        Some(PrefilterBy::Condition(1))
    );
    let options = read("http.method; content:\"a\"; http.uri; content:\"b\"; prefilter;");
    let expect = PrefilterBy::Match {
        section: 1,
        index: 0,
    };
    assert_eq!(options.prefilter, Some(expect));
}

#[test]
fn events_that_there_are_not_are_told_with_the_nearest_one() {
    for (option, said, help) in [
        (
            "decode-event:ipv4.pkt_to_small;",
            "no decoder event",
            "`ipv4.pkt_too_small`",
        ),
        (
            "stream-event:est_syn_resent;",
            "no stream event",
            "`est_syn_resend`",
        ),
    ] {
        let text = format!("alert ip any any -> any any ({option} sid:1;)");
        let loaded = set().load_sources(&[RuleSource::new("t", text.into())]);
        let [found] = &loaded.diagnostics[..] else {
            panic!("{option}: {:?}", loaded.diagnostics);
        };
        assert!(found.message.contains(said), "{}", found.render());
        assert!(found.help.as_ref().is_some_and(|it| it.contains(help)));
    }
}

/// Every mistake in two files: a line each, told in one run with its place and what is right.
#[test]
fn forty_mistakes_of_a_file_are_forty_diagnostics() {
    for name in ["mistakes-syntax.rules", "mistakes-meaning.rules"] {
        let path = format!("{}/src/rules/tests/{name}", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read(&path).unwrap();
        let lines = String::from_utf8(text.clone()).unwrap();
        let loaded = set().load_sources(&[RuleSource::new(name, text)]);
        let told: Vec<String> = loaded.diagnostics.iter().map(Diagnostic::render).collect();
        assert_eq!(told.len(), 40, "{}", told.concat());
        assert!(loaded.rules.is_empty());
        let mut diagnostics = loaded.diagnostics.iter();
        for (number, line) in lines.lines().enumerate() {
            // `#~ …^` under a rule: where the mistake in it is, and a word of the message.
            let Some(mark) = line.strip_prefix("#~") else {
                continue;
            };
            let found = diagnostics.next().unwrap();
            let column = mark.find('^').unwrap() + 3;
            let message = mark[mark.find('^').unwrap() + 1..].trim();
            let place = (found.line, found.column);
            assert_eq!(place, (number, column), "{}", found.render());
            assert!(
                found.message.contains(message),
                "{message}: {}",
                found.render()
            );
            assert_eq!(found.severity, Severity::Error);
            assert!(found.help.is_some(), "{}", found.render());
        }
        assert!(diagnostics.next().is_none());
    }
}
