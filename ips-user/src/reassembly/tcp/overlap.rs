//! Whose data a receiver keeps when two segments overlap: target-based reassembly (Novak,
//! Sturges: "Target-Based TCP Stream Reassembly", 2007; Suricata's `host-os-policy`).

use crate::config::settings::OsPolicy;

/// A segment's place in the stream: its first byte, and the one after its last.
pub(super) type Extent = (u64, u64);

/// Whether a later segment's data takes the place of an earlier one's where they overlap.
pub(super) const fn later_wins(policy: OsPolicy, earlier: Extent, later: Extent) -> bool {
    let begins_before = later.0 < earlier.0;
    let begins_together = later.0 == earlier.0;
    let ends_after = later.1 > earlier.1;
    match policy {
        OsPolicy::First | OsPolicy::Vista | OsPolicy::Windows2k3 => false,
        OsPolicy::Last => true,
        OsPolicy::Bsd | OsPolicy::Hpux10 | OsPolicy::Irix | OsPolicy::Macos => begins_before,
        OsPolicy::BsdRight => !begins_before,
        OsPolicy::OldLinux => begins_before || begins_together,
        OsPolicy::Linux => begins_before || (begins_together && ends_after),
        OsPolicy::Solaris | OsPolicy::OldSolaris | OsPolicy::Hpux11 => {
            ends_after || (begins_before && later.1 == earlier.1)
        }
        OsPolicy::Windows => begins_before && ends_after,
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
            (OsPolicy::First, "ooooooooo"),
            (OsPolicy::Vista, "ooooooooo"),
            (OsPolicy::Windows2k3, "ooooooooo"),
            (OsPolicy::Last, "NNNNNNNNN"),
            (OsPolicy::Bsd, "NNNoooooo"),
            (OsPolicy::Hpux10, "NNNoooooo"),
            (OsPolicy::Irix, "NNNoooooo"),
            (OsPolicy::Macos, "NNNoooooo"),
            (OsPolicy::BsdRight, "oooNNNNNN"),
            (OsPolicy::OldLinux, "NNNNNNooo"),
            (OsPolicy::Linux, "NNNooNooo"),
            (OsPolicy::Solaris, "oNNooNooN"),
            (OsPolicy::OldSolaris, "oNNooNooN"),
            (OsPolicy::Hpux11, "oNNooNooN"),
            (OsPolicy::Windows, "ooNoooooo"),
        ];
        for (policy, expect) in table {
            let found: String = RELATIONS
                .iter()
                .map(|&(_, later)| match later_wins(policy, (10, 20), later) {
                    true => 'N',
                    false => 'o',
                })
                .collect();
            assert_eq!(found, expect, "{policy:?}");
        }
    }
}
