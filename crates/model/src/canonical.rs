//! One text for every JSON value, however it was sent.

use serde_json::Value;

/// The value as JSON with the keys of objects in order: equal values have equal texts.
pub fn canonical(value: &Value) -> String {
    let mut text = String::new();
    write(value, &mut text);
    text
}

fn write(value: &Value, text: &mut String) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<(&String, &Value)> = map.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            text.push('{');
            for (number, (key, value)) in entries.into_iter().enumerate() {
                separate(number, text);
                text.push_str(&Value::from(key.as_str()).to_string());
                text.push(':');
                write(value, text);
            }
            text.push('}');
        }
        Value::Array(list) => {
            text.push('[');
            for (number, value) in list.iter().enumerate() {
                separate(number, text);
                write(value, text);
            }
            text.push(']');
        }
        plain => text.push_str(&plain.to_string()),
    }
}

fn separate(number: usize, text: &mut String) {
    if number > 0 {
        text.push(',');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_order_of_keys_alone_does_not_count() {
        assert_eq!(
            canonical(&json!({"b": [2, null], "a": {"d": "\"", "c": 1.5}})),
            r#"{"a":{"c":1.5,"d":"\""},"b":[2,null]}"#
        );
        assert_eq!(canonical(&json!({"a": 1, "b": 2})), canonical(&json!({"b": 2, "a": 1})));
        assert_ne!(canonical(&json!([1, 2])), canonical(&json!([2, 1])));
        assert_ne!(canonical(&json!({"a": 1})), canonical(&json!([["a", 1]])));
    }
}
