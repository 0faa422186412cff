//! What a language model says of segments, pictures and texts: a description, and the fields of `response_shape`. It
//! sees key frames and is told what was heard and read; nobody is asked about what neither shows nor says anything.

use super::super::{
    InputFile, Output,
    parameters::Read,
    response_shape::ResponseShape,
    writer::{Generation, Writer},
};
use super::{Recording, still};
use crate::{
    Engine,
    inference::{Form, Message, Role},
};
use futures::{FutureExt, StreamExt, TryStreamExt};
use serde_json::Value;
use std::sync::Arc;
use strata_media::{
    Encoding, Filter, FrameRequest, FrameSampling, ImageOutput, ImageRequest, Picture, Resize, Source,
    segments::Segment,
};
use strata_model::{Error, Fields, Result, Scope};

/// Pictures that a model is shown at once, at most.
const MAX_PICTURES: u64 = 8;
/// Their longest side in pixels, and the quality of their JPEGs.
const SIDE: u32 = 768;
const QUALITY: u8 = 82;
/// Characters of what is said, and of what is read, that a model is told.
const MAX_CHARS: usize = 24_000;
/// Longest `description_prompt`, in characters.
const MAX_PROMPT_CHARS: usize = 10_000;
/// Segments that are asked about beside each other.
const AT_ONCE: usize = 4;
/// How freely a model writes where nothing is set.
const TEMPERATURE: f64 = 0.2;
/// What is asked for where no `description_prompt` is set.
const PROMPT: &str = "Describe in a few sentences what is seen, who and what is there, and what happens. Say only what the pictures and the words show.";
/// What a model is told, by the field that has it.
const TOLD: [(&str, &str); 3] =
    [("transcription", "What is said in it:"), ("ocr_text", "What is written in it:"), ("text", "What it says:")];

/// What to ask of which model.
pub(super) struct Describer {
    writer: Writer,
    /// What a description is asked for with, where one is.
    prompt: Option<String>,
    shape: Option<ResponseShape>,
}

/// What a model answered.
#[derive(Default)]
struct Written {
    description: Option<String>,
    fields: Option<Fields>,
}

/// Whether descriptions are asked for.
pub(super) fn describes(parameters: &Read<'_>) -> bool {
    parameters.is("run_video_description") || parameters.is("run_description_embedding")
}

/// The description of an output.
pub(super) fn description(output: &Output) -> Option<String> {
    Some(output.fields.get("description")?.as_str()?.to_owned())
}

impl Describer {
    /// Reads it from the extractor's parameters; `None` where no model is asked.
    pub fn parse(parameters: &Fields) -> Result<Option<Self>> {
        let read = Read(parameters);
        let mut shape = ResponseShape::parse(parameters)?;
        if shape.is_none() && !describes(&read) {
            return Ok(None);
        }
        let mut generation = Generation::parse(parameters)?;
        generation.temperature = generation.temperature.or(Some(TEMPERATURE));
        let writer = Writer::parse(parameters, "run_video_description", generation)?;
        if let Some(shape) = &mut shape {
            shape.writer.generation = generation;
        }
        let prompt = match describes(&read) {
            true => Some(prompt(parameters)?.to_owned()),
            false => None,
        };
        Ok(Some(Self { writer, prompt, shape }))
    }

    /// The model that is asked, as `provider/model`.
    pub fn model(&self) -> &str {
        &self.writer.model
    }

    /// Whether it looks for fields.
    pub fn finds_fields(&self) -> bool {
        self.shape.is_some()
    }

    /// Completes the outputs of a recording, each of which is one of the segments, in their order. The caller may hold
    /// no place of [`Engine::heavy`] meanwhile: each segment's frames take one.
    pub async fn segments(
        &self,
        engine: &Arc<Engine>,
        scope: &Scope,
        recording: &Recording,
        planned: &[Segment],
        frames: u64,
        outputs: &mut [Output],
    ) -> Result<()> {
        let told: Vec<Vec<String>> = outputs.iter().map(told).collect();
        let jobs = planned.iter().copied().zip(told).map(|(segment, told)| {
            let job = async move {
                let pictures = match recording.has_pictures() {
                    true => {
                        let times = moments(segment.start_ms, segment.end_ms, frames);
                        seen_at(engine, &recording.source, times).await?
                    }
                    false => Vec::new(),
                };
                let seconds = |ms: u64| ms as f64 / 1000.0;
                let (start, end) = (seconds(segment.start_ms), seconds(segment.end_ms));
                let what = match pictures.is_empty() {
                    true => format!("Seconds {start} to {end} of a recording."),
                    false => format!("Seconds {start} to {end} of a video, and frames of it in their order."),
                };
                self.write(engine, scope, &what, told, pictures).await
            };
            job.boxed()
        });
        let written: Vec<Written> = futures::stream::iter(jobs).buffered(AT_ONCE).try_collect().await?;
        for (output, written) in outputs.iter_mut().zip(written) {
            written.put(output);
        }
        Ok(())
    }

    /// Completes the output of an image or an animation.
    pub async fn image(
        &self,
        engine: &Arc<Engine>,
        scope: &Scope,
        file: &InputFile,
        frames: u64,
        output: &mut Output,
    ) -> Result<()> {
        let stored = engine.blobs.file(&file.hash).await?;
        let source: Source = stored.path().to_owned().into();
        let (what, pictures) = match still::duration_ms(engine, &source, file).await? {
            Some(duration_ms) => {
                let pictures = seen_at(engine, &source, moments(0, duration_ms, frames)).await?;
                ("An animation: frames of it in their order.", pictures)
            }
            None => {
                let size = Resize::Fit { width: SIDE, height: SIDE };
                let encoding = Encoding::Jpeg(QUALITY);
                let picture = ImageOutput { crop: None, size, filter: Filter::Bicubic, encoding };
                let decoded = engine.media().image(&source, &ImageRequest { outputs: vec![picture] }).await?;
                ("A picture.", decoded.outputs.into_iter().map(|picture| picture.bytes).collect())
            }
        };
        let told = told(output);
        self.write(engine, scope, what, told, pictures).await?.put(output);
        Ok(())
    }

    /// Completes the output of a text with the fields that are asked for. A text is its own description.
    pub async fn text(&self, engine: &Arc<Engine>, scope: &Scope, output: &mut Output) -> Result<()> {
        let (Some(shape), Some(text)) = (&self.shape, output.fields.get("text").and_then(Value::as_str)) else {
            return Ok(());
        };
        let message = Message::new(Role::User, start_of(text));
        let fields = shape.of(engine, &scope.organization_id, message).await?;
        Written { description: None, fields: Some(fields) }.put(output);
        Ok(())
    }

    /// What the model answers to pictures and words.
    async fn write(
        &self,
        engine: &Engine,
        scope: &Scope,
        what: &str,
        told: Vec<String>,
        pictures: Vec<Vec<u8>>,
    ) -> Result<Written> {
        if told.is_empty() && pictures.is_empty() {
            return Ok(Written::default());
        }
        let text: Vec<String> = std::iter::once(what.to_owned()).chain(told).collect();
        let mut message = Message::new(Role::User, text.join("\n\n"));
        pictures.iter().for_each(|jpeg| message.show_jpeg(jpeg));
        let organization_id = &scope.organization_id;
        let describe = async {
            let Some(prompt) = &self.prompt else { return Ok(None) };
            let made = self.writer.write(engine, organization_id, prompt, message.clone(), Form::Free).await?;
            Ok::<_, Error>(Some(made.text.trim().to_owned()).filter(|text| !text.is_empty()))
        };
        let find = async {
            let Some(shape) = &self.shape else { return Ok(None) };
            shape.of(engine, organization_id, message.clone()).await.map(Some)
        };
        let (description, fields) = futures::try_join!(describe, find)?;
        Ok(Written { description, fields })
    }
}

impl Written {
    fn put(self, output: &mut Output) {
        output.put("description", self.description);
        if let Some(fields) = self.fields {
            output.put("json_output", fields.clone());
            output.complete(fields);
        }
    }
}

fn prompt(parameters: &Fields) -> Result<&str> {
    let wrong = || {
        let message = format!("must be a text of at most {MAX_PROMPT_CHARS} characters");
        Error::invalid("parameters.description_prompt", message)
    };
    let given = match parameters.get("description_prompt") {
        None | Some(Value::Null) => "",
        Some(given) => given.as_str().ok_or_else(wrong)?.trim(),
    };
    match given {
        "" => Ok(PROMPT),
        long if long.chars().count() > MAX_PROMPT_CHARS => Err(wrong()),
        given => Ok(given),
    }
}

/// What is known of an output in words.
fn told(output: &Output) -> Vec<String> {
    let known = TOLD.iter().filter_map(|(field, what)| {
        let text = output.fields.get(*field)?.as_str().filter(|text| !text.trim().is_empty())?;
        Some(format!("{what}\n{}", start_of(text)))
    });
    known.collect()
}

/// As much of a text as a model is told.
fn start_of(text: &str) -> &str {
    text.char_indices().nth(MAX_CHARS).map_or(text, |(end, _)| &text[..end])
}

/// The middles of as many equal parts as frames are shown.
fn moments(start_ms: u64, end_ms: u64, frames: u64) -> Vec<u64> {
    let count = frames.clamp(1, MAX_PICTURES);
    (0..count).map(|n| start_ms + (end_ms - start_ms) * (2 * n + 1) / (2 * count)).collect()
}

/// JPEGs of the frames at these times; fewer where a recording ends early or is damaged there.
async fn seen_at(engine: &Arc<Engine>, source: &Source, times: Vec<u64>) -> Result<Vec<Vec<u8>>> {
    let _room = engine.heavy().await?;
    let size = Resize::Fit { width: SIDE, height: SIDE };
    let request = FrameRequest { sampling: FrameSampling::Times(times), size, filter: Filter::Bicubic };
    let mut frames = engine.media().frames(source, &request).await?;
    let mut pictures: Vec<Picture> = Vec::new();
    loop {
        match frames.next().await {
            Ok(Some(frame)) => pictures.push(frame.picture),
            Ok(None) => break,
            Err(Error::Invalid(reason)) => {
                tracing::debug!(?reason, "a model is shown no more frames of a segment");
                break;
            }
            Err(error) => return Err(error),
        }
    }
    let encode = move || -> Result<Vec<Vec<u8>>> {
        let jpeg = |picture: &Picture| picture.converted(None, size, Filter::Bicubic, Encoding::Jpeg(QUALITY));
        pictures.iter().map(|picture| jpeg(picture).map(|made| made.bytes)).collect()
    };
    tokio::task::spawn_blocking(encode).await.map_err(Error::internal)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(parameters: Value) -> Result<Option<Describer>> {
        Describer::parse(parameters.as_object().unwrap())
    }

    #[test]
    fn a_model_is_asked_where_something_is_to_be_written() {
        assert!(parse(json!({ "description_prompt": 7, "generation_config": 7 })).unwrap().is_none());
        let model = json!({ "llm_provider": "own", "llm_model": "small" });
        let with = |name: &str, value: Value| {
            let mut parameters = model.clone();
            parameters[name] = value;
            parse(parameters)
        };
        let described = with("run_description_embedding", json!(true)).unwrap().unwrap();
        assert!(!described.finds_fields() && described.model() == "own/small");
        assert_eq!(described.prompt.as_deref(), Some(PROMPT));
        assert_eq!(described.writer.generation.temperature, Some(TEMPERATURE));
        let shaped = with("response_shape", json!("the tone")).unwrap().unwrap();
        assert!(shaped.prompt.is_none() && shaped.finds_fields() && shaped.model() == "own/small");
        assert!(parse(json!({ "run_video_description": true })).is_err(), "no model");
    }

    #[test]
    fn moments_lie_in_their_segment_and_are_few() {
        assert_eq!(moments(1000, 3000, 2), [1500, 2500]);
        assert_eq!(moments(0, 10, 0), [5]);
        assert_eq!(moments(0, 16_000, 16).len(), MAX_PICTURES as usize);
        assert_eq!(moments(7, 8, 3), [7, 7, 7]);
    }

    #[test]
    fn a_model_is_told_what_is_known_and_not_too_much_of_it() {
        let mut output = Output::default();
        assert!(told(&output).is_empty());
        output.put("transcription", " ");
        output.put("ocr_text", "ü".repeat(MAX_CHARS + 1));
        let told = told(&output);
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].chars().count(), TOLD[1].1.chars().count() + 1 + MAX_CHARS);
    }
}
