//! Base64, in the three ways in which rules want it decoded (RFC 4648, RFC 2045).

use crate::rules::ast::Base64Mode;

fn digit(byte: u8) -> Option<u32> {
    Some(
        match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        }
        .into(),
    )
}

/// Decodes `text` to the end of `out`. Whether it could: only [`Base64Mode::Strict`] refuses.
pub(crate) fn decode(text: &[u8], mode: Base64Mode, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let mut bits = 0u32;
    let mut held = 0;
    let mut padding = 0;
    for &byte in text {
        if byte == b'=' {
            padding += 1;
            continue;
        }
        let Some(digit) = digit(byte) else {
            match mode {
                Base64Mode::Rfc2045 => continue,
                Base64Mode::Rfc4648 => break,
                Base64Mode::Strict => {
                    out.truncate(start);
                    return false;
                }
            }
        };
        if padding > 0 {
            // Behind the padding nothing follows.
            if mode == Base64Mode::Strict {
                out.truncate(start);
                return false;
            }
            break;
        }
        bits = bits << 6 | digit;
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
        }
    }
    if mode == Base64Mode::Strict && !text.len().is_multiple_of(4) {
        out.truncate(start);
        return false;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, mode: Base64Mode, expect: Option<&str>) {
        let mut out = b"before".to_vec();
        let decoded = decode(text.as_bytes(), mode, &mut out);
        assert_eq!(decoded, expect.is_some(), "{text} {mode:?}");
        let expect = format!("before{}", expect.unwrap_or_default());
        assert_eq!(String::from_utf8_lossy(&out), expect, "{text} {mode:?}");
    }

    #[test]
    fn the_modes_differ_in_what_they_make_of_other_characters() {
        use Base64Mode::{Rfc2045, Rfc4648, Strict};
        for mode in [Rfc4648, Rfc2045, Strict] {
            check("U3VyaWNhdGE=", mode, Some("Suricata"));
            check("U3VyaWNhdGEhIQ==", mode, Some("Suricata!!"));
            check("", mode, Some(""));
        }
        check("U3Vy\r\naWNhdGE=", Rfc2045, Some("Suricata"));
        check("U3Vy\r\naWNhdGE=", Rfc4648, Some("Sur"));
        check("U3Vy\r\naWNhdGE=", Strict, None);
        check("U3VyaWNhdGE", Rfc4648, Some("Suricata"));
        check("U3VyaWNhdGE", Strict, None);
        check("U3==aWNh", Rfc4648, Some("S"));
        check("U3==aWNh", Strict, None);
        check("U", Rfc4648, Some(""));
    }
}
