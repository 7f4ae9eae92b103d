//! Addresses of pages in the text of a mail.

use memchr::memmem;

use crate::bounded::held;

/// Bytes of a line that are kept until it ends.
const MAX_LINE: usize = 4096;
/// Most addresses of a mail, and bytes of all of them.
const MAX_URLS: usize = 512;
const MAX_BYTES: usize = 64 << 10;

/// What is found.
#[derive(Debug, Default)]
pub(in crate::app::smtp) struct Urls {
    found: Vec<Vec<u8>>,
    bytes: usize,
    /// There were more.
    pub(in crate::app::smtp) more: bool,
}

impl Urls {
    /// In the order in which they came.
    pub(in crate::app::smtp) fn all(&self) -> &[Vec<u8>] {
        &self.found
    }

    /// Bytes that they take besides their place.
    pub(super) fn taken(&self) -> usize {
        held(&self.found) + self.found.iter().map(held).sum::<usize>()
    }

    fn push(&mut self, url: Vec<u8>) {
        if self.found.len() == MAX_URLS || self.bytes + url.len() > MAX_BYTES {
            self.more = true;
            return;
        }
        self.bytes += url.len();
        self.found.push(url);
    }
}

/// A line that has not ended.
#[derive(Debug, Default)]
pub(super) struct Line(Vec<u8>);

impl Line {
    /// Bytes that it takes besides its place.
    pub(super) fn taken(&self) -> usize {
        held(&self.0)
    }

    /// Adds what these bytes of a text bring to `urls`.
    pub(super) fn push(
        &mut self,
        bytes: &[u8],
        (schemes, with_scheme): (&[Vec<u8>], bool),
        urls: &mut Urls,
    ) {
        for line in bytes.split_inclusive(|it| *it == b'\n') {
            for piece in line.chunks(MAX_LINE) {
                self.0.extend_from_slice(piece);
                if self.0.ends_with(b"\n") || self.0.len() >= MAX_LINE {
                    self.flush((schemes, with_scheme), urls);
                }
            }
        }
    }

    /// The line ends.
    pub(super) fn flush(&mut self, (schemes, with_scheme): (&[Vec<u8>], bool), urls: &mut Urls) {
        let line = self.0.to_ascii_lowercase();
        self.0.clear();
        if urls.more {
            return;
        }
        let mut found = Vec::new();
        for scheme in schemes {
            // One that another one contains is part of that.
            let mut free = 0;
            for at in memmem::find_iter(&line, scheme) {
                if at < free {
                    continue;
                }
                let address = at + scheme.len();
                let part = line[address..].iter();
                let len = part.take_while(|it| is_of_url(**it)).count();
                free = address + len;
                if len > 0 {
                    let from = if with_scheme { at } else { address };
                    found.push((at, line[from..address + len].to_vec()));
                }
            }
        }
        found.sort_by_key(|it| it.0);
        found.into_iter().for_each(|it| urls.push(it.1));
    }
}

/// RFC 3986, section 2, without what quotes addresses in text.
fn is_of_url(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&*+,;=%|".contains(&byte)
}

/// What is remarkable about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::app::smtp) enum Trait {
    Executable,
    Ipv4,
    Ipv6,
}

/// Whether it is so of an address, with or without its scheme.
pub(in crate::app::smtp) fn is(url: &[u8], what: Trait) -> bool {
    let url = String::from_utf8_lossy(url);
    let behind = url.split_once("://").map_or(&*url, |it| it.1);
    let end = behind.find(['/', '?', '#']).unwrap_or(behind.len());
    let (authority, path) = behind.split_at(end);
    let host = authority.rsplit_once('@').map_or(authority, |it| it.1);
    match what {
        Trait::Executable => {
            let path = path.split(['?', '#']).next().unwrap_or_default();
            const ENDINGS: [&str; 7] = [".exe", ".vbs", ".bin", ".cmd", ".bat", ".jar", ".js"];
            ENDINGS.iter().any(|it| path.ends_with(it))
        }
        Trait::Ipv6 => host.starts_with('['),
        Trait::Ipv4 => {
            let host = host.split(':').next().unwrap_or_default();
            host.parse::<std::net::Ipv4Addr>().is_ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &[u8], with_scheme: bool) -> Vec<String> {
        let mut all = Vec::new();
        for size in 1..=text.len() {
            let (mut line, mut urls) = (Line::default(), Urls::default());
            let schemes = [b"http://".to_vec(), b"https://".to_vec()];
            for chunk in text.chunks(size) {
                line.push(chunk, (&schemes, with_scheme), &mut urls);
            }
            line.flush((&schemes, with_scheme), &mut urls);
            let texts = urls.all().iter();
            let texts: Vec<_> = texts.map(|it| String::from_utf8_lossy(it).into()).collect();
            assert!(all.is_empty() || all == texts, "{size}");
            all = texts;
        }
        all
    }

    #[test]
    fn addresses_are_found_however_the_text_is_cut() {
        let text =
            b"see <a href=\"HTTP://a.example/B?c=d\"> or https://b.example:8080 \n http:// x";
        assert_eq!(found(text, false), ["a.example/b?c=d", "b.example:8080"]);
        assert_eq!(found(text, true)[1], "https://b.example:8080");
    }

    #[test]
    fn an_address_within_an_address_is_part_of_it() {
        let text = b"http://a.example/?to=http://b.example/ http://c.example/ ";
        let expected = ["a.example/?to=http://b.example/", "c.example/"];
        assert_eq!(found(text, false), expected);
    }

    #[test]
    fn remarkable_addresses_are_told() {
        for (url, what, expected) in [
            ("http://192.0.2.1:80/a", Trait::Ipv4, true),
            ("192.0.2.1/a", Trait::Ipv4, true),
            ("192.0.2.1.example/a", Trait::Ipv4, false),
            ("http://[2001:db8::1]/a", Trait::Ipv6, true),
            ("a.example/a.exe", Trait::Executable, true),
            ("a.example/a.exe?b", Trait::Executable, true),
            ("a.exe", Trait::Executable, false),
        ] {
            assert_eq!(is(url.as_bytes(), what), expected, "{url}");
        }
    }
}
