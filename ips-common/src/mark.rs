//! The part of `skb->mark` that belongs to Sluice.
//!
//! Inside the configured mask the value 0 means "not steered", 1 to n means worker 0 to n-1,
//! the largest value means "released, do not queue" and the one below it "backup". Nothing
//! outside the mask is ever written, so shaping and policy routing keep their bits.

use core::fmt;

/// Where a packet shall go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steer {
    /// No decision: the packet is not queued.
    Unset,
    /// To the queue of worker `0..n`.
    Worker(u32),
    /// To the backup's queue.
    Backup,
    /// Not to be queued: released by a verdict.
    Bypass,
}

/// Why a mask cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkError {
    /// The mask has no bits, or its bits are not adjacent.
    NotContiguous(u32),
    /// The mask is too narrow for that many workers, a backup, "unset" and "bypass".
    TooNarrow {
        /// Workers asked for.
        workers: u32,
        /// Workers that fit.
        fits: u32,
    },
}

impl fmt::Display for MarkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotContiguous(mask) => {
                write!(f, "mark mask {mask:#010x} must be one run of adjacent bits")
            }
            Self::TooNarrow { workers, fits } => {
                write!(
                    f,
                    "the mark mask has room for {fits} workers, not for {workers}"
                )
            }
        }
    }
}

impl core::error::Error for MarkError {}

/// The mask and where it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkLayout {
    mask: u32,
    shift: u32,
}

impl MarkLayout {
    /// Checks that `mask` is one run of bits wide enough for `workers`.
    ///
    /// # Errors
    /// See [`MarkError`].
    pub const fn new(mask: u32, workers: u32) -> Result<Self, MarkError> {
        if mask == 0 {
            return Err(MarkError::NotContiguous(mask));
        }
        let layout = Self {
            mask,
            shift: mask.trailing_zeros(),
        };
        let largest = layout.largest();
        if largest & largest.wrapping_add(1) != 0 {
            return Err(MarkError::NotContiguous(mask));
        }
        let fits = largest.saturating_sub(2);
        if workers > fits {
            return Err(MarkError::TooNarrow { workers, fits });
        }
        Ok(layout)
    }

    /// The layout as stored in a [`crate::SteerConfig`], which was checked when written.
    #[inline(always)]
    pub const fn from_parts(mask: u32, shift: u32) -> Self {
        Self {
            mask,
            shift: shift & 31,
        }
    }

    /// The mask.
    #[inline(always)]
    pub const fn mask(self) -> u32 {
        self.mask
    }

    /// Position of the mask's lowest bit.
    #[inline(always)]
    pub const fn shift(self) -> u32 {
        self.shift
    }

    #[inline(always)]
    const fn largest(self) -> u32 {
        self.mask >> self.shift
    }

    /// The bits inside the mask for a decision.
    #[inline(always)]
    pub const fn bits(self, steer: Steer) -> u32 {
        let value = match steer {
            Steer::Unset => 0,
            Steer::Worker(index) => index + 1,
            Steer::Backup => self.largest().wrapping_sub(1),
            Steer::Bypass => self.largest(),
        };
        (value << self.shift) & self.mask
    }

    /// `mark` with the decision in it and every bit outside the mask as it was.
    #[inline(always)]
    pub const fn write(self, mark: u32, steer: Steer) -> u32 {
        (mark & !self.mask) | self.bits(steer)
    }

    /// The decision that a mark holds.
    #[inline(always)]
    pub const fn read(self, mark: u32) -> Steer {
        let value = (mark & self.mask) >> self.shift;
        let largest = self.largest();
        if value == 0 {
            Steer::Unset
        } else if value == largest {
            Steer::Bypass
        } else if value == largest - 1 {
            Steer::Backup
        } else {
            Steer::Worker(value - 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_decision_survives_the_mark_and_nothing_else_changes(
            width in 2u32..=16, shift in 0u32..16, mark: u32, index in 0u32..70_000,
        ) {
            let mask = ((1u32 << width) - 1) << shift;
            let fits = (1u32 << width) - 3;
            let layout = MarkLayout::new(mask, fits).unwrap();
            let index = index % fits.max(1);
            let mut decisions = vec![Steer::Unset, Steer::Backup, Steer::Bypass];
            if fits > 0 {
                decisions.push(Steer::Worker(index));
            }
            for steer in decisions {
                let written = layout.write(mark, steer);
                prop_assert_eq!(written & !mask, mark & !mask);
                prop_assert_eq!(layout.read(written), steer);
            }
        }
    }

    #[test]
    fn unusable_masks_are_refused() {
        assert_eq!(MarkLayout::new(0, 1), Err(MarkError::NotContiguous(0)));
        assert_eq!(MarkLayout::new(0x5, 1), Err(MarkError::NotContiguous(5)));
        assert_eq!(
            MarkLayout::new(0xff, 254),
            Err(MarkError::TooNarrow {
                workers: 254,
                fits: 253
            })
        );
        assert!(MarkLayout::new(0xffff_0000, 65_533).is_ok());
        assert!(MarkLayout::new(u32::MAX, 1024).is_ok());
    }

    extern crate std;
    use std::vec;
}
