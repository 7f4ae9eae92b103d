//! Sets of numbers as sorted, disjoint ranges: the form in which addresses and ports are
//! matched.

/// An integer that ranges can be made of.
pub trait Number: Copy + Ord {
    /// Smallest value.
    const MIN: Self;
    /// Largest value.
    const MAX: Self;
    /// The value after, if any.
    fn next(self) -> Option<Self>;
    /// The value before, if any.
    fn previous(self) -> Option<Self>;
}

macro_rules! number {
    ($($kind:ty),*) => {$(
        impl Number for $kind {
            const MIN: Self = <$kind>::MIN;
            const MAX: Self = <$kind>::MAX;
            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }
            fn previous(self) -> Option<Self> {
                self.checked_sub(1)
            }
        }
    )*};
}

number!(u16, u32, u128);

/// A set of numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeSet<N>(Vec<(N, N)>);

impl<N: Number> RangeSet<N> {
    /// Nothing.
    pub const fn empty() -> Self {
        Self(Vec::new())
    }

    /// Everything.
    pub fn all() -> Self {
        Self(vec![(N::MIN, N::MAX)])
    }

    /// The union of inclusive ranges; a reversed one counts as empty.
    pub fn of(mut ranges: Vec<(N, N)>) -> Self {
        ranges.retain(|(low, high)| low <= high);
        ranges.sort_unstable();
        let mut merged: Vec<(N, N)> = Vec::with_capacity(ranges.len());
        for (low, high) in ranges {
            match merged.last_mut() {
                Some(last) if last.1.next().is_none_or(|next| low <= next) => {
                    last.1 = last.1.max(high);
                }
                _ => merged.push((low, high)),
            }
        }
        Self(merged)
    }

    /// What is in `self` and not in `other`.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let mut left = Vec::new();
        for &(low, high) in &self.0 {
            let mut from = Some(low);
            for &(cut_low, cut_high) in &other.0 {
                let Some(start) = from else { break };
                if cut_high < start || cut_low > high {
                    continue;
                }
                if let Some(end) = cut_low.previous()
                    && end >= start
                {
                    left.push((start, end));
                }
                from = cut_high.next();
            }
            if let Some(start) = from
                && start <= high
            {
                left.push((start, high));
            }
        }
        Self(left)
    }

    /// Whether `number` is in it.
    #[inline]
    pub fn contains(&self, number: N) -> bool {
        match self.0.as_slice() {
            [] => false,
            [(low, high)] => *low <= number && number <= *high,
            ranges => {
                let after = ranges.partition_point(|&(low, _)| low <= number);
                after > 0 && number <= ranges[after - 1].1
            }
        }
    }

    /// Whether it is everything.
    pub fn is_all(&self) -> bool {
        matches!(self.0.as_slice(), [(low, high)] if *low == N::MIN && *high == N::MAX)
    }

    /// Whether it is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ranges, ascending.
    pub fn ranges(&self) -> &[(N, N)] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn touching_and_overlapping_ranges_are_merged() {
        let set = RangeSet::of(vec![(5u16, 7), (1, 2), (3, 3), (6, 9), (20, 10)]);
        assert_eq!(set.ranges(), [(1, 3), (5, 9)]);
        assert!(RangeSet::of(vec![(0, 10), (11, u16::MAX)]).is_all());
    }

    #[test]
    fn the_ends_of_the_number_line_can_be_cut_off() {
        let all = RangeSet::<u16>::all();
        let ends = RangeSet::of(vec![(0, 0), (u16::MAX, u16::MAX)]);
        assert_eq!(all.without(&ends).ranges(), [(1, u16::MAX - 1)]);
        assert!(all.without(&all).is_empty());
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_list_of_numbers(
            plus in proptest::collection::vec((0u16..40, 0u16..40), 0..6),
            minus in proptest::collection::vec((0u16..40, 0u16..40), 0..6),
        ) {
            let set = RangeSet::of(plus.clone()).without(&RangeSet::of(minus.clone()));
            let within = |ranges: &[(u16, u16)], n| ranges.iter().any(|&(a, b)| a <= n && n <= b);
            for n in 0..45 {
                prop_assert_eq!(set.contains(n), within(&plus, n) && !within(&minus, n));
            }
        }
    }
}
