//! The values of settings as Suricata's configuration writes them: YAML is generous about the
//! type of a scalar (`yes`, `"true"` and `true` are one switch, `80` and `"80"` one port).

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Serialize, Serializer};
use serde_json::Value;

use super::node::{Fault, Leaf};

/// A number of bytes: `1024`, `"64mb"`, `"256 MiB"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// So many times 1024 bytes.
    pub const fn kib(count: u64) -> Self {
        Self(count << 10)
    }

    /// So many times 1024 KiB.
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// As a length in memory.
    pub const fn bytes(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("0"),
            n if n % (1 << 30) == 0 => write!(f, "{} GiB", n >> 30),
            n if n % (1 << 20) == 0 => write!(f, "{} MiB", n >> 20),
            n if n % (1 << 10) == 0 => write!(f, "{} KiB", n >> 10),
            n => write!(f, "{n}"),
        }
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 % 1024 {
            0 if self.0 > 0 => serializer.collect_str(self),
            _ => serializer.serialize_u64(self.0),
        }
    }
}

impl Leaf for ByteSize {
    fn parse(value: &Value) -> Result<Self, Fault> {
        const EXPECTED: &str = "a number of bytes, for example 65536, \"64kb\" or \"1 GiB\"";
        if let Some(number) = value.as_u64() {
            return Ok(Self(number));
        }
        let wrong = || Fault::expected(EXPECTED, value);
        let text = value.as_str().ok_or_else(wrong)?.trim();
        let digits = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let shift = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "kb" | "kib" => 10,
            "mb" | "mib" => 20,
            "gb" | "gib" => 30,
            _ => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        number.checked_mul(1 << shift).map(Self).ok_or_else(wrong)
    }
}

/// A number of seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(pub u32);

impl Seconds {
    /// As a duration.
    pub const fn duration(self) -> Duration {
        Duration::from_secs(self.0 as u64)
    }
}

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0)
    }
}

impl Leaf for Seconds {
    fn parse(value: &Value) -> Result<Self, Fault> {
        u32::parse(value).map(Self)
    }
}

impl Leaf for bool {
    fn parse(value: &Value) -> Result<Self, Fault> {
        let known = match value {
            Value::Bool(on) => return Ok(*on),
            Value::Number(number) => match number.as_u64() {
                Some(1) => Some(true),
                Some(0) => Some(false),
                _ => None,
            },
            Value::String(text) => match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" | "1" => Some(true),
                "false" | "no" | "off" | "0" => Some(false),
                _ => None,
            },
            _ => None,
        };
        known.ok_or_else(|| Fault::expected("yes or no", value))
    }
}

macro_rules! numbers {
    ($($number:ty)*) => {$(
        impl Leaf for $number {
            fn parse(value: &Value) -> Result<Self, Fault> {
                let number = match value {
                    Value::String(text) => text.trim().parse().ok(),
                    value => value.as_u64(),
                };
                number.and_then(|number| Self::try_from(number).ok()).ok_or_else(|| {
                    let expected = format!("a number from 0 to {}", Self::MAX);
                    Fault::expected(&expected, value)
                })
            }
        }
    )*};
}

numbers!(u8 u16 u32 u64);

impl Leaf for String {
    fn parse(value: &Value) -> Result<Self, Fault> {
        match value {
            Value::String(text) => Ok(text.clone()),
            // YAML: `SSH_PORTS: 22`.
            Value::Number(number) => Ok(number.to_string()),
            Value::Bool(on) => Ok(on.to_string()),
            // As rules write it: `ports: [4789, 8472]`.
            Value::Array(values) => {
                let parts: Vec<Self> = values.iter().map(Self::parse).collect::<Result<_, _>>()?;
                Ok(format!("[{}]", parts.join(",")))
            }
            _ => Err(Fault::expected("text", value)),
        }
    }
}

impl Leaf for PathBuf {
    fn parse(value: &Value) -> Result<Self, Fault> {
        String::parse(value).map(Self::from)
    }
}

/// Lists, in a bracketed text as well: `[a, b]`. A single value is a list of one.
impl<T: Leaf> Leaf for Vec<T> {
    fn parse(value: &Value) -> Result<Self, Fault> {
        match value {
            Value::Array(values) => values.iter().map(T::parse).collect(),
            Value::String(text) => {
                let text = text.trim();
                let inner = text
                    .strip_prefix('[')
                    .and_then(|text| text.strip_suffix(']'))
                    .unwrap_or(text);
                let parts = inner.split(',').map(str::trim);
                parts
                    .filter(|part| !part.is_empty())
                    .map(|part| T::parse(&Value::String(part.to_owned())))
                    .collect()
            }
            value => T::parse(value).map(|one| vec![one]),
        }
    }
}

/// Names of the user's own choice, each with a value.
impl<T: Leaf + Serialize> super::node::Node for BTreeMap<String, T> {
    fn set(&mut self, path: &[&str], value: &Value) -> Result<(), Fault> {
        match (path, value) {
            ([], Value::Object(values)) => {
                for (name, value) in values {
                    self.insert(name.clone(), T::parse(value)?);
                }
                Ok(())
            }
            ([], value) => Err(Fault::expected("names with values", value)),
            ([name], value) => {
                self.insert((*name).to_owned(), T::parse(value)?);
                Ok(())
            }
            _ => Err(Fault::Unknown),
        }
    }

    fn read<'de, D: serde::Deserializer<'de>>(&mut self, source: D) -> Result<(), D::Error> {
        super::node::read_leaf(self, source)
    }
}

/// Defines an enum whose values have names.
macro_rules! choice {
    ($(#[$doc:meta])* $vis:vis $name:ident { $($(#[$value_doc:meta])* $value:ident = $text:literal $(| $other:literal)*,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
        $vis enum $name { $($(#[$value_doc])* #[serde(rename = $text)] $value,)* }

        impl $crate::config::settings::node::Leaf for $name {
            fn parse(value: &serde_json::Value) -> Result<Self, $crate::config::settings::node::Fault> {
                let text = match value {
                    serde_json::Value::String(text) => text.to_ascii_lowercase(),
                    serde_json::Value::Bool(true) => "yes".to_owned(),
                    serde_json::Value::Bool(false) => "no".to_owned(),
                    other => other.to_string(),
                };
                match text.as_str() {
                    $($text $(| $other)* => Ok(Self::$value),)*
                    _ => {
                        let names = [$($text),*].join(", ");
                        let expected = format!("one of {names}");
                        Err($crate::config::settings::node::Fault::expected(&expected, value))
                    }
                }
            }
        }
    };
}

pub(super) use choice;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check<T: Leaf + PartialEq + fmt::Debug>(value: &Value, expect: Option<&T>) {
        assert_eq!(T::parse(value).ok().as_ref(), expect, "{value}");
    }

    #[test]
    fn scalars_are_read_in_every_spelling_that_yaml_has_for_them() {
        for on in [
            json!(true),
            json!("yes"),
            json!("True"),
            json!(1),
            json!("on"),
        ] {
            check(&on, Some(&true));
        }
        check(&json!("no"), Some(&false));
        check::<bool>(&json!("maybe"), None);
        check::<bool>(&json!(2), None);
        check(&json!("80"), Some(&80u16));
        check::<u16>(&json!(70000), None);
        check::<u8>(&json!(-1), None);
        check(&json!(22), Some(&"22".to_owned()));
    }

    #[test]
    fn sizes_have_units() {
        check(&json!(5), Some(&ByteSize(5)));
        check(&json!("5"), Some(&ByteSize(5)));
        check(&json!("64kb"), Some(&ByteSize::kib(64)));
        check(&json!("256 MiB"), Some(&ByteSize::mib(256)));
        check(&json!("1GB"), Some(&ByteSize::mib(1024)));
        check::<ByteSize>(&json!("64 parsecs"), None);
        check::<ByteSize>(&json!("kb"), None);
        check::<ByteSize>(&json!("99999999999999gb"), None);
        for size in [
            ByteSize(0),
            ByteSize(1000),
            ByteSize::kib(3),
            ByteSize::mib(2048),
        ] {
            check(&json!(size.to_string()), Some(&size));
        }
    }

    #[test]
    fn lists_may_be_bracketed_text_or_a_single_value() {
        let list = vec!["a".to_owned(), "b".to_owned()];
        check(&json!(["a", "b"]), Some(&list));
        check(&json!("[a, b]"), Some(&list));
        check(&json!("a"), Some(&vec!["a".to_owned()]));
        check::<Vec<String>>(&json!("[]"), Some(&vec![]));
        check::<Vec<u16>>(&json!([1, "x"]), None);
    }
}
