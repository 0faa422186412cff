//! Batches as answers show them.

use serde_json::{Value, json};
use strata_engine::batches::{BatchView, Estimate, Tier};

/// The batch as every answer shows it.
pub(super) fn batch_json(view: &BatchView) -> Value {
    let (batch, counts) = (&view.batch, &view.counts);
    let body = |key: &str| batch.body.get(key).cloned().unwrap_or(Value::Null);
    let (processed, total) = (counts.finished(), counts.total());
    let failed: Vec<Value> = view
        .failed
        .iter()
        .map(|d| json!({
            "object_id": d.root_object_id.as_deref().unwrap_or(&d.input_id),
            "error": d.error.as_deref().unwrap_or("failed"),
            "error_type": d.error_type.as_deref().unwrap_or("permanent"),
            "timestamp": d.finished_at.as_deref().unwrap_or(&d.created_at),
        }))
        .collect();
    let layers = body("dag_tiers");
    let total_tiers = layers.as_array().map_or(1, |l| l.len().max(1));
    let current = view.tiers.iter().find(|t| !t.counts.is_over()).or(view.tiers.last()).map(|t| t.number);
    let mut answer = json!({
        "batch_id": batch.batch_id,
        "bucket_id": batch.bucket_id.as_deref().unwrap_or_default(),
        "namespace_id": batch.namespace_id,
        "status": view.status,
        "object_ids": view.object_ids,
        "collection_ids": body("collection_ids"),
        "failed_object_count": counts.failed,
        "failed_objects": failed,
        "type": batch.body.get("type").and_then(Value::as_str).unwrap_or("BUCKET"),
        "tier_tasks": view.tiers.iter().map(|t| tier_json(t, batch.task_id.as_deref())).collect::<Vec<_>>(),
        "total_tiers": total_tiers,
        "progress": {
            "processed": processed,
            "total": total,
            "percent": if total == 0 { 0.0 } else { processed as f64 * 100.0 / total as f64 },
            "batch_count": 0,
            "errors": counts.failed,
            "documents_skipped": 0,
            "objects_skipped": counts.reused,
            "objects_failed": counts.failed,
            "documents_written": counts.outputs,
        },
        "documents_written": counts.outputs,
        "documents_resolvable": true,
        "retry_count": batch.body.get("retry_count").and_then(Value::as_u64).unwrap_or(0),
        "max_retries": strata_model::limits::MAX_ATTEMPTS,
        "node_death_resubmit_count": 0,
        "deploy_resubmit_count": 0,
        "max_node_death_resubmits": 0,
        "max_deploy_resubmits": 0,
        "lifecycle": view.status.to_lowercase(),
        "lifecycle_reason": batch.body.get("cancel_reason"),
        "created_at": batch.created_at,
        "updated_at": batch.updated_at,
        "last_activity_at": batch.updated_at,
    });
    // Optional keys whose type admits no null are left out where there is nothing to say.
    let optional = [
        ("batch_name", body("batch_name")),
        ("dedup_strategy", body("dedup_strategy")),
        ("metadata", body("metadata")),
        ("task_id", json!(batch.task_id)),
        ("dag_tiers", layers),
        ("current_tier", json!(current)),
        ("last_retry_at", body("last_retry_at")),
        ("error", json!(view.failed.first().and_then(|d| d.error.clone()))),
    ];
    if let Value::Object(map) = &mut answer {
        map.extend(optional.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.to_owned(), v)));
    }
    answer
}

fn tier_json(tier: &Tier, task_id: Option<&str>) -> Value {
    json!({
        "tier_num": tier.number,
        "task_id": task_id,
        "status": tier.status,
        "collection_ids": tier.collection_ids,
        "source_type": if tier.number == 0 { "bucket" } else { "collection" },
        "documents_written": tier.counts.outputs,
        "documents_submitted_to_engine": tier.counts.total(),
        "audit": tier_audit(tier),
    })
}

pub(super) fn tier_audit(tier: &Tier) -> Value {
    let c = &tier.counts;
    json!({
        "tier_num": tier.number,
        "submitted": c.total(),
        "processed": c.completed,
        "failed": c.failed,
        "skipped": c.canceled,
        "lost": 0,
        "balanced": c.is_over(),
        "notes": [],
        "durability": "confirmed",
    })
}

pub(super) fn estimate_json(estimate: &Estimate) -> Value {
    json!({
        "batch_id": estimate.batch_id,
        "collection_ids": estimate.collection_ids,
        "dedup_strategy": estimate.dedup_strategy,
        "object_count": estimate.object_count,
        "already_extracted_count": estimate.already_extracted,
        "estimated_credits": 0,
        "estimated_usd": 0.0,
        "estimated_repay_credits": 0,
        "features": estimate.features,
        "extractors": estimate.extractors,
        "content_summary": { "derivations_to_run": estimate.to_run },
        "warnings": [],
    })
}
