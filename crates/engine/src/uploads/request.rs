//! What a caller announces about the bytes that will come, checked.

use crate::{buckets::Bucket, objects};
use strata_model::{Error, FieldError, Fields, Result, limits, schema::FieldType};

const MIN_SECONDS: i64 = 60;
const MAX_SECONDS: i64 = limits::MAX_PRESIGN_SECONDS;
/// The property of a bucket whose schema has no field.
const FREE_PROPERTY: &str = "file";

/// An upload to be.
#[derive(Debug, Clone)]
pub struct NewUpload {
    pub filename: String,
    pub content_type: String,
    pub file_size_bytes: Option<u64>,
    pub expiration_seconds: Option<i64>,
    pub metadata: Fields,
    pub create_object_on_confirm: bool,
    /// Fields of the object.
    pub object_metadata: Option<Fields>,
    pub blob_property: Option<String>,
    pub blob_type: Option<String>,
    /// SHA-256 in hex.
    pub file_hash: Option<String>,
    pub skip_duplicates: bool,
}

/// [`NewUpload`] with everything decided.
#[derive(Debug, Clone)]
pub(super) struct Checked {
    pub filename: String,
    pub content_type: String,
    pub file_size_bytes: Option<u64>,
    pub expiration_seconds: i64,
    pub metadata: Fields,
    pub create_object_on_confirm: bool,
    pub object_metadata: Option<Fields>,
    pub blob_property: Option<String>,
    pub blob_type: Option<FieldType>,
    pub file_hash: Option<String>,
    pub skip_duplicates: bool,
}

impl NewUpload {
    /// `at` precedes the names of fields in errors.
    pub(super) fn check(self, bucket: &Bucket, at: &str) -> Result<Checked> {
        let mut wrong = Vec::new();
        let mut refuse = |field: &str, message: String| wrong.push(FieldError::new(format!("{at}{field}"), message));
        let length = self.filename.chars().count();
        if length == 0 || length > 255 || self.filename.contains(char::is_control) {
            refuse("filename", "must have 1 to 255 printable characters".into());
        }
        let is_media_type = self.content_type.split_once('/').is_some_and(|(a, b)| !a.is_empty() && !b.is_empty());
        if !is_media_type
            || self.content_type.len() > 255
            || !self.content_type.bytes().all(|b| (0x20..0x7f).contains(&b))
        {
            refuse("content_type", "must be a media type such as `image/png`".into());
        }
        match self.file_size_bytes {
            Some(0) => refuse("file_size_bytes", "must be at least 1".into()),
            Some(size) if size > limits::MAX_BLOB_BYTES => {
                return Err(Error::TooLarge(format!(
                    "a file has at most {} bytes, and {size} are announced",
                    limits::MAX_BLOB_BYTES
                )));
            }
            _ => {}
        }
        let expiration_seconds = self.expiration_seconds.unwrap_or(limits::PRESIGN_SECONDS);
        if !(MIN_SECONDS..=MAX_SECONDS).contains(&expiration_seconds) {
            refuse("presigned_url_expiration", format!("must be {MIN_SECONDS} to {MAX_SECONDS} seconds"));
        }
        let is_hash = |h: &String| h.len() == 64 && h.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if self.file_hash.as_ref().is_some_and(|h| !is_hash(h)) {
            refuse("file_hash", "must be a SHA-256 as 64 lower-case hex digits".into());
        }
        let sent_type = self.blob_type.as_deref().map(|t| (t, FieldType::parse(&t.to_lowercase())));
        if let Some((text, None)) = sent_type {
            refuse("blob_type", format!("`{text}` is not a type; one of {}", FieldType::names()));
        }
        let sent_type = sent_type.and_then(|(_, t)| t);
        let target = match self.create_object_on_confirm {
            true => target(bucket, self.blob_property.as_deref(), sent_type, &self.content_type, &self.filename),
            false => Ok((self.blob_property.clone(), sent_type)),
        };
        let (blob_property, blob_type) = target.unwrap_or_else(|message| {
            refuse("blob_property", message);
            (None, None)
        });
        if !wrong.is_empty() {
            return Err(Error::Invalid(wrong));
        }
        Ok(Checked {
            filename: self.filename,
            content_type: self.content_type,
            file_size_bytes: self.file_size_bytes,
            expiration_seconds,
            metadata: self.metadata,
            create_object_on_confirm: self.create_object_on_confirm,
            object_metadata: self.object_metadata,
            blob_property,
            blob_type,
            file_hash: self.file_hash,
            skip_duplicates: self.skip_duplicates,
        })
    }
}

/// The property of the object that the bytes become, and its type.
fn target(
    bucket: &Bucket,
    property: Option<&str>,
    blob_type: Option<FieldType>,
    content_type: &str,
    filename: &str,
) -> Result<(Option<String>, Option<FieldType>), String> {
    let guessed = blob_type.unwrap_or_else(|| objects::type_of(content_type, filename));
    let schema = &bucket.schema;
    let found = match property {
        Some(name) if schema.fields.is_empty() => Some((name.to_owned(), guessed)),
        None if schema.fields.is_empty() => Some((FREE_PROPERTY.to_owned(), guessed)),
        Some(name) => schema.get(name).map(|f| (name.to_owned(), f.kind)),
        None => schema.fields.iter().find(|(_, f)| f.kind == guessed).map(|(n, f)| (n.clone(), f.kind)),
    };
    let known = crate::buckets::names(schema);
    match (found, property) {
        (Some((_, kind)), Some(name)) if blob_type.is_some_and(|t| t != kind && !(t.is_file() ^ kind.is_file())) => {
            Err(format!("`{name}` is of type {}, not {}", kind.as_str(), guessed.as_str()))
        }
        (Some((name, kind)), _) => Ok((Some(name), Some(kind))),
        (None, Some(name)) => Err(format!("`{name}` is not in the schema, which has {known}")),
        (None, None) => Err(format!("must say where the {} goes: the schema has {known}", guessed.as_str())),
    }
}
