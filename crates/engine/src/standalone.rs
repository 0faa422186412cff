//! Namespaces without buckets and extractors: callers bring documents with their vectors. One collection holds them, so
//! that retrievers, filters and lineage are the same as everywhere. Promotion makes such a namespace a managed one.

use crate::{
    Engine,
    collections::{Collection, assemble_collection, load_collection, parse_vectors},
    extract,
    inference::{ProviderTask, Providers, is_local},
    namespaces::{Described, NewNamespace},
    org_models, payload,
    principals::check_name,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use strata_infer::{ModelEntry, Registry, Task};
use strata_model::{
    Error, FieldError, Fields, Principal, Result, Scope,
    feature::{VectorIndex, VectorKind},
    id,
};
use strata_store::catalog::{
    principals::{self, Namespace},
    resources::{self, Kind},
    rusqlite::{Connection, Transaction},
};

/// The collection of a standalone namespace.
pub const COLLECTION: &str = "documents";
/// Key of a namespace's body: which model embeds queries for a vector that callers bring.
const INFERENCE: &str = "vector_inference_map";

#[derive(Debug, Clone, Default)]
pub struct NewStandalone {
    pub namespace_id: Option<String>,
    /// The id where it is `None`.
    pub name: Option<String>,
    /// As sent: an array of `{name, dimension, metric}`.
    pub vector_configs: Option<Value>,
    /// Whether vectors that are not declared get an index when they first come. Where it is `None`: if none is declared.
    pub auto_create_indexes: Option<bool>,
    /// Everything else, as the API shows it.
    pub body: Fields,
}

/// What a promotion is to do.
#[derive(Debug, Clone, Default)]
pub struct Promotion {
    /// Vectors that are there, and the model or feature URI that embeds queries for them.
    pub mappings: Vec<(String, String)>,
    /// Vectors to add, as sent: `{name, dimension, metric, inference_service}`.
    pub add: Vec<Fields>,
}

/// What came, or would come, of a promotion.
#[derive(Debug, Clone)]
pub struct Promoted {
    pub namespace_id: String,
    pub previous_mode: String,
    /// The vectors afterwards.
    pub vectors: Vec<VectorIndex>,
    /// Model by vector.
    pub inference: BTreeMap<String, String>,
    pub errors: Vec<FieldError>,
    /// Vectors that a model here could embed queries for, and that model.
    pub suggestions: Vec<(String, String)>,
}

/// Whether a namespace's body says that callers bring the documents.
pub fn is_standalone(body: &Fields) -> bool {
    body.get("mode").and_then(Value::as_str) == Some("standalone")
}

impl Engine {
    pub async fn create_standalone_namespace(&self, principal: &Principal, new: NewStandalone) -> Result<Described> {
        check_name("namespace_name", new.name.as_deref(), 3, 64)?;
        let namespace_id = new.namespace_id.unwrap_or_else(|| self.catalog.new_id(id::NAMESPACE, 10));
        let mut body = new.body;
        let declared = new.vector_configs.filter(|v| !v.is_null());
        let has_some = declared.as_ref().map(|json| parse_vectors(json, "vector_configs")).transpose()?;
        let auto = new.auto_create_indexes.unwrap_or(has_some.is_none_or(|list| list.is_empty()));
        body.insert("mode".into(), "standalone".into());
        body.insert("auto_create_indexes".into(), auto.into());
        body.extend(declared.map(|json| ("vector_configs".to_owned(), json)));
        let name = new.name.unwrap_or_else(|| namespace_id.clone());
        let new = NewNamespace { namespace_id: Some(namespace_id), name, ttl_seconds: None, body };
        let (collection_id, now) = (self.catalog.new_id(id::COLLECTION, 10), self.catalog.now());
        let furnish = move |tx: &Transaction<'_>, namespace: &Namespace| {
            let request = json!({ "collection_name": COLLECTION, "source": { "type": "direct_upsert" } });
            let request = request.as_object().cloned().unwrap_or_default();
            let made = assemble_collection(tx, &namespace.scope(), &request, &collection_id, &now)?;
            resources::insert(tx, Kind::Collection, &made.to_row()?)?;
            payload::declare(tx, &namespace.scope(), &collection_id).map(drop)
        };
        let (namespace, ()) = self.make_namespace(principal, new, furnish).await?;
        self.namespace(principal, &namespace.namespace_id).await
    }

    /// What [`Engine::promote_namespace`] would do, and what stands against it.
    pub async fn check_promotion(&self, principal: &Principal, identifier: &str, asked: Promotion) -> Result<Promoted> {
        let (principal, identifier, providers) = (principal.clone(), identifier.to_owned(), self.providers.clone());
        self.catalog.read(move |c| Ok(plan(c, &providers, &principal, &identifier, &asked)?.promoted)).await
    }

    /// Makes a standalone namespace a managed one: buckets, extractors and text searches over its vectors from now on.
    pub async fn promote_namespace(
        &self,
        principal: &Principal,
        identifier: &str,
        asked: Promotion,
    ) -> Result<Promoted> {
        let (principal, identifier, now) = (principal.clone(), identifier.to_owned(), self.catalog.now());
        let providers = self.providers.clone();
        let write = self.catalog.write(move |tx| {
            let Plan { mut namespace, collection, promoted } = plan(tx, &providers, &principal, &identifier, &asked)?;
            if promoted.previous_mode != "standalone" {
                return Err(Error::Conflict(format!("namespace `{}` is a managed one already", namespace.name)));
            }
            if !promoted.errors.is_empty() {
                return Err(Error::Invalid(promoted.errors));
            }
            if let Some(mut collection) = collection {
                now.clone_into(&mut collection.updated_at);
                resources::update(tx, Kind::Collection, &collection.to_row()?)?;
            }
            namespace.body.insert("mode".into(), "managed".into());
            namespace.body.insert("auto_create_indexes".into(), false.into());
            namespace.body.insert("vector_configs".into(), json!(configs(&promoted.vectors)));
            namespace.body.insert(INFERENCE.into(), json!(promoted.inference));
            namespace.updated_at = now;
            principals::update_namespace(tx, &namespace)?;
            let collections = resources::list(tx, Kind::Collection, &namespace.scope())?;
            Ok((promoted, collections))
        });
        let (promoted, collections) = write.await?;
        collections.iter().for_each(|collection| self.index.respec(&collection.id));
        Ok(promoted)
    }
}

/// Vectors as the API declares them.
pub fn configs(vectors: &[VectorIndex]) -> Vec<Value> {
    let one = |index: &VectorIndex| {
        json!({
            "name": index.name,
            "dimension": index.dimensions,
            "metric": index.distance,
            "type": index.kind,
        })
    };
    vectors.iter().map(one).collect()
}

/// The vectors of a namespace's own collection, while it has that.
pub(crate) fn own_vectors(connection: &Connection, namespace: &Namespace) -> Result<Option<Vec<VectorIndex>>> {
    Ok(own_collection(connection, namespace)?.map(|collection| collection.vector_indexes))
}

fn own_collection(connection: &Connection, namespace: &Namespace) -> Result<Option<Collection>> {
    match load_collection(connection, &namespace.scope(), COLLECTION) {
        Ok(found) => Ok(Some(found)),
        Err(Error::Missing { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

struct Plan {
    namespace: Namespace,
    /// As it is to be.
    collection: Option<Collection>,
    promoted: Promoted,
}

fn plan(
    connection: &Connection,
    providers: &Providers,
    principal: &Principal,
    identifier: &str,
    asked: &Promotion,
) -> Result<Plan> {
    let namespace = principals::namespace(connection, principal, identifier)?;
    let mut collection = own_collection(connection, &namespace)?;
    let (mut errors, mut inference) = (Vec::new(), BTreeMap::new());
    if let Some(collection) = &mut collection {
        add(collection, asked, &mut errors);
    } else if !asked.add.is_empty() {
        errors.push(FieldError::new("add_vectors", "the namespace has no documents with their own vectors"));
    }
    let added = asked.add.iter().enumerate().filter_map(|(i, spec)| {
        let service = spec.get("inference_service").and_then(Value::as_str)?;
        Some((format!("add_vectors.{i}.inference_service"), spec.get("name")?.as_str()?, service))
    });
    let mapped = asked.mappings.iter().enumerate();
    let mapped = mapped.map(|(i, (index, service))| (format!("vector_mappings.{i}"), index.as_str(), service.as_str()));
    for (at, name, service) in mapped.chain(added) {
        let index = collection.as_ref().and_then(|c| c.vector_index(name)).cloned();
        match index
            .ok_or_else(|| format!("there is no vector `{name}`"))
            .and_then(|index| model_for(connection, &namespace.scope(), &index, service, providers))
        {
            Ok(model) => {
                if let Some(collection) = &mut collection {
                    collection.embed_with(name, &model);
                }
                inference.insert(name.to_owned(), service.to_owned());
            }
            Err(why) => errors.push(FieldError::new(&at, why)),
        }
    }
    let vectors = collection.as_ref().map(|c| c.vector_indexes.clone()).unwrap_or_default();
    let open = vectors.iter().filter(|index| index.model.is_empty() && index.kind == VectorKind::Dense);
    let fitting = |index: &VectorIndex| {
        let model = embedders().find(|m| m.loadable && Some(m.dimensions) == index.dimensions)?;
        Some((index.name.clone(), model.id.to_owned()))
    };
    let promoted = Promoted {
        namespace_id: namespace.namespace_id.clone(),
        previous_mode: if is_standalone(&namespace.body) { "standalone" } else { "managed" }.to_owned(),
        suggestions: open.filter_map(fitting).collect(),
        vectors,
        inference,
        errors,
    };
    Ok(Plan { namespace, collection, promoted })
}

/// Adds the vectors that are asked for and can be.
fn add(collection: &mut Collection, asked: &Promotion, errors: &mut Vec<FieldError>) {
    for (i, spec) in asked.add.iter().enumerate() {
        let at = format!("add_vectors.{i}");
        match parse_vectors(&json!([spec]), &at) {
            Ok(new) if new.iter().any(|n| collection.vector_indexes.iter().any(|have| have.name == n.name)) => {
                errors.push(FieldError::new(format!("{at}.name"), "is there already"));
            }
            Ok(new) => collection.bring(new),
            Err(Error::Invalid(wrong)) => errors.extend(wrong),
            Err(other) => errors.push(FieldError::new(&at, other.to_string())),
        }
    }
}

fn embedders() -> impl Iterator<Item = &'static ModelEntry> {
    Registry::entries().iter().filter(|model| model.task == Task::EmbedText)
}

/// The model that a service means: its id or alias in the registry, the feature URI of an extractor's output,
/// `provider/model`, or one that the organization brought.
fn model_for(
    connection: &Connection,
    scope: &Scope,
    index: &VectorIndex,
    service: &str,
    providers: &Providers,
) -> Result<String, String> {
    if org_models::is_name(service) {
        let model = org_models::usable(connection, scope, service).map_err(|e| e.to_string())?;
        return fitting_model(index, model.full_name(), Some(model.dimensions));
    }
    let of_feature = || {
        let shapes = extract::definitions().iter().filter_map(|d| {
            let defaults = (d.default_parameters)();
            d.shape(defaults.as_object()?).ok()
        });
        let named = shapes.flat_map(|shape| shape.vectors).find(|vector| vector.answers_to(service))?;
        Registry::resolve_for(&named.model, Task::EmbedText).ok()
    };
    let entry = Registry::resolve_for(service, Task::EmbedText).ok().or_else(of_feature);
    let target = providers.target(service).filter(|_| entry.is_none() && !is_local(service));
    let (model, dimensions) = match (entry, target) {
        (Some(entry), _) => (entry.id.to_owned(), Some(entry.dimensions)),
        (None, Some(target)) => {
            target.must(ProviderTask::EmbedText, "inference_service").map_err(|e| e.to_string())?;
            // What the settings do not say is taken to fit.
            (target.id(), target.dimensions().or(index.dimensions))
        }
        (None, None) => {
            let known = embedders().map(|m| m.id).collect::<Vec<_>>().join(", ");
            return Err(format!("`{service}` is not a model here; there are {known}, and those of providers"));
        }
    };
    fitting_model(index, model, dimensions)
}

/// The model, where its vectors are as long as those of the index.
fn fitting_model(index: &VectorIndex, model: String, dimensions: Option<usize>) -> Result<String, String> {
    if index.kind != VectorKind::Dense || index.dimensions.is_none() || index.dimensions != dimensions {
        let size = |dimensions: Option<usize>| dimensions.map_or("no fixed number of".to_owned(), |d| d.to_string());
        let (makes, has) = (size(dimensions), size(index.dimensions));
        return Err(format!("`{model}` makes {makes} numbers; `{}` has {has}", index.name));
    }
    Ok(model)
}
