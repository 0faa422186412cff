//! The catalog as the index reads it: what a collection's shard must hold, and the changes it must follow.
//!
//! Which fields a shard can filter on is decided here: the lineage of every document, the payload indexes that the
//! namespace declares, and fields learned from the filters that callers use.

use crate::{Engine, collections::private, extract::Definition};
use serde_json::Value;
use std::collections::BTreeMap;
use strata_model::{
    Fields, Result, Scope,
    acl::READERS,
    document::Document,
    filter::{Filter, Operator},
    path,
};
use strata_store::{
    Catalog,
    catalog::{
        documents::{self, Page},
        lineage,
        resources::{self, Kind},
    },
    index::{Change, Feed, PayloadIndex, PayloadKind, Point, ShardSpec},
};

/// Fields of every document that filters name often: ids and lineage; and who reads it. A shard without one of them is
/// built anew and meanwhile does not answer what needs it.
const ALWAYS: [&str; 7] = [
    READERS,
    "document_id",
    "root_object_id",
    "root_bucket_id",
    "source_document_id",
    "source_object_id",
    "source_collection_id",
];
/// Most fields that one collection learns.
const MAX_LEARNED: usize = 32;
/// Documents read to see what a field holds.
const SAMPLE: usize = 512;
/// Most text of one document that word search sees, in bytes.
const MAX_LEXICAL_BYTES: usize = 64 << 10;
/// Private key of a collection's body: its learned payload indexes.
pub(crate) const LEARNED: &str = "_payload";
/// Private key of a collection's body: fields that could not be learned, and the newest change when that was tried.
const TRIED: &str = "_payload_tried";

/// Reads one catalog. Calls block.
pub struct CatalogFeed {
    catalog: Catalog,
}

impl CatalogFeed {
    pub fn new(catalog: Catalog) -> Self {
        Self { catalog }
    }
}

impl Feed for CatalogFeed {
    fn spec(&self, collection_id: &str) -> Result<Option<ShardSpec>> {
        self.catalog.read_blocking(|connection| {
            let Some(row) = lineage::collection(connection, collection_id)? else { return Ok(None) };
            let namespace = lineage::namespace_body(connection, &row.namespace_id)?.unwrap_or_default();
            Ok(Some(ShardSpec {
                collection_id: row.id,
                vectors: private(&row.body, crate::collections::VECTORS)?,
                payload: payload_indexes(&namespace, &row.body)?,
                language: language(&row.body),
            }))
        })
    }

    fn changes_after(&self, collection_id: &str, after: i64, limit: usize) -> Result<Vec<Change>> {
        self.catalog.read_blocking(|connection| {
            let changes = documents::changes_after(connection, collection_id, after, limit)?;
            let shown = |c: &documents::Change| c.document.as_ref().is_some_and(|document| !document.is_disabled());
            let alive: Vec<i64> = changes.iter().filter(|c| shown(c)).map(|c| c.document_seq).collect();
            let mut vectors = documents::vectors_to_index(connection, &alive)?;
            let extractor = match alive.is_empty() {
                true => None,
                false => lineage::collection(connection, collection_id)?.and_then(|row| extractor(&row.body)),
            };
            let wordless = extractor.map_or(&[][..], |extractor| extractor.wordless);
            let change = |c: documents::Change| Change {
                seq: c.seq,
                document_seq: c.document_seq,
                point: c.document.filter(|document| !document.is_disabled()).map(|document| Point {
                    payload: document.indexed(),
                    vectors: vectors.remove(&c.document_seq).unwrap_or_default(),
                    lexical: lexical(&document, wordless),
                }),
            };
            Ok(changes.into_iter().map(change).collect())
        })
    }

    fn head(&self, collection_id: &str) -> Result<i64> {
        self.catalog.read_blocking(|connection| documents::head(connection, collection_id))
    }
}

/// The language of a collection's texts, where its extractor says that they are not English.
fn language(collection: &Fields) -> Option<String> {
    let parameters = collection.get("feature_extractor")?.get("parameters")?;
    let language = parameters.get("language")?.as_str()?.trim().to_lowercase();
    let is_english = language.is_empty() || ["en", "english", "auto"].contains(&language.as_str());
    (!is_english && !language.starts_with("en-")).then_some(language)
}

/// The payload indexes of a shard, one for each field: what every shard has wins, then what the namespace declares.
fn payload_indexes(namespace: &Fields, collection: &Fields) -> Result<Vec<PayloadIndex>> {
    let mut kinds: BTreeMap<String, PayloadKind> = BTreeMap::new();
    for learned in private::<Vec<PayloadIndex>>(collection, LEARNED)? {
        kinds.insert(learned.field, learned.kind);
    }
    for declared in namespace.get("payload_indexes").and_then(Value::as_array).into_iter().flatten() {
        let (Some(Value::String(field)), Some(kind)) = (declared.get("field_name"), declared.get("type")) else {
            continue;
        };
        if let Ok(kind) = serde_json::from_value(kind.clone()) {
            kinds.insert(field.clone(), kind);
        }
    }
    for field in ALWAYS {
        kinds.insert(field.to_owned(), PayloadKind::Keyword);
    }
    Ok(kinds.into_iter().map(|(field, kind)| PayloadIndex { field, kind }).collect())
}

/// The extractor that a collection names.
fn extractor(collection: &Fields) -> Option<&'static Definition> {
    Definition::find(collection.get("feature_extractor")?.get("feature_extractor_name")?.as_str()?)
}

/// The text that word search sees: the field `text` if it is one, else every text of the fields but the `wordless` ones.
fn lexical(document: &Document, wordless: &[&str]) -> Option<String> {
    let mut text = match document.fields.get("text") {
        Some(Value::String(text)) => text.clone(),
        _ => {
            let mut texts = Vec::new();
            let worded = document.fields.iter().filter(|(name, _)| !wordless.contains(&name.as_str()));
            worded.for_each(|(_, value)| gather(value, &mut texts));
            texts.join("\n")
        }
    };
    if text.len() > MAX_LEXICAL_BYTES {
        text.truncate(text.floor_char_boundary(MAX_LEXICAL_BYTES));
    }
    (!text.trim().is_empty()).then_some(text)
}

fn gather<'a>(value: &'a Value, into: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => into.push(text),
        Value::Array(list) => list.iter().for_each(|v| gather(v, into)),
        Value::Object(map) => map.values().for_each(|v| gather(v, into)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

impl Engine {
    /// Makes the index able to filter on the fields that `filter` names, where their values allow it; from then on such
    /// filters are answered by the index. Answers whether something was learned. A collection learns at most 32 fields.
    pub async fn learn_filter_fields(&self, scope: &Scope, collection_id: &str, filter: &Filter) -> Result<bool> {
        let mut wanted = Vec::new();
        indexable(filter, &mut wanted);
        if wanted.is_empty() {
            return Ok(false);
        }
        // What a field holds is looked up in all documents, whoever asks.
        let (of, id) = (scope.for_server(), collection_id.to_owned());
        let news = self.catalog.read(move |connection| survey(connection, &of, &id, wanted)).await?;
        let Some(News { learned, tried }) = news else { return Ok(false) };
        let (of, id, something) = (scope.clone(), collection_id.to_owned(), !learned.is_empty());
        self.catalog
            .write(move |tx| {
                let mut row = resources::get(tx, Kind::Collection, &of, &id)?;
                let mut known: Vec<PayloadIndex> = private(&row.body, LEARNED)?;
                for new in learned {
                    if known.len() < MAX_LEARNED && known.iter().all(|k| k.field != new.field) {
                        known.push(new);
                    }
                }
                let known = serde_json::to_value(known).map_err(strata_model::Error::internal)?;
                row.body.insert(LEARNED.to_owned(), known);
                row.body.insert(TRIED.to_owned(), Value::Object(tried));
                resources::update_unseen(tx, Kind::Collection, &row)
            })
            .await?;
        if something {
            self.index.respec(collection_id);
        }
        Ok(something)
    }
}

/// The fields under operators that an index can answer.
fn indexable(filter: &Filter, into: &mut Vec<String>) {
    match filter {
        Filter::And(list) | Filter::Or(list) | Filter::Not(list) => list.iter().for_each(|f| indexable(f, into)),
        Filter::Is(condition) => {
            let can = matches!(
                condition.operator,
                Operator::Eq | Operator::In | Operator::Gt | Operator::Gte | Operator::Lt | Operator::Lte
            );
            if can && !into.contains(&condition.field) {
                into.push(condition.field.clone());
            }
        }
    }
}

/// What a look at a collection's documents taught.
struct News {
    learned: Vec<PayloadIndex>,
    tried: Fields,
}

/// Looks at the wanted fields that are neither indexed nor lately found to be of no single kind.
fn survey(
    connection: &strata_store::catalog::rusqlite::Connection,
    scope: &Scope,
    collection_id: &str,
    mut wanted: Vec<String>,
) -> Result<Option<News>> {
    let row = resources::get(connection, Kind::Collection, scope, collection_id)?;
    let namespace = lineage::namespace_body(connection, &row.namespace_id)?.unwrap_or_default();
    let indexed = payload_indexes(&namespace, &row.body)?;
    let learned: Vec<PayloadIndex> = private(&row.body, LEARNED)?;
    let mut tried: Fields = private(&row.body, TRIED)?;
    let head = documents::head(connection, collection_id)?;
    // A field that had no single kind is looked at again when the collection has changed about as often again.
    let lately =
        |field: &str| tried.get(field).and_then(Value::as_i64).is_some_and(|at| head < at.saturating_mul(2) + 64);
    wanted.retain(|field| indexed.iter().all(|i| i.field != *field) && !lately(field));
    if wanted.is_empty() || learned.len() >= MAX_LEARNED {
        return Ok(None);
    }
    let page = Page { limit: SAMPLE, offset: 0, after: None, sort: None };
    let sample = documents::list(connection, scope, Some(collection_id), &Filter::all(), &page)?;
    let views: Vec<Fields> = sample.iter().map(Document::view).collect();
    let mut news = Vec::new();
    for field in wanted {
        match kind_of(views.iter().filter_map(|view| path::get_field(view, &field))) {
            Some(kind) => news.push(PayloadIndex { field, kind }),
            None if tried.len() < MAX_LEARNED || tried.contains_key(&field) => {
                tried.insert(field, head.into());
            }
            None => {}
        }
    }
    Ok(Some(News { learned: news, tried }))
}

/// The one kind that all values have; `None` where they differ, or where there is none.
fn kind_of<'a>(values: impl Iterator<Item = &'a Value>) -> Option<PayloadKind> {
    let mut found: Option<PayloadKind> = None;
    let mut see = |value: &Value| {
        let kind = match value {
            Value::Null => return true,
            Value::String(_) => PayloadKind::Keyword,
            Value::Bool(_) => PayloadKind::Bool,
            Value::Number(n) if n.is_i64() => PayloadKind::Integer,
            Value::Number(_) => PayloadKind::Float,
            Value::Array(_) | Value::Object(_) => return false,
        };
        found = match (found, kind) {
            (None, kind) => Some(kind),
            (Some(PayloadKind::Integer), PayloadKind::Float) | (Some(PayloadKind::Float), PayloadKind::Integer) => {
                Some(PayloadKind::Float)
            }
            (Some(before), kind) if before == kind => Some(kind),
            (Some(_), _) => return false,
        };
        true
    };
    for value in values {
        let fits = match value {
            Value::Array(list) => list.iter().all(&mut see),
            one => see(one),
        };
        if !fits {
            return None;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_field_is_learned_only_when_its_values_are_of_one_kind() {
        let kind = |values: Value| kind_of(values.as_array().unwrap().iter());
        assert_eq!(kind(json!(["a", ["b", "c"], null])), Some(PayloadKind::Keyword));
        assert_eq!(kind(json!([1, 2])), Some(PayloadKind::Integer));
        assert_eq!(kind(json!([1, 2.5])), Some(PayloadKind::Float));
        assert_eq!(kind(json!([true])), Some(PayloadKind::Bool));
        assert_eq!(kind(json!([1, "a"])), None);
        assert_eq!(kind(json!([{ "a": 1 }])), None);
        assert_eq!(kind(json!([])), None);
    }

    #[test]
    fn declared_and_learned_fields_are_indexed_beside_the_lineage() {
        let namespace = json!({ "payload_indexes": [
            { "field_name": "year", "type": "integer" }, { "field_name": "x", "type": "nonsense" },
            { "field_name": "document_id", "type": "text" },
        ] });
        let collection =
            json!({ "_payload": [{ "field": "year", "kind": "keyword" }, { "field": "tag", "kind": "keyword" }] });
        let indexes = payload_indexes(namespace.as_object().unwrap(), collection.as_object().unwrap()).unwrap();
        let of = |field: &str| indexes.iter().find(|i| i.field == field).map(|i| i.kind);
        assert_eq!(indexes.len(), ALWAYS.len() + 2);
        assert_eq!((of("year"), of("tag")), (Some(PayloadKind::Integer), Some(PayloadKind::Keyword)));
        assert_eq!((of("document_id"), of("x")), (Some(PayloadKind::Keyword), None));
    }
}
