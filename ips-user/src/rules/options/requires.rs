//! `requires`: what a rule needs of the engine that loads it. A rule whose needs are not met is
//! for somebody else, and skipped without a word.

use super::super::finding::Finding;
use super::super::text::Text;
use super::vocabulary;

/// The version of Suricata whose language this is.
const VERSION: (u32, u32, u32) = (8, 0, 8);

/// Features by the names that rules ask for them.
const FEATURES: [&str; 3] = ["geoip", "ja3", "ja4"];

const SHAPE: &str = "requires: version >= 8.0.0, feature geoip, keyword vlan.id;";

/// Whether everything that is required is there.
pub(super) fn met(text: Text<'_>) -> Result<bool, Finding> {
    let mut met = true;
    let mut version_seen = false;
    for part in text.split(',') {
        let (what, rest) = part.first_word();
        if what.is_empty() || rest.is_empty() {
            return Err(part.fail("a requirement is a word and what of it", SHAPE));
        }
        met &= match what.as_str() {
            "feature" => FEATURES.contains(&rest.as_str()),
            "keyword" => vocabulary::is_known(rest.as_str()),
            "version" if version_seen => {
                return Err(part.fail(
                    "`version` twice",
                    "several conditions: version >= 7.0.4 < 8 | >= 8.0.3",
                ));
            }
            "version" => {
                version_seen = true;
                version(rest)?
            }
            // Kept free by Suricata for what is to come: not met.
            _ => false,
        };
    }
    Ok(met)
}

/// `>= 7.0.4 < 8 | >= 8.0.3`: any of the parts between `|`, all comparisons within one.
fn version(text: Text<'_>) -> Result<bool, Finding> {
    let mut any = false;
    for alternative in text.split('|') {
        let mut all = true;
        let mut rest = alternative;
        loop {
            let (operator, after) = operator(rest)
                .ok_or_else(|| rest.fail("a comparison of versions is missing", SHAPE))?;
            let end = after
                .as_str()
                .find(['<', '>', '='])
                .unwrap_or(after.as_str().len());
            let (number, next) = split_at(after, end);
            all &= operator(VERSION, parse(number)?);
            if next.is_empty() {
                break;
            }
            rest = next;
        }
        any |= all;
    }
    Ok(any)
}

type Version = (u32, u32, u32);
type Comparison = fn(Version, Version) -> bool;

/// How versions are compared, and what follows the sign.
fn operator(text: Text<'_>) -> Option<(Comparison, Text<'_>)> {
    let signs: [(&str, Comparison); 5] = [
        (">=", |a, b| a >= b),
        ("<=", |a, b| a <= b),
        (">", |a, b| a > b),
        ("<", |a, b| a < b),
        ("=", |a, b| a == b),
    ];
    signs
        .into_iter()
        .find_map(|(sign, compare)| Some((compare, text.strip_prefix(sign)?)))
}

fn split_at(text: Text<'_>, at: usize) -> (Text<'_>, Text<'_>) {
    let (before, after) = text.as_str().split_at(at);
    (
        Text::new(before, text.span().start).trim(),
        Text::new(after, text.span().start + at).trim(),
    )
}

/// `8`, `8.0` or `8.0.3`.
fn parse(text: Text<'_>) -> Result<Version, Finding> {
    let mut numbers = [0u32; 3];
    for (place, part) in text.as_str().split('.').enumerate() {
        let slot = numbers.get_mut(place);
        let (Some(slot), Ok(number)) = (slot, part.parse()) else {
            return Err(text.fail(
                format!("`{}` is not a version", text.as_str()),
                "numbers with dots: 8.0.3",
            ));
        };
        *slot = number;
    }
    Ok((numbers[0], numbers[1], numbers[2]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_are_weighed() {
        let check = |text: &str, expect: Option<bool>| {
            assert_eq!(met(Text::new(text, 0)).ok(), expect, "{text}");
        };
        check("version >= 8", Some(true));
        check("version >= 7.0.4 < 8", Some(false));
        check("version >= 7.0.4 < 8 | >= 8.0.3", Some(true));
        check("version > 8.0.8", Some(false));
        check("version >= 9", Some(false));
        check("feature geoip, version >= 7.0.0", Some(true));
        check("feature lua", Some(false));
        check("keyword content", Some(true));
        check("keyword foobar", Some(false));
        check("weather fine", Some(false));
        check("version >= 7, version < 9", None);
        check("version 8", None);
        check("version >= eight", None);
        check("feature", None);
    }
}
