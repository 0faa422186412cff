//! The bytes of an object's blobs: read from the request, fetched or taken from an upload, and stored.

use super::{BlobSource, MAX_TEXT_BYTES, NewBlob, content};
use crate::{Engine, buckets, inline};
use bytes::Bytes;
use content::Declared;
use serde_json::Value;
use strata_model::{
    Error, Fields, Result, Scope, id, limits,
    schema::{FieldType, Schema},
};
use strata_store::{
    blobs::Held,
    catalog::objects::{ObjectBlob, uploads},
};

const ID_CHARS: usize = 16;

/// A blob whose bytes are stored and cannot be removed while this lives.
pub(super) struct Prepared {
    pub blob: ObjectBlob,
    /// The value that the object has under the property, for types that live in the row.
    pub value: Option<Value>,
    pub held: Held,
}

/// Where the bytes are, once the source is understood.
enum Located {
    Here(Bytes, Option<String>),
    At(String),
    Upload(String),
}

impl Engine {
    /// Stores one blob. `at` is its place in the request.
    pub(super) async fn prepare_blob(
        &self,
        scope: &Scope,
        bucket_id: &str,
        schema: &Schema,
        new: NewBlob,
        at: &str,
    ) -> Result<Prepared> {
        let kind = kind_of(schema, &new, at)?;
        let mut declared = Declared {
            media_type: text_in(&new.metadata, &["mime_type", "content_type", "media_type"]),
            filename: text_in(&new.metadata, &["filename", "file_name"]),
        };
        let inline = match (&new.source, kind.is_file()) {
            (BlobSource::Data(value), false) => Some(value.clone()),
            _ => None,
        };
        let held = match located(kind, &new.source, at)? {
            Located::Here(bytes, media_type) => {
                declared.media_type = media_type.or(declared.media_type);
                self.blobs.put_held(bytes).await?
            }
            Located::At(url) => self.fetch_blob(&url, &mut declared, at).await?,
            Located::Upload(upload_id) => self.take_upload(scope, bucket_id, &upload_id, &mut declared, at).await?,
        };
        let hash = held.hash().to_owned();
        let described = self.describe(kind, new, declared, held, inline, at).await;
        self.or_discard(described, vec![hash]).await
    }

    /// Checks stored bytes against what they should be.
    async fn describe(
        &self,
        kind: FieldType,
        new: NewBlob,
        declared: Declared,
        held: Held,
        inline: Option<Value>,
        at: &str,
    ) -> Result<Prepared> {
        if let Some(wanted) = &new.checksum {
            let wanted = wanted.trim().to_lowercase();
            let wanted = wanted.strip_prefix("sha256:").unwrap_or(&wanted);
            if wanted != held.hash() {
                let message = format!("is not the SHA-256 of the content, which is `{}`", held.hash());
                return Err(Error::invalid(format!("{at}.checksum"), message));
            }
        }
        let value = match inline {
            Some(value) => Some(value),
            None if kind.is_file() => None,
            None => Some(self.value_of(kind, &held, at).await?),
        };
        let sniffed = held.size_bytes().min(content::SNIFF_BYTES);
        let head = match sniffed {
            0 => Bytes::new(),
            end => self.blobs.get_range(held.hash(), 0, end).await?,
        };
        let blob = ObjectBlob {
            blob_id: self.catalog.new_id(id::BLOB, ID_CHARS),
            property: new.property,
            blob_type: kind,
            key_prefix: new.key_prefix,
            hash: held.hash().to_owned(),
            size_bytes: held.size_bytes(),
            media_type: content::media_type(kind, &head, &declared, at)?,
            filename: declared.filename,
            metadata: new.metadata,
        };
        Ok(Prepared { blob, value, held })
    }

    async fn fetch_blob(&self, url: &str, declared: &mut Declared, at: &str) -> Result<Held> {
        let remote = self.fetcher.open(url, limits::MAX_FETCH_BYTES).await.map_err(|e| placed_at(e, at))?;
        declared.media_type = remote.media_type.or(declared.media_type.take());
        declared.filename = declared.filename.take().or(remote.filename);
        self.blobs.put_stream(remote.body, limits::MAX_FETCH_BYTES).await
    }

    async fn take_upload(
        &self,
        scope: &Scope,
        bucket_id: &str,
        upload_id: &str,
        declared: &mut Declared,
        at: &str,
    ) -> Result<Held> {
        let (scope, bucket, id) = (scope.clone(), bucket_id.to_owned(), upload_id.to_owned());
        let upload = self.catalog.read(move |c| uploads::get(c, &scope, Some(&bucket), &id)).await?;
        let Some(hash) = upload.blob_hash else {
            return Err(Error::invalid(
                format!("{at}.upload_id"),
                format!("no bytes of upload `{upload_id}` are here: `PUT` them to its presigned URL first"),
            ));
        };
        declared.media_type = declared.media_type.take().or(text_in(&upload.body, &["content_type"]));
        declared.filename = declared.filename.take().or(text_in(&upload.body, &["filename"]));
        self.blobs.hold(&hash).await
    }

    /// The value that stored bytes spell, for types that live in the row.
    async fn value_of(&self, kind: FieldType, held: &Held, at: &str) -> Result<Value> {
        if held.size_bytes() > MAX_TEXT_BYTES {
            return Err(Error::TooLarge(format!(
                "a value of type {} has at most {MAX_TEXT_BYTES} bytes",
                kind.as_str()
            )));
        }
        let text = content::text(&self.blobs.get(held.hash()).await?);
        match kind {
            FieldType::String | FieldType::Date | FieldType::Datetime => Ok(text.into()),
            _ => serde_json::from_str(&text)
                .map_err(|e| Error::invalid(at, format!("the content is no JSON of type {}: {e}", kind.as_str()))),
        }
    }
}

/// Puts the blob's place before the error of a fetch.
fn placed_at(error: Error, at: &str) -> Error {
    match error {
        Error::Invalid(fields) => {
            let placed = fields.into_iter().map(|mut f| {
                f.field = format!("{at}.{}", f.field);
                f
            });
            Error::Invalid(placed.collect())
        }
        other => other,
    }
}

fn text_in(fields: &Fields, names: &[&str]) -> Option<String> {
    let found = names.iter().find_map(|name| fields.get(*name)?.as_str())?;
    (!found.trim().is_empty()).then(|| found.chars().filter(|c| !c.is_control()).take(255).collect())
}

/// The blob's type, which must be its property's.
fn kind_of(schema: &Schema, new: &NewBlob, at: &str) -> Result<FieldType> {
    // A schema without any field takes everything.
    if schema.fields.is_empty() {
        return Ok(new.blob_type.unwrap_or(FieldType::Text));
    }
    let Some(field) = schema.get(&new.property) else {
        let known = buckets::names(schema);
        return Err(Error::invalid(
            format!("{at}.property"),
            format!("`{}` is not in the schema, which has {known}", new.property),
        ));
    };
    let are_words = |kind| matches!(kind, FieldType::Text | FieldType::String);
    let are_numbers = |kind| matches!(kind, FieldType::Number | FieldType::Float | FieldType::Integer);
    match new.blob_type {
        Some(sent)
            if sent != field.kind
                && !(are_words(sent) && are_words(field.kind))
                && !(are_numbers(sent) && are_numbers(field.kind)) =>
        {
            Err(Error::invalid(
                format!("{at}.type"),
                format!("is {}, but `{}` is of type {}", sent.as_str(), new.property, field.kind.as_str()),
            ))
        }
        _ => Ok(field.kind),
    }
}

fn here((bytes, media_type): (Vec<u8>, Option<String>)) -> Located {
    Located::Here(bytes.into(), media_type)
}

/// Understands the source of a blob of this type.
fn located(kind: FieldType, source: &BlobSource, at: &str) -> Result<Located> {
    let value = match source {
        BlobSource::Url(url) if url.trim_start().starts_with("data:") => {
            return inline::data_uri(url, &format!("{at}.url")).map(here);
        }
        BlobSource::Url(url) => return Ok(Located::At(url.clone())),
        BlobSource::Upload(id) => return Ok(Located::Upload(id.clone())),
        BlobSource::Data(value) => value,
    };
    let at = format!("{at}.data");
    match value {
        Value::String(text) if !kind.is_file() => Ok(Located::Here(text.clone().into(), Some("text/plain".into()))),
        value if !kind.is_file() => {
            let json = serde_json::to_vec(value).map_err(Error::internal)?;
            Ok(Located::Here(json.into(), Some("application/json".into())))
        }
        Value::String(text) if text.starts_with("data:") => match inline::data_uri(text, &at).map(here) {
            // A text may begin so by itself.
            Err(_) if kind == FieldType::Text => Ok(Located::Here(text.clone().into(), None)),
            other => other,
        },
        Value::String(text) if inline::is_url(text) => Ok(Located::At(text.trim().to_owned())),
        Value::String(text) if kind == FieldType::Text => Ok(Located::Here(text.clone().into(), None)),
        Value::String(text) => {
            let bytes = inline::base64(text).filter(|b| !b.is_empty()).ok_or_else(|| {
                Error::invalid(&*at, format!("of type {} must be a URL, a data URI or base64", kind.as_str()))
            })?;
            Ok(Located::Here(bytes.into(), None))
        }
        _ => Err(Error::invalid(at, format!("of type {} must be a string", kind.as_str()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn here(kind: FieldType, data: Value) -> Option<(Vec<u8>, Option<String>)> {
        match located(kind, &BlobSource::Data(data), "b") {
            Ok(Located::Here(bytes, media_type)) => Some((bytes.to_vec(), media_type)),
            _ => None,
        }
    }

    #[test]
    fn data_is_read_by_the_type_of_its_blob() {
        let text = FieldType::Text;
        assert_eq!(here(text, json!("Rain. 50%")).unwrap().0, b"Rain. 50%");
        assert_eq!(here(text, json!("data:text/csv;base64,YSxi")).unwrap(), (b"a,b".to_vec(), Some("text/csv".into())));
        assert_eq!(here(text, json!("data:,a%20b%")).unwrap().0, b"a b%");
        assert_eq!(here(text, json!("data: none at all")).unwrap().0, b"data: none at all");
        assert_eq!(here(FieldType::Image, json!("aGVs\nbG8")).unwrap().0, b"hello");
        assert_eq!(here(FieldType::Image, json!("_-8=")).unwrap().0, [0xff, 0xef]);
        assert!(here(FieldType::Image, json!("not base64!")).is_none());
        assert!(here(FieldType::Image, json!({ "a": 1 })).is_none());
        assert_eq!(here(FieldType::Object, json!({ "a": 1 })).unwrap().0, br#"{"a":1}"#);
        assert_eq!(here(FieldType::String, json!("data:,x")).unwrap().0, b"data:,x");
        let url = |kind, data: &str| matches!(located(kind, &BlobSource::Data(json!(data)), "b"), Ok(Located::At(_)));
        assert!(url(text, "https://example.org/a.txt") && url(FieldType::Image, "HTTP://example.org/a"));
        assert!(!url(text, "https://example.org/a and more") && !url(FieldType::String, "https://example.org/a"));
    }
}
