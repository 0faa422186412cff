//! Namespaces: the walls between tenants, and what is declared for all that is inside one.

use crate::{
    Engine,
    collections::parse_vectors,
    extract::Definition,
    listing::{ListRequest, Page},
    payload,
    principals::{check_name, merge, without_nulls},
    standalone,
    transfers::making,
};
use serde_json::{Value, json};
use std::collections::HashSet;
use strata_model::{Error, Fields, Principal, Result, Scope, id};
pub use strata_store::catalog::principals::{Namespace, NamespaceCounts};
use strata_store::{
    catalog::{
        principals,
        resources::{self, Kind},
        rusqlite::{Connection, Transaction},
    },
    seams,
};

/// Most payload indexes that a namespace declares.
const MAX_PAYLOAD_INDEXES: usize = 100;
/// Shortest and longest time until the `expires_at` that a caller asks for, in seconds. It is kept and shown; no
/// namespace is deleted by itself.
const MIN_TTL_SECONDS: i64 = 60;
const MAX_TTL_SECONDS: i64 = 100 * 366 * 24 * 3600;
/// Most namespaces whose numbers are asked for at once.
pub const MAX_STATS: usize = 100;
const PAYLOAD_TYPES: [&str; 8] = ["keyword", "integer", "float", "bool", "geo", "datetime", "text", "uuid"];

/// A namespace, and how much it holds.
#[derive(Debug, Clone)]
pub struct Described {
    pub namespace: Namespace,
    pub counts: NamespaceCounts,
}

/// What the namespaces of all pages have together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamespaceSums {
    pub namespaces: usize,
    /// Extractors and payload indexes that they declare.
    pub feature_extractors: usize,
    pub payload_indexes: usize,
    pub counts: NamespaceCounts,
}

impl NamespaceSums {
    fn of(connection: &Connection, namespaces: &[Namespace]) -> Result<Self> {
        let declared = |key: &str| -> usize {
            let lists = namespaces.iter().filter_map(|namespace| namespace.body.get(key)?.as_array());
            lists.map(Vec::len).sum()
        };
        let shown = namespaces.iter().filter(|namespace| !is_being_made(namespace));
        Ok(Self {
            namespaces: namespaces.len(),
            feature_extractors: declared("feature_extractors"),
            payload_indexes: declared("payload_indexes"),
            counts: principals::namespaces_together(connection, shown)?,
        })
    }
}

#[derive(Debug, Clone, Default)]
pub struct NewNamespace {
    /// One that the caller chose.
    pub namespace_id: Option<String>,
    pub name: String,
    pub ttl_seconds: Option<i64>,
    /// Everything else, as the API shows it: `description`, `feature_extractors`, `payload_indexes` …
    pub body: Fields,
}

/// What is `None` stays.
#[derive(Debug, Clone, Default)]
pub struct NamespaceChange {
    pub name: Option<String>,
    pub ttl_seconds: Option<i64>,
    /// Keys of the body to set; null removes.
    pub body: Fields,
}

impl Engine {
    pub async fn create_namespace(&self, principal: &Principal, new: NewNamespace) -> Result<Namespace> {
        check_name("namespace_name", Some(&new.name), 3, 64)?;
        Ok(self.make_namespace(principal, new, |_, _| Ok(())).await?.0)
    }

    /// [`Engine::create_namespace`] under any name, and what belongs into it from the first.
    pub(crate) async fn make_namespace<T: Send + 'static>(
        &self,
        principal: &Principal,
        new: NewNamespace,
        furnish: impl FnOnce(&Transaction<'_>, &Namespace) -> Result<T> + Send + 'static,
    ) -> Result<(Namespace, T)> {
        if new.namespace_id.as_deref().is_some_and(|id| !is_namespace_id(id)) {
            return Err(Error::invalid(
                "namespace_id",
                "must be 1 to 128 letters, digits, `_` or `-`, and begin with a letter or digit",
            ));
        }
        let mut body = without_nulls(new.body);
        self.check_body(&mut body, new.ttl_seconds)?;
        let now = self.catalog.now();
        let chosen = new.namespace_id.is_some();
        let namespace = Namespace {
            namespace_id: new.namespace_id.unwrap_or_else(|| self.catalog.new_id(id::NAMESPACE, 10)),
            organization_id: principal.organization_id.clone(),
            name: new.name,
            body,
            created_at: now.clone(),
            updated_at: now,
        };
        let write = self.catalog.write(move |tx| {
            if chosen && principals::namespace_id_is_taken(tx, &namespace.namespace_id)? {
                return Err(Error::Conflict(format!(
                    "a namespace with the id `{}` exists already",
                    namespace.namespace_id
                )));
            }
            principals::insert_namespace(tx, &namespace)?;
            let made = furnish(tx, &namespace)?;
            Ok((namespace, made))
        });
        write.await
    }

    /// By id or name.
    pub async fn namespace(&self, principal: &Principal, identifier: &str) -> Result<Described> {
        let (principal, identifier) = (principal.clone(), identifier.to_owned());
        let read = self
            .catalog
            .read(move |connection| describe(connection, principals::namespace(connection, &principal, &identifier)?));
        read.await
    }

    /// A page of those that the principal may enter, and sums over all pages.
    pub async fn namespaces(
        &self,
        principal: &Principal,
        request: ListRequest,
    ) -> Result<(Page<Described>, NamespaceSums)> {
        let principal = principal.clone();
        let read = self.catalog.read(move |connection| {
            let kept = request.kept(principals::namespaces(connection, &principal)?, view);
            let sums = NamespaceSums::of(connection, &kept)?;
            let page = request.cut(kept);
            let items = page.items.into_iter().map(|namespace| describe(connection, namespace));
            Ok((Page { items: items.collect::<Result<_>>()?, total: page.total }, sums))
        });
        read.await
    }

    /// How much each of these namespaces holds; those that the principal cannot enter are left out.
    pub async fn namespace_stats(&self, principal: &Principal, identifiers: Vec<String>) -> Result<Vec<Described>> {
        if identifiers.len() > MAX_STATS {
            return Err(Error::invalid("namespace_ids", format!("are at most {MAX_STATS}")));
        }
        let principal = principal.clone();
        let read = self.catalog.read(move |connection| {
            let mut found = Vec::with_capacity(identifiers.len());
            for identifier in identifiers {
                match principals::namespace(connection, &principal, &identifier) {
                    Ok(namespace) => found.push(describe(connection, namespace)?),
                    Err(Error::Missing { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(found)
        });
        read.await
    }

    pub async fn update_namespace(
        &self,
        principal: &Principal,
        identifier: &str,
        change: NamespaceChange,
    ) -> Result<Described> {
        check_name("namespace_name", change.name.as_deref(), 3, 64)?;
        let mut body = change.body;
        let touches_indexes = body.contains_key("payload_indexes");
        self.check_body(&mut body, change.ttl_seconds)?;
        let (principal, identifier, now) = (principal.clone(), identifier.to_owned(), self.catalog.now());
        let write = self.catalog.write(move |tx| {
            let mut namespace = principals::namespace(tx, &principal, &identifier)?;
            namespace.name = change.name.unwrap_or(namespace.name);
            merge(&mut namespace.body, body);
            namespace.updated_at = now;
            principals::update_namespace(tx, &namespace)?;
            let (scope, mut unbuilt) = (namespace.scope(), false);
            let collections = collection_ids(tx, &scope)?;
            for collection in collections.iter().filter(|_| touches_indexes) {
                unbuilt |= payload::declare(tx, &scope, collection)?;
            }
            Ok((describe(tx, namespace)?, collections, unbuilt))
        });
        let (described, collections, unbuilt) = write.await?;
        if unbuilt {
            self.payload.wake();
        }
        if touches_indexes {
            collections.iter().for_each(|collection| self.index.respec(collection));
        }
        Ok(described)
    }

    /// Brings every collection's index in line with the payload indexes that the namespace declares, or builds it anew.
    /// Answers the collections; the work goes on behind.
    pub async fn ensure_indexes(
        &self,
        principal: &Principal,
        identifier: &str,
        rebuild: bool,
    ) -> Result<(Namespace, Vec<String>)> {
        let (principal, identifier) = (principal.clone(), identifier.to_owned());
        let read = self.catalog.read(move |connection| {
            let namespace = principals::namespace(connection, &principal, &identifier)?;
            let collections = collection_ids(connection, &namespace.scope())?;
            Ok((namespace, collections))
        });
        let (namespace, collections) = read.await?;
        if rebuild {
            self.drop_indexes(collections.clone()).await?;
        }
        for collection in &collections {
            self.index.respec(collection);
            self.index.notify(collection);
        }
        Ok((namespace, collections))
    }

    /// Removes a namespace and everything in it; answers what went. Without `force` only an empty one goes.
    pub async fn delete_namespace(&self, principal: &Principal, identifier: &str, force: bool) -> Result<Described> {
        let (principal, identifier) = (principal.clone(), identifier.to_owned());
        // The keys of its retrievers go with it, by the schema's cascades.
        let write = self.change_keys(move |tx| {
            let described = described(tx, principals::namespace(tx, &principal, &identifier)?)?;
            let (counts, scope) = (described.counts, described.namespace.scope());
            if !force && !counts.is_empty() {
                return Err(Error::Conflict(format!(
                    "namespace `{}` holds {} buckets, {} objects, {} collections, {} documents and {} interactions, annotations and evaluations; send `force=true` to delete them too",
                    described.namespace.name,
                    counts.buckets,
                    counts.objects,
                    counts.collections,
                    counts.documents,
                    counts.feedback
                )));
            }
            let collections = collection_ids(tx, &scope)?;
            principals::delete_namespace(tx, &scope)?;
            Ok((described, collections))
        });
        let (described, collections) = write.await?;
        // The rows are gone and cannot be asked for any more; an index that stays behind costs room and nothing else.
        if let Err(error) = self.drop_indexes(collections).await {
            tracing::warn!(%error, namespace_id = %described.namespace.namespace_id, "an index of a deleted namespace was not removed");
        }
        Ok(described)
    }

    /// Removes the indexes of collections that are gone.
    pub(crate) async fn drop_indexes(&self, collections: Vec<String>) -> Result<()> {
        let index = self.index.clone();
        let drop_all = move || collections.iter().try_for_each(|collection| index.drop_collection(collection));
        tokio::task::spawn_blocking(drop_all).await.map_err(Error::internal)?
    }

    /// Checks what a body declares, completes it, and turns a time to live into the moment of the end.
    fn check_body(&self, body: &mut Fields, ttl_seconds: Option<i64>) -> Result<()> {
        if let Some(extractors) = body.get("feature_extractors").filter(|v| !v.is_null()) {
            let checked = checked_extractors(extractors)?;
            body.insert("feature_extractors".into(), checked);
        }
        if let Some(indexes) = body.get("payload_indexes").filter(|v| !v.is_null()) {
            let checked = checked_indexes(indexes)?;
            body.insert("payload_indexes".into(), checked);
        }
        if let Some(vectors) = body.get("vector_configs").filter(|v| !v.is_null()) {
            let declared = standalone::configs(&parse_vectors(vectors, "vector_configs")?);
            body.insert("vector_configs".into(), declared.into());
        }
        if let Some(time) = body.get("expires_at").filter(|v| !v.is_null()) {
            let time = crate::times::spelled(time.as_str().unwrap_or_default(), "expires_at")?;
            body.insert("expires_at".into(), time.into());
        }
        match ttl_seconds {
            None => Ok(()),
            Some(ttl) if !(MIN_TTL_SECONDS..=MAX_TTL_SECONDS).contains(&ttl) => {
                Err(Error::invalid("ttl_seconds", format!("must be from {MIN_TTL_SECONDS} to {MAX_TTL_SECONDS}")))
            }
            Some(ttl) => {
                let end = self.catalog.now_micros() + ttl * 1_000_000;
                body.insert("expires_at".into(), seams::rfc3339(end).into());
                Ok(())
            }
        }
    }
}

fn is_namespace_id(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.as_bytes()[0].is_ascii_alphanumeric()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn collection_ids(connection: &Connection, scope: &Scope) -> Result<Vec<String>> {
    Ok(resources::list(connection, Kind::Collection, scope)?.into_iter().map(|collection| collection.id).collect())
}

/// A namespace as filters and sorts see it.
fn view(namespace: &Namespace) -> Fields {
    let mut view = namespace.body.clone();
    view.insert("namespace_id".into(), namespace.namespace_id.clone().into());
    view.insert("namespace_name".into(), namespace.name.clone().into());
    view.insert("created_at".into(), namespace.created_at.clone().into());
    view.insert("updated_at".into(), namespace.updated_at.clone().into());
    view
}

/// Whether it is still being made, so that nothing is shown of what is in it.
fn is_being_made(namespace: &Namespace) -> bool {
    making(&namespace.body).is_some_and(|making| !making.is_over())
}

/// A namespace as it is shown: nothing of one that is being made.
fn describe(connection: &Connection, namespace: Namespace) -> Result<Described> {
    match is_being_made(&namespace) {
        true => Ok(Described { namespace, counts: NamespaceCounts::default() }),
        false => described(connection, namespace),
    }
}

fn described(connection: &Connection, mut namespace: Namespace) -> Result<Described> {
    let counts = principals::namespace_counts(connection, &namespace.scope())?;
    if standalone::is_standalone(&namespace.body)
        && let Some(vectors) = standalone::own_vectors(connection, &namespace)?
    {
        // More than were declared, where documents brought some.
        namespace.body.insert("vector_configs".into(), standalone::configs(&vectors).into());
    }
    Ok(Described { namespace, counts })
}

fn checked_extractors(list: &Value) -> Result<Value> {
    let list = list.as_array().ok_or_else(|| Error::invalid("feature_extractors", "must be an array"))?;
    let mut checked = Vec::with_capacity(list.len());
    for (i, extractor) in list.iter().enumerate() {
        let at = format!("feature_extractors.{i}");
        let name = extractor.get("feature_extractor_name").and_then(Value::as_str);
        let name = name.ok_or_else(|| Error::invalid(format!("{at}.feature_extractor_name"), "is required"))?;
        let definition = Definition::find(name).ok_or_else(|| {
            let known: Vec<&str> = crate::extract::definitions().iter().map(|d| d.name).collect();
            Error::invalid(
                format!("{at}.feature_extractor_name"),
                format!("`{name}` is not an extractor here; one of {}", known.join(", ")),
            )
        })?;
        if let Some(version) = extractor.get("version").and_then(Value::as_str).filter(|v| *v != definition.version) {
            let message = format!("`{version}` is not a version of {}; it has {}", definition.name, definition.version);
            return Err(Error::invalid(format!("{at}.version"), message));
        }
        checked.push(json!({
            "feature_extractor_name": definition.name,
            "version": definition.version,
            "params": extractor.get("params").cloned().unwrap_or_default(),
            "feature_extractor_id": definition.id(),
        }));
    }
    Ok(checked.into())
}

fn checked_indexes(list: &Value) -> Result<Value> {
    let list = list.as_array().ok_or_else(|| Error::invalid("payload_indexes", "must be an array"))?;
    if list.len() > MAX_PAYLOAD_INDEXES {
        return Err(Error::invalid("payload_indexes", format!("are at most {MAX_PAYLOAD_INDEXES}")));
    }
    let mut seen = HashSet::new();
    let mut checked = Vec::with_capacity(list.len());
    for (i, index) in list.iter().enumerate() {
        let at = |key: &str| format!("payload_indexes.{i}.{key}");
        let text = |key: &str| index.get(key).and_then(Value::as_str).unwrap_or_default();
        let (field, kind) = (text("field_name"), text("type"));
        if field.is_empty() || field.chars().count() > 255 {
            return Err(Error::invalid(at("field_name"), "must have 1 to 255 characters"));
        }
        if !PAYLOAD_TYPES.contains(&kind) {
            return Err(Error::invalid(at("type"), format!("must be one of {}", PAYLOAD_TYPES.join(", "))));
        }
        if !seen.insert(field) {
            return Err(Error::invalid(at("field_name"), format!("`{field}` is declared twice")));
        }
        checked.push(json!({
            "field_name": field,
            "type": kind,
            "field_schema": index.get("field_schema").cloned().unwrap_or_default(),
            "is_protected": index.get("is_protected").and_then(Value::as_bool).unwrap_or(false),
        }));
    }
    Ok(checked.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_indexes_are_checked_and_completed() {
        let good = checked_indexes(&json!([{ "field_name": "year", "type": "integer" }])).unwrap();
        assert_eq!(good[0]["is_protected"], false);
        for (wrong, place) in [
            (json!([{ "type": "integer" }]), "payload_indexes.0.field_name"),
            (json!([{ "field_name": "a", "type": "number" }]), "payload_indexes.0.type"),
            (
                json!([{ "field_name": "a", "type": "bool" }, { "field_name": "a", "type": "text" }]),
                "payload_indexes.1.field_name",
            ),
            (json!({}), "payload_indexes"),
        ] {
            match checked_indexes(&wrong) {
                Err(Error::Invalid(fields)) => assert_eq!(fields[0].field, place),
                other => panic!("{wrong}: {other:?}"),
            }
        }
    }

    #[test]
    fn extractors_get_their_ids_and_unknown_ones_are_named() {
        let good =
            checked_extractors(&json!([{ "feature_extractor_name": "text_extractor", "version": "v1" }])).unwrap();
        assert_eq!(good[0]["feature_extractor_id"], "text_extractor_v1");
        let wrong = checked_extractors(&json!([{ "feature_extractor_name": "nobody", "version": "v1" }])).unwrap_err();
        assert!(wrong.to_string().contains("`nobody`") && wrong.to_string().contains("text_extractor"), "{wrong}");
    }
}
