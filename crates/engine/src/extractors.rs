//! Custom extractors of a namespace: where they listen and what they say of themselves. The operator's settings name the
//! endpoints that may be registered, since they are sent everything they are to read.

use crate::{
    Engine,
    collections::Collection,
    extract::{
        Custom, Description,
        custom::{Caller, Endpoint},
    },
};
use serde_json::{Value, json};
use std::sync::Arc;
use strata_model::{Error, Result, Scope, id};
use strata_store::catalog::{
    resources::{self, Kind, Resource},
    rusqlite::{Connection, Transaction},
};

/// Most custom extractors of a namespace.
const MAX_EXTRACTORS: usize = 64;

/// A custom extractor of a namespace.
#[derive(Debug, Clone)]
pub struct Registered {
    pub custom: Arc<Custom>,
    pub endpoint: String,
    pub created_at: String,
    pub updated_at: String,
}

impl Registered {
    fn from_row(row: Resource) -> Result<Self> {
        let mut body = row.body;
        let description = body.remove("description").unwrap_or_default();
        let description: Description = serde_json::from_value(description).map_err(Error::internal)?;
        let custom = Custom::new(&row.id, description).map_err(|e| Error::internal(format!("`{}`: {e}", row.name)))?;
        let endpoint = body.get("endpoint").and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(Self { custom: Arc::new(custom), endpoint, created_at: row.created_at, updated_at: row.updated_at })
    }

    fn to_row(&self, scope: &Scope) -> Result<Resource> {
        let description = serde_json::to_value(&self.custom.description).map_err(Error::internal)?;
        let body = json!({ "endpoint": self.endpoint, "description": description });
        Ok(Resource {
            id: self.custom.extractor_id.clone(),
            namespace_id: scope.namespace_id.clone(),
            name: self.custom.id(),
            body: body.as_object().cloned().unwrap_or_default(),
            created_at: self.created_at.clone(),
            updated_at: self.updated_at.clone(),
        })
    }
}

/// The custom extractors of a namespace, the newest version of each name first.
pub(crate) fn of_namespace(connection: &Connection, scope: &Scope) -> Result<Vec<Arc<Custom>>> {
    let rows = resources::list(connection, Kind::Extractor, scope)?;
    let mut found = rows.into_iter().map(|row| Ok(Registered::from_row(row)?.custom)).collect::<Result<Vec<_>>>()?;
    let number = |custom: &Custom| custom.description.version.trim_start_matches('v').parse::<u32>().unwrap_or(0);
    found.sort_by(|a, b| {
        let name = a.description.name.cmp(&b.description.name);
        name.then_with(|| number(b).cmp(&number(a)))
    });
    Ok(found)
}

/// One of the namespace, by the id of its registration, by `{name}_{version}`, or by its name alone.
fn find(connection: &Connection, scope: &Scope, identifier: &str) -> Result<Registered> {
    let named = match resources::find(connection, Kind::Extractor, scope, identifier)? {
        Some(row) => Some(row),
        None => {
            let newest = of_namespace(connection, scope)?.into_iter().find(|c| c.description.name == identifier);
            match newest {
                Some(custom) => resources::find(connection, Kind::Extractor, scope, &custom.extractor_id)?,
                None => None,
            }
        }
    };
    Registered::from_row(named.ok_or_else(|| Error::missing("extractor", identifier))?)
}

fn write(tx: &Transaction<'_>, scope: &Scope, mut new: Registered) -> Result<Registered> {
    if let Some(row) = resources::find(tx, Kind::Extractor, scope, &new.custom.id())? {
        let before = Registered::from_row(row)?;
        if !before.custom.makes_the_same(&new.custom) {
            return Err(Error::Conflict(format!(
                "`{}` is registered with other inputs, parameters, fields or vectors; raise its version",
                new.custom.id()
            )));
        }
        new.custom = Arc::new(new.custom.registered_as(&before.custom.extractor_id));
        new.created_at = before.created_at;
        resources::update(tx, Kind::Extractor, &new.to_row(scope)?)?;
        return Ok(new);
    }
    if resources::count(tx, Kind::Extractor, scope)? >= MAX_EXTRACTORS as i64 {
        return Err(Error::Conflict(format!("a namespace has at most {MAX_EXTRACTORS} custom extractors")));
    }
    resources::insert(tx, Kind::Extractor, &new.to_row(scope)?)?;
    Ok(new)
}

impl Engine {
    /// Registers the extractor that listens at an endpoint, or takes note of what has changed about it. What was derived
    /// under another fingerprint is derived anew when its objects are processed again.
    ///
    /// Errors: `Forbidden` where the settings do not name the endpoint; `Upstream` where nothing answers there; `Invalid`
    /// where the answer is no description; `Conflict` where the same version made documents of another form.
    pub async fn register_extractor(&self, scope: &Scope, endpoint: &str) -> Result<Registered> {
        let endpoint = endpoint.trim().trim_end_matches('/').to_owned();
        if !self.may_ask(&endpoint) {
            return Err(Error::Forbidden(format!(
                "`{endpoint}` is not an endpoint that extractors may have here; the server is started with them as `--extractor-endpoint`"
            )));
        }
        let description = Endpoint::parse(&endpoint)?.describe().await?;
        let custom = Custom::new(&self.catalog.new_id(id::EXTRACTOR, 12), description)?;
        let now = self.catalog.now();
        let new = Registered { custom: Arc::new(custom), endpoint, created_at: now.clone(), updated_at: now };
        let scope = scope.clone();
        self.catalog.write(move |tx| write(tx, &scope, new)).await
    }

    /// The custom extractors of a namespace, oldest first.
    pub async fn registered_extractors(&self, scope: &Scope) -> Result<Vec<Registered>> {
        let scope = scope.clone();
        let list = move |connection: &Connection| {
            let rows = resources::list(connection, Kind::Extractor, &scope)?;
            rows.into_iter().map(Registered::from_row).collect()
        };
        self.catalog.read(list).await
    }

    /// A custom extractor by the id of its registration, by `{name}_{version}` or by name.
    pub async fn registered_extractor(&self, scope: &Scope, identifier: &str) -> Result<Registered> {
        let (scope, identifier) = (scope.clone(), identifier.to_owned());
        self.catalog.read(move |connection| find(connection, &scope, &identifier)).await
    }

    /// Forgets a custom extractor. `Conflict` where a collection uses it.
    pub async fn remove_extractor(&self, scope: &Scope, identifier: &str) -> Result<Registered> {
        let (of, identifier) = (scope.clone(), identifier.to_owned());
        let remove = move |tx: &Transaction<'_>| {
            let found = find(tx, &of, &identifier)?;
            for row in resources::list(tx, Kind::Collection, &of)? {
                let collection = Collection::from_row(row)?;
                let custom = collection.extractor.as_ref().and_then(|extractor| extractor.definition.custom());
                if custom.is_some_and(|custom| custom.extractor_id == found.custom.extractor_id) {
                    return Err(Error::Conflict(format!("the collection `{}` uses it", collection.name)));
                }
            }
            resources::delete(tx, Kind::Extractor, &of, &found.custom.extractor_id)?;
            Ok(found)
        };
        let removed = self.catalog.write(remove).await?;
        self.callers.lock().remove(&removed.custom.extractor_id);
        Ok(removed)
    }

    /// What tells the outputs of a custom extractor from those of every other.
    pub(crate) async fn custom_fingerprint(&self, scope: &Scope, custom: &Custom) -> Result<String> {
        let registered = self.registration(scope, custom).await?;
        Ok(format!("{} {}", custom.extractor_id, registered.custom.description.fingerprint))
    }

    /// What asks the process of a custom extractor.
    pub(crate) async fn custom_caller(&self, scope: &Scope, custom: &Custom) -> Result<Arc<Caller>> {
        let Registered { custom, endpoint, .. } = self.registration(scope, custom).await?;
        if !self.may_ask(&endpoint) {
            return Err(Error::Unavailable(format!("`{endpoint}` is not named by `--extractor-endpoint` any more")));
        }
        let mut callers = self.callers.lock();
        if let Some(known) = callers.get(&custom.extractor_id).filter(|c| c.is_for(&endpoint, &custom.description)) {
            return Ok(known.clone());
        }
        let caller = Arc::new(Caller::new(Endpoint::parse(&endpoint)?, custom.description.clone()));
        callers.insert(custom.extractor_id.clone(), caller.clone());
        Ok(caller)
    }

    /// Whether the settings name an endpoint, which has no slash at its end.
    fn may_ask(&self, endpoint: &str) -> bool {
        self.config.extractor_endpoints.iter().any(|allowed| allowed.trim_end_matches('/') == endpoint)
    }

    /// The registration as it is now.
    async fn registration(&self, scope: &Scope, custom: &Custom) -> Result<Registered> {
        self.registered_extractor(scope, &custom.extractor_id).await.map_err(|error| match error {
            Error::Missing { .. } => Error::Unavailable(format!("`{}` is not registered any more", custom.id())),
            other => other,
        })
    }
}
