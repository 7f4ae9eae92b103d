//! What rules have noted about a flow: bits and variables, and those bits whose names say what its
//! traffic is. Reference: "Metadata" and "Traffic" in the EVE chapter of Suricata's user guide.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::detect::{Engine, FlowMarks};

/// The objects `metadata` and `traffic`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Noted {
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traffic: Option<Value>,
}

/// What the names of bits about traffic begin with, and where they go.
const TRAFFIC: [(&str, &str); 2] = [("traffic/id/", "id"), ("traffic/label/", "label")];

impl Noted {
    /// What is noted, by the names that the rules have for it.
    pub fn of(engine: &Engine, marks: &FlowMarks) -> Self {
        let mut metadata = Map::new();
        let mut traffic = Map::new();
        let mut bits = Vec::new();
        for name in marks.bits().iter().filter_map(|bit| engine.name(*bit)) {
            let about = |(prefix, key)| Some((key, name.strip_prefix(prefix)?));
            match TRAFFIC.into_iter().find_map(about) {
                Some((key, what)) => {
                    let list = traffic.entry(key).or_insert_with(|| json!([]));
                    if let Value::Array(list) = list {
                        list.push(what.into());
                    }
                }
                None => bits.push(Value::from(name)),
            }
        }
        if !bits.is_empty() {
            metadata.insert("flowbits".into(), bits.into());
        }
        let ints = marks.ints().iter();
        let ints: Map<_, _> = ints
            .filter_map(|(name, value)| Some((engine.name(*name)?.to_owned(), (*value).into())))
            .collect();
        if !ints.is_empty() {
            metadata.insert("flowints".into(), ints.into());
        }
        let texts: Vec<Value> = marks
            .texts()
            .filter_map(|(name, value)| {
                let value = String::from_utf8_lossy(value);
                Some(json!({ engine.name(name)?: value }))
            })
            .collect();
        if !texts.is_empty() {
            metadata.insert("flowvars".into(), texts.into());
        }
        let filled = |map: Map<String, Value>| (!map.is_empty()).then_some(Value::Object(map));
        Self {
            metadata: filled(metadata),
            traffic: filled(traffic),
        }
    }
}
