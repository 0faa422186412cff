//! Vectors as callers send them, checked against what a collection's documents may carry.

use crate::collections::Collection;
use serde_json::Value;
use strata_model::{
    Error, Fields, Result,
    document::{VectorValue, Vectors},
    feature::{VectorIndex, VectorKind},
};

/// Most rows of a multi vector.
const MAX_ROWS: usize = 4096;
/// Most numbers of a sparse vector.
const MAX_SPARSE: usize = 65_536;

/// Reads `sent`: names to numbers, to rows of numbers, or to `{indices, values}`.
pub(super) fn check(collection: &Collection, sent: &Fields, at: &str) -> Result<Vectors> {
    let mut vectors = Vectors::new();
    for (name, value) in sent.iter().filter(|(_, value)| !value.is_null()) {
        let at = format!("{at}.{name}");
        let index = collection.vector_index(name).ok_or_else(|| {
            Error::invalid(&at, format!("the collection has no vector of this name; it has {}", listed(collection)))
        })?;
        vectors.insert(index.name.clone(), one(collection, index, value, &at)?);
    }
    Ok(vectors)
}

/// The names and sizes there are.
fn listed(collection: &Collection) -> String {
    let each: Vec<String> = collection.vector_indexes.iter().map(described).collect();
    if each.is_empty() { "none".to_owned() } else { each.join(", ") }
}

fn described(index: &VectorIndex) -> String {
    let size = index.dimensions.unwrap_or_default();
    match index.kind {
        VectorKind::Dense => format!("`{}` ({size} numbers)", index.name),
        VectorKind::MultiDense => format!("`{}` (rows of {size} numbers)", index.name),
        VectorKind::Sparse => format!("`{}` (sparse: `indices` and `values`)", index.name),
    }
}

fn one(collection: &Collection, index: &VectorIndex, value: &Value, at: &str) -> Result<VectorValue> {
    read(index, value).map_err(|why| Error::invalid(at, format!("{why}; the collection has {}", listed(collection))))
}

/// A vector as JSON has it, of the form and length that an index takes; or what is wrong with it.
pub(crate) fn read(index: &VectorIndex, value: &Value) -> Result<VectorValue, String> {
    let vector = match index.kind {
        VectorKind::Dense => VectorValue::Dense(numbers(value)?),
        VectorKind::MultiDense => VectorValue::Multi(rows(value)?),
        VectorKind::Sparse => sparse(value)?,
    };
    let lengths: Vec<usize> = match &vector {
        VectorValue::Dense(numbers) => vec![numbers.len()],
        VectorValue::Multi(rows) => rows.iter().map(Vec::len).collect(),
        VectorValue::Sparse { .. } => Vec::new(),
    };
    match lengths.iter().find(|length| Some(**length) != index.dimensions) {
        Some(wrong) => Err(format!("has {wrong} numbers")),
        None => Ok(vector),
    }
}

fn numbers(value: &Value) -> Result<Vec<f32>, String> {
    let list = value.as_array().ok_or("must be an array of numbers")?;
    let mut numbers = Vec::with_capacity(list.len());
    for (i, number) in list.iter().enumerate() {
        let number = number.as_f64().ok_or_else(|| format!("holds no number at {i}"))? as f32;
        if !number.is_finite() {
            return Err(format!("holds a number at {i} that is not finite"));
        }
        numbers.push(number);
    }
    Ok(numbers)
}

fn rows(value: &Value) -> Result<Vec<Vec<f32>>, String> {
    let list = value.as_array().ok_or("must be an array of rows")?;
    if list.is_empty() || list.len() > MAX_ROWS {
        return Err(format!("must have 1 to {MAX_ROWS} rows"));
    }
    list.iter().map(numbers).collect()
}

fn sparse(value: &Value) -> Result<VectorValue, String> {
    let (Some(indices), Some(values)) = (value.get("indices").and_then(Value::as_array), value.get("values")) else {
        return Err("must be an object with `indices` and `values`".into());
    };
    let values = numbers(values)?;
    if indices.len() != values.len() || values.len() > MAX_SPARSE {
        return Err(format!("must have as many `values` as `indices`, and at most {MAX_SPARSE}"));
    }
    let whole = |v: &Value| {
        let number = v.as_u64().or_else(|| v.as_f64().filter(|f| f.fract() == 0.0 && *f >= 0.0).map(|f| f as u64));
        number.and_then(|n| u32::try_from(n).ok()).ok_or("`indices` must be whole numbers from 0 to 4294967295")
    };
    let indices = indices.iter().map(whole).collect::<Result<Vec<u32>, _>>()?;
    let mut pairs: Vec<(u32, f32)> = indices.into_iter().zip(values).collect();
    pairs.sort_by_key(|(index, _)| *index);
    if pairs.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return Err("`indices` must differ".into());
    }
    let (indices, values) = pairs.into_iter().unzip();
    Ok(VectorValue::Sparse { indices, values })
}
