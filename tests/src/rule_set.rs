//! Rule files of the size of published ones, made up.

use std::fmt::Write as _;

/// As many rules as of a large published set can be used without the application layers: what
/// promises about memory and reloading are checked with.
pub const LARGE: u32 = 24_827;

/// The sid of the first made-up rule; the others follow.
pub const FIRST_SID: u32 = 3_000_000;

/// `count` rules as they are published: with a few contents (some of the words occur in many
/// rules), a message, references and metadata. The same for the same count.
#[must_use]
pub fn rules(count: u32) -> String {
    (0..count).map(rule).collect()
}

/// A payload with all the contents of rule `number` of [`rules`].
#[must_use]
pub fn payload(number: u32) -> String {
    let [one, two, three] = contents(number);
    format!("GET /{one}/{two}?{three} HTTP/1.1\r\n\r\n")
}

fn rule(number: u32) -> String {
    const HEADS: [&str; 6] = [
        "alert tcp $EXTERNAL_NET any -> $HOME_NET any",
        "alert tcp any any -> any any",
        "alert udp any any -> any any",
        "alert tcp $HOME_NET any -> $EXTERNAL_NET $HTTP_PORTS",
        "alert tcp any any -> [10.77.0.0/16,fd77::/16] [80,8000:8100]",
        "alert ip any any -> any any",
    ];
    let head = HEADS[number as usize % HEADS.len()];
    let [one, two, three] = contents(number);
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = writeln!(
        text,
        "{head} (msg:\"SYNTHETIC Trojan-Downloader.{one} variant {two} outbound connection\"; \
         content:\"{one}\"; fast_pattern; content:\"{two}\"; nocase; distance:0; \
         content:\"{three}\"; within:64; reference:url,example.org/analysis/{one}/{number}.html; \
         reference:md5,{:016x}{:016x}; classtype:trojan-activity; sid:{}; rev:{}; \
         metadata:affected_product Windows_XP_Vista_7_8_10_Server_32_64_Bit, \
         attack_target Client_Endpoint, created_at 2024_01_{:02}, deployment Perimeter, \
         malware_family {one}, performance_impact Low, signature_severity Major, \
         updated_at 2025_03_{:02};)",
        scrambled(number),
        scrambled(number ^ 0x5555),
        FIRST_SID + number,
        number % 7 + 1,
        number % 28 + 1,
        number % 28 + 1,
    );
    text
}

/// The words of a rule: one that is its own, one of a few hundred, one of a few.
fn contents(number: u32) -> [String; 3] {
    [
        word(scrambled(number), 6 + number as usize % 20),
        word(scrambled(number % 300 + 1_000_000), 8),
        word(scrambled(number % 12 + 2_000_000), 5),
    ]
}

fn word(mut seed: u64, letters: usize) -> String {
    let letter = |_| {
        let letter = b'a' + (seed % 26) as u8;
        seed = seed.rotate_right(5).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (seed >> 29);
        char::from(letter)
    };
    (0..letters).map(letter).collect()
}

/// splitmix64.
fn scrambled(number: u32) -> u64 {
    let mut z = u64::from(number)
        .wrapping_add(1)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_rule_has_a_word_of_its_own() {
        let own: HashSet<String> = (0..LARGE)
            .map(|number| contents(number)[0].clone())
            .collect();
        assert!(own.len() as u32 > LARGE - 10, "{}", own.len());
        assert_eq!(rules(100).lines().count(), 100);
    }
}
