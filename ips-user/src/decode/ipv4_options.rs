//! IPv4 options (RFC 791 §3.1; IANA, "IP option numbers").

use super::event::{DecodeEvent as Event, EventSet};

/// Option types.
mod option {
    pub(super) const END: u8 = 0;
    pub(super) const NO_OPERATION: u8 = 1;
    pub(super) const RECORD_ROUTE: u8 = 7;
    pub(super) const QUICK_START: u8 = 25;
    pub(super) const TIMESTAMP: u8 = 68;
    pub(super) const SECURITY: u8 = 130;
    pub(super) const LOOSE_ROUTE: u8 = 131;
    pub(super) const EXTENDED_SECURITY: u8 = 133;
    pub(super) const COMMERCIAL_SECURITY: u8 = 134;
    pub(super) const STREAM_ID: u8 = 136;
    pub(super) const STRICT_ROUTE: u8 = 137;
    pub(super) const ROUTER_ALERT: u8 = 148;
}

/// Which options a packet has, for `ipopts`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ipv4Options {
    /// One bit for each type that was met, the bit's number being the type: types below 32 in
    /// the first word, 64 to 95 in the third, 128 to 159 in the fifth.
    seen: [u32; 8],
}

impl Ipv4Options {
    /// The types of a header's options, as far as they can be walked.
    pub fn of(options: &[u8]) -> Self {
        check(options, &mut EventSet::default())
    }

    /// Whether an option of this type is there.
    pub const fn has(&self, kind: u8) -> bool {
        self.seen[kind as usize / 32] & 1 << (kind % 32) != 0
    }

    /// Whether there is any.
    pub fn any(&self) -> bool {
        self.seen != [0; 8]
    }

    /// Whether the source has given a route.
    pub const fn source_routed(&self) -> bool {
        self.has(option::LOOSE_ROUTE) || self.has(option::STRICT_ROUTE)
    }

    fn add(&mut self, kind: u8) {
        self.seen[usize::from(kind / 32)] |= 1 << (kind % 32);
    }
}

/// Walks the options, tells what is wrong with them, and returns what was met.
pub(super) fn check(mut options: &[u8], events: &mut EventSet) -> Ipv4Options {
    let mut found = Ipv4Options::default();
    // RFC 791 pads to 32 bits, which the header length sees to; some expect 64.
    if !options.len().is_multiple_of(8) {
        events.insert(Event::Ipv4OptionPadRequired);
    }
    while let Some((&kind, rest)) = options.split_first() {
        match kind {
            option::END => {
                found.add(kind);
                break;
            }
            option::NO_OPERATION => {
                found.add(kind);
                options = rest;
                continue;
            }
            _ => {}
        }
        let Some(&len) = rest.first() else {
            // One byte is left, and the only options of one byte are the two above.
            events.insert(Event::Ipv4OptionEndRequired);
            break;
        };
        let whole = options.split_at_checked(usize::from(len));
        let Some((option, rest)) = whole.filter(|_| len >= 2) else {
            events.insert(Event::Ipv4OptionInvalidLength);
            break;
        };
        if found.has(kind) {
            events.insert(Event::Ipv4OptionDuplicate);
        } else if let Err(event) = content(option) {
            events.insert(event);
            if event == Event::Ipv4OptionInvalidLength {
                found.add(kind);
                break;
            }
        }
        found.add(kind);
        options = rest;
    }
    if found.has(option::LOOSE_ROUTE) && found.has(option::STRICT_ROUTE) {
        // RFC 1122 §3.2.1.8: at most one source route.
        events.insert(Event::Ipv4OptionInvalid);
    }
    found
}

fn content(option: &[u8]) -> Result<(), Event> {
    let length = |right: bool| right.then_some(()).ok_or(Event::Ipv4OptionInvalidLength);
    let form = |right: bool| right.then_some(()).ok_or(Event::Ipv4OptionMalformed);
    let len = option.len();
    let at = |index: usize| option.get(index).copied().map_or(0, usize::from);
    match option[0] {
        option::RECORD_ROUTE | option::LOOSE_ROUTE | option::STRICT_ROUTE => {
            length(len >= 3)?;
            // Points behind the option when it is full.
            form(at(2) >= 4 && at(2).is_multiple_of(4) && at(2) <= len + 1)
        }
        option::TIMESTAMP => {
            length(len >= 4)?;
            let entry = match at(3) & 0x0f {
                0 => 4,
                1 | 3 => 8,
                _ => return Err(Event::Ipv4OptionMalformed),
            };
            form(at(2) >= 5 && (at(2) - 5).is_multiple_of(entry) && at(2) <= len + 1)
        }
        option::SECURITY => length(len == 11),
        option::EXTENDED_SECURITY => length(len >= 3),
        option::COMMERCIAL_SECURITY => {
            length(len >= 8)?;
            // Tags of type, length, content up to the end.
            let mut tags = &option[6..];
            while let Some(&tag_len) = tags.get(1) {
                form(tag_len >= 2)?;
                tags = tags
                    .get(usize::from(tag_len)..)
                    .ok_or(Event::Ipv4OptionMalformed)?;
            }
            form(tags.is_empty())
        }
        option::STREAM_ID | option::ROUTER_ALERT => length(len == 4),
        option::QUICK_START => length(len == 8),
        _ => Err(Event::Ipv4OptionUnknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn says(options: &[u8], expect: &[Event]) {
        let mut padded = options.to_vec();
        padded.resize(options.len().next_multiple_of(8), 0);
        let mut events = EventSet::default();
        check(&padded, &mut events);
        assert_eq!(events, expect.iter().copied().collect(), "{options:02x?}");
    }

    #[test]
    fn options_are_judged_by_their_own_rules() {
        says(&[], &[]);
        says(&[1, 1, 1, 0, 0xff], &[]);
        says(&[7, 7, 4, 0, 0, 0, 0], &[]);
        says(&[7, 7, 8, 1, 1, 1, 1], &[]);
        says(&[7, 7, 9, 1, 1, 1, 1], &[Event::Ipv4OptionMalformed]);
        says(&[131, 2], &[Event::Ipv4OptionInvalidLength]);
        says(&[148, 4, 0, 0], &[]);
        says(&[148, 4, 0, 0, 148, 4, 0, 0], &[Event::Ipv4OptionDuplicate]);
        says(&[130, 2, 0xf1, 0x35], &[Event::Ipv4OptionInvalidLength]);
        says(&[130, 1], &[Event::Ipv4OptionInvalidLength]);
        says(&[130, 60], &[Event::Ipv4OptionInvalidLength]);
        says(&[99, 4, 0, 0], &[Event::Ipv4OptionUnknown]);
        says(&[68, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[]);
        says(&[68, 4, 5, 2], &[Event::Ipv4OptionMalformed]);
        says(&[134, 10, 0, 0, 0, 1, 1, 4, 0, 1], &[]);
        says(
            &[134, 10, 0, 0, 0, 1, 1, 5, 0, 1],
            &[Event::Ipv4OptionMalformed],
        );
        says(&[131, 3, 4, 137, 3, 4, 0, 0], &[Event::Ipv4OptionInvalid]);
        says(&[1, 1, 1, 1, 1, 1, 1, 7], &[Event::Ipv4OptionEndRequired]);
        let mut events = EventSet::default();
        check(&[1; 4], &mut events);
        assert!(events.contains(Event::Ipv4OptionPadRequired));
    }

    #[test]
    fn types_are_found() {
        let options = Ipv4Options::of(&[1, 7, 3, 4, 148, 4, 0, 0]);
        assert!(options.has(1) && options.has(7) && options.has(148) && options.any());
        assert!(!options.has(0) && !options.has(131));
        assert!(!Ipv4Options::of(&[]).any());
    }
}
