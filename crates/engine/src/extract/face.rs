//! `face_identity_extractor`: each face in an image, a page or the frames of a video becomes a document, with a vector that
//! is near those of the same person.

use super::{
    Configured, Definition, FileInput, Input, InputFile, NewArtifact, Output, Shape, Span,
    image::{keep_thumbnail, stem},
    multimodal::Recording,
    parameters as p, streams,
};
use crate::Engine;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::{FutureExt, StreamExt, future::BoxFuture};
use serde_json::{Value, json};
use std::{sync::Arc, time::Instant};
use strata_infer::{Face, FaceFinder, FaceOptions, Pixels, Registry};
use strata_media::{
    Encoding, Family, Filter, FrameRequest, FrameSampling, ImageOutput, ImageRequest, PdfRequest, Picture, Rendering,
    Resize, limits::THUMBNAIL_QUALITY,
};
use strata_model::{
    Error, Fields, Result,
    document::VectorValue,
    feature::{Distance, VectorIndex, VectorKind},
    limits,
    schema::FieldType,
};

const INDEX: &str = "face_identity_extractor_v1_embedding";
/// Longest side of a picture that faces are looked for in, in pixels.
const SIDE: u32 = 1920;
const PAGE_DPI: f32 = 150.0;
/// Most faces of one picture, where no bound is set.
const MAX_FACES: u64 = 256;
/// Pictures that are looked at beside each other.
const LOOKS_AT_ONCE: usize = 4;

const PARAMETERS: &[p::Parameter] = &[
    p::ignored("detection_model", || json!("scrfd_2.5g"), "Without effect: faces are found by BlazeFace."),
    p::integer("min_face_size", Some(20), (10, 200), "Pixels of a face's shorter side, at least."),
    p::number("detection_threshold", Some(0.5), (0.0, 1.0), "How sure it must be that something is a face."),
    p::integer("max_faces_per_image", None, (1, MAX_FACES), "The largest ones are kept."),
    p::ignored("normalize_embeddings", || json!(true), "Without effect: vectors always have length 1."),
    p::boolean("enable_quality_scoring", true, "Say how sharp, large, upright and certain each face is."),
    p::number("quality_threshold", None, (0.0, 1.0), "Faces of less quality are left out."),
    p::integer("max_video_length", Some(60), (1, 300), "Seconds of a video that are looked at."),
    p::number("video_sampling_fps", Some(1.0), (0.1, 60.0), "Frames a second that are looked at."),
    p::boolean("video_deduplication", true, "Keep one face of each person in a video, the best."),
    p::number(
        "video_deduplication_threshold",
        Some(0.8),
        (0.0, 1.0),
        "How alike two faces must be to be of one person; 0.8 is a cosine of 0.97.",
    ),
    p::one_of("output_mode", "per_face", &["per_face", "per_image"], "A document for each face, or for each picture."),
    p::boolean("include_face_crops", true, "Keep each face upright, 112 by 112 pixels."),
    p::boolean("include_source_frame_thumbnail", false, "Keep the picture that a face is in."),
    p::boolean("store_detection_metadata", true, "Keep boxes, landmarks and scores."),
];

pub(super) static DEFINITION: Definition = Definition {
    name: "face_identity_extractor",
    version: "v1",
    code_version: 1,
    description: "Finds faces in images, videos and PDFs and makes a vector of each that tells people apart.",
    icon: "user",
    category: "image",
    input_types: &[FieldType::Image, FieldType::Video, FieldType::Pdf],
    files: &[
        FileInput::new("image", &[Family::Image]),
        FileInput::new("video", &[Family::Video]),
        FileInput::new("video_frame", &[Family::Image]),
        FileInput::new("pdf", &[Family::Pdf]),
    ],
    input_schema: || {
        let input = || json!({ "type": "string" });
        json!({ "type": "object", "properties": { "image": input(), "video": input(), "video_frame": input(), "pdf": input() } })
    },
    output_schema: || {
        json!({ "type": "object", "properties": {
            "face_index": { "type": "integer" }, "bbox": { "type": "object" }, "landmarks": { "type": "array" },
            "detection_score": { "type": "number" }, "quality_score": { "type": "number" },
            "quality_components": { "type": "object" }, "face_crop_url": { "type": "string" },
            "aligned_face_crop": { "type": "string" }, "frame_number": { "type": "integer" },
            "timestamp": { "type": "number" }, "page_number": { "type": "integer" },
            "source_frame_width": { "type": "integer" }, "source_frame_height": { "type": "integer" },
            "embedding_model": { "type": "string" }, "detection_model": { "type": "string" },
            "processing_time_ms": { "type": "number" }, "faces": { "type": "array" }, "face_count": { "type": "integer" },
        } })
    },
    parameter_schema: || p::schema(PARAMETERS),
    default_parameters: || p::defaults(PARAMETERS),
    position_fields: &["bbox", "timestamp", "frame_number", "page_number"],
    wordless: &["face_crop_url", "aligned_face_crop", "thumbnail_url", "embedding_model", "detection_model", "faces"],
    reads_source: false,
    check,
    run,
};

fn check(parameters: &Fields) -> Result<Shape> {
    p::check(PARAMETERS, parameters)?;
    let entry = Registry::resolve(Registry::default_face_model())?;
    let hosted = ["embedding", "face_embedding", "face_identity_arcface_r100_v1", "arcface_r100"];
    let index = VectorIndex {
        name: INDEX.into(),
        feature_uri: format!("mixpeek://face_identity_extractor@v1/{}", entry.id),
        kind: VectorKind::Dense,
        dimensions: Some(entry.dimensions),
        distance: Distance::Cosine,
        model: entry.id.into(),
        aliases: hosted.iter().chain(entry.aliases).map(|alias| (*alias).to_owned()).collect(),
    };
    Ok(Shape {
        vectors: vec![index],
        fields: vec![
            ("face_index", FieldType::Integer),
            ("bbox", FieldType::Object),
            ("detection_score", FieldType::Number),
            ("quality_score", FieldType::Number),
            ("timestamp", FieldType::Number),
            ("page_number", FieldType::Integer),
            ("face_crop_url", FieldType::String),
        ],
        models: vec![entry.id.into()],
    })
}

/// A picture that faces are looked for in, and where it comes from.
struct Scene {
    picture: Picture,
    at: At,
}

#[derive(Clone, Copy)]
enum At {
    Image,
    /// From 1, in points of `PAGE_DPI`.
    Page(u32),
    Frame {
        number: u64,
        time_ms: u64,
    },
}

/// A face with what is known of it.
struct Seen {
    face: Face,
    quality: Quality,
    at: At,
    size: (u32, u32),
    /// 112 by 112 pixels.
    aligned: Option<Pixels>,
    scene: Option<Arc<Picture>>,
    milliseconds: u64,
}

fn run<'a>(engine: &'a Arc<Engine>, extractor: &'a Configured, input: Input) -> BoxFuture<'a, Result<Vec<Output>>> {
    Box::pin(async move {
        let _room = engine.heavy().await?;
        let finder = engine.face_finder(Registry::default_face_model()).await?;
        let job = Job { engine, finder, parameters: p::Read(&extractor.parameters) };
        let mut outputs = Vec::new();
        for file in input.files_of(&[Family::Image, Family::Video, Family::Pdf], "image, video or PDF")? {
            let mut seen = match file.family() {
                Family::Image => job.image(file).await?,
                Family::Pdf => job.pages(file, input.span.page).await?,
                _ => job.video(file, &input.span).await?,
            };
            if let Some(least) = job.parameters.number("quality_threshold") {
                seen.retain(|face| face.quality.score() >= least);
            }
            let is_video = file.family() == Family::Video;
            if is_video && job.parameters.is("video_deduplication") {
                seen = one_of_each(seen, job.parameters.number("video_deduplication_threshold").unwrap_or(0.8));
            }
            outputs.extend(job.outputs(file, seen).await?);
        }
        Ok(outputs)
    })
}

struct Job<'a> {
    engine: &'a Arc<Engine>,
    finder: FaceFinder,
    parameters: p::Read<'a>,
}

impl Job<'_> {
    async fn image(&self, file: &InputFile) -> Result<Vec<Seen>> {
        let stored = self.engine.blobs.file(&file.hash).await?;
        let request = ImageRequest { outputs: vec![scaled()] };
        let mut decoded = self.engine.media().image(&stored.path().to_owned().into(), &request).await?;
        let picture = decoded.outputs.pop().ok_or_else(|| Error::internal("a decoder without a picture"))?;
        self.look(Scene { picture, at: At::Image }).await
    }

    async fn pages(&self, file: &InputFile, page: Option<u32>) -> Result<Vec<Seen>> {
        let stored = self.engine.blobs.file(&file.hash).await?;
        let rendering = Rendering { dpi: PAGE_DPI, outputs: vec![scaled()] };
        let (first_page, last_page) = page.map_or((1, u32::MAX), |page| (page, page));
        let request = PdfRequest { first_page, last_page, ..PdfRequest::rendered(rendering) };
        let mut pages = self.engine.media().pdf_pages(&stored.path().to_owned().into(), &request).await?;
        let mut seen = Vec::new();
        while let Some(mut page) = pages.next().await? {
            let Some(picture) = page.pictures.pop() else { continue };
            seen.extend(self.look(Scene { picture, at: At::Page(page.number) }).await?);
            check_count(&seen)?;
        }
        Ok(seen)
    }

    async fn video(&self, file: &InputFile, span: &Span) -> Result<Vec<Seen>> {
        let stored = self.engine.blobs.file(&file.hash).await?;
        let recording = Recording::open(self.engine.media(), stored.path().to_owned().into(), span).await?;
        let frames_per_second = self.parameters.number("video_sampling_fps").unwrap_or(1.0);
        let longest_ms = self.parameters.integer("max_video_length").unwrap_or(60) * 1000;
        let end_ms = recording.end_ms.min(recording.start_ms + longest_ms);
        let sampling = FrameSampling::Rate {
            frames_per_second,
            start_ms: recording.start_ms,
            end_ms: Some(end_ms),
            max_frames: 100_000,
        };
        let request =
            FrameRequest { sampling, size: Resize::Fit { width: SIDE, height: SIDE }, filter: Filter::Bicubic };
        let frames = self.engine.media().frames(&recording.source, &request).await?;
        let rate = recording.probe.frames_per_second.unwrap_or(frames_per_second);
        let looks = streams::frames(frames).map(|frame| {
            let look = async move {
                let frame = frame?;
                let number = (frame.time_ms as f64 / 1000.0 * rate).round() as u64;
                let at = At::Frame { number, time_ms: frame.time_ms };
                self.look(Scene { picture: frame.picture, at }).await
            };
            look.boxed()
        });
        let mut looks = std::pin::pin!(looks.buffered(LOOKS_AT_ONCE));
        let mut seen = Vec::new();
        while let Some(faces) = looks.next().await {
            match faces {
                Ok(faces) => seen.extend(faces),
                // A damaged end does not undo what came before it.
                Err(Error::Invalid(_)) if !seen.is_empty() => break,
                Err(error) => return Err(error),
            }
            check_count(&seen)?;
        }
        Ok(seen)
    }

    async fn look(&self, scene: Scene) -> Result<Vec<Seen>> {
        let started = Instant::now();
        let Scene { picture, at } = scene;
        let pixels = Pixels::new(picture.width, picture.height, picture.bytes.clone())?;
        let options = FaceOptions {
            min_score: self.parameters.number("detection_threshold").unwrap_or(0.5) as f32,
            min_size: self.parameters.integer("min_face_size").unwrap_or(20) as f32,
            max_faces: self.parameters.integer("max_faces_per_image").unwrap_or(MAX_FACES) as usize,
        };
        let faces = self.finder.find(pixels.clone(), options).await?;
        let milliseconds = started.elapsed().as_millis() as u64;
        let keeps_scene = self.parameters.is("include_source_frame_thumbnail") && !faces.is_empty();
        let size = (picture.width, picture.height);
        let scene = keeps_scene.then(|| Arc::new(picture));
        let seen = move |face: Face| {
            let aligned = face.aligned(&pixels).ok();
            let quality = Quality::of(&face, aligned.as_ref());
            Seen { face, quality, at, size, aligned, scene: scene.clone(), milliseconds }
        };
        let seen = tokio::task::spawn_blocking(move || faces.into_iter().map(seen).collect());
        seen.await.map_err(Error::internal)
    }

    async fn outputs(&self, file: &InputFile, seen: Vec<Seen>) -> Result<Vec<Output>> {
        let mut outputs: Vec<Output> = Vec::with_capacity(seen.len());
        let per_image = self.parameters.text("output_mode") == Some("per_image");
        let mut before: Option<(u64, usize)> = None;
        for face in seen {
            let place = face.at.order();
            let index = before.filter(|(at, _)| *at == place).map_or(0, |(_, index)| index + 1);
            before = Some((place, index));
            let mut output = self.describe(&face, index);
            if per_image && index > 0 {
                // The first, which is the largest, stands for its picture.
                if let Some(Value::Array(faces)) = outputs.last_mut().and_then(|o| o.fields.get_mut("faces")) {
                    faces.push(Value::Object(output.fields));
                }
                continue;
            }
            if per_image {
                let own = Value::Object(output.fields.clone());
                output.put("faces", vec![own]);
            }
            output.vectors.insert(INDEX.into(), VectorValue::Dense(face.face.embedding.clone()));
            if let Some(aligned) = face.aligned.as_ref().filter(|_| self.parameters.is("include_face_crops")) {
                let jpeg =
                    jpeg(Picture::rgb8(aligned.width(), aligned.height(), aligned.rgb().to_vec())?, None).await?;
                output.put("aligned_face_crop", STANDARD.encode(&jpeg));
                let new = NewArtifact {
                    field: "face_crop",
                    role: "artifact",
                    media_type: "image/jpeg",
                    filename: format!("{}-face-{}.jpg", stem(file), outputs.len()),
                    of: Some(file),
                };
                output.attach(self.engine.keep_artifact(new, jpeg).await?);
            }
            if let Some(scene) = &face.scene {
                let jpeg = jpeg(scene.as_ref().clone(), Some(())).await?;
                output.attach(keep_thumbnail(self.engine, file, &format!("-{place}"), jpeg).await?);
            }
            outputs.push(output);
        }
        for output in &mut outputs {
            if let Some(count) = output.fields.get("faces").and_then(Value::as_array).map(Vec::len) {
                output.put("face_count", count);
            }
        }
        Ok(outputs)
    }

    fn describe(&self, seen: &Seen, index: usize) -> Output {
        let mut output = Output::default();
        output.put("face_index", index);
        output.put("embedding_model", self.finder.model_id());
        output.put("detection_model", self.finder.detector_id());
        output.put("processing_time_ms", seen.milliseconds);
        output.put("source_frame_width", seen.size.0);
        output.put("source_frame_height", seen.size.1);
        match seen.at {
            At::Image => {}
            At::Page(page) => output.put("page_number", page),
            At::Frame { number, time_ms } => {
                output.put("frame_number", number);
                output.put("timestamp", time_ms as f64 / 1000.0);
            }
        }
        if self.parameters.is("enable_quality_scoring") {
            output.put("quality_score", rounded(seen.quality.score()));
            output.put("quality_components", seen.quality.to_json());
        }
        if self.parameters.is("store_detection_metadata") {
            let [x1, y1, x2, y2] = seen.face.bbox.map(|side| rounded(f64::from(side)));
            output.put(
                "bbox",
                json!({ "x1": x1, "y1": y1, "x2": x2, "y2": y2, "width": rounded(x2 - x1), "height": rounded(y2 - y1) }),
            );
            output.put("detection_score", rounded(f64::from(seen.face.score)));
            let point = |[x, y]: [f32; 2]| json!([rounded(f64::from(x)), rounded(f64::from(y))]);
            output.put("landmarks", seen.face.landmarks.map(point).to_vec());
        }
        output
    }
}

impl At {
    /// Equal for faces of one picture.
    fn order(self) -> u64 {
        match self {
            Self::Image => 0,
            Self::Page(page) => u64::from(page),
            Self::Frame { time_ms, .. } => time_ms,
        }
    }
}

fn scaled() -> ImageOutput {
    ImageOutput::pixels(Resize::Fit { width: SIDE, height: SIDE }, Filter::Bicubic)
}

fn check_count(seen: &[Seen]) -> Result<()> {
    let most = limits::MAX_DERIVED_DOCUMENTS;
    match seen.len() > most {
        true => Err(Error::TooLarge(format!("more than {most} faces; one input makes {most} documents"))),
        false => Ok(()),
    }
}

fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

/// A JPEG of the picture; scaled down to a thumbnail if `thumbnail`.
async fn jpeg(picture: Picture, thumbnail: Option<()>) -> Result<Vec<u8>> {
    let make = move || match thumbnail {
        Some(()) => picture.thumbnail(),
        None => picture.converted(None, Resize::Original, Filter::Bicubic, Encoding::Jpeg(THUMBNAIL_QUALITY)),
    };
    Ok(tokio::task::spawn_blocking(make).await.map_err(Error::internal)??.bytes)
}

/// How good a face is to be recognised by, each part from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Quality {
    certainty: f64,
    size: f64,
    sharpness: f64,
    frontality: f64,
}

impl Quality {
    fn of(face: &Face, aligned: Option<&Pixels>) -> Self {
        let [x1, y1, x2, y2] = face.bbox;
        let side = f64::from((x2 - x1).min(y2 - y1));
        Self {
            certainty: f64::from(face.score).clamp(0.0, 1.0),
            // Faces of 112 pixels lose nothing where they are aligned.
            size: (side / 112.0).clamp(0.0, 1.0),
            sharpness: aligned.map_or(0.0, sharpness),
            frontality: frontality(&face.landmarks),
        }
    }

    /// Their geometric mean: one bad part makes a bad face.
    fn score(&self) -> f64 {
        (self.certainty * self.size * self.sharpness * self.frontality).powf(0.25)
    }

    fn to_json(self) -> Value {
        json!({
            "certainty": rounded(self.certainty), "size": rounded(self.size),
            "sharpness": rounded(self.sharpness), "frontality": rounded(self.frontality),
        })
    }
}

/// By the variance of the Laplacian of the brightness: 100 and more is sharp.
fn sharpness(pixels: &Pixels) -> f64 {
    let (width, height) = (pixels.width() as usize, pixels.height() as usize);
    let light: Vec<f64> = pixels
        .rgb()
        .chunks_exact(3)
        .map(|p| 0.299 * f64::from(p[0]) + 0.587 * f64::from(p[1]) + 0.114 * f64::from(p[2]))
        .collect();
    let (mut sum, mut squares, mut count) = (0.0, 0.0, 0.0);
    for y in 1..height.saturating_sub(1) {
        for x in 1..width.saturating_sub(1) {
            let at = y * width + x;
            let edge = light[at - 1] + light[at + 1] + light[at - width] + light[at + width] - 4.0 * light[at];
            sum += edge;
            squares += edge * edge;
            count += 1.0;
        }
    }
    if count == 0.0 {
        return 0.0;
    }
    let variance = squares / count - (sum / count) * (sum / count);
    (variance / 100.0).sqrt().clamp(0.0, 1.0)
}

/// How much the nose lies in the middle between the eyes: 1 from the front, 0 from the side.
fn frontality([left, right, nose, ..]: &[[f32; 2]; 5]) -> f64 {
    let along = [right[0] - left[0], right[1] - left[1]];
    let length = along[0] * along[0] + along[1] * along[1];
    if length <= f32::EPSILON {
        return 0.0;
    }
    let share = ((nose[0] - left[0]) * along[0] + (nose[1] - left[1]) * along[1]) / length;
    (1.0 - 2.0 * (f64::from(share) - 0.5).abs()).clamp(0.0, 1.0)
}

/// The best face of each person, in order of time. Different people have cosines up to 0.94 with this model, so a threshold
/// from 0 to 1 means a cosine from 0.85 to 1.
fn one_of_each(mut seen: Vec<Seen>, threshold: f64) -> Vec<Seen> {
    let least = (0.85 + 0.15 * threshold) as f32;
    seen.sort_by(|a, b| b.quality.score().total_cmp(&a.quality.score()));
    let mut kept: Vec<Seen> = Vec::new();
    for face in seen {
        let alike = |other: &Seen| {
            other.face.embedding.iter().zip(&face.face.embedding).map(|(a, b)| a * b).sum::<f32>() >= least
        };
        if !kept.iter().any(alike) {
            kept.push(face);
        }
    }
    kept.sort_by_key(|face| face.at.order());
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_face_from_the_front_has_its_nose_in_the_middle() {
        let points = |nose: f32| [[0.0, 0.0], [10.0, 0.0], [nose, 5.0], [2.0, 8.0], [8.0, 8.0]];
        assert_eq!(frontality(&points(5.0)), 1.0);
        assert!(frontality(&points(9.0)) < 0.3);
        assert_eq!(frontality(&points(20.0)), 0.0);
    }

    #[test]
    fn edges_are_sharp_and_plain_walls_are_not() {
        let plain = Pixels::new(20, 20, vec![90; 1200]).unwrap();
        let edges = (0..400).flat_map(|at| [if (at / 2) % 2 == 0 { 0 } else { 255 }; 3]).collect();
        let edges = Pixels::new(20, 20, edges).unwrap();
        assert_eq!((sharpness(&plain), sharpness(&edges)), (0.0, 1.0));
    }
}
