//! Numbers, comparisons and variables as values of keywords.

use std::fmt::Display;

use super::super::ast::{Compare, Value, Variable};
use super::super::diagnostic::{nearest, shortened};
use super::super::finding::Finding;
use super::super::text::Text;

/// An unsigned number that comparisons can be about.
pub(crate) trait Unsigned: Copy + Ord + Display + TryFrom<u64> + Into<u64> {
    /// Its largest value.
    const MAX: Self;
}

macro_rules! unsigned {
    ($($kind:ty),*) => {$(
        impl Unsigned for $kind {
            const MAX: Self = <$kind>::MAX;
        }
    )*};
}

unsigned!(u8, u16, u32, u64);

/// Units that may follow a number, in any case.
const UNITS: [(&str, u64); 6] = [
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("kb", 1 << 10),
    ("mb", 1 << 20),
    ("gb", 1 << 30),
];

/// A number without sign, decimal or hexadecimal (`0x`), perhaps with a unit.
fn plain(text: &str) -> Option<u64> {
    if let Some(digits) = text.strip_prefix("0x").or(text.strip_prefix("0X")) {
        let hex = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        return hex.then(|| u64::from_str_radix(digits, 16).ok()).flatten();
    }
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let number: u64 = digits.parse().ok()?;
    let unit = unit.trim_start();
    if unit.is_empty() {
        return Some(number);
    }
    UNITS
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(unit))
        .and_then(|(_, factor)| number.checked_mul(*factor))
}

/// A number from `least` to `most`.
pub(in super::super) fn ranged<N: Unsigned>(
    text: Text<'_>,
    least: N,
    most: N,
) -> Result<N, Finding> {
    let text = text.trim();
    plain(text.as_str())
        .and_then(|number| N::try_from(number).ok())
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| {
            let message = match text.as_str() {
                "" => "a number is missing".to_owned(),
                written => format!(
                    "`{}` is not a number from {least} to {most}",
                    shortened(written)
                ),
            };
            text.fail(message, format!("a number from {least} to {most}"))
        })
}

/// A number that its type can hold.
pub(in super::super) fn number<N>(text: Text<'_>) -> Result<N, Finding>
where
    N: Unsigned + From<u8>,
{
    ranged(text, N::from(0), N::MAX)
}

/// A number with sign.
pub(super) fn signed(text: Text<'_>, least: i64, most: i64) -> Result<i64, Finding> {
    let text = text.trim();
    let written = text.as_str();
    let (negative, magnitude) = match written.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, written.strip_prefix('+').unwrap_or(written)),
    };
    plain(magnitude)
        .and_then(|number| i64::try_from(number).ok())
        .map(|number| if negative { -number } else { number })
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| {
            text.fail(
                format!(
                    "`{}` is not a number from {least} to {most}",
                    shortened(written)
                ),
                format!("a number from {least} to {most}"),
            )
        })
}

/// The same of a text without a place; `None` when it is none.
pub(crate) fn comparison<N>(text: &str) -> Option<Compare<N>>
where
    N: Unsigned + From<u8>,
{
    compare(Text::new(text, 0)).ok()
}

const FORMS: &str = "a number, or one with <, <=, >, >=, !, or a range low-high";

/// A comparison in any of the forms of integer keywords.
pub(super) fn compare<N>(text: Text<'_>) -> Result<Compare<N>, Finding>
where
    N: Unsigned + From<u8>,
{
    let text = text.trim();
    if text.is_empty() {
        return Err(text.fail("a number is missing", FORMS));
    }
    if let Some(mask) = text.strip_prefix("!&") {
        return bits(mask, true);
    }
    if let Some(mask) = text.strip_prefix("&") {
        return bits(mask, false);
    }
    let (negated, body) = text.negation();
    let range = body
        .split_once("<>")
        .or_else(|| body.split_once("-").filter(|(low, _)| !low.is_empty()));
    if let Some((low, high)) = range {
        let (low, high): (N, N) = (number(low)?, number(high)?);
        if low >= high {
            return Err(body.fail(
                format!("the range {low} to {high} is empty or reversed"),
                "the lower number first; both ends are excluded",
            ));
        }
        if !negated && high.into() - low.into() < 2 {
            return Err(body.fail(
                format!("no number is between {low} and {high}: a range excludes both of its ends"),
                format!("={low}, or a wider range"),
            ));
        }
        return Ok(if negated {
            Compare::NotBetween(low, high)
        } else {
            Compare::Between(low, high)
        });
    }
    if negated {
        let value = body.strip_prefix("=").unwrap_or(body);
        return Ok(Compare::NotEqual(number(value)?));
    }
    let never = |what: String| Err(text.fail(format!("{what} never holds"), FORMS));
    if let Some(rest) = text.strip_prefix("<=") {
        return Ok(Compare::AtMost(number(rest)?));
    }
    if let Some(rest) = text.strip_prefix(">=") {
        return Ok(Compare::AtLeast(number(rest)?));
    }
    if let Some(rest) = text.strip_prefix("<") {
        let value: N = number(rest)?;
        if value == N::from(0) {
            return never("less than 0".into());
        }
        return Ok(Compare::Less(value));
    }
    if let Some(rest) = text.strip_prefix(">") {
        let value: N = number(rest)?;
        if value == N::MAX {
            return never(format!("more than {value}"));
        }
        return Ok(Compare::Greater(value));
    }
    Ok(Compare::Equal(number(
        text.strip_prefix("=").unwrap_or(text),
    )?))
}

/// What follows `&`: a mask, and perhaps what the bits must be.
fn bits<N>(text: Text<'_>, negated: bool) -> Result<Compare<N>, Finding>
where
    N: Unsigned + From<u8>,
{
    let (mask, value, negated) = match (text.split_once("!="), text.split_once("=")) {
        (Some((mask, value)), _) => (mask, Some(value), !negated),
        (None, Some((mask, value))) => (mask, Some(value), negated),
        (None, None) => (text, None, negated),
    };
    let mask_text = mask;
    let mask: N = number(mask)?;
    if mask == N::from(0) {
        return Err(mask_text.fail("no bit is set in the mask", "a mask such as 0x0f"));
    }
    let value = match value {
        None => None,
        Some(text) => {
            let value: N = number(text)?;
            if value.into() & !mask.into() != 0 {
                return Err(text.fail(
                    format!("{value} has bits that the mask {mask} takes away: it never matches"),
                    "there is no shift: write the bits where the mask has them",
                ));
            }
            Some(value)
        }
    };
    Ok(Compare::Bits {
        mask,
        value,
        negated,
    })
}

/// A comparison written as operator and number in two parts: `stream_size`, `iprep`, `datarep`.
pub(super) fn compare_parts<N>(operator: Text<'_>, value: Text<'_>) -> Result<Compare<N>, Finding>
where
    N: Unsigned + From<u8>,
{
    let value: N = number(value)?;
    Ok(match operator.as_str() {
        "<" => Compare::Less(value),
        "<=" => Compare::AtMost(value),
        ">" => Compare::Greater(value),
        ">=" => Compare::AtLeast(value),
        "=" | "==" => Compare::Equal(value),
        "!=" | "!" => Compare::NotEqual(value),
        _ => return Err(operator.not_one_of("an operator", &["<", "<=", ">", ">=", "=", "!="])),
    })
}

/// The variables of a rule by name, each with its number.
#[derive(Debug, Default)]
pub(super) struct Names(Vec<String>);

impl Names {
    /// Most variables of one rule.
    const MOST: usize = 64;

    /// A name begins with a letter and goes on with letters, digits and `_`.
    pub(super) fn is_name(text: &str) -> bool {
        let mut bytes = text.bytes();
        bytes
            .next()
            .is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
    }

    /// Gives a number to a new variable.
    pub(super) fn define(&mut self, text: Text<'_>) -> Result<Variable, Finding> {
        let name = text.as_str();
        if !Self::is_name(name) {
            return Err(text.fail(
                format!("`{}` is not a name for a variable", shortened(name)),
                "a name begins with a letter and has letters, digits and `_`",
            ));
        }
        if self.0.len() >= Self::MOST {
            return Err(text.fail("too many variables in one rule", "at most 64"));
        }
        self.0.push(name.to_owned());
        Ok(Variable((self.0.len() - 1) as u8))
    }

    /// The variable of this name that was defined last.
    pub(super) fn find(&self, text: Text<'_>) -> Result<Variable, Finding> {
        let name = text.as_str();
        if let Some(number) = self.0.iter().rposition(|known| known == name) {
            return Ok(Variable(number as u8));
        }
        let help = match nearest(name, self.0.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "byte_extract or byte_math define one before it is used".into(),
        };
        Err(text.fail(format!("unknown variable `{}`", shortened(name)), help))
    }

    /// A variable by its name, or else a number that `literal` reads.
    pub(super) fn value<T>(
        &self,
        text: Text<'_>,
        literal: impl FnOnce(Text<'_>) -> Result<T, Finding>,
    ) -> Result<Value<T>, Finding> {
        let text = text.trim();
        if Self::is_name(text.as_str()) {
            return self.find(text).map(Value::Variable);
        }
        literal(text).map(Value::Literal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_comparison_is_read() {
        let check = |text: &str, expect: Compare<u16>| {
            assert_eq!(compare(Text::new(text, 0)), Ok(expect), "{text}");
        };
        check("19", Compare::Equal(19));
        check("=0x13", Compare::Equal(19));
        check("!0x14", Compare::NotEqual(20));
        check("!= 20", Compare::NotEqual(20));
        check(">21", Compare::Greater(21));
        check(">= 21", Compare::AtLeast(21));
        check("<22", Compare::Less(22));
        check("<= 22", Compare::AtMost(22));
        check("19-22", Compare::Between(19, 22));
        check("19 <> 22", Compare::Between(19, 22));
        check("!19-22", Compare::NotBetween(19, 22));
        check("2kb", Compare::Equal(2048));
        let bits = |value, negated| Compare::Bits {
            mask: 0xc0,
            value,
            negated,
        };
        check("&0xc0", bits(None, false));
        check("!&0xc0", bits(None, true));
        check("&0xc0=0x80", bits(Some(0x80), false));
        check("&0xc0!=0", bits(Some(0), true));
    }

    #[test]
    fn what_cannot_be_or_never_holds_is_told() {
        let check = |text: &str, message: &str| {
            let found = compare::<u8>(Text::new(text, 5)).unwrap_err();
            assert!(found.message.contains(message), "{text}: {found:?}");
            assert!(found.help.is_some(), "{text}");
            assert!(found.span.start >= 5);
        };
        check("", "missing");
        check("x", "not a number from 0 to 255");
        check("256", "not a number");
        check("-5", "not a number");
        check("5-4", "reversed");
        check("5-6", "no number is between");
        check("<0", "never holds");
        check(">255", "never holds");
        check("&0", "no bit");
        check("&0xc0=2", "never matches");
        check("1kb", "not a number");
    }
}
