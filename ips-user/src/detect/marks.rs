//! What rules have noted about a flow: bits, numbers, captured values, tags, counts. It goes
//! where the flow goes.

use super::PacketDirection;
use super::names::NameId;
use super::tag::Tagged;
use super::threshold::Counted;
use crate::bounded::heap;

/// Most captured values of a flow; further ones replace none.
const MAX_TEXTS: usize = 64;

/// Rules that are asked once for each direction of a flow.
#[derive(Clone, Copy, Debug)]
pub(super) enum Once {
    /// About addresses: with its first packet.
    Addresses,
    /// About the application protocol: once it is known.
    Protocol,
}

/// What rules have noted about a flow. Nothing is allocated for a flow about which nothing is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowMarks {
    /// Ascending.
    bits: Vec<NameId>,
    /// Ascending by name.
    ints: Vec<(NameId, u32)>,
    /// Ascending by name.
    texts: Vec<(NameId, Box<[u8]>)>,
    /// Packets that are recorded.
    pub(super) tags: Vec<Tagged>,
    /// Matches counted for thresholds of the flow, by rule.
    pub(super) counts: Vec<(u64, Counted)>,
    /// What was asked once for each direction: see [`Once`].
    asked: u8,
}

impl FlowMarks {
    /// Whether a flow bit is set.
    pub fn bit(&self, name: NameId) -> bool {
        self.bits.binary_search(&name).is_ok()
    }

    /// The flow bits that are set.
    pub fn bits(&self) -> &[NameId] {
        &self.bits
    }

    pub(super) fn set_bit(&mut self, name: NameId, set: bool) {
        match (self.bits.binary_search(&name), set) {
            (Err(place), true) => self.bits.insert(place, name),
            (Ok(place), false) => {
                self.bits.remove(place);
            }
            _ => {}
        }
    }

    /// Bytes that they take besides their place in the flow.
    pub fn taken(&self) -> usize {
        fn of<T>(vector: &Vec<T>) -> usize {
            heap(vector.capacity() * size_of::<T>())
        }
        let texts = self.texts.iter().map(|(_, text)| heap(text.len()));
        of(&self.bits)
            + of(&self.ints)
            + of(&self.texts)
            + of(&self.tags)
            + of(&self.counts)
            + texts.sum::<usize>()
    }

    /// Forgets captured values; whether there were any.
    pub fn forget_texts(&mut self) -> bool {
        !std::mem::take(&mut self.texts).is_empty()
    }

    /// A flow variable, if it has been set.
    pub fn int(&self, name: NameId) -> Option<u32> {
        let place = self.ints.binary_search_by_key(&name, |(name, _)| *name);
        place.ok().map(|place| self.ints[place].1)
    }

    /// The flow variables that have been set.
    pub fn ints(&self) -> &[(NameId, u32)] {
        &self.ints
    }

    pub(super) fn set_int(&mut self, name: NameId, value: u32) {
        match self.ints.binary_search_by_key(&name, |(name, _)| *name) {
            Ok(place) => self.ints[place].1 = value,
            Err(place) => self.ints.insert(place, (name, value)),
        }
    }

    /// Values that expressions have captured for the flow.
    pub fn texts(&self) -> impl Iterator<Item = (NameId, &[u8])> {
        self.texts.iter().map(|(name, value)| (*name, &**value))
    }

    pub(super) fn set_text(&mut self, name: NameId, value: &[u8]) {
        // In the order in which they came first: records show them so.
        match self.texts.iter().position(|(other, _)| *other == name) {
            Some(place) => self.texts[place].1 = value.into(),
            None if self.texts.len() >= MAX_TEXTS => {}
            None => self.texts.push((name, value.into())),
        }
    }

    /// Sets a bit and a value of this name.
    #[cfg(test)]
    pub(crate) fn note_for_test(&mut self, name: NameId, value: &[u8]) {
        self.set_bit(name, true);
        self.set_text(name, value);
    }

    /// The application protocol is not what it seemed to be: rules about it are asked again.
    pub(crate) fn ask_for_protocol(&mut self) {
        let bits = 0b11 << (2 * Once::Protocol as usize);
        self.asked &= !bits;
    }

    /// Whether these rules are to be asked: they were not yet in this direction.
    pub(super) fn first(&mut self, what: Once, direction: PacketDirection) -> bool {
        let bit = 1 << (2 * what as usize + direction.number());
        let first = self.asked & bit == 0;
        self.asked |= bit;
        first
    }

    /// Appends them to what a successor is given.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.asked);
        put(out, self.bits.len());
        for bit in &self.bits {
            out.extend_from_slice(&bit.0.to_le_bytes());
        }
        put(out, self.ints.len());
        for (name, value) in &self.ints {
            out.extend_from_slice(&name.0.to_le_bytes());
            out.extend_from_slice(&value.to_le_bytes());
        }
        put(out, self.texts.len());
        for (name, value) in &self.texts {
            out.extend_from_slice(&name.0.to_le_bytes());
            put(out, value.len());
            out.extend_from_slice(value);
        }
        put(out, self.tags.len());
        for tag in &self.tags {
            tag.encode(out);
        }
        put(out, self.counts.len());
        for (rule, counted) in &self.counts {
            out.extend_from_slice(&rule.to_le_bytes());
            counted.encode(out);
        }
    }

    /// Takes what [`FlowMarks::encode`] has written from the front of `bytes`; `None` when it is
    /// something else.
    pub fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let mut marks = Self {
            asked: take::<1>(bytes)?[0],
            ..Self::default()
        };
        for _ in 0..length(bytes)? {
            marks.set_bit(name(bytes)?, true);
        }
        for _ in 0..length(bytes)? {
            let name = name(bytes)?;
            marks.set_int(name, u32::from_le_bytes(take(bytes)?));
        }
        for _ in 0..length(bytes)? {
            let name = name(bytes)?;
            let length = length(bytes)?;
            let (value, rest) = bytes.split_at_checked(length)?;
            *bytes = rest;
            marks.set_text(name, value);
        }
        for _ in 0..length(bytes)? {
            marks.tags.push(Tagged::decode(bytes)?);
        }
        for _ in 0..length(bytes)? {
            let rule = u64::from_le_bytes(take(bytes)?);
            marks.counts.push((rule, Counted::decode(bytes)?));
        }
        Some(marks)
    }
}

fn put(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(&(length as u32).to_le_bytes());
}

/// Takes so many bytes.
pub(super) fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

fn length(bytes: &mut &[u8]) -> Option<usize> {
    // Each element takes at least a byte: more than there are is no length.
    let length = u32::from_le_bytes(take(bytes)?) as usize;
    (length <= bytes.len()).then_some(length)
}

fn name(bytes: &mut &[u8]) -> Option<NameId> {
    Some(NameId(u64::from_le_bytes(take(bytes)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Timestamp;

    fn marked() -> FlowMarks {
        let mut marks = FlowMarks::default();
        for name in ["c", "a", "b", "a"] {
            marks.set_bit(NameId::of(name), true);
        }
        marks.set_bit(NameId::of("b"), false);
        marks.set_bit(NameId::of("never"), false);
        marks.set_int(NameId::of("n"), 1);
        marks.set_int(NameId::of("n"), 5);
        marks.set_text(NameId::of("t"), b"old");
        marks.set_text(NameId::of("t"), b"value");
        assert!(marks.first(Once::Addresses, PacketDirection::ToClient));
        marks.counts.push((7, Counted::at(Timestamp::default())));
        marks
    }

    #[test]
    fn the_latest_word_about_a_name_counts() {
        let mut marks = marked();
        assert_eq!(marks.bits().len(), 2);
        assert!(marks.bit(NameId::of("a")) && !marks.bit(NameId::of("b")));
        assert_eq!(marks.int(NameId::of("n")), Some(5));
        assert_eq!(marks.int(NameId::of("m")), None);
        let texts: Vec<_> = marks.texts().collect();
        assert_eq!(texts, [(NameId::of("t"), &b"value"[..])]);
        assert!(marks.first(Once::Addresses, PacketDirection::ToServer));
        assert!(!marks.first(Once::Addresses, PacketDirection::ToServer));
        assert!(!marks.first(Once::Addresses, PacketDirection::ToClient));
    }

    #[test]
    fn captured_values_of_a_flow_are_bounded() {
        let mut marks = FlowMarks::default();
        for number in 0..1000 {
            marks.set_text(NameId(number), b"x");
        }
        assert_eq!(marks.texts().count(), MAX_TEXTS);
    }

    #[test]
    fn they_go_over_whole_or_not_at_all() {
        let marks = marked();
        let mut bytes = Vec::new();
        marks.encode(&mut bytes);
        let mut rest = &[&bytes[..], b"next"].concat()[..];
        assert_eq!(FlowMarks::decode(&mut rest), Some(marks));
        assert_eq!(rest, b"next");
        for length in 0..bytes.len() {
            assert_eq!(FlowMarks::decode(&mut &bytes[..length]), None, "{length}");
        }
        assert_eq!(FlowMarks::decode(&mut &[0xff; 64][..]), None);
    }
}
