//! Images and sound that a model is asked about directly: taken out of the request or fetched, decoded, shown to it.

use super::{ask::Ask, inputs};
use crate::{Engine, extract::image::seen_part, inline};
use serde_json::{Value, json};
use std::sync::Arc;
use strata_infer::{
    Face, FaceOptions, ModelEntry, Pixels, Task, TextLine, TranscribeOptions, Transcript,
    acoustic::{self, Fingerprint},
};
use strata_media::{AudioRequest, ImageOutput, ImageRequest, Source};
use strata_model::{Error, Fields, Result};

/// Images that one request takes.
const MAX_IMAGES: usize = 16;
/// Largest image or recording, in bytes.
const MAX_BYTES: u64 = 64 << 20;
/// What of a recording is heard: more takes longer than a request may.
const MAX_SPEECH_MS: u64 = 10 * 60_000;
/// Samples a second that the models of speech hear.
const SAMPLE_RATE: u32 = 16_000;
/// Labels that are answered where nothing else is asked, and at most.
const LABELS: u64 = 5;
const MAX_LABELS: u64 = 100;

/// What an image model is to say of an image.
enum Wanted {
    Embedding,
    /// As many labels.
    Labels(usize),
}

impl Engine {
    /// Asks a model of images, faces or speech. See [`Engine::infer`].
    pub(super) async fn ask_media(self: &Arc<Self>, entry: &'static ModelEntry, ask: &Ask) -> Result<Value> {
        match entry.task {
            Task::EmbedImage => {
                inputs::only(&ask.parameters, &["output", "top_k"])?;
                let wanted = wanted(&ask.parameters)?;
                let images = self.images(ask, seen_part()).await?;
                let model = self.image_embedder(entry.id).await?;
                let mut told = Vec::with_capacity(images.values.len());
                for image in images.values {
                    let sight = model.look_now(image).await?;
                    told.push(match wanted {
                        Wanted::Embedding => json!(sight.embedding),
                        Wanted::Labels(count) => {
                            let label = |(label, score): (strata_infer::Label, f32)| {
                                json!({ "label": label.name(), "synset": label.synset, "score": score })
                            };
                            sight.top(count).into_iter().map(label).collect()
                        }
                    });
                }
                Ok(inputs::as_asked(told, images.is_list))
            }
            Task::EmbedImageText if inputs::is_to_embed(&ask.inputs) => {
                inputs::only(&ask.parameters, &[])?;
                let texts = inputs::texts(&ask.inputs)?;
                let space = self.image_text_space(entry.id).await?;
                Ok(inputs::as_asked(space.embed_queries(texts.values).await?, texts.is_list))
            }
            Task::EmbedImageText => {
                inputs::only(&ask.parameters, &[])?;
                let images = self.images(ask, seen_part()).await?;
                let space = self.image_text_space(entry.id).await?;
                let mut vectors = Vec::with_capacity(images.values.len());
                for image in images.values {
                    vectors.push(space.embed_image_now(image).await?);
                }
                Ok(inputs::as_asked(vectors, images.is_list))
            }
            Task::EmbedFace => {
                inputs::only(&ask.parameters, &["min_score", "max_faces"])?;
                let options = face_options(&ask.parameters)?;
                // Faces are small in large pictures, so all pixels are needed.
                let images = self.images(ask, ImageOutput::original()).await?;
                let finder = self.face_finder(entry.id).await?;
                let mut told: Vec<Value> = Vec::with_capacity(images.values.len());
                for image in images.values {
                    told.push(finder.find_now(image, options).await?.iter().map(shown).collect());
                }
                Ok(inputs::as_asked(told, images.is_list))
            }
            Task::Transcribe => {
                inputs::only(&ask.parameters, &["language", "word_times"])?;
                let options = speech_options(&ask.parameters)?;
                let (text, at) = one_of(&ask.inputs, &["audio", "audio_url", "video", "video_url"])?;
                let source = self.sent_file(text, &at, ask).await?;
                let request = AudioRequest { sample_rate: SAMPLE_RATE, start_ms: 0, max_duration_ms: MAX_SPEECH_MS };
                let stream = self.media().audio(&source, request).await.map_err(|e| placed(e, &at))?;
                let samples = stream.collect().await.map_err(|e| placed(e, &at))?;
                let transcript = self.transcriber(entry.id).await?.transcribe(samples, options).await?;
                Ok(spoken(&transcript))
            }
            Task::RecognizeText => {
                inputs::only(&ask.parameters, &[])?;
                let images = self.images(ask, ImageOutput::original()).await?;
                let reader = self.text_reader(entry.id).await?;
                let mut told = Vec::with_capacity(images.values.len());
                for image in images.values {
                    told.push(read(&reader.read_now(image).await?));
                }
                Ok(inputs::as_asked(told, images.is_list))
            }
            Task::EmbedAudio => {
                inputs::only(&ask.parameters, &[])?;
                let sound = self.sound(ask, &["audio", "audio_url", "video", "video_url"]).await?;
                let names = ["reference", "reference_url"];
                if !names.iter().any(|name| ask.inputs.contains_key(*name)) {
                    return Ok(json!(self.embed_sound(sound).await?));
                }
                let reference = self.sound(ask, &names).await?;
                let compare = move || compared(&sound, &reference);
                tokio::task::spawn_blocking(compare).await.map_err(Error::internal)?
            }
            Task::EmbedText
            | Task::EmbedSparse
            | Task::EmbedTokens
            | Task::RerankText
            | Task::DetectFaces
            | Task::AlignFaces
            | Task::DetectVoice
            | Task::Decode => {
                Err(Error::invalid("model", format!("`{}` is a part of others and not asked by itself", entry.id)))
            }
        }
    }

    /// The sound of the first of these inputs that is there.
    async fn sound(&self, ask: &Ask, names: &[&str]) -> Result<Vec<f32>> {
        let (text, at) = one_of(&ask.inputs, names)?;
        let source = self.sent_file(text, &at, ask).await?;
        let request = AudioRequest { sample_rate: acoustic::SAMPLE_RATE, start_ms: 0, max_duration_ms: MAX_SPEECH_MS };
        let stream = self.media().audio(&source, request).await.map_err(|e| placed(e, &at))?;
        stream.collect().await.map_err(|e| placed(e, &at))
    }

    /// The images of a request, decoded: `image`, or a list as `images`.
    async fn images(&self, ask: &Ask, output: ImageOutput) -> Result<inputs::Several<Pixels>> {
        let is_list = ["images", "image_urls"].iter().any(|name| ask.inputs.contains_key(*name));
        let texts: Vec<(String, String)> = match is_list {
            true => {
                let name = if ask.inputs.contains_key("images") { "images" } else { "image_urls" };
                let list = inputs::list(&ask.inputs, name, MAX_IMAGES)?;
                list.into_iter().enumerate().map(|(i, text)| (text, format!("inputs.{name}.{i}"))).collect()
            }
            false => {
                let (text, at) = one_of(&ask.inputs, &["image", "image_url"])?;
                vec![(text.to_owned(), at)]
            }
        };
        let request = ImageRequest { outputs: vec![output] };
        let mut values = Vec::with_capacity(texts.len());
        for (text, at) in texts {
            let source = self.sent_file(&text, &at, ask).await?;
            let mut decoded = self.media().image(&source, &request).await.map_err(|e| placed(e, &at))?;
            let picture = decoded.outputs.pop().ok_or_else(|| Error::internal("a decoder without a picture"))?;
            values.push(Pixels::new(picture.width, picture.height, picture.bytes)?);
        }
        Ok(inputs::Several { values, is_list })
    }

    /// The bytes of an input: a data URI, a URL or base64.
    async fn sent_file(&self, text: &str, at: &str, ask: &Ask) -> Result<Source> {
        let text = text.trim();
        let bytes: Vec<u8> = if text.starts_with("data:") {
            inline::data_uri(text, at)?.0
        } else if inline::is_url(text) {
            if !ask.may_reach_outside {
                return Err(Error::Forbidden("fetching an input needs a key with the permission `write`".into()));
            }
            self.fetcher.fetch(text, MAX_BYTES).await.map_err(|e| placed(e, at))?.bytes.into()
        } else {
            let wrong = || Error::invalid(at, "must be a data URI, an HTTP URL or base64");
            inline::base64(text).ok_or_else(wrong)?
        };
        match bytes.is_empty() {
            true => Err(Error::invalid(at, "is empty")),
            false => Ok(Source::Bytes(bytes.into())),
        }
    }
}

/// Where a recording has parts of another one, in seconds, the longest first: `offset` is what is to be added to a time in
/// `audio` for that in `reference`.
fn compared(sound: &[f32], reference: &[f32]) -> Result<Value> {
    let (sound, reference) = (Fingerprint::of(sound)?, Fingerprint::of(reference)?);
    let shown = |found: &acoustic::Match| {
        json!({
            "start": found.start_a, "reference_start": found.start_b, "offset": found.start_b - found.start_a,
            "duration": found.duration, "similarity": found.similarity,
        })
    };
    let matches: Vec<Value> = sound.matches(&reference).iter().map(shown).collect();
    Ok(json!({ "matches": matches }))
}

/// Text in an image, and its lines with their corners in pixels.
fn read(lines: &[TextLine]) -> Value {
    let text: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
    let shown = |line: &TextLine| json!({ "text": line.text, "confidence": line.confidence, "corners": line.quad });
    json!({ "text": text.join("\n"), "lines": lines.iter().map(shown).collect::<Vec<_>>() })
}

/// The first of these inputs that is there, and its place.
fn one_of<'a>(inputs: &'a Fields, names: &[&str]) -> Result<(&'a str, String)> {
    let found = names.iter().find_map(|name| Some((*name, inputs.get(*name)?)));
    let (name, value) = found.ok_or_else(|| Error::invalid(format!("inputs.{}", names[0]), "is required"))?;
    let at = format!("inputs.{name}");
    match value.as_str() {
        Some(text) => Ok((text, at)),
        None => Err(Error::invalid(at, "must be a data URI, an HTTP URL or base64")),
    }
}

/// A refusal of content under the name of the input that it came in.
fn placed(error: Error, at: &str) -> Error {
    match error {
        Error::Invalid(fields) => {
            let why: Vec<String> = fields.into_iter().map(|field| field.message).collect();
            Error::invalid(at, why.join("; "))
        }
        other => other,
    }
}

fn given(parameters: &Fields, name: &str) -> Option<Value> {
    parameters.get(name).filter(|value| !value.is_null()).cloned()
}

fn count(parameters: &Fields, name: &str, usual: u64, most: u64) -> Result<usize> {
    let wrong = || Error::invalid(format!("parameters.{name}"), format!("must be a whole number from 1 to {most}"));
    let count = match given(parameters, name) {
        None => usual,
        Some(value) => value.as_u64().filter(|count| (1..=most).contains(count)).ok_or_else(wrong)?,
    };
    usize::try_from(count).map_err(Error::internal)
}

fn wanted(parameters: &Fields) -> Result<Wanted> {
    match given(parameters, "output") {
        None => Ok(Wanted::Embedding),
        Some(output) if output == "embedding" => Ok(Wanted::Embedding),
        Some(output) if output == "labels" => Ok(Wanted::Labels(count(parameters, "top_k", LABELS, MAX_LABELS)?)),
        Some(_) => Err(Error::invalid("parameters.output", "must be `embedding` or `labels`")),
    }
}

fn face_options(parameters: &Fields) -> Result<FaceOptions> {
    let usual = FaceOptions::default();
    let wrong = || Error::invalid("parameters.min_score", "must be a number from 0 to 1");
    let min_score = match given(parameters, "min_score") {
        None => usual.min_score,
        Some(value) => value.as_f64().filter(|score| (0.0..=1.0).contains(score)).ok_or_else(wrong)? as f32,
    };
    let max_faces = count(parameters, "max_faces", usual.max_faces as u64, usual.max_faces as u64)?;
    Ok(FaceOptions { min_score, max_faces, ..usual })
}

fn shown(face: &Face) -> Value {
    json!({ "bbox": face.bbox, "score": face.score, "landmarks": face.landmarks, "embedding": face.embedding })
}

fn speech_options(parameters: &Fields) -> Result<TranscribeOptions> {
    let language = match parameters.get("language") {
        None | Some(Value::Null) => None,
        Some(Value::String(language)) => Some(language.clone()),
        Some(_) => return Err(Error::invalid("parameters.language", "must be the code of a language, such as `en`")),
    };
    let word_times = match parameters.get("word_times") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(wanted)) => *wanted,
        Some(_) => return Err(Error::invalid("parameters.word_times", "must be true or false")),
    };
    Ok(TranscribeOptions { language, word_times, ..TranscribeOptions::default() })
}

/// A transcript, its times in seconds.
fn spoken(transcript: &Transcript) -> Value {
    let seconds = |ms: u64| ms as f64 / 1e3;
    let segments = transcript.segments.iter().map(|segment| {
        let words = segment.words.iter().map(|word| {
            json!({ "word": word.text, "start": seconds(word.start_ms), "end": seconds(word.end_ms), "probability": word.probability })
        });
        let words: Vec<Value> = words.collect();
        let mut shown = json!({ "start": seconds(segment.start_ms), "end": seconds(segment.end_ms), "text": segment.text });
        if !words.is_empty() {
            shown["words"] = words.into();
        }
        shown
    });
    let segments: Vec<Value> = segments.collect();
    json!({ "text": transcript.text(), "language": transcript.language, "segments": segments })
}
