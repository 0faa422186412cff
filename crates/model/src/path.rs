//! Dot paths into JSON: `metadata.tags`, `blobs.0.type`. A key that itself contains dots is found by its whole name
//! first.

use serde_json::Value;

/// The value at `path` below `root`, or `None` where any part is missing.
pub fn get<'a>(root: &'a Value, path: &str) -> Option<&'a Value> {
    if let Some(direct) = root.as_object().and_then(|o| o.get(path)) {
        return Some(direct);
    }
    let mut at = root;
    for part in path.split('.') {
        at = match at {
            Value::Object(map) => map.get(part)?,
            Value::Array(list) => list.get(part.parse::<usize>().ok()?)?,
            _ => return None,
        };
    }
    Some(at)
}

/// [`get`] below an object.
pub fn get_field<'a>(fields: &'a crate::Fields, path: &str) -> Option<&'a Value> {
    if let Some(direct) = fields.get(path) {
        return Some(direct);
    }
    let (head, rest) = path.split_once('.')?;
    get(fields.get(head)?, rest)
}

/// Sets the value at `path`, making objects on the way. A part that is there and is no object is replaced.
pub fn set(fields: &mut crate::Fields, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            fields.insert(path.to_owned(), value);
        }
        Some((head, rest)) => {
            let slot = fields.entry(head.to_owned()).or_insert_with(|| Value::Object(Default::default()));
            if !slot.is_object() {
                *slot = Value::Object(Default::default());
            }
            if let Value::Object(inner) = slot {
                set(inner, rest, value);
            }
        }
    }
}
