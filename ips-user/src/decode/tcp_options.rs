//! TCP options (RFC 9293 §3.1; IANA, "TCP Option Kind Numbers").

use super::event::{DecodeEvent as Event, EventSet};

mod kind {
    pub(super) const END: u8 = 0;
    pub(super) const NO_OPERATION: u8 = 1;
    pub(super) const MSS: u8 = 2;
    pub(super) const WINDOW_SCALE: u8 = 3;
    pub(super) const SACK_PERMITTED: u8 = 4;
    pub(super) const SACK: u8 = 5;
    pub(super) const TIMESTAMPS: u8 = 8;
    pub(super) const MD5: u8 = 19;
    pub(super) const AUTHENTICATION: u8 = 29;
    pub(super) const FAST_OPEN: u8 = 34;
    pub(super) const EXPERIMENT_1: u8 = 253;
    pub(super) const EXPERIMENT_2: u8 = 254;
}

/// The magic number of fast open while it was an experiment, RFC 7413 §4.1.1.
const FAST_OPEN_MAGIC: [u8; 2] = [0xf9, 0x89];

/// What a segment's options say; the first of each kind, when it has the right length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpOptions<'a> {
    /// Maximum segment size.
    pub mss: Option<u16>,
    /// Window scale as sent: more than 14 means 14 (RFC 7323 §2.3).
    pub window_scale: Option<u8>,
    /// Selective acknowledgements are permitted.
    pub sack_permitted: bool,
    /// Blocks of selective acknowledgements, eight bytes each.
    sack: &'a [u8],
    /// Timestamp and echo.
    pub timestamps: Option<(u32, u32)>,
    /// Fast open cookie; empty: one is asked for.
    pub fast_open: Option<&'a [u8]>,
    /// A signature, RFC 2385 or RFC 5925.
    pub authenticated: bool,
    /// Whether the walk met something wrong: a length that cannot be, or a second option of a
    /// kind. What is above is from before that.
    pub malformed: bool,
}

impl<'a> TcpOptions<'a> {
    /// Reads the bytes between the fixed header and the payload.
    pub fn parse(options: &'a [u8]) -> Self {
        Self::checked(options, &mut EventSet::default())
    }

    /// Left and right edges of the selectively acknowledged blocks.
    pub fn sack_blocks(&self) -> impl Iterator<Item = (u32, u32)> + 'a {
        self.sack.chunks_exact(8).map(|block| {
            let edge = |at: usize| {
                block[at..]
                    .first_chunk()
                    .map_or(0, |bytes| u32::from_be_bytes(*bytes))
            };
            (edge(0), edge(4))
        })
    }

    pub(super) fn checked(mut bytes: &'a [u8], events: &mut EventSet) -> Self {
        let mut found = Self::default();
        while let [option, rest @ ..] = bytes {
            match *option {
                kind::END => break,
                kind::NO_OPERATION => {
                    bytes = rest;
                    continue;
                }
                _ => {}
            }
            let Some(&len) = rest.first() else {
                // One byte is left: what does not fit is padding.
                break;
            };
            let split = bytes.split_at_checked(usize::from(len));
            let Some((option, rest)) = split.filter(|_| len >= 2) else {
                events.insert(Event::TcpOptionInvalidLength);
                found.malformed = true;
                break;
            };
            if let Err(event) = found.add(option[0], &option[2..]) {
                events.insert(event);
                found.malformed = true;
            }
            bytes = rest;
        }
        found
    }

    fn add(&mut self, kind: u8, content: &'a [u8]) -> Result<(), Event> {
        const LENGTH: Event = Event::TcpOptionInvalidLength;
        const DUPLICATE: Event = Event::TcpOptionDuplicate;
        fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), Event> {
            match slot {
                Some(_) => Err(DUPLICATE),
                None => {
                    *slot = Some(value);
                    Ok(())
                }
            }
        }
        let flag = |flag: &mut bool, len| match (content.len() == len, *flag) {
            (false, _) => Err(LENGTH),
            (true, true) => Err(DUPLICATE),
            (true, false) => {
                *flag = true;
                Ok(())
            }
        };
        match kind {
            kind::MSS => match *content {
                [high, low] => once(&mut self.mss, u16::from_be_bytes([high, low])),
                _ => Err(LENGTH),
            },
            kind::WINDOW_SCALE => match *content {
                [shift] => once(&mut self.window_scale, shift),
                _ => Err(LENGTH),
            },
            kind::SACK_PERMITTED => flag(&mut self.sack_permitted, 0),
            kind::SACK => {
                if content.is_empty() || !content.len().is_multiple_of(8) || content.len() > 32 {
                    Err(LENGTH)
                } else if self.sack.is_empty() {
                    self.sack = content;
                    Ok(())
                } else {
                    Err(DUPLICATE)
                }
            }
            kind::TIMESTAMPS => match *content {
                [a, b, c, d, e, f, g, h] => {
                    let value = u32::from_be_bytes([a, b, c, d]);
                    let echo = u32::from_be_bytes([e, f, g, h]);
                    once(&mut self.timestamps, (value, echo))
                }
                _ => Err(LENGTH),
            },
            kind::FAST_OPEN => self.fast_open(content),
            kind::EXPERIMENT_1 | kind::EXPERIMENT_2 => {
                match content.strip_prefix(&FAST_OPEN_MAGIC) {
                    Some(cookie) => self.fast_open(cookie),
                    None => Ok(()),
                }
            }
            kind::MD5 => flag(&mut self.authenticated, 16),
            kind::AUTHENTICATION if content.len() < 2 => Err(LENGTH),
            kind::AUTHENTICATION if self.authenticated => Err(DUPLICATE),
            kind::AUTHENTICATION => {
                self.authenticated = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// RFC 7413 §4.1.1: no cookie, or 4 to 16 bytes, an even number.
    fn fast_open(&mut self, cookie: &'a [u8]) -> Result<(), Event> {
        let right = cookie.is_empty() || (4..=16).contains(&cookie.len());
        if !right || !cookie.len().is_multiple_of(2) {
            return Err(Event::TcpOptionInvalidLength);
        }
        if self.fast_open.is_some() {
            return Err(Event::TcpOptionDuplicate);
        }
        self.fast_open = Some(cookie);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> (TcpOptions<'_>, Vec<&'static str>) {
        let mut events = EventSet::default();
        let options = TcpOptions::checked(bytes, &mut events);
        assert_eq!(options.malformed, !events.is_empty());
        (options, events.iter().map(Event::name).collect())
    }

    #[test]
    fn every_option_is_read() {
        let bytes = [
            2, 4, 5, 180, 1, 3, 3, 7, 4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 5, 5, 10, 0, 0, 0, 1, 0, 0,
            0, 2, 34, 6, 1, 2, 3, 4, 0, 99,
        ];
        let (options, events) = read(&bytes);
        assert_eq!(events, [""; 0]);
        assert_eq!((options.mss, options.window_scale), (Some(1460), Some(7)));
        assert!(options.sack_permitted && !options.authenticated);
        assert_eq!(options.timestamps, Some((9, 5)));
        assert_eq!(options.sack_blocks().collect::<Vec<_>>(), [(1, 2)]);
        assert_eq!(options.fast_open, Some(&[1, 2, 3, 4][..]));
        let (options, _) = read(&[254, 8, 0xf9, 0x89, 1, 2, 3, 4]);
        assert_eq!(options.fast_open, Some(&[1, 2, 3, 4][..]));
        let (options, _) = read(&[
            34, 2, 19, 18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ]);
        assert_eq!(options.fast_open, Some(&[][..]));
        assert!(options.authenticated);
    }

    #[test]
    fn wrong_and_repeated_options_are_told_and_not_used() {
        const LENGTH: &str = "tcp.opt_invalid_len";
        for wrong in [
            &[2, 3, 5][..],
            &[3, 2],
            &[4, 3, 0],
            &[8, 9, 0, 0, 0, 0, 0, 0, 0],
            &[5, 2],
            &[5, 9, 0, 0, 0, 0, 0, 0, 0],
            &[34, 4, 1, 2],
            &[34, 7, 1, 2, 3, 4, 5],
            &[2, 1],
            &[2, 0],
            &[2, 40],
            &[77, 99],
        ] {
            let (options, events) = read(wrong);
            assert_eq!(events, [LENGTH], "{wrong:?}");
            let empty = TcpOptions {
                malformed: true,
                ..TcpOptions::default()
            };
            assert_eq!(options, empty, "{wrong:?}");
        }
        let (options, events) = read(&[2, 4, 0, 1, 2, 4, 0, 2, 3, 3, 4]);
        assert_eq!(events, ["tcp.opt_duplicate"]);
        assert_eq!((options.mss, options.window_scale), (Some(1), Some(4)));
        assert_eq!(read(&[2]).1, [""; 0]);
    }
}
