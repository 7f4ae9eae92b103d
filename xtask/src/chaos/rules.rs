//! Rule files for the reloads. None of the rules matches the load: what passes or not is not what
//! the campaign is about.

/// Rules in the file that an instance starts with.
const FEWEST: u64 = 40;

/// How many rules [`text`] has.
pub(super) fn count(variant: u64) -> usize {
    usize::try_from(FEWEST + variant).unwrap_or(usize::MAX)
}

/// A rule file; each variant has a number of rules of its own, so that the instance's status
/// shows which one it uses.
pub(super) fn text(variant: u64) -> String {
    let mut text = format!("# Written by the fault campaign, variant {variant}.\n");
    for index in 0..FEWEST + variant {
        let sid = 1_000_000 + index;
        let protocol = if index % 2 == 0 { "tcp" } else { "udp" };
        text += &format!(
            "alert {protocol} any any -> any any (msg:\"campaign {index}\"; \
             content:\"no such bytes in the load {variant} {index}\"; nocase; sid:{sid}; rev:1;)\n"
        );
    }
    text
}

/// A file that has to be refused, and why.
pub(super) fn broken(variant: u64) -> (&'static str, String) {
    let good = text(variant);
    let with = |line: &str| format!("{good}{line}\n");
    match variant % 4 {
        0 => (
            "an unknown action",
            with("explode tcp any any -> any any (msg:\"x\"; content:\"y\"; sid:1; rev:1;)"),
        ),
        1 => (
            "a quote without its end",
            with("alert tcp any any -> any any (msg:\"x; content:\"y\"; sid:1;"),
        ),
        2 => (
            "a port that is none",
            with("alert tcp any 70000 -> any any (msg:\"x\"; content:\"y\"; sid:1; rev:1;)"),
        ),
        _ => ("what is no text", with("\u{0}\u{1}\u{2} not a rule \u{7f}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variant_has_as_many_rules_as_it_says() {
        for variant in [0, 1, 11] {
            let rules = text(variant);
            let rules = rules.lines().filter(|line| line.starts_with("alert"));
            assert_eq!(rules.count(), count(variant));
        }
        assert!(broken(1).1.starts_with(&text(1)));
    }
}
