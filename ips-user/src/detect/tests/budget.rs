//! No rule and no packet stalls a worker: what takes too long is given up, and counted.

use super::*;

/// The longest that the kernel hands over.
const LONGEST: usize = 65_000;

/// So many times the same rule, then one that asks for `needle`.
fn engine_of(options: &str, times: u32) -> Bench {
    let mut text = String::new();
    for sid in 1..=times {
        text.push_str(&format!(
            "alert tcp any any -> any any ({options} sid:{sid};)\n"
        ));
    }
    text.push_str("alert tcp any any -> any any (content:\"needle\"; sid:9999;)\n");
    Bench::new(rules(&text))
}

/// A packet on which that takes too long.
fn packet() -> Vec<u8> {
    let mut payload = vec![b'a'; LONGEST - 6];
    payload.extend(b"needle");
    tcp(&payload)
}

#[track_caller]
fn check_given_up(options: &str) {
    let mut bench = engine_of(options, 1);
    let out = bench.packet(&packet());
    assert_eq!(out.given_up, 1, "{options}");
    // It costs the others nothing.
    assert_eq!(
        (out.alerts, out.out_of_time),
        (vec![9999], false),
        "{options}"
    );
}

#[track_caller]
fn check_out_of_time(options: &str) {
    let mut bench = engine_of(options, 500);
    let out = bench.packet(&packet());
    assert!(out.out_of_time, "{options}");
    assert!(
        (1..500).contains(&out.given_up),
        "{options}: {}",
        out.given_up
    );
    // The next packet has time of its own.
    let out = bench.packet(&tcp(b"needle"));
    assert_eq!(
        (out.alerts, out.out_of_time),
        (vec![9999], false),
        "{options}"
    );
}

/// Exponential at one place; quadratic over all places, at each of which it is harmless.
const PCRES: [&str; 3] = [
    r#"content:"a"; pcre:"/(a+)+\1[b-d]/";"#,
    r#"content:"a"; pcre:"/a.*(?=b)n/";"#,
    r#"content:"a"; pcre:"/(?:a|aa)+(?=b)n/";"#,
];

#[test]
fn a_search_that_backtracks_is_given_up_and_the_other_rules_are_asked() {
    for options in PCRES {
        check_given_up(options);
    }
}

#[test]
fn many_searches_that_backtrack_use_up_the_packets_time() {
    for options in PCRES {
        check_out_of_time(options);
    }
    // Also without a bound of its own.
    check_out_of_time(r#"content:"a"; pcre:"/(?:a|aa)+(?=b)n/O";"#);
}

#[test]
fn retries_from_every_occurrence_use_up_the_packets_time() {
    for options in [
        r#"content:"a"; content:"a"; within:500; content:"a"; within:500; content:"b"; within:9;"#,
        r#"content:"a"; pcre:"/a(?=a)/R"; content:"b"; within:3;"#,
        r#"content:"a"; base64_decode:relative; base64_data; content:"zz";"#,
        r#"content:"a"; byte_extract:1,0,n,relative; content:"a"; offset:n; content:"b"; within:n;"#,
    ] {
        check_out_of_time(options);
    }
}

#[test]
fn what_an_application_has_said_is_asked_later_when_there_was_no_time() {
    let mut text = String::new();
    for sid in 1..=500 {
        let options = PCRES[2];
        text.push_str(&format!(
            "alert udp any any -> any any ({options} sid:{sid};)\n"
        ));
    }
    text.push_str("alert dns any any -> any any (dns.query; content:\"one\"; sid:9999;)\n");
    let mut bench = Bench::new(rules(&text));
    bench.hears(b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x03one\0\0\x01\0\x01");
    let mut payload = vec![b'a'; LONGEST - 6];
    payload.extend(b"needle");
    let out = bench.packet(&udp(&payload));
    assert!(out.out_of_time);
    assert!(!out.alerts.contains(&9999));
    assert_eq!(bench.alerts(&udp(b"x")), [9999]);
    assert!(bench.alerts(&udp(b"x")).is_empty());
}
