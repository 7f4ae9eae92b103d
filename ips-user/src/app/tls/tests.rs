use super::*;
use crate::app::Part;
use crate::rules::ast::AppBuffer;

use PacketDirection::{ToClient, ToServer};

/// A number of bytes, and the bytes.
fn counted(width: usize, bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u32).to_be_bytes();
    [&length[4 - width..], bytes].concat()
}

fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &counted(2, data)].concat()
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &counted(3, body)].concat()
}

fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    [&[kind, 3, 1][..], &counted(2, content)].concat()
}

fn client_hello() -> Vec<u8> {
    let name = [&[0][..], &counted(2, b"www.example.org")].concat();
    let protocols = [counted(1, b"h2"), counted(1, b"http/1.1")].concat();
    let extensions = [
        extension(0x0a0a, b""),
        extension(0, &counted(2, &name)),
        extension(10, &counted(2, &[0, 29, 0, 23])),
        extension(11, &counted(1, &[0])),
        extension(13, &counted(2, &[4, 3, 8, 4])),
        extension(16, &counted(2, &protocols)),
        extension(43, &counted(1, &[3, 4, 3, 3])),
    ]
    .concat();
    let body = [
        &[3, 3][..],
        &[7; 32],
        &counted(1, b""),
        &counted(2, &[0x1a, 0x1a, 0x13, 0x01, 0xc0, 0x2f]),
        &counted(1, &[0]),
        &counted(2, &extensions),
    ]
    .concat();
    message(1, &body)
}

fn shown(transaction: &Transaction, direction: PacketDirection, which: AppBuffer) -> String {
    match transaction.part(direction, which, 0) {
        Part::Bytes { data, .. } => String::from_utf8_lossy(data).into_owned(),
        other => format!("{other:?}"),
    }
}

#[test]
fn a_hello_is_read_however_it_is_cut() {
    let hello = client_hello();
    let (first, rest) = hello.split_at(40);
    let stream = [record(22, first), record(22, rest)].concat();
    for size in [1, 3, 60, 1000] {
        let (mut parser, mut found) = (Parser::default(), Vec::new());
        let mut held = Vec::new();
        for chunk in stream.chunks(size) {
            held.extend_from_slice(chunk);
            let Taken::Bytes(taken) = parser.stream(ToServer, &held, &mut found) else {
                panic!("it goes on");
            };
            held.drain(..taken);
        }
        assert!(held.is_empty());
        let [transaction] = &found[..] else {
            panic!("{found:?}");
        };
        assert_eq!(
            shown(transaction, ToServer, AppBuffer::TlsSni),
            "www.example.org"
        );
        assert_eq!(shown(transaction, ToServer, AppBuffer::TlsAlpn), "h2");
        assert_eq!(
            shown(transaction, ToServer, AppBuffer::Ja3String),
            "771,4865-49199,0-10-11-13-16-43,29-23,0"
        );
        let ja4 = shown(transaction, ToServer, AppBuffer::Ja4Hash);
        assert!(ja4.starts_with("t13d0206h2_"), "{ja4}");
        assert_eq!(
            shown(transaction, ToClient, AppBuffer::TlsCertSubject),
            "Pending"
        );
        assert_eq!(transaction.fields()["sni"], "www.example.org");
        assert_eq!(transaction.fields()["version"], "TLS 1.3");
    }
}

#[test]
fn what_is_encrypted_is_not_listened_to() {
    let (mut parser, mut found) = (Parser::default(), Vec::new());
    let encrypted = record(23, &[0; 100]);
    parser.stream(ToServer, &record(22, &client_hello()), &mut found);
    assert_eq!(
        parser.stream(ToServer, &encrypted, &mut found),
        Taken::Bytes(encrypted.len())
    );
    assert!(found[0].way(ToServer).complete && !found[0].is_complete());
    assert_eq!(
        parser.stream(ToClient, &encrypted, &mut found),
        Taken::Ended
    );
    assert!(found[0].is_complete());
    assert_eq!(
        shown(&found[0], ToClient, AppBuffer::TlsCertSubject),
        "Absent"
    );
}

#[test]
fn connections_are_told_from_other_bytes() {
    let hello = record(22, &client_hello());
    assert_eq!(begins(ToServer, &hello), Some(true));
    for cut in 0..6 {
        assert_eq!(begins(ToServer, &hello[..cut]), None, "{cut}");
    }
    assert_eq!(begins(ToServer, b"GET / HTTP/1.0"), Some(false));
    assert_eq!(begins(ToServer, &[22, 3, 1, 0, 0, 0]), Some(false));
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(pieces: Vec<(bool, u8, Vec<u8>)>) {
        let (mut parser, mut found) = (Parser::default(), Vec::new());
        for (to_server, kind, bytes) in &pieces {
            let direction = if *to_server { ToServer } else { ToClient };
            begins(ToServer, bytes);
            let body = message(kind % 17, bytes);
            parser.stream(direction, &record(22, &body), &mut found);
        }
        for transaction in &found {
            transaction.fields();
        }
    }
}

#[test]
fn a_hello_after_a_retry_is_read_and_is_news() {
    let retry = [
        &[3, 3][..],
        &handshake::RETRY,
        &counted(1, b""),
        &[0x13, 0x01, 0],
        &counted(2, &extension(43, &[3, 4])),
    ]
    .concat();
    let retry = record(22, &message(2, &retry));
    let (mut parser, mut found) = (Parser::default(), Vec::new());
    let of = |found: &[Transaction]| match found[0].part(ToServer, AppBuffer::TlsSni, 0) {
        Part::Bytes { data, revision, .. } => (data.to_vec(), revision),
        other => panic!("{other:?}"),
    };
    let first = client_hello();
    parser.stream(ToServer, &record(22, &first), &mut found);
    // Data sent early, which the server does not take.
    parser.stream(ToServer, &record(20, &[1]), &mut found);
    parser.stream(ToServer, &record(23, &[0; 40]), &mut found);
    let before = of(&found);
    assert_eq!(before.0, b"www.example.org");
    parser.stream(ToClient, &retry, &mut found);
    parser.stream(ToClient, &record(20, &[1]), &mut found);
    parser.stream(ToServer, &record(20, &[1]), &mut found);
    let other = b"www.example.com";
    let at = first.windows(15).position(|it| it == b"www.example.org");
    let mut second = first.clone();
    second[at.unwrap()..][..15].copy_from_slice(other);
    found[0].way_mut(ToServer).changed = false;
    parser.stream(ToServer, &record(22, &second), &mut found);
    let after = of(&found);
    assert_eq!(after.0, other);
    assert_ne!(after.1, before.1, "it is searched again");
    assert!(found[0].way(ToServer).changed);
    assert!(!found[0].is_complete());
}

#[test]
fn a_handshake_that_is_over_is_not_begun_again() {
    let (mut parser, mut found) = (Parser::default(), Vec::new());
    parser.stream(ToServer, &record(22, &client_hello()), &mut found);
    assert_eq!(found.len(), 1);
    // Rules and records have seen it all.
    found.clear();
    for direction in PacketDirection::ALL {
        parser.stream(direction, &record(20, &[1]), &mut found);
        parser.stream(direction, &record(22, &[20, 0, 0, 0]), &mut found);
        parser.stream(direction, &record(23, &[0; 40]), &mut found);
        assert!(found.is_empty(), "{found:?}");
    }
}

#[test]
fn a_hello_of_old_is_followed_by_records_of_today() {
    let hello = [
        0x80, 16, 1, 3, 1, 0, 3, 0, 0, 0, 4, 0, 0, 0x39, 0xc1, 0xc2, 0xc3, 0xc4,
    ];
    assert_eq!(begins(ToServer, &hello), Some(true));
    assert_eq!(begins(ToClient, &hello), Some(false));
    let server = record(
        22,
        &message(2, &[&[3, 1][..], &[7; 32], &[0, 0, 0x39, 0]].concat()),
    );
    let (mut parser, mut found) = (Parser::default(), Vec::new());
    let taken = parser.stream(ToServer, &hello[..9], &mut found);
    assert_eq!(taken, Taken::Bytes(0));
    let taken = parser.stream(ToServer, &hello, &mut found);
    assert_eq!(taken, Taken::Bytes(hello.len()));
    let taken = parser.stream(ToClient, &server, &mut found);
    assert_eq!(taken, Taken::Bytes(server.len()));
    assert_eq!(found[0].fields()["version"], "TLSv1");
}

#[test]
fn a_hello_tells_who_has_sent_it() {
    let client = record(22, &client_hello());
    assert_eq!(begins(ToServer, &client), Some(true));
    assert_eq!(begins(ToClient, &client), Some(false));
}

#[test]
fn what_stands_in_front_of_a_hello_does_not_hide_it() {
    let (mut parser, mut found) = (Parser::default(), Vec::new());
    parser.stream(ToServer, &record(20, &[1]), &mut found);
    parser.stream(ToServer, &record(22, &client_hello()), &mut found);
    assert_eq!(
        shown(&found[0], ToServer, AppBuffer::TlsSni),
        "www.example.org"
    );
    // Behind it what follows is encrypted.
    parser.stream(ToServer, &record(20, &[1]), &mut found);
    assert!(found[0].way(ToServer).complete);
}
