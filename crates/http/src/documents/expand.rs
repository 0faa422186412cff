//! References between documents, resolved: `_expanded`.

use super::document_json;
use crate::{App, error::ApiError};
use serde_json::Value;
use std::collections::HashMap;
use strata_engine::documents::Show;
use strata_model::{Fields, Scope, path};

/// Most references that one answer resolves.
pub(crate) const MAX_REFERENCES: usize = 50;

/// Adds to each document, under `_expanded`, the documents that its fields at `paths` name: by id, by an object with a
/// `document_id`, or by an array of these. Answers whether there were more references than are resolved.
pub(crate) async fn expand(
    app: &App,
    scope: &Scope,
    documents: &mut [Fields],
    paths: &[String],
) -> Result<bool, ApiError> {
    let (ids, has_more) = wanted(documents, paths);
    if ids.is_empty() {
        return Ok(false);
    }
    let (found, _) = app.documents_by_id(scope, ids, Show::default()).await?;
    let found: HashMap<String, Value> =
        found.into_iter().map(|shown| (shown.document.document_id.clone(), document_json(shown).into())).collect();
    for document in documents {
        let expanded: Fields = paths
            .iter()
            .filter_map(|at| Some((at.clone(), resolved(path::get_field(document, at)?, &found)?)))
            .collect();
        if !expanded.is_empty() {
            document.insert("_expanded".into(), expanded.into());
        }
    }
    Ok(has_more)
}

/// The ids that the documents name, each once, and whether some are left out.
fn wanted(documents: &[Fields], paths: &[String]) -> (Vec<String>, bool) {
    let mut ids: Vec<String> = Vec::new();
    let values = documents.iter().flat_map(|document| paths.iter().filter_map(|at| path::get_field(document, at)));
    for id in values.flat_map(references) {
        if ids.iter().any(|known| known == id) {
            continue;
        }
        if ids.len() == MAX_REFERENCES {
            return (ids, true);
        }
        ids.push(id.to_owned());
    }
    (ids, false)
}

fn references(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(list) => list.iter().filter_map(reference).collect(),
        one => reference(one).into_iter().collect(),
    }
}

fn reference(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("document_id")?.as_str())
}

fn resolved(value: &Value, found: &HashMap<String, Value>) -> Option<Value> {
    let one = |value: &Value| found.get(reference(value)?).cloned();
    match value {
        Value::Array(list) => {
            let each: Vec<Value> = list.iter().filter_map(one).collect();
            (!each.is_empty()).then(|| each.into())
        }
        value => one(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn references_are_read_in_every_form_and_bounded() {
        let document = json!({ "a": "doc_1", "b": { "c": ["doc_2", { "document_id": "doc_1" }, 7] }, "d": null });
        let document = document.as_object().unwrap().clone();
        let paths = ["a", "b.c", "d", "nothing"].map(str::to_owned);
        assert_eq!(wanted(&[document], &paths), (vec!["doc_1".to_owned(), "doc_2".to_owned()], false));
        let many: Vec<String> = (0..60).map(|n| format!("doc_{n}")).collect();
        let document = json!({ "a": many }).as_object().unwrap().clone();
        let (ids, has_more) = wanted(&[document], &paths);
        assert_eq!((ids.len(), has_more), (MAX_REFERENCES, true));
    }

    #[test]
    fn what_is_not_found_is_left_out() {
        let found = HashMap::from([("doc_1".to_owned(), json!({ "x": 1 }))]);
        assert_eq!(resolved(&json!("doc_1"), &found), Some(json!({ "x": 1 })));
        assert_eq!(resolved(&json!(["doc_2", "doc_1"]), &found), Some(json!([{ "x": 1 }])));
        assert_eq!(resolved(&json!(["doc_2"]), &found), None);
        assert_eq!(resolved(&json!(3), &found), None);
    }
}
