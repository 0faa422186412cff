//! Making the documents of a migrated namespace anew: batch after batch over its objects, as a user would have it done.

use super::{Progress, report};
use crate::Engine;
use std::{sync::Arc, time::Duration};
use strata_model::{Error, Result, Scope};
use strata_store::catalog::{
    objects,
    resources::{self, Kind as Resource},
    transfers::Transfer,
};

/// Objects of one batch.
const BATCH: usize = 10_000;
/// How often a batch is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Processes every object. What fails stays failed, and can be tried again as usual.
pub(super) async fn process(engine: &Arc<Engine>, transfer: &Transfer, scope: &Scope) -> Result<()> {
    let of = scope.clone();
    let buckets = engine.catalog.read(move |connection| {
        let buckets = resources::list(connection, Resource::Bucket, &of)?;
        let ids = |id: String| objects::ids(connection, &of, &id).map(|objects| (id, objects));
        buckets.into_iter().map(|bucket| ids(bucket.id)).collect::<Result<Vec<_>>>()
    });
    let (mut completed, mut failed) = (0, 0);
    for (bucket, objects) in buckets.await? {
        for page in objects.chunks(BATCH) {
            let Some(batch_id) = engine.process_objects(scope, &bucket, page.to_vec()).await? else { continue };
            let counts = loop {
                let view = engine.batch(scope, None, &batch_id).await?;
                let before = completed + failed;
                let (done, total) = (before + view.counts.finished(), before + view.counts.total());
                report(engine, transfer, Progress { phase: "processing", done, total }).await?;
                if !matches!(view.batch.status.as_str(), "DRAFT" | "QUEUED") {
                    break view.counts;
                }
                tokio::time::sleep(LOOK).await;
            };
            completed += counts.completed;
            failed += counts.failed + counts.canceled;
        }
    }
    if completed == 0 && failed > 0 {
        return Err(Error::Conflict(format!("none of {failed} inputs could be processed; the batches say why")));
    }
    Ok(())
}
