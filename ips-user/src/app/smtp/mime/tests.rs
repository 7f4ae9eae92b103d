use super::*;

fn options() -> SmtpOptions {
    SmtpOptions::default()
}

fn keeping() -> Keeping {
    Keeping {
        limit: 1000,
        kept: 1000,
        ..Keeping::default()
    }
}

fn read(text: &[u8], cut: usize) -> Message {
    let options = options();
    let mut message = Message::new(&options, keeping());
    for piece in text.chunks(cut) {
        message.push(piece, &options);
    }
    message.finish(true, &options);
    message
}

fn bytes(file: &Attachment) -> String {
    match file.part() {
        crate::app::Part::Bytes { data, .. } => String::from_utf8_lossy(data).into_owned(),
        other => format!("{other:?}"),
    }
}

/// Names and contents of the files of a message, and what is wrong with it.
fn check(text: &str, files: &[(&str, &str)], events: &[&str]) {
    let text = text.replace('\n', "\r\n");
    for cut in [1, 2, 3, 7, 40, 10_000] {
        let message = read(text.as_bytes(), cut);
        let found = message.files().iter();
        let found: Vec<(String, String)> = found
            .map(|it| (String::from_utf8_lossy(&it.name).into_owned(), bytes(it)))
            .collect();
        let found: Vec<_> = found.iter().map(|it| (&*it.0, &*it.1)).collect();
        assert_eq!(found, files, "{cut}");
        assert_eq!(message.events(), events, "{cut}");
        assert!(message.files().iter().all(|it| it.ended));
    }
}

#[test]
fn files_are_found_and_decoded_however_it_is_cut() {
    check(
        "Content-Type: multipart/mixed;\n boundary=\"=_b\"\n\npreamble\n--=_b\n\
         Content-Type: text/plain\n\ntext\n--=_b  \nContent-Type: application/x; name=a.bin\n\
         Content-Transfer-Encoding: base64\n\naGVs\nbG8=\n\n--=_b\n\
         Content-Disposition: attachment; filename=\"b.txt\"\n\none\n--two\n\n--=_b--\nepilogue\n",
        &[("a.bin", "hello"), ("b.txt", "one\r\n--two\r\n")],
        &[],
    );
}

#[test]
fn a_message_can_be_a_file_itself() {
    check(
        "Content-Disposition: attachment; filename=x.exe\n\nMZ\n",
        &[("x.exe", "MZ")],
        &[],
    );
    check(
        "Content-Type: application/octet-stream\n\n=41",
        &[("", "=41")],
        &[],
    );
    check(
        "Content-Type: text/plain; name=q\nContent-Transfer-Encoding: quoted-printable\n\na=\nb=3D\n",
        &[("q", "ab=")],
        &[],
    );
}

#[test]
fn messages_in_messages_are_entered_whatever_their_encoding() {
    let inner = "Subject: inner\nContent-Disposition: attachment; filename=in.exe\n\nevil\n";
    check(
        &format!("Content-Type: message/rfc822\n\n{inner}"),
        &[("in.exe", "evil")],
        &[],
    );
    // "Content-Disposition: attachment; filename=e\r\n\r\nevil"
    check(
        "Content-Type: multipart/digest; boundary=b\n\n--b\n\n\
         Content-Disposition: attachment; filename=d\n\nevil\n--b\n\
         Content-Type: message/rfc822; name=m.eml\nContent-Transfer-Encoding: base64\n\n\
         Q29udGVudC1EaXNwb3NpdGlvbjogYXR0YWNobWVudDsgZmlsZW5hbWU9ZQ0KDQpldmls\n--b--\n",
        &[
            ("d", "evil"),
            (
                "m.eml",
                "Content-Disposition: attachment; filename=e\r\n\r\nevil",
            ),
            ("e", "evil"),
        ],
        &[],
    );
}

#[test]
fn multiparts_in_multiparts_end_with_those_around_them() {
    check(
        "Content-Type: multipart/mixed; boundary=o\n\n--o\n\
         Content-Type: multipart/related; boundary=i\n\n--i\n\
         Content-Disposition: attachment; filename=a\n\nA\n--o\n\
         Content-Disposition: attachment; filename=b\n\nB\n--i\n--o--\n",
        &[("a", "A"), ("b", "B\r\n--i")],
        &[],
    );
}

#[test]
fn what_is_malformed_is_told_and_read_as_far_as_possible() {
    check(
        "What is this\nContent-Disposition: attachment; filename=a\n\nA\n",
        &[("a", "A")],
        &["mime_malformed_msg"],
    );
    check(
        "Content-Type: multipart/mixed\n\nx\n",
        &[],
        &["mime_malformed_msg"],
    );
    check(
        "Content-Disposition: attachment; filename=a\nContent-Transfer-Encoding: base64\n\nQ!Q==\n",
        &[("a", "A")],
        &["mime_invalid_base64"],
    );
    check(
        "Content-Type: multipart/mixed; boundary=b\n--b\n\
         Content-Disposition: attachment; filename=a\n\nA\n--b--\n",
        &[("a", "A")],
        &["mime_malformed_msg"],
    );
    check(
        "Content-Type: text/plain\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\
         Content-Disposition: inline\nContent-Disposition: attachment; filename=a\n\
         Content-Transfer-Encoding: 7bit\nContent-Transfer-Encoding: base64\n\nQQ==\n--b--\n",
        &[("a", "A")],
        &["mime_malformed_msg"],
    );
    let name = "n".repeat(300);
    let text = format!("Content-Disposition: attachment; filename={name}\n\nA\n");
    check(&text, &[(&name[..255], "A")], &["mime_long_filename"]);
    let boundary = "b".repeat(300);
    let text = format!(
        "Content-Type: multipart/mixed; boundary={boundary}\n\n--{boundary}\n\
         Content-Disposition: attachment; filename=a\n\nA\n--{boundary}--\n"
    );
    check(&text, &[("a", "A")], &["mime_long_boundary"]);
    let line = "QUFB".repeat(20);
    let text = format!(
        "Content-Disposition: attachment; filename=a\nContent-Transfer-Encoding: base64\n\n{line}\n"
    );
    check(&text, &[("a", &"AAA".repeat(20))], &["mime_long_enc_line"]);
    // A part without a body, and one whose header never ends.
    check(
        "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Disposition: attachment\n--b\n\
         Content-Disposition: attachment; filename=a",
        &[("a", "")],
        &[],
    );
}

#[test]
fn many_fields_do_not_hide_how_a_body_is_to_be_read() {
    let text = "Received: x\n".repeat(600)
        + "Content-Disposition: attachment; filename=a\nContent-Transfer-Encoding: base64\n\nQQ==\n";
    check(&text, &[("a", "A")], &["mime_parse_failed"]);
}

#[test]
fn what_comes_is_there_before_its_line_ends() {
    let options = options();
    let mut message = Message::new(&options, keeping());
    let head = b"Content-Disposition: attachment; filename=a\r\n\
                 Content-Transfer-Encoding: base64\r\n\r\naGVsbG";
    message.push(head, &options);
    assert_eq!(bytes(&message.files()[0]), "hel");
    message.push(b"8=", &options);
    assert_eq!(bytes(&message.files()[0]), "hello");
}

#[test]
fn fields_that_go_on_are_put_together() {
    let text = b"Received: from a\r\n\tby b\r\nReceived: two\r\nsubject : x\r\n\r\nbody\r\n";
    for cut in [1, 5, 1000] {
        let message = read(text, cut);
        let received: Vec<_> = message.header().values(Kind::Received).collect();
        assert_eq!(received, [&b"from aby b"[..], b"two"]);
        assert_eq!(message.header().value(Kind::Subject), Some(&b"x"[..]));
        // Of "body\r\n".
        let hash = message.body_md5().unwrap();
        assert_eq!(hash, "89dd3590116a70b579661a2d8593bb2f");
    }
}

#[test]
fn headers_of_parts_are_no_body() {
    let text =
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nSubject: x\r\n\r\nbody\r\n";
    for cut in [1, 1000] {
        let hash = read(text, cut).body_md5().unwrap();
        // Of "--b\r\nbody\r\n".
        assert_eq!(hash, "d1fcd4d264b2533a1088a1e303fb3ae5");
    }
}

#[test]
fn many_files_are_kept_until_they_were_seen() {
    let options = options();
    let mut message = Message::new(&options, keeping());
    message.push(
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n",
        &options,
    );
    for _ in 0..20 {
        message.push(b"--b\r\nContent-Disposition: attachment\r\n\r\n", &options);
        message.push(&[b'x'; 1000], &options);
        message.push(b"\r\n", &options);
    }
    assert_eq!(message.files()[0].kept(), 1000);
    message.seen();
    assert_eq!(message.files()[0].kept(), 0);
    let kept: usize = message.files().iter().map(Attachment::kept).sum();
    assert!(kept <= KEPT_FILES * 1000);
    assert_eq!(message.files()[19].kept(), 1000);
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic_however_they_are_cut(words: Vec<u8>, bytes: Vec<u8>, cut in 1usize..50) {
        const WORDS: [&[u8]; 12] = [
            b"Content-Type: multipart/mixed; boundary=a\r\n", b"\r\n", b"--a\r\n", b"--a--\r\n",
            b"Content-Type: message/rfc822\r\n", b"Content-Transfer-Encoding: base64\r\n",
            b"Content-Disposition: attachment; filename*0*=''%41; filename*1=b\r\n", b"QUJD=",
            b"Content-Transfer-Encoding: quoted-printable\r\n", b"=4", b"-", b" \n",
        ];
        let mut text: Vec<u8> = Vec::new();
        for word in &words {
            text.extend_from_slice(WORDS[usize::from(*word) % WORDS.len()]);
        }
        text.extend_from_slice(&bytes);
        let whole = read(&text, text.len().max(1));
        let parts = read(&text, cut);
        let of = |message: &Message| -> Vec<_> {
            let files = message.files().iter();
            files.map(|it| (it.name.clone(), bytes_of(it))).collect()
        };
        assert_eq!(of(&whole), of(&parts));
        let events = |message: &Message| {
            let mut events = message.events().to_vec();
            events.sort_unstable();
            events
        };
        assert_eq!(events(&whole), events(&parts));
    }
}

fn bytes_of(file: &Attachment) -> String {
    bytes(file)
}
