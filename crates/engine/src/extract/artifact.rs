//! Artifacts: files that an extractor makes beside a document, such as a thumbnail. Their bytes are stored before the
//! document is, and held until its transaction is over.

use super::InputFile;
use crate::Engine;
use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};
use std::{path::Path, sync::Arc};
use strata_media::limits::MAX_MADE_FILE_BYTES;
use strata_model::{Error, Result};
use strata_store::{Held, catalog::artifacts};
use tokio::io::AsyncReadExt;

/// Bytes of a file that are read at once.
const PIECE_BYTES: usize = 256 << 10;

/// A file to be kept.
#[derive(Debug, Clone)]
pub struct NewArtifact<'a> {
    /// Its name among the document's artifacts; the document's field `{field}_url` names it, too.
    pub field: &'a str,
    /// `thumbnail`, `processed` or `artifact`.
    pub role: &'static str,
    pub media_type: &'a str,
    pub filename: String,
    /// The file that it was made of.
    pub of: Option<&'a InputFile>,
}

/// A file that is stored.
#[derive(Clone)]
pub struct Artifact {
    /// As `document_blobs` has it.
    pub entry: Value,
    held: Arc<Held>,
}

impl std::fmt::Debug for Artifact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.entry.fmt(f)
    }
}

impl Artifact {
    /// SHA-256 of the bytes, in hex.
    pub fn hash(&self) -> &str {
        self.held.hash()
    }
    pub fn size_bytes(&self) -> u64 {
        self.held.size_bytes()
    }
    pub fn media_type(&self) -> &str {
        self.entry.get("content_type").and_then(Value::as_str).unwrap_or("application/octet-stream")
    }
    /// What the document's fields call it.
    pub fn url(&self) -> &str {
        self.entry.get("url").and_then(Value::as_str).unwrap_or_default()
    }
}

impl Engine {
    /// Stores an artifact's bytes, durably.
    pub(crate) async fn keep_artifact(&self, new: NewArtifact<'_>, bytes: impl Into<Bytes>) -> Result<Artifact> {
        Ok(named(&new, self.blobs.put_held(bytes.into()).await?))
    }

    /// Stores a file as an artifact, piece by piece.
    pub(crate) async fn keep_file(&self, new: NewArtifact<'_>, path: &Path) -> Result<Artifact> {
        let file = tokio::fs::File::open(path).await.map_err(Error::internal)?;
        let pieces = futures::stream::try_unfold(file, |mut file| async move {
            let mut piece = BytesMut::with_capacity(PIECE_BYTES);
            let read = file.read_buf(&mut piece).await.map_err(Error::internal)?;
            Ok((read > 0).then(|| (piece.freeze(), file)))
        });
        Ok(named(&new, self.blobs.put_stream(pieces, MAX_MADE_FILE_BYTES).await?))
    }
    /// An artifact of another document once more, for the same work done again; `None` where its bytes are gone.
    pub(crate) async fn keep_again(&self, entry: &Value) -> Option<Artifact> {
        let hash = entry.get(artifacts::HASH).and_then(Value::as_str)?;
        let held = self.blobs.hold(hash).await.ok()?;
        Some(Artifact { entry: entry.clone(), held: Arc::new(held) })
    }
}

/// What `document_blobs` says of stored content.
fn named(new: &NewArtifact<'_>, held: Held) -> Artifact {
    let kind = match new.media_type.split_once('/') {
        Some((kind @ ("video" | "image" | "audio" | "text"), _)) => kind,
        _ if new.media_type == "application/pdf" => "pdf",
        _ => "other",
    };
    let entry = json!({
        "field": new.field,
        "role": new.role,
        "type": kind,
        "url": format!("blobs/{}", held.hash()),
        "filename": new.filename,
        "size_bytes": held.size_bytes(),
        "content_type": new.media_type,
        "checksum": format!("sha256:{}", held.hash()),
        "source_blob_id": new.of.and_then(|file| file.blob_id.as_deref()),
        artifacts::HASH: held.hash(),
    });
    Artifact { entry, held: Arc::new(held) }
}
