//! A hit as filters, sorts and templates see it: the document's [view](Document::view), and its scores.

use super::Hit;
use serde_json::Value;
use std::borrow::Cow;
use strata_model::document::{Document, SYSTEM_FIELDS};
use strata_model::{Fields, path};

/// [`Document::view`] and, where the hit has them, `score` and `scores`, which win over fields of the same name.
pub fn field_view(hit: &Hit) -> Fields {
    let mut fields = hit.document.view();
    if let Some(score) = hit.score {
        fields.insert("score".into(), score.into());
    }
    if !hit.scores.is_empty() {
        fields.insert("scores".into(), Value::Object(hit.scores.clone()));
    }
    fields
}

/// The value at a dot path of [`field_view`], without building it.
pub fn field<'h>(hit: &'h Hit, at: &str) -> Option<Cow<'h, Value>> {
    let (root, below) = match at.split_once('.') {
        Some((root, below)) => (root, Some(below)),
        None => (at, None),
    };
    let own = match root {
        "score" => hit.score.map(Value::from),
        "scores" if !hit.scores.is_empty() => return scores(hit, below),
        _ => system_field(&hit.document, root).map(Value::from),
    };
    match own {
        Some(value) if below.is_none() => Some(Cow::Owned(value)),
        // A text or a number has nothing below it, but a key may hold the whole path.
        Some(_) => hit.document.fields.get(at).map(Cow::Borrowed),
        None => path::get_field(&hit.document.fields, at).map(Cow::Borrowed),
    }
}

fn system_field<'d>(document: &'d Document, name: &str) -> Option<&'d str> {
    let place = SYSTEM_FIELDS.iter().position(|field| *field == name)?;
    document.system_values()[place]
}

fn scores<'h>(hit: &'h Hit, below: Option<&str>) -> Option<Cow<'h, Value>> {
    match below {
        Some(below) => path::get_field(&hit.scores, below).map(Cow::Borrowed),
        None => Some(Cow::Owned(Value::Object(hit.scores.clone()))),
    }
}

/// The part of [`field_view`] that `paths` name, each under its whole path, which is how filters look first.
pub fn projection(hit: &Hit, paths: &[&str]) -> Fields {
    paths.iter().filter_map(|at| Some(((*at).to_owned(), field(hit, at)?.into_owned()))).collect()
}

/// The number at a dot path of [`field_view`].
pub fn number(hit: &Hit, at: &str) -> Option<f64> {
    field(hit, at)?.as_f64()
}

/// The values at a dot path of [`field_view`]: of a list its elements, without nulls.
pub fn values(hit: &Hit, at: &str) -> Vec<Value> {
    let mut values = match field(hit, at).map(Cow::into_owned) {
        Some(Value::Array(list)) => list,
        Some(one) => vec![one],
        None => Vec::new(),
    };
    values.retain(|value| !value.is_null());
    values
}

/// Sets what stands at a dot path of [`field_view`]: a score where the path names one, else a field of the hit's own copy
/// of the document. What a document has from the system keeps its value.
pub fn set(hit: &mut Hit, at: &str, value: Value) {
    match at.strip_prefix("scores.") {
        Some(name) => path::set(&mut hit.scores, name, value),
        None if at == "score" => hit.score = value.as_f64(),
        None => path::set(&mut hit.document.fields, at, value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retrieval::fake;
    use serde_json::json;

    #[test]
    fn a_path_gives_what_the_whole_view_has() {
        let mut hit = Hit::new(fake::document(7, json!({"meta": {"tags": ["a"]}, "a.b": 1, "document_id": "mine"})));
        hit.score = Some(0.5);
        hit.scores.insert("rerank".into(), json!(0.25));
        hit.document.lineage.root_object_id = Some("obj_1".into());
        let whole = field_view(&hit);
        for at in [
            "document_id",
            "meta.tags",
            "meta.tags.0",
            "a.b",
            "score",
            "scores.rerank",
            "root_object_id",
            "nothing",
            "source_object_id",
        ] {
            assert_eq!(field(&hit, at).as_deref(), path::get_field(&whole, at), "{at}");
        }
        assert_eq!(field(&hit, "document_id").unwrap().as_str(), Some("doc_7"));
        assert_eq!(
            projection(&hit, &["meta.tags", "nothing"]),
            json!({"meta.tags": ["a"]}).as_object().cloned().unwrap()
        );
    }
}
