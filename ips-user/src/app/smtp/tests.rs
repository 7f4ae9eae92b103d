use super::*;
use crate::app::{AppOptions, Part};
use crate::rules::ast::AppBuffer;

const PORTS: Ports = Ports {
    client: 40_000,
    server: 25,
};

/// A conversation, and what was made of it.
struct Talk {
    parser: Parser,
    found: Vec<Transaction>,
    waiting: [Vec<u8>; 2],
    cut: usize,
    last: Taken,
}

impl Talk {
    fn new(cut: usize) -> Self {
        let options = AppOptions::default();
        Self {
            parser: Parser::new(PORTS, &options.smtp, options.hashes, 0),
            found: Vec::new(),
            waiting: Default::default(),
            cut,
            last: Taken::Bytes(0),
        }
    }

    fn says(&mut self, direction: PacketDirection, text: &[u8]) {
        for piece in text.chunks(self.cut) {
            let waiting = &mut self.waiting[direction.number()];
            waiting.extend_from_slice(piece);
            self.last = self.parser.stream(direction, waiting, &mut self.found);
            match self.last {
                Taken::Bytes(taken) => drop(waiting.drain(..taken)),
                Taken::Becomes(..) | Taken::Ended | Taken::Failed => return,
            }
        }
    }

    /// `C: ` and `S: ` in front of lines say whose they are.
    fn lines(&mut self, script: &str) {
        for line in script.lines() {
            let (who, text) = line.split_once(": ").unwrap();
            let direction = if who == "C" { ToServer } else { ToClient };
            self.says(direction, format!("{text}\r\n").as_bytes());
        }
    }

    fn shown(&self, number: usize, which: AppBuffer, at: usize) -> Option<String> {
        match self.found.get(number)?.part(ToServer, which, at) {
            Part::Bytes { data, .. } => Some(String::from_utf8_lossy(data).into_owned()),
            Part::Pending | Part::Absent => None,
        }
    }

    fn events(&self) -> Vec<&'static str> {
        self.found.iter().flat_map(|it| it.events.clone()).collect()
    }
}

/// What is found is the same however the conversation is cut.
fn check(script: &str, look: impl Fn(&Talk)) {
    for cut in [1, 2, 3, 7, 50, 5000] {
        let mut talk = Talk::new(cut);
        talk.lines(script);
        look(&talk);
    }
}

const GREETING: &str = "S: 220 a SMTP\nC: EHLO me\nS: 250-a\nS: 250 PIPELINING\n";
const ENVELOPE: &str = "C: MAIL FROM:<a@b> SIZE=1\nS: 250 ok\nC: RCPT TO:<c@d>\nS: 250 ok\n\
                        C: RCPT TO:<e@f>\nS: 250 ok\n";

fn greeted(rest: &str) -> String {
    format!("{GREETING}{rest}")
}

fn with_mail(mail: &str, rest: &str) -> String {
    let mail: String = mail.lines().map(|it| format!("C: {it}\n")).collect();
    format!("{GREETING}{ENVELOPE}C: DATA\nS: 354 go\n{mail}C: .\nS: 250 taken\n{rest}")
}

#[test]
fn each_mail_of_a_connection_is_a_transaction() {
    let second = "C: MAIL FROM:<g@h>\nS: 250 ok\nC: RSET\nS: 250 ok\nC: QUIT\nS: 221 bye";
    check(&with_mail("Subject: one\n\n..a", second), |talk| {
        assert_eq!(talk.found.len(), 2);
        assert_eq!(talk.events(), [""; 0]);
        let of = |which, at| talk.shown(0, which, at);
        assert_eq!(of(AppBuffer::SmtpHelo, 0).unwrap(), "me");
        assert_eq!(of(AppBuffer::SmtpMailFrom, 0).unwrap(), "<a@b>");
        assert_eq!(of(AppBuffer::SmtpRcptTo, 1).unwrap(), "<e@f>");
        assert_eq!(of(AppBuffer::SmtpRcptTo, 2), None);
        assert_eq!(of(AppBuffer::EmailSubject, 0).unwrap(), "one");
        assert_eq!(talk.shown(1, AppBuffer::SmtpHelo, 0).unwrap(), "me");
        assert_eq!(talk.shown(1, AppBuffer::SmtpMailFrom, 0).unwrap(), "<g@h>");
        assert!(talk.found.iter().all(Transaction::is_complete));
        let record = talk.found[0].fields();
        assert_eq!(record["rcpt_to"][0], "<c@d>");
        let email = talk.found[0].further_fields().unwrap().1;
        assert_eq!(email["status"], "PARSE_DONE");
    });
}

#[test]
fn a_mail_in_chunks_is_one() {
    for cut in [1, 3, 7, 1000] {
        let mut talk = Talk::new(cut);
        talk.lines(&greeted(ENVELOPE));
        // The first chunk ends within a line, and a dot alone is nothing here.
        talk.says(ToServer, b"BDAT 10\r\nSubject: o");
        talk.says(ToClient, b"250 ok\r\n");
        talk.says(ToServer, b"BDAT 15 LAST\r\nne\r\n\r\n.\r\nQUIT\r\nNOOP\r\n");
        assert_eq!(talk.shown(0, AppBuffer::EmailSubject, 0).unwrap(), "one");
        assert!(!talk.found[0].is_complete());
        talk.says(ToClient, b"250 ok\r\n250 ok\r\n");
        assert_eq!(talk.events(), [""; 0], "{cut}");
        assert!(talk.found[0].is_complete());
        assert_eq!(talk.found.len(), 2, "NOOP");
    }
}

#[test]
fn what_follows_a_rejected_data_is_read_as_commands() {
    // All of it is there before the server says anything.
    let client = b"EHLO me\r\nMAIL FROM:<a@b>\r\nDATA\r\nRSET\r\nMAIL FROM:<evil@b>\r\n\
                   RCPT TO:<c@d>\r\nDATA\r\n";
    let server =
        b"250 ok\r\n250 ok\r\n503 no recipient\r\n250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n";
    for cut in [1, 3, 20, 1000] {
        let mut talk = Talk::new(cut);
        talk.says(ToClient, b"220 a SMTP\r\n");
        talk.says(ToServer, client);
        talk.says(ToClient, server);
        talk.says(ToServer, b"Subject: two\r\n\r\nx\r\n.\r\n");
        talk.says(ToClient, b"250 ok\r\n");
        let last = talk.found.len() - 1;
        assert_eq!(
            talk.shown(last, AppBuffer::SmtpMailFrom, 0).unwrap(),
            "<evil@b>"
        );
        assert_eq!(talk.shown(last, AppBuffer::EmailSubject, 0).unwrap(), "two");
        assert!(talk.events().contains(&"data_command_rejected"));
        assert!(
            !talk
                .events()
                .contains(&"unable_to_match_reply_with_request")
        );
        assert!(talk.found.iter().all(Transaction::is_complete), "{cut}");
    }
}

#[test]
fn a_chunk_that_the_server_does_not_know_is_read_as_commands() {
    let mut talk = Talk::new(1000);
    talk.lines(&greeted(ENVELOPE));
    talk.says(
        ToServer,
        b"BDAT 32 LAST\r\nRSET\r\nMAIL FROM:<evil@b>\r\nNOOP\r\n",
    );
    talk.says(ToClient, b"502 what\r\n250 ok\r\n250 ok\r\n250 ok\r\n");
    let last = talk.found.len() - 1;
    assert_eq!(
        talk.shown(last, AppBuffer::SmtpMailFrom, 0).unwrap(),
        "<evil@b>"
    );
    assert!(
        !talk
            .events()
            .contains(&"unable_to_match_reply_with_request")
    );
}

#[test]
fn what_a_server_takes_for_a_secret_is_no_command() {
    for secret in ["DATA", "BDAT 1000 LAST", "STARTTLS", "xyz"] {
        let mut talk = Talk::new(1000);
        talk.says(ToClient, b"220 a SMTP\r\n");
        let client = format!(
            "EHLO me\r\nAUTH LOGIN\r\n{secret}\r\npassword\r\nMAIL FROM:<evil@b>\r\n\
             RCPT TO:<c@d>\r\n"
        );
        talk.says(ToServer, client.as_bytes());
        talk.says(
            ToClient,
            b"250 ok\r\n334 a\r\n334 b\r\n535 no\r\n250 ok\r\n250 ok\r\n",
        );
        talk.lines("C: DATA\nS: 354 go\nC: Subject: x\nC: \nC: .\nS: 250 ok");
        let last = talk.found.len() - 1;
        let of = |which| talk.shown(last, which, 0).unwrap();
        assert_eq!(of(AppBuffer::SmtpMailFrom), "<evil@b>", "{secret}");
        assert_eq!(of(AppBuffer::EmailSubject), "x", "{secret}");
        assert!(talk.found.iter().all(Transaction::is_complete), "{secret}");
    }
}

#[test]
fn mail_that_comes_before_the_server_agrees_is_seen_at_once() {
    let mut talk = Talk::new(1000);
    talk.says(ToClient, b"220 a SMTP\r\n");
    talk.says(
        ToServer,
        b"EHLO me\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nSubject: x\r\n\r\n",
    );
    assert_eq!(talk.shown(0, AppBuffer::EmailSubject, 0).unwrap(), "x");
}

#[test]
fn a_loose_end_that_the_server_takes_is_one() {
    let mut talk = Talk::new(1000);
    talk.lines(&greeted(ENVELOPE));
    talk.lines("C: DATA\nS: 354 go");
    talk.says(ToServer, b"Subject: x\r\n\r\ny\n.\nMAIL FROM:<evil@b>\r\n");
    assert_eq!(talk.found.len(), 1, "who knows");
    assert!(talk.events().contains(&"invalid_pipelined_sequence"));
    talk.says(ToClient, b"250 taken\r\n");
    assert_eq!(talk.found.len(), 2);
    assert_eq!(
        talk.shown(1, AppBuffer::SmtpMailFrom, 0).unwrap(),
        "<evil@b>"
    );
    // One that it does not take is mail.
    let mut talk = Talk::new(1000);
    talk.lines(&greeted(ENVELOPE));
    talk.lines("C: DATA\nS: 354 go");
    talk.says(ToServer, b"Subject: x\r\n\r\ny\n.\nz\r\n.\r\nQUIT\r\n");
    talk.says(ToClient, b"250 taken\r\n221 bye\r\n");
    assert_eq!(talk.found.len(), 1);
    assert!(talk.found[0].is_complete());
}

#[test]
fn tls_begins_when_both_ends_agree() {
    let hello = [22, 3, 1, 0, 9, 1, 0, 0, 5, 3, 3];
    let mut talk = Talk::new(1000);
    talk.lines(&greeted("C: STARTTLS"));
    talk.says(ToServer, &hello);
    assert_eq!(talk.last, Taken::Bytes(0), "it waits for the reply");
    talk.says(ToClient, b"220 go\r\n");
    talk.says(ToServer, b"\0");
    assert_eq!(talk.last, Taken::Becomes(0, AppProtocol::Tls));
    // They only pretend.
    let mut talk = Talk::new(1000);
    talk.lines(&greeted("C: STARTTLS\nS: 220 go\nC: MAIL FROM:<evil@b>"));
    assert_eq!(talk.events(), ["failed_protocol_change"]);
    assert_eq!(
        talk.shown(0, AppBuffer::SmtpMailFrom, 0).unwrap(),
        "<evil@b>"
    );
}

#[test]
fn what_is_wrong_is_told() {
    let long = "x".repeat(5000);
    for (script, expected) in [
        (greeted("C: STARTTLS\nS: 454 no"), "tls_rejected"),
        (greeted("C: DATA\nS: 503 no"), "data_command_rejected"),
        (greeted("C: BDAT x\nS: 501 no"), "invalid_bdat"),
        (
            greeted("C: BDAT 3 LAST\nC: abcdef"),
            "bdat_chunk_len_exceeded",
        ),
        (greeted("S: 250 what"), "unable_to_match_reply_with_request"),
        (greeted("C: NOOP\nS: 999 what"), "invalid_reply"),
        (greeted("C: NOOP\nS: hello"), "invalid_reply"),
        (greeted("C: HELO you\nS: 250 ok"), "duplicate_fields"),
        (
            greeted(&format!("C: NOOP {long}")),
            "max_command_line_len_exceeded",
        ),
        (
            greeted(&format!("C: NOOP\nS: 250 {long}")),
            "max_reply_line_len_exceeded",
        ),
        (
            greeted("C: STARTTLS\nC: NOOP"),
            "invalid_pipelined_sequence",
        ),
        (greeted("C: \u{1}\u{2}"), "unparsable_content"),
        ("C: EHLO me\nS: 250 ok".into(), "no_server_welcome_message"),
        (with_mail("no header\n\nx", ""), "mime_malformed_msg"),
    ] {
        for cut in [1, 10, 10_000] {
            let mut talk = Talk::new(cut);
            talk.lines(&script);
            assert!(
                talk.events().contains(&expected),
                "{expected}: {:?}",
                talk.events()
            );
        }
    }
    for (script, events) in [
        (
            greeted("C: AUTH LOGIN\nS: 334 x\nC: DATA\nS: 334 y\nC: RSET\nS: 235 ok"),
            0,
        ),
        (greeted("S: 421 timeout"), 0),
        (with_mail("Subject: a\n\nx", "C: QUIT\nS: 221 bye"), 0),
    ] {
        let mut talk = Talk::new(10);
        talk.lines(&script);
        assert_eq!(talk.events().len(), events, "{script}: {:?}", talk.events());
    }
}

#[test]
fn a_conversation_is_told_from_others() {
    let on = |direction, bytes: &[u8], server| {
        let ports = Ports { server, ..PORTS };
        begins(direction, bytes, ports)
    };
    for (direction, bytes, server, expected) in [
        (ToServer, &b"EHLO me\r\n"[..], 2525, Some(true)),
        (ToServer, b"eh", 2525, None),
        (ToServer, b"QUIT\r\n", 2525, Some(false)),
        (ToServer, b"QUIT\r\n", 25, Some(true)),
        (ToServer, b"mail from:<a@b>\r\n", 2525, Some(true)),
        (ToServer, b"GET / HTTP/1.1\r\n", 25, Some(false)),
        (ToClient, b"220 mail.example ESMTP x\r\n", 2525, Some(true)),
        (ToClient, b"220 mail.example\r\n", 2525, Some(false)),
        (ToClient, b"220 mail.example\r\n", 25, Some(true)),
        (ToClient, b"220 FTP ready\r\n", 25, Some(false)),
        (ToClient, b"220 mail", 25, None),
        (ToClient, b"SSH-2.0-x\r\n", 25, Some(false)),
        (ToClient, b"250-STARTTLS\r\n", 587, Some(true)),
    ] {
        assert_eq!(on(direction, bytes, server), expected, "{bytes:?} {server}");
    }
}

#[test]
fn it_goes_on_behind_a_gap() {
    let mut talk = Talk::new(1000);
    talk.lines(&greeted(ENVELOPE));
    talk.lines("C: DATA\nS: 354 go");
    let head = b"Content-Disposition: attachment; filename=a.bin\r\n\r\nsome";
    talk.says(ToServer, head);
    assert!(talk.parser.gap(ToServer, 1000, &mut talk.found));
    talk.says(ToServer, b"more\r\n.\r\n");
    talk.says(ToClient, b"250 ok\r\n");
    let files = talk.found[0].files(ToServer);
    assert_eq!(
        (files[0].size, files[0].gaps, files[0].whole),
        (4, true, false)
    );
    assert!(talk.found[0].is_complete());
    talk.lines("C: MAIL FROM:<g@h>\nS: 250 ok");
    assert_eq!(talk.shown(1, AppBuffer::SmtpMailFrom, 0).unwrap(), "<g@h>");
}

#[test]
fn there_are_only_so_many_recipients() {
    let mut talk = Talk::new(100_000);
    talk.lines("S: 220 a SMTP\nC: EHLO me\nC: MAIL FROM:<a@b>");
    let path = "x".repeat(1000);
    for count in 0..200 {
        talk.lines(&format!("C: RCPT TO:{path}"));
        let fits = (count + 1) * path.len() <= 128 << 10;
        assert_eq!(talk.last == Taken::Failed, !fits, "{count}");
    }
}

#[test]
fn a_mail_as_a_whole_can_be_a_file() {
    let mut talk = Talk::new(7);
    let options = Arc::make_mut(&mut talk.parser.options);
    (options.decode_mime, options.raw) = (false, true);
    talk.lines(&with_mail("Subject: x\n\n..y", ""));
    let files = talk.found[0].files(ToServer);
    assert_eq!((&files[0].name[..], files[0].size), (&b"rawmsg"[..], 18));
    assert!(files[0].whole);
    assert!(talk.found[0].further_fields().is_none());
}

#[test]
fn a_connection_heard_in_one_direction_does_not_pile_up() {
    let mut talk = Talk::new(100_000);
    talk.lines("C: EHLO me");
    for _ in 0..1000 {
        talk.lines("C: MAIL FROM:<a@b>\nC: RCPT TO:<c@d>\nC: DATA\nC: x: y\nC: .");
        for transaction in &mut talk.found {
            for direction in PacketDirection::ALL {
                transaction.way_mut(direction).changed = false;
            }
        }
        talk.found.retain(|it| !it.is_over());
        assert!(matches!(talk.last, Taken::Bytes(_)));
    }
    assert!(talk.found.len() < 100);
}

const WORDS: [&[u8]; 22] = [
    b"EHLO a\r\n",
    b"MAIL FROM:<a@b>\r\n",
    b"RCPT TO:<c@d>\r\n",
    b"DATA\r\n",
    b"BDAT 3\r\n",
    b"BDAT 0 LAST\r\n",
    b"AUTH LOGIN\r\n",
    b"220 SMTP\r\n",
    b"250 ok\r\n",
    b"334 a\r\n",
    b"354 go\r\n",
    b"502 no\r\n",
    b"503 no\r\n",
    b".\r\n",
    b"\n.\n",
    b"STARTTLS\r\n",
    b"\x16\x03\x01\0\x05\x01",
    b"RSET\r\n",
    b"Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\n",
    b"Content-Type: a/b\r\nContent-Transfer-Encoding: base64\r\n\r\nQUJD",
    b"--a--\r\n",
    b"\x01",
];

impl Talk {
    fn words(words: &[(bool, u8)], cut: usize) -> Self {
        let mut talk = Self::new(cut);
        for (to_server, word) in words {
            let direction = if *to_server { ToServer } else { ToClient };
            talk.says(direction, WORDS[usize::from(*word) % WORDS.len()]);
            if !matches!(talk.last, Taken::Bytes(_)) {
                break;
            }
        }
        talk
    }

    /// Everything that records show, and what is wrong.
    fn told(&self) -> Vec<String> {
        let told = self.found.iter().map(|it| {
            let mut events = it.events.clone();
            events.sort_unstable();
            let files: Vec<_> = it.files(ToServer).iter().map(|it| it.fields(0)).collect();
            let email = it.further_fields();
            format!(
                "{} {email:?} {files:?} {events:?} {}",
                it.fields(),
                it.is_complete()
            )
        });
        told.collect()
    }
}

proptest::proptest! {
    #[test]
    fn how_it_is_cut_makes_no_difference(
        words in proptest::collection::vec((0u8..3, proptest::prelude::any::<u8>()), 0..60),
        greeted: bool,
        cut in 1usize..20,
    ) {
        let envelope = [(0, 7), (1, 0), (0, 8), (1, 1), (0, 8), (1, 2), (0, 8)];
        let first = envelope.iter().filter(|_| greeted);
        // Clients say more.
        let words = first.chain(&words).map(|(who, word)| (*who > 0, *word));
        let words: Vec<_> = words.collect();
        assert_eq!(Talk::words(&words, 1000).told(), Talk::words(&words, cut).told());
    }

    #[test]
    fn no_bytes_make_it_panic(pieces: Vec<(bool, Vec<u8>)>) {
        let mut talk = Talk::new(1000);
        for (to_server, bytes) in &pieces {
            talk.says(if *to_server { ToServer } else { ToClient }, bytes);
        }
        talk.told();
    }
}
