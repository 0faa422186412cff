//! Images, animations and texts: one document each.

use super::super::{
    Configured, InputFile, Output, embed_texts,
    image::{Eyes, keep_thumbnail, put_labels, seen_part, space_of},
    parameters::Read,
};
use super::{read_name, read_text, reads, seen_name, text_in, video::mean};
use crate::Engine;
use std::sync::Arc;
use strata_media::{
    Filter, FrameRequest, FrameSampling, ImageOutput, ImageRequest, Picture, Resize, Source, limits::THUMBNAIL_SIDE,
};
use strata_model::{Error, Result, document::VectorValue};

/// Longest side of an image in which text is read, in pixels.
const READING_SIDE: u32 = 1920;

/// A text in the space of images and texts.
pub(super) async fn text(engine: &Arc<Engine>, extractor: &Configured, text: &str) -> Result<Output> {
    let mut output = Output::default();
    output.put("text", text);
    if Read(&extractor.parameters).is("run_multimodal_embedding") {
        let space = engine.image_text_space(space_of(&extractor.parameters)?).await?;
        let vector = space.embed_texts(vec![text.to_owned()]).await?.pop();
        let vector = vector.ok_or_else(|| Error::internal("a model without a vector"))?;
        output.vectors.insert(seen_name(extractor.definition.version()), VectorValue::Dense(vector));
    }
    Ok(output)
}

/// An image; of an animation the mean of some frames, and the first as the thumbnail.
pub(super) async fn image(engine: &Arc<Engine>, extractor: &Configured, file: &InputFile) -> Result<Output> {
    let parameters = Read(&extractor.parameters);
    let stored = engine.blobs.file(&file.hash).await?;
    let source = stored.path().to_owned().into();
    let mut output = Output::default();
    let thumbnail = parameters.is("enable_thumbnails").then(ImageOutput::thumbnail);
    let has_thumbnail = thumbnail.is_some();
    let side = Resize::Fit { width: READING_SIDE, height: READING_SIDE };
    let readable = reads(&parameters).then(|| ImageOutput::pixels(side, Filter::Bicubic));
    let request = ImageRequest { outputs: [seen_part()].into_iter().chain(thumbnail).chain(readable).collect() };
    let decoded = engine.media().image(&source, &request).await?;
    output.put("width", decoded.width);
    output.put("height", decoded.height);
    let mut pictures = decoded.outputs.into_iter().peekable();
    let first = pictures.next();
    if let Some(thumbnail) = pictures.next_if(|_| has_thumbnail) {
        output.attach(keep_thumbnail(engine, file, "", thumbnail.bytes).await?);
    }
    if let Some(picture) = pictures.next() {
        output.put("ocr_text", text_in(engine, &picture).await?);
    }
    if parameters.is("run_ocr_embedding") {
        let index = read_name(extractor.definition.version());
        embed_texts(engine, std::slice::from_mut(&mut output), &index, read_text).await?;
    }
    if !parameters.is("run_multimodal_embedding") {
        return Ok(output);
    }
    let mut seen: Vec<Picture> = first.into_iter().collect();
    if let Some(duration_ms) = duration_ms(engine, &source, file).await? {
        let count = parameters.integer("key_frames").unwrap_or(3).max(1);
        let times = (0..count).map(|n| duration_ms * (2 * n + 1) / (2 * count)).collect();
        let size = Resize::Fit { width: THUMBNAIL_SIDE, height: THUMBNAIL_SIDE };
        let request = FrameRequest { sampling: FrameSampling::Times(times), size, filter: Filter::Bicubic };
        let mut frames = engine.media().frames(&source, &request).await?;
        seen.clear();
        while let Some(frame) = frames.next().await? {
            seen.push(frame.picture);
        }
        output.put("duration", duration_ms as f64 / 1000.0);
    }
    let eyes = Eyes::open(engine, &extractor.parameters).await?;
    let looks = futures::future::try_join_all(seen.iter().map(|picture| eyes.look(picture))).await?;
    if let Some(look) = looks.first() {
        put_labels(&mut output, &look.sight);
    }
    let vectors: Vec<Vec<f32>> = looks.into_iter().map(|look| look.in_words).collect();
    if let Some(vector) = mean(&vectors) {
        output.vectors.insert(seen_name(extractor.definition.version()), VectorValue::Dense(vector));
    }
    Ok(output)
}

/// How long an animation is, in milliseconds; `None` for a picture that stands still.
pub(super) async fn duration_ms(engine: &Engine, source: &Source, file: &InputFile) -> Result<Option<u64>> {
    if file.media_type != "image/gif" {
        return Ok(None);
    }
    let probe = engine.media().probe(source).await?;
    Ok(probe.duration_ms.filter(|duration| *duration > 0 && matches!(probe.frame_count, Some(2..))))
}
