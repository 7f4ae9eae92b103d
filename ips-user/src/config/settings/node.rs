//! Settings as a tree: each node can be set by a dotted name, and be read from TOML.

use serde::Deserialize;
use serde::de::{Deserializer, Error};
use serde_json::Value;

/// Why a setting is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing has this name.
    Unknown,
    /// The value cannot be.
    Wrong(String),
}

impl Fault {
    pub(super) fn expected(expected: &str, got: &Value) -> Self {
        Self::Wrong(format!("expected {expected}, not {got}"))
    }
}

/// A part of the tree.
pub(super) trait Node {
    /// Sets what is named by `path` from here on. An object sets everything that it names.
    fn set(&mut self, path: &[&str], value: &Value) -> Result<(), Fault>;

    /// Sets what `source` has; a name that is unknown is an error.
    fn read<'de, D: Deserializer<'de>>(&mut self, source: D) -> Result<(), D::Error>;
}

/// A value.
pub(super) trait Leaf: Sized {
    fn parse(value: &Value) -> Result<Self, Fault>;
}

impl<T: Leaf> Node for T {
    fn set(&mut self, path: &[&str], value: &Value) -> Result<(), Fault> {
        if !path.is_empty() {
            return Err(Fault::Unknown);
        }
        *self = T::parse(value)?;
        Ok(())
    }

    fn read<'de, D: Deserializer<'de>>(&mut self, source: D) -> Result<(), D::Error> {
        read_leaf(self, source)
    }
}

/// Sets a node that knows its value by [`Node::set`] alone.
pub(super) fn read_leaf<'de, D: Deserializer<'de>>(
    node: &mut impl Node,
    source: D,
) -> Result<(), D::Error> {
    let value = Value::deserialize(source)?;
    node.set(&[], &value).map_err(|fault| match fault {
        Fault::Unknown => Error::custom("unknown name"),
        Fault::Wrong(message) => Error::custom(message),
    })
}

/// Defines a struct of settings: field, name in the configuration, type, default.
macro_rules! settings {
    ($(#[$doc:meta])* $vis:vis $name:ident {
        $($(#[$field_doc:meta])* $field:ident($key:literal): $type:ty = $default:expr,)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize)]
        $vis struct $name { $($(#[$field_doc])* #[serde(rename = $key)] pub $field: $type,)* }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        impl $crate::config::settings::node::Node for $name {
            fn set(
                &mut self,
                path: &[&str],
                value: &serde_json::Value,
            ) -> Result<(), $crate::config::settings::node::Fault> {
                use $crate::config::settings::node::{Fault, Node};
                match (path.split_first(), value) {
                    $((Some((&$key, rest)), value) => Node::set(&mut self.$field, rest, value),)*
                    (Some(_), _) => Err(Fault::Unknown),
                    // An empty mapping of YAML.
                    (None, serde_json::Value::Null) => Ok(()),
                    (None, serde_json::Value::Object(values)) => {
                        for (key, value) in values {
                            Node::set(self, &[key.as_str()], value)?;
                        }
                        Ok(())
                    }
                    (None, value) => Err(Fault::expected("names with values", value)),
                }
            }

            fn read<'de, D: serde::Deserializer<'de>>(&mut self, source: D) -> Result<(), D::Error> {
                const NAMES: &[&str] = &[$($key),*];

                struct Fields<'a>(&'a mut $name);
                impl<'de> serde::de::Visitor<'de> for Fields<'_> {
                    type Value = ();

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("a table")
                    }

                    fn visit_map<A: serde::de::MapAccess<'de>>(
                        self,
                        mut map: A,
                    ) -> Result<(), A::Error> {
                        while let Some(Name(name)) = map.next_key()? {
                            match name {
                                $($key => {
                                    let field = $crate::config::settings::node::Into(&mut self.0.$field);
                                    map.next_value_seed(field)?;
                                })*
                                // `Name` takes no other.
                                _ => {}
                            }
                        }
                        Ok(())
                    }
                }

                /// Checked while the reader still knows where it stands.
                struct Name(&'static str);
                impl<'de> serde::Deserialize<'de> for Name {
                    fn deserialize<D: serde::Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
                        let text = <std::borrow::Cow<'de, str>>::deserialize(source)?;
                        let known = NAMES.iter().find(|name| **name == text);
                        known.map(|name| Self(name)).ok_or_else(|| {
                            serde::de::Error::unknown_field(&text, NAMES)
                        })
                    }
                }

                source.deserialize_map(Fields(self))
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
                let mut settings = Self::default();
                $crate::config::settings::node::Node::read(&mut settings, source)?;
                Ok(settings)
            }
        }
    };
}

pub(super) use settings;

/// Reads into what is there already.
pub(super) struct Into<'a, T>(pub(super) &'a mut T);

impl<'de, T: Node> serde::de::DeserializeSeed<'de> for Into<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<(), D::Error> {
        self.0.read(source)
    }
}
