//! The seeded flow hash: SipHash-1-3 over the canonical key.
//!
//! A keyed hash keeps an attacker from aiming many flows at one worker. SipHash-1-3 is the
//! keyed hash with the fewest operations that still withstands that, and needs nothing but
//! 64-bit additions, rotations and exclusive-ors, which BPF has.

use bytemuck::{Pod, Zeroable};

use crate::FlowKey;

/// Secret of the flow hash, drawn at random when Sluice starts and kept with the pinned maps.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct HashSeed {
    /// Both halves of the 128-bit key.
    pub key: [u64; 2],
}

struct State([u64; 4]);

impl State {
    #[inline(always)]
    const fn round(self) -> Self {
        let Self([mut v0, mut v1, mut v2, mut v3]) = self;
        v0 = v0.wrapping_add(v1);
        v2 = v2.wrapping_add(v3);
        v1 = v1.rotate_left(13) ^ v0;
        v3 = v3.rotate_left(16) ^ v2;
        v0 = v0.rotate_left(32);
        v2 = v2.wrapping_add(v1);
        v0 = v0.wrapping_add(v3);
        v1 = v1.rotate_left(17) ^ v2;
        v3 = v3.rotate_left(21) ^ v0;
        v2 = v2.rotate_left(32);
        Self([v0, v1, v2, v3])
    }

    #[inline(always)]
    const fn absorb(mut self, word: u64) -> Self {
        self.0[3] ^= word;
        self = self.round();
        self.0[0] ^= word;
        self
    }
}

/// Hash of a flow: the same for both directions, on both sides of the kernel boundary.
///
/// Equal to SipHash-1-3 of the key's 40 bytes on a little-endian machine, folded to 32 bits by
/// exclusive-or.
#[inline(always)]
pub const fn flow_hash(seed: HashSeed, key: &FlowKey) -> u32 {
    let words = key.words();
    let mut state = State([
        seed.key[0] ^ 0x736f_6d65_7073_6575,
        seed.key[1] ^ 0x646f_7261_6e64_6f6d,
        seed.key[0] ^ 0x6c79_6765_6e65_7261,
        seed.key[1] ^ 0x7465_6462_7974_6573,
    ]);
    state = state.absorb(words[0]);
    state = state.absorb(words[1]);
    state = state.absorb(words[2]);
    state = state.absorb(words[3]);
    state = state.absorb(words[4]);
    // The closing word holds the length in its top byte.
    state = state.absorb((size_of::<FlowKey>() as u64) << 56);
    state.0[2] ^= 0xff;
    state = state.round().round().round();
    let hash = state.0[0] ^ state.0[1] ^ state.0[2] ^ state.0[3];
    (hash ^ (hash >> 32)) as u32
}

#[cfg(test)]
mod tests {
    use core::hash::Hasher;

    use proptest::prelude::*;
    use siphasher::sip::SipHasher13;

    use super::*;
    use crate::Endpoint;

    fn endpoint() -> impl Strategy<Value = Endpoint> {
        (any::<[u64; 2]>(), any::<u16>()).prop_map(|(address, port)| Endpoint { address, port })
    }

    proptest! {
        #[test]
        fn both_directions_have_the_same_key_and_hash(
            a in endpoint(), b in endpoint(), protocol: u8, family: u8, key: [u64; 2],
        ) {
            let (there, one) = FlowKey::canonical(family, protocol, a, b);
            let (back, other) = FlowKey::canonical(family, protocol, b, a);
            prop_assert_eq!(there, back);
            prop_assert_eq!(there.ends(one), (a, b));
            prop_assert_eq!(back.ends(other), (b, a));
            prop_assert_eq!(
                flow_hash(HashSeed { key }, &there),
                flow_hash(HashSeed { key }, &back)
            );
        }

        #[test]
        fn hash_is_siphash_1_3_of_the_bytes(
            a in endpoint(), b in endpoint(), protocol: u8, key: [u64; 2],
        ) {
            let (flow, _) = FlowKey::canonical(4, protocol, a, b);
            let mut reference = SipHasher13::new_with_keys(key[0], key[1]);
            reference.write(bytemuck::bytes_of(&flow));
            let expected = reference.finish();
            prop_assert_eq!(
                flow_hash(HashSeed { key }, &flow),
                (expected ^ (expected >> 32)) as u32
            );
        }
    }
}
