//! Changes as the engine's points.

use super::Shard;
use super::fault::Fault;
use super::layout::usable;
use super::vectors::{sparse, vector};
use crate::index::{Change, LEXICAL, Point, filter};
use qdrant_edge as qe;
use std::collections::{BTreeMap, HashMap};

impl Shard {
    /// Applies changes of different documents. The caller excludes other updates and checkpoints.
    pub(in crate::index) fn apply(&self, changes: &[&Change]) -> Result<(), Fault> {
        let mut deleted = Vec::new();
        let mut points = Vec::new();
        // An upsert that moves a point between segments keeps the vectors it does not name.
        let mut missing: BTreeMap<Vec<String>, Vec<qe::PointId>> = BTreeMap::new();
        for change in changes {
            let Ok(id) = u64::try_from(change.document_seq).map(qe::PointId::NumId) else { continue };
            let Some(point) = &change.point else {
                deleted.push(id);
                continue;
            };
            let vectors = self.vectors(change.document_seq, point);
            let names = usable(&self.spec).map(|v| v.name.as_str()).chain([LEXICAL]);
            let absent: Vec<String> = names.filter(|n| !vectors.contains_key(*n)).map(str::to_owned).collect();
            if !absent.is_empty() {
                missing.entry(absent).or_default().push(id);
            }
            let payload = filter::payload(&self.spec.payload, &point.payload, &mut self.odd.lock());
            let vectors = qe::Vectors(qe::VectorStructInternal::Named(vectors));
            points.push(qe::PointStruct::new(id, vectors, serde_json::Value::Object(payload)).0);
        }
        if !deleted.is_empty() {
            self.update(qe::UpdateOperation::PointOperation(qe::PointOperations::DeletePoints { ids: deleted }))?;
        }
        if !points.is_empty() {
            let points = qe::PointInsertOperations::PointsList(points);
            self.update(qe::UpdateOperation::PointOperation(qe::PointOperations::UpsertPoints(points)))?;
        }
        for (names, ids) in missing {
            self.update(qe::UpdateOperation::VectorOperation(qe::VectorOperations::DeleteVectors(ids.into(), names)))?;
        }
        Ok(())
    }

    /// The vectors of a document that this shard can hold; others are logged and left out, because the catalog has
    /// already accepted the document.
    fn vectors(&self, document_seq: i64, point: &Point) -> HashMap<String, qe::VectorInternal> {
        let mut kept = HashMap::new();
        for (name, value) in &point.vectors {
            let vector = match usable(&self.spec).find(|v| v.name == *name) {
                None => Err("the shard has no such vector".to_owned()),
                Some(index) => vector(index, value),
            };
            match vector {
                Ok(vector) => {
                    kept.insert(name.clone(), vector);
                }
                Err(reason) => {
                    tracing::warn!(
                        collection_id = self.spec.collection_id,
                        document_seq,
                        "vector `{name}` is not indexed: {reason}"
                    );
                }
            }
        }
        if let (Some(text), Some(bm25)) = (&point.lexical, &self.bm25) {
            let words = bm25.embed_document(text);
            if !words.indices.is_empty() {
                match sparse(&words.indices, &words.values) {
                    Ok(vector) => {
                        kept.insert(LEXICAL.to_owned(), vector);
                    }
                    Err(reason) => {
                        tracing::warn!(
                            collection_id = self.spec.collection_id,
                            document_seq,
                            "words are not indexed: {reason}"
                        );
                    }
                }
            }
        }
        kept
    }
}
