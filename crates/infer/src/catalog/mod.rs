//! The models and tools Strata knows, as data, a file for each kind. Every hash was computed from a file that was
//! downloaded and opened, or made of such files; what comes from a hub has none here.

mod face;
mod ocr;
mod sound;
mod text;
mod tools;
mod vision;

use crate::entry::{Group, ModelEntry};

/// The model a text feature uses when none is named.
pub const DEFAULT_TEXT_MODEL: &str = text::MINILM.id;

/// The model that reranks when none is named.
pub const DEFAULT_CROSS_ENCODER: &str = text::BGE_RERANKER.id;

/// The model that makes sparse vectors of text when none is named.
pub const DEFAULT_SPARSE_MODEL: &str = text::SPLADE_TINY.id;

/// The model that gives each token of a text a vector.
pub const DEFAULT_TOKEN_MODEL: &str = text::COLBERT_V2.id;

/// The model of images when none is named.
pub const DEFAULT_IMAGE_MODEL: &str = vision::EFFICIENTNET_LITE0.id;

/// The space of images and texts when none is named.
pub const DEFAULT_IMAGE_TEXT_MODEL: &str = vision::CONSE_MINILM.id;

/// The model of faces when none is named.
pub const DEFAULT_FACE_MODEL: &str = face::RESNET_128.id;

/// The model that reads text in images when none is named.
pub const DEFAULT_TEXT_READER: &str = ocr::PP_OCR_V6_SMALL.id;

/// The model that transcribes when none is named.
pub const DEFAULT_SPEECH_MODEL: &str = sound::WHISPER_BASE.id;

/// What tells sound from other sound.
pub const ACOUSTIC_MODEL: &str = sound::ACOUSTIC.id;

/// The model that finds where somebody speaks.
pub const VOICE_MODEL: &str = sound::SILERO_VAD.id;

pub const ENTRIES: &[ModelEntry] = &[
    text::MINILM,
    text::SPLADE_TINY,
    text::COLBERT_V2,
    text::MS_MARCO_MINILM,
    text::BGE_RERANKER,
    vision::EFFICIENTNET_LITE0,
    vision::CONSE_MINILM,
    vision::CLIP_B_32,
    vision::CLIP_L_14,
    face::BLAZEFACE,
    face::LANDMARKS,
    face::RESNET_128,
    ocr::PP_OCR_V6_SMALL,
    sound::WHISPER_TINY_EN,
    sound::WHISPER_BASE,
    sound::WHISPER_SMALL,
    sound::SILERO_VAD,
    sound::ACOUSTIC,
    tools::FFMPEG,
    tools::PDFIUM,
];

pub const GROUPS: &[Group] = &[tools::MEDIA_TOOLS, face::FACES, sound::SPEECH];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Client, Origin, Platform};
    use crate::limits::MAX_CONVERSION_BYTES;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique() {
        let mut seen = BTreeSet::new();
        let entries = ENTRIES.iter().flat_map(|entry| entry.aliases.iter().chain([&entry.id]));
        for name in entries.chain(GROUPS.iter().map(|group| &group.id)) {
            assert!(seen.insert(name), "{name}");
        }
    }

    #[test]
    fn groups_name_entries() {
        for member in GROUPS.iter().flat_map(|group| group.members) {
            assert!(ENTRIES.iter().any(|entry| entry.id == *member), "{member}");
        }
    }

    #[test]
    fn what_a_model_needs_is_an_entry_with_files() {
        for entry in ENTRIES.iter().filter(|entry| !entry.needs.is_empty()) {
            assert!(entry.files.is_empty() && entry.hub.is_none(), "{}", entry.id);
            for need in entry.needs {
                assert!(ENTRIES.iter().any(|entry| entry.id == *need && entry.needs.is_empty()), "{need}");
            }
        }
    }

    #[test]
    fn a_file_is_there_once_for_each_platform() {
        for entry in ENTRIES {
            let mut seen = BTreeSet::new();
            for file in entry.files {
                assert!(seen.insert((file.name, format!("{:?}", file.platform))), "{}: {}", entry.id, file.name);
                assert!(file.platform == Platform::Any || !seen.contains(&(file.name, "Any".into())), "{}", file.name);
            }
            assert!(entry.hub.is_none() || entry.files.is_empty(), "{} has two origins", entry.id);
        }
    }

    #[test]
    fn pins_are_hashes_and_conversions_fit_into_memory() {
        let is_hash = |text: &str| text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        for file in ENTRIES.iter().flat_map(|entry| entry.files) {
            assert!(is_hash(file.sha256), "{}", file.name);
            for (source, path) in file.origin.members() {
                assert!(is_hash(source.archive_sha256), "{}", source.archive);
                let (end, start) = match source.client {
                    Client::Pip => (".whl", ""),
                    Client::Npm => (".tgz", "package/"),
                };
                assert!(source.archive.ends_with(end) && path.starts_with(start), "{path} of {}", source.archive);
            }
            if let Origin::Converted(_, members) = file.origin {
                assert!(members.iter().all(|member| is_hash(member.sha256)), "{}", file.name);
                let bytes: u64 = members.iter().map(|member| member.size_bytes).sum();
                assert!(bytes.max(file.size_bytes) <= MAX_CONVERSION_BYTES, "{}", file.name);
            }
        }
    }
}
