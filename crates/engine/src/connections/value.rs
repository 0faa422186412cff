//! JSON values as parameters of a query, and back.

use bytes::BytesMut;
use serde_json::Value;
use std::error::Error as StdError;
use tokio_postgres::types::{Format, IsNull, Kind, ToSql, Type};

/// A JSON value as PostgreSQL reads it from text, whatever type the query wants it to have.
#[derive(Debug)]
pub struct Bound<'v>(pub &'v Value);

impl ToSql for Bound<'_> {
    fn to_sql(&self, wanted: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        if self.0.is_null() {
            return Ok(IsNull::Yes);
        }
        let text = match (self.0, wanted.kind()) {
            (Value::Array(items), Kind::Array(_)) => array(items),
            (value, _) if matches!(*wanted, Type::JSON | Type::JSONB) => value.to_string(),
            (value, _) => plain(value),
        };
        if text.contains('\0') {
            return Err("PostgreSQL's texts hold no NUL".into());
        }
        out.extend_from_slice(text.as_bytes());
        Ok(IsNull::No)
    }
    fn accepts(_: &Type) -> bool {
        true
    }
    fn to_sql_checked(&self, wanted: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        self.to_sql(wanted, out)
    }
    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }
}

/// Text as it is, everything else as JSON.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// `{"a","b"}`: every item quoted, so that none can end the list.
fn array(items: &[Value]) -> String {
    let mut text = String::from("{");
    for (place, item) in items.iter().enumerate() {
        if place > 0 {
            text.push(',');
        }
        match item {
            Value::Null => text.push_str("NULL"),
            Value::Array(inner) => text.push_str(&array(inner)),
            other => {
                text.push('"');
                for c in plain(other).chars() {
                    if matches!(c, '"' | '\\') {
                        text.push('\\');
                    }
                    text.push(c);
                }
                text.push('"');
            }
        }
    }
    text.push('}');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lists_are_quoted() {
        let items = json!(["a", "b\"},{c\\", 1, null, true, ["x"]]);
        assert_eq!(array(items.as_array().unwrap()), r#"{"a","b\"},{c\\","1",NULL,"true",{"x"}}"#);
    }

    #[test]
    fn values_become_what_the_query_wants() {
        let written = |value: Value, wanted: Type| {
            let mut out = BytesMut::new();
            Bound(&value)
                .to_sql(&wanted, &mut out)
                .map(|_| String::from_utf8(out.to_vec()).unwrap())
                .map_err(|e| e.to_string())
        };
        for (value, wanted, text) in [
            (json!("a"), Type::TEXT, "a"),
            (json!("a"), Type::JSONB, "\"a\""),
            (json!(["a"]), Type::JSONB, "[\"a\"]"),
            (json!(["a"]), Type::TEXT_ARRAY, "{\"a\"}"),
            (json!(12.50), Type::NUMERIC, "12.5"),
            (json!(true), Type::BOOL, "true"),
            (json!({"a": 1}), Type::TEXT, "{\"a\":1}"),
            (json!(null), Type::TEXT, ""),
        ] {
            assert_eq!(written(value, wanted).unwrap(), text);
        }
        assert!(written(json!("a\u{0}b"), Type::TEXT).unwrap_err().contains("NUL"));
    }
}
