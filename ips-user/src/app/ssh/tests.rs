use super::*;
use crate::app::Part;
use crate::rules::ast::AppBuffer;

use PacketDirection::{ToClient, ToServer};

fn exchange() -> Vec<u8> {
    let mut payload = vec![KEX_INIT];
    payload.extend_from_slice(&[9; 16]);
    for list in [
        "kex", "key", "c-enc", "s-enc", "c-mac", "s-mac", "none", "zlib",
    ] {
        payload.extend_from_slice(&(list.len() as u32).to_be_bytes());
        payload.extend_from_slice(list.as_bytes());
    }
    let mut packet = (payload.len() as u32 + 5).to_be_bytes().to_vec();
    packet.push(4);
    packet.extend_from_slice(&payload);
    packet.extend_from_slice(&[0; 4]);
    packet
}

fn shown(transaction: &Transaction, direction: PacketDirection, which: AppBuffer) -> String {
    match transaction.part(direction, which, 0) {
        Part::Bytes { data, .. } => String::from_utf8_lossy(data).into_owned(),
        other => format!("{other:?}"),
    }
}

#[test]
fn versions_and_key_exchange_are_read_however_they_are_cut() {
    let client = [&b"SSH-2.0-Me_1.2 (a comment)\r\n"[..], &exchange()].concat();
    let server = [&b"Welcome\r\nSSH-2.0-You\n"[..], &exchange()].concat();
    for size in [1, 7, 1000] {
        let (mut parser, mut found) = (Parser::new(true), Vec::new());
        for (direction, stream) in [(ToServer, &client), (ToClient, &server)] {
            let mut held = Vec::new();
            for chunk in stream.chunks(size) {
                held.extend_from_slice(chunk);
                if let Taken::Bytes(taken) = parser.stream(direction, &held, &mut found) {
                    held.drain(..taken);
                }
            }
        }
        let [transaction] = &found[..] else {
            panic!("{found:?}");
        };
        assert!(transaction.is_complete());
        assert_eq!(
            shown(transaction, ToServer, AppBuffer::SshSoftware),
            "Me_1.2"
        );
        assert_eq!(shown(transaction, ToClient, AppBuffer::SshProto), "2.0");
        assert_eq!(
            shown(transaction, ToServer, AppBuffer::SshHasshString),
            "kex;c-enc;c-mac;none"
        );
        assert_eq!(
            shown(transaction, ToClient, AppBuffer::SshHasshServerString),
            "kex;s-enc;s-mac;zlib"
        );
        assert_eq!(transaction.fields()["server"]["software_version"], "You");
    }
}

#[test]
fn what_is_wrong_ends_it_with_an_event() {
    for (bytes, event) in [
        (&b"SSH-2.0\r\n"[..], "invalid_banner"),
        (&[b'x'; 600], "long_banner"),
        (b"SSH-2.0-a\n\0\0\0\x01x", "invalid_record"),
        (b"SSH-2.0-a\n\x01\0\0\0", "long_kex_record"),
        (b"SSH-2.0-a\n\0\0\0\x03\x09\x14x", "invalid_record"),
    ] {
        let (mut parser, mut found) = (Parser::new(true), Vec::new());
        parser.stream(ToServer, bytes, &mut found);
        assert_eq!(found[0].events, [event]);
        assert!(found[0].way(ToServer).complete);
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(banner: bool, pieces: Vec<(bool, Vec<u8>)>) {
        let (mut parser, mut found) = (Parser::new(true), Vec::new());
        for (to_server, bytes) in &pieces {
            let direction = if *to_server { ToServer } else { ToClient };
            if banner {
                parser.stream(direction, b"SSH-2.0-x\n", &mut found);
            }
            parser.stream(direction, bytes, &mut found);
        }
        for transaction in &found {
            transaction.fields();
        }
    }
}

#[test]
fn a_gap_in_one_direction_does_not_silence_the_other() {
    let (mut parser, mut found) = (Parser::new(false), Vec::new());
    let client = b"SSH-2.0-Me\r\n";
    parser.stream(ToServer, client, &mut found);
    assert!(parser.gap(ToServer, 1, &mut found));
    parser.stream(ToClient, b"SSH-2.0-You\r\n", &mut found);
    assert_eq!(shown(&found[0], ToClient, AppBuffer::SshSoftware), "You");
    // Without anybody who wants to know what the ends can do the versions are all.
    assert!(found[0].is_complete());
}

#[test]
fn a_connection_that_is_over_is_not_begun_again() {
    let (mut parser, mut found) = (Parser::new(true), Vec::new());
    parser.stream(ToServer, b"SSH-2.0-a\r\n", &mut found);
    for direction in [ToServer, ToClient] {
        assert!(parser.gap(direction, 1, &mut found));
    }
    assert!(found[0].is_complete());
    // Rules and records have seen it all.
    found.clear();
    assert_eq!(
        parser.stream(ToClient, b"SSH-2.0-b\r\n", &mut found),
        Taken::Ended
    );
    assert!(found.is_empty());
}
