//! Values of header fields: a word with parameters (RFC 2045, section 5.1; RFC 2183; RFC 2231).

use std::borrow::Cow;

/// What stands in front of the first `;`, in small letters.
pub(super) fn word(value: &[u8]) -> Vec<u8> {
    let word = value.split(|it| *it == b';').next().unwrap_or_default();
    word.trim_ascii().to_ascii_lowercase()
}

/// The value of a parameter; it can come in numbered pieces, and with `%` and digits for what is
/// not printable.
pub(super) fn parameter(value: &[u8], wanted: &str) -> Option<Vec<u8>> {
    let mut pieces: Vec<(u32, Vec<u8>)> = Vec::new();
    for (name, text) in parameters(value) {
        let Some(rest) = strip_name(name, wanted) else {
            continue;
        };
        let (rest, extended) = match rest {
            [rest @ .., b'*'] => (rest, true),
            rest => (rest, false),
        };
        let number = match rest {
            [] => 0,
            [b'*', digits @ ..] => {
                let digits = std::str::from_utf8(digits).ok();
                match digits.and_then(|it| it.parse().ok()) {
                    Some(number) => number,
                    None => continue,
                }
            }
            _ => continue,
        };
        let text = match extended {
            true => unescape(&text, number == 0),
            false => text.into_owned(),
        };
        pieces.push((number, text));
    }
    if pieces.is_empty() {
        return None;
    }
    // Of two with one number the first counts.
    pieces.sort_by_key(|it| it.0);
    pieces.dedup_by_key(|it| it.0);
    Some(pieces.into_iter().flat_map(|it| it.1).collect())
}

fn strip_name<'a>(name: &'a [u8], wanted: &str) -> Option<&'a [u8]> {
    let (front, rest) = name.split_at_checked(wanted.len())?;
    front
        .eq_ignore_ascii_case(wanted.as_bytes())
        .then_some(rest)
}

/// Names and values behind the first `;`. Whatever is wrong about them, what can be read is.
fn parameters(value: &[u8]) -> impl Iterator<Item = (&[u8], Cow<'_, [u8]>)> {
    let mut rest = after_semicolon(value);
    std::iter::from_fn(move || {
        loop {
            let end = rest.iter().position(|it| matches!(it, b'=' | b';'))?;
            let name = rest[..end].trim_ascii();
            let behind = &rest[end + 1..];
            if rest[end] == b';' {
                rest = behind;
                continue;
            }
            let (text, after) = text(behind.trim_ascii_start());
            rest = after;
            return Some((name, text));
        }
    })
}

fn after_semicolon(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|it| *it == b';');
    end.map_or(&[], |end| &bytes[end + 1..])
}

/// A value, quoted or not, and what stands behind the `;` that ends it.
fn text(bytes: &[u8]) -> (Cow<'_, [u8]>, &[u8]) {
    let Some(quoted) = bytes.strip_prefix(b"\"") else {
        let end = bytes.iter().position(|it| *it == b';');
        let end = end.unwrap_or(bytes.len());
        let rest = bytes.get(end + 1..).unwrap_or_default();
        return (bytes[..end].trim_ascii().into(), rest);
    };
    let mut out = Vec::new();
    let mut rest = quoted.iter();
    while let Some(byte) = rest.next() {
        match byte {
            b'"' => break,
            b'\\' => out.extend(rest.next()),
            byte => out.push(*byte),
        }
    }
    (out.into(), after_semicolon(rest.as_slice()))
}

/// `%41` becomes `A`; in front of the `first` piece character set and language stand between `'`.
fn unescape(text: &[u8], first: bool) -> Vec<u8> {
    let mut quotes = text.iter().enumerate().filter(|(_, it)| **it == b'\'');
    let text = match (first, quotes.nth(1)) {
        (true, Some((end, _))) => &text[end + 1..],
        _ => text,
    };
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let digit = |at: usize| after.get(at).and_then(|it| char::from(*it).to_digit(16));
        match (byte, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high << 4 | low) as u8);
                rest = &after[2..];
            }
            _ => {
                out.push(byte);
                rest = after;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_in_all_their_forms() {
        for (value, expected) in [
            (r#"attachment; filename="a.exe""#, Some("a.exe")),
            ("attachment;filename=a.exe", Some("a.exe")),
            (
                r#"attachment; FileName = "a;\"b\".exe"; size=3"#,
                Some("a;\"b\".exe"),
            ),
            (
                "attachment; filename*0=one.; filename*1=exe",
                Some("one.exe"),
            ),
            (
                "a; filename*1*=%65xe; filename*0*=UTF-8''a%2E",
                Some("a.exe"),
            ),
            ("a; filename*=utf-8'en'%61.exe", Some("a.exe")),
            ("a; x; filename=a.exe; filename=b.txt", Some("a.exe")),
            (r#"a; filename="never ends"#, Some("never ends")),
            ("a; filenames=a.exe", None),
            ("filename=a.exe", None),
            ("", None),
        ] {
            let found = parameter(value.as_bytes(), "filename");
            let found = found.map(|it| String::from_utf8(it).unwrap());
            assert_eq!(found.as_deref(), expected, "{value}");
        }
        assert_eq!(word(b" Multipart/Mixed ; x"), b"multipart/mixed");
    }
}
