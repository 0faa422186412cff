//! Images, videos and recordings, as `multimodal_extractor` tells of them.

use super::super::{
    Configured, Extractor, Input, InputFile, Output, Shape, Span, image::SPACE, multimodal::V1, parameters::Read,
};
use super::{
    MODEL, describes,
    part::{Part, tells},
    placed,
};
use crate::Engine;
use serde_json::{Value, json};
use std::sync::Arc;
use strata_media::Family;
use strata_model::{Fields, Result, document::VectorValue};

/// Seconds of a segment.
const SEGMENT_SECONDS: u64 = 30;
/// Frames of a segment that are looked at.
const KEY_FRAMES: u64 = 6;
/// Fields of what is told that documents keep, by the names that they have here.
const KEPT: [(&str, &str); 9] = [
    ("description", "description"),
    ("start_time", "start_time_s"),
    ("end_time", "end_time_s"),
    ("duration", "duration_s"),
    ("labels", "labels"),
    ("label_scores", "label_scores"),
    ("width", "width"),
    ("height", "height"),
    ("thumbnail_url", "thumbnail_url"),
];

/// `multimodal_extractor` with what these parameters ask of it.
///
/// Errors: `Invalid` where they name a model that is not there, or a language model by half.
pub(super) fn teller(parameters: &Fields) -> Result<Configured> {
    let set = json!({
        "split_method": "time",
        "time_split_interval": SEGMENT_SECONDS,
        // A last bit that is too short to stand alone goes with the segment before it.
        "max_segment_duration": SEGMENT_SECONDS + 1,
        "key_frames": KEY_FRAMES,
        // Always: without it there is nothing to find sound by.
        "run_transcription": true,
        "transcription_language": "auto",
        "run_ocr": Read(parameters).is("extract_text"),
        "run_video_description": describes(parameters)?,
    });
    let mut settings = Fields::new();
    for layer in [(V1.default_parameters)(), set] {
        if let Value::Object(layer) = layer {
            settings.extend(layer);
        }
    }
    for name in [SPACE.name, "llm_api_key"].into_iter().chain(MODEL) {
        if let Some(value) = parameters.get(name) {
            settings.insert(name.to_owned(), value.clone());
        }
    }
    let Shape { vectors, models, .. } = V1.shape(&settings)?;
    Ok(Configured {
        definition: Extractor::BuiltIn(&V1),
        parameters: settings,
        mappings: Vec::new(),
        passthrough: Vec::new(),
        include_all_source_fields: false,
        vectors,
        models,
    })
}

/// An image, or the segments of a recording. `parameters` are those of `universal_extractor`.
pub(super) async fn parts(
    engine: &Arc<Engine>,
    teller: &Configured,
    file: &InputFile,
    input: &Input,
    parameters: &Read<'_>,
) -> Result<Vec<Part>> {
    let most = parameters.integer("max_video_segments").unwrap_or(10);
    let span = beginning(&input.span, most * SEGMENT_SECONDS);
    let own = Input { files: vec![file.clone()], span, scope: input.scope.clone(), ..Input::default() };
    let told = teller.definition.run(engine, teller, own).await?;
    let modality = match file.family() {
        Family::Image => "image",
        // A container of videos may hold only sound.
        _ if told.iter().any(shows) => "video",
        _ => "audio",
    };
    let total = told.len();
    let seen = teller.vectors.first().map_or("", |index| index.name.as_str());
    let keeps_text = parameters.is("extract_text");
    let part = |(at, told): (usize, Output)| part(told, placed(modality, at, total), seen, keeps_text);
    Ok(told.into_iter().enumerate().map(part).collect())
}

/// As much of the part that is meant as lasts so many seconds.
fn beginning(span: &Span, seconds: u64) -> Span {
    let end = span.start.unwrap_or(0.0) + seconds as f64;
    Span { end: Some(span.end.map_or(end, |meant| meant.min(end))), ..span.clone() }
}

/// Whether a segment has pictures.
fn shows(told: &Output) -> bool {
    ["labels", "source_fps"].iter().any(|field| told.fields.contains_key(*field))
}

/// What is told of an image or a segment, as a document has it. `seen` names the vector.
fn part(mut told: Output, mut output: Output, seen: &str, keeps_text: bool) -> Part {
    let text = written(&told);
    // Without pictures the vector is that of what is said.
    let words = text.clone().filter(|text| shows(&told) && tells(text));
    let seen = match told.vectors.remove(seen) {
        Some(VectorValue::Dense(vector)) => Some(vector),
        _ => None,
    };
    for (from, to) in KEPT {
        output.put(to, told.fields.remove(from));
    }
    output.put("text", text.filter(|_| keeps_text));
    output.artifacts = told.artifacts;
    Part { output, seen, words }
}

/// What is said, and below it what is written.
fn written(told: &Output) -> Option<String> {
    let field = |name: &str| Some(told.fields.get(name)?.as_str()?.trim()).filter(|text| !text.is_empty());
    let texts: Vec<&str> = ["transcription", "ocr_text"].into_iter().filter_map(field).collect();
    (!texts.is_empty()).then(|| texts.join("\n\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEN: &str = "seen";

    fn told(fields: Value) -> Output {
        let mut told = Output { fields: fields.as_object().cloned().unwrap(), ..Output::default() };
        told.vectors.insert(SEEN.to_owned(), VectorValue::Dense(vec![1.0, 0.0]));
        told
    }

    #[test]
    fn a_recording_is_read_from_where_it_is_meant_and_no_longer_than_its_segments() {
        let span = |start, end| Span { start, end, page: None };
        for (meant, expected) in [
            (span(None, None), span(None, Some(300.0))),
            (span(Some(60.0), None), span(Some(60.0), Some(360.0))),
            (span(Some(60.0), Some(70.0)), span(Some(60.0), Some(70.0))),
            (span(None, Some(1000.0)), span(None, Some(300.0))),
        ] {
            assert_eq!(beginning(&meant, 10 * SEGMENT_SECONDS), expected);
        }
    }

    #[test]
    fn segments_take_their_names_and_what_is_said_counts_beside_what_is_seen() {
        let said = "A sentence that is long enough to say what this is about.";
        let fields = json!({
            "start_time": 30.0, "end_time": 60.0, "duration": 30.0, "source_fps": 25.0, "labels": ["cat"],
            "transcription": said, "ocr_text": "EXIT", "words": [], "thumbnail_url": "blobs/a", "segment_index": 7,
        });
        let Part { output, seen, words } = part(told(fields), placed("video", 1, 4), SEEN, true);
        let expected = json!({
            "modality": "video", "segment_index": 1, "segment_total": 4, "start_time_s": 30.0, "end_time_s": 60.0,
            "duration_s": 30.0, "labels": ["cat"], "text": format!("{said}\n\nEXIT"), "thumbnail_url": "blobs/a",
        });
        assert_eq!(Value::Object(output.fields), expected);
        assert_eq!(seen, Some(vec![1.0, 0.0]));
        assert_eq!(words, Some(format!("{said}\n\nEXIT")));
        assert!(output.vectors.is_empty());
    }

    #[test]
    fn a_sign_in_a_picture_is_kept_and_counts_for_nothing() {
        let made = part(told(json!({ "ocr_text": "EXIT", "labels": [] })), placed("image", 0, 1), SEEN, true);
        assert_eq!((&made.output.fields["text"], &made.words), (&json!("EXIT"), &None));
    }

    #[test]
    fn of_sound_alone_the_vector_is_that_of_what_is_said() {
        let said = "A sentence that is long enough to say what this is about.";
        let made = part(told(json!({ "transcription": said })), placed("audio", 0, 1), SEEN, false);
        assert!(made.words.is_none() && made.seen.is_some());
        assert!(made.output.fields.get("text").is_none(), "it is not asked for");
    }

    #[test]
    fn the_extractor_that_looks_and_listens_is_asked_for_half_minutes() {
        let parameters = json!({
            "extract_text": false, "generate_description": true, "llm_provider": "own", "llm_model": "small",
        });
        let teller = teller(parameters.as_object().unwrap()).unwrap();
        let set = Read(&teller.parameters);
        assert_eq!((set.integer("time_split_interval"), set.integer("max_segment_duration")), (Some(30), Some(31)));
        assert!(set.is("run_transcription") && set.is("run_video_description") && set.is("enable_thumbnails"));
        assert!(!set.is("run_ocr"));
        assert_eq!(teller.vectors.len(), 1);
    }
}
