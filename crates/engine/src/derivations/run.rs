//! One derivation up to its result: read the input, see whether anything changed, run the extractor if it did.

use crate::{
    Engine,
    collections::Collection,
    documents::{below_document, own_step},
    extract::{Configured, Input, Output},
    objects::ObjectInput,
};
use std::sync::Arc;
use strata_model::{
    Error, Result,
    document::{Document, Lineage, SourceBlob, SourceType},
    schema::Schema,
};
use strata_store::catalog::{
    derivations::{self as rows, Derivation, InputKind},
    documents, objects,
    rusqlite::Connection,
};

/// What the derivations of one collection have in common.
pub(super) struct Work {
    pub collection: Arc<Collection>,
    extractor: Configured,
    schema: Schema,
    fingerprint: String,
}

impl Work {
    /// Reads the collection of a derivation.
    pub async fn load(engine: &Arc<Engine>, derivation: &Derivation) -> Result<Self> {
        let collection = engine.collection(&derivation.scope(), &derivation.collection_id).await?;
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

/// The input of a derivation, whichever kind it is, as far as the catalog has it.
enum Source {
    Object(ObjectInput),
    Document(Box<Document>),
}

/// An input that is whole, and what is known of the work on it.
struct Ready {
    input: Input,
    input_hash: String,
    lineage: Lineage,
    source_blobs: Vec<SourceBlob>,
    known: Known,
}

/// What is there of a derivation's result.
enum Known {
    /// Its documents, from an earlier run.
    Documents,
    /// The outputs of the same work done elsewhere in the organization.
    Outputs(Vec<Output>),
    Nothing,
}

/// What one look into the catalog comes to.
enum Look {
    Ready(Box<Ready>),
    /// The texts of its blobs are still to be read.
    Partial(ObjectInput),
}

pub(super) async fn run(engine: &Arc<Engine>, derivation: &Arc<Derivation>, work: &Arc<Work>) -> Result<Done> {
    let (of, with) = (derivation.clone(), work.clone());
    let look = move |connection: &Connection| {
        let source = Source::read(connection, &of)?;
        match source {
            Source::Object(input) if input.texts().next().is_some() => Ok(Look::Partial(input)),
            whole => whole.ready(connection, &of, &with).map(|ready| Look::Ready(Box::new(ready))),
        }
    };
    // Held as long as the texts are.
    let mut _room = None;
    let ready = match engine.catalog.read(look).await? {
        Look::Ready(ready) => *ready,
        Look::Partial(mut input) => {
            _room = Some(engine.read_texts(&mut input).await?);
            let (of, with) = (derivation.clone(), work.clone());
            engine.catalog.read(move |connection| Source::Object(input).ready(connection, &of, &with)).await?
        }
    };
    let (outputs, reused) = match ready.known {
        Known::Documents => (None, true),
        Known::Outputs(outputs) => (Some(outputs), true),
        Known::Nothing => (Some(work.extractor.run(engine, ready.input).await?), false),
    };
    Ok(Done {
        input_hash: ready.input_hash,
        fingerprint: work.fingerprint.clone(),
        outputs,
        reused,
        lineage: ready.lineage,
        source_blobs: ready.source_blobs,
    })
}

impl Source {
    fn read(connection: &Connection, derivation: &Derivation) -> Result<Self> {
        let (scope, id) = (derivation.scope(), &derivation.input_id);
        match derivation.input_kind {
            InputKind::Object => Ok(Self::Object(objects::get(connection, &scope, None, id)?.into())),
            InputKind::Document => Ok(Self::Document(Box::new(documents::get(connection, &scope, None, id)?))),
        }
    }

    fn ready(self, connection: &Connection, derivation: &Derivation, work: &Work) -> Result<Ready> {
        let lineage = self.lineage(&work.collection);
        let (fields, source_blobs, hashes) = match self {
            Self::Object(input) => {
                let blobs = input.blobs.iter().map(|b| SourceBlob {
                    blob_id: b.blob_id.clone(),
                    blob_property: b.property.clone(),
                    blob_type: b.blob_type.as_str().to_owned(),
                });
                (input.fields, blobs.collect(), input.blobs.iter().map(|b| b.hash.clone()).collect())
            }
            Self::Document(parent) => (parent.fields, parent.source_blobs, Vec::new()),
        };
        let input = work.extractor.gather(fields, &work.schema);
        let input_hash = work.extractor.input_hash(&input, &hashes)?;
        let unchanged = derivation.input_hash.as_deref() == Some(&*input_hash)
            && derivation.extractor_fingerprint.as_deref() == Some(&*work.fingerprint);
        let known = match unchanged {
            true => Known::Documents,
            false => match taken_over(connection, derivation, &input_hash, &work.fingerprint)? {
                Some(outputs) => Known::Outputs(outputs),
                None => Known::Nothing,
            },
        };
        Ok(Ready { input, input_hash, lineage, source_blobs, known })
    }

    fn lineage(&self, collection: &Collection) -> Lineage {
        match self {
            Self::Object(object) => Lineage {
                root_object_id: Some(object.object_id.clone()),
                root_bucket_id: Some(object.bucket_id.clone()),
                source_type: Some(SourceType::Bucket),
                source_object_id: Some(object.object_id.clone()),
                path: Some(format!("{}/{}", object.bucket_id, collection.id)),
                chain: vec![own_step(collection, None)],
                ..Lineage::default()
            },
            Self::Document(parent) => below_document(parent, collection, None),
        }
    }
}

/// The outputs of the same work done elsewhere in the organization.
fn taken_over(
    connection: &Connection,
    derivation: &Derivation,
    input_hash: &str,
    fingerprint: &str,
) -> Result<Option<Vec<Output>>> {
    let found = rows::same_work(connection, &derivation.organization_id, input_hash, fingerprint)?;
    let Some(other) = found.filter(|d| d.derivation_id != derivation.derivation_id) else { return Ok(None) };
    let made = rows::documents_of(connection, &other.scope(), &other.derivation_id)?;
    // Somebody may have deleted or edited some of them since: then the work is done anew.
    if made.len() as u64 != other.outputs || made.iter().any(|d| d.updated_at != d.created_at) {
        return Ok(None);
    }
    let outputs =
        made.into_iter().map(|d| Ok(Output { vectors: documents::vectors(connection, d.seq)?, fields: d.fields }));
    outputs.collect::<Result<Vec<_>>>().map(Some)
}
