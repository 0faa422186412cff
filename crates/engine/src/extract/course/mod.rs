//! `course_content_extractor`: what a course is made of (recorded lessons, books, source code) becomes documents that are as
//! large as what one looks for: a segment, a screen, an element of a page, a function.

mod archive;
mod code;
mod functions;
mod grammars;
mod listing;
pub(super) mod pages;
mod subtitles;
mod video;

use super::{
    Configured, Definition, FileInput, Input, InputFile, Output, Shape, embed_texts, image,
    multimodal::{speech_model, text_index},
    parameters as p,
};
use crate::Engine;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::sync::Arc;
use strata_infer::Registry;
use strata_media::Family;
use strata_model::{Error, Fields, Result, document::VectorValue, feature::VectorIndex, limits, schema::FieldType};
use subtitles::Cue;

const EXTRACTOR: &str = "course_content_extractor@v1";
const TEXT_INDEX: &str = "course_content_extractor_v1_text_embedding";
const CODE_INDEX: &str = "course_content_extractor_v1_code_embedding";
const VISUAL_INDEX: &str = "course_content_extractor_v1_visual_embedding";
/// Bytes of subtitles.
const MAX_SUBTITLE_BYTES: u64 = 16 << 20;

const PARAMETERS: &[p::Parameter] = &[
    p::integer(
        "target_segment_duration_ms",
        Some(120_000),
        (30_000, 600_000),
        "Milliseconds of a segment, at most; a longer one is cut.",
    ),
    p::integer(
        "min_segment_duration_ms",
        Some(30_000),
        (10_000, 600_000),
        "Milliseconds of a segment, at least; a shorter one is joined with its neighbour.",
    ),
    p::one_of("segmentation_method", "scene", &["scene", "srt", "time"], "Where segments of a video end."),
    p::number(
        "scene_detection_threshold",
        Some(0.3),
        (0.1, 0.9),
        "How much a frame must differ from the one before, by scene.",
    ),
    p::boolean("use_whisper_asr", true, "Write down what is said, where there are no subtitles."),
    p::text("transcription_language", Some("en"), "Code of the language that is spoken; `auto` detects it."),
    p::text("transcription_model", None, "Registry id of the model that listens."),
    p::boolean("extract_screen_text", true, "Read text in frames, and pages that hold no text."),
    p::integer("ocr_frames_per_segment", Some(3), (1, 10), "Frames of a segment in which text is read."),
    p::boolean("expand_to_granular_docs", true, "Make a document of each screen that shows new text, too."),
    p::one_of(
        "pdf_extraction_mode",
        "per_element",
        &["per_element", "per_page"],
        "A document for each element of a page, or for each page.",
    ),
    p::integer("pdf_render_dpi", Some(150), (72, 300), "Dots an inch at which pages are looked at."),
    p::boolean("detect_code_in_pdf", true, "Tell code in pages from other text."),
    p::boolean("segment_functions", true, "A document for each function, method and class, not for each file."),
    p::some_of("supported_languages", grammars::LANGUAGES, "Languages of the source files that are read."),
    p::boolean("run_text_embedding", true, "Make a vector of each document's text."),
    p::boolean("run_code_embedding", true, "Make a vector of each document's code."),
    p::boolean("run_visual_embedding", false, "Make a vector of each thumbnail, in a space that words share."),
    image::SPACE,
    p::one_of(
        "visual_embedding_use_case",
        "lecture",
        &["lecture", "code_demo", "tutorial", "presentation", "dynamic"],
        "Without effect: all thumbnails are looked at alike.",
    ),
    p::boolean("generate_thumbnails", true, "Keep pictures of segments, screens, elements and pages as JPEGs."),
    p::ignored("use_cdn", p::no, "Without effect: files are served by this server."),
    p::unavailable("enrich_with_llm", p::no, "needs a language model, which this extractor does not ask"),
    p::ignored("llm_prompt", p::nothing, "Without effect: no language model is asked."),
];

pub(super) static DEFINITION: Definition = Definition {
    name: "course_content_extractor",
    version: "v1",
    code_version: 1,
    description: "Takes courses apart: recorded lessons into segments and screens, PDFs into elements, source code into functions.",
    icon: "graduation-cap",
    category: "multimodal",
    input_types: &[FieldType::Video, FieldType::Pdf, FieldType::Excel, FieldType::Text],
    files: &[
        FileInput::new("video", &[Family::Video]),
        FileInput::new("srt", &[Family::Text]),
        FileInput::new("pdf", &[Family::Pdf]),
        FileInput::new("code_archive", &[Family::Archive, Family::Text]),
    ],
    input_schema: || {
        let input = || json!({ "type": "string" });
        json!({ "type": "object", "properties": {
            "video": input(), "srt": input(), "pdf": input(), "code_archive": input(),
        } })
    },
    output_schema: || {
        json!({ "type": "object", "properties": {
            "unit_type": { "type": "string" }, "doc_type": { "type": "string" }, "element_type": { "type": "string" },
            "title": { "type": "string" }, "text_content": { "type": "string" }, "screen_text": { "type": "string" },
            "code_content": { "type": "string" }, "code_language": { "type": "string" }, "file_path": { "type": "string" },
            "segment_index": { "type": "integer" }, "start_time": { "type": "number" }, "end_time": { "type": "number" },
            "page_number": { "type": "integer" }, "total_pages": { "type": "integer" },
            "element_index": { "type": "integer" }, "bbox": { "type": "object" },
            "start_line": { "type": "integer" }, "end_line": { "type": "integer" }, "thumbnail_url": { "type": "string" },
        } })
    },
    parameter_schema: || p::schema(PARAMETERS),
    default_parameters: || p::defaults(PARAMETERS),
    position_fields: &["start_time", "end_time", "page_number", "bbox", "start_line", "end_line"],
    wordless: &["unit_type", "doc_type", "element_type", "code_language", "thumbnail_url"],
    reads_source: false,
    check,
    run,
};

fn check(parameters: &Fields) -> Result<Shape> {
    p::check(PARAMETERS, parameters)?;
    let read = p::Read(parameters);
    let length = |name: &str, default: u64| read.integer(name).unwrap_or(default);
    if length("min_segment_duration_ms", 30_000) > length("target_segment_duration_ms", 120_000) {
        let message = "must not be above `target_segment_duration_ms`";
        return Err(Error::invalid("parameters.min_segment_duration_ms", message));
    }
    let (mut vectors, mut models) = (Vec::new(), Vec::new());
    if read.is("run_text_embedding") {
        let aliases = ["embedding", "text_embedding", "intfloat__multilingual_e5_large_instruct"];
        vectors.push(text_index(TEXT_INDEX.into(), EXTRACTOR, &aliases)?);
    }
    if read.is("run_code_embedding") {
        let aliases = ["code_embedding", "jinaai__jina_embeddings_v2_base_code"].map(str::to_owned).to_vec();
        vectors.push(VectorIndex { aliases, ..text_index(CODE_INDEX.into(), EXTRACTOR, &[])? });
    }
    if read.is("run_text_embedding") || read.is("run_code_embedding") {
        models.push(Registry::default_text_model().to_owned());
    }
    if read.is("run_visual_embedding") {
        let space = image::space_of(parameters)?;
        let aliases = ["visual_embedding", "google__siglip_base_patch16_224"];
        vectors.extend(image::indexes(EXTRACTOR, space, [VISUAL_INDEX, ""], &aliases)?.into_iter().take(1));
        models.extend([space.to_owned(), Registry::default_image_model().to_owned()]);
    }
    if read.is("extract_screen_text") {
        models.push(Registry::default_text_reader().to_owned());
    }
    if read.is("use_whisper_asr") {
        models.push(speech_model(parameters, "transcription_model")?.to_owned());
    }
    Ok(Shape {
        vectors,
        fields: vec![
            ("unit_type", FieldType::String),
            ("doc_type", FieldType::String),
            ("element_type", FieldType::String),
            ("title", FieldType::String),
            ("text_content", FieldType::String),
            ("code_content", FieldType::String),
            ("code_language", FieldType::String),
            ("screen_text", FieldType::String),
            ("segment_index", FieldType::Integer),
            ("start_time", FieldType::Number),
            ("end_time", FieldType::Number),
            ("page_number", FieldType::Integer),
            ("element_index", FieldType::Integer),
            ("bbox", FieldType::Object),
            ("start_line", FieldType::Integer),
            ("end_line", FieldType::Integer),
            ("thumbnail_url", FieldType::String),
        ],
        models,
    })
}

fn run<'a>(engine: &'a Arc<Engine>, extractor: &'a Configured, input: Input) -> BoxFuture<'a, Result<Vec<Output>>> {
    Box::pin(async move {
        let _room = engine.heavy().await?;
        let parameters = p::Read(&extractor.parameters);
        let keeps = parameters.is("generate_thumbnails");
        let looks = parameters.is("run_visual_embedding");
        let Content { videos, subtitles, pdfs, code } = Content::of(extractor, &input)?;
        let mut outputs = Vec::new();
        if !videos.is_empty() {
            let cues = cues(engine, &input, &subtitles).await?;
            let model = speech_model(&extractor.parameters, "transcription_model")?;
            let settings = video::Settings::new(&parameters, model, keeps || looks);
            for file in videos {
                outputs.extend(video::documents(engine, file, &input.span, cues.as_deref(), settings).await?);
                check_count(&outputs)?;
            }
        }
        let settings = pages::Settings {
            by_element: parameters.text("pdf_extraction_mode") != Some("per_page"),
            finds_code: parameters.is("detect_code_in_pdf"),
            reads: parameters.is("extract_screen_text"),
            pictures: keeps || looks,
            keeps_wordless: false,
            max_pages: u32::MAX,
            dpi: parameters.number("pdf_render_dpi").unwrap_or(150.0) as f32,
        };
        for file in pdfs {
            outputs.extend(pages::documents(engine, file, input.span.page, settings).await?);
            check_count(&outputs)?;
        }
        let settings = code::Settings {
            languages: parameters.words("supported_languages").into_iter().map(str::to_owned).collect(),
            by_function: parameters.is("segment_functions"),
        };
        for file in code {
            outputs.extend(code::documents(engine, file, &settings).await?);
            check_count(&outputs)?;
        }
        if parameters.is("run_text_embedding") {
            embed_texts(engine, &mut outputs, TEXT_INDEX, |output| {
                text_in(output, "text_content").or_else(|| text_in(output, "screen_text"))
            })
            .await?;
        }
        if parameters.is("run_code_embedding") {
            embed_texts(engine, &mut outputs, CODE_INDEX, |output| text_in(output, "code_content")).await?;
        }
        if looks {
            look(engine, &mut outputs, &extractor.parameters).await?;
        }
        if !keeps {
            for output in &mut outputs {
                output.artifacts.clear();
                output.fields.remove("thumbnail_url");
            }
        }
        Ok(outputs)
    })
}

fn text_in(output: &Output, field: &str) -> Option<String> {
    let text = output.fields.get(field)?.as_str()?;
    (!text.trim().is_empty()).then(|| text.to_owned())
}

/// The files of an input, of which one kind has some; subtitles go with videos.
struct Content<'a> {
    videos: Vec<&'a InputFile>,
    subtitles: Vec<&'a InputFile>,
    pdfs: Vec<&'a InputFile>,
    code: Vec<&'a InputFile>,
}

impl<'a> Content<'a> {
    fn of(extractor: &Configured, input: &'a Input) -> Result<Self> {
        let is_mapped =
            |name: &str, file: &InputFile| extractor.paths(name).is_some_and(|paths| paths.contains(&file.property));
        let mut content = Self { videos: Vec::new(), subtitles: Vec::new(), pdfs: Vec::new(), code: Vec::new() };
        let mut texts = Vec::new();
        for file in &input.files {
            match file.family() {
                Family::Video => content.videos.push(file),
                Family::Pdf => content.pdfs.push(file),
                Family::Archive => content.code.push(file),
                Family::Text if is_mapped("srt", file) => content.subtitles.push(file),
                Family::Text if is_mapped("code_archive", file) => content.code.push(file),
                Family::Text => texts.push(file),
                Family::Image | Family::Audio | Family::Unknown => {}
            }
        }
        // A text that nothing maps goes with a video; alone it is source code.
        match content.videos.is_empty() && content.pdfs.is_empty() && content.code.is_empty() {
            true => content.code = texts,
            false => content.subtitles.extend(texts),
        }
        let kinds = [("a video", &content.videos), ("a PDF", &content.pdfs), ("source code", &content.code)];
        let there: Vec<&str> = kinds.iter().filter(|(_, files)| !files.is_empty()).map(|(name, _)| *name).collect();
        match there.len() {
            1 => Ok(content),
            0 => Err(Error::invalid("input", "has no video, PDF or source code: map one with `input_mappings`")),
            _ => {
                let message = format!("has {}; one of them is read: map it with `input_mappings`", there.join(" and "));
                Err(Error::invalid("input", message))
            }
        }
    }
}

/// The subtitles of an input; `None` where it has none.
async fn cues(engine: &Engine, input: &Input, files: &[&InputFile]) -> Result<Option<Vec<Cue>>> {
    let mut found = input.values.get("srt").and_then(Value::as_str).map(subtitles::parse).unwrap_or_default();
    for file in files {
        if !found.is_empty() {
            break;
        }
        if file.size_bytes > MAX_SUBTITLE_BYTES {
            let has = file.size_bytes;
            return Err(Error::TooLarge(format!(
                "the subtitles have {has} bytes; at most {MAX_SUBTITLE_BYTES} are read"
            )));
        }
        // A text blob stands among the fields, read in whatever encoding it has.
        found = match input.source.get(&file.property).and_then(Value::as_str) {
            Some(text) => subtitles::parse(text),
            None => subtitles::parse(&String::from_utf8_lossy(&engine.blobs.get(&file.hash).await?)),
        };
    }
    let is_given = input.values.get("srt").is_some_and(|value| !value.is_null());
    match (found.is_empty(), is_given) {
        (false, _) => Ok(Some(found)),
        (true, false) => Ok(None),
        (true, true) => {
            Err(Error::invalid("srt", "holds no subtitles: each has a line `00:00:01,000 --> 00:00:02,000`"))
        }
    }
}

/// Puts the vector of its thumbnail into each output that has one.
async fn look(engine: &Arc<Engine>, outputs: &mut [Output], parameters: &Fields) -> Result<()> {
    let shown = |(at, output): (usize, &Output)| Some((at, output.artifacts.first()?.hash().to_owned()));
    let pictures = outputs.iter().enumerate().filter_map(shown).collect();
    for (at, vector) in image::look_at(engine, parameters, pictures).await? {
        outputs[at].vectors.insert(VISUAL_INDEX.to_owned(), VectorValue::Dense(vector));
    }
    Ok(())
}

/// What the documents of a file begin their keys with: it stays when the file's content changes.
fn file_key(file: &InputFile) -> String {
    file.blob_id.clone().unwrap_or_else(|| file.property.clone())
}

fn check_count(outputs: &[Output]) -> Result<()> {
    let most = limits::MAX_DERIVED_DOCUMENTS;
    match outputs.len() > most {
        true => Err(Error::TooLarge(format!("more than {most} documents; one input makes {most}"))),
        false => Ok(()),
    }
}
