//! Webhooks: an organization is told of what happens in it.
//!
//! An event is queued in the transaction that makes it true (`strata_store::catalog::webhooks`), and only where somebody
//! wants it. From there it goes to each channel in its order, over the client that all requests outside go through,
//! until it was taken or tried too often ([`deliver`]). So every event arrives at least once, or the webhook says that it
//! did not.

mod channel;
mod deliver;

pub use channel::{Channel, MASK};
pub(crate) use deliver::start;

use crate::{Engine, audit, principals::check_name};
use channel::Kept;
use serde_json::{Value, json};
use strata_model::{Error, Fields, Principal, Result, id};
use strata_store::{
    catalog::webhooks::{
        self as rows, Wanted, Webhook,
        outbox::{self, Queued},
    },
    seams::rfc3339,
};

/// Everything that the contract can tell of.
pub const EVENT_TYPES: [&str; 43] = [
    "object.created",
    "objects.created.batch",
    "object.updated",
    "object.deleted",
    "document.created",
    "document.updated",
    "document.deleted",
    "documents.updated.batch",
    "documents.deleted.batch",
    "collection.created",
    "collection.updated",
    "collection.deleted",
    "collection.documents.written",
    "collection.documents.batch_completed",
    "cluster.created",
    "cluster.updated",
    "cluster.deleted",
    "cluster.execution.started",
    "cluster.execution.completed",
    "cluster.execution.failed",
    "trigger.created",
    "trigger.updated",
    "trigger.deleted",
    "trigger.paused",
    "trigger.resumed",
    "trigger.fired",
    "trigger.execution.completed",
    "trigger.execution.failed",
    "taxonomy.created",
    "taxonomy.updated",
    "taxonomy.deleted",
    "alert.created",
    "alert.updated",
    "alert.deleted",
    "alert.triggered",
    "alert.execution.completed",
    "alert.execution.failed",
    "annotation.created",
    "annotation.updated",
    "annotation.deleted",
    "resource.executed",
    "resource.execution_failed",
    "manifest.apply.resource_state",
];

/// Most webhooks of an organization, channels of one, and types of resources that one names.
const MAX_WEBHOOKS: usize = 50;
const MAX_CHANNELS: usize = 10;
const MAX_RESOURCE_TYPES: usize = 50;
const MAX_RESOURCE_TYPE_CHARS: usize = 100;
/// Most events that wait for one channel, and how many one transaction drops of more.
const MAX_WAITING: usize = 100_000;
const SWEEP: usize = 2_000;
/// Events that were given up: how many of a webhook are kept, and shown.
const MAX_DEAD: usize = 100;
const SHOWN_DEAD: usize = 20;
/// Hex digits of an id.
const ID_DIGITS: usize = 16;

/// What a webhook is to be.
#[derive(Clone)]
pub struct NewWebhook {
    /// `wh_` and 16 hex digits; a random one if `None`.
    pub webhook_id: Option<String>,
    pub name: String,
    pub event_types: Vec<String>,
    /// Only events of these types of resources; of all where it is empty.
    pub resource_types: Vec<String>,
    pub channels: Vec<Channel>,
    pub is_active: bool,
}

/// A webhook as answers show it.
#[derive(Clone)]
pub struct Shown {
    pub webhook_id: String,
    pub name: String,
    pub event_types: Vec<String>,
    pub resource_types: Vec<String>,
    /// With [`MASK`] in the place of what is secret.
    pub channels: Vec<Channel>,
    pub is_active: bool,
    /// What became of its events.
    pub health: Value,
    pub created_at: String,
    pub updated_at: String,
}

impl Engine {
    /// Makes a webhook. Events are queued for it from then on.
    pub async fn create_webhook(&self, principal: &Principal, mut new: NewWebhook) -> Result<Shown> {
        self.check_webhook(&mut new)?;
        let webhook_id = match new.webhook_id.take() {
            Some(webhook_id) => checked_id(webhook_id)?,
            None => self.catalog.new_hex_id(id::WEBHOOK, ID_DIGITS),
        };
        audit::about(&webhook_id);
        let channels = channel::settled(&new.channels, &[])?;
        let now = self.catalog.now();
        let webhook = Webhook {
            sealed: self.sealed_channels(principal, &webhook_id, &channels).await?,
            webhook_id,
            organization_id: principal.organization_id.clone(),
            body: body(&new, &channels),
            name: new.name,
            is_active: new.is_active,
            created_by: principal.user_id.clone(),
            created_at: now.clone(),
            updated_at: now,
            health: rows::Health::default(),
        };
        let wanted = wanted(&new.event_types, &new.resource_types, channels.len());
        let write = self.catalog.write(move |tx| {
            if rows::list(tx, &webhook.organization_id)?.len() >= MAX_WEBHOOKS {
                return Err(Error::Conflict(format!("an organization has at most {MAX_WEBHOOKS} webhooks")));
            }
            rows::insert(tx, &webhook, &wanted)?;
            Ok(webhook)
        });
        Ok(shown(write.await?, &Queued::default()))
    }

    /// By id or name.
    pub async fn webhook(&self, principal: &Principal, identifier: &str) -> Result<Shown> {
        let (organization, identifier) = (principal.organization_id.clone(), identifier.to_owned());
        let read = self.catalog.read(move |connection| {
            let webhook = rows::get(connection, &organization, &identifier)?;
            let queued = outbox::queued(connection, &webhook.webhook_id, SHOWN_DEAD)?;
            Ok(shown(webhook, &queued))
        });
        read.await
    }

    /// Oldest first.
    pub async fn webhooks(&self, principal: &Principal) -> Result<Vec<Shown>> {
        let organization = principal.organization_id.clone();
        let read = self.catalog.read(move |connection| {
            let all = rows::list(connection, &organization)?.into_iter().map(|webhook| {
                let queued = outbox::queued(connection, &webhook.webhook_id, SHOWN_DEAD)?;
                Ok(shown(webhook, &queued))
            });
            all.collect()
        });
        read.await
    }

    /// Makes a webhook what `new` says. Headers and secrets that are [`MASK`] stay as they are at the same URL. What waits
    /// is tried at once.
    pub async fn replace_webhook(&self, principal: &Principal, identifier: &str, mut new: NewWebhook) -> Result<Shown> {
        self.check_webhook(&mut new)?;
        let (organization, named) = (principal.organization_id.clone(), identifier.to_owned());
        let before = self.catalog.read(move |connection| rows::get(connection, &organization, &named)).await?;
        audit::about(&before.webhook_id);
        if new.webhook_id.as_ref().is_some_and(|said| *said != before.webhook_id) {
            return Err(Error::invalid("webhook_id", format!("is `{}` and stays so", before.webhook_id)));
        }
        let channels = channel::settled(&new.channels, &self.opened_channels(&before).await?)?;
        let read_at = before.updated_at.clone();
        let webhook = Webhook {
            sealed: self.sealed_channels(principal, &before.webhook_id, &channels).await?,
            body: body(&new, &channels),
            name: new.name,
            is_active: new.is_active,
            updated_at: self.catalog.now(),
            ..before
        };
        let wanted = wanted(&new.event_types, &new.resource_types, channels.len());
        let write = self.catalog.write(move |tx| {
            if rows::get(tx, &webhook.organization_id, &webhook.webhook_id)?.updated_at != read_at {
                return Err(Error::Conflict("the webhook was changed meanwhile; try again".into()));
            }
            rows::update(tx, &webhook, &wanted)?;
            let queued = outbox::queued(tx, &webhook.webhook_id, SHOWN_DEAD)?;
            Ok(shown(webhook, &queued))
        });
        write.await
    }

    /// Removes a webhook with all that waits for it.
    pub async fn delete_webhook(&self, principal: &Principal, identifier: &str) -> Result<()> {
        let (organization, identifier) = (principal.organization_id.clone(), identifier.to_owned());
        let write = self.catalog.write(move |tx| {
            let webhook = rows::get(tx, &organization, &identifier)?;
            rows::delete(tx, &organization, &webhook.webhook_id)?;
            Ok(webhook.webhook_id)
        });
        audit::about(&write.await?);
        Ok(())
    }

    /// Cuts queues that are too long.
    pub(crate) async fn sweep_webhooks(&self) -> Result<()> {
        loop {
            let now = self.catalog.now();
            let dropped = self.catalog.write(move |tx| outbox::drop_surplus(tx, MAX_WAITING, SWEEP, &now)).await?;
            if dropped == 0 {
                return Ok(());
            }
            metrics::counter!("strata_webhook_events_total", "outcome" => "dropped").increment(dropped as u64);
            tracing::warn!(dropped, "events for webhooks were dropped: too many waited");
        }
    }

    /// Refuses what cannot be, and takes what is said twice once.
    fn check_webhook(&self, new: &mut NewWebhook) -> Result<()> {
        check_name("webhook_name", Some(&new.name), 1, 200)?;
        if new.event_types.is_empty() {
            return Err(Error::invalid("event_types", "must have at least one type"));
        }
        for (i, name) in new.event_types.iter().enumerate() {
            if !EVENT_TYPES.contains(&name.as_str()) {
                return Err(Error::invalid(format!("event_types.{i}"), format!("`{name}` is no type of event")));
            }
        }
        let fits = |name: &String| (1..=MAX_RESOURCE_TYPE_CHARS).contains(&name.chars().count());
        if new.resource_types.len() > MAX_RESOURCE_TYPES || !new.resource_types.iter().all(fits) {
            let message =
                format!("must be at most {MAX_RESOURCE_TYPES} names of 1 to {MAX_RESOURCE_TYPE_CHARS} characters");
            return Err(Error::invalid("resource_types", message));
        }
        if !(1..=MAX_CHANNELS).contains(&new.channels.len()) {
            return Err(Error::invalid("channels", format!("must be 1 to {MAX_CHANNELS} channels")));
        }
        for (i, channel) in new.channels.iter().enumerate() {
            let at = format!("channels.{i}.configs");
            channel.check().and_then(|()| self.fetcher.judge(&channel.url)).map_err(|error| error.under(&at))?;
        }
        for list in [&mut new.event_types, &mut new.resource_types] {
            list.sort_unstable();
            list.dedup();
        }
        Ok(())
    }
}

fn checked_id(webhook_id: String) -> Result<String> {
    let digits = webhook_id.strip_prefix(id::WEBHOOK).unwrap_or_default();
    if digits.len() == ID_DIGITS && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(webhook_id);
    }
    Err(Error::invalid("webhook_id", format!("must be `{}` and {ID_DIGITS} hex digits", id::WEBHOOK)))
}

fn wanted(event_types: &[String], resource_types: &[String], channels: usize) -> Wanted {
    Wanted { event_types: event_types.to_vec(), resource_types: resource_types.to_vec(), channels }
}

/// What may be shown of a webhook, as it is stored.
fn body(new: &NewWebhook, channels: &[Kept]) -> Fields {
    let channels: Vec<Value> = channels.iter().map(Kept::shown).collect();
    Fields::from_iter([
        ("event_types".to_owned(), json!(new.event_types)),
        ("resource_types".to_owned(), json!(new.resource_types)),
        ("channels".to_owned(), channels.into()),
    ])
}

fn shown(webhook: Webhook, queued: &Queued) -> Shown {
    let texts = |key: &str| -> Vec<String> {
        let list = webhook.body.get(key).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    Shown {
        event_types: texts("event_types"),
        resource_types: texts("resource_types"),
        channels: channel::stored(&webhook.body).map(channel::masked).collect(),
        health: health(&webhook, queued),
        webhook_id: webhook.webhook_id,
        name: webhook.name,
        is_active: webhook.is_active,
        created_at: webhook.created_at,
        updated_at: webhook.updated_at,
    }
}

fn health(webhook: &Webhook, queued: &Queued) -> Value {
    let health = &webhook.health;
    let status = match (webhook.is_active, health.consecutive_failures) {
        (false, _) => "inactive",
        (true, 0) => "healthy",
        (true, _) => "failing",
    };
    let dead = queued.dead.iter().map(|dead| {
        json!({
            "event_id": dead.event_id,
            "event_type": dead.event_type,
            "created_at": dead.created_at,
            "tries": dead.attempts,
            "error": dead.error,
        })
    });
    json!({
        "status": status,
        "delivered": health.delivered,
        "waiting": queued.waiting,
        "next_try_at": queued.next_try_at.map(rfc3339),
        "failed_tries": health.failures,
        "consecutive_failures": health.consecutive_failures,
        "given_up": health.dropped,
        "last_delivered_at": health.last_delivered_at,
        "last_failed_at": health.last_failed_at,
        "last_error": health.last_error,
        "last_given_up": dead.collect::<Vec<Value>>(),
    })
}
