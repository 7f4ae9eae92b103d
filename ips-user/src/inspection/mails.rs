//! What mails bring, from packet to decision and record.

use serde_json::Value;

use super::InspectionOptions;
use super::applications::segment_of;
use super::tests::{Tested, feed, with_options};
use crate::app::{AppOptions, AppProtocol, WantedHashes};
use crate::config::settings::EngineSettings;
use crate::flow::Timestamp;
use crate::source::Disposition;

/// A connection to a server for mail.
struct Connection {
    inspection: Tested,
    next: [u32; 2],
}

impl Connection {
    fn new(rules: &str) -> Self {
        Self::with_options(rules, InspectionOptions::default())
    }

    fn with_options(rules: &str, options: InspectionOptions) -> Self {
        let mut inspection = with_options(rules, options);
        feed(&mut inspection, &segment_of(25, true, "S", (5000, 0), b""));
        feed(
            &mut inspection,
            &segment_of(25, false, "SA", (7000, 5001), b""),
        );
        feed(
            &mut inspection,
            &segment_of(25, true, "A", (5001, 7001), b""),
        );
        let next = [5001, 7001];
        Self { inspection, next }
    }

    fn says(&mut self, client: bool, text: &[u8]) -> Disposition {
        let [to_server, to_client] = self.next;
        let (number, numbers) = match client {
            true => (0, (to_server, to_client)),
            false => (1, (to_client, to_server)),
        };
        self.next[number] += text.len() as u32;
        let packet = segment_of(25, client, "A", numbers, text);
        feed(&mut self.inspection, &packet)
    }

    /// Up to where the mail itself is to come.
    fn announce(&mut self) {
        for (client, text) in [
            (false, "220 mail.example\r\n"),
            (true, "EHLO me\r\n"),
            (false, "250 ok\r\n"),
            (true, "MAIL FROM:<a@b>\r\n"),
            (false, "250 ok\r\n"),
            (true, "RCPT TO:<c@d>\r\n"),
            (false, "250 ok\r\n"),
            (true, "DATA\r\n"),
            (false, "354 go\r\n"),
        ] {
            let disposition = self.says(client, text.as_bytes());
            assert_eq!(disposition, Disposition::Accept, "{text}");
        }
    }

    fn records(&mut self, kind: &str) -> Vec<Value> {
        let lines = self.inspection.events_mut().take().into_iter();
        lines.filter(|it| it["event_type"] == kind).collect()
    }
}

/// Whatever the cut, the segment is dropped that brings the `needed` first bytes of a mail.
fn is_stopped(rule: &str, mail: &[u8], needed: usize) {
    assert!(needed < mail.len(), "before the end");
    for cut in 1..mail.len() {
        let mut connection = Connection::new(rule);
        connection.announce();
        let first = connection.says(true, &mail[..cut]);
        let expected = match cut >= needed {
            true => Disposition::Drop,
            false => Disposition::Accept,
        };
        assert_eq!(first, expected, "{cut}");
        let second = connection.says(true, &mail[cut..]);
        assert_eq!(second, Disposition::Drop, "{cut}");
        assert_eq!(connection.records("alert").len(), 1, "{cut}");
    }
}

fn until(mail: &[u8], text: &str) -> usize {
    memchr::memmem::find(mail, text.as_bytes()).unwrap() + text.len()
}

#[test]
fn a_file_is_stopped_where_it_matches_and_not_at_its_end() {
    let rule = "drop smtp any any -> any any (msg:\"evil\"; flow:established,to_server; \
                file.data; content:\"evil\"; sid:1;)\n";
    // "some evil thing"
    let mail = b"Content-Type: application/x; name=a\r\nContent-Transfer-Encoding: base64\r\n\r\n\
                 c29tZSBldm\r\nlsIHRoaW5n\r\n.\r\n";
    is_stopped(rule, mail, until(mail, "lsI") - 1);
}

#[test]
fn a_subject_is_stopped_before_the_mail_ends() {
    let rule = "drop smtp any any -> any any (msg:\"evil\"; email.subject; content:\"evil\"; \
                endswith; sid:1;)\n";
    let mail = b"Subject: very\r\n evil\r\nTo: c@d\r\n\r\nx\r\n.\r\n";
    // That it does not go on tells the next line.
    is_stopped(rule, mail, until(mail, "To: c@d\r\n"));
}

#[test]
fn a_name_of_a_file_stops_it_when_its_header_ends() {
    let rule = "drop smtp any any -> any any (msg:\"evil\"; file.name; content:\".exe\"; \
                endswith; sid:1;)\n";
    let mail = b"Content-Disposition: attachment; filename=a.exe\r\n\r\nMZ\r\n.\r\n";
    is_stopped(rule, mail, until(mail, ".exe\r\n\r\n"));
}

#[test]
fn a_recipient_is_refused_at_once() {
    let rule = "drop smtp any any -> any any (msg:\"evil\"; smtp.rcpt_to; content:\"evil@d\"; \
                sid:1;)\n";
    let mut connection = Connection::new(rule);
    for (client, text, expected) in [
        (false, &b"220 mail.example\r\n"[..], Disposition::Accept),
        (true, b"EHLO me\r\nMAIL FROM:<a@b>\r\n", Disposition::Accept),
        (
            true,
            b"RCPT TO:<c@d>\r\nRCPT TO:<evil@d",
            Disposition::Accept,
        ),
        (true, b">\r\n", Disposition::Drop),
    ] {
        assert_eq!(connection.says(client, text), expected);
    }
    let alerts = connection.records("alert");
    assert_eq!(alerts[0]["smtp"]["rcpt_to"][1], "<evil@d>");
    assert_eq!(alerts[0]["app_proto"], "smtp");
}

#[test]
fn a_mail_is_recorded_with_its_files() {
    let mut connection = Connection::new("");
    connection.announce();
    let mail = b"From: A <a@b>\r\nTo: \"C, D\" <c@d>, e@f\r\nContent-Disposition: attachment; \
                 filename=a.bin\r\n\r\nMZ\r\n.\r\n";
    connection.says(true, mail);
    assert_eq!(connection.records("smtp").len(), 0);
    connection.says(false, b"250 taken\r\n");
    let lines = connection.inspection.events_mut().take();
    let of = |kind: &str| lines.iter().find(|it| it["event_type"] == kind).unwrap();
    let record = of("smtp");
    assert_eq!(record["smtp"]["mail_from"], "<a@b>");
    assert_eq!(record["email"]["from"], "A <a@b>");
    assert_eq!(record["email"]["to"][0], "\"C, D\" <c@d>");
    assert_eq!(record["email"]["to"][1], "e@f");
    assert_eq!(record["email"]["attachment"][0], "a.bin");
    assert_eq!(record["email"]["status"], "PARSE_DONE");
    let file = of("fileinfo");
    assert_eq!(file["fileinfo"]["filename"], "a.bin");
    assert_eq!(file["fileinfo"]["size"], 2);
    assert_eq!(file["email"]["from"], "A <a@b>");
}

/// A client hello of TLS 1.0.
fn client_hello() -> Vec<u8> {
    let mut hello = vec![22, 3, 1, 0, 45, 1, 0, 0, 41, 3, 1];
    hello.extend_from_slice(&[7; 32]);
    hello.extend_from_slice(&[0, 0, 2, 0, 47, 1, 0]);
    hello
}

#[test]
fn a_hello_is_inspected_with_the_packet_that_agrees_to_it() {
    let rules = "drop tls any any -> any any (msg:\"tls\"; flow:to_server; tls.version:1.0; \
                 sid:1;)\n";
    let mut connection = Connection::new(rules);
    let asks = [&b"STARTTLS\r\n"[..], &client_hello()].concat();
    for (client, text) in [
        (false, &b"220 mail.example\r\n"[..]),
        (true, b"EHLO me\r\n"),
        (false, b"250 STARTTLS\r\n"),
        (true, &asks),
    ] {
        assert_eq!(connection.says(client, text), Disposition::Accept);
    }
    assert_eq!(connection.says(false, b"220 go\r\n"), Disposition::Drop);
}

#[test]
fn what_mails_take_is_bounded_and_goes_with_their_flow() {
    for (most, expected) in [("0", Disposition::Accept), ("60kb", Disposition::Drop)] {
        let mut engine = EngineSettings::default();
        engine.set("app-layer.protocols.smtp.memcap", most).unwrap();
        let options = InspectionOptions {
            app: AppOptions::configured(&engine, true),
            ..InspectionOptions::default()
        };
        let mut connection = Connection::with_options("", options);
        connection.announce();
        connection.says(true, b"Content-Disposition: attachment; filename=a\r\n\r\n");
        let before = connection.inspection.counters().applications.memuse;
        let line = [&[b'x'; 498][..], b"\r\n"].concat().repeat(20);
        let last = (0..8).map(|_| {
            let disposition = connection.says(true, &line);
            connection.says(false, b"");
            disposition
        });
        let last = last.last();
        assert_eq!(last, Some(expected), "{most}");
        let used = connection.inspection.counters().applications;
        if expected == Disposition::Accept {
            assert!(used.memuse >= before + 80_000, "{before} {used:?}");
            assert_eq!(used.of[AppProtocol::Smtp as usize], used.memuse);
        }
        assert!(expected == Disposition::Accept || used.memuse <= 60 << 10);
        connection.inspection.finish(Timestamp::default());
        assert_eq!(connection.inspection.counters().applications.memuse, 0);
    }
}

#[test]
fn a_file_that_a_mail_carries_is_stored() {
    let rules = "alert smtp any any -> any any (msg:\"two\"; filename:\"two\"; filestore; \
                 sid:1;)\n";
    let mut options = InspectionOptions::default();
    options.app.add_asked(WantedHashes::default(), true, false);
    let mut connection = Connection::with_options(rules, options);
    connection.announce();
    let mail = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n\
                 --b\r\nContent-Disposition: attachment; filename=one\r\n\r\nfirst\r\n\
                 --b\r\nContent-Disposition: attachment; filename=two\r\n\
                 Content-Transfer-Encoding: base64\r\n\r\nc2Vjb25k\r\n--b--\r\n.\r\n";
    connection.says(true, mail);
    connection.says(false, b"250 taken\r\n");
    connection.inspection.finish(Timestamp::default());
    let stored = connection.records("stored");
    let contents: Vec<_> = stored.iter().map(|it| &it["content"]).collect();
    assert_eq!(contents, ["second"]);
}

#[test]
fn a_connection_becomes_one_of_tls() {
    let rules = "drop tls any any -> any any (msg:\"tls\"; tls.version:1.0; sid:1;)\n";
    let mut connection = Connection::new(rules);
    for (client, text) in [
        (false, &b"220 mail.example\r\n"[..]),
        (true, b"EHLO me\r\n"),
        (false, b"250 STARTTLS\r\n"),
        (true, b"STARTTLS\r\n"),
        (false, b"220 go\r\n"),
    ] {
        assert_eq!(connection.says(client, text), Disposition::Accept);
    }
    connection.says(true, &client_hello());
    let mut answer = vec![22, 3, 1, 0, 42, 2, 0, 0, 38, 3, 1];
    answer.extend_from_slice(&[8; 32]);
    answer.extend_from_slice(&[0, 0, 47, 0]);
    assert_eq!(connection.says(false, &answer), Disposition::Drop);
    connection.inspection.finish(Timestamp::default());
    let lines = connection.inspection.events_mut().take();
    let of = |kind: &str| lines.iter().find(|it| it["event_type"] == kind).unwrap();
    assert_eq!(of("flow")["app_proto"], "tls");
    assert_eq!(of("flow")["app_proto_orig"], "smtp");
    assert_eq!(of("smtp")["smtp"]["helo"], "me");
    assert_eq!(of("smtp")["app_proto"], "smtp");
    assert_eq!(of("alert")["app_proto"], "tls");
}

#[test]
fn what_servers_say_can_be_an_event() {
    let rules = "drop smtp any any -> any any (msg:\"no\"; flow:established,to_client; \
                 app-layer-event:smtp.data_command_rejected; sid:1;)\n\
                 alert smtp any any -> any any (msg:\"bad\"; \
                 app-layer-event:smtp.mime_invalid_base64; sid:2;)\n";
    let mut connection = Connection::new(rules);
    connection.says(false, b"220 mail.example\r\n");
    connection.says(true, b"EHLO me\r\n");
    connection.says(false, b"250 ok\r\n");
    connection.says(true, b"DATA\r\n");
    assert_eq!(connection.says(false, b"503 no\r\n"), Disposition::Drop);
    let mut connection = Connection::new(rules);
    connection.announce();
    connection.says(
        true,
        b"Content-Type: a/b\r\nContent-Transfer-Encoding: base64\r\n\r\n!!\r\n",
    );
    assert_eq!(connection.records("alert").len(), 1);
}
