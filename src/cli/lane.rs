//! What becomes of each kind of file: the collection that it goes into, and how it is taken apart there.

use serde_json::{Value, json};

/// A kind of file with a collection of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    Texts,
    Images,
    Pages,
    Videos,
    Recordings,
    /// Files that nothing here reads, kept as they are.
    Others,
}

pub const LANES: [Lane; 6] = [Lane::Texts, Lane::Images, Lane::Pages, Lane::Videos, Lane::Recordings, Lane::Others];

impl Lane {
    /// The lane of a bucket field.
    pub fn of(field: &str) -> Self {
        match field {
            "image" => Self::Images,
            "pdf" => Self::Pages,
            "video" => Self::Videos,
            "audio" => Self::Recordings,
            _ => Self::Others,
        }
    }

    /// The name of its collection.
    pub fn collection(self) -> &'static str {
        match self {
            Self::Texts => "texts",
            Self::Images => "images",
            Self::Pages => "pages",
            Self::Videos => "videos",
            Self::Recordings => "recordings",
            Self::Others => "media",
        }
    }

    /// Its `feature_extractor`; `split_by` is for texts.
    pub fn extractor(self, split_by: &str) -> Value {
        let (name, parameters, mappings) = match self {
            Self::Texts => ("text_extractor", json!({ "split_by": split_by }), json!({ "text": "text" })),
            Self::Images => ("image_extractor", json!({}), json!({ "image": "image" })),
            Self::Pages => {
                ("document_graph_extractor", json!({ "thumbnail_mode": "full_page" }), json!({ "pdf": "pdf" }))
            }
            Self::Videos => {
                let parameters =
                    json!({ "split_method": "scene", "run_transcription": true, "run_transcription_embedding": true });
                ("multimodal_extractor", parameters, json!({ "video": "video" }))
            }
            Self::Recordings => {
                let parameters = json!({ "split_method": "silence", "run_transcription": true, "run_transcription_embedding": true });
                ("multimodal_extractor", parameters, json!({ "audio": "audio" }))
            }
            Self::Others => ("passthrough_extractor", json!({}), json!({})),
        };
        json!({
            "feature_extractor_name": name,
            "version": "v1",
            "parameters": parameters,
            "input_mappings": mappings,
            "include_all_source_fields": true,
        })
    }
}
