//! What the names of models mean that organizations bring: `custom/{name}@{version}`, or a model's id. They mean something
//! in the namespaces of their organization where the model is enabled, and nothing anywhere else.

use crate::{
    collections::Collection,
    extract::{DIMENSIONS, settle_dimensions},
};
use serde_json::Value;
use strata_model::{Error, Result, Scope, id};
use strata_store::catalog::{
    models::{self, OrgModel, PREFIX},
    resources::{self, Kind},
    rusqlite::Connection,
};

/// Whether a name can only be that of a model that was brought. No model of the registry and no provider has such a name.
pub(crate) fn is_name(name: &str) -> bool {
    name.starts_with(PREFIX) || id::has_prefix(name, id::MODEL)
}

/// The model of this name, where the namespace may use it.
///
/// Errors: `Missing` where the organization has none of that name; `Conflict` where it is not enabled in the namespace.
pub(crate) fn usable(connection: &Connection, scope: &Scope, name: &str) -> Result<OrgModel> {
    let model = models::get(connection, &scope.organization_id, name)?;
    match models::is_enabled(connection, scope, &model.model_id)? {
        true => Ok(model),
        false => Err(Error::Conflict(format!(
            "the model `{}` is not enabled in this namespace; \
             `POST /v1/namespaces/{}/models/org/{}/enable` enables it",
            model.full_name(),
            scope.namespace_id,
            model.model_id
        ))),
    }
}

/// Completes a `feature_extractor` as clients write it: a model that was brought is named in full, and the length of its
/// vectors is written into the parameters, which then say all that the vectors depend on.
///
/// Errors: `Invalid` where the namespace may not use the model, or where another length is asked for.
pub(crate) fn settled(connection: &Connection, scope: &Scope, extractor: &Value, at: &str) -> Result<Value> {
    let mut extractor = extractor.clone();
    for named in ["parameters", "params"] {
        let Some(Value::Object(parameters)) = extractor.get_mut(named) else { continue };
        let Some(asked) = parameters.get("embedding_model").and_then(Value::as_str).filter(|name| is_name(name)) else {
            continue;
        };
        let at = |field: &str| format!("{at}.{named}.{field}");
        let model = allowed(connection, scope, asked, &at("embedding_model"))?;
        parameters.insert("embedding_model".into(), model.full_name().into());
        settle_dimensions(parameters, model.dimensions, at(DIMENSIONS))?;
    }
    Ok(extractor)
}

/// Refuses models that the namespace may not use; names of others are passed over.
pub(crate) fn must_be_usable(connection: &Connection, scope: &Scope, names: &[String], at: &str) -> Result<()> {
    for name in names.iter().filter(|name| is_name(name)) {
        allowed(connection, scope, name, at)?;
    }
    Ok(())
}

/// [`usable`], with a refusal that names the field.
fn allowed(connection: &Connection, scope: &Scope, name: &str, at: &str) -> Result<OrgModel> {
    usable(connection, scope, name).map_err(|error| match error {
        Error::Missing { .. } | Error::Conflict(_) => Error::invalid(at, error.to_string()),
        other => other,
    })
}

/// The collections of a namespace that a model makes vectors for, by name.
pub(super) fn users(connection: &Connection, scope: &Scope, model: &OrgModel) -> Result<Vec<String>> {
    let full_name = model.full_name();
    let is_it = |name: &String| *name == full_name || *name == model.model_id;
    let mut users = Vec::new();
    for row in resources::list(connection, Kind::Collection, scope)? {
        let collection = Collection::from_row(row)?;
        let extracts = collection.extractor.as_ref().is_some_and(|extractor| extractor.models.iter().any(is_it));
        if extracts || collection.vector_indexes.iter().any(|index| is_it(&index.model)) {
            users.push(collection.name);
        }
    }
    Ok(users)
}
