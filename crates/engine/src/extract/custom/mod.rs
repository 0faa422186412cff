//! Extractors that run in another process and speak Strata's protocol for them: `GET /describe` says what one is, and
//! `POST /extract` makes documents of a batch of inputs. JSON goes both ways; files are named by their paths.

mod call;
mod description;

pub(crate) use call::{Caller, Endpoint};
pub use description::{Custom, Description, InputDescription, VectorDescription};

use super::{Configured, Input, InputFile, NewArtifact, Output, embed_texts_by};
use crate::{Engine, documents};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use call::Made;
use serde_json::{Value, json};
use std::sync::Arc;
use strata_media::{detect, limits::HEAD_BYTES};
use strata_model::{Error, Fields, Result, document::VectorValue, schema::Schema};

/// Most artifacts of one document.
const MAX_ARTIFACTS: usize = 64;

impl Custom {
    /// Makes documents of one input, in its process.
    pub(super) async fn run(&self, engine: &Arc<Engine>, extractor: &Configured, input: Input) -> Result<Vec<Output>> {
        let caller = engine.custom_caller(&input.scope, self).await?;
        // Held until the process has answered.
        let mut held = Vec::new();
        let mut files = Vec::new();
        for file in &input.files {
            let stored = engine.blobs.file(&file.hash).await?;
            let path = std::path::absolute(stored.path()).map_err(Error::internal)?;
            let path = path.to_str().ok_or_else(|| Error::internal("a blob's path is no text"))?;
            files.push(json!({
                "input": self.input_of(extractor, file),
                "path": path,
                "media_type": file.media_type,
                "size_bytes": file.size_bytes,
                "sha256": file.hash,
                "filename": file.filename,
            }));
            held.push(stored);
        }
        self.complete(&input, &files)?;
        let values: Fields = input.values.into_iter().filter(|(name, _)| !self.is_file(name)).collect();
        let mut item = json!({ "parameters": extractor.parameters, "values": values, "files": files });
        if !input.span.is_everything() {
            item["span"] =
                json!({ "start_time": input.span.start, "end_time": input.span.end, "page_number": input.span.page });
        }
        if self.description.reads_source {
            item["source"] = input.source.into();
        }
        let made = caller.make(item).await?;
        let mut outputs = Vec::with_capacity(made.len());
        for (place, made) in made.into_iter().enumerate() {
            outputs.push(self.output(engine, made, &format!("documents.{place}"), input.files.first()).await?);
        }
        for (index, model, field) in self.embedded() {
            let text = |output: &Output| {
                let text = output.fields.get(field)?.as_str()?.to_owned();
                (!text.is_empty()).then_some(text)
            };
            embed_texts_by(engine, &input.scope, model, &mut outputs, &index.name, text).await?;
            let lengths = outputs.iter().filter_map(|output| match output.vectors.get(&index.name)? {
                VectorValue::Dense(vector) => Some(vector.len()),
                VectorValue::Sparse { .. } | VectorValue::Multi(_) => None,
            });
            if let Some(wrong) = lengths.into_iter().find(|length| Some(*length) != index.dimensions) {
                let message = format!("`{model}` makes vectors of {wrong} numbers, and others are declared");
                return Err(Error::invalid(format!("vectors.{}", index.name), message));
            }
        }
        Ok(outputs)
    }

    fn is_file(&self, name: &str) -> bool {
        self.files.iter().any(|file| file.name == name)
    }

    /// The input that a file is for.
    fn input_of(&self, extractor: &Configured, file: &InputFile) -> Option<&str> {
        let fits = |input: &&super::FileInput| {
            let is_named = extractor.paths(&input.name).is_none_or(|paths| paths.contains(&file.property));
            is_named && input.families.contains(&file.family())
        };
        self.files.iter().find(fits).map(|input| input.name.as_ref())
    }

    /// Whether everything is there that it requires.
    fn complete(&self, input: &Input, files: &[Value]) -> Result<()> {
        for (name, _) in self.description.inputs.iter().filter(|(_, input)| input.required) {
            let is_there = match self.is_file(name) {
                true => files.iter().any(|file| file["input"] == **name),
                false => input.values.get(name).is_some_and(|value| !value.is_null()),
            };
            if !is_there {
                return Err(Error::invalid(name, "is required; map a field to it with `input_mappings`"));
            }
        }
        Ok(())
    }

    /// A document of its process, checked against its description.
    async fn output(&self, engine: &Arc<Engine>, made: Made, at: &str, of: Option<&InputFile>) -> Result<Output> {
        let Made { mut fields, vectors, artifacts, key } = made;
        let declared = &self.description.fields;
        if let Some(unknown) = fields.keys().find(|name| !declared.contains_key(*name)) {
            let message = format!("is not one of the fields that `{}` declares", self.id());
            return Err(Error::invalid(format!("{at}.fields.{unknown}"), message));
        }
        fields.retain(|_, value| !value.is_null());
        Schema::parse(&self.output_schema(), at)?.check(&mut fields, |_| true)?;
        let mut output = Output { fields, key, ..Output::default() };
        for (name, value) in &vectors {
            let at = format!("{at}.vectors.{name}");
            let (index, told) = self.vector(name).ok_or_else(|| Error::invalid(&at, "is not declared"))?;
            if told.of.is_some() {
                return Err(Error::invalid(at, "is made here, of a field"));
            }
            let vector = documents::read_vector(index, value).map_err(|why| Error::invalid(at, why))?;
            output.vectors.insert(index.name.clone(), vector);
        }
        if artifacts.len() > MAX_ARTIFACTS {
            return Err(Error::invalid(format!("{at}.artifacts"), format!("are at most {MAX_ARTIFACTS}")));
        }
        for artifact in artifacts {
            let at = format!("{at}.artifacts.{}", artifact.field);
            description::checked_name(&at, &artifact.field)?;
            let bytes = STANDARD.decode(&artifact.base64).map_err(|_| Error::invalid(at, "is not base64"))?;
            let kind = detect(&bytes[..bytes.len().min(HEAD_BYTES)], bytes.len() as u64);
            let new = NewArtifact {
                field: &artifact.field,
                role: "artifact",
                media_type: kind.media_type(),
                filename: artifact.filename.unwrap_or_else(|| artifact.field.clone()),
                of,
            };
            output.attach(engine.keep_artifact(new, bytes).await?);
        }
        Ok(output)
    }
}
