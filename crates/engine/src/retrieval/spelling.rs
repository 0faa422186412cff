//! The ways callers write a stage, turned into one.
//!
//! The one is `{stage_name, stage_type, config: {stage_id, parameters, pre_filters, post_filters}, …}`. The others are
//! listed in the tests below; they come from older documentation and from clients that still send them.

use super::params::is_absent;
use serde_json::Value;
use strata_model::{Error, Fields, Result};

/// A stage in its one spelling, not understood yet.
#[derive(Debug, Clone, PartialEq)]
pub struct WrittenStage {
    pub stage_name: Option<String>,
    /// As sent, not resolved.
    pub stage_id: String,
    pub parameters: Fields,
    pub pre_filters: Option<Value>,
    pub post_filters: Option<Value>,
    /// `description`, `batch_size`, `on_error`, `output_alias` and `stage_type`, as sent.
    pub rest: Fields,
    /// Places of what stands beside the parameters and is no part of a stage.
    pub ignored: Vec<String>,
}

/// Keys of a stage that are not parameters, wherever they stand.
const OUTER: [&str; 6] = ["description", "batch_size", "on_error", "output_alias", "stage_type", "version"];

/// Reads stage `index`; `known` says whether a text is the id of a stage.
pub fn read(stage: &Value, index: usize, known: impl Fn(&str) -> bool) -> Result<WrittenStage> {
    let at = format!("stages.{index}");
    let Value::Object(outer) = stage else {
        return Err(Error::invalid(at, "must be an object with `stage_name` and `config`"));
    };
    let mut outer = outer.clone();
    let mut inner = match outer.remove("config") {
        None | Some(Value::Null) => Fields::new(),
        Some(Value::Object(config)) => config,
        Some(_) => return Err(Error::invalid(format!("{at}.config"), "must be an object")),
    };
    let stage_id = id(&inner, &outer, &at, known)?;
    let stage_name = outer.remove("stage_name").or_else(|| outer.remove("name")).and_then(text);
    inner.remove("stage_id");
    outer.remove("stage_id");
    outer.remove("type");
    let mut rest = Fields::new();
    for key in OUTER {
        rest.extend(outer.remove(key).filter(|v| !is_absent(v)).map(|v| (key.to_owned(), v)));
    }
    let pre_filters = filters(&mut inner, &mut outer, "pre_filters");
    let post_filters = filters(&mut inner, &mut outer, "post_filters");
    let repeated = outer.remove("parameters");
    let mut ignored = Vec::new();
    let parameters = match inner.remove("parameters").filter(|v| !v.is_null()).or(repeated) {
        Some(Value::Object(parameters)) => {
            outer.remove("name");
            ignored.extend(sent(&outer).map(|key| format!("{at}.{key}")));
            ignored.extend(sent(&inner).map(|key| format!("{at}.config.{key}")));
            parameters
        }
        None | Some(Value::Null) => inner.into_iter().chain(outer).collect(),
        Some(_) => return Err(Error::invalid(format!("{at}.config.parameters"), "must be an object")),
    };
    Ok(WrittenStage { stage_name, stage_id, parameters, pre_filters, post_filters, rest, ignored })
}

fn sent(fields: &Fields) -> impl Iterator<Item = &str> {
    fields.iter().filter(|(_, value)| !is_absent(value)).map(|(key, _)| key.as_str())
}

fn id(inner: &Fields, outer: &Fields, at: &str, known: impl Fn(&str) -> bool) -> Result<String> {
    let named = |map: &Fields, key: &str| map.get(key).cloned().and_then(text);
    let stated = named(inner, "stage_id").or_else(|| named(outer, "stage_id")).or_else(|| named(outer, "type"));
    // `stage_name` and `stage_type` are free words unless they happen to be an id.
    let implied = || {
        ["stage_name", "name", "stage_type"].into_iter().filter_map(|key| named(outer, key)).find(|word| known(word))
    };
    // A name that is not an id but stands where the id should is the best that can be shown in the refusal.
    let shown = || named(outer, "stage_name").filter(|_| inner.is_empty());
    stated.or_else(implied).or_else(shown).ok_or_else(|| Error::invalid(format!("{at}.config.stage_id"), "is required"))
}

fn filters(inner: &mut Fields, outer: &mut Fields, name: &str) -> Option<Value> {
    let (inside, outside) = (inner.remove(name), outer.remove(name));
    inside.filter(|v| !is_absent(v)).or(outside.filter(|v| !is_absent(v)))
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::String(text) if !text.trim().is_empty() && text != "null" => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn written(stage: Value) -> WrittenStage {
        read(&stage, 0, |id| id == "limit").unwrap()
    }

    #[test]
    fn every_spelling_is_one_stage() {
        let parameters = json!({"limit": 3}).as_object().cloned().unwrap();
        for (stage, name) in [
            (
                json!({"stage_name": "cut", "stage_type": "reduce", "config": {"stage_id": "limit", "parameters": {"limit": 3}}}),
                Some("cut"),
            ),
            (json!({"stage_name": "cut", "config": {"stage_id": "limit", "limit": 3}}), Some("cut")),
            (
                json!({"stage_name": "cut", "config": {"stage_id": "limit", "parameters": {"limit": 3}}, "parameters": {"limit": 9}}),
                Some("cut"),
            ),
            (json!({"stage_type": "reduce", "stage_id": "limit", "parameters": {"limit": 3}}), None),
            (json!({"stage_name": "limit", "version": "v1", "parameters": {"limit": 3}}), Some("limit")),
            (json!({"type": "limit", "limit": 3}), None),
            (json!({"stage_id": "limit", "limit": 3}), None),
            (json!({"stage_type": "limit", "limit": 3}), None),
        ] {
            let read = written(stage.clone());
            assert_eq!(
                (read.stage_id.as_str(), read.stage_name.as_deref(), &read.parameters),
                ("limit", name, &parameters),
                "{stage}"
            );
        }
    }

    #[test]
    fn filters_stand_beside_the_parameters_in_any_spelling() {
        let filter = json!({"a": 1});
        for stage in [
            json!({"stage_name": "s", "config": {"stage_id": "limit", "parameters": {}, "pre_filters": filter}}),
            json!({"stage_id": "limit", "parameters": {}, "pre_filters": filter}),
            json!({"type": "limit", "pre_filters": filter, "post_filters": "null"}),
        ] {
            let read = written(stage);
            assert_eq!(
                (read.pre_filters, read.post_filters, read.parameters),
                (Some(filter.clone()), None, Fields::new())
            );
        }
    }

    #[test]
    fn what_is_no_part_of_a_stage_is_named() {
        let stage = json!({
            "stage_name": "s", "pre_filter": {"a": 1}, "note": null,
            "config": {"stage_id": "limit", "parameters": {}, "filters": {"a": 1}},
        });
        assert_eq!(written(stage).ignored, ["stages.0.pre_filter", "stages.0.config.filters"]);
        let stage = json!({"name": "s", "stage_name": "t", "config": {"stage_id": "limit", "parameters": {}}});
        assert!(written(stage).ignored.is_empty());
    }

    #[test]
    fn a_stage_without_an_id_is_refused() {
        for stage in [json!({"stage_name": "x", "config": {"parameters": {}}}), json!({"parameters": {}}), json!({})] {
            assert!(read(&stage, 4, |_| false).unwrap_err().to_string().contains("stages.4.config.stage_id"));
        }
        assert!(read(&json!([1]), 1, |_| false).unwrap_err().to_string().contains("stages.1"));
    }
}
