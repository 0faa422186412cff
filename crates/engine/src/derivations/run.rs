//! One derivation up to its result: read the input, see whether anything changed, run the extractor if it did.

use crate::{
    Engine,
    collections::{self, Collection},
    extract::{Configured, Output},
};
use std::sync::Arc;
use strata_model::{
    Error, Fields, Result, Scope,
    document::{Lineage, LineageStep, SourceBlob, SourceType},
    schema::Schema,
};
use strata_store::catalog::{
    derivations::{self as rows, Derivation, InputKind},
    documents,
};
use tokio::sync::OwnedSemaphorePermit;

/// What the derivations of one collection have in common.
pub(super) struct Work {
    pub collection: Collection,
    extractor: Configured,
    schema: Schema,
    fingerprint: String,
}

impl Work {
    /// Reads the collection of a derivation.
    pub async fn load(engine: &Arc<Engine>, derivation: &Derivation) -> Result<Self> {
        let (scope, id) = (derivation.scope(), derivation.collection_id.clone());
        let collection = engine.catalog.read(move |c| collections::load_collection(c, &scope, &id)).await?;
        let extractor = collection.extractor.clone();
        let extractor =
            extractor.ok_or_else(|| Error::invalid("feature_extractor", "the collection has no extractor"))?;
        let schema = Schema::parse(&collection.input_schema, "input_schema")?;
        let fingerprint = extractor.fingerprint(engine).await?;
        Ok(Self { collection, extractor, schema, fingerprint })
    }
}

/// What a run found out. `outputs` is `None` when the documents that are there are still right.
pub(super) struct Done {
    pub input_hash: String,
    pub fingerprint: String,
    pub outputs: Option<Vec<Output>>,
    /// No model ran.
    pub reused: bool,
    /// Lineage of each document but for the last step's time.
    pub lineage: Lineage,
    pub source_blobs: Vec<SourceBlob>,
}

/// The input of a derivation, whichever kind it is.
struct Source {
    fields: Fields,
    blob_hashes: Vec<String>,
    source_blobs: Vec<SourceBlob>,
    lineage: Lineage,
    /// Its share of the memory for inputs.
    _room: Option<OwnedSemaphorePermit>,
}

pub(super) async fn run(engine: &Arc<Engine>, derivation: &Derivation, work: &Work) -> Result<Done> {
    let scope = derivation.scope();
    let Work { collection, extractor, schema, fingerprint } = work;
    let source = match derivation.input_kind {
        InputKind::Object => object(engine, &scope, derivation, collection).await?,
        InputKind::Document => document(engine, &scope, derivation, collection).await?,
    };
    let input = extractor.gather(source.fields, schema);
    let input_hash = extractor.input_hash(&input, &source.blob_hashes)?;
    let unchanged = derivation.input_hash.as_deref() == Some(&*input_hash)
        && derivation.extractor_fingerprint.as_deref() == Some(&**fingerprint);
    let (outputs, reused) = if unchanged {
        (None, true)
    } else if let Some(outputs) = taken_over(engine, derivation, &input_hash, fingerprint).await? {
        (Some(outputs), true)
    } else {
        (Some(extractor.run(engine, input).await?), false)
    };
    Ok(Done {
        input_hash,
        fingerprint: fingerprint.clone(),
        outputs,
        reused,
        lineage: source.lineage,
        source_blobs: source.source_blobs,
    })
}

/// The outputs of the same work done elsewhere in the organization.
async fn taken_over(
    engine: &Arc<Engine>,
    derivation: &Derivation,
    input_hash: &str,
    fingerprint: &str,
) -> Result<Option<Vec<Output>>> {
    let (organization, hash, print) =
        (derivation.organization_id.clone(), input_hash.to_owned(), fingerprint.to_owned());
    let own = derivation.derivation_id.clone();
    engine
        .catalog
        .read(move |c| {
            let Some(other) = rows::same_work(c, &organization, &hash, &print)?.filter(|d| d.derivation_id != own)
            else {
                return Ok(None);
            };
            let made = rows::documents_of(c, &other.scope(), &other.derivation_id)?;
            // Somebody may have deleted or edited some of them since: then the work is done anew.
            if made.len() as u64 != other.outputs || made.iter().any(|d| d.updated_at != d.created_at) {
                return Ok(None);
            }
            let outputs =
                made.into_iter().map(|d| Ok(Output { vectors: documents::vectors(c, d.seq)?, fields: d.fields }));
            outputs.collect::<Result<Vec<_>>>().map(Some)
        })
        .await
}

fn step(collection: &Collection) -> LineageStep {
    let extractor = collection.extractor.as_ref().map(|e| e.definition.id()).unwrap_or_default();
    LineageStep {
        collection_id: collection.id.clone(),
        feature_extractor_id: extractor,
        document_id: None,
        timestamp: None,
    }
}

async fn object(
    engine: &Arc<Engine>,
    scope: &Scope,
    derivation: &Derivation,
    collection: &Collection,
) -> Result<Source> {
    let (object, room) = engine.object_input(scope, &derivation.input_id).await?;
    let lineage = Lineage {
        root_object_id: Some(object.object_id.clone()),
        root_bucket_id: Some(object.bucket_id.clone()),
        source_type: Some(SourceType::Bucket),
        source_object_id: Some(object.object_id.clone()),
        path: Some(format!("{}/{}", object.bucket_id, collection.id)),
        chain: vec![step(collection)],
        ..Lineage::default()
    };
    let source_blobs = object.blobs.iter().map(|b| SourceBlob {
        blob_id: b.blob_id.clone(),
        blob_property: b.property.clone(),
        blob_type: b.blob_type.as_str().to_owned(),
    });
    Ok(Source {
        blob_hashes: object.blobs.iter().map(|b| b.hash.clone()).collect(),
        source_blobs: source_blobs.collect(),
        fields: object.fields,
        lineage,
        _room: Some(room),
    })
}

async fn document(
    engine: &Arc<Engine>,
    scope: &Scope,
    derivation: &Derivation,
    collection: &Collection,
) -> Result<Source> {
    let (at, id) = (scope.clone(), derivation.input_id.clone());
    let parent = engine.catalog.read(move |c| documents::get(c, &at, None, &id)).await?;
    let mut chain = parent.lineage.chain.clone();
    if let Some(last) = chain.last_mut() {
        last.document_id.get_or_insert_with(|| parent.document_id.clone());
    }
    chain.push(step(collection));
    let above = parent.lineage.path.clone().unwrap_or_else(|| parent.collection_id.clone());
    let lineage = Lineage {
        root_object_id: parent.lineage.root_object_id.clone(),
        root_bucket_id: parent.lineage.root_bucket_id.clone(),
        source_type: Some(SourceType::Collection),
        source_collection_id: Some(parent.collection_id.clone()),
        source_document_id: Some(parent.document_id.clone()),
        source_object_id: None,
        path: Some(format!("{above}/{}", collection.id)),
        chain,
    };
    Ok(Source {
        fields: parent.fields,
        blob_hashes: Vec::new(),
        source_blobs: parent.source_blobs,
        lineage,
        // A document is small: it was derived, or came in a request.
        _room: None,
    })
}
