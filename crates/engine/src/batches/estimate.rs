//! The dry run: what submitting a batch would have to do, found out by the same comparison that the workers make.

use super::operate::load;
use crate::{Engine, collections, extract::Attached};
use std::sync::Arc;
use strata_model::{Result, Scope, schema::Schema};
use strata_store::catalog::{batches as rows, derivations};

#[derive(Debug, Clone)]
pub struct Estimate {
    pub batch_id: String,
    pub collection_ids: Vec<String>,
    pub dedup_strategy: String,
    pub object_count: usize,
    /// Units of work whose input and extractor are as they were: they will run no model.
    pub already_extracted: usize,
    /// Units of work that will run.
    pub to_run: usize,
    pub extractors: Vec<String>,
    pub features: Vec<String>,
}

impl Engine {
    /// Looks at the first tier; later tiers follow from outputs that do not exist yet.
    pub async fn estimate_batch(self: &Arc<Self>, scope: &Scope, bucket: &str, batch_id: &str) -> Result<Estimate> {
        let (at, bucket, id) = (scope.clone(), bucket.to_owned(), batch_id.to_owned());
        let (batch, objects, readers) = self
            .catalog
            .read(move |c| {
                let batch = load(c, &at, Some(&bucket), &id)?;
                let readers = collections::readers_of_bucket(c, &at, batch.bucket_id.as_deref().unwrap_or_default())?;
                Ok((batch, rows::objects(c, &id)?, readers))
            })
            .await?;
        let asked: Vec<String> =
            batch.body.get("collection_ids").and_then(|v| serde_json::from_value(v.clone()).ok()).unwrap_or_default();
        let strategy = batch.body.get("dedup_strategy").and_then(|v| v.as_str()).unwrap_or("skip").to_owned();
        let mut estimate = Estimate {
            batch_id: batch_id.to_owned(),
            collection_ids: Vec::new(),
            dedup_strategy: strategy,
            object_count: objects.len(),
            already_extracted: 0,
            to_run: 0,
            extractors: Vec::new(),
            features: Vec::new(),
        };
        for collection in readers.into_iter().filter(|c| asked.is_empty() || asked.contains(&c.id)) {
            let Some(extractor) = &collection.extractor else { continue };
            let fingerprint = extractor.fingerprint(self, scope).await?;
            let schema = Schema::parse(&collection.input_schema, "input_schema")?;
            for object in &objects {
                let (input, _room) = self.object_input(scope, object).await?;
                let hashes: Vec<String> = input.blobs.iter().map(|b| b.hash.clone()).collect();
                let attached = Attached { blobs: input.files(), ..Attached::default() };
                let hash = extractor.input_hash(&extractor.gather(input.fields, &schema, attached)?, &hashes)?;
                let (c, o) = (collection.id.clone(), object.clone());
                let known = self.catalog.read(move |connection| derivations::of_input(connection, &c, &o)).await?;
                let same = known.is_some_and(|d| {
                    d.input_hash.as_deref() == Some(&*hash) && d.extractor_fingerprint.as_deref() == Some(&*fingerprint)
                });
                if same && estimate.dedup_strategy != "force" {
                    estimate.already_extracted += 1
                } else {
                    estimate.to_run += 1
                }
            }
            estimate.extractors.push(extractor.definition.id());
            estimate.features.extend(extractor.vectors.iter().map(|v| v.feature_uri.clone()));
            estimate.collection_ids.push(collection.id);
        }
        Ok(estimate)
    }
}
