//! `universal_extractor`: a file of whatever kind becomes documents in one space. An image is one; of a video or a
//! recording each half minute, of a PDF, a text or an HTML page each page is one.
//!
//! It looks, listens and reads with what `multimodal_extractor` and the reader of pages have; what it adds is which of
//! them a file goes to, and one vector for what a document shows and says.

mod media;
mod pages;
mod part;

use super::{
    Configured, Definition, FileInput, Input, InputFile, Output, Shape, image, parameters as p,
    writer::{self, Generation, Writer},
};
use crate::Engine;
use futures::future::BoxFuture;
use part::{Part, embed};
use serde_json::{Value, json};
use std::sync::Arc;
use strata_infer::Registry;
use strata_media::Family;
use strata_model::{Error, Fields, Result, feature::VectorIndex, limits, schema::FieldType};

const EXTRACTOR: &str = "universal_extractor@v1";
/// Other names of the vector: the hosted service's, and those that say what it is for.
const ALIASES: [&str; 4] =
    ["universal_extractor_v1_embedding", "embedding", "multimodal_embedding", "gemini-embedding-2"];
/// Length of the hosted model's vectors. Clients send it as the default, so it stands for the space's own length.
const HOSTED_DIMENSIONS: u64 = 3072;
/// Parameters that name the language model.
const MODEL: [&str; 2] = ["llm_provider", "llm_model"];

const PARAMETERS: &[p::Parameter] = &[
    image::SPACE,
    p::boolean(
        "extract_text",
        true,
        "Keep what is said and written in `text`; without it, none is looked for in images and frames.",
    ),
    p::boolean(
        "generate_description",
        true,
        "Have a language model describe images and segments, where `llm_provider` and `llm_model` name one.",
    ),
    p::integer(
        "max_video_segments",
        Some(10),
        (1, 50),
        "Segments of 30 seconds of a video or a recording, at most; what follows is left out.",
    ),
    p::integer("max_document_pages", Some(50), (1, 200), "Pages of a document, at most; what follows is left out."),
    p::integer("max_file_download_mb", Some(500), (1, 1024), "Mebibytes of a file, at most; a larger one is refused."),
    p::integer("max_concurrency", Some(4), (1, 32), "Without effect: the server bounds what it does at once."),
    p::integer(
        "output_dimensionality",
        Some(HOSTED_DIMENSIONS),
        (256, HOSTED_DIMENSIONS),
        "Length of the vectors: that of their space, for which 3072, the hosted model's, stands, too.",
    ),
    p::one_of(
        "task_type",
        "RETRIEVAL_DOCUMENT",
        &["RETRIEVAL_DOCUMENT", "RETRIEVAL_QUERY", "SEMANTIC_SIMILARITY", "CLASSIFICATION", "CLUSTERING"],
        "Without effect: documents and queries are embedded alike.",
    ),
];

pub(super) static DEFINITION: Definition = Definition {
    name: "universal_extractor",
    version: "v1",
    code_version: 1,
    description: "Tells by content what a file is, cuts videos and recordings into segments and documents into pages, and makes a vector of each in one space.",
    icon: "shapes",
    category: "multimodal",
    input_types: &[
        FieldType::Image,
        FieldType::Video,
        FieldType::Audio,
        FieldType::Pdf,
        FieldType::Text,
        FieldType::String,
    ],
    files: &[FileInput::new("content", &[Family::Image, Family::Video, Family::Audio, Family::Pdf, Family::Text])],
    input_schema: || json!({ "type": "object", "required": ["content"], "properties": { "content": { "type": "string" } } }),
    output_schema: || {
        json!({ "type": "object", "properties": {
            "modality": { "type": "string", "enum": ["image", "video", "audio", "document"] },
            "text": { "type": "string" }, "description": { "type": "string" },
            "segment_index": { "type": "integer" }, "segment_total": { "type": "integer" },
            "page_number": { "type": "integer" }, "total_pages": { "type": "integer" },
            "start_time_s": { "type": "number" }, "end_time_s": { "type": "number" },
            "duration_s": { "type": "number" },
            "labels": { "type": "array" }, "label_scores": { "type": "array" },
            "width": { "type": "integer" }, "height": { "type": "integer" }, "thumbnail_url": { "type": "string" },
        } })
    },
    parameter_schema: || {
        let mut schema = p::schema(PARAMETERS);
        writer::describe(&mut schema);
        schema
    },
    default_parameters: || p::defaults(PARAMETERS),
    position_fields: &["start_time_s", "end_time_s", "page_number", "segment_index"],
    wordless: &["modality", "labels", "thumbnail_url"],
    reads_source: false,
    check,
    run,
};

/// The vector of every document. Its name says which model makes it; the hosted one is an alias.
fn index(parameters: &Fields) -> Result<VectorIndex> {
    let space = image::space_of(parameters)?;
    let name = format!("universal_extractor_v1_{space}");
    let made = image::indexes(EXTRACTOR, space, [&*name, ""], &ALIASES)?;
    made.into_iter().next().ok_or_else(|| Error::internal("a space without a vector"))
}

fn check(parameters: &Fields) -> Result<Shape> {
    p::check(PARAMETERS, parameters)?;
    let index = index(parameters)?;
    check_length(parameters, &index)?;
    let mut models = media::teller(parameters)?.models;
    // Of pages without text it is always read: there is nothing else to find them by.
    let reader = Registry::default_text_reader();
    if !models.iter().any(|model| model == reader) {
        models.push(reader.to_owned());
    }
    let described = describes(parameters)?.then_some(("description", FieldType::String));
    let fields = [
        ("modality", FieldType::String),
        ("text", FieldType::String),
        ("segment_index", FieldType::Integer),
        ("segment_total", FieldType::Integer),
        ("page_number", FieldType::Integer),
        ("total_pages", FieldType::Integer),
        ("start_time_s", FieldType::Number),
        ("end_time_s", FieldType::Number),
        ("duration_s", FieldType::Number),
        ("labels", FieldType::Array),
        ("thumbnail_url", FieldType::String),
    ];
    Ok(Shape { vectors: vec![index], fields: fields.into_iter().chain(described).collect(), models })
}

fn check_length(parameters: &Fields, index: &VectorIndex) -> Result<()> {
    let asked = p::Read(parameters).integer("output_dimensionality").unwrap_or(HOSTED_DIMENSIONS);
    let own = index.dimensions.unwrap_or_default();
    if asked == HOSTED_DIMENSIONS || usize::try_from(asked) == Ok(own) {
        return Ok(());
    }
    let message = format!("is {own} with `{}`: leave it out, or send {own} or {HOSTED_DIMENSIONS}", index.model);
    Err(Error::invalid("parameters.output_dimensionality", message))
}

/// Whether a language model describes what there is to see and hear: where one is named, unless that is turned off. A
/// model that is named by half is refused.
fn describes(parameters: &Fields) -> Result<bool> {
    // Also where nobody would use it, a key must not stand there itself.
    writer::key(parameters)?;
    let says = |value: &Value| !value.is_null() && value.as_str().is_none_or(|text| !text.trim().is_empty());
    let is_named = MODEL.iter().any(|name| parameters.get(*name).is_some_and(says));
    if !is_named || !p::Read(parameters).is("generate_description") {
        return Ok(false);
    }
    Writer::parse(parameters, "generate_description", Generation::default()).map(|_| true)
}

/// An output that says what kind of content it is of, and which of its parts.
fn placed(modality: &str, at: usize, total: usize) -> Output {
    let mut output = Output::default();
    output.put("modality", modality);
    output.put("segment_index", at);
    output.put("segment_total", total);
    output
}

fn run<'a>(engine: &'a Arc<Engine>, extractor: &'a Configured, input: Input) -> BoxFuture<'a, Result<Vec<Output>>> {
    Box::pin(async move {
        let read = p::Read(&extractor.parameters);
        let most_bytes = read.integer("max_file_download_mb").unwrap_or(500) << 20;
        let job = pages::Job::new(engine, &extractor.parameters);
        let mut parts = Vec::new();
        if input.files.is_empty() {
            let text = given(input.values.get("content")).ok_or_else(|| {
                let message = "has no image, video, audio, PDF or text: map one with `input_mappings`";
                Error::invalid("input", message)
            })?;
            parts.extend(job.text(text).await?);
        }
        let teller = media::teller(&extractor.parameters)?;
        for (at, file) in input.files.iter().enumerate() {
            check_size(file, most_bytes)?;
            let more = match file.family() {
                Family::Image | Family::Audio | Family::Video => {
                    media::parts(engine, &teller, file, &input, &read).await?
                }
                Family::Pdf => job.pdf(file, input.span.page).await?,
                // Texts of one property are one text.
                Family::Text if is_again(&input.files[..at], file) => Vec::new(),
                Family::Text => job.text_file(file, &input).await?,
                Family::Archive | Family::Unknown => {
                    let message = format!("`{}` is `{}`, which it does not read", file.property, file.media_type);
                    return Err(Error::invalid("content", message));
                }
            };
            parts.extend(more);
            check_count(&parts)?;
        }
        embed(engine, &extractor.parameters, parts).await
    })
}

/// The text of a row: one, or several that are mapped.
fn given(value: Option<&Value>) -> Option<String> {
    let text = match value? {
        Value::String(text) => text.clone(),
        Value::Array(texts) => texts.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n\n"),
        _ => return None,
    };
    (!text.trim().is_empty()).then_some(text)
}

/// Whether the text of this file's property has been read with an earlier file.
fn is_again(before: &[InputFile], file: &InputFile) -> bool {
    before.iter().any(|other| other.family() == Family::Text && other.property == file.property)
}

fn check_size(file: &InputFile, most_bytes: u64) -> Result<()> {
    match file.size_bytes > most_bytes {
        true => Err(Error::TooLarge(format!(
            "`{}` has {} bytes; `max_file_download_mb` allows {most_bytes}",
            file.property, file.size_bytes
        ))),
        false => Ok(()),
    }
}

fn check_count(parts: &[Part]) -> Result<()> {
    let most = limits::MAX_DERIVED_DOCUMENTS;
    match parts.len() > most {
        true => Err(Error::TooLarge(format!("more than {most} segments and pages; one input makes {most} documents"))),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Attached, *};
    use strata_model::schema::Schema;

    fn shape(parameters: Value) -> Result<Shape> {
        let mut all = p::defaults(PARAMETERS).as_object().cloned().unwrap();
        all.extend(parameters.as_object().cloned().unwrap());
        check(&all)
    }

    fn refusal(parameters: Value) -> String {
        shape(parameters).err().unwrap().to_string()
    }

    #[test]
    fn the_vector_says_which_model_makes_it_and_answers_to_the_hosted_names() {
        let index = shape(json!({})).unwrap().vectors.remove(0);
        assert_eq!(index.name, "universal_extractor_v1_conse_minilm_l6_v2");
        assert_eq!(index.feature_uri, "mixpeek://universal_extractor@v1/conse_minilm_l6_v2");
        assert_eq!(index.dimensions, Some(384));
        for name in [
            "universal_extractor_v1_embedding",
            "mixpeek://universal_extractor@v1/universal_extractor_v1_embedding",
            "mixpeek://universal_extractor@v1/embedding",
            "mixpeek://universal_extractor@v1/gemini-embedding-2",
            "mixpeek://universal_extractor@v1",
        ] {
            assert!(index.answers_to(name), "{name}");
        }
        assert!(!index.answers_to("mixpeek://multimodal_extractor@v1/embedding"));
        let other = shape(json!({ "embedding_model": "clip_vit_b_32" })).unwrap().vectors.remove(0);
        assert_eq!((&*other.name, other.dimensions), ("universal_extractor_v1_clip_vit_b_32", Some(512)));
    }

    #[test]
    fn the_length_is_that_of_the_space_or_the_hosted_default() {
        for fitting in [json!({}), json!({ "output_dimensionality": 384 }), json!({ "output_dimensionality": 3072 })] {
            assert_eq!(shape(fitting).unwrap().vectors[0].dimensions, Some(384));
        }
        let refused = refusal(json!({ "output_dimensionality": 768 }));
        assert!(refused.contains("output_dimensionality") && refused.contains("384"), "{refused}");
        assert!(shape(json!({ "output_dimensionality": 512, "embedding_model": "clip_vit_b_32" })).is_ok());
    }

    #[test]
    fn parameters_are_checked_by_their_ranges() {
        for (name, wrong) in [
            ("output_dimensionality", json!(4000)),
            ("max_video_segments", json!(51)),
            ("max_document_pages", json!(0)),
            ("max_file_download_mb", json!(1025)),
            ("max_concurrency", json!(33)),
            ("task_type", json!("SOMETHING")),
            ("extract_text", json!("yes")),
            ("embedding_model", json!("nobody")),
        ] {
            let refused = refusal(json!({ name: wrong }));
            assert!(refused.contains(&format!("parameters.{name}")), "{refused}");
        }
    }

    #[test]
    fn nothing_is_described_where_no_model_is_named() {
        let describes = |parameters: Value| {
            let made = shape(parameters).unwrap();
            made.fields.iter().any(|(name, _)| *name == "description")
        };
        let model = json!({ "llm_provider": "own", "llm_model": "small" });
        assert!(!describes(json!({})) && !describes(json!({ "llm_model": " ", "llm_provider": null })));
        assert!(describes(model.clone()));
        assert!(shape(model.clone()).unwrap().models.contains(&"own/small".to_owned()));
        let mut off = model;
        off["generate_description"] = json!(false);
        assert!(!describes(off));
        let half = refusal(json!({ "llm_provider": "own" }));
        assert!(half.contains("llm_model") && half.contains("generate_description"), "{half}");
        assert!(refusal(json!({ "llm_api_key": "sk-s3cret" })).contains("llm_api_key"));
    }

    #[test]
    fn whatever_a_file_may_need_is_part_of_the_fingerprint() {
        for parameters in [json!({}), json!({ "extract_text": false })] {
            let models = shape(parameters).unwrap().models;
            let needed = [
                Registry::default_image_text_model(),
                Registry::default_image_model(),
                Registry::default_speech_model(),
                Registry::default_text_reader(),
            ];
            for model in needed {
                assert_eq!(models.iter().filter(|one| *one == model).count(), 1, "{model} in {models:?}");
            }
        }
    }

    #[test]
    fn a_text_of_the_row_is_read_where_there_is_no_file() {
        let extractor = Configured::parse(&json!(DEFINITION.name), &[], "feature_extractor").unwrap();
        let properties = json!({ "properties": { "title": { "type": "string" }, "photo": { "type": "image" } } });
        let schema = Schema::parse(&properties, "input_schema").unwrap();
        let source = json!({ "title": "A note" }).as_object().cloned().unwrap();
        let alone = extractor.gather(source.clone(), &schema, Attached::default()).unwrap();
        assert_eq!(alone.values["content"], "A note");
        let photo = InputFile {
            blob_id: Some("blob_1".into()),
            property: "photo".into(),
            hash: "00".into(),
            size_bytes: 1,
            media_type: "image/png".into(),
            filename: None,
        };
        let attached = Attached { blobs: vec![photo], ..Attached::default() };
        let beside = extractor.gather(source, &schema, attached).unwrap();
        assert!(beside.values.is_empty() && beside.files.len() == 1, "a new title changes nothing: {beside:?}");
    }

    #[test]
    fn a_row_gives_one_text_or_several() {
        assert_eq!(given(Some(&json!("a"))).as_deref(), Some("a"));
        assert_eq!(given(Some(&json!(["a", 7, "b"]))).as_deref(), Some("a\n\nb"));
        assert!(given(Some(&json!(" "))).is_none() && given(Some(&json!(7))).is_none() && given(None).is_none());
    }
}
