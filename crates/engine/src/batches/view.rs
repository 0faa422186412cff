//! A batch as clients see it: its row, and the counts that say where it stands.

use super::{final_status, operate::load};
use crate::{Engine, transfers::TRANSFER_ID};
use serde_json::Value;
use strata_model::{Error, Principal, Result, Scope};
use strata_store::catalog::{
    batches::{self as rows, Batch, Task},
    derivations::{self, Counts, Derivation},
    principals,
    resources::{self, Kind},
    rusqlite::Connection,
};

/// One tier: the collections that run in it and how far they are.
#[derive(Debug, Clone)]
pub struct Tier {
    pub number: u32,
    pub collection_ids: Vec<String>,
    pub status: &'static str,
    pub counts: Counts,
}

#[derive(Debug, Clone)]
pub struct BatchView {
    pub batch: Batch,
    /// The status clients see: `PROCESSING` once a queued batch has begun.
    pub status: String,
    pub object_ids: Vec<String>,
    pub counts: Counts,
    pub tiers: Vec<Tier>,
    /// The first failures, at most 100.
    pub failed: Vec<Derivation>,
}

/// What a batch in this state is called while it runs.
fn status(stored: &str, counts: &Counts) -> String {
    match stored {
        "QUEUED" if counts.finished() + counts.running > 0 => "PROCESSING".into(),
        other => other.into(),
    }
}

pub(super) fn view(connection: &Connection, batch: Batch) -> Result<BatchView> {
    let by_tier = derivations::counts_by_tier(connection, &batch.batch_id)?;
    let mut tiers: Vec<Tier> = Vec::new();
    for (number, collection, counts) in by_tier {
        match tiers.last_mut().filter(|t| t.number == number) {
            Some(tier) => {
                tier.collection_ids.push(collection);
                add(&mut tier.counts, &counts);
            }
            None => tiers.push(Tier { number, collection_ids: vec![collection], status: "PENDING", counts }),
        }
    }
    let mut live = Counts::default();
    for tier in &mut tiers {
        tier.status = match (tier.counts.is_over(), tier.counts.finished() + tier.counts.running) {
            (true, _) => final_status(&tier.counts),
            (false, 0) => "PENDING",
            (false, _) => "PROCESSING",
        };
        add(&mut live, &tier.counts);
    }
    // Once settled, the counts are history: a later batch may have taken some of the derivations over.
    let settled = batch.body.get("counts").filter(|_| batch.status != "QUEUED");
    let counts = settled.map_or(live, from_json);
    Ok(BatchView {
        status: status(&batch.status, &counts),
        object_ids: rows::objects(connection, &batch.batch_id)?,
        failed: derivations::failed(connection, &batch.batch_id, 100, 0)?,
        counts,
        tiers,
        batch,
    })
}

fn add(sum: &mut Counts, part: &Counts) {
    sum.pending += part.pending;
    sum.running += part.running;
    sum.completed += part.completed;
    sum.failed += part.failed;
    sum.canceled += part.canceled;
    sum.reused += part.reused;
    sum.outputs += part.outputs;
}

fn from_json(value: &Value) -> Counts {
    let of = |key: &str| value.get(key).and_then(Value::as_u64).unwrap_or(0);
    Counts {
        pending: of("pending"),
        running: of("running"),
        completed: of("completed"),
        failed: of("failed"),
        canceled: of("canceled"),
        reused: of("reused"),
        outputs: of("outputs"),
    }
}

impl Engine {
    pub async fn batch(&self, scope: &Scope, bucket: Option<&str>, batch_id: &str) -> Result<BatchView> {
        let (scope, bucket, batch_id) = (scope.clone(), bucket.map(str::to_owned), batch_id.to_owned());
        self.catalog.read(move |c| view(c, load(c, &scope, bucket.as_deref(), &batch_id)?)).await
    }

    /// Batches of the scope or of one bucket, newest first, in one status if that is given; and how many there are.
    pub async fn batches(
        &self,
        scope: &Scope,
        bucket: Option<&str>,
        wanted: Option<&str>,
        limit: usize,
        offset: usize,
    ) -> Result<(Vec<BatchView>, usize)> {
        let (scope, bucket, wanted) = (scope.clone(), bucket.map(str::to_owned), wanted.map(str::to_owned));
        self.catalog
            .read(move |c| {
                let bucket = bucket.map(|b| resources::get(c, Kind::Bucket, &scope, &b)).transpose()?;
                let mut all = rows::list(c, &scope, bucket.as_ref().map(|b| b.id.as_str()))?;
                if let Some(wanted) = &wanted {
                    let mut kept = Vec::new();
                    for batch in all {
                        let seen = if batch.status == "QUEUED" {
                            status(&batch.status, &derivations::counts(c, &batch.batch_id)?)
                        } else {
                            batch.status.clone()
                        };
                        if seen == *wanted {
                            kept.push(batch);
                        }
                    }
                    all = kept;
                }
                let total = all.len();
                let page = all.into_iter().skip(offset).take(limit).map(|b| view(c, b));
                Ok((page.collect::<Result<_>>()?, total))
            })
            .await
    }

    /// A task of the organization, in its present state.
    pub async fn task(&self, organization_id: &str, task_id: &str) -> Result<Task> {
        let (organization_id, task_id) = (organization_id.to_owned(), task_id.to_owned());
        self.catalog.read(move |c| present(c, rows::task(c, &organization_id, &task_id)?)).await
    }

    /// Tasks of the organization, newest first.
    pub async fn tasks(&self, organization_id: &str) -> Result<Vec<Task>> {
        let organization_id = organization_id.to_owned();
        self.catalog.read(move |c| rows::tasks(c, &organization_id)?.into_iter().map(|t| present(c, t)).collect()).await
    }
}

/// A task that follows a batch shows that batch's state.
fn present(connection: &Connection, mut task: Task) -> Result<Task> {
    if task.status == "PENDING"
        && let Some(batch) = &task.batch_id
    {
        let counts = derivations::counts(connection, batch)?;
        if counts.finished() + counts.running > 0 {
            task.status = "PROCESSING".into();
        }
    }
    Ok(task)
}

impl Engine {
    /// The namespace that a batch is in, among those the principal may enter.
    pub async fn scope_of_batch(&self, principal: &Principal, batch_id: &str) -> Result<Scope> {
        let (principal, batch_id) = (principal.clone(), batch_id.to_owned());
        self.catalog
            .read(move |c| {
                let scopes = principals::namespaces(c, &principal)?.into_iter().map(|n| n.scope());
                scopes
                    .into_iter()
                    .find(|s| rows::get(c, s, None, &batch_id).is_ok())
                    .ok_or_else(|| Error::missing("batch", batch_id))
            })
            .await
    }

    /// The namespaces that the principal may enter.
    pub async fn scopes(&self, principal: &Principal) -> Result<Vec<Scope>> {
        let principal = principal.clone();
        self.catalog
            .read(move |c| {
                Ok(principals::namespaces(c, &principal)?.iter().map(principals::Namespace::scope).collect())
            })
            .await
    }

    /// A task of the principal's organization and namespaces.
    pub async fn task_for(&self, principal: &Principal, task_id: &str) -> Result<Task> {
        let task = self.task(&principal.organization_id, task_id).await?;
        match &task.namespace_id {
            Some(namespace) if !principal.may_enter(namespace) => Err(Error::missing("task", task_id)),
            _ => Ok(task),
        }
    }

    /// Cancels the batch, the evaluation or the transfer behind a task.
    pub async fn cancel_task(&self, principal: &Principal, task_id: &str) -> Result<()> {
        let task = self.task_for(principal, task_id).await?;
        match (task.batch_id, task.namespace_id) {
            (Some(batch), Some(namespace_id)) => {
                let scope = Scope::whole(&*principal.organization_id, namespace_id);
                self.cancel_batch(&scope, None, &batch, None, None).await.map(drop)
            }
            _ if task.body.contains_key(TRANSFER_ID) => {
                let transfer_id = task.body.get(TRANSFER_ID).and_then(Value::as_str).unwrap_or_default();
                self.cancel_transfer(&principal.organization_id, transfer_id).await
            }
            (None, Some(namespace_id)) if task.body.contains_key("evaluation_id") => {
                let scope = Scope::whole(&*principal.organization_id, namespace_id);
                let evaluation_id = task.body.get("evaluation_id").and_then(Value::as_str).unwrap_or_default();
                self.cancel_evaluation(&scope, evaluation_id).await
            }
            _ => Err(Error::Conflict(format!("task `{task_id}` is over"))),
        }
    }
}
