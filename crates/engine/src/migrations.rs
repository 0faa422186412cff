//! Migrations: a namespace like another one, or like a part of it, in which the documents may be made anew by other
//! extractors or parameters. They run as transfers; the original stays as it is.

use crate::{
    Engine,
    clones::{body_like, tables},
    collections::{Collection, SourceKind},
    extract::Configured,
    extractors,
    namespaces::NewNamespace,
    principals::check_name,
    transfers::{self, Choice, Making, NewTransfer, PROGRESS, close_gate},
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use strata_model::{Error, Fields, Principal, Result, id};
pub use strata_store::catalog::transfers::Transfer;
use strata_store::catalog::{
    batches as tasks, lineage,
    principals::{self, Namespace},
    resources::{self, Kind as Resource, Resource as Row},
    rusqlite::{Connection, Transaction},
    snapshots,
    transfers::{self as rows, Kind},
};

/// Key of a migration's body: what was sent.
pub const CONFIG: &str = "config";
/// Key of a migration's body: extractors by the ids of the collections that get them.
const EXTRACTORS: &str = "extractors";
/// Key of a migration's body: whether documents are made anew.
const MAKES_ANEW: &str = "makes_anew";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MigrationKind {
    /// Everything comes along as it is.
    Copy,
    /// Documents are made anew.
    ReExtract,
    /// Into a namespace that is there; not done here.
    Extend,
}

/// An extractor that collections are to have in the new namespace.
#[derive(Debug, Clone)]
pub struct ExtractorChange {
    /// Of the collections that get it.
    pub name: String,
    pub version: Option<String>,
    /// Put over those that the collection has.
    pub parameters: Fields,
}

/// What a migration is to do.
#[derive(Debug, Clone)]
pub struct Config {
    pub kind: MigrationKind,
    /// Id or name.
    pub source: String,
    pub target_name: Option<String>,
    pub extractors: Vec<ExtractorChange>,
    /// Ids or names; without it, all.
    pub collections: Option<Vec<String>>,
    pub retrievers: Option<Vec<String>>,
    /// Whether what those need comes along.
    pub with_dependencies: bool,
    pub dry_run: bool,
    /// Settings that cannot be followed here, and why.
    pub refused: Vec<(&'static str, &'static str)>,
    /// What was sent.
    pub sent: Fields,
}

/// Something that stands against a migration, or that its caller should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub code: &'static str,
    pub message: String,
    pub resource_id: Option<String>,
}

/// Something that comes along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub id: String,
    /// `bucket`, `collection` or `retriever`.
    pub kind: &'static str,
    pub dependencies: Vec<String>,
}

/// What a migration would do.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    pub errors: Vec<Finding>,
    pub warnings: Vec<Finding>,
    /// How much comes along, by kind.
    pub estimated: BTreeMap<&'static str, i64>,
    /// In an order in which each comes after what it needs.
    pub nodes: Vec<Node>,
    collections: Vec<String>,
    retrievers: Vec<String>,
    /// Collections whose documents callers made.
    direct: Vec<String>,
    /// Extractor settings by collection.
    extractors: BTreeMap<String, Value>,
    source: Option<Namespace>,
}

/// A migration, and how far it is.
#[derive(Debug, Clone)]
pub struct Migration {
    pub transfer: Transfer,
    /// `phase`, `done` and `total`.
    pub progress: Option<Value>,
}

/// Whether a transfer makes documents anew.
pub(crate) fn makes_anew(transfer: &Transfer) -> bool {
    transfer.body.get(MAKES_ANEW).and_then(Value::as_bool).unwrap_or(false)
}

/// The extractor that a collection of the original gets in the copy, if it gets another.
pub(crate) fn extractor_of(transfer: &Transfer, collection_id: &str) -> Option<Value> {
    transfer.body.get(EXTRACTORS)?.get(collection_id).cloned()
}

impl Plan {
    fn wrong(&mut self, code: &'static str, message: impl Into<String>) {
        self.errors.push(Finding { code, message: message.into(), resource_id: None });
    }

    fn make(connection: &Connection, principal: &Principal, config: &Config) -> Result<Self> {
        let source = principals::namespace(connection, principal, &config.source)?;
        transfers::check_gate(&source)?;
        let mut plan = Self::default();
        for (field, why) in &config.refused {
            plan.wrong("unsupported", format!("`{field}` {why}"));
        }
        if config.kind == MigrationKind::Extend {
            plan.wrong("unsupported", "`extend` is not done here: a migration makes a new namespace");
        }
        plan.judge_name(connection, principal, config)?;
        let scope = source.scope();
        let found = resources::list(connection, Resource::Collection, &scope)?;
        let retrievers = resources::list(connection, Resource::Retriever, &scope)?;
        let chosen_retrievers = plan.chosen(&retrievers, config.retrievers.as_deref(), "retriever");
        let mut chosen = plan.chosen(&found, config.collections.as_deref(), "collection");
        if config.with_dependencies && config.collections.is_some() {
            let named = retrievers.iter().filter(|_| config.retrievers.is_some());
            let named = named.filter(|row| chosen_retrievers.contains(&row.id)).flat_map(collections_of);
            chosen.extend(named);
            let above = lineage::upstream(connection, &chosen.iter().cloned().collect::<Vec<_>>())?;
            chosen.extend(above);
        }
        let mut settings = BTreeMap::new();
        for row in found.iter().filter(|row| chosen.contains(&row.id)) {
            let collection = Collection::from_row(row.clone())?;
            let missing = collection
                .source
                .ids
                .iter()
                .find(|source| collection.source.kind == SourceKind::Collection && !chosen.contains(*source));
            if let Some(missing) = missing {
                plan.errors.push(Finding {
                    code: "dependency_missing",
                    message: format!("`{}` reads from `{missing}`, which does not come along", collection.name),
                    resource_id: Some(collection.id.clone()),
                });
            }
            if collection.source.kind == SourceKind::None {
                plan.direct.push(collection.id.clone());
            }
            plan.nodes.push(Node {
                id: collection.id.clone(),
                kind: "collection",
                dependencies: collection.source.ids.clone(),
            });
            plan.collections.push(collection.id.clone());
            settings.insert(collection.id.clone(), collection.extractor);
        }
        plan.judge_extractors(connection, &source, config, &settings)?;
        let buckets = resources::list(connection, Resource::Bucket, &scope)?;
        let bucket = |row: &Row| Node { id: row.id.clone(), kind: "bucket", dependencies: Vec::new() };
        plan.nodes = buckets.iter().map(bucket).chain(std::mem::take(&mut plan.nodes)).collect();
        for row in retrievers.iter().filter(|row| chosen_retrievers.contains(&row.id)) {
            let needs = collections_of(row);
            if needs.iter().all(|id| chosen.contains(id)) {
                plan.retrievers.push(row.id.clone());
                plan.nodes.push(Node { id: row.id.clone(), kind: "retriever", dependencies: needs });
            } else {
                plan.warnings.push(Finding {
                    code: "retriever_left_behind",
                    message: format!("`{}` reads a collection that does not come along", row.name),
                    resource_id: Some(row.id.clone()),
                });
            }
        }
        let counts = principals::namespace_counts(connection, &scope)?;
        plan.estimated = BTreeMap::from([
            ("buckets", counts.buckets),
            ("objects", counts.objects),
            ("collections", plan.collections.len() as i64),
            ("retrievers", plan.retrievers.len() as i64),
        ]);
        if config.kind == MigrationKind::Copy {
            plan.estimated.insert("documents", counts.documents);
        }
        plan.source = Some(source);
        Ok(plan)
    }

    fn judge_name(&mut self, connection: &Connection, principal: &Principal, config: &Config) -> Result<()> {
        let Some(name) = config.target_name.as_deref() else {
            self.wrong("target_missing", "`target_namespace_name` is required: a migration makes a new namespace");
            return Ok(());
        };
        if let Err(error) = check_name("target_namespace_name", Some(name), 1, 64) {
            self.wrong("target_invalid", error.to_string());
            return Ok(());
        }
        match principals::namespace(connection, principal, name) {
            Ok(_) => {
                self.wrong("target_exists", format!("a namespace named `{name}` exists already"));
                Ok(())
            }
            Err(Error::Missing { .. }) => Ok(()),
            Err(other) => Err(other),
        }
    }

    /// Ids of the rows that are named, by id or name, or of all.
    fn chosen(&mut self, rows: &[Row], named: Option<&[String]>, what: &str) -> BTreeSet<String> {
        let Some(named) = named else { return rows.iter().map(|row| row.id.clone()).collect() };
        let mut chosen = BTreeSet::new();
        for identifier in named {
            match rows.iter().find(|row| row.id == *identifier || row.name == *identifier) {
                Some(row) => {
                    chosen.insert(row.id.clone());
                }
                None => self.wrong("resource_missing", format!("the {what} `{identifier}` does not exist")),
            }
        }
        chosen
    }

    fn judge_extractors(
        &mut self,
        connection: &Connection,
        source: &Namespace,
        config: &Config,
        settings: &BTreeMap<String, Option<Configured>>,
    ) -> Result<()> {
        if config.kind != MigrationKind::ReExtract {
            if !config.extractors.is_empty() {
                self.wrong("extractors_unused", "`feature_extractors` are for `re_extract`");
            }
            return Ok(());
        }
        let custom = extractors::of_namespace(connection, &source.scope())?;
        for (i, change) in config.extractors.iter().enumerate() {
            let at = format!("feature_extractors.{i}");
            let mut is_used = false;
            for (collection, extractor) in settings {
                let Some(extractor) = extractor.as_ref().filter(|e| e.definition.name() == change.name) else {
                    continue;
                };
                is_used = true;
                let mut json = extractor.to_json();
                let mut parameters = extractor.parameters.clone();
                parameters.extend(change.parameters.clone());
                json["parameters"] = Value::Object(parameters);
                if let Some(version) = &change.version {
                    json["version"] = version.clone().into();
                }
                match Configured::parse(&json, &custom, &at) {
                    Ok(_) => drop(self.extractors.insert(collection.clone(), json)),
                    Err(error) => self.errors.push(Finding {
                        code: "extractor_invalid",
                        message: error.to_string(),
                        resource_id: Some(collection.clone()),
                    }),
                }
            }
            if !is_used {
                let message = format!("no collection that comes along has the extractor `{}`", change.name);
                self.wrong("extractor_unused", message);
            }
        }
        Ok(())
    }
}

/// The collections that a retriever reads.
fn collections_of(row: &Row) -> Vec<String> {
    let ids = row.body.get("_collection_ids").and_then(Value::as_array).into_iter().flatten();
    ids.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn load(connection: &Connection, principal: &Principal, migration_id: &str) -> Result<Transfer> {
    let missing = || Error::missing("migration", migration_id);
    let found = match rows::get(connection, &principal.organization_id, Kind::Migration, migration_id) {
        Err(Error::Missing { .. }) => return Err(missing()),
        other => other?,
    };
    if principal.may_enter(&found.source_namespace_id) { Ok(found) } else { Err(missing()) }
}

fn shown(connection: &Connection, transfer: Transfer) -> Result<Migration> {
    let progress = match tasks::task(connection, &transfer.organization_id, &transfer.task_id) {
        Ok(task) => task.body.get(PROGRESS).cloned(),
        Err(Error::Missing { .. }) => None,
        Err(other) => return Err(other),
    };
    Ok(Migration { transfer, progress })
}

impl Engine {
    /// What a migration would do, and what stands against it.
    pub async fn plan_migration(&self, principal: &Principal, config: Config) -> Result<Plan> {
        let principal = principal.clone();
        self.catalog.read(move |connection| Plan::make(connection, &principal, &config)).await
    }

    /// Writes a migration down; nothing happens before it is started. Errors of its plan are the answer's.
    pub async fn create_migration(&self, principal: &Principal, config: Config) -> Result<(Migration, Plan)> {
        let (of, now) = (principal.clone(), self.catalog.now());
        let migration_id = self.catalog.new_id(id::MIGRATION, 16);
        let write = self.catalog.write(move |tx| {
            let plan = Plan::make(tx, &of, &config)?;
            let Some(source) = &plan.source else { return Err(Error::internal("a plan without a source")) };
            let body = json!({
                CONFIG: config.sent,
                EXTRACTORS: plan.extractors,
                MAKES_ANEW: config.kind == MigrationKind::ReExtract,
                "dry_run": config.dry_run,
                "valid": plan.errors.is_empty(),
                "name": config.target_name,
                "collections": plan.collections,
                "retrievers": plan.retrievers,
                "direct": plan.direct,
            });
            let transfer = Transfer {
                transfer_id: migration_id,
                organization_id: source.organization_id.clone(),
                kind: Kind::Migration,
                source_namespace_id: source.namespace_id.clone(),
                target_namespace_id: None,
                snapshot_id: String::new(),
                task_id: String::new(),
                status: "draft".into(),
                attempts: 0,
                body: body.as_object().cloned().unwrap_or_default(),
                created_at: now.clone(),
                updated_at: now,
            };
            rows::insert(tx, &transfer)?;
            Ok((Migration { transfer, progress: None }, plan))
        });
        write.await
    }

    /// Starts a migration that was written down.
    ///
    /// Errors: `Conflict` where it has begun, is a dry run or has errors, and where its name has been taken since.
    pub async fn start_migration(&self, principal: &Principal, migration_id: &str) -> Result<Migration> {
        let drafted = self.migration(principal, migration_id).await?.transfer;
        let is_set = |key: &str| drafted.body.get(key).and_then(Value::as_bool).unwrap_or(false);
        let stands = match (drafted.status.as_str(), is_set("dry_run"), is_set("valid")) {
            ("draft", false, true) => None,
            ("draft", true, _) => Some("is a dry run"),
            ("draft", false, false) => Some("has errors; ask for them with `migrations/validate`"),
            _ => Some("has begun already"),
        };
        if let Some(why) = stands {
            return Err(Error::Conflict(format!("migration `{migration_id}` {why}")));
        }
        let source = self.namespace(principal, &drafted.source_namespace_id).await?.namespace;
        let (snapshot_id, task_id) = (self.catalog.new_id(id::SNAPSHOT, 16), self.catalog.new_id(id::TASK, 16));
        let now = self.catalog.now();
        let making = Making {
            status: "migrating".into(),
            task_id: task_id.clone(),
            dispatched_at: now.clone(),
            source_namespace_id: source.namespace_id.clone(),
            ..Making::default()
        };
        let mut body = body_like(&source.body);
        close_gate(&mut body, &making);
        let list = |key: &str| -> Vec<String> {
            drafted.body.get(key).and_then(|ids| serde_json::from_value(ids.clone()).ok()).unwrap_or_default()
        };
        let choice = Choice {
            collections: Some(list("collections")),
            documents: Some(list(if makes_anew(&drafted) { "direct" } else { "collections" })),
            retrievers: Some(list("retrievers")),
            ..Choice::of_tables(tables(true, true))
        };
        let snapshot = choice.passing(&source, &snapshot_id, &now)?;
        let name = drafted.body.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let id = migration_id.to_owned();
        let furnish = move |tx: &Transaction<'_>, target: &Namespace| {
            let mut transfer = rows::find(tx, &id)?
                .filter(|t| t.status == "draft")
                .ok_or_else(|| Error::Conflict(format!("migration `{id}` has begun already")))?;
            snapshots::insert(tx, &snapshot)?;
            transfer.target_namespace_id = Some(target.namespace_id.clone());
            transfer.snapshot_id = snapshot_id;
            transfer.task_id = task_id;
            transfer.status = "pending".into();
            transfer.updated_at.clone_from(&now);
            transfer.body.insert("started_at".into(), now.into());
            rows::delete(tx, &id)?;
            let inputs = vec![transfer.source_namespace_id.clone(), target.namespace_id.clone()];
            let new = NewTransfer { transfer, task_type: "api_namespaces_migrations_run", inputs };
            transfers::queue(tx, &new)?;
            Ok(new.transfer)
        };
        let wanted = NewNamespace { namespace_id: None, name, ttl_seconds: None, body };
        let (_, transfer) = self.make_namespace(principal, wanted, furnish).await?;
        self.transfers.wake();
        Ok(Migration { transfer, progress: None })
    }

    pub async fn migration(&self, principal: &Principal, migration_id: &str) -> Result<Migration> {
        let (principal, id) = (principal.clone(), migration_id.to_owned());
        self.catalog.read(move |connection| shown(connection, load(connection, &principal, &id)?)).await
    }

    /// The migrations of the namespaces that the principal may enter, newest first.
    pub async fn migrations(&self, principal: &Principal) -> Result<Vec<Migration>> {
        let principal = principal.clone();
        let read = self.catalog.read(move |connection| {
            let all = rows::list(connection, &principal.organization_id, Kind::Migration)?;
            let seen = all.into_iter().filter(|transfer| principal.may_enter(&transfer.source_namespace_id));
            seen.map(|transfer| shown(connection, transfer)).collect::<Result<Vec<_>>>()
        });
        read.await
    }

    /// Ends a migration before it is over; the namespace that it makes goes. `Conflict` where it is over.
    pub async fn cancel_migration(&self, principal: &Principal, migration_id: &str) -> Result<Migration> {
        let found = self.migration(principal, migration_id).await?.transfer;
        if found.status != "draft" {
            self.cancel_transfer(&principal.organization_id, migration_id).await?;
            return self.migration(principal, migration_id).await;
        }
        let (id, now) = (migration_id.to_owned(), self.catalog.now());
        let write = self.catalog.write(move |tx| {
            let found = rows::find(tx, &id)?.filter(|t| t.status == "draft");
            let mut transfer = found.ok_or_else(|| Error::Conflict(format!("migration `{id}` has just begun")))?;
            transfer.status = "canceled".into();
            transfer.updated_at = now;
            rows::update(tx, &transfer)?;
            Ok(Migration { transfer, progress: None })
        });
        write.await
    }

    /// Forgets a migration; what it has made stays. `Conflict` while it runs.
    pub async fn delete_migration(&self, principal: &Principal, migration_id: &str) -> Result<()> {
        let (principal, id) = (principal.clone(), migration_id.to_owned());
        let write = self.catalog.write(move |tx| {
            let found = load(tx, &principal, &id)?;
            if found.is_open() {
                return Err(Error::Conflict(format!("migration `{id}` is running; cancel it first")));
            }
            rows::delete(tx, &id)
        });
        write.await
    }
}
