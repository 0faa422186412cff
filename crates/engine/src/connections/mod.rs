//! Connections of an organization to databases outside, which the stage `sql_lookup` reads. What a connection says is
//! checked here; its credentials are sealed in the vault and shown to nobody.
//!
//! Nothing here writes to such a database: queries run in transactions, or on handles, that the database itself keeps
//! from writing.

mod config;
mod pool;
mod postgres;
mod sqlite;
mod value;

pub use config::PROVIDERS;
pub(crate) use pool::Pools;

use crate::{
    Engine,
    principals::{check_name, merge},
    retrieval::{Lookup, Rows},
    secrets::Place,
};
use config::{Credentials, Provider};
use pool::Pool;
use serde_json::Value;
use std::{sync::Arc, time::Duration};
use strata_model::{Error, Fields, Principal, Result, id};
use strata_store::catalog::connections;
pub use strata_store::catalog::connections::Connection;

/// Key of a connection's body that holds what it connects to, without credentials.
const CONFIG: &str = "provider_config";
/// Most connections of one organization.
const MAX_CONNECTIONS: usize = 100;
/// Longest description, in characters.
const MAX_DESCRIPTION_CHARS: usize = 500;
/// Longest error that is kept, in characters.
const MAX_ERROR_CHARS: usize = 1_000;
/// The longest that the test of a connection may take.
const TEST_TIME: Duration = Duration::from_secs(10);
/// `last_used_at`, and a failure like the one before, are written at most this often, in microseconds.
const NOTE_EVERY_MICROS: i64 = 60_000_000;

/// A connection to be made.
#[derive(Debug, Clone)]
pub struct NewConnection {
    pub name: String,
    pub provider_type: String,
    /// With `credentials`.
    pub config: Fields,
    pub description: Option<String>,
    pub metadata: Option<Fields>,
    /// Whether it is tried before it is kept.
    pub is_tested: bool,
}

/// What is `None` stays.
#[derive(Debug, Clone, Default)]
pub struct ConnectionChange {
    pub name: Option<String>,
    /// Keys of the configuration to set; null removes.
    pub config: Option<Fields>,
    /// Keys of the body to set; null removes.
    pub body: Fields,
    pub is_active: Option<bool>,
    pub status: Option<String>,
}

/// How a try to connect went.
#[derive(Debug, Clone, PartialEq)]
pub struct Tried {
    pub is_good: bool,
    pub message: String,
    /// What is there, such as the database's version.
    pub details: Fields,
}

impl Engine {
    pub async fn create_connection(&self, principal: &Principal, new: NewConnection) -> Result<Connection> {
        check_name("name", Some(&new.name), 1, 100)?;
        check_description(new.description.as_deref())?;
        let (config, credentials) = config::split(new.config)?;
        let provider = self.provider(&new.provider_type, &config, credentials.as_ref())?;
        if new.is_tested {
            self.tried(&provider).await?;
        }
        let connection_id = self.catalog.new_id(id::CONNECTION, 15);
        let sealed = self.sealed_credentials(principal, &connection_id, credentials.as_ref()).await?;
        let mut body = Fields::new();
        body.insert(CONFIG.into(), Value::Object(provider.shown()));
        body.insert("is_active".into(), true.into());
        body.insert("status".into(), "ACTIVE".into());
        body.extend(new.description.map(|text| ("description".to_owned(), text.into())));
        body.extend(new.metadata.map(|metadata| ("metadata".to_owned(), metadata.into())));
        let now = self.catalog.now();
        let connection = Connection {
            connection_id,
            organization_id: principal.organization_id.clone(),
            name: new.name,
            provider_type: new.provider_type,
            body,
            sealed,
            created_by: principal.user_id.clone(),
            last_used_at: None,
            last_error: None,
            consecutive_failures: 0,
            created_at: now.clone(),
            updated_at: now,
        };
        let write = self.catalog.write(move |tx| {
            if connections::list(tx, &connection.organization_id)?.len() >= MAX_CONNECTIONS {
                return Err(Error::Conflict(format!("an organization has at most {MAX_CONNECTIONS} connections")));
            }
            connections::insert(tx, &connection)?;
            Ok(connection)
        });
        write.await
    }

    /// By id or name.
    pub async fn connection(&self, principal: &Principal, identifier: &str) -> Result<Connection> {
        let (organization, identifier) = (principal.organization_id.clone(), identifier.to_owned());
        self.catalog.read(move |c| connections::get(c, &organization, &identifier)).await
    }

    /// Oldest first.
    pub async fn connections(&self, principal: &Principal) -> Result<Vec<Connection>> {
        let organization = principal.organization_id.clone();
        self.catalog.read(move |c| connections::list(c, &organization)).await
    }

    /// Changes what `change` names. A change of where it goes needs the credentials once more, so that nobody sends them
    /// to a place of their own who does not know them.
    pub async fn update_connection(
        &self,
        principal: &Principal,
        identifier: &str,
        change: ConnectionChange,
    ) -> Result<Connection> {
        check_name("name", change.name.as_deref(), 1, 100)?;
        check_description(change.body.get("description").and_then(Value::as_str))?;
        let mut connection = self.connection(principal, identifier).await?;
        let read_at = connection.updated_at.clone();
        if let Some(changed) = change.config {
            let (changed, sent) = config::split(changed)?;
            let mut config = shown_config(&connection);
            let before = config.clone();
            merge(&mut config, changed);
            let known = self.credentials(&connection).await?;
            let keeps_secret = known.is_some() && sent.as_ref().is_none_or(config::Credentials::is_masked);
            if keeps_secret && config::goes_elsewhere(&before, &config) {
                let message = "is required where host, port, database or `ssl_mode` change";
                return Err(Error::invalid("provider_config.credentials", message));
            }
            let credentials = match sent {
                Some(sent) => Some(sent.or_kept(known)?),
                None => known,
            };
            let provider = self.provider(&connection.provider_type, &config, credentials.as_ref())?;
            connection.sealed =
                self.sealed_credentials(principal, &connection.connection_id, credentials.as_ref()).await?;
            connection.body.insert(CONFIG.into(), Value::Object(provider.shown()));
            (connection.last_error, connection.consecutive_failures) = (None, 0);
        }
        connection.name = change.name.unwrap_or(connection.name);
        merge(&mut connection.body, change.body);
        if let Some(is_active) = change.is_active {
            connection.body.insert("is_active".into(), is_active.into());
        }
        if let Some(status) = change.status {
            connection.body.insert("status".into(), status.into());
        }
        connection.updated_at = self.catalog.now();
        let write = self.catalog.write(move |tx| {
            let now = connections::get(tx, &connection.organization_id, &connection.connection_id)?;
            if now.updated_at != read_at {
                return Err(Error::Conflict("the connection was changed meanwhile; try again".into()));
            }
            connections::update(tx, &connection)?;
            Ok(connection)
        });
        let changed = write.await?;
        self.pools.forget(&changed.connection_id);
        Ok(changed)
    }

    /// Removes a connection; answers its id. Retrievers that read it fail from then on.
    pub async fn delete_connection(&self, principal: &Principal, identifier: &str) -> Result<String> {
        let (organization, identifier) = (principal.organization_id.clone(), identifier.to_owned());
        let write = self.catalog.write(move |tx| {
            let connection = connections::get(tx, &organization, &identifier)?;
            connections::delete(tx, &organization, &connection.connection_id)?;
            Ok(connection.connection_id)
        });
        let connection_id = write.await?;
        self.pools.forget(&connection_id);
        Ok(connection_id)
    }

    /// Connects, and says how that went.
    pub async fn test_connection(&self, principal: &Principal, identifier: &str) -> Result<Tried> {
        let connection = self.connection(principal, identifier).await?;
        let credentials = self.credentials(&connection).await?;
        let provider = self.provider(&connection.provider_type, &shown_config(&connection), credentials.as_ref());
        let outcome = match provider {
            Ok(provider) => self.tried(&provider).await,
            Err(error) => Err(error),
        };
        self.note_connection_use(&connection, outcome.as_ref().err()).await?;
        Ok(match outcome {
            Ok(details) => Tried { is_good: true, message: "connected".into(), details },
            Err(error) => Tried { is_good: false, message: error.to_string(), details: Fields::new() },
        })
    }

    /// Asks the database of a connection, by id or name.
    pub(crate) async fn look_up(&self, organization_id: &str, lookup: Lookup) -> Result<Rows> {
        let (organization, identifier) = (organization_id.to_owned(), lookup.connection.clone());
        let found = self.catalog.read(move |c| connections::find(c, &organization, &identifier)).await?;
        let connection = found.ok_or_else(|| missing(&lookup.connection, "connection_id"))?;
        if connection.body.get("is_active") == Some(&Value::Bool(false)) {
            let message = format!("the connection `{}` is switched off", connection.name);
            return Err(Error::invalid("connection_id", message));
        }
        let pool = self.pool(&connection).await?;
        let outcome = pool.look_up(&lookup).await;
        // What is wrong with the query says nothing about the connection.
        let broken = outcome.as_ref().err().filter(|error| matches!(error, Error::Upstream(_)));
        self.note_connection_use(&connection, broken).await?;
        outcome
    }

    async fn pool(&self, connection: &Connection) -> Result<Arc<Pool>> {
        if let Some(known) = self.pools.get(&connection.connection_id, &connection.updated_at) {
            return Ok(known);
        }
        let credentials = self.credentials(connection).await?;
        let provider = self.provider(&connection.provider_type, &shown_config(connection), credentials.as_ref())?;
        Ok(self.pools.put(&connection.connection_id, &connection.updated_at, provider))
    }

    fn provider(&self, provider_type: &str, config: &Fields, credentials: Option<&Credentials>) -> Result<Provider> {
        Provider::parse(provider_type, config, credentials, &self.config)
    }

    async fn tried(&self, provider: &Provider) -> Result<Fields> {
        let work = pool::test(provider);
        let late = |_| Error::Upstream(format!("the database did not answer within {} s", TEST_TIME.as_secs()));
        tokio::time::timeout(TEST_TIME, work).await.map_err(late)?
    }

    async fn sealed_credentials(
        &self,
        principal: &Principal,
        connection_id: &str,
        credentials: Option<&Credentials>,
    ) -> Result<Option<Vec<u8>>> {
        let Some(credentials) = credentials else { return Ok(None) };
        let place = Place::Connection { organization_id: &principal.organization_id, connection_id };
        let text = serde_json::to_vec(credentials).map_err(Error::internal)?;
        self.vault.seal(&self.catalog, place, &text).await.map(Some)
    }

    async fn credentials(&self, connection: &Connection) -> Result<Option<Credentials>> {
        let Some(sealed) = &connection.sealed else { return Ok(None) };
        let (organization_id, connection_id) = (&connection.organization_id, &connection.connection_id);
        let place = Place::Connection { organization_id, connection_id };
        let opened = self.vault.open(&self.catalog, place, sealed).await?;
        serde_json::from_slice(&opened).map(Some).map_err(Error::internal)
    }

    async fn note_connection_use(&self, connection: &Connection, error: Option<&Error>) -> Result<()> {
        let error = error.map(|error| error.to_string().chars().take(MAX_ERROR_CHARS).collect::<String>());
        let is_news = error.is_some() != (connection.consecutive_failures > 0) || error != connection.last_error;
        if !is_news && !self.pools.is_due(&connection.connection_id, self.catalog.now_micros(), NOTE_EVERY_MICROS) {
            return Ok(());
        }
        let (id, now) = (connection.connection_id.clone(), self.catalog.now());
        self.catalog.write(move |tx| connections::note_use(tx, &id, &now, error.as_deref())).await
    }
}

/// The refusal of a connection that is not there.
pub(crate) fn missing(name: &str, at: &str) -> Error {
    let next = "make it with POST /v1/organizations/connections";
    Error::invalid(at, format!("the connection `{name}` does not exist; {next}"))
}

/// What a connection connects to, without credentials.
fn shown_config(connection: &Connection) -> Fields {
    connection.body.get(CONFIG).and_then(Value::as_object).cloned().unwrap_or_default()
}

/// [`shown_config`] with the credentials as answers show them.
pub fn masked_config(connection: &Connection) -> Fields {
    let mut config = shown_config(connection);
    if let Some(username) = config.remove("username").as_ref().and_then(Value::as_str) {
        config.insert("credentials".into(), config::masked(username));
    }
    config
}

fn check_description(text: Option<&str>) -> Result<()> {
    match text {
        Some(text) if text.chars().count() > MAX_DESCRIPTION_CHARS => {
            Err(Error::invalid("description", format!("must have at most {MAX_DESCRIPTION_CHARS} characters")))
        }
        _ => Ok(()),
    }
}
