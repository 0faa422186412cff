//! What the public sees of a document: the fields that the publication names, and nothing else.

use serde_json::{Value, json};
use strata_model::{Error, Fields, Result, filter::Filter, path};

/// Stands for every field that is the document's own.
const ALL: &str = "*";
/// Most fields that a publication names.
const MAX_FIELDS: usize = 500;
/// Parts of a document that are the system's. They are seen only where they are named, each by itself.
const SYSTEM: [&str; 26] = [
    "namespace_id",
    "collection_id",
    "root_object_id",
    "root_bucket_id",
    "source_type",
    "source_collection_id",
    "source_document_id",
    "source_object_id",
    "lineage_path",
    "lineage_chain",
    "content_hash",
    "source_blobs",
    "document_blobs",
    "searchable_at",
    "created_at",
    "updated_at",
    "presigned_url",
    "presigned_urls",
    "vectors",
    "vector",
    "vector_hydration_incomplete",
    "internal_metadata",
    "scores",
    "group_key",
    "score",
    "document_id",
];
/// What nobody can expose.
const NEVER: &str = "internal_metadata";
/// What a hit shows whatever is exposed.
const ALWAYS: [&str; 2] = ["document_id", "score"];

/// The fields that are exposed, by dot path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposure {
    fields: Vec<String>,
}

impl Exposure {
    /// The `exposed_fields` of a display configuration; nothing where it has none.
    pub fn of(display_config: &Fields) -> Self {
        let list = display_config.get("exposed_fields").and_then(Value::as_array);
        let fields = list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
        Self { fields: fields.collect() }
    }

    /// Refuses what cannot be exposed. `at` is the place of the list.
    pub fn check(fields: &[String], at: &str) -> Result<()> {
        if fields.is_empty() || fields.len() > MAX_FIELDS {
            return Err(Error::invalid(at, format!("must name 1 to {MAX_FIELDS} fields, or be `[\"{ALL}\"]`")));
        }
        for (i, field) in fields.iter().enumerate() {
            let head = field.split('.').next().unwrap_or_default();
            if head.trim().is_empty() {
                return Err(Error::invalid(format!("{at}.{i}"), "must be the path of a field"));
            }
            if head.starts_with('_') || head == NEVER {
                let message = format!("`{field}` belongs to the system and cannot be exposed");
                return Err(Error::invalid(format!("{at}.{i}"), message));
            }
        }
        Ok(())
    }

    fn has_all(&self) -> bool {
        self.fields.iter().any(|field| field == ALL)
    }

    /// Whether the public may see the value at a path, and so filter by it.
    pub fn shows(&self, at: &str) -> bool {
        let head = at.split('.').next().unwrap_or_default();
        if ALWAYS.contains(&at) {
            return true;
        }
        let is_own = !head.starts_with('_') && !SYSTEM.contains(&head);
        let is_below = |field: &String| {
            at.strip_prefix(field.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        (is_own && self.has_all()) || self.fields.iter().any(is_below)
    }

    /// Refuses a filter that asks for what is not shown: its answer would tell. `value` is of the field `filters`.
    pub fn check_filter(&self, value: &Value) -> Result<()> {
        let filter = Filter::parse(value, "filters")?;
        match filter.fields().into_iter().find(|field| !self.shows(field)) {
            None => Ok(()),
            Some(field) => Err(Error::invalid("filters", format!("`{field}` is not a field that is shown here"))),
        }
    }

    /// The part of a document, as answers show it, that is exposed. `own` are its own fields; where they are not at hand,
    /// all that is not known to be the system's passes for them.
    pub fn of_document(&self, mut document: Fields, own: Option<&Fields>) -> Fields {
        let mut seen = Fields::new();
        for name in ALWAYS {
            seen.extend(document.get(name).cloned().map(|value| (name.to_owned(), value)));
        }
        for field in self.fields.iter().filter(|field| *field != ALL) {
            match (document.get(field), path::get_field(&document, field)) {
                (Some(value), _) => drop(seen.insert(field.clone(), value.clone())),
                (None, Some(value)) => path::set(&mut seen, field, value.clone()),
                (None, None) => {}
            }
        }
        self.add_urls(&mut document, &mut seen);
        if self.has_all() {
            let is_own = |name: &str| own.is_none_or(|own| own.contains_key(name));
            seen.extend(document.into_iter().filter(|(name, _)| self.shows(name) && is_own(name)));
        }
        seen
    }

    /// Signed URLs of the blobs whose property is exposed, without the ids of what they belong to.
    fn add_urls(&self, document: &mut Fields, seen: &mut Fields) {
        let Some(Value::Array(urls)) = document.remove("presigned_urls") else { return };
        let text = |url: &Value, key: &str| url.get(key).and_then(Value::as_str).map(str::to_owned);
        let whole = self.shows("presigned_urls") || self.shows("presigned_url");
        let exposed = |url: &Value| whole || text(url, "property").is_some_and(|property| self.shows(&property));
        let plain = |url: Value| {
            json!({
                "property": url["property"],
                "type": url["type"],
                "content_type": url["content_type"],
                "filename": url["filename"],
                "presigned_url": url["presigned_url"],
            })
        };
        let urls: Vec<Value> = urls.into_iter().filter(exposed).map(plain).collect();
        seen.insert("presigned_url".into(), urls.first().map_or(Value::Null, |url| url["presigned_url"].clone()));
        seen.insert("presigned_urls".into(), urls.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exposure(fields: &[&str]) -> Exposure {
        Exposure { fields: fields.iter().map(|text| (*text).to_owned()).collect() }
    }

    fn document() -> Fields {
        let document = json!({
            "document_id": "doc_1",
            "score": 0.5,
            "scores": { "rerank": 1 },
            "title": "Dune",
            "author": { "name": "Frank", "born": 1920 },
            "secret": "x",
            "collection_id": "col_1",
            "root_object_id": "obj_1",
            "lineage_path": "a/b",
            "_internal": { "namespace_id": "ns_1" },
            "internal_metadata": { "a": 1 },
            "source_blobs": [{ "blob_id": "blob_1" }],
            "presigned_url": "https://x/1",
            "presigned_urls": [
                { "blob_id": "blob_1", "property": "cover", "type": "image", "presigned_url": "https://x/1" },
                { "blob_id": "blob_2", "property": "scan", "type": "pdf", "presigned_url": "https://x/2" },
            ],
        });
        document.as_object().unwrap().clone()
    }

    #[test]
    fn only_what_is_named_is_seen() {
        let seen = Value::Object(exposure(&["title", "author.name", "scan"]).of_document(document(), None));
        let url = json!({ "property": "scan", "type": "pdf", "content_type": null, "filename": null, "presigned_url": "https://x/2" });
        assert_eq!(
            seen,
            json!({
                "document_id": "doc_1", "score": 0.5, "title": "Dune", "author": { "name": "Frank" },
                "presigned_url": "https://x/2", "presigned_urls": [url],
            })
        );
    }

    #[test]
    fn a_star_shows_what_is_the_documents_own() {
        let seen = exposure(&["*", "lineage_path"]).of_document(document(), None);
        let names: Vec<&str> = seen.keys().map(String::as_str).collect();
        let mut sorted = names.clone();
        sorted.sort_unstable();
        let wanted =
            ["author", "document_id", "lineage_path", "presigned_url", "presigned_urls", "score", "secret", "title"];
        assert_eq!(sorted, wanted);
        assert!(!Value::Object(seen).to_string().contains("blob_"), "no ids of blobs");
        let own = json!({ "title": "Dune" });
        let seen = exposure(&["*"]).of_document(document(), own.as_object());
        assert!(seen.contains_key("title") && !seen.contains_key("author"), "what an answer adds is not its own");
    }

    #[test]
    fn filters_ask_for_exposed_fields_only() {
        let exposed = exposure(&["title", "author.name"]);
        for good in [json!({}), json!(null), json!({ "title": "Dune" }), json!({ "author.name": "Frank" })] {
            assert!(exposed.check_filter(&good).is_ok(), "{good}");
        }
        for wrong in [
            json!({ "secret": "x" }),
            json!({ "author": { "exists": true } }),
            json!({ "AND": [{ "field": "title", "operator": "eq", "value": "a" }, { "NOT": [{ "field": "author.born", "operator": "gt", "value": 1 }] }] }),
            json!({ "titles": 1 }),
            json!({ "collection_id": "col_1" }),
        ] {
            assert!(exposed.check_filter(&wrong).is_err(), "{wrong}");
        }
        assert!(exposure(&["*"]).check_filter(&json!({ "secret": "x" })).is_ok());
        assert!(exposure(&["*"]).check_filter(&json!({ "_internal.namespace_id": "x" })).is_err());
    }

    #[test]
    fn what_is_the_systems_cannot_be_exposed() {
        for wrong in [vec![], vec!["_internal"], vec!["_internal.lineage"], vec!["internal_metadata.a"], vec![""]] {
            let fields: Vec<String> = wrong.into_iter().map(str::to_owned).collect();
            assert!(Exposure::check(&fields, "exposed_fields").is_err(), "{fields:?}");
        }
        assert!(Exposure::check(&["*".to_owned(), "lineage_path".to_owned()], "exposed_fields").is_ok());
    }
}
