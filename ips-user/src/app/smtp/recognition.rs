//! Whether it is SMTP, by the first bytes of either direction.

use super::reply::Reply;
use super::{Line, line};
use crate::app::recognition::Ports;
use crate::flow::PacketDirection;
use PacketDirection::{ToClient, ToServer};

/// IANA's, for transfer and submission.
pub(super) fn is_of_mail(ports: Ports) -> bool {
    matches!(ports.server, 25 | 587)
}

/// Whether bytes can begin a conversation in this direction; `None` when there are too few to tell.
pub(in crate::app) fn begins(
    direction: PacketDirection,
    bytes: &[u8],
    ports: Ports,
) -> Option<bool> {
    let on_port = is_of_mail(ports);
    match direction {
        ToServer => begins_commands(bytes, on_port),
        ToClient => begins_replies(bytes, on_port),
    }
}

/// What a conversation can begin with, and whether that is nobody else's.
const WORDS: [(&[u8], bool); 16] = [
    (b"EHLO ", true),
    (b"HELO ", true),
    (b"LHLO ", true),
    (b"EHLO\r", true),
    (b"HELO\r", true),
    (b"MAIL FROM:", true),
    (b"RCPT TO:", true),
    (b"BDAT ", true),
    (b"DATA\r", false),
    (b"RSET\r", false),
    (b"QUIT\r", false),
    (b"NOOP", false),
    (b"HELP", false),
    (b"AUTH ", false),
    (b"STARTTLS\r", false),
    (b"VRFY ", false),
];

fn begins_commands(bytes: &[u8], on_port: bool) -> Option<bool> {
    let mut unclear = false;
    for (word, own) in WORDS {
        if !own && !on_port {
            continue;
        }
        let seen = bytes.len().min(word.len());
        if bytes[..seen].eq_ignore_ascii_case(&word[..seen]) {
            if seen == word.len() {
                return Some(true);
            }
            unclear = true;
        }
    }
    (!unclear).then_some(false)
}

fn begins_replies(bytes: &[u8], on_port: bool) -> Option<bool> {
    let line = match line(bytes) {
        Line::Whole(line, _) | Line::TooLong(line) => line,
        Line::More => {
            let digits = bytes.iter().take(3).all(u8::is_ascii_digit);
            return (!digits || bytes.len() > 3 && !matches!(bytes[3], b' ' | b'-'))
                .then_some(false);
        }
    };
    let Some(reply) = Reply::parse(line) else {
        return Some(false);
    };
    let says = line.windows(4).any(|it| it.eq_ignore_ascii_case(b"SMTP"));
    let other = line.windows(3).any(|it| it.eq_ignore_ascii_case(b"FTP"));
    // FTP's greetings look the same.
    Some(match on_port {
        true => says || !other,
        false => says && reply.code == 220,
    })
}
