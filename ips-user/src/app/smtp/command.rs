//! Lines of a client (RFC 5321, section 4.1; RFC 3030; RFC 3207; RFC 4954).

/// What a line asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command<'a> {
    /// `HELO`, `EHLO`, `LHLO`, with the name of the client.
    Hello(&'a [u8]),
    /// `MAIL FROM:`, with the sender.
    Mail(&'a [u8]),
    /// `RCPT TO:`, with a recipient.
    Recipient(&'a [u8]),
    Data,
    /// `BDAT`: a piece of a mail with so many bytes, which may be its last. `None` if it does not
    /// say how many.
    Chunk(Option<(u64, bool)>),
    Reset,
    Quit,
    StartTls,
    Auth,
    /// Any other that is known.
    Other,
    /// None that anybody knows.
    Unknown,
}

/// Commands that change nothing.
const OTHERS: [&[u8]; 14] = [
    b"NOOP",
    b"HELP",
    b"VRFY",
    b"EXPN",
    b"TURN",
    b"ETRN",
    b"ATRN",
    b"SEND",
    b"SOML",
    b"SAML",
    b"XCLIENT",
    b"XFORWARD",
    b"VERB",
    b"BURL",
];

impl<'a> Command<'a> {
    /// A line without its end.
    pub(super) fn parse(line: &'a [u8]) -> Self {
        let line = line.trim_ascii_start();
        let end = line.iter().position(|it| !it.is_ascii_alphanumeric());
        let (word, rest) = line.split_at(end.unwrap_or(line.len()));
        let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        if is("HELO") || is("EHLO") || is("LHLO") {
            Self::Hello(first_word(rest))
        } else if is("MAIL") {
            after(rest, b"FROM").map_or(Self::Other, Self::Mail)
        } else if is("RCPT") {
            after(rest, b"TO").map_or(Self::Other, Self::Recipient)
        } else if is("DATA") {
            Self::Data
        } else if is("BDAT") {
            Self::Chunk(chunk(rest))
        } else if is("RSET") {
            Self::Reset
        } else if is("QUIT") {
            Self::Quit
        } else if is("STARTTLS") {
            Self::StartTls
        } else if is("AUTH") {
            Self::Auth
        } else if OTHERS.iter().any(|it| word.eq_ignore_ascii_case(it)) {
            Self::Other
        } else {
            Self::Unknown
        }
    }
}

fn first_word(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.trim_ascii_start();
    let end = bytes.iter().position(u8::is_ascii_whitespace);
    &bytes[..end.unwrap_or(bytes.len())]
}

/// The path behind a word and a colon. Servers are generous about spaces around it.
fn after<'a>(bytes: &'a [u8], word: &[u8]) -> Option<&'a [u8]> {
    let bytes = bytes.trim_ascii_start();
    let (front, rest) = bytes.split_at_checked(word.len())?;
    if !front.eq_ignore_ascii_case(word) {
        return None;
    }
    let rest = rest.trim_ascii_start().strip_prefix(b":")?;
    Some(path(rest.trim_ascii_start()))
}

/// What stands in front of the parameters: an address may have quoted spaces.
fn path(bytes: &[u8]) -> &[u8] {
    let mut quoted = false;
    let mut escaped = false;
    let end = bytes.iter().position(|byte| {
        let plain = !std::mem::take(&mut escaped);
        match byte {
            b'\\' if quoted && plain => escaped = true,
            b'"' if plain => quoted = !quoted,
            _ => {}
        }
        !quoted && byte.is_ascii_whitespace()
    });
    match end {
        Some(end) => &bytes[..end],
        // The quotation mark is never closed: it is none.
        None if quoted => first_word(bytes),
        None => bytes,
    }
}

fn chunk(rest: &[u8]) -> Option<(u64, bool)> {
    let mut words = rest
        .split(u8::is_ascii_whitespace)
        .filter(|it| !it.is_empty());
    let size = words.next()?;
    if !size.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let size = std::str::from_utf8(size).ok()?.parse().ok()?;
    match (words.next(), words.next()) {
        (None, _) => Some((size, false)),
        (Some(word), None) if word.eq_ignore_ascii_case(b"LAST") => Some((size, true)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_servers_do() {
        for (line, expected) in [
            (&b"EHLO me.example"[..], Command::Hello(b"me.example")),
            (b"helo  me ", Command::Hello(b"me")),
            (b"EHLO", Command::Hello(b"")),
            (b"MAIL FROM:<a@b>", Command::Mail(b"<a@b>")),
            (b"MAIL FROM: <a@b> SIZE=100", Command::Mail(b"<a@b>")),
            (b"mail from : a@b", Command::Mail(b"a@b")),
            (b"MAIL FROM:<\"a b\"@c> X", Command::Mail(b"<\"a b\"@c>")),
            (b"MAIL FROM:<\"a b@c> X", Command::Mail(b"<\"a")),
            (b"MAIL FROM:", Command::Mail(b"")),
            (b"MAIL a@b", Command::Other),
            (b"RCPT TO:<a@b>", Command::Recipient(b"<a@b>")),
            (b"DATA", Command::Data),
            (b"DATABASE", Command::Unknown),
            (b"BDAT 10", Command::Chunk(Some((10, false)))),
            (b"bdat 0 last", Command::Chunk(Some((0, true)))),
            (b"BDAT +1", Command::Chunk(None)),
            (b"BDAT 99999999999999999999", Command::Chunk(None)),
            (b"BDAT", Command::Chunk(None)),
            (b"STARTTLS", Command::StartTls),
            (b"noop", Command::Other),
            (b"", Command::Unknown),
        ] {
            assert_eq!(Command::parse(line), expected, "{line:?}");
        }
    }
}
