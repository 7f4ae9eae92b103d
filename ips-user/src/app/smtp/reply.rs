//! Lines of a server (RFC 5321, section 4.2).

/// A line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) code: u16,
    /// Whether no other line of the reply follows.
    pub(super) last: bool,
}

impl Reply {
    /// A line without its end; `None` for one that is no reply.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let (code, rest) = line.split_first_chunk::<3>()?;
        // RFC 5321, section 4.2.1.
        let valid = matches!(code, [b'2'..=b'5', b'0'..=b'5', b'0'..=b'9']);
        let last = match rest.first() {
            None | Some(b' ' | b'\t') => true,
            Some(b'-') => false,
            Some(_) => return None,
        };
        let number = |it: u8| u16::from(it.wrapping_sub(b'0'));
        let [a, b, c] = code.map(number);
        valid.then_some(Self {
            code: a * 100 + b * 10 + c,
            last,
        })
    }

    /// Whether it grants what was asked for.
    pub(super) fn is_positive(self) -> bool {
        self.code / 100 == 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_told_from_other_lines() {
        let reply = |code, last| Some(Reply { code, last });
        for (line, expected) in [
            (&b"250 OK"[..], reply(250, true)),
            (b"250-OK", reply(250, false)),
            (b"354", reply(354, true)),
            (b"199 no", None),
            (b"260 no", None),
            (b"2500", None),
            (b"25", None),
            (b"hello", None),
        ] {
            assert_eq!(Reply::parse(line), expected, "{line:?}");
        }
    }
}
