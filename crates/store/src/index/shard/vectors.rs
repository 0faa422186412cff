//! Vectors of documents and queries as the engine's.

use qdrant_edge as qe;
use strata_model::document::VectorValue;
use strata_model::feature::{VectorIndex, VectorKind};

/// A value as the index `index` holds it, or why it cannot. Zero vectors are allowed: cosine gives them score 0.
pub(super) fn vector(index: &VectorIndex, value: &VectorValue) -> Result<qe::VectorInternal, String> {
    if !value.is_finite() {
        return Err("it holds a number that is not finite".into());
    }
    let wanted = index.dimensions.unwrap_or_default();
    let length = |v: &[f32]| match v.len() == wanted {
        true => Ok(()),
        false => Err(format!("it has {} dimensions, not {wanted}", v.len())),
    };
    match (index.kind, value) {
        (VectorKind::Dense, VectorValue::Dense(numbers)) => {
            length(numbers)?;
            Ok(qe::Vector::new_dense(numbers.clone()).0)
        }
        (VectorKind::MultiDense, VectorValue::Multi(rows)) if rows.is_empty() => Err("it has no rows".into()),
        (VectorKind::MultiDense, VectorValue::Multi(rows)) => {
            rows.iter().try_for_each(|row| length(row))?;
            qe::Vector::new_multi(rows.clone()).map(|v| v.0).map_err(|e| e.to_string())
        }
        (VectorKind::MultiDense, VectorValue::Dense(row)) => {
            length(row)?;
            qe::Vector::new_multi(vec![row.clone()]).map(|v| v.0).map_err(|e| e.to_string())
        }
        (VectorKind::Sparse, VectorValue::Sparse { indices, values }) => sparse(indices, values),
        (kind, _) => Err(format!("it is not of kind {kind:?}")),
    }
}

/// A sparse vector with its indices sorted.
pub(super) fn sparse(indices: &[u32], values: &[f32]) -> Result<qe::VectorInternal, String> {
    if indices.len() != values.len() {
        return Err(format!("it has {} indices and {} values", indices.len(), values.len()));
    }
    let mut pairs: Vec<(u32, f32)> = indices.iter().copied().zip(values.iter().copied()).collect();
    pairs.sort_unstable_by_key(|pair| pair.0);
    if pairs.windows(2).any(|w| w[0].0 == w[1].0) {
        return Err("an index occurs twice".into());
    }
    let (indices, values): (Vec<u32>, Vec<f32>) = pairs.into_iter().unzip();
    qe::Vector::new_sparse(indices, values).map(|v| v.0).map_err(|e| e.to_string())
}
