//! `document_enrich`: fields of other documents, joined by equal values, or found by another retriever.

use super::{Category, Draft, Room, Run, Stage, StageDefinition, WorkingSet, nested, outside};
use crate::retrieval::conditions::FilterTemplate;
use crate::retrieval::params::{Params, Setting, choice, count, flag, text, texts, value_or};
use crate::retrieval::{Hit, limits, view};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use strata_model::filter::{Condition, Filter, Operator};
use strata_model::{Error, Fields, Result, path};

pub(super) const DEFINITION: StageDefinition = StageDefinition {
    stage_id: "document_enrich",
    aliases: &["join"],
    category: Category::Enrich,
    description: "Adds fields of documents of another collection whose value equals one of the document's own, or of what another retriever finds for it.",
    icon: "merge",
    parameter_schema: schema,
    reads_collections: false,
    parse,
};

/// Values that one read looks for.
const VALUES_A_READ: usize = 500;

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "target_collection_id": {"type": "string", "description": "The other collection, by id or name. Either this, `retriever_id` or `retriever_config` is needed."},
            "retriever_id": {"type": "string", "description": "Another retriever, by id or name, that is executed for each document; equal inputs are executed once."},
            "retriever_config": {"type": "object", "description": "The same, written out: `stages`, `collection_identifiers`, `input_schema`."},
            "retriever_inputs": {"type": "object", "description": "Inputs of that retriever by name, with templates that may read DOC. A document that lacks what they read is not looked up."},
            "source_field": {"type": "string", "default": "source_object_id", "description": "Dot path of the document's own value; of a list each element counts."},
            "target_field": {"type": "string", "default": "document_id", "description": "Dot path of the value in the other collection."},
            "fields_to_merge": {"type": "array", "items": {"type": "string"}, "description": "Fields to add; all of them where left out."},
            "output_field": {"type": "string", "description": "Field that holds what was found; the document's root where left out."},
            "strategy": {
                "type": "string", "enum": ["enrich", "replace", "append"], "default": "enrich",
                "description": "`enrich` adds the fields to the document's own, `replace` puts them in place of all of its own, `append` adds each document found to a list.",
            },
            "multiple": {"type": "boolean", "default": false, "description": "Whether `output_field` gets a list of all that were found; otherwise the first one."},
            "limit": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100, "description": "Most documents found for one."},
            "allow_missing": {"type": "boolean", "default": true, "description": "Whether documents for which nothing was found are kept."},
            "when": {"type": "object", "description": "Only documents that satisfy this filter are enriched; others pass."},
        },
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strategy {
    Enrich,
    Replace,
    Append,
}

/// Where the other documents come from.
#[derive(Debug)]
enum From {
    Collection(Setting<String>),
    Retriever(nested::Nested),
}

#[derive(Debug)]
struct DocumentEnrich {
    at: String,
    from: From,
    source_field: Option<Setting<String>>,
    target_field: Option<Setting<String>>,
    fields: Option<Setting<Vec<String>>>,
    output_field: Option<Setting<String>>,
    strategy: Option<Setting<Strategy>>,
    multiple: Option<Setting<bool>>,
    limit: Option<Setting<usize>>,
    allow_missing: Option<Setting<bool>>,
    when: Option<FilterTemplate>,
}

fn parse(_draft: Draft<'_>, mut params: Params<'_>) -> Result<Arc<dyn Stage>> {
    let strategy = |value: &Value, at: &str| {
        choice(value, at, &[("enrich", Strategy::Enrich), ("replace", Strategy::Replace), ("append", Strategy::Append)])
    };
    let stage = DocumentEnrich {
        at: params.at().to_owned(),
        from: from(&mut params)?,
        source_field: params.setting(&["source_field", "lookup_field"], text)?,
        target_field: params.setting(&["target_field"], text)?,
        fields: params.setting(&["fields_to_merge", "select_fields"], texts)?,
        output_field: params.setting(&["output_field", "result_field"], text)?,
        strategy: params.setting(&["strategy"], strategy)?,
        multiple: params.setting(&["multiple"], flag)?,
        limit: params.setting(&["limit"], count(1..=1_000))?,
        allow_missing: params.setting(&["allow_missing"], flag)?,
        when: params.filter(&["when"])?,
    };
    params.finish();
    Ok(Arc::new(stage))
}

fn from(params: &mut Params<'_>) -> Result<From> {
    // The SDK sends this where nothing was said.
    let is_placeholder = |value: &Value| value.as_str() == Some("{{COLLECTION_ID}}");
    let collection =
        params.take(&["target_collection_id", "collection_id"]).filter(|(_, value)| !is_placeholder(value));
    match (nested::Nested::parse(params)?, collection) {
        (Some(_), Some((at, _))) => Err(Error::invalid(at, "is there beside a retriever; name one of them")),
        (Some(retriever), None) => Ok(From::Retriever(retriever)),
        (None, Some((at, value))) => params.setting_of(&value, at, text).map(From::Collection),
        (None, None) => {
            let place = params.place("target_collection_id");
            Err(Error::invalid(place, "is required, or `retriever_id` or `retriever_config`"))
        }
    }
}

/// The other documents by their value.
type Found = HashMap<String, Vec<Hit>>;

impl Stage for DocumentEnrich {
    fn run<'a>(&'a self, run: &'a mut Run<'_>, set: WorkingSet) -> BoxFuture<'a, Result<WorkingSet>> {
        Box::pin(async move {
            let limit = value_or(self.limit.as_ref(), run.variables, 100)?;
            let allow_missing = value_or(self.allow_missing.as_ref(), run.variables, true)?;
            let how = self.how(run)?;
            let hits = run.read(set).await?;
            let meant = outside::meant(run, &hits, self.when.as_ref())?;
            let others = match &self.from {
                From::Collection(collection) => self.joined(run, collection, &hits, &meant, limit).await?,
                From::Retriever(retriever) => {
                    let wanted = if how.takes_many() { limit } else { 1 };
                    retriever.found_for(run, &hits, &meant, wanted).await?
                }
            };
            let (mut made, mut matched) = (Vec::with_capacity(hits.len()), 0);
            for ((hit, is_meant), others) in hits.into_iter().zip(meant).zip(&others) {
                matched += usize::from(!others.is_empty());
                match others.is_empty() {
                    true if allow_missing || !is_meant => made.push(hit),
                    true => {}
                    false => made.push(how.join(hit, others)),
                }
            }
            run.metadata.insert("matched".into(), matched.into());
            Ok(WorkingSet::Read(made))
        })
    }

    fn feature_uris(&self) -> Vec<String> {
        match &self.from {
            From::Collection(_) => Vec::new(),
            From::Retriever(retriever) => retriever.written_out().map(|plan| plan.feature_uris()).unwrap_or_default(),
        }
    }

    fn nests(&self) -> bool {
        matches!(self.from, From::Retriever(_))
    }

    fn secrets(&self) -> Vec<(String, String)> {
        match &self.from {
            From::Collection(_) => Vec::new(),
            From::Retriever(retriever) => retriever.secrets(),
        }
    }

    fn connections(&self) -> Vec<(String, String)> {
        match &self.from {
            From::Collection(_) => Vec::new(),
            From::Retriever(retriever) => retriever.connections(),
        }
    }

    /// A stored retriever may reach outside, too, but not by the will of who executes this one.
    fn reaches_outside(&self) -> bool {
        match &self.from {
            From::Collection(_) => false,
            From::Retriever(retriever) => retriever.written_out().is_some_and(|plan| plan.reaches_outside()),
        }
    }

    fn retrievers(&self) -> Vec<String> {
        match &self.from {
            From::Collection(_) => Vec::new(),
            From::Retriever(retriever) => retriever.retrievers(),
        }
    }

    fn collections(&self) -> Vec<String> {
        match &self.from {
            From::Collection(collection) => collection.literal().into_iter().collect(),
            From::Retriever(retriever) => {
                retriever.written_out().map(|plan| plan.named_collections()).unwrap_or_default()
            }
        }
    }
}

impl DocumentEnrich {
    fn how(&self, run: &Run<'_>) -> Result<How> {
        let output = match &self.output_field {
            Some(field) => field.value(run.variables)?,
            None => None,
        };
        let fields = value_or(self.fields.as_ref(), run.variables, Vec::new())?;
        let how = How {
            strategy: value_or(self.strategy.as_ref(), run.variables, Strategy::Enrich)?,
            multiple: value_or(self.multiple.as_ref(), run.variables, false)?,
            fields,
            output,
        };
        if how.output.is_none() && how.takes_many() {
            return Err(Error::invalid(format!("{}.output_field", self.at), "is required for a list"));
        }
        Ok(how)
    }

    /// The documents of the collection whose value equals one of each hit's own, at most `limit` for one.
    async fn joined(
        &self,
        run: &mut Run<'_>,
        collection: &Setting<String>,
        hits: &[Hit],
        meant: &[bool],
        limit: usize,
    ) -> Result<Vec<Vec<Hit>>> {
        let source = value_or(self.source_field.as_ref(), run.variables, "source_object_id".to_owned())?;
        let target = value_or(self.target_field.as_ref(), run.variables, "document_id".to_owned())?;
        let asked: Vec<Vec<Value>> = hits
            .iter()
            .zip(meant)
            .map(|(hit, is_meant)| if *is_meant { values(hit, &source) } else { Vec::new() })
            .collect();
        let found = look_up(run, collection, &asked, &target).await?;
        let mut room = Room::default();
        let mut of = |values: &Vec<Value>| {
            let others = values.iter().filter_map(|value| found.get(&key(value))).flatten();
            others.take(limit).map(|other| room.copy(other)).collect()
        };
        asked.iter().map(&mut of).collect()
    }
}

async fn look_up(run: &mut Run<'_>, collection: &Setting<String>, asked: &[Vec<Value>], target: &str) -> Result<Found> {
    let mut wanted: Vec<Value> = asked.iter().flatten().cloned().collect();
    wanted.sort_by_key(key);
    wanted.dedup_by_key(|value| key(value));
    let Some(name) = collection.value(run.variables)? else { return Ok(Found::new()) };
    let collections = run.named_collections(&[name], collection.at()).await?;
    let (mut found, mut room) = (Found::new(), Room::default());
    for part in wanted.chunks(VALUES_A_READ) {
        let filter = Filter::Is(Condition {
            field: target.to_owned(),
            operator: Operator::In,
            value: part.to_vec().into(),
            case_sensitive: true,
        });
        for collection in &collections {
            let documents = run.backend.scan(&collection.collection_id, &filter, limits::MAX_WORKING_SET).await?;
            if documents.len() >= limits::MAX_WORKING_SET {
                run.cut("joined_documents", documents.len(), limits::MAX_WORKING_SET);
            }
            for other in documents.into_iter().map(Hit::new) {
                for value in values(&other, target) {
                    found.entry(key(&value)).or_default().push(room.copy(&other)?);
                }
            }
        }
    }
    Ok(found)
}

/// The values that can be looked up.
fn values(hit: &Hit, field: &str) -> Vec<Value> {
    let mut values = view::values(hit, field);
    values.retain(|value| value.is_string() || value.is_number() || value.is_boolean());
    values
}

/// Numbers are equal by value.
fn key(value: &Value) -> String {
    value.as_f64().map_or_else(|| value.to_string(), |number| number.to_string())
}

/// How what was found goes into a document.
struct How {
    strategy: Strategy,
    multiple: bool,
    fields: Vec<String>,
    output: Option<String>,
}

impl How {
    /// Whether more than one other document goes into one.
    fn takes_many(&self) -> bool {
        self.multiple || self.strategy == Strategy::Append
    }

    fn join(&self, mut hit: Hit, others: &[Hit]) -> Hit {
        let mut parts: Vec<Value> = others.iter().map(|other| self.part(other)).collect();
        if self.strategy == Strategy::Replace {
            hit.document.fields = Fields::new();
        }
        match &self.output {
            Some(output) if self.strategy == Strategy::Append => {
                let mut list = match view::field(&hit, output).map(|value| value.into_owned()) {
                    Some(Value::Array(list)) => list,
                    Some(Value::Null) | None => Vec::new(),
                    Some(one) => vec![one],
                };
                list.append(&mut parts);
                view::set(&mut hit, output, list.into());
            }
            Some(output) if self.multiple => view::set(&mut hit, output, parts.into()),
            Some(output) => view::set(&mut hit, output, parts.swap_remove(0)),
            None => {
                if let Value::Object(fields) = parts.swap_remove(0) {
                    hit.document.fields.extend(fields);
                }
            }
        }
        hit
    }

    /// What of another document is added. At the root its identity would stand in the way of the document's own.
    fn part(&self, other: &Hit) -> Value {
        let whole = if self.output.is_some() { view::field_view(other) } else { other.document.fields.clone() };
        if self.fields.is_empty() {
            return Value::Object(whole);
        }
        let mut chosen = Fields::new();
        for field in &self.fields {
            if let Some(value) = path::get_field(&whole, field) {
                path::set(&mut chosen, field, value.clone());
            }
        }
        Value::Object(chosen)
    }
}
