//! Annotations: what people decided about documents. An edit replaces nothing for good: every version can be read again,
//! and lists can be asked for as they stood at a time. What is deleted is gone with its versions.

use crate::{Engine, audit};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use strata_model::{Error, Fields, Principal, Result, Scope, id};
use strata_store::catalog::{
    annotations::{self as rows},
    documents,
    resources::{self, Kind},
    rusqlite::{Connection, Transaction},
};

pub use strata_store::catalog::annotations::{Annotation, Revision, Selection};

const MAX_LABEL_CHARS: usize = 100;
const MAX_REASONING_CHARS: usize = 5_000;
/// Longest `payload` and longest `metadata`, in bytes of JSON.
const MAX_OBJECT_BYTES: usize = 256 << 10;
/// Most edits of one annotation.
const MAX_VERSIONS: i64 = 100;

/// What an annotation says, and what edits change. `None` says nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Judgment {
    pub label: Option<String>,
    /// From 0 to 1.
    pub confidence: Option<f64>,
    pub reasoning: Option<String>,
    pub payload: Option<Fields>,
    pub metadata: Option<Fields>,
}

/// An annotation that is to be made.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NewAnnotation {
    pub document_id: String,
    /// Id or name; `None` takes the document's own.
    pub collection_id: Option<String>,
    pub judgment: Judgment,
    /// Id or name of the retriever that found the document.
    pub retriever_id: Option<String>,
    pub execution_id: Option<String>,
    pub stage_name: Option<String>,
}

/// Changes of annotations, each for itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AnnotationChanges {
    pub create: Vec<NewAnnotation>,
    pub update: Vec<(String, Judgment)>,
    pub delete: Vec<String>,
}

/// What came of one change.
#[derive(Debug)]
pub struct ChangeOutcome {
    /// `create`, `update` or `delete`.
    pub operation: &'static str,
    /// The annotation, where there is one.
    pub annotation_id: Option<String>,
    pub error: Option<Error>,
}

/// An annotation in one of its versions.
#[derive(Debug, Clone, PartialEq)]
pub struct Versioned {
    pub annotation: Annotation,
    /// The versions before it, oldest first.
    pub revisions: Vec<Revision>,
}

/// Who edits, and when.
#[derive(Debug, Clone)]
struct Edit {
    actor_id: String,
    now: String,
}

/// The kind of actor that a key of a user is.
const ACTOR_TYPE: &str = "user";

impl Judgment {
    fn check(&self) -> Result<()> {
        if let Some(label) = &self.label
            && (label.trim().is_empty() || label.chars().count() > MAX_LABEL_CHARS)
        {
            return Err(Error::invalid("label", format!("must have 1 to {MAX_LABEL_CHARS} characters")));
        }
        if self.confidence.is_some_and(|confidence| !(0.0..=1.0).contains(&confidence)) {
            return Err(Error::invalid("confidence", "must be a number from 0 to 1"));
        }
        if self.reasoning.as_ref().is_some_and(|text| text.chars().count() > MAX_REASONING_CHARS) {
            return Err(Error::invalid("reasoning", format!("must have at most {MAX_REASONING_CHARS} characters")));
        }
        for (field, object) in [("payload", &self.payload), ("metadata", &self.metadata)] {
            let length = object.as_ref().map_or(0, |object| json!(object).to_string().len());
            if length > MAX_OBJECT_BYTES {
                return Err(Error::invalid(field, format!("must have at most {MAX_OBJECT_BYTES} bytes of JSON")));
            }
        }
        Ok(())
    }

    /// What it says, by field.
    fn said(&self) -> Vec<(&'static str, Value)> {
        let all = [
            ("label", json!(self.label)),
            ("confidence", json!(self.confidence)),
            ("reasoning", json!(self.reasoning)),
            ("payload", json!(self.payload)),
            ("metadata", json!(self.metadata)),
        ];
        all.into_iter().filter(|(_, value)| !value.is_null()).collect()
    }
}

impl Engine {
    pub async fn create_annotation(
        &self,
        scope: &Scope,
        principal: &Principal,
        new: NewAnnotation,
    ) -> Result<Annotation> {
        let (scope, edit) = (scope.clone(), self.edit(principal));
        let id = self.catalog.new_id(id::ANNOTATION, 20);
        audit::about(&id);
        self.catalog.write(move |tx| create(tx, &scope, &edit, id, new)).await
    }

    /// Changes what `judgment` says. One that says what is there already makes no version.
    pub async fn edit_annotation(
        &self,
        scope: &Scope,
        principal: &Principal,
        annotation_id: &str,
        judgment: Judgment,
    ) -> Result<Versioned> {
        let (scope, edit, annotation_id) = (scope.clone(), self.edit(principal), annotation_id.to_owned());
        self.catalog
            .write(move |tx| {
                let annotation = change(tx, &scope, &edit, &annotation_id, &judgment)?;
                Ok(Versioned { revisions: rows::revisions(tx, &annotation_id)?, annotation })
            })
            .await
    }

    pub async fn delete_annotation(&self, scope: &Scope, annotation_id: &str) -> Result<()> {
        let (scope, annotation_id) = (scope.clone(), annotation_id.to_owned());
        self.catalog.write(move |tx| rows::delete(tx, &scope, &annotation_id)).await
    }

    /// Makes all changes in one transaction, in the order create, update, delete. One that is wrong changes nothing and
    /// keeps no other out.
    pub async fn change_annotations(
        &self,
        scope: &Scope,
        principal: &Principal,
        changes: AnnotationChanges,
    ) -> Result<Vec<ChangeOutcome>> {
        let (scope, edit) = (scope.clone(), self.edit(principal));
        let ids: Vec<String> = changes.create.iter().map(|_| self.catalog.new_id(id::ANNOTATION, 20)).collect();
        self.catalog
            .write(move |tx| {
                let mut outcomes = Vec::new();
                for (id, new) in ids.into_iter().zip(changes.create) {
                    let made = create(tx, &scope, &edit, id, new).map(|made| made.annotation_id);
                    outcomes.push(outcome("create", None, made.map(Some))?);
                }
                for (id, judgment) in changes.update {
                    let changed = change(tx, &scope, &edit, &id, &judgment).map(|_| None);
                    outcomes.push(outcome("update", Some(id), changed)?);
                }
                for id in changes.delete {
                    let gone = rows::delete(tx, &scope, &id).map(|()| None);
                    outcomes.push(outcome("delete", Some(id), gone)?);
                }
                Ok(outcomes)
            })
            .await
    }

    /// An annotation as it is now.
    pub async fn annotation(&self, scope: &Scope, annotation_id: &str) -> Result<Versioned> {
        let (scope, annotation_id) = (scope.clone(), annotation_id.to_owned());
        self.catalog
            .read(move |c| {
                let annotation = rows::get(c, &scope, &annotation_id)?;
                Ok(Versioned { revisions: rows::revisions(c, &annotation_id)?, annotation })
            })
            .await
    }

    /// An annotation as one of its versions said.
    pub async fn annotation_at(&self, scope: &Scope, annotation_id: &str, version: i64) -> Result<Versioned> {
        let Versioned { annotation, revisions } = self.annotation(scope, annotation_id).await?;
        if !(1..=annotation.version).contains(&version) {
            return Err(Error::missing("annotation version", format!("{annotation_id}/{version}")));
        }
        Ok(at_version(annotation, revisions, version))
    }

    /// A page of annotations, newest first, and how many there are.
    pub async fn annotations(
        &self,
        scope: &Scope,
        selection: Selection,
        part: (usize, usize),
    ) -> Result<(Vec<Annotation>, i64)> {
        let scope = scope.clone();
        self.catalog
            .read(move |c| {
                let selection = resolved(c, &scope, selection)?;
                let (mut found, total) = rows::list(c, &scope, &selection, part)?;
                if let Some(time) = &selection.as_of {
                    found = found.into_iter().map(|a| as_of(c, a, time)).collect::<Result<_>>()?;
                }
                Ok((found, total))
            })
            .await
    }

    /// How many annotations there are of each label.
    pub async fn annotation_labels(&self, scope: &Scope, selection: Selection) -> Result<BTreeMap<String, i64>> {
        let scope = scope.clone();
        self.catalog.read(move |c| rows::count_by_label(c, &scope, &resolved(c, &scope, selection)?)).await
    }

    fn edit(&self, principal: &Principal) -> Edit {
        Edit { actor_id: principal.user_id.clone(), now: self.catalog.now() }
    }
}

/// The selection with ids where it has names. What is gone may have annotations still, by its id.
fn resolved(connection: &Connection, scope: &Scope, selection: Selection) -> Result<Selection> {
    let id = |kind: Kind, named: Option<String>| match named {
        Some(name) => Ok(Some(resources::find(connection, kind, scope, &name)?.map_or(name, |found| found.id))),
        None => Ok::<_, Error>(None),
    };
    Ok(Selection {
        collection_id: id(Kind::Collection, selection.collection_id)?,
        retriever_id: id(Kind::Retriever, selection.retriever_id)?,
        ..selection
    })
}

/// What came of a change; an error that is not the caller's ends them all.
fn outcome(operation: &'static str, id: Option<String>, done: Result<Option<String>>) -> Result<ChangeOutcome> {
    match done {
        Ok(made) => Ok(ChangeOutcome { operation, annotation_id: made.or(id), error: None }),
        Err(error @ (Error::Invalid(_) | Error::Missing { .. } | Error::Conflict(_))) => {
            Ok(ChangeOutcome { operation, annotation_id: id, error: Some(error) })
        }
        Err(other) => Err(other),
    }
}

fn create(tx: &Transaction<'_>, scope: &Scope, edit: &Edit, id: String, new: NewAnnotation) -> Result<Annotation> {
    new.judgment.check()?;
    let label = new.judgment.label.clone().ok_or_else(|| Error::invalid("label", "is required"))?;
    let collection_id = collection_of(tx, scope, &new)?;
    let retriever_id = match &new.retriever_id {
        Some(name) => {
            let found = resources::find(tx, Kind::Retriever, scope, name)?;
            let unknown = || Error::invalid("retriever_id", format!("the retriever `{name}` does not exist"));
            Some(found.ok_or_else(unknown)?.id)
        }
        None => None,
    };
    let mut fields: Fields = new.judgment.said().into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    for (key, value) in [("execution_id", new.execution_id), ("stage_name", new.stage_name)] {
        fields.extend(value.map(|text| (key.to_owned(), text.into())));
    }
    fields.insert("actor_type".into(), ACTOR_TYPE.into());
    let made = Annotation {
        annotation_id: id,
        document_id: new.document_id,
        collection_id: Some(collection_id),
        label,
        actor_id: edit.actor_id.clone(),
        retriever_id,
        version: 1,
        fields,
        created_at: edit.now.clone(),
        updated_at: edit.now.clone(),
    };
    rows::insert(tx, scope, &made)?;
    Ok(made)
}

/// The collection of the document, which must be the one that is named, if one is.
fn collection_of(tx: &Transaction<'_>, scope: &Scope, new: &NewAnnotation) -> Result<String> {
    let document = match documents::get(tx, scope, None, &new.document_id) {
        Ok(document) => document,
        Err(Error::Missing { .. }) => {
            let message = format!("the document `{}` does not exist", new.document_id);
            return Err(Error::invalid("document_id", message));
        }
        Err(other) => return Err(other),
    };
    let Some(name) = &new.collection_id else { return Ok(document.collection_id) };
    let named = resources::find(tx, Kind::Collection, scope, name)?;
    match named {
        Some(collection) if collection.id == document.collection_id => Ok(collection.id),
        Some(_) => Err(Error::invalid("document_id", format!("is not in the collection `{name}`"))),
        None => Err(Error::invalid("collection_id", format!("the collection `{name}` does not exist"))),
    }
}

fn change(tx: &Transaction<'_>, scope: &Scope, edit: &Edit, id: &str, judgment: &Judgment) -> Result<Annotation> {
    judgment.check()?;
    let mut annotation = rows::get(tx, scope, id)?;
    let mut prior = Fields::new();
    for (key, value) in judgment.said() {
        if annotation.fields.get(key) != Some(&value) {
            let before = annotation.fields.insert(key.to_owned(), value).unwrap_or(Value::Null);
            prior.insert(key.to_owned(), before);
        }
    }
    if prior.is_empty() {
        return Ok(annotation);
    }
    if annotation.version >= MAX_VERSIONS {
        let message = format!("annotation `{id}` has {MAX_VERSIONS} versions, the most there can be; make a new one");
        return Err(Error::Conflict(message));
    }
    // Edits that waited for each other are told in the order in which they came to pass.
    let edited_at = edit.now.clone().max(annotation.updated_at.clone());
    let replaced = Revision {
        version: annotation.version,
        prior,
        edited_at: edited_at.clone(),
        edited_by: edit.actor_id.clone(),
        edited_by_type: ACTOR_TYPE.to_owned(),
    };
    annotation.label = label_of(&annotation.fields);
    annotation.version += 1;
    annotation.updated_at = edited_at;
    rows::edit(tx, scope, &annotation, &replaced)?;
    Ok(annotation)
}

fn label_of(fields: &Fields) -> String {
    fields.get("label").and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The annotation as a version said, undoing edits from the newest one backwards.
fn at_version(mut annotation: Annotation, mut revisions: Vec<Revision>, version: i64) -> Versioned {
    let later = revisions.iter().position(|r| r.version >= version).unwrap_or(revisions.len());
    for undone in revisions.split_off(later).into_iter().rev() {
        for (key, before) in undone.prior {
            match before {
                Value::Null => drop(annotation.fields.remove(&key)),
                before => drop(annotation.fields.insert(key, before)),
            }
        }
    }
    annotation.label = label_of(&annotation.fields);
    annotation.version = version;
    annotation.updated_at = revisions.last().map_or_else(|| annotation.created_at.clone(), |r| r.edited_at.clone());
    Versioned { annotation, revisions }
}

fn as_of(connection: &Connection, annotation: Annotation, time: &str) -> Result<Annotation> {
    if annotation.updated_at.as_str() <= time {
        return Ok(annotation);
    }
    let revisions = rows::revisions(connection, &annotation.annotation_id)?;
    let version = 1 + revisions.iter().filter(|r| r.edited_at.as_str() <= time).count() as i64;
    Ok(at_version(annotation, revisions, version).annotation)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(value: Value) -> Fields {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn edits_are_undone_backwards() {
        let annotation = Annotation {
            annotation_id: "ann_1".into(),
            document_id: "doc_1".into(),
            collection_id: None,
            label: "c".into(),
            actor_id: "usr".into(),
            retriever_id: None,
            version: 3,
            fields: fields(json!({ "label": "c", "confidence": 0.5, "reasoning": "why" })),
            created_at: "t1".into(),
            updated_at: "t3".into(),
        };
        let revision = |version: i64, prior: Value| Revision {
            version,
            prior: fields(prior),
            edited_at: format!("t{}", version + 1),
            edited_by: "usr".into(),
            edited_by_type: "user".into(),
        };
        let revisions = vec![
            revision(1, json!({ "label": "a", "confidence": null })),
            revision(2, json!({ "label": "b", "reasoning": null })),
        ];
        let at = |version: i64| at_version(annotation.clone(), revisions.clone(), version);
        assert_eq!(at(3).annotation, annotation);
        let second = at(2);
        assert_eq!((second.annotation.label.as_str(), second.annotation.updated_at.as_str()), ("b", "t2"));
        assert_eq!(Value::Object(second.annotation.fields), json!({ "label": "b", "confidence": 0.5 }));
        let first = at(1);
        assert_eq!(Value::Object(first.annotation.fields), json!({ "label": "a" }));
        assert_eq!((first.annotation.updated_at.as_str(), first.revisions.len()), ("t1", 0));
    }

    #[test]
    fn judgments_are_checked() {
        let wrong = |judgment: Judgment| judgment.check().unwrap_err().to_string();
        assert!(wrong(Judgment { label: Some(" ".into()), ..Judgment::default() }).contains("`label`"));
        assert!(wrong(Judgment { confidence: Some(1.1), ..Judgment::default() }).contains("`confidence`"));
        assert!(wrong(Judgment { reasoning: Some("x".repeat(5_001)), ..Judgment::default() }).contains("`reasoning`"));
    }
}
