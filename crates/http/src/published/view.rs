//! What the public sees of an execution: exposed fields, and nothing of what lies behind them.

use crate::{middleware::request_id, retrievers::ExecuteRetrieverResponse};
use serde_json::{Map, Value, json};
use strata_engine::published::{Exposure, Published};
use strata_model::{Error, Fields};

/// Fields of an execution's request; faults elsewhere are in the retriever, which is not the public's business.
const REQUEST: [&str; 11] = [
    "inputs",
    "filters",
    "pagination",
    "limit",
    "page_size",
    "cursor",
    "settings",
    "expand",
    "return_vectors",
    "consistency",
    "body",
];
/// What a stage's statistics show.
const STATISTICS: [&str; 4] = ["input_count", "output_count", "duration_ms", "efficiency"];
/// Documents that a hit names, resolved.
const EXPANDED: &str = "_expanded";

#[derive(Debug, Clone)]
pub(crate) struct PublicView {
    exposure: Exposure,
    /// Whether stages are shown.
    shows_stages: bool,
    /// Ids of the collections that the retriever reads; empty means all of its namespace.
    collections: Vec<String>,
    retriever_id: String,
}

impl PublicView {
    pub fn new(published: &Published, collections: Vec<String>) -> Self {
        Self {
            exposure: published.exposure(),
            shows_stages: published.settings.include_metadata,
            collections,
            retriever_id: published.retriever_id.clone(),
        }
    }

    /// Documents of an answer, each with its own fields.
    pub fn documents<'f>(&self, documents: Vec<Fields>, own: impl Iterator<Item = &'f Fields>) -> Vec<Fields> {
        documents.into_iter().zip(own).map(|(document, own)| self.document(document, own)).collect()
    }

    fn document(&self, mut document: Fields, own: &Fields) -> Fields {
        let expanded = document.remove(EXPANDED);
        let mut seen = self.exposure.of_document(document, Some(own));
        if let Some(Value::Object(expanded)) = expanded {
            let each = expanded.into_iter().filter_map(|(at, value)| Some((at, self.reference(value)?)));
            let each: Fields = each.collect();
            if !each.is_empty() {
                seen.insert(EXPANDED.into(), each.into());
            }
        }
        seen
    }

    /// Documents that another one names, as far as the retriever reads their collections.
    fn reference(&self, value: Value) -> Option<Value> {
        match value {
            Value::Array(list) => {
                let each: Vec<Value> = list.into_iter().filter_map(|value| self.reference(value)).collect();
                (!each.is_empty()).then(|| each.into())
            }
            Value::Object(document) => {
                let collection = document.get("collection_id").and_then(Value::as_str).unwrap_or_default();
                let is_read = self.collections.is_empty() || self.collections.iter().any(|id| id == collection);
                is_read.then(|| self.exposure.of_document(document, None).into())
            }
            _ => None,
        }
    }

    /// An execution's answer, whose documents are seen already.
    pub fn answer(&self, mut answer: ExecuteRetrieverResponse) -> ExecuteRetrieverResponse {
        answer.retriever_id = String::new();
        answer.stage_statistics = self.statistics(&answer.stage_statistics);
        answer.groups = answer.groups.filter(|_| self.exposure.shows("group_key"));
        answer.facets.retain(|facet| facet.get("key").and_then(Value::as_str).is_some_and(|key| self.exposure.shows(key)));
        answer.limits.retain(|limit| limit.stage.is_none());
        answer.degraded = Vec::new();
        answer.interpretation = Value::Null;
        answer.budget = Value::Null;
        answer.explain_plan = None;
        answer
    }

    fn statistics(&self, all: &Value) -> Value {
        let stages = all.get("stages").and_then(Value::as_object).filter(|_| self.shows_stages);
        let stages: Map<String, Value> =
            stages.into_iter().flatten().map(|(name, stage)| (name.clone(), plain_statistics(stage))).collect();
        json!({ "stages": stages, "total_time_ms": all.get("total_time_ms"), "credits_used": 0.0 })
    }

    /// An event of a stage, in a stream.
    pub fn event(&self, mut event: Value) -> Value {
        if let Some(statistics) = event.get("statistics") {
            event["statistics"] = plain_statistics(statistics);
        }
        if event.get("error").is_some() {
            event["error"] = "the stage was not executed".into();
        }
        if !self.shows_stages && let Some(index) = event.get("stage_index").and_then(Value::as_u64) {
            event["stage_name"] = format!("stage {}", index + 1).into();
        }
        event
    }

    /// A failure in words for the public; what is the owner's goes into the log.
    pub fn fault(&self, error: Error) -> Error {
        match error {
            Error::Invalid(list) if list.iter().all(|fault| is_of_request(&fault.field)) => Error::Invalid(list),
            Error::Internal(what) => Error::Internal(what),
            Error::Busy { retry_after_seconds, .. } => {
                Error::Busy { message: "this retriever is busy; try again later".into(), retry_after_seconds }
            }
            other => {
                let (request_id, retriever_id) = (request_id::current(), &self.retriever_id);
                tracing::warn!(%request_id, %retriever_id, error = %other, "a published retriever failed");
                match other {
                    // A stage found fault with what the inputs made of its parameters.
                    Error::Invalid(list) if list.iter().all(|fault| fault.field.starts_with("stages")) => {
                        Error::invalid("inputs", "this retriever cannot be executed with these inputs")
                    }
                    Error::Upstream(_) | Error::TooLarge(_) => {
                        Error::invalid("inputs", "this retriever cannot be executed with these inputs")
                    }
                    _ => Error::Unavailable("this retriever cannot answer at the moment; its owner can see why".into()),
                }
            }
        }
    }
}

fn is_of_request(field: &str) -> bool {
    REQUEST.contains(&field.split('.').next().unwrap_or_default())
}

fn plain_statistics(stage: &Value) -> Value {
    STATISTICS.iter().filter_map(|key| Some(((*key).to_owned(), stage.get(*key)?.clone()))).collect::<Fields>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(shows_stages: bool) -> PublicView {
        let config = json!({ "exposed_fields": ["title", "parent"] });
        PublicView {
            exposure: Exposure::of(config.as_object().unwrap()),
            shows_stages,
            collections: vec!["col_1".into()],
            retriever_id: "ret_1".into(),
        }
    }

    #[test]
    fn what_a_hit_names_is_seen_as_far_as_the_retriever_reads_it() {
        let hit = json!({
            "document_id": "a", "title": "A", "hidden": 1,
            "_expanded": {
                "parent": { "document_id": "b", "collection_id": "col_1", "title": "B", "hidden": 2 },
                "other": [{ "document_id": "c", "collection_id": "col_2", "title": "C" }],
            },
        });
        let hit = hit.as_object().unwrap();
        let seen = view(true).documents(vec![hit.clone()], std::iter::once(hit));
        let wanted = json!({ "document_id": "a", "title": "A", "_expanded": { "parent": { "document_id": "b", "title": "B" } } });
        assert_eq!(Value::Object(seen[0].clone()), wanted);
    }

    #[test]
    fn statistics_and_events_say_how_much_and_not_what() {
        let all = json!({ "stages": { "find": { "input_count": 0, "output_count": 2, "metadata": { "a": 1 }, "error": "x" } }, "total_time_ms": 1.5 });
        let seen = view(true).statistics(&all);
        assert_eq!(seen["stages"]["find"], json!({ "input_count": 0, "output_count": 2 }));
        assert_eq!(view(false).statistics(&all)["stages"], json!({}));
        let event = json!({ "event_type": "stage_error", "stage_name": "find", "stage_index": 0, "error": "collection `x`" });
        let event = view(false).event(event);
        assert_eq!((&event["stage_name"], &event["error"]), (&json!("stage 1"), &json!("the stage was not executed")));
    }

    #[test]
    fn faults_of_the_retriever_are_not_told() {
        let view = view(true);
        let own = view.fault(Error::invalid("inputs.query", "is required"));
        assert!(own.to_string().contains("inputs.query"));
        let inner = view.fault(Error::invalid("stages.0.config.parameters.url", "https://inside.example is down"));
        assert!(matches!(&inner, Error::Invalid(list) if list[0].field == "inputs"), "{inner}");
        let gone = Error::invalid("collection_identifiers", "collection `col_1` does not exist");
        for error in [Error::missing("collection", "col_1"), Error::Unavailable("model x".into()), gone] {
            let seen = view.fault(error).to_string();
            assert!(!seen.contains("col_1") && !seen.contains("model"), "{seen}");
        }
    }
}
