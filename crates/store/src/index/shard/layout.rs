//! What of a spec becomes a shard's layout.

use crate::index::{EdgeConfig, LEXICAL, ShardSpec, filter};
use qdrant_edge as qe;
use std::collections::BTreeSet;
use strata_model::feature::{Distance, VectorIndex, VectorKind};

/// What of a spec decides a shard's layout.
pub(in crate::index) fn same_layout(a: &ShardSpec, b: &ShardSpec) -> bool {
    let vectors = |s: &ShardSpec| -> BTreeSet<String> {
        usable(s).map(|v| format!("{} {:?} {:?} {:?}", v.name, v.kind, v.dimensions, v.distance)).collect()
    };
    let payload = |s: &ShardSpec| -> BTreeSet<String> {
        let kept = s.payload.iter().filter(|p| filter::Stored::of(p).is_some());
        kept.map(|p| format!("{} {:?}", p.field, p.kind)).collect()
    };
    vectors(a) == vectors(b) && payload(a) == payload(b) && a.language == b.language
}

/// Vector indexes a shard can hold.
pub(super) fn usable(spec: &ShardSpec) -> impl Iterator<Item = &VectorIndex> {
    spec.vectors
        .iter()
        .filter(|v| v.name != LEXICAL && (v.kind == VectorKind::Sparse || v.dimensions.is_some_and(|d| d > 0)))
}

pub(super) fn engine_config(spec: &ShardSpec, config: &EdgeConfig) -> qe::EdgeConfig {
    let hnsw = qe::HnswIndexConfig {
        m: 16,
        ef_construct: 100,
        full_scan_threshold: config.full_scan_kilobytes,
        max_indexing_threads: 0,
        on_disk: None,
        payload_m: None,
        inline_storage: None,
    };
    let mut builder = qe::EdgeConfig::builder()
        .on_disk_payload(true)
        .hnsw_config(hnsw)
        .optimizers(qe::EdgeOptimizersConfig {
            default_segment_number: Some(8),
            indexing_threshold: Some(config.indexing_kilobytes),
            ..Default::default()
        })
        .wal_options(qe::WalOptions { segment_capacity: config.wal_segment_bytes, ..Default::default() })
        .sparse_vector(LEXICAL, qe::EdgeSparseVectorParams::builder().modifier(qe::Modifier::Idf).build());
    for index in usable(spec) {
        builder = match index.kind {
            VectorKind::Sparse => builder.sparse_vector(&index.name, qe::EdgeSparseVectorParams::builder().build()),
            VectorKind::Dense | VectorKind::MultiDense => {
                let distance = match index.distance {
                    Distance::Cosine => qe::Distance::Cosine,
                    Distance::Dot => qe::Distance::Dot,
                    Distance::Euclidean => qe::Distance::Euclid,
                };
                let mut params = qe::EdgeVectorParams::builder(index.dimensions.unwrap_or_default(), distance)
                    .on_disk(config.on_disk);
                if index.kind == VectorKind::MultiDense {
                    params = params
                        .multivector_config(qe::MultiVectorConfig { comparator: qe::MultiVectorComparator::MaxSim });
                }
                builder.vector(&index.name, params.build())
            }
        };
    }
    builder.build()
}
