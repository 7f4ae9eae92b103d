//! Connections that begin, or say something, in an unusual way: their applications are heard as
//! their receivers hear them.

use etherparse::PacketBuilder;

use super::InspectionOptions;
use super::applications::{records, request, segment_of};
use super::tests::{Tested, feed, with, with_options};
use crate::exception::{Cause, Treatment, Treatments};
use crate::flow::Timestamp;
use crate::source::Disposition;

const EVIL: &str = "drop http any any -> any any (flow:established,to_server; http.uri; \
                    content:\"/evil\"; sid:1;)\n";
const REQUEST: &[u8] = b"GET /evil HTTP/1.1\r\nHost: a\r\n\r\n";

fn to_server(flags: &str, numbers: (u32, u32), payload: &[u8]) -> Vec<u8> {
    segment_of(80, true, flags, numbers, payload)
}

fn to_client(flags: &str, numbers: (u32, u32), payload: &[u8]) -> Vec<u8> {
    segment_of(80, false, flags, numbers, payload)
}

fn expect(inspection: &mut Tested, packet: &[u8], expected: Disposition, what: &str) {
    assert_eq!(feed(inspection, packet), expected, "{what}");
}

#[test]
fn an_urgent_byte_is_not_in_what_is_heard() {
    let mut inspection = with(EVIL);
    request(&mut inspection, &[b""]);
    let builder = PacketBuilder::ipv4([192, 0, 2, 1], [198, 51, 100, 2], 64)
        .tcp(4000, 80, 5001, 65_000)
        .ack(7001)
        // It points behind the byte.
        .urg(8);
    let mut packet = Vec::new();
    let with_urgent = b"GET /evXil HTTP/1.1\r\nHost: a\r\n\r\n";
    builder.write(&mut packet, with_urgent).unwrap();
    expect(
        &mut inspection,
        &packet,
        Disposition::Drop,
        "without the byte",
    );
    let found = records(&mut inspection, "alert");
    assert_eq!(found[0]["http"]["url"], "/evil");
}

#[test]
fn another_connection_on_the_same_ports_has_an_application_of_its_own() {
    let mut inspection = with(EVIL);
    request(&mut inspection, &[b"SSH-2.0-a\r\n"]);
    let reset = PacketBuilder::ipv4([198, 51, 100, 2], [192, 0, 2, 1], 64)
        .tcp(80, 4000, 7001, 0)
        .ack(5012)
        .rst();
    let mut packet = Vec::new();
    reset.write(&mut packet, b"").unwrap();
    feed(&mut inspection, &packet);
    let (client, server) = (900_000, 70_000);
    for (packet, expected) in [
        (to_server("S", (client, 0), b""), Disposition::Accept),
        (
            to_client("SA", (server, client + 1), b""),
            Disposition::Accept,
        ),
        (
            to_server("A", (client + 1, server + 1), REQUEST),
            Disposition::Drop,
        ),
    ] {
        expect(&mut inspection, &packet, expected, "the second one");
    }
    assert_eq!(records(&mut inspection, "alert")[0]["tx_id"], 0);
    inspection.finish(Timestamp::default());
    assert_eq!(records(&mut inspection, "flow")[0]["app_proto"], "http");
}

/// A SYN that carries data, for a server that takes it at once (RFC 7413).
fn fast_open(payload: &[u8]) -> Vec<u8> {
    let cookie = [34, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1];
    let builder = PacketBuilder::ipv4([192, 0, 2, 1], [198, 51, 100, 2], 64)
        .tcp(4000, 80, 5000, 65_000)
        .syn()
        .options_raw(&cookie)
        .unwrap();
    let mut packet = Vec::new();
    builder.write(&mut packet, payload).unwrap();
    packet
}

#[test]
fn what_a_server_does_not_take_of_a_syn_is_not_what_it_is_told() {
    for said in [
        &b"SSH-2.0-a\r\n"[..],
        b"GET /harmless HTTP/1.1\r\nHo",
        b"\xff\xff",
        // Nobody's, without anything of it being read.
        b"\x00\x01AAAA",
        // The beginning of a message of DNS.
        b"\x40\x00\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x01a\0\0\x01\0\x01",
    ] {
        let mut inspection = with(EVIL);
        let what = String::from_utf8_lossy(said);
        expect(
            &mut inspection,
            &fast_open(said),
            Disposition::Accept,
            &what,
        );
        let answer = to_client("SA", (7000, 5001), b"");
        expect(&mut inspection, &answer, Disposition::Accept, &what);
        let again = to_server("A", (5001, 7001), REQUEST);
        expect(&mut inspection, &again, Disposition::Drop, &what);
        let alerts = records(&mut inspection, "alert");
        assert_eq!(alerts[0]["http"]["url"], "/evil", "{what}");
    }
}

#[test]
fn what_is_said_before_the_handshake_is_complete_is_asked_about_as_soon_as_it_counts() {
    // A server that takes the data of a SYN has it then.
    let mut inspection = with(EVIL);
    expect(
        &mut inspection,
        &fast_open(REQUEST),
        Disposition::Drop,
        "with the SYN",
    );
    // One that has not established the connection yet takes nothing before its client's ACK.
    let mut inspection = with(EVIL);
    for (packet, expected) in [
        (to_server("S", (5000, 0), b""), Disposition::Accept),
        (to_client("SA", (7000, 5001), b""), Disposition::Accept),
        (to_server("A", (5001, 7001), REQUEST), Disposition::Drop),
    ] {
        expect(&mut inspection, &packet, expected, "with the ACK");
    }
}

#[test]
fn of_a_message_with_too_many_names_is_said_that_it_was_not_inspected_whole() {
    let rules = "alert dns any any -> any any (dns.query; content:\"evil\"; sid:1;)\n";
    for count in [500u16, 600] {
        let options = InspectionOptions {
            exceptions: Treatments::default().with(Cause::InspectionLimit, Treatment::DropPacket),
            ..InspectionOptions::default()
        };
        let mut inspection = with_options(rules, options);
        let mut message = vec![0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        message[4..6].copy_from_slice(&count.to_be_bytes());
        for _ in 0..count {
            message.extend_from_slice(b"\x04evix\0\0\x01\0\x01");
        }
        let builder = PacketBuilder::ipv4([192, 0, 2, 1], [198, 51, 100, 2], 64).udp(4000, 53);
        let mut packet = Vec::new();
        builder.write(&mut packet, &message).unwrap();
        let expected = match count > 512 {
            true => Disposition::Drop,
            false => Disposition::Accept,
        };
        expect(&mut inspection, &packet, expected, &count.to_string());
    }
}

#[test]
fn a_connection_that_is_picked_up_again_is_heard_again() {
    let mut inspection = with(EVIL);
    let harmless = b"GET /harmless HTTP/1.1\r\nHost: a\r\n\r\n";
    for packet in [
        to_server("S", (5000, 0), b""),
        to_client("SA", (7000, 5001), b""),
        to_server("A", (5001, 7001), harmless),
    ] {
        expect(&mut inspection, &packet, Disposition::Accept, "as ever");
    }
    // Packets may have gone past, and this one is far beyond what is known.
    inspection.set_detours(1, Timestamp::default());
    let evil = to_server("A", (5_005_001, 7001), REQUEST);
    expect(&mut inspection, &evil, Disposition::Drop, "picked up again");
    assert_eq!(records(&mut inspection, "alert")[0]["http"]["url"], "/evil");
}
