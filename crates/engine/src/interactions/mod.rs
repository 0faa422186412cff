//! Interactions: what users did with what retrievers found. Evaluations, benchmarks and learned fusion are made from them.
//!
//! An interaction that names an execution which the server still remembers keeps its part of it: the inputs, and where
//! each search had placed the document.

mod kinds;
mod list;

pub use kinds::{KINDS, check_kind, is_kind, weight};
pub use list::{InteractionPage, InteractionQuery};
pub use strata_store::catalog::interactions::{Interaction, Mark};

use crate::{
    Engine, audit,
    retrievers::{Trace, Traced},
    times,
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc};
use strata_model::{Error, Fields, Result, Scope, id};
use strata_store::{
    catalog::{
        documents, interactions as rows,
        resources::{self, Kind},
        rusqlite::{Connection, Transaction},
    },
    seams::rfc3339,
};

/// The same report within this time is one interaction, in microseconds.
const REPEAT_WINDOW: i64 = 5 * 60 * 1_000_000;
/// Longest id that an interaction carries, in characters.
const MAX_ID_CHARS: usize = 1_000;
/// Longest `metadata` and longest `query_snapshot`, in bytes of JSON.
const MAX_OBJECT_BYTES: usize = 256 << 10;

/// An interaction as it is reported.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NewInteraction {
    /// The id of the document.
    pub feature_id: String,
    pub interaction_types: Vec<String>,
    /// The document's place among the results, from 0.
    pub position: i64,
    pub metadata: Option<Fields>,
    pub user_id: Option<String>,
    pub session_id: Option<String>,
    pub execution_id: Option<String>,
    /// Id or name of a stored retriever.
    pub retriever_id: Option<String>,
    /// The inputs of the execution.
    pub query_snapshot: Option<Fields>,
    pub document_score: Option<f64>,
    /// How many results were shown.
    pub result_set_size: Option<i64>,
    /// The feature that found the document.
    pub feature_uri: Option<String>,
    /// When it happened, if that was not now. Later than now counts as now.
    pub occurred_at: Option<String>,
}

/// An interaction that was taken in.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    pub interaction: Interaction,
    /// It had been reported already and was not stored again.
    pub is_repeated: bool,
    /// What may be wrong with it though it was taken.
    pub warnings: Vec<String>,
}

/// A checked interaction on its way into the catalog.
struct Draft {
    interaction: Interaction,
    trace: Option<Arc<Trace>>,
}

impl Engine {
    /// Stores an interaction, unless its execution, document and types were reported in the last five minutes.
    /// `retriever` is the id or name of the retriever that it is about, where the caller knows; else the interaction names
    /// it, or its execution does.
    pub async fn record_interaction(
        &self,
        scope: &Scope,
        retriever: Option<&str>,
        interaction: NewInteraction,
    ) -> Result<Recorded> {
        let draft = self.draft(scope, interaction)?;
        audit::about(&draft.interaction.interaction_id);
        let since = rfc3339(self.catalog.now_micros() - REPEAT_WINDOW);
        let (scope, retriever) = (scope.clone(), retriever.map(str::to_owned));
        self.catalog
            .write(move |tx| {
                let known = retriever.map(|name| resources::get(tx, Kind::Retriever, &scope, &name)).transpose()?;
                let recorded = complete(tx, &scope, known.as_ref().map(|r| r.id.as_str()), draft)?;
                if rows::is_repeated(tx, &scope, &recorded.interaction, &since)? {
                    return Ok(Recorded { is_repeated: true, ..recorded });
                }
                rows::insert(tx, &scope, &recorded.interaction)?;
                Ok(recorded)
            })
            .await
    }

    /// Stores interactions in one transaction, repeated ones too: logs may say the same thing often. One that is wrong is
    /// answered with its error and does not keep the others out. `retriever` as in [`Engine::record_interaction`].
    pub async fn record_interactions(
        &self,
        scope: &Scope,
        retriever: Option<&str>,
        interactions: Vec<NewInteraction>,
    ) -> Result<Vec<Result<Recorded>>> {
        let drafts: Vec<Result<Draft>> = interactions.into_iter().map(|one| self.draft(scope, one)).collect();
        let (scope, retriever) = (scope.clone(), retriever.map(str::to_owned));
        self.catalog
            .write(move |tx| {
                let known = retriever.map(|name| resources::get(tx, Kind::Retriever, &scope, &name)).transpose()?;
                let known = known.as_ref().map(|r| r.id.as_str());
                let mut answers = Vec::with_capacity(drafts.len());
                for draft in drafts {
                    let answer = match draft.and_then(|draft| complete(tx, &scope, known, draft)) {
                        Ok(recorded) => {
                            rows::insert(tx, &scope, &recorded.interaction)?;
                            Ok(recorded)
                        }
                        Err(error @ Error::Invalid(_)) => Err(error),
                        Err(other) => return Err(other),
                    };
                    answers.push(answer);
                }
                Ok(answers)
            })
            .await
    }

    /// An interaction of the scope.
    pub async fn interaction(&self, scope: &Scope, interaction_id: &str) -> Result<Interaction> {
        let (scope, interaction_id) = (scope.clone(), interaction_id.to_owned());
        self.catalog.read(move |connection| rows::get(connection, &scope, &interaction_id)).await
    }

    /// Removes an interaction; answers whether it was there.
    pub async fn delete_interaction(&self, scope: &Scope, interaction_id: &str) -> Result<bool> {
        let (scope, interaction_id) = (scope.clone(), interaction_id.to_owned());
        let gone = self.catalog.write(move |tx| rows::delete(tx, &scope, &interaction_id)).await?;
        if let Some(Some(retriever_id)) = &gone {
            self.memory.feedback.forget(retriever_id);
        }
        Ok(gone.is_some())
    }

    /// Checks an interaction, and finds what is remembered of its execution.
    fn draft(&self, scope: &Scope, new: NewInteraction) -> Result<Draft> {
        let kinds = checked_kinds(&new.interaction_types)?;
        check(&new, &kinds)?;
        let now = self.catalog.now_micros();
        let occurred = match &new.occurred_at {
            Some(text) => times::moment(text, "occurred_at")?.min(now),
            None => now,
        };
        let trace = new.execution_id.as_ref().and_then(|id| self.memory.traces.get(scope, id));
        let interaction_id = self.catalog.new_id(id::INTERACTION, 20);
        let (occurred_at, timestamp) = (rfc3339(occurred), rfc3339(now));
        let mut fields = Fields::new();
        for (key, value) in [
            ("interaction_id", json!(interaction_id)),
            ("feature_id", json!(new.feature_id)),
            ("interaction_type", json!(kinds)),
            ("position", json!(new.position)),
            ("metadata", json!(new.metadata)),
            ("user_id", json!(new.user_id)),
            ("session_id", json!(new.session_id)),
            ("execution_id", json!(new.execution_id)),
            ("retriever_id", json!(new.retriever_id)),
            ("query_snapshot", json!(new.query_snapshot)),
            ("document_score", json!(new.document_score)),
            ("result_set_size", json!(new.result_set_size)),
            ("feature_uri", json!(new.feature_uri)),
            ("occurred_at", json!(occurred_at)),
            ("timestamp", json!(timestamp)),
        ] {
            if !value.is_null() {
                fields.insert(key.to_owned(), value);
            }
        }
        let interaction = Interaction {
            seq: 0,
            interaction_id,
            retriever_id: new.retriever_id,
            execution_id: new.execution_id,
            session_id: new.session_id,
            user_id: new.user_id,
            feature_id: new.feature_id,
            types: kinds,
            occurred_at,
            timestamp,
            fields,
            traced: None,
        };
        Ok(Draft { interaction, trace })
    }
}

/// Types as they are kept: known ones, sorted, each once.
fn checked_kinds(sent: &[String]) -> Result<Vec<String>> {
    if sent.is_empty() {
        return Err(Error::invalid("interaction_type", "must hold at least one type"));
    }
    for (i, kind) in sent.iter().enumerate() {
        check_kind(kind, &format!("interaction_type.{i}"))?;
    }
    let kinds: BTreeSet<&String> = sent.iter().collect();
    Ok(kinds.into_iter().cloned().collect())
}

fn check(new: &NewInteraction, kinds: &[String]) -> Result<()> {
    let ids = [
        ("feature_id", Some(&new.feature_id)),
        ("user_id", new.user_id.as_ref()),
        ("session_id", new.session_id.as_ref()),
        ("execution_id", new.execution_id.as_ref()),
        ("retriever_id", new.retriever_id.as_ref()),
        ("feature_uri", new.feature_uri.as_ref()),
    ];
    for (field, text) in ids {
        if text.is_some_and(|text| text.trim().is_empty() || text.chars().count() > MAX_ID_CHARS) {
            return Err(Error::invalid(field, format!("must have 1 to {MAX_ID_CHARS} characters")));
        }
    }
    if new.position < 0 {
        return Err(Error::invalid("position", "must be 0 or more; 0 is the first result"));
    }
    for (field, object) in [("metadata", &new.metadata), ("query_snapshot", &new.query_snapshot)] {
        let length = object.as_ref().map_or(0, |object| json!(object).to_string().len());
        if length > MAX_OBJECT_BYTES {
            return Err(Error::invalid(field, format!("must have at most {MAX_OBJECT_BYTES} bytes of JSON")));
        }
    }
    match new.result_set_size {
        Some(size) if size < 0 => Err(Error::invalid("result_set_size", "must be 0 or more")),
        Some(0) if kinds.iter().any(|kind| kind != "zero_results") => {
            Err(Error::invalid("result_set_size", "can be 0 only for `zero_results`"))
        }
        _ => Ok(()),
    }
}

/// Adds to a checked interaction what the catalog and the remembered execution know. `retriever` is the id of the
/// retriever that it is said to be about.
fn complete(tx: &Transaction<'_>, scope: &Scope, retriever: Option<&str>, draft: Draft) -> Result<Recorded> {
    let Draft { mut interaction, trace } = draft;
    let mut warnings = Vec::new();
    let is_there = documents::exists(tx, scope, None, &interaction.feature_id)?;
    let is_hidden = !is_there && documents::exists(tx, &scope.for_server(), None, &interaction.feature_id)?;
    // Where a document that the caller does not see stood in somebody's results is not told.
    let trace = trace.filter(|_| !is_hidden);
    let named = match (retriever, &interaction.retriever_id) {
        (Some(id), _) => Some(id.to_owned()),
        (None, Some(name)) => Some(retriever_id(tx, scope, name)?),
        (None, None) => None,
    };
    let of_execution = trace.as_ref().and_then(|trace| trace.retriever_id.clone());
    let is_another = named.is_some() && trace.is_some() && of_execution != named;
    if is_another {
        warnings.push("the execution is one of another retriever; nothing is learned from it".to_owned());
    }
    interaction.retriever_id = named.or(of_execution);
    interaction.fields.remove("retriever_id");
    if let Some(id) = &interaction.retriever_id {
        interaction.fields.insert("retriever_id".into(), id.as_str().into());
    }
    match (&trace, &interaction.execution_id) {
        (Some(trace), _) if !is_another => {
            let traced = trace.of_document(&interaction.feature_id);
            if traced.position.is_none() {
                warnings.push("the execution did not show this document".to_owned());
            }
            interaction.traced = Some(serde_json::to_value(traced).map_err(Error::internal)?);
        }
        (None, Some(id)) => {
            warnings.push(format!("the execution `{id}` is not remembered, so its searches cannot learn from this"));
        }
        _ => {}
    }
    if !is_there && interaction.types != ["zero_results"] {
        warnings.push(format!("there is no document `{}`", interaction.feature_id));
    }
    Ok(Recorded { interaction, is_repeated: false, warnings })
}

fn retriever_id(connection: &Connection, scope: &Scope, name: &str) -> Result<String> {
    let found = resources::find(connection, Kind::Retriever, scope, name)?;
    found
        .map(|retriever| retriever.id)
        .ok_or_else(|| Error::invalid("retriever_id", format!("the retriever `{name}` does not exist")))
}

/// The inputs that make the query behind an interaction again: what it says itself, else what was remembered. `None`
/// where the execution had a filter besides, which they do not tell.
pub fn inputs(interaction: &Interaction) -> Option<Fields> {
    let snapshot = interaction.fields.get("query_snapshot").and_then(Value::as_object);
    if let Some(snapshot) = snapshot.filter(|snapshot| !snapshot.is_empty()) {
        return match snapshot.get("inputs").and_then(Value::as_object) {
            Some(_) if snapshot.get("filters").is_some_and(|filters| !filters.is_null()) => None,
            Some(inner) => Some(inner.clone()),
            None => Some(snapshot.clone()),
        };
    }
    let traced: Traced = serde_json::from_value(interaction.traced.clone()?).ok()?;
    traced.inputs.filter(|_| !traced.is_filtered).map(|inputs| (*inputs).clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new() -> NewInteraction {
        NewInteraction {
            feature_id: "doc_1".into(),
            interaction_types: vec!["view".into(), "click".into(), "view".into()],
            ..NewInteraction::default()
        }
    }

    #[test]
    fn types_are_known_and_kept_once() {
        assert_eq!(checked_kinds(&new().interaction_types).unwrap(), ["click", "view"]);
        assert!(checked_kinds(&[]).is_err());
        let error = checked_kinds(&["click".into(), "stare".into()]).unwrap_err();
        assert!(error.to_string().contains("`interaction_type.1`"), "{error}");
    }

    #[test]
    fn only_a_search_that_found_nothing_shows_no_results() {
        let kinds = |list: &[&str]| list.iter().map(|kind| (*kind).to_owned()).collect::<Vec<_>>();
        let empty = NewInteraction { result_set_size: Some(0), ..new() };
        assert!(check(&empty, &kinds(&["click"])).is_err());
        assert!(check(&empty, &kinds(&["zero_results"])).is_ok());
        assert!(check(&NewInteraction { position: -1, ..new() }, &kinds(&["click"])).is_err());
        assert!(check(&NewInteraction { user_id: Some(" ".into()), ..new() }, &kinds(&["click"])).is_err());
    }
}
