//! What a look into a file tells without decoding it.

use crate::detect::{Family, MediaKind};
use serde::{Deserialize, Serialize};

/// What a file says of itself. Fields that its family has not, or that it does not say, are absent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    pub kind: MediaKind,
    /// The family after a look inside: an `mp4` that holds only sound is [`Family::Audio`].
    pub family: Family,
    /// Milliseconds; for an animated image, of one round.
    pub duration_ms: Option<u64>,
    /// Pixels, after orientation.
    pub width: Option<u32>,
    /// Pixels, after orientation.
    pub height: Option<u32>,
    /// Frames a second.
    pub frames_per_second: Option<f64>,
    pub video_codec: Option<String>,
    pub audio_codec: Option<String>,
    pub has_audio: bool,
    /// Samples a second.
    pub sample_rate: Option<u32>,
    pub channels: Option<u32>,
    /// Pages of a PDF.
    pub page_count: Option<u32>,
    /// Frames of an image; more than one is an animation.
    pub frame_count: Option<u32>,
    /// The file cannot be read without a password.
    pub encrypted: bool,
}

impl Probe {
    pub(crate) fn of(kind: MediaKind) -> Self {
        Self {
            kind,
            family: kind.family(),
            duration_ms: None,
            width: None,
            height: None,
            frames_per_second: None,
            video_codec: None,
            audio_codec: None,
            has_audio: false,
            sample_rate: None,
            channels: None,
            page_count: None,
            frame_count: None,
            encrypted: false,
        }
    }
}
