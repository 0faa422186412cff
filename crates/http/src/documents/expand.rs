//! References between documents, resolved: `_expanded`.

use super::document_json;
use crate::{App, error::ApiError, objects::answer::ObjectResponse};
use serde_json::Value;
use std::collections::HashMap;
use strata_engine::documents::{Below, Show, Shown};
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

/// Relatives of a document, rather than fields of it.
const RELATIVES: [&str; 4] = ["parent", "root_object", "ancestors", "children"];

/// Those of `paths` that name relatives, which lists do not show, and no field of a document.
pub(super) fn unshown<'a>(documents: &[Fields], paths: &'a [String]) -> Vec<&'a str> {
    let is_field = |name: &str| documents.iter().any(|document| document.contains_key(name));
    paths.iter().map(String::as_str).filter(|name| RELATIVES.contains(name) && !is_field(name)).collect()
}

/// [`expand`] for one document, which may be asked for its relatives too. They are there even where there are none: null,
/// or an empty array.
pub(super) async fn expand_one(
    app: &App,
    scope: &Scope,
    document: &mut Fields,
    wanted: Vec<String>,
) -> Result<(), ApiError> {
    let (relatives, paths): (Vec<String>, Vec<String>) =
        wanted.into_iter().partition(|name| RELATIVES.contains(&name.as_str()));
    expand(app, scope, std::slice::from_mut(document), &paths).await?;
    for name in relatives {
        let value = relative(app, scope, document, &name).await?;
        let expanded = document.entry("_expanded").or_insert_with(|| Fields::new().into());
        if let Value::Object(expanded) = expanded {
            expanded.insert(name, value);
        }
    }
    Ok(())
}

async fn relative(app: &App, scope: &Scope, document: &Fields, name: &str) -> Result<Value, ApiError> {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let id = text(document.get("document_id"));
    // At the root a document may have fields of its own that are called so.
    let above = |name: &str| text(document.get("_internal").and_then(|internal| internal["lineage"].get(name)));
    let all = |found: Vec<Shown>| found.into_iter().map(document_json).collect::<Vec<Fields>>().into();
    match name {
        "ancestors" => Ok(all(app.ancestors(scope, None, &id, Show::default()).await?)),
        "children" => Ok(all(app.descendants(scope, None, &id, Below::Children, Show::default()).await?)),
        "parent" => {
            let (mut found, _) =
                app.documents_by_id(scope, vec![above("source_document_id")], Show::default()).await?;
            Ok(found.pop().map_or(Value::Null, |shown| document_json(shown).into()))
        }
        _ => match app.object_anywhere(scope, &above("root_object_id")).await? {
            Some(object) => Ok(ObjectResponse::of(app, object, false)?.map(None)?.into()),
            None => Ok(Value::Null),
        },
    }
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
