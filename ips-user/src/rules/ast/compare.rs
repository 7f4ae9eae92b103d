//! Comparisons with a number, as all numeric keywords share them.

/// A condition on an unsigned number. Ranges exclude both of their ends, as Suricata's integer
/// keywords do ("Integer Keywords" in the rules chapter of its user guide).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare<T> {
    /// `n`, `=n`
    Equal(T),
    /// `!n`, `!=n`
    NotEqual(T),
    /// `<n`
    Less(T),
    /// `<=n`
    AtMost(T),
    /// `>n`
    Greater(T),
    /// `>=n`
    AtLeast(T),
    /// `low-high`, `low<>high`: between, without the ends.
    Between(T, T),
    /// `!low-high`: not between.
    NotBetween(T, T),
    /// `&mask`, `&mask=value`: these bits of it are `value`; `&mask` alone: any of them is set.
    Bits {
        /// Bits that count.
        mask: T,
        /// What they must be; any of them set, if absent.
        value: Option<T>,
        /// `!`: the contrary.
        negated: bool,
    },
}

impl<T> Compare<T>
where
    T: Copy + PartialOrd + std::ops::BitAnd<Output = T> + Default,
{
    /// Whether `number` fulfils it.
    #[inline]
    pub fn holds(&self, number: T) -> bool {
        match *self {
            Self::Equal(n) => number == n,
            Self::NotEqual(n) => number != n,
            Self::Less(n) => number < n,
            Self::AtMost(n) => number <= n,
            Self::Greater(n) => number > n,
            Self::AtLeast(n) => number >= n,
            Self::Between(low, high) => low < number && number < high,
            Self::NotBetween(low, high) => !(low < number && number < high),
            Self::Bits {
                mask,
                value,
                negated,
            } => {
                let bits = number & mask;
                let holds = value.map_or(bits != T::default(), |value| bits == value);
                holds != negated
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Compare;

    #[test]
    fn ranges_exclude_their_ends() {
        let between = Compare::Between(10u8, 20);
        for (number, expected) in [(9, false), (10, false), (11, true), (19, true), (20, false)] {
            assert_eq!(between.holds(number), expected, "{number}");
            assert_eq!(Compare::NotBetween(10, 20).holds(number), !expected);
        }
    }

    #[test]
    fn bits_are_compared_under_their_mask() {
        let any = |negated| Compare::Bits {
            mask: 0x0f_u8,
            value: None,
            negated,
        };
        assert!(any(false).holds(0x31) && !any(false).holds(0x30));
        assert!(!any(true).holds(0x31) && any(true).holds(0x30));
        let exact = Compare::Bits {
            mask: 0x0f_u8,
            value: Some(5),
            negated: false,
        };
        assert!(exact.holds(0xf5) && !exact.holds(0x07));
    }
}
