//! Whose data a receiver keeps when two segments overlap: target-based reassembly (Novak,
//! Sturges: "Target-Based TCP Stream Reassembly", 2007; Suricata's `host-os-policy`).

macro_rules! policies {
    ($($variant:ident $name:literal $text:literal;)*) => {
        /// How a receiver resolves overlaps.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum OverlapPolicy {
            $(#[doc = $text] $variant,)*
        }

        impl OverlapPolicy {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name in `host-os-policy`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

policies! {
    First "first" "What came first stays.";
    Last "last" "What came last stays.";
    Bsd "bsd" "What came first stays, unless the later segment begins before it.";
    BsdRight "bsd-right" "What came last stays, unless it begins before the earlier segment.";
    OldLinux "old-linux" "Linux 2.2: as BSD, and the later one also stays when both begin together.";
    Linux "linux" "As BSD, and the later one also stays when both begin together and it is longer.";
    OldSolaris "old-solaris" "As Solaris.";
    Solaris "solaris" "The later one stays when it ends after the earlier one, or covers it from before to its end.";
    Hpux10 "hpux10" "As BSD.";
    Hpux11 "hpux11" "As Solaris.";
    Irix "irix" "As BSD.";
    Macos "macos" "As BSD.";
    Windows "windows" "What came first stays, unless the later segment begins before it and ends after it.";
    Vista "vista" "What came first stays.";
    Windows2k3 "windows2k3" "What came first stays.";
}

/// A segment's place in the stream: its first byte, and the one after its last.
pub(super) type Extent = (u64, u64);

impl OverlapPolicy {
    /// The policy of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|policy| policy.name() == name)
    }

    /// Whether a later segment's data takes the place of an earlier one's where they overlap.
    pub(super) const fn later_wins(self, earlier: Extent, later: Extent) -> bool {
        let begins_before = later.0 < earlier.0;
        let begins_together = later.0 == earlier.0;
        let ends_after = later.1 > earlier.1;
        match self {
            Self::First | Self::Vista | Self::Windows2k3 => false,
            Self::Last => true,
            Self::Bsd | Self::Hpux10 | Self::Irix | Self::Macos => begins_before,
            Self::BsdRight => !begins_before,
            Self::OldLinux => begins_before || begins_together,
            Self::Linux => begins_before || (begins_together && ends_after),
            Self::Solaris | Self::OldSolaris | Self::Hpux11 => {
                ends_after || (begins_before && later.1 == earlier.1)
            }
            Self::Windows => begins_before && ends_after,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Relations of a later segment to an earlier one that is at 10..20.
    const RELATIONS: [(&str, Extent); 9] = [
        ("before, into it", (5, 15)),
        ("before, to its end", (5, 20)),
        ("before, beyond it", (5, 25)),
        ("its beginning", (10, 15)),
        ("the same", (10, 20)),
        ("from its beginning, beyond", (10, 25)),
        ("inside", (12, 18)),
        ("its end", (12, 20)),
        ("from inside, beyond", (12, 25)),
    ];

    #[test]
    fn each_policy_decides_each_relation() {
        // One letter a relation: N the later (new) one wins, o the earlier (old) one.
        let table = [
            ("first", "ooooooooo"),
            ("vista", "ooooooooo"),
            ("windows2k3", "ooooooooo"),
            ("last", "NNNNNNNNN"),
            ("bsd", "NNNoooooo"),
            ("hpux10", "NNNoooooo"),
            ("irix", "NNNoooooo"),
            ("macos", "NNNoooooo"),
            ("bsd-right", "oooNNNNNN"),
            ("old-linux", "NNNNNNooo"),
            ("linux", "NNNooNooo"),
            ("solaris", "oNNooNooN"),
            ("old-solaris", "oNNooNooN"),
            ("hpux11", "oNNooNooN"),
            ("windows", "ooNoooooo"),
        ];
        assert_eq!(table.len(), OverlapPolicy::ALL.len());
        for (name, expect) in table {
            let policy = OverlapPolicy::from_name(name).unwrap();
            let found: String = RELATIONS
                .iter()
                .map(|&(_, later)| match policy.later_wins((10, 20), later) {
                    true => 'N',
                    false => 'o',
                })
                .collect();
            assert_eq!(found, expect, "{name}");
        }
    }
}
