use super::*;
use crate::app::Part;
use crate::rules::ast::AppBuffer;

use PacketDirection::{ToClient, ToServer};

fn parser() -> Parser {
    let ports = Ports {
        client: 40_000,
        server: 80,
    };
    Parser::new(ports, &AppOptions::default(), 0)
}

fn shown(transaction: &Transaction, direction: PacketDirection, which: AppBuffer) -> String {
    match transaction.part(direction, which, 0) {
        Part::Bytes { data, .. } => String::from_utf8_lossy(data).into_owned(),
        other => format!("{other:?}"),
    }
}

const REQUEST: &[u8] = b"POST /a/../b%20c?d=%65 HTTP/1.1\r\nHost: WWW.example.org:80\r\n\
    User-Agent: me\r\nCookie: x=1\r\nContent-Length: 5\r\n\r\nhello";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=x\r\n\
    Transfer-Encoding: chunked\r\nSet-Cookie: y=2\r\n\r\n5\r\nworld\r\n0\r\n\r\n";

#[test]
fn an_exchange_is_taken_apart_however_it_is_cut() {
    for size in [1, 2, 3, 7, 50, 1000] {
        let mut parser = parser();
        let mut found = Vec::new();
        for chunk in REQUEST.chunks(size) {
            assert_eq!(
                parser.stream(ToServer, chunk, &mut found),
                Taken::Bytes(chunk.len())
            );
        }
        for chunk in RESPONSE.chunks(size) {
            assert_eq!(
                parser.stream(ToClient, chunk, &mut found),
                Taken::Bytes(chunk.len())
            );
        }
        assert_eq!(found.len(), 1, "{size}");
        let of = |direction, which| shown(&found[0], direction, which);
        assert_eq!(of(ToServer, AppBuffer::HttpMethod), "POST");
        assert_eq!(of(ToServer, AppBuffer::HttpUri), "/b c?d=e");
        assert_eq!(of(ToServer, AppBuffer::HttpUriRaw), "/a/../b%20c?d=%65");
        assert_eq!(of(ToServer, AppBuffer::HttpHost), "www.example.org");
        assert_eq!(of(ToServer, AppBuffer::HttpHostRaw), "WWW.example.org:80");
        assert_eq!(of(ToServer, AppBuffer::HttpCookie), "x=1");
        assert_eq!(of(ToServer, AppBuffer::HttpRequestBody), "hello");
        assert_eq!(
            of(ToServer, AppBuffer::HttpHeaderNames),
            "\r\nHost\r\nUser-Agent\r\nCookie\r\nContent-Length\r\n\r\n"
        );
        assert!(!of(ToServer, AppBuffer::HttpHeader).contains("Cookie"));
        assert!(of(ToServer, AppBuffer::HttpHeaderRaw).contains("Cookie: x=1\r\n"));
        assert_eq!(of(ToClient, AppBuffer::HttpStatCode), "200");
        assert_eq!(of(ToClient, AppBuffer::HttpCookie), "y=2");
        assert_eq!(of(ToClient, AppBuffer::FileData), "world");
        assert!(found[0].is_complete());
        let record = found[0].fields();
        assert_eq!(record["http_method"], "POST");
        assert_eq!(record["http_content_type"], "text/plain");
        assert_eq!(record["status"], 200);
        assert_eq!(record["length"], 13);
    }
}

#[test]
fn requests_in_a_row_are_transactions_of_their_own() {
    let mut parser = parser();
    let mut found = Vec::new();
    parser.stream(
        ToServer,
        b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
        &mut found,
    );
    assert_eq!(found.len(), 2);
    parser.stream(
        ToClient,
        b"HTTP/1.1 204 No\r\n\r\nHTTP/1.1 304 No\r\n\r\n",
        &mut found,
    );
    assert!(found.iter().all(Transaction::is_complete));
    assert_eq!(shown(&found[1], ToServer, AppBuffer::HttpUri), "/2");
    assert_eq!(shown(&found[1], ToClient, AppBuffer::HttpStatCode), "304");
}

#[test]
fn a_body_without_a_length_ends_with_the_connection() {
    let mut parser = parser();
    let mut found = Vec::new();
    parser.stream(ToServer, b"GET / HTTP/1.0\r\n\r\n", &mut found);
    parser.stream(ToClient, b"HTTP/1.0 200 OK\r\n\r\nwhat", &mut found);
    assert_eq!(shown(&found[0], ToClient, AppBuffer::FileData), "what");
    assert!(!found[0].is_complete());
    parser.end(ToClient, &mut found);
    assert!(found[0].is_complete());
}

#[test]
fn what_comes_beyond_the_limit_of_a_body_is_no_news() {
    let mut parser = parser();
    let mut found = Vec::new();
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n";
    parser.stream(ToServer, head, &mut found);
    for (bytes, news) in [(100 << 10, true), (1000, false)] {
        found[0].way_mut(ToServer).changed = false;
        parser.stream(ToServer, &vec![b'x'; bytes], &mut found);
        assert_eq!(found[0].way(ToServer).changed, news, "{bytes}");
    }
}

#[test]
fn requests_are_told_from_other_bytes() {
    for (bytes, expected) in [
        (&b"GET / HTTP/1.0\r\n"[..], Some(true)),
        (b"\r\nGET /", Some(true)),
        (b"GE", None),
        (b"FOO / ", None),
        (b"FOO / HTTP/1.1", Some(true)),
        (b"FOO bar\r\n", Some(false)),
        (b"GE.T / HTTP/1.1\r\n", Some(true)),
        (b"GET%00 / HTTP/1.1\r\n", Some(false)),
        (b"\x16\x03\x01", Some(false)),
        (b"EHLO me\r\n", Some(false)),
    ] {
        assert_eq!(begins(ToServer, bytes), expected, "{bytes:?}");
    }
    assert_eq!(begins(ToClient, b"HTTP/1.1"), Some(true));
    assert_eq!(begins(ToClient, b"HT"), None);
    assert_eq!(begins(ToClient, b"SSH-2.0"), Some(false));
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(pieces: Vec<(bool, Vec<u8>)>) {
        let mut parser = parser();
        let mut found = Vec::new();
        for (to_server, bytes) in &pieces {
            let direction = if *to_server { ToServer } else { ToClient };
            begins(direction, bytes);
            parser.stream(direction, bytes, &mut found);
        }
        for direction in PacketDirection::ALL {
            parser.end(direction, &mut found);
        }
        for transaction in &found {
            transaction.fields();
        }
    }
}
