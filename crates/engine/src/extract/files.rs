//! The files that an extractor reads: which of a source's blobs and artifacts they are, and which part of them is meant.

use super::{
    Configured, Input,
    inputs::{From, InputMapping},
};
use serde_json::{Value, json};
use std::borrow::Cow;
use strata_media::Family;
use strata_model::{
    Error, Fields, Result,
    document::{Document, SourceBlob},
};
use strata_store::catalog::artifacts;

/// What a ZIP is called.
const ZIP: [&str; 2] = ["application/zip", "application/x-zip-compressed"];

/// A file that an extractor takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileInput {
    /// Its name in `input_mappings`.
    pub name: Cow<'static, str>,
    pub families: Cow<'static, [Family]>,
}

impl FileInput {
    pub const fn new(name: &'static str, families: &'static [Family]) -> Self {
        Self { name: Cow::Borrowed(name), families: Cow::Borrowed(families) }
    }
}

/// A file of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputFile {
    /// Of the object's blob; `None` for an artifact of a document.
    pub blob_id: Option<String>,
    /// The blob's property, or the artifact's field.
    pub property: String,
    /// SHA-256 of the bytes, in hex.
    pub hash: String,
    pub size_bytes: u64,
    pub media_type: String,
    pub filename: Option<String>,
}

impl InputFile {
    /// By its media type, which was told by its content.
    pub fn family(&self) -> Family {
        match self.media_type.split_once('/') {
            Some(("image", _)) => Family::Image,
            Some(("audio", _)) => Family::Audio,
            Some(("video", _)) => Family::Video,
            Some(("text", _)) => Family::Text,
            _ if self.media_type == "application/pdf" => Family::Pdf,
            _ if ZIP.contains(&self.media_type.as_str()) => Family::Archive,
            // An Ogg of sound is told so by some.
            _ if self.media_type == "application/ogg" => Family::Audio,
            _ => Family::Unknown,
        }
    }
}

/// What a source has beside its fields.
#[derive(Debug, Clone, Default)]
pub struct Attached {
    /// The blobs of the object from which it descends, in their order.
    pub blobs: Vec<InputFile>,
    /// The artifacts of the document itself.
    pub artifacts: Vec<InputFile>,
    /// The part of the object's blobs that the document is about.
    pub span: Span,
}

impl Attached {
    /// What a document has; `blobs` are those of its root object.
    pub fn of_document(document: &Document, blobs: Vec<InputFile>) -> Self {
        // Only those that it was made of.
        let own = |blob: &InputFile| {
            document.source_blobs.is_empty()
                || document.source_blobs.iter().any(|source| Some(&source.blob_id) == blob.blob_id.as_ref())
        };
        let artifact = |entry: &Value| {
            let text = |key: &str| entry.get(key).and_then(Value::as_str);
            Some(InputFile {
                blob_id: None,
                property: text("field")?.to_owned(),
                hash: text(artifacts::HASH)?.to_owned(),
                size_bytes: entry.get("size_bytes").and_then(Value::as_u64).unwrap_or(0),
                media_type: text("content_type")?.to_owned(),
                filename: text("filename").map(str::to_owned),
            })
        };
        Self {
            blobs: blobs.into_iter().filter(own).collect(),
            artifacts: document.document_blobs.iter().filter_map(artifact).collect(),
            span: Span::of(&document.fields),
        }
    }
}

/// The part of its files that an input is about. Everything where nothing is said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Span {
    /// Seconds from the beginning.
    pub start: Option<f64>,
    pub end: Option<f64>,
    /// From 1.
    pub page: Option<u32>,
}

impl Span {
    /// By the fields in which extractors say where their outputs lie.
    fn of(fields: &Fields) -> Self {
        let seconds = |names: [&str; 3]| {
            let found = names.iter().find_map(|name| fields.get(*name)?.as_f64());
            found.filter(|seconds| seconds.is_finite() && *seconds >= 0.0)
        };
        let page = fields.get("page_number").and_then(Value::as_u64).and_then(|page| u32::try_from(page).ok());
        Self {
            start: seconds(["start_time", "start_time_sec", "start_time_s"]),
            end: seconds(["end_time", "end_time_sec", "end_time_s"]),
            page: page.filter(|page| *page > 0),
        }
    }

    /// Milliseconds from the beginning: the start, and the end where there is one.
    pub fn milliseconds(&self) -> (u64, Option<u64>) {
        let ms = |seconds: f64| (seconds * 1000.0).round().min(1e12) as u64;
        (self.start.map_or(0, ms), self.end.map(ms))
    }

    pub fn is_everything(&self) -> bool {
        *self == Self::default()
    }
}

impl Configured {
    /// Adds the files of a source that the extractor reads: those that a mapping names; or, without one, all that it can
    /// read. A document's own parts of its object's files go before its artifacts.
    pub fn attach(&self, input: &mut Input, attached: Attached) -> Result<()> {
        let wanted = self.definition.files();
        let mapped: Vec<&FileInput> = wanted.iter().filter(|file| self.paths(&file.name).is_some()).collect();
        let Attached { blobs, artifacts, span } = attached;
        for file in &mapped {
            let paths = self.paths(&file.name).unwrap_or_default();
            let named = |one: &&InputFile| paths.contains(&one.property);
            let is_blob = blobs.iter().any(|blob| named(&blob));
            let found: Vec<InputFile> = [&blobs, &artifacts].into_iter().flatten().filter(named).cloned().collect();
            if found.is_empty() {
                continue;
            }
            if let Some(other) = found.iter().find(|one| !file.families.contains(&one.family())) {
                let message = format!("`{}` is `{}`, which it does not read", other.property, other.media_type);
                return Err(Error::invalid(file.name.as_ref(), message));
            }
            input.files.extend(found);
            if is_blob {
                input.span = span.clone();
            }
        }
        if mapped.is_empty() {
            let readable = |one: &&InputFile| wanted.iter().any(|file| file.families.contains(&one.family()));
            input.files = blobs.iter().filter(readable).cloned().collect();
            match input.files.is_empty() {
                true => input.files = artifacts.iter().filter(readable).cloned().collect(),
                false => input.span = span,
            }
        }
        Ok(())
    }

    /// Whether the outputs are made of a blob: the input has it as a file, or a mapping names its property.
    pub fn reads(&self, input: &Input, blob: &SourceBlob) -> bool {
        let is_file = input.files.iter().any(|file| file.blob_id.as_ref() == Some(&blob.blob_id));
        let names = |mapping: &InputMapping| match &mapping.from {
            From::Paths(paths) => paths.contains(&blob.blob_property),
            From::Literal(_) => false,
        };
        is_file || self.mappings.iter().any(names)
    }

    /// The properties that a mapping names for an input.
    pub(super) fn paths(&self, name: &str) -> Option<&[String]> {
        self.mappings.iter().find_map(|mapping| match &mapping.from {
            From::Paths(paths) if mapping.input == name => Some(paths.as_slice()),
            _ => None,
        })
    }
}

impl Input {
    /// What of the files decides the outputs, for the hash of the input.
    pub fn files_json(&self) -> Value {
        let files: Vec<&str> = self.files.iter().map(|file| file.hash.as_str()).collect();
        json!([files, self.span.start, self.span.end, self.span.page])
    }

    /// The files of some families; [`Error::Invalid`] names what would have been read where there are none.
    pub fn files_of(&self, families: &[Family], what: &str) -> Result<Vec<&InputFile>> {
        let found: Vec<&InputFile> = self.files.iter().filter(|file| families.contains(&file.family())).collect();
        match found.is_empty() {
            true => Err(Error::invalid("input", format!("has no {what}: map one with `input_mappings`"))),
            false => Ok(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_told_by_whichever_names_an_extractor_has_for_its_seconds() {
        for (start, end) in
            [("start_time", "end_time"), ("start_time_sec", "end_time_sec"), ("start_time_s", "end_time_s")]
        {
            let fields = json!({ start: 30.0, end: 60.5 });
            let span = Span::of(fields.as_object().unwrap());
            assert_eq!(span, Span { start: Some(30.0), end: Some(60.5), page: None });
            assert_eq!(span.milliseconds(), (30_000, Some(60_500)));
        }
        assert!(Span::of(json!({ "start_time": -1, "page_number": 0 }).as_object().unwrap()).is_everything());
    }
}
