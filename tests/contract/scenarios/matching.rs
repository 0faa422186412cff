//! What an answer should hold, compared with what it holds.

use regex::Regex;
use serde_json::{Map, Value};

/// Differences, each with its place in the answer. An object expects its own keys and lets others pass; an array expects
/// as many items as it has; matchers, keys and texts that begin with `$`, expect what `scenarios/README.md` says.
pub fn differences(expected: &Value, found: Option<&Value>) -> Vec<String> {
    let mut differences = Vec::new();
    compare(expected, found, "", &mut differences);
    differences
}

fn compare(expected: &Value, found: Option<&Value>, at: &str, out: &mut Vec<String>) {
    let mut differ = |expected: &str| {
        let found = found.map_or_else(|| "nothing".to_owned(), Value::to_string);
        let at = if at.is_empty() { "the body" } else { at };
        out.push(format!("{at}: expected {expected}, found {found}"));
    };
    match (expected, found) {
        (Value::String(text), found) if text == "$present" => {
            if found.is_none_or(Value::is_null) {
                differ("something");
            }
        }
        (Value::String(text), found) if text == "$absent" => {
            if found.is_some() {
                differ("nothing");
            }
        }
        (Value::Object(map), found) if map.keys().any(|key| key.starts_with('$')) => matcher(map, found, at, out),
        (Value::Object(map), Some(Value::Object(_))) => {
            for (key, expected) in map {
                let found = found.and_then(|found| found.get(key));
                compare(expected, found, &format!("{at}/{}", escaped(key)), out);
            }
        }
        (Value::Array(expected), Some(Value::Array(list))) => {
            if expected.len() != list.len() {
                differ(&format!("{} items", expected.len()));
                return;
            }
            for (i, (expected, found)) in expected.iter().zip(list).enumerate() {
                compare(expected, Some(found), &format!("{at}/{i}"), out);
            }
        }
        (Value::Number(a), Some(Value::Number(b))) if a.as_f64() == b.as_f64() => {}
        (expected, Some(found)) if expected == found => {}
        (expected, _) => differ(&expected.to_string()),
    }
}

fn matcher(map: &Map<String, Value>, found: Option<&Value>, at: &str, out: &mut Vec<String>) {
    let (Some((name, argument)), 1) = (map.iter().next(), map.len()) else {
        out.push(format!("{at}: a matcher stands alone in its object, unlike in {}", Value::from(map.clone())));
        return;
    };
    let shown = || found.map_or_else(|| "nothing".to_owned(), Value::to_string);
    match (name.as_str(), argument) {
        ("$matches", Value::String(pattern)) => match Regex::new(pattern) {
            Ok(regex) if found.and_then(Value::as_str).is_some_and(|text| regex.is_match(text)) => {}
            Ok(_) => out.push(format!("{at}: expected a text that matches `{pattern}`, found {}", shown())),
            Err(error) => out.push(format!("{at}: {error}")),
        },
        ("$near", Value::Array(pair)) => {
            let numbers: Vec<f64> = pair.iter().filter_map(Value::as_f64).collect();
            let is_near = |number: f64| matches!(numbers[..], [near, within] if (number - near).abs() <= within);
            if !found.and_then(Value::as_f64).is_some_and(is_near) {
                out.push(format!("{at}: expected a number near {argument}, found {}", shown()));
            }
        }
        ("$unordered", Value::Array(expected)) => {
            let Some(Value::Array(list)) = found else {
                out.push(format!("{at}: expected an array, found {}", shown()));
                return;
            };
            let mut left: Vec<&Value> = list.iter().collect();
            for expected in expected {
                match left.iter().position(|found| differences(expected, Some(found)).is_empty()) {
                    Some(position) => drop(left.swap_remove(position)),
                    None => out.push(format!("{at}: expected {expected} among the items, found {}", shown())),
                }
            }
            if list.len() != expected.len() {
                out.push(format!("{at}: expected {} items, found {}", expected.len(), shown()));
            }
        }
        ("$exactly", Value::Object(expected)) => {
            compare(argument, found, at, out);
            let more = found.and_then(Value::as_object).into_iter().flat_map(Map::iter);
            for (key, value) in more.filter(|(key, _)| !expected.contains_key(*key)) {
                out.push(format!("{at}/{}: expected nothing, found {value}", escaped(key)));
            }
        }
        _ => out.push(format!("{at}: `{name}` is no matcher, or takes something else")),
    }
}

/// A key as a part of a JSON pointer.
fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

#[test]
fn what_matches_differs_in_nothing_and_what_does_not_is_named_by_place() {
    use serde_json::json;
    let found = json!({ "id": "doc_1", "score": 0.4999, "tags": ["b", "a"], "inner": { "x": 1, "y": null } });
    let same = [
        json!({ "id": { "$matches": "^doc_" }, "score": { "$near": [0.5, 0.001] } }),
        json!({ "tags": { "$unordered": ["a", "b"] }, "inner": { "y": null, "z": "$absent" } }),
        json!({ "id": "$present", "inner": { "$exactly": { "x": 1.0, "y": null } } }),
    ];
    for expected in same {
        assert_eq!(differences(&expected, Some(&found)), Vec::<String>::new());
    }
    let other = [
        (json!({ "id": { "$matches": "^obj_" } }), "/id: expected a text that matches `^obj_`, found \"doc_1\""),
        (json!({ "tags": ["b"] }), "/tags: expected 1 items, found [\"b\",\"a\"]"),
        (json!({ "inner": { "y": "$present" } }), "/inner/y: expected something, found null"),
        (json!({ "inner": { "$exactly": { "x": 1 } } }), "/inner/y: expected nothing, found null"),
        (json!({ "tags": { "$unordered": ["a", "c"] } }), "/tags: expected \"c\" among the items, found [\"b\",\"a\"]"),
    ];
    for (expected, difference) in other {
        assert_eq!(differences(&expected, Some(&found)), [difference]);
    }
}
