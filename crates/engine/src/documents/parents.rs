//! The lineage of a document that is created directly: what the caller claims, checked against the parent and completed
//! from it.

use super::text_of;
use crate::collections::Collection;
use serde_json::Value;
use strata_model::{
    Error, FieldError, Fields, Result, Scope,
    document::{Document, Lineage, LineageStep, SourceType},
};
use strata_store::catalog::{
    documents, lineage,
    resources::{self, Kind},
    rusqlite::Connection,
};

/// Most steps of a lineage.
const MAX_STEPS: usize = 256;

/// What a caller says about a document's lineage.
pub(super) type Claim = Lineage;

/// Takes the claims out of a request.
pub(super) fn claim(fields: &mut Fields) -> Result<Claim> {
    let source_type = match text_of(fields, "source_type")? {
        None => None,
        Some(text) => Some(SourceType::parse(&text).ok_or_else(|| {
            Error::invalid("source_type", format!("`{text}` is not one of bucket, collection, direct_upsert, signal"))
        })?),
    };
    let chain = match fields.remove("lineage_chain") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(list)) if list.len() > MAX_STEPS => {
            return Err(Error::invalid("lineage_chain", format!("has at most {MAX_STEPS} steps")));
        }
        Some(Value::Array(list)) => {
            let step = |(i, step): (usize, Value)| {
                serde_json::from_value::<LineageStep>(step)
                    .map_err(|e| Error::invalid(format!("lineage_chain.{i}"), e.to_string()))
            };
            list.into_iter().enumerate().map(step).collect::<Result<_>>()?
        }
        Some(_) => return Err(Error::invalid("lineage_chain", "must be an array of steps")),
    };
    Ok(Lineage {
        root_object_id: text_of(fields, "root_object_id")?,
        root_bucket_id: text_of(fields, "root_bucket_id")?,
        source_type,
        source_collection_id: text_of(fields, "source_collection_id")?,
        source_document_id: text_of(fields, "source_document_id")?,
        source_object_id: text_of(fields, "source_object_id")?,
        path: text_of(fields, "lineage_path")?,
        chain,
    })
}

/// The lineage of a document of `collection` about which `claim` is said. A parent that exists decides; one that does not
/// is refused, unless `allow_missing`.
pub(super) fn complete(
    connection: &Connection,
    scope: &Scope,
    collection: &Collection,
    claim: Claim,
    allow_missing: bool,
    now: &str,
) -> Result<Lineage> {
    if let Some(id) = &claim.source_document_id {
        match documents::get(connection, scope, None, id) {
            Ok(parent) => return agreed(below_document(&parent, collection, Some(now)), claim),
            Err(Error::Missing { .. }) if allow_missing => {}
            Err(Error::Missing { .. }) => return Err(absent("source_document_id", "document", id)),
            Err(other) => return Err(other),
        }
    }
    if !allow_missing {
        exists(connection, scope, Kind::Collection, "source_collection_id", claim.source_collection_id.as_deref())?;
    }
    let objects =
        [("source_object_id", claim.source_object_id.clone()), ("root_object_id", claim.root_object_id.clone())];
    for (field, object) in objects {
        let Some(object) = object else { continue };
        match lineage::bucket_of(connection, scope, &object)? {
            Some(bucket) => return agreed(below_object(&object, &bucket, collection, &claim, now), claim),
            None if allow_missing => {}
            None => return Err(absent(field, "object", &object)),
        }
    }
    if !allow_missing {
        exists(connection, scope, Kind::Bucket, "root_bucket_id", claim.root_bucket_id.as_deref())?;
    }
    Ok(alone(collection, claim))
}

fn absent(field: &str, what: &str, id: &str) -> Error {
    let message = format!("the {what} `{id}` does not exist; `allow_missing_parents=true` takes it as said");
    Error::invalid(field, message)
}

fn exists(connection: &Connection, scope: &Scope, kind: Kind, field: &str, id: Option<&str>) -> Result<()> {
    let Some(id) = id else { return Ok(()) };
    match resources::find(connection, kind, scope, id)? {
        Some(found) if found.id == id => Ok(()),
        _ => Err(absent(field, kind.name(), id)),
    }
}

/// The step of a document of `collection`; a derivation learns its time when it ends.
pub(crate) fn own_step(collection: &Collection, now: Option<&str>) -> LineageStep {
    LineageStep {
        collection_id: collection.id.clone(),
        feature_extractor_id: collection.extractor_id(),
        document_id: None,
        timestamp: now.map(str::to_owned),
    }
}

/// The lineage of what is made in `collection` from a document.
pub(crate) fn below_document(parent: &Document, collection: &Collection, now: Option<&str>) -> Lineage {
    let mut chain = parent.lineage.chain.clone();
    if let Some(last) = chain.last_mut() {
        last.document_id.get_or_insert_with(|| parent.document_id.clone());
    }
    chain.push(own_step(collection, now));
    let above = parent.lineage.path.as_deref().unwrap_or(&parent.collection_id);
    Lineage {
        root_object_id: parent.lineage.root_object_id.clone(),
        root_bucket_id: parent.lineage.root_bucket_id.clone(),
        source_type: Some(SourceType::Collection),
        source_collection_id: Some(parent.collection_id.clone()),
        source_document_id: Some(parent.document_id.clone()),
        source_object_id: None,
        path: Some(format!("{above}/{}", collection.id)),
        chain,
    }
}

fn below_object(object: &str, bucket: &str, collection: &Collection, claim: &Claim, now: &str) -> Lineage {
    let source_type = claim.source_type.unwrap_or(SourceType::Bucket);
    let through = claim.source_collection_id.as_ref().filter(|_| source_type == SourceType::Collection);
    let path = match (through, &claim.path) {
        (None, _) => format!("{bucket}/{}", collection.id),
        // Through which documents it came is not known, so the caller's word counts.
        (Some(_), Some(path)) => path.clone(),
        (Some(through), None) => format!("{bucket}/{through}/{}", collection.id),
    };
    let chain = match through {
        Some(_) if !claim.chain.is_empty() => claim.chain.clone(),
        _ => vec![own_step(collection, Some(now))],
    };
    Lineage {
        root_object_id: Some(object.to_owned()),
        root_bucket_id: Some(bucket.to_owned()),
        source_type: Some(source_type),
        source_collection_id: through.cloned(),
        source_document_id: claim.source_document_id.clone(),
        source_object_id: (source_type == SourceType::Bucket).then(|| object.to_owned()),
        path: Some(path),
        chain,
    }
}

/// A document without a known parent: the claim, with what follows from it.
fn alone(collection: &Collection, claim: Claim) -> Lineage {
    let implied = match (&claim.source_document_id, &claim.source_object_id) {
        (Some(_), _) => SourceType::Collection,
        (None, Some(_)) => SourceType::Bucket,
        (None, None) => SourceType::DirectUpsert,
    };
    let path = claim.path.clone().or_else(|| claim.root_bucket_id.as_ref().map(|b| format!("{b}/{}", collection.id)));
    Lineage { source_type: Some(claim.source_type.unwrap_or(implied)), path, ..claim }
}

/// `known`, unless the claim says something else: then both values are named.
fn agreed(mut known: Lineage, claim: Claim) -> Result<Lineage> {
    let mut wrong = Vec::new();
    let mut differ = |field: &str, said: Option<&str>, is: Option<&str>| {
        if let (Some(said), Some(is)) = (said, is)
            && said != is
        {
            wrong.push(FieldError::new(field, format!("is `{said}`, but by its parent it is `{is}`")));
        }
    };
    let root = known.root_object_id.as_deref();
    differ("root_object_id", claim.root_object_id.as_deref(), root);
    differ("root_bucket_id", claim.root_bucket_id.as_deref(), known.root_bucket_id.as_deref());
    differ("source_type", claim.source_type.map(SourceType::as_str), known.source_type.map(SourceType::as_str));
    differ("source_collection_id", claim.source_collection_id.as_deref(), known.source_collection_id.as_deref());
    differ("source_object_id", claim.source_object_id.as_deref(), known.source_object_id.as_deref().or(root));
    differ("lineage_path", claim.path.as_deref(), known.path.as_deref());
    if let Some(own) = same_steps(&claim.chain, &known.chain) {
        if let (Some(last), Some(own)) = (known.chain.last_mut(), own) {
            last.feature_extractor_id = own;
        }
    } else {
        let words = |chain: &[LineageStep]| {
            let each: Vec<String> =
                chain.iter().map(|s| format!("{}:{}", s.collection_id, s.feature_extractor_id)).collect();
            each.join(" > ")
        };
        let message = format!("is `{}`, but by its parent it is `{}`", words(&claim.chain), words(&known.chain));
        wrong.push(FieldError::new("lineage_chain", message));
    }
    if wrong.is_empty() { Ok(known) } else { Err(Error::Invalid(wrong)) }
}

/// Whether `said` are the steps of `known`, with or without the document's own; `None` if not. The name of the own step's
/// extractor is the caller's to choose and answered where it is said.
fn same_steps(said: &[LineageStep], known: &[LineageStep]) -> Option<Option<String>> {
    if said.is_empty() {
        return Some(None);
    }
    let (own, above) = known.split_last()?;
    let (own_said, above_said) = match said.split_last() {
        Some((last, rest)) if said.len() == known.len() => (Some(last), rest),
        _ => (None, said),
    };
    let same = |a: &LineageStep, b: &LineageStep| {
        a.collection_id == b.collection_id && a.feature_extractor_id == b.feature_extractor_id
    };
    let fits = above_said.len() == above.len()
        && above_said.iter().zip(above).all(|(a, b)| same(a, b))
        && own_said.is_none_or(|said| said.collection_id == own.collection_id);
    fits.then(|| own_said.map(|said| said.feature_extractor_id.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(collection: &str, extractor: &str) -> LineageStep {
        LineageStep {
            collection_id: collection.into(),
            feature_extractor_id: extractor.into(),
            document_id: None,
            timestamp: None,
        }
    }

    fn known() -> Lineage {
        Lineage {
            root_object_id: Some("obj_1".into()),
            root_bucket_id: Some("bkt_1".into()),
            source_type: Some(SourceType::Collection),
            source_collection_id: Some("col_1".into()),
            source_document_id: Some("doc_1".into()),
            source_object_id: None,
            path: Some("bkt_1/col_1/col_2".into()),
            chain: vec![step("col_1", "a_v1"), step("col_2", "b_v1")],
        }
    }

    #[test]
    fn a_claim_that_agrees_or_is_silent_is_taken() {
        assert_eq!(agreed(known(), Claim::default()).unwrap(), known());
        let claim =
            Claim { root_object_id: Some("obj_1".into()), chain: vec![step("col_1", "a_v1")], ..Claim::default() };
        assert_eq!(agreed(known(), claim).unwrap(), known());
        let claim = Claim { chain: vec![step("col_1", "a_v1"), step("col_2", "mine_v2")], ..Claim::default() };
        assert_eq!(agreed(known(), claim).unwrap().chain[1].feature_extractor_id, "mine_v2");
    }

    #[test]
    fn a_claim_that_disagrees_is_refused_with_both_values() {
        let claim = Claim {
            root_object_id: Some("obj_2".into()),
            path: Some("bkt_1/col_2".into()),
            chain: vec![step("col_9", "a_v1")],
            ..Claim::default()
        };
        let Err(Error::Invalid(wrong)) = agreed(known(), claim) else { panic!("taken") };
        let fields: Vec<&str> = wrong.iter().map(|w| w.field.as_str()).collect();
        assert_eq!(fields, ["root_object_id", "lineage_path", "lineage_chain"]);
        assert!(wrong[0].message.contains("obj_2") && wrong[0].message.contains("obj_1"), "{}", wrong[0].message);
    }

    #[test]
    fn claims_are_taken_out_of_the_request_and_null_is_silence() {
        let mut fields = serde_json::json!({ "root_object_id": null, "source_type": "signal", "title": "x" })
            .as_object()
            .unwrap()
            .clone();
        let claim = claim(&mut fields).unwrap();
        assert_eq!((claim.root_object_id, claim.source_type), (None, Some(SourceType::Signal)));
        assert_eq!(fields.len(), 1);
        let mut wrong = serde_json::json!({ "source_type": "nowhere" }).as_object().unwrap().clone();
        assert!(super::claim(&mut wrong).is_err());
    }
}
