//! Snapshots of namespaces, as callers ask for them. They outlive their namespace, and hold every content that they refer
//! to for as long as they exist.

use crate::{
    Engine,
    namespaces::NewNamespace,
    principals::check_name,
    transfers::{self, Choice, IN_PLACE, Making, NewTransfer, WAS_GONE, close_gate, manifest},
};
use futures::StreamExt;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use strata_model::{Error, Fields, Principal, Result, id};
pub use strata_store::{catalog::snapshots::Snapshot, snapshot::Manifest};
use strata_store::{
    catalog::{
        principals::{self, Namespace},
        rusqlite::{Connection, Transaction},
        snapshots::{self as rows, HeldContent},
        transfers::{self as transfer_rows, Kind, Transfer},
    },
    snapshot::PartEntry,
};

/// Contents that are looked at between two looks into the catalog.
const PAGE: usize = 500;
/// Most contents of objects and documents that a download lists.
const MAX_FILES: u64 = 10_000;
/// Most issues that a verification names.
const MAX_ISSUES: usize = 100;

/// Where a snapshot goes.
#[derive(Debug, Clone)]
pub enum Destination {
    /// A new namespace of this name.
    New(String),
    /// The namespace that it is of, whose content goes; if that is gone, it comes back under its ids.
    InPlace,
}

/// A restore that has begun.
#[derive(Debug, Clone)]
pub struct Restoring {
    pub task_id: String,
    pub snapshot_id: String,
    pub target_namespace_id: String,
}

/// Something that is wrong with a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    /// `not_complete`, `content_missing`, `content_damaged` or `part_damaged`.
    pub code: &'static str,
    pub detail: String,
}

/// What an examination of a snapshot found.
#[derive(Debug, Clone)]
pub struct Verified {
    pub snapshot: Snapshot,
    /// At most a hundred.
    pub issues: Vec<Issue>,
    /// Tables whose parts were all good.
    pub tables: u64,
    /// Contents whose hash was computed and is right.
    pub digests: u64,
}

/// A file of a snapshot that can be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFile {
    pub path: String,
    pub sha256: String,
    pub size_bytes: u64,
    pub media_type: &'static str,
}

/// The namespace that a path below snapshots names: one that is there, or one that has left snapshots behind.
fn home(connection: &Connection, principal: &Principal, identifier: &str) -> Result<String> {
    let missing = match principals::namespace(connection, principal, identifier) {
        Ok(namespace) => return Ok(namespace.namespace_id),
        Err(missing @ Error::Missing { .. }) => missing,
        Err(other) => return Err(other),
    };
    let left = rows::namespace(connection, &principal.organization_id, identifier)?;
    left.filter(|namespace_id| principal.may_enter(namespace_id)).ok_or(missing)
}

fn load(connection: &Connection, principal: &Principal, identifier: &str, snapshot_id: &str) -> Result<Snapshot> {
    let namespace_id = home(connection, principal, identifier)?;
    rows::get(connection, &principal.organization_id, &namespace_id, snapshot_id)
}

/// What a snapshot's answer shows of its manifest.
pub fn manifest_of(snapshot: &Snapshot) -> Result<Option<Manifest>> {
    manifest(snapshot)
}

impl Engine {
    /// Begins to take a snapshot of a namespace.
    pub async fn create_snapshot(
        &self,
        principal: &Principal,
        identifier: &str,
        include_vectors: bool,
    ) -> Result<Snapshot> {
        let (principal, identifier, now) = (principal.clone(), identifier.to_owned(), self.catalog.now());
        let (transfer_id, snapshot_id) = (self.catalog.new_id(id::TRANSFER, 16), self.catalog.new_id(id::SNAPSHOT, 16));
        let task_id = self.catalog.new_id(id::TASK, 16);
        let mut body = Choice::everything(include_vectors).to_body()?;
        body.insert("task_id".into(), task_id.clone().into());
        let write = self.catalog.write(move |tx| {
            let namespace = principals::namespace(tx, &principal, &identifier)?;
            transfers::check_gate(&namespace)?;
            let snapshot = Snapshot {
                snapshot_id: snapshot_id.clone(),
                organization_id: namespace.organization_id.clone(),
                namespace_id: namespace.namespace_id.clone(),
                namespace_name: namespace.name,
                is_passing: false,
                status: "pending".into(),
                body,
                created_at: now.clone(),
                updated_at: now.clone(),
            };
            rows::insert(tx, &snapshot)?;
            let transfer = Transfer {
                transfer_id,
                organization_id: namespace.organization_id,
                kind: Kind::Snapshot,
                source_namespace_id: namespace.namespace_id,
                target_namespace_id: None,
                snapshot_id: snapshot_id.clone(),
                task_id,
                status: "pending".into(),
                attempts: 0,
                body: Fields::new(),
                created_at: now.clone(),
                updated_at: now,
            };
            let task_type = "api_namespaces_snapshot_create";
            transfers::queue(tx, &NewTransfer { transfer, task_type, inputs: vec![snapshot_id] })?;
            Ok(snapshot)
        });
        let snapshot = write.await?;
        self.transfers.wake();
        Ok(snapshot)
    }

    /// A page of a namespace's snapshots, newest first, and how many there are.
    pub async fn snapshots(
        &self,
        principal: &Principal,
        identifier: &str,
        (skip, limit): (usize, usize),
    ) -> Result<(Vec<Snapshot>, usize)> {
        let (principal, identifier) = (principal.clone(), identifier.to_owned());
        let read = self.catalog.read(move |connection| {
            let namespace_id = home(connection, &principal, &identifier)?;
            rows::list(connection, &principal.organization_id, &namespace_id)
        });
        let all = read.await?;
        let total = all.len();
        Ok((all.into_iter().skip(skip).take(limit).collect(), total))
    }

    pub async fn snapshot(&self, principal: &Principal, identifier: &str, snapshot_id: &str) -> Result<Snapshot> {
        let (principal, identifier, id) = (principal.clone(), identifier.to_owned(), snapshot_id.to_owned());
        self.catalog.read(move |connection| load(connection, &principal, &identifier, &id)).await
    }

    /// How many contents of objects and documents a snapshot holds, and their bytes.
    pub async fn snapshot_holds(&self, snapshot: &Snapshot) -> Result<(u64, u64)> {
        let id = snapshot.snapshot_id.clone();
        self.catalog.read(move |connection| rows::referenced(connection, &id)).await
    }

    /// Removes a snapshot and the contents that nothing else refers to. `Conflict` while it is taken or restored.
    pub async fn delete_snapshot(
        &self,
        principal: &Principal,
        identifier: &str,
        snapshot_id: &str,
    ) -> Result<Snapshot> {
        let (principal, identifier, id) = (principal.clone(), identifier.to_owned(), snapshot_id.to_owned());
        let write = self.catalog.write(move |tx| {
            let snapshot = load(tx, &principal, &identifier, &id)?;
            if transfer_rows::is_in_use(tx, &id)? {
                return Err(Error::Conflict(format!(
                    "snapshot `{id}` is being taken or restored; wait for that to end"
                )));
            }
            let free = rows::delete(tx, &id)?;
            Ok((snapshot, free))
        });
        let (snapshot, free) = write.await?;
        self.remove_blobs(free).await;
        Ok(snapshot)
    }

    /// Whether everything that a snapshot holds is there, and, where `deep` says so, whether it is what it was.
    pub async fn verify_snapshot(
        &self,
        principal: &Principal,
        identifier: &str,
        snapshot_id: &str,
        deep: bool,
    ) -> Result<Verified> {
        let snapshot = self.snapshot(principal, identifier, snapshot_id).await?;
        let mut verified = Verified { snapshot, issues: Vec::new(), tables: 0, digests: 0 };
        let Some(manifest) = manifest(&verified.snapshot)? else {
            let detail = format!("the snapshot is {}", verified.snapshot.status);
            verified.issues.push(Issue { code: "not_complete", detail });
            return Ok(verified);
        };
        let mut after = String::new();
        loop {
            let page = self.held_contents(snapshot_id, &after).await?;
            let Some(last) = page.last() else { break };
            after.clone_from(&last.hash);
            for content in &page {
                match self.examine(content, deep).await? {
                    None => verified.digests += u64::from(deep),
                    Some(issue) if verified.issues.len() < MAX_ISSUES => verified.issues.push(issue),
                    Some(_) => {}
                }
            }
        }
        let mut damaged: Vec<&PartEntry> = Vec::new();
        for (number, entry) in manifest.parts.iter().enumerate().filter(|_| deep) {
            match transfers::part(self, &manifest, number).await {
                Ok(_) => {}
                Err(Error::Conflict(detail)) => {
                    damaged.push(entry);
                    verified.issues.push(Issue { code: "part_damaged", detail });
                }
                Err(other) => return Err(other),
            }
        }
        let is_good = |entry: &&PartEntry| damaged.iter().all(|other| other.table != entry.table);
        let tables: HashSet<_> = manifest.parts.iter().filter(is_good).map(|part| part.table).collect();
        verified.tables = tables.len() as u64;
        Ok(verified)
    }

    async fn held_contents(&self, snapshot_id: &str, after: &str) -> Result<Vec<HeldContent>> {
        let (id, after) = (snapshot_id.to_owned(), after.to_owned());
        self.catalog.read(move |connection| rows::contents(connection, &id, &after, PAGE)).await
    }

    /// What is wrong with a content.
    async fn examine(&self, content: &HeldContent, deep: bool) -> Result<Option<Issue>> {
        let HeldContent { hash, size_bytes, .. } = content;
        match self.blobs.size(hash).await? {
            None => {
                return Ok(Some(Issue { code: "content_missing", detail: format!("the content `{hash}` is missing") }));
            }
            Some(size) if size != *size_bytes => {
                let detail = format!("the content `{hash}` has {size} bytes instead of {size_bytes}");
                return Ok(Some(Issue { code: "content_damaged", detail }));
            }
            Some(_) if !deep => return Ok(None),
            Some(_) => {}
        }
        let mut pieces = self.blobs.stream(hash, None).await?;
        let mut hasher = Sha256::new();
        while let Some(piece) = pieces.next().await {
            hasher.update(&piece?);
        }
        if hex::encode(hasher.finalize()) == *hash {
            return Ok(None);
        }
        Ok(Some(Issue { code: "content_damaged", detail: format!("the content `{hash}` is not what its name says") }))
    }

    /// The files that a snapshot is made of: its manifest, its parts and, if there are at most ten thousand, the contents
    /// of objects and documents.
    pub async fn snapshot_files(&self, snapshot: &Snapshot) -> Result<Vec<SnapshotFile>> {
        let Some(manifest) = manifest(snapshot)? else {
            return Err(Error::Conflict(format!("snapshot `{}` is {}", snapshot.snapshot_id, snapshot.status)));
        };
        let own = snapshot.body.get("manifest_file");
        let own_text = |key: &str| own.and_then(|file| file.get(key)?.as_str()).unwrap_or_default().to_owned();
        let mut files = vec![SnapshotFile {
            path: "manifest.json".into(),
            sha256: own_text("sha256"),
            size_bytes: own.and_then(|file| file.get("size_bytes")?.as_u64()).unwrap_or(0),
            media_type: "application/json",
        }];
        files.extend(manifest.parts.iter().enumerate().map(|(number, part)| SnapshotFile {
            path: format!("rows/{number:05}-{}.jsonl.zlib", part.table.name()),
            sha256: part.sha256.clone(),
            size_bytes: part.size_bytes,
            media_type: "application/zlib",
        }));
        if self.snapshot_holds(snapshot).await?.0 > MAX_FILES {
            return Ok(files);
        }
        let mut after = String::new();
        loop {
            let page = self.held_contents(&snapshot.snapshot_id, &after).await?;
            let Some(last) = page.last() else { return Ok(files) };
            after.clone_from(&last.hash);
            files.extend(page.into_iter().filter(|content| !content.is_own).map(|content| SnapshotFile {
                path: format!("blobs/{}", content.hash),
                sha256: content.hash,
                size_bytes: content.size_bytes,
                media_type: "application/octet-stream",
            }));
        }
    }

    /// Begins to restore a snapshot.
    ///
    /// Errors: `Conflict` where the snapshot is not complete, the name is taken, or the namespace is being made already;
    /// `Forbidden` where a namespace would have to be made by a key that is limited to some.
    pub async fn restore_snapshot(
        &self,
        principal: &Principal,
        identifier: &str,
        snapshot_id: &str,
        destination: Destination,
    ) -> Result<Restoring> {
        let snapshot = self.snapshot(principal, identifier, snapshot_id).await?;
        if manifest(&snapshot)?.is_none() {
            return Err(Error::Conflict(format!("snapshot `{snapshot_id}` is {}", snapshot.status)));
        }
        let (task_id, now) = (self.catalog.new_id(id::TASK, 16), self.catalog.now());
        let making = Making {
            status: "restoring".into(),
            task_id: task_id.clone(),
            dispatched_at: now.clone(),
            source_namespace_id: snapshot.namespace_id.clone(),
            ..Making::default()
        };
        let transfer = Transfer {
            transfer_id: self.catalog.new_id(id::TRANSFER, 16),
            organization_id: snapshot.organization_id.clone(),
            kind: Kind::Restore,
            source_namespace_id: snapshot.namespace_id.clone(),
            target_namespace_id: None,
            snapshot_id: snapshot.snapshot_id.clone(),
            task_id: task_id.clone(),
            status: "pending".into(),
            attempts: 0,
            body: Fields::new(),
            created_at: now.clone(),
            updated_at: now,
        };
        let target_namespace_id = match destination {
            Destination::New(name) => self.restore_as(principal, name, &making, transfer).await?,
            Destination::InPlace => self.restore_in_place(principal, snapshot, making, transfer).await?,
        };
        self.transfers.wake();
        Ok(Restoring { task_id, snapshot_id: snapshot_id.to_owned(), target_namespace_id })
    }

    async fn restore_as(
        &self,
        principal: &Principal,
        name: String,
        making: &Making,
        transfer: Transfer,
    ) -> Result<String> {
        check_name("target_namespace_name", Some(&name), 1, 64)?;
        let mut body = Fields::new();
        close_gate(&mut body, making);
        let furnish = move |tx: &Transaction<'_>, target: &Namespace| begin(tx, transfer, &target.namespace_id);
        let wanted = NewNamespace { namespace_id: None, name, ttl_seconds: None, body };
        Ok(self.make_namespace(principal, wanted, furnish).await?.0.namespace_id)
    }

    async fn restore_in_place(
        &self,
        principal: &Principal,
        snapshot: Snapshot,
        making: Making,
        mut transfer: Transfer,
    ) -> Result<String> {
        transfer.body.insert(IN_PLACE.into(), Value::Bool(true));
        let (is_limited, now) = (principal.namespaces.is_some(), self.catalog.now());
        let write = self.catalog.write(move |tx| {
            let target = snapshot.namespace_id.clone();
            if transfer_rows::is_target(tx, &target)? {
                return Err(Error::Conflict(format!("the namespace `{target}` is being made already")));
            }
            match principals::find_namespace(tx, &target)? {
                Some(mut namespace) if namespace.organization_id == snapshot.organization_id => {
                    close_gate(&mut namespace.body, &making);
                    principals::update_namespace(tx, &namespace)?;
                }
                Some(_) => return Err(Error::missing("namespace", target)),
                None if is_limited => {
                    let why =
                        "the namespace is gone, and this key is limited to its namespaces; use one of the organization";
                    return Err(Error::Forbidden(why.into()));
                }
                None => {
                    let mut body = Fields::new();
                    close_gate(&mut body, &making);
                    let namespace = Namespace {
                        namespace_id: target.clone(),
                        organization_id: snapshot.organization_id.clone(),
                        name: snapshot.namespace_name.clone(),
                        body,
                        created_at: now.clone(),
                        updated_at: now,
                    };
                    principals::insert_namespace(tx, &namespace)?;
                    transfer.body.insert(WAS_GONE.into(), Value::Bool(true));
                }
            }
            begin(tx, transfer, &target)?;
            Ok(target)
        });
        write.await
    }
}

/// Queues a restore into a namespace.
fn begin(tx: &Transaction<'_>, mut transfer: Transfer, target: &str) -> Result<()> {
    transfer.target_namespace_id = Some(target.to_owned());
    let inputs = vec![transfer.snapshot_id.clone(), target.to_owned()];
    transfers::queue(tx, &NewTransfer { transfer, task_type: "api_namespaces_snapshot_restore", inputs })
}
