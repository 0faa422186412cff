//! The vector indexes that callers bring, as they write them.

use serde_json::Value;
use strata_model::{
    Error, Result,
    feature::{Distance, VectorIndex, VectorKind},
    limits,
};

/// Most vector indexes of one collection.
pub(crate) const MAX_INDEXES: usize = 32;

/// Reads `vector_indexes` and `vector_configs`: arrays of `{name, dimension | dimensions, type, metric | distance}`, the
/// settings at the root or under `index`; or a map from name to settings.
pub(crate) fn parse(json: &Value, at: &str) -> Result<Vec<VectorIndex>> {
    let mut found: Vec<VectorIndex> = Vec::new();
    match json {
        Value::Null => {}
        Value::Array(list) => {
            for (i, entry) in list.iter().enumerate() {
                let at = format!("{at}.{i}");
                let name = entry.get("name").and_then(Value::as_str);
                found.push(one(name.ok_or_else(|| Error::invalid(format!("{at}.name"), "is required"))?, entry, &at)?);
            }
        }
        Value::Object(map) => {
            for (name, entry) in map {
                found.push(one(name, entry, &format!("{at}.{name}"))?);
            }
        }
        _ => return Err(Error::invalid(at, "must be an array of `{name, dimension}`")),
    }
    if found.len() > MAX_INDEXES {
        return Err(Error::invalid(at, format!("a collection has at most {MAX_INDEXES} vector indexes")));
    }
    for (i, index) in found.iter().enumerate() {
        if found[..i].iter().any(|before| before.name == index.name) {
            return Err(Error::invalid(at, format!("`{}` is named twice", index.name)));
        }
    }
    Ok(found)
}

fn one(name: &str, entry: &Value, at: &str) -> Result<VectorIndex> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'@');
    if name.is_empty() || name.len() > 255 || !name.bytes().all(fits) {
        return Err(Error::invalid(format!("{at}.name"), "must be 1 to 255 letters, digits or `_-.@`"));
    }
    let setting = |keys: &[&str]| {
        let inside = entry.get("index").filter(|i| i.is_object());
        let places = [Some(entry), inside];
        let found = keys.iter().flat_map(|key| places.iter().flatten().filter_map(move |place| place.get(*key)));
        found.into_iter().find(|v| !v.is_null()).cloned()
    };
    let kind = match setting(&["type", "kind"]).as_ref().and_then(Value::as_str) {
        None | Some("dense" | "single") => VectorKind::Dense,
        Some("sparse") => VectorKind::Sparse,
        Some("multi_dense" | "multi") => VectorKind::MultiDense,
        Some(other) => {
            return Err(Error::invalid(
                format!("{at}.type"),
                format!("`{other}` is not one of dense, sparse, multi_dense"),
            ));
        }
    };
    let size = setting(&["dimension", "dimensions", "size"]);
    let dimensions = size.as_ref().and_then(Value::as_u64).and_then(|d| usize::try_from(d).ok());
    let dimensions = match (kind, dimensions) {
        (VectorKind::Sparse, _) => None,
        (_, Some(d)) if (1..=limits::MAX_DIMENSIONS).contains(&d) => Some(d),
        _ => {
            let message = format!("must be a number from 1 to {}", limits::MAX_DIMENSIONS);
            return Err(Error::invalid(format!("{at}.dimension"), message));
        }
    };
    let distance =
        match setting(&["metric", "distance"]).as_ref().map(|d| d.as_str().unwrap_or_default().to_lowercase()) {
            None => Distance::Cosine,
            Some(d) if d == "cosine" => Distance::Cosine,
            Some(d) if d == "dot" || d == "dotproduct" => Distance::Dot,
            Some(d) if d == "euclidean" || d == "euclid" || d == "l2" => Distance::Euclidean,
            Some(_) => return Err(Error::invalid(format!("{at}.metric"), "must be cosine, dot or euclidean")),
        };
    let uri = entry.get("feature_uri").and_then(Value::as_str).filter(|u| !u.is_empty());
    Ok(VectorIndex {
        name: name.to_owned(),
        feature_uri: uri.unwrap_or(name).to_owned(),
        kind,
        dimensions,
        distance,
        model: String::new(),
        aliases: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_spellings_of_a_vector_index_are_one() {
        let want = VectorIndex {
            name: "mine".into(),
            feature_uri: "mine".into(),
            kind: VectorKind::Dense,
            dimensions: Some(4),
            distance: Distance::Dot,
            model: String::new(),
            aliases: vec![],
        };
        for spelling in [
            json!([{ "name": "mine", "dimension": 4, "metric": "dot" }]),
            json!([{ "name": "mine", "type": "single", "index": { "dimensions": 4, "distance": "dot", "type": "dense" } }]),
            json!({ "mine": { "dimensions": 4, "distance": "Dot" } }),
        ] {
            assert_eq!(parse(&spelling, "v").unwrap(), std::slice::from_ref(&want), "{spelling}");
        }
        let sparse = parse(&json!([{ "name": "words", "type": "sparse" }]), "v").unwrap();
        assert_eq!((sparse[0].kind, sparse[0].dimensions), (VectorKind::Sparse, None));
    }

    #[test]
    fn a_vector_index_without_a_size_is_refused_by_place() {
        for (json, place) in [
            (json!([{ "name": "a" }]), "v.0.dimension"),
            (json!([{ "dimension": 3 }]), "v.0.name"),
            (json!([{ "name": "a", "dimension": 0 }]), "v.0.dimension"),
            (json!([{ "name": "a", "dimension": 3, "metric": "far" }]), "v.0.metric"),
            (json!([{ "name": "a", "dimension": 3 }, { "name": "a", "dimension": 3 }]), "v"),
            (json!("a"), "v"),
        ] {
            let Err(Error::Invalid(list)) = parse(&json, "v") else { panic!("{json} is taken") };
            assert_eq!(list[0].field, place, "{json}");
        }
    }
}
