//! `image_extractor`: an image or a page of a PDF becomes one document, with a vector that words find, one that looks like
//! others, what it most likely shows, and a thumbnail.

use super::{
    Artifact, Configured, Definition, FileInput, Input, InputFile, NewArtifact, Output, Shape, parameters as p, streams,
};
use crate::Engine;
use futures::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture};
use serde_json::{Value, json};
use std::{sync::Arc, time::Instant};
use strata_infer::{ImageEmbedder, Pixels, Registry, Sight, Space, Task};
use strata_media::{Family, Filter, ImageOutput, ImageRequest, PdfPage, PdfRequest, Picture, Rendering, Resize};
use strata_model::{
    Error, Fields, Result,
    document::VectorValue,
    feature::{Distance, VectorIndex, VectorKind},
    limits,
    schema::FieldType,
};

/// The vector in the space of images and texts.
const INDEX: &str = "image_extractor_v1_embedding";
/// Dots an inch at which pages are looked at.
const PAGE_DPI: f32 = 100.0;
/// Labels that a document names, and how likely one must be to be named.
const LABELS: usize = 5;
const LEAST_LIKELY: f32 = 0.05;
/// Thumbnails that are stored beside each other.
const STORED_AT_ONCE: usize = 8;
/// Stored pictures that are looked at beside each other.
const LOOKS_AT_ONCE: usize = 4;

/// The model of the vector that words find.
pub(super) const SPACE: p::Parameter =
    p::text("embedding_model", None, "Registry id of the model of images and texts; ConSE where none is named.");

const PARAMETERS: &[p::Parameter] = &[
    p::boolean("enable_thumbnails", true, "Keep a JPEG of at most 640 pixels a side beside each document."),
    p::ignored("use_cdn", p::no, "Without effect: thumbnails are served by this server."),
    SPACE,
];

pub(super) static DEFINITION: Definition = Definition {
    name: "image_extractor",
    version: "v1",
    code_version: 1,
    description: "Makes one document of each image or page of a PDF, with vectors for search by words and by likeness, and labels.",
    icon: "image",
    category: "image",
    input_types: &[FieldType::Image, FieldType::Pdf],
    files: &[FileInput::new("image", &[Family::Image, Family::Pdf])],
    input_schema: || json!({ "type": "object", "required": ["image"], "properties": { "image": { "type": "string" } } }),
    output_schema: || {
        json!({ "type": "object", "properties": {
            "labels": { "type": "array" }, "label_scores": { "type": "array" },
            "width": { "type": "integer" }, "height": { "type": "integer" }, "thumbnail_url": { "type": "string" },
            "page_number": { "type": "integer" }, "total_pages": { "type": "integer" },
            "processing_time_ms": { "type": "number" },
        } })
    },
    parameter_schema: || p::schema(PARAMETERS),
    default_parameters: || p::defaults(PARAMETERS),
    position_fields: &["page_number"],
    wordless: &["labels", "thumbnail_url"],
    reads_source: false,
    check,
    run,
};

/// The model of images and texts that the parameters name.
pub(super) fn space_of(parameters: &Fields) -> Result<&'static str> {
    let Some(asked) = p::Read(parameters).text(SPACE.name) else { return Ok(Registry::default_image_text_model()) };
    Registry::resolve_for(asked, Task::EmbedImageText).map(|entry| entry.id).map_err(|_| {
        let known = Registry::entries().iter().filter(|entry| entry.task == Task::EmbedImageText);
        let known: Vec<&str> = known.map(|entry| entry.id).collect();
        Error::invalid("parameters.embedding_model", format!("`{asked}` is not one of {}", known.join(", ")))
    })
}

/// The vectors that images have: one for words, one for likeness. `names` are those of the indexes.
pub(super) fn indexes(extractor: &str, space: &str, names: [&str; 2], aliases: &[&str]) -> Result<Vec<VectorIndex>> {
    let index = |name: &str, model: &str, aliases: &[&str]| -> Result<VectorIndex> {
        let entry = Registry::resolve(model)?;
        Ok(VectorIndex {
            name: name.to_owned(),
            feature_uri: format!("mixpeek://{extractor}/{}", entry.id),
            kind: VectorKind::Dense,
            dimensions: Some(entry.dimensions),
            distance: Distance::Cosine,
            model: entry.id.to_owned(),
            aliases: aliases.iter().chain(entry.aliases).map(|alias| (*alias).to_owned()).collect(),
        })
    };
    Ok(vec![index(names[0], space, aliases)?, index(names[1], Registry::default_image_model(), &[])?])
}

fn check(parameters: &Fields) -> Result<Shape> {
    p::check(PARAMETERS, parameters)?;
    let space = space_of(parameters)?;
    let names = [INDEX, "image_extractor_v1_efficientnet_lite0"];
    let aliases = ["embedding", "image_embedding", "google_siglip_base_v1", "laion_clip_vit_l_14_v1"];
    Ok(Shape {
        vectors: indexes("image_extractor@v1", space, names, &aliases)?,
        fields: vec![
            ("labels", FieldType::Array),
            ("width", FieldType::Integer),
            ("height", FieldType::Integer),
            ("thumbnail_url", FieldType::String),
        ],
        models: vec![space.into(), Registry::default_image_model().into()],
    })
}

/// The models that look at images.
#[derive(Clone)]
pub(super) struct Eyes {
    images: ImageEmbedder,
    space: Space,
}

/// What they see in one image.
pub(super) struct Seen {
    /// In the space of images and texts.
    pub in_words: Vec<f32>,
    pub sight: Sight,
}

impl Eyes {
    pub async fn open(engine: &Arc<Engine>, parameters: &Fields) -> Result<Self> {
        let space = engine.image_text_space(space_of(parameters)?).await?;
        let images = engine.image_embedder(Registry::default_image_model()).await?;
        Ok(Self { images, space })
    }

    pub async fn look(&self, picture: &Picture) -> Result<Seen> {
        let pixels = Pixels::new(picture.width, picture.height, picture.bytes.clone())?;
        match &self.space {
            // It has the same eyes, which need not look twice.
            Space::Conse(conse) => {
                let sight = self.images.look(pixels).await?;
                Ok(Seen { in_words: conse.vector(&sight)?, sight })
            }
            Space::Clip(clip) => {
                let (sight, in_words) = futures::try_join!(self.images.look(pixels.clone()), clip.embed_image(pixels))?;
                Ok(Seen { in_words, sight })
            }
        }
    }
}

/// What is seen in stored pictures, in the space of images and texts. `pictures` are places among outputs, and hashes.
pub(super) async fn look_at(
    engine: &Arc<Engine>,
    parameters: &Fields,
    pictures: Vec<(usize, String)>,
) -> Result<Vec<(usize, Vec<f32>)>> {
    if pictures.is_empty() {
        return Ok(Vec::new());
    }
    let eyes = Eyes::open(engine, parameters).await?;
    let looks = pictures.into_iter().map(|(at, hash)| {
        let eyes = eyes.clone();
        let look = async move {
            let stored = engine.blobs.file(&hash).await?;
            let request = ImageRequest { outputs: vec![seen_part()] };
            let decoded = engine.media().image(&stored.path().to_owned().into(), &request).await?;
            let picture = decoded.outputs.into_iter().next();
            let picture = picture.ok_or_else(|| Error::internal("a decoder without a picture"))?;
            Ok::<_, Error>((at, eyes.look(&picture).await?.in_words))
        };
        look.boxed()
    });
    futures::stream::iter(looks).buffered(LOOKS_AT_ONCE).try_collect().await
}

/// Puts the vector of its text, in the space of images and texts, into each output that has one.
pub(super) async fn embed_in_space(
    engine: &Arc<Engine>,
    parameters: &Fields,
    outputs: &mut [Output],
    index: &str,
    text: impl Fn(&Output) -> Option<String>,
) -> Result<()> {
    let (places, texts): (Vec<usize>, Vec<String>) =
        outputs.iter().enumerate().filter_map(|(at, output)| Some((at, text(output)?))).unzip();
    if texts.is_empty() {
        return Ok(());
    }
    let vectors = engine.image_text_space(space_of(parameters)?).await?.embed_texts(texts).await?;
    for (place, vector) in places.into_iter().zip(vectors) {
        outputs[place].vectors.insert(index.to_owned(), VectorValue::Dense(vector));
    }
    Ok(())
}

/// The part of an image that the models see, at their size.
pub(crate) fn seen_part() -> ImageOutput {
    let side = ImageEmbedder::SIDE;
    ImageOutput::pixels(Resize::Cover { width: side, height: side }, Filter::Hamming)
}

/// Stores a thumbnail of `file`.
pub(super) async fn keep_thumbnail(engine: &Engine, file: &InputFile, at: &str, jpeg: Vec<u8>) -> Result<Artifact> {
    let new = NewArtifact {
        field: "thumbnail",
        role: "thumbnail",
        media_type: "image/jpeg",
        filename: format!("{}{at}.jpg", stem(file)),
        of: Some(file),
    };
    engine.keep_artifact(new, jpeg).await
}

/// The file's name without its extension, or its property's.
pub(super) fn stem(file: &InputFile) -> &str {
    let name = file.filename.as_deref().unwrap_or(&file.property);
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

/// The most likely labels and how likely they are.
pub(super) fn put_labels(output: &mut Output, sight: &Sight) {
    let top = sight.top(LABELS);
    let likely: Vec<_> = top.iter().filter(|(_, probability)| *probability >= LEAST_LIKELY).collect();
    output.put("labels", likely.iter().map(|(label, _)| label.name()).collect::<Vec<_>>());
    output.put("label_scores", likely.iter().map(|(_, probability)| Value::from(*probability)).collect::<Vec<_>>());
}

fn run<'a>(engine: &'a Arc<Engine>, extractor: &'a Configured, input: Input) -> BoxFuture<'a, Result<Vec<Output>>> {
    Box::pin(async move {
        let eyes = Eyes::open(engine, &extractor.parameters).await?;
        let job = Job { engine, eyes, thumbnails: p::Read(&extractor.parameters).is("enable_thumbnails") };
        let mut outputs = Vec::new();
        for file in input.files_of(&[Family::Image, Family::Pdf], "image or PDF")? {
            match file.family() {
                Family::Pdf => outputs.extend(job.pages(file, input.span.page).await?),
                _ => outputs.push(job.image(file).await?),
            }
        }
        Ok(outputs)
    })
}

struct Job<'a> {
    engine: &'a Arc<Engine>,
    eyes: Eyes,
    thumbnails: bool,
}

impl Job<'_> {
    fn outputs(&self) -> Vec<ImageOutput> {
        let thumbnail = self.thumbnails.then(ImageOutput::thumbnail);
        [seen_part()].into_iter().chain(thumbnail).collect()
    }

    async fn image(&self, file: &InputFile) -> Result<Output> {
        let started = Instant::now();
        let stored = self.engine.blobs.file(&file.hash).await?;
        let request = ImageRequest { outputs: self.outputs() };
        let decoded = self.engine.media().image(&stored.path().to_owned().into(), &request).await?;
        let mut output = self.output(file, "", decoded.outputs).await?;
        output.put("width", decoded.width);
        output.put("height", decoded.height);
        output.put("processing_time_ms", started.elapsed().as_millis() as u64);
        Ok(output)
    }

    /// Every page, or the one of this number.
    async fn pages(&self, file: &InputFile, page: Option<u32>) -> Result<Vec<Output>> {
        let stored = self.engine.blobs.file(&file.hash).await?;
        let source = stored.path().to_owned().into();
        let total = self.engine.media().pdf(&source).await?.page_count;
        if page.is_none() && total as usize > limits::MAX_DERIVED_DOCUMENTS {
            return Err(Error::TooLarge(format!(
                "{total} pages; one input makes {} documents",
                limits::MAX_DERIVED_DOCUMENTS
            )));
        }
        let rendering = Rendering { dpi: PAGE_DPI, outputs: self.outputs() };
        let (first_page, last_page) = page.map_or((1, u32::MAX), |page| (page, page));
        let request = PdfRequest { first_page, last_page, ..PdfRequest::rendered(rendering) };
        let pages = self.engine.media().pdf_pages(&source, &request).await?;
        // Pages are looked at and stored while the next ones are rendered.
        let output = |page: PdfPage| {
            let described = async move {
                let mut output = self.output(file, &format!("-{}", page.number), page.pictures).await?;
                output.put("page_number", page.number);
                output.put("total_pages", total);
                Ok(output)
            };
            described.boxed()
        };
        streams::pages(pages).map_ok(output).try_buffered(STORED_AT_ONCE).try_collect().await
    }

    /// What is seen in the first of the pictures; the second is the thumbnail.
    async fn output(&self, file: &InputFile, at: &str, pictures: Vec<Picture>) -> Result<Output> {
        let mut pictures = pictures.into_iter();
        let picture = pictures.next().ok_or_else(|| Error::internal("a decoder without a picture"))?;
        let thumbnail = async {
            match pictures.next() {
                Some(picture) => keep_thumbnail(self.engine, file, at, picture.bytes).await.map(Some),
                None => Ok(None),
            }
        };
        let (seen, thumbnail) = futures::try_join!(self.eyes.look(&picture), thumbnail)?;
        let mut output = Output::default();
        put_labels(&mut output, &seen.sight);
        output.vectors.insert(INDEX.into(), VectorValue::Dense(seen.in_words));
        let likeness = VectorValue::Dense(seen.sight.embedding);
        output.vectors.insert("image_extractor_v1_efficientnet_lite0".into(), likeness);
        if let Some(thumbnail) = thumbnail {
            output.attach(thumbnail);
        }
        Ok(output)
    }
}
