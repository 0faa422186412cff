//! Published retrievers: a retriever that anybody may execute, under a public name, with what of its documents the public
//! sees, how often it may ask, and perhaps a password.
//!
//! A publication is a row of its own that goes with its retriever. Everything that the public does begins with one and is
//! done in the scope of its owner, over the retriever as it is at that moment.

mod access;
mod exposure;
mod interactions;
mod limiter;
mod names;
mod public;
mod reconcile;
mod show;

pub use access::Credentials;
pub use exposure::Exposure;
pub(crate) use limiter::Limiter;
pub use limiter::{RateLimits, Tier, Use};
pub use public::{PublicCard, PublicCounts};
pub use reconcile::Reconciled;
pub use show::Template;

use crate::{Engine, listing::Page};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use strata_model::{Error, Fields, Result, Scope, id};
use strata_store::catalog::{
    publications::{self, Publication},
    resources::{self, Kind},
    rusqlite::{Connection, Transaction},
};

/// Most retrievers that one namespace has published.
pub const MAX_PUBLISHED: usize = 100;
const MAX_TAGS: usize = 50;
const MAX_TAG_CHARS: usize = 100;

/// A retriever as it is published.
#[derive(Debug, Clone, PartialEq)]
pub struct Published {
    pub public_id: String,
    pub public_name: String,
    pub retriever_id: String,
    /// Where the retriever lies.
    pub scope: Scope,
    /// Whether the public may use it now.
    pub is_active: bool,
    pub settings: Settings,
    pub created_at: String,
    pub updated_at: String,
}

/// What its owner says of a publication; the body of its row.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icon_base64: Option<String>,
    /// How a search page shows it, and under `exposed_fields` what the public sees of a document.
    pub display_config: Fields,
    pub rate_limit_config: RateLimits,
    /// The secret of the organization's vault that holds the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_secret_name: Option<String>,
    /// Whether the public sees how the retriever works.
    pub include_metadata: bool,
    pub tags: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
}

/// How a retriever is to be published.
#[derive(Debug, Clone)]
pub struct Publish {
    /// What the public name is made of where that is not given; else the retriever's name is.
    pub display_name: Option<String>,
    pub public_name: Option<String>,
    pub settings: Settings,
}

/// What is `None` stays; the inner `None` takes away.
#[derive(Debug, Clone, Default)]
pub struct PublishedChange {
    pub description: Option<Option<String>>,
    pub icon_base64: Option<Option<String>>,
    pub display_config: Option<Fields>,
    pub rate_limit_config: Option<RateLimits>,
    pub password_secret_name: Option<Option<String>>,
    pub include_metadata: Option<bool>,
    pub is_active: Option<bool>,
    pub tags: Option<Vec<String>>,
    pub category: Option<Option<String>>,
}

impl Published {
    fn from_row(row: Publication) -> Result<Self> {
        Ok(Self {
            settings: serde_json::from_value(Value::Object(row.body)).map_err(Error::internal)?,
            public_id: row.public_id,
            public_name: row.public_name,
            retriever_id: row.retriever_id,
            scope: row.scope,
            is_active: row.active,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }

    fn to_row(&self) -> Result<Publication> {
        let Value::Object(body) = serde_json::to_value(&self.settings).map_err(Error::internal)? else {
            return Err(Error::internal("the settings of a publication are no object"));
        };
        Ok(Publication {
            public_id: self.public_id.clone(),
            public_name: self.public_name.clone(),
            retriever_id: self.retriever_id.clone(),
            scope: self.scope.clone(),
            active: self.is_active,
            body,
            created_at: self.created_at.clone(),
            updated_at: self.updated_at.clone(),
        })
    }

    pub fn has_password(&self) -> bool {
        self.settings.password_secret_name.is_some()
    }

    pub fn exposure(&self) -> Exposure {
        Exposure::of(&self.settings.display_config)
    }

    /// Where the public reaches it. `base` is the server's address.
    pub fn url(&self, base: &str) -> String {
        public_url(base, &self.public_name)
    }
}

/// Where a published retriever is reached.
pub fn public_url(base: &str, public_name: &str) -> String {
    format!("{base}/v1/public/retrievers/{public_name}")
}

impl Settings {
    fn check(&self) -> Result<()> {
        let exposed = self.display_config.get("exposed_fields").cloned().unwrap_or_default();
        let exposed: Vec<String> = serde_json::from_value(exposed)
            .map_err(|_| Error::invalid("display_config.exposed_fields", "must be an array of names of fields"))?;
        Exposure::check(&exposed, "display_config.exposed_fields")?;
        if self.tags.len() > MAX_TAGS || self.tags.iter().any(|tag| tag.chars().count() > MAX_TAG_CHARS) {
            return Err(Error::invalid(
                "tags",
                format!("are at most {MAX_TAGS}, of at most {MAX_TAG_CHARS} characters"),
            ));
        }
        Ok(())
    }
}

impl Engine {
    /// Publishes a retriever. One that is published already, a name that is taken, and a namespace that has published as
    /// many as it may are [`Error::Conflict`].
    pub async fn publish_retriever(&self, scope: &Scope, identifier: &str, new: Publish) -> Result<Published> {
        new.settings.check()?;
        if let Some(name) = &new.public_name {
            names::check(name, "public_name")?;
        }
        self.check_password_name(scope, new.settings.password_secret_name.as_deref()).await?;
        let (scope, identifier, now) = (scope.clone(), identifier.to_owned(), self.catalog.now());
        let public_id = self.catalog.new_id(id::PUBLICATION, access::PUBLIC_ID_CHARS);
        let suffix = self.catalog.new_id("", names::SUFFIX_CHARS);
        let write = self.catalog.write(move |tx| {
            let retriever = resources::get(tx, Kind::Retriever, &scope, &identifier)?;
            if let Some(known) = publications::mark(tx, &scope, &retriever.id)? {
                return Err(Error::Conflict(format!(
                    "retriever `{}` is published already, as `{}`; change that with PATCH, or take it back first",
                    retriever.name, known.public_name
                )));
            }
            if publications::count(tx, &scope)? >= MAX_PUBLISHED {
                return Err(Error::Conflict(format!("a namespace has at most {MAX_PUBLISHED} published retrievers")));
            }
            let published = Published {
                public_name: free_name(tx, &new, &retriever.name, &suffix)?,
                public_id,
                retriever_id: retriever.id,
                scope,
                is_active: true,
                settings: new.settings,
                created_at: now.clone(),
                updated_at: now,
            };
            publications::insert(tx, &published.to_row()?)?;
            Ok(published)
        });
        write.await
    }

    /// As what a retriever is published; `None` where it is not.
    pub async fn published(&self, scope: &Scope, identifier: &str) -> Result<Option<Published>> {
        let (scope, identifier) = (scope.clone(), identifier.to_owned());
        let read = self.catalog.read(move |connection| {
            let retriever = resources::get(connection, Kind::Retriever, &scope, &identifier)?;
            publications::of_retriever(connection, &scope, &retriever.id)?.map(Published::from_row).transpose()
        });
        read.await
    }

    /// Changes how a retriever is published.
    pub async fn update_published(
        &self,
        scope: &Scope,
        identifier: &str,
        change: PublishedChange,
    ) -> Result<Published> {
        if let Some(Some(name)) = &change.password_secret_name {
            self.check_password_name(scope, Some(name)).await?;
        }
        let (scope, identifier, now) = (scope.clone(), identifier.to_owned(), self.catalog.now());
        let write = self.catalog.write(move |tx| {
            let mut published = load(tx, &scope, &identifier)?;
            let settings = &mut published.settings;
            set(&mut settings.description, change.description);
            set(&mut settings.icon_base64, change.icon_base64);
            set(&mut settings.display_config, change.display_config);
            set(&mut settings.rate_limit_config, change.rate_limit_config);
            set(&mut settings.password_secret_name, change.password_secret_name);
            set(&mut settings.include_metadata, change.include_metadata);
            set(&mut settings.tags, change.tags);
            set(&mut settings.category, change.category);
            set(&mut published.is_active, change.is_active);
            published.settings.check()?;
            published.updated_at = now;
            publications::update(tx, &published.to_row()?)?;
            Ok(published)
        });
        write.await
    }

    /// Takes a retriever back from the public; answers the public name that is free now.
    pub async fn unpublish_retriever(&self, scope: &Scope, identifier: &str) -> Result<String> {
        let (scope, identifier) = (scope.clone(), identifier.to_owned());
        let write = self.catalog.write(move |tx| {
            let published = load(tx, &scope, &identifier)?;
            publications::delete(tx, &scope, &published.retriever_id)?;
            Ok(published.public_name)
        });
        write.await
    }

    /// What the scope has published, oldest first.
    pub async fn published_retrievers(&self, scope: &Scope, limit: usize, offset: usize) -> Result<Page<Published>> {
        let scope = scope.clone();
        let read = self.catalog.read(move |connection| {
            let rows = publications::list(connection, &scope, limit, offset)?;
            let items = rows.into_iter().map(Published::from_row).collect::<Result<_>>()?;
            Ok(Page { items, total: publications::count(connection, &scope)? })
        });
        read.await
    }

    /// How many retrievers the scope has published.
    pub async fn count_published(&self, scope: &Scope) -> Result<usize> {
        let scope = scope.clone();
        self.catalog.read(move |connection| publications::count(connection, &scope)).await
    }

    /// Whether a retriever could be published under a name. The name that it has is free for it.
    pub async fn is_public_name_free(&self, scope: &Scope, identifier: &str, name: &str) -> Result<bool> {
        names::check(name, "name")?;
        let (scope, identifier, name) = (scope.clone(), identifier.to_owned(), name.to_owned());
        let read = self.catalog.read(move |connection| {
            let retriever = resources::get(connection, Kind::Retriever, &scope, &identifier)?;
            let taken = publications::find(connection, &name)?;
            Ok(taken.is_none_or(|publication| publication.retriever_id == retriever.id))
        });
        read.await
    }

    /// Refuses the name of a secret that the organization does not have.
    async fn check_password_name(&self, scope: &Scope, name: Option<&str>) -> Result<()> {
        let Some(name) = name else { return Ok(()) };
        match self.open_secret(&scope.organization_id, name).await? {
            Some(_) => Ok(()),
            None => Err(Error::invalid("password_secret_name", format!("the organization has no secret `{name}`"))),
        }
    }
}

fn set<T>(field: &mut T, change: Option<T>) {
    if let Some(value) = change {
        *field = value;
    }
}

/// As what a retriever of the scope is published; [`Error::Missing`] where it is not.
fn load(connection: &Connection, scope: &Scope, identifier: &str) -> Result<Published> {
    let retriever = resources::get(connection, Kind::Retriever, scope, identifier)?;
    let found = publications::of_retriever(connection, scope, &retriever.id)?;
    Published::from_row(found.ok_or_else(|| Error::missing("published retriever", identifier))?)
}

/// The name that was asked for, if it is free; else one that is made of another name.
fn free_name(tx: &Transaction<'_>, new: &Publish, retriever_name: &str, suffix: &str) -> Result<String> {
    if let Some(name) = &new.public_name {
        return match publications::find(tx, name)? {
            None => Ok(name.clone()),
            Some(_) => Err(Error::Conflict(format!("the public name `{name}` is taken; choose another"))),
        };
    }
    let slug = names::slug(new.display_name.as_deref().unwrap_or(retriever_name));
    match slug {
        Some(name) if publications::find(tx, &name)?.is_none() => Ok(name),
        other => Ok(names::with_suffix(other.as_deref(), suffix)),
    }
}
