//! One derivation up to its result: read the input, see whether anything changed, run the extractor if it did.

use crate::{
    Engine,
    collections::Collection,
    documents::{below_document, own_step},
    extract::{Attached, Configured, Input, InputFile, Output},
    objects::ObjectInput,
};
use serde_json::Value;
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
        let fingerprint = extractor.fingerprint(engine, &derivation.scope()).await?;
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
pub(super) struct Ready {
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
    Outputs(Vec<Elsewhere>),
    Nothing,
}

/// What one look into the catalog comes to.
pub(super) enum Look {
    Ready(Box<Ready>),
    /// The texts of its blobs are still to be read.
    Partial(ObjectInput),
}

impl Look {
    fn take(connection: &Connection, derivation: &Derivation, work: &Work) -> Result<Self> {
        match Source::read(connection, derivation)? {
            Source::Object(input) if input.texts().next().is_some() => Ok(Self::Partial(input)),
            whole => whole.ready(connection, derivation, work).map(|ready| Self::Ready(Box::new(ready))),
        }
    }
}

/// Looks of several derivations, in their order, in one read: for small inputs the way to the catalog is most of it. A
/// derivation without a look, for whatever reason, takes its own.
pub(super) async fn looks(
    engine: &Arc<Engine>,
    derivations: &[(Arc<Derivation>, Option<Arc<Work>>)],
) -> Vec<Option<Result<Look>>> {
    let all = derivations.to_vec();
    let read = engine.catalog.read(move |connection| {
        let one = |(derivation, work): &(Arc<Derivation>, Option<Arc<Work>>)| {
            work.as_ref().map(|work| Look::take(connection, derivation, work))
        };
        Ok(all.iter().map(one).collect())
    });
    match read.await {
        Ok(looks) => looks,
        Err(error) => {
            tracing::warn!(%error, "several inputs cannot be read together; each is read by itself");
            derivations.iter().map(|_| None).collect()
        }
    }
}

pub(super) async fn run(
    engine: &Arc<Engine>,
    derivation: &Arc<Derivation>,
    work: &Arc<Work>,
    look: Option<Result<Look>>,
) -> Result<Done> {
    let look = match look {
        Some(look) => look?,
        None => {
            let (of, with) = (derivation.clone(), work.clone());
            engine.catalog.read(move |connection| Look::take(connection, &of, &with)).await?
        }
    };
    // Held as long as the texts are.
    let mut _room = None;
    let ready = match look {
        Look::Ready(ready) => *ready,
        Look::Partial(mut input) => {
            _room = Some(engine.read_texts(&mut input).await?);
            let (of, with) = (derivation.clone(), work.clone());
            engine.catalog.read(move |connection| Source::Object(input).ready(connection, &of, &with)).await?
        }
    };
    let (outputs, reused) = match ready.known {
        Known::Documents => (None, true),
        Known::Outputs(found) => match held(engine, found).await {
            Some(outputs) => (Some(outputs), true),
            None => (Some(work.extractor.run(engine, ready.input).await?), false),
        },
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
        let (fields, mut source_blobs, hashes, attached) = match self {
            Self::Object(input) => {
                let attached = Attached { blobs: input.files(), ..Attached::default() };
                let blobs = input.blobs.iter().map(|b| SourceBlob {
                    blob_id: b.blob_id.clone(),
                    blob_property: b.property.clone(),
                    blob_type: b.blob_type.as_str().to_owned(),
                });
                (input.fields, blobs.collect(), input.blobs.iter().map(|b| b.hash.clone()).collect(), attached)
            }
            Self::Document(parent) => {
                let blobs = match work.extractor.definition.files().is_empty() {
                    true => Vec::new(),
                    false => root_files(connection, derivation, &parent)?,
                };
                let attached = Attached::of_document(&parent, blobs);
                (parent.fields, parent.source_blobs, Vec::new(), attached)
            }
        };
        let mut input = work.extractor.gather(fields, &work.schema, attached)?;
        input.scope = derivation.scope();
        // The first one stands for the document's media, so those that it is made of go before the others.
        source_blobs.sort_by_key(|blob| !work.extractor.reads(&input, blob));
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

/// The files of the object from which a document descends; none where it descends from no object that is there.
fn root_files(connection: &Connection, derivation: &Derivation, parent: &Document) -> Result<Vec<InputFile>> {
    let Some(object_id) = &parent.lineage.root_object_id else { return Ok(Vec::new()) };
    match objects::get(connection, &derivation.scope(), None, object_id) {
        Ok(object) => Ok(ObjectInput::from(object).files()),
        Err(Error::Missing { .. }) => Ok(Vec::new()),
        Err(other) => Err(other),
    }
}

/// The outputs of the same work done elsewhere in the organization, their artifacts as entries only.
fn taken_over(
    connection: &Connection,
    derivation: &Derivation,
    input_hash: &str,
    fingerprint: &str,
) -> Result<Option<Vec<Elsewhere>>> {
    let found = rows::same_work(connection, &derivation.organization_id, input_hash, fingerprint)?;
    let Some(other) = found.filter(|d| d.derivation_id != derivation.derivation_id) else { return Ok(None) };
    let made = rows::documents_of(connection, &other.scope(), &other.derivation_id)?;
    // Somebody may have deleted or edited some of them since: then the work is done anew.
    if made.len() as u64 != other.outputs || made.iter().any(|d| d.updated_at != d.created_at) {
        return Ok(None);
    }
    let outputs = made.into_iter().map(|d| {
        let vectors = documents::vectors(connection, d.seq)?;
        let key = documents::key(connection, d.seq)?;
        let output = Output { vectors, fields: d.fields, key, ..Output::default() };
        Ok(Elsewhere { output, artifacts: d.document_blobs })
    });
    outputs.collect::<Result<Vec<_>>>().map(Some)
}

/// An output that another derivation has made.
struct Elsewhere {
    output: Output,
    /// As its document has them.
    artifacts: Vec<Value>,
}

/// Takes hold of the artifacts. `None` where one is gone, so that the work is to be done anew.
async fn held(engine: &Engine, found: Vec<Elsewhere>) -> Option<Vec<Output>> {
    let mut outputs = Vec::with_capacity(found.len());
    for Elsewhere { mut output, artifacts } in found {
        for entry in artifacts {
            output.artifacts.push(engine.keep_again(&entry).await?);
        }
        outputs.push(output);
    }
    Some(outputs)
}
