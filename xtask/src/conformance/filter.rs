//! Whether an event is one that a check counts: the filter language of suricata-verify's
//! `test.yaml`, as its README documents it.

use serde_json::{Map, Value};

/// A `match` table that cannot be judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnknownOperator(pub(crate) String);

/// Whether `event` has everything that `filter` asks for.
///
/// Keys are paths with dots and `[n]` into lists; the last part may be an operator (`__len`,
/// `__gt`, `__find`, …). `has-key` and `not-has-key` name one path or several. A path that is
/// not there is like `null`: only `null` equals it, and no operator but `__len` with -1 holds.
///
/// # Errors
/// When the filter has an operator that is unknown here: such a check must not count as passed.
pub(crate) fn matches(event: &Value, filter: &Map<String, Value>) -> Result<bool, UnknownOperator> {
    // All of them, also behind one that does not hold: an unknown operator shall always show.
    let mut all = true;
    for (key, want) in filter {
        all &= match key.as_str() {
            "has-key" => paths(want).all(|path| is_present(event, path)),
            "not-has-key" => !paths(want).any(|path| is_present(event, path)),
            key => holds(event, key, want)?,
        };
    }
    Ok(all)
}

fn paths(want: &Value) -> impl Iterator<Item = &str> {
    let list = want.as_array().map_or(&[][..], Vec::as_slice);
    let one = want.as_str();
    one.into_iter().chain(list.iter().filter_map(Value::as_str))
}

fn is_present(event: &Value, path: &str) -> bool {
    find(event, path).is_some_and(|value| !value.is_null())
}

fn holds(event: &Value, key: &str, want: &Value) -> Result<bool, UnknownOperator> {
    let (path, operator) = match key.rsplit_once('.') {
        Some((path, operator)) if operator.starts_with("__") => (path, Some(operator)),
        _ => (key, None),
    };
    let found = find(event, path).unwrap_or(&Value::Null);
    let Some(operator) = operator else {
        return Ok(equal(found, want));
    };
    let number = |compare: fn(&f64, &f64) -> bool| match (found.as_f64(), want.as_f64()) {
        (Some(found), Some(want)) => compare(&found, &want),
        _ => false,
    };
    let text = |compare: fn(&str, &str) -> bool| match (found.as_str(), want.as_str()) {
        (Some(found), Some(want)) => compare(found, want),
        _ => false,
    };
    Ok(match operator {
        "__len" => want.as_i64() == Some(length(found)),
        "__gt" => number(f64::gt),
        "__gte" => number(f64::ge),
        "__lt" => number(f64::lt),
        "__lte" => number(f64::le),
        "__find" | "__contains" => contains(found, want),
        "__startswith" => text(|found, want| found.starts_with(want)),
        "__endswith" => text(|found, want| found.ends_with(want)),
        unknown => return Err(UnknownOperator(unknown.to_owned())),
    })
}

fn find<'a>(event: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(event, |value, part| {
        let (name, index) = indexed(part);
        let value = value.as_object()?.get(name)?;
        match index {
            Some(index) => value.as_array()?.get(index),
            None => Some(value),
        }
    })
}

/// `vlan[0]`: `vlan` and 0.
fn indexed(part: &str) -> (&str, Option<usize>) {
    let index = part.strip_suffix(']').and_then(|part| {
        let (name, digits) = part.rsplit_once('[')?;
        Some((name, digits.parse().ok()?))
    });
    match index {
        Some((name, index)) => (name, Some(index)),
        None => (part, None),
    }
}

/// JSON's equality, but that 1 and 1.0 are the same.
fn equal(found: &Value, want: &Value) -> bool {
    match (found, want) {
        (Value::Number(found), Value::Number(want)) => {
            found == want || found.as_f64() == want.as_f64()
        }
        (Value::Array(found), Value::Array(want)) => {
            let same = |(found, want): (&Value, &Value)| equal(found, want);
            found.len() == want.len() && found.iter().zip(want).all(same)
        }
        (Value::Object(found), Value::Object(want)) => {
            let same =
                |(key, found): (&String, &Value)| want.get(key).is_some_and(|w| equal(found, w));
            found.len() == want.len() && found.iter().all(same)
        }
        _ => found == want,
    }
}

fn contains(found: &Value, want: &Value) -> bool {
    match (found, want) {
        (Value::String(found), Value::String(want)) => found.contains(want.as_str()),
        (Value::Array(found), want) => found.iter().any(|found| equal(found, want)),
        (Value::Object(found), Value::String(want)) => found.contains_key(want),
        _ => false,
    }
}

/// What `__len` compares: characters, elements or keys; -1 for what has no length.
fn length(found: &Value) -> i64 {
    let length = match found {
        Value::String(text) => text.chars().count(),
        Value::Array(list) => list.len(),
        Value::Object(table) => table.len(),
        _ => return -1,
    };
    i64::try_from(length).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn judge(filter: &Value) -> Result<bool, UnknownOperator> {
        let event = json!({
            "event_type": "alert", "pcap_cnt": 3, "vlan": [10, 20], "answer": 1.0, "none": null,
            "alert": {"signature": "SURICATA größer", "signature_id": 7, "flag": true},
            "files": [{"name": "a.txt", "size": 2}],
        });
        matches(&event, filter.as_object().unwrap())
    }

    fn check(filter: &Value, expect: bool) {
        assert_eq!(judge(filter), Ok(expect), "{filter}");
    }

    #[test]
    fn paths_lead_through_tables_and_lists() {
        check(&json!({}), true);
        check(
            &json!({"event_type": "alert", "alert.signature_id": 7}),
            true,
        );
        check(
            &json!({"event_type": "alert", "alert.signature_id": 8}),
            false,
        );
        check(&json!({"vlan[1]": 20}), true);
        check(&json!({"vlan[2]": 20}), false);
        check(&json!({"vlan": [10, 20]}), true);
        check(&json!({"vlan": [10]}), false);
        check(&json!({"files[0].name": "a.txt"}), true);
        check(&json!({"files.name": "a.txt"}), false);
        check(&json!({"pcap_cnt.x": 3}), false);
        check(&json!({"files[0]": {"size": 2, "name": "a.txt"}}), true);
    }

    #[test]
    fn numbers_are_compared_by_value_and_never_with_booleans() {
        check(&json!({"answer": 1}), true);
        check(&json!({"answer": true}), false);
        check(&json!({"alert.flag": true}), true);
        check(&json!({"alert.flag": 1}), false);
        check(&json!({"pcap_cnt": "3"}), false);
    }

    #[test]
    fn what_is_not_there_is_null() {
        check(&json!({"missing": null, "none": null}), true);
        check(&json!({"pcap_cnt": null}), false);
        check(&json!({"missing.__gt": 0}), false);
        check(&json!({"missing.__find": ""}), false);
        check(&json!({"missing.__len": -1}), true);
    }

    #[test]
    fn keys_are_asked_for_one_by_one_or_in_a_list() {
        check(&json!({"has-key": "alert.signature"}), true);
        check(&json!({"has-key": ["alert.signature", "vlan[0]"]}), true);
        check(&json!({"has-key": ["alert.signature", "vlan[7]"]}), false);
        check(&json!({"has-key": "none"}), false);
        check(&json!({"not-has-key": "none"}), true);
        check(&json!({"not-has-key": ["missing", "alert"]}), false);
    }

    #[test]
    fn operators_compare_with_what_they_are_for() {
        check(&json!({"pcap_cnt.__gt": 2, "pcap_cnt.__lte": 3}), true);
        check(&json!({"pcap_cnt.__gt": 3}), false);
        check(&json!({"pcap_cnt.__gte": 3, "pcap_cnt.__lt": 3.5}), true);
        check(&json!({"alert.flag.__gt": 0}), false);
        check(&json!({"alert.signature.__find": "größer"}), true);
        check(&json!({"alert.signature.__contains": "Größer"}), false);
        check(&json!({"vlan.__contains": 20}), true);
        check(&json!({"alert.__contains": "signature_id"}), true);
        check(&json!({"alert.signature.__startswith": "SURI"}), true);
        check(&json!({"alert.signature.__endswith": "SURI"}), false);
        check(&json!({"alert.signature.__len": 15, "vlan.__len": 2}), true);
        check(&json!({"pcap_cnt.__len": -1}), true);
    }

    #[test]
    fn an_unknown_operator_is_an_error_wherever_it_stands() {
        let unknown = Err(UnknownOperator("__regex".into()));
        assert_eq!(judge(&json!({"pcap_cnt.__regex": "3"})), unknown);
        assert_eq!(
            judge(&json!({"event_type": "drop", "x.__regex": "3"})),
            unknown
        );
    }
}
