use super::record::fields;
use super::*;
use crate::app::{Content as _, Part};
use crate::rules::ast::AppBuffer;

use PacketDirection::{ToClient, ToServer};

/// Header, one question for an address, no records.
fn query(name: &[u8]) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(name);
    message.extend_from_slice(&[0, 1, 0, 1]);
    message
}

fn parse(direction: PacketDirection, bytes: &[u8]) -> (Message, Vec<&'static str>) {
    Message::parse(direction, bytes).expect("a header")
}

fn name(message: &Message, which: AppBuffer, number: usize) -> Option<String> {
    let direction = if message.is_response() {
        ToClient
    } else {
        ToServer
    };
    match message.part(direction, which, number) {
        Part::Bytes { data, .. } => Some(String::from_utf8_lossy(data).into_owned()),
        _ => None,
    }
}

#[test]
fn a_response_is_read_with_what_its_names_point_to() {
    let mut bytes = query(b"\x03www\x07example\x03org\0");
    bytes[2..4].copy_from_slice(&[0x81, 0x80]);
    bytes[6..8].copy_from_slice(&2u16.to_be_bytes());
    // An alias of a name that the alias points into, and its address.
    bytes.extend_from_slice(b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x06\x03cdn\xc0\x10");
    bytes.extend_from_slice(b"\xc0\x2d\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01");
    let (message, events) = parse(ToClient, &bytes);
    assert!(events.is_empty(), "{events:?}");
    assert_eq!(message.answers.len(), 2);
    assert_eq!(message.answers[0].ttl, 60);
    assert_eq!(
        name(&message, AppBuffer::DnsQueryName, 0).unwrap(),
        "www.example.org"
    );
    assert_eq!(
        name(&message, AppBuffer::DnsQuery, 0),
        None,
        "that is of requests"
    );
    let all: Vec<_> = (0..)
        .map_while(|number| name(&message, AppBuffer::DnsResponseRrname, number))
        .collect();
    assert_eq!(
        all,
        [
            "www.example.org",
            "www.example.org",
            "cdn.example.org",
            "cdn.example.org"
        ]
    );
    let shown = fields(&message, 7);
    assert_eq!(shown["answers"][1]["rdata"], "192.0.2.1");
    assert_eq!(shown["grouped"]["CNAME"][0], "cdn.example.org");
    assert_eq!(shown["flags"], "8180");
    assert_eq!(shown["tx_id"], 7);
}

#[test]
fn what_is_wrong_with_a_message_is_an_event_and_the_rest_stands() {
    for (direction, bytes, expected) in [
        (ToServer, query(b"\x03www\0"), vec![]),
        (ToClient, query(b"\x03www\0"), vec!["not_response"]),
        (ToServer, query(b"\x03www"), vec!["malformed_data"]),
        // It points to itself.
        (
            ToServer,
            query(b"\xc0\x0c"),
            vec!["infinite_loop", "malformed_data"],
        ),
        // It has no end.
        (ToServer, query(&b"\x3f".repeat(64)), vec!["malformed_data"]),
    ] {
        let (_, events) = parse(direction, &bytes);
        assert_eq!(events, expected, "{bytes:x?}");
    }
    let mut long = Vec::new();
    for _ in 0..20 {
        long.push(63);
        long.extend_from_slice(&[b'a'; 63]);
    }
    long.push(0);
    let (message, events) = parse(ToServer, &query(&long));
    assert_eq!(events, ["name_too_long"]);
    assert_eq!(message.questions[0].name.bytes.len(), 1025);
    assert!(Message::parse(ToServer, &[0; 11]).is_none());
}

#[test]
fn a_stream_is_taken_message_by_message() {
    let message = query(b"\x03www\0");
    let mut stream = Vec::new();
    for _ in 0..2 {
        stream.extend_from_slice(&(message.len() as u16).to_be_bytes());
        stream.extend_from_slice(&message);
    }
    for cut in 0..stream.len() {
        let mut parser = Parser::default();
        let mut found = Vec::new();
        let Taken::Bytes(taken) = parser.stream(ToServer, &stream[..cut], &mut found) else {
            panic!("it goes on");
        };
        assert_eq!(found.len(), usize::from(cut >= stream.len() / 2), "{cut}");
        let rest = parser.stream(ToServer, &stream[taken..], &mut found);
        assert_eq!(rest, Taken::Bytes(stream.len() - taken));
        assert_eq!(found.len(), 2);
        assert_eq!(found[1].id, 1);
    }
}

#[test]
fn messages_are_told_from_other_bytes_on_any_port() {
    let message = query(b"\x03www\x07example\0");
    assert_eq!(begins(ToServer, &message, true), Some(true));
    assert_eq!(begins(ToClient, &message, true), Some(false));
    assert_eq!(begins(ToServer, &message[..20], true), Some(false));
    assert_eq!(begins(ToServer, &message[..11], true), None);
    assert_eq!(
        begins(ToServer, b"GET / HTTP/1.0\r\n\r\n", false),
        Some(false)
    );
    for zeros in 0..100 {
        assert_ne!(begins(ToServer, &vec![0; zeros], true), Some(true));
    }
}

/// A response about a long name with so many records of that name, each an alias for it.
fn aliases(count: u16) -> Vec<u8> {
    let mut name = Vec::new();
    for _ in 0..15 {
        name.push(63);
        name.extend_from_slice(&[b'a'; 63]);
    }
    name.push(0);
    let mut bytes = query(&name);
    bytes[2] = 0x80;
    bytes[6..8].copy_from_slice(&count.to_be_bytes());
    for _ in 0..count {
        bytes.extend_from_slice(b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x02\xc0\x0c");
    }
    bytes
}

#[test]
fn names_that_become_too_long_together_end_a_message() {
    let (message, events) = parse(ToClient, &aliases(100));
    assert!(events.is_empty());
    assert_eq!(message.answers.len(), 100);
    let bytes = aliases(4000);
    assert!(bytes.len() < 1 << 16);
    let (message, events) = parse(ToClient, &bytes);
    assert_eq!(events, ["malformed_data"]);
    assert!(message.limited);
    assert!(message.taken() < 400 << 10, "{}", message.taken());
    let many = message.answers.len();
    let shown = fields(&message, 0);
    let left_out = shown["records_left_out"].as_u64().unwrap() as usize;
    assert_eq!(shown["answers"].as_array().unwrap().len() + left_out, many);
    assert!(shown.to_string().len() < 256 << 10);
}

#[test]
fn texts_and_records_without_content_are_bounded() {
    let mut bytes = query(b"\0");
    bytes[2] = 0x80;
    let (mut texts, mut records) = (bytes.clone(), bytes);
    texts[7] = 1;
    texts.extend_from_slice(b"\0\0\x10\0\x01\0\0\0\x3c\xf0\0");
    texts.extend_from_slice(&[0; 0xf000]);
    let (message, events) = parse(ToClient, &texts);
    assert_eq!(events, ["malformed_data"]);
    assert!(message.taken() < 1 << 12);
    records[6..8].copy_from_slice(&5000u16.to_be_bytes());
    records.extend_from_slice(&b"\0\0\x01\0\x01\0\0\0\x3c\0\0".repeat(5000));
    let (message, events) = parse(ToClient, &records);
    assert_eq!(events, ["malformed_data"]);
    assert_eq!(message.answers.len(), 4096);
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>, cut: u8) {
        for direction in PacketDirection::ALL {
            if let Some((message, _)) = Message::parse(direction, &bytes) {
                fields(&message, 0);
            }
            begins(direction, &bytes, cut % 2 == 0);
            begins_stream(direction, &bytes, cut % 2 == 0);
        }
        let mut found = Vec::new();
        Parser::default().stream(ToServer, &bytes, &mut found);
    }
}

#[test]
fn of_a_question_the_second_version_shows_no_records() {
    let mut bytes = query(b"\x01a\0");
    bytes[5] = 200;
    bytes[7] = 1;
    for _ in 0..199 {
        bytes.extend_from_slice(b"\x01b\0\0\x01\0\x01");
    }
    bytes.extend_from_slice(b"\x01c\0\0\x01\0\x01\0\0\0\x01\0\x04\x01\x02\x03\x04");
    let (message, _) = parse(ToServer, &bytes);
    assert_eq!((message.questions.len(), message.answers.len()), (200, 1));
    let shown = message.records(0, 2);
    assert_eq!(shown.len(), 64);
    assert!(shown.iter().all(|it| it.get("answers").is_none()));
}
