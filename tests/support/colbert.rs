//! A ColBERT of chance: the files that the real one has, with a BERT of two layers and 32 numbers, and weights that are
//! the same at every run. `crates/infer/tests/late_interaction.py` computes with the same weights by itself.

use serde_json::{Map, Value, json};
use std::path::Path;

const HIDDEN: usize = 32;
const INTERMEDIATE: usize = 64;
const LAYERS: usize = 2;
/// Tokens of a text that it has places for.
const PLACES: usize = 48;
const SPECIAL: [&str; 7] = ["[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
/// Words, an ending, and signs.
const WORDS: [&str; 24] = [
    "a", "the", "river", "##s", "flow", "into", "sea", "violin", "has", "four", "string", "bread", "is", "baked",
    "from", "flour", "and", "yeast", "of", "water", ".", ",", "!", "?",
];

/// Writes `model.safetensors`, `tokenizer.json` and `config.json` of a model with vectors of `dimensions` numbers into
/// a directory.
pub fn write(dir: &Path, dimensions: usize) {
    std::fs::create_dir_all(dir).expect("a directory for the model");
    let put = |name: &str, bytes: Vec<u8>| std::fs::write(dir.join(name), bytes).expect("the model is written");
    put("model.safetensors", safetensors(dimensions));
    put("tokenizer.json", tokenizer().to_string().into_bytes());
    put("config.json", settings().to_string().into_bytes());
}

fn settings() -> Value {
    json!({
        "architectures": ["HF_ColBERT"], "model_type": "bert", "vocab_size": SPECIAL.len() + WORDS.len(),
        "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": 4, "intermediate_size": INTERMEDIATE,
        "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
        "max_position_embeddings": PLACES, "type_vocab_size": 2, "initializer_range": 0.02, "layer_norm_eps": 1e-12,
        "pad_token_id": 0, "position_embedding_type": "absolute",
    })
}

fn tokenizer() -> Value {
    let all = SPECIAL.iter().chain(&WORDS).enumerate();
    let vocabulary: Map<String, Value> = all.map(|(id, word)| ((*word).to_owned(), json!(id))).collect();
    let marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
    let added = marks.map(|mark| {
        json!({
            "id": vocabulary[mark], "content": mark, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        })
    });
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null,
            "lowercase": true,
        },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": {
            "type": "BertProcessing", "sep": ["[SEP]", vocabulary["[SEP]"]], "cls": ["[CLS]", vocabulary["[CLS]"]],
        },
        "decoder": null,
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocabulary,
        },
    })
}

/// Names and shapes of all weights, in the order in which chance makes them.
fn shapes(dimensions: usize) -> Vec<(String, Vec<usize>)> {
    let embeddings = |name: &str| format!("bert.embeddings.{name}.weight");
    let mut shapes = vec![
        (embeddings("word_embeddings"), vec![SPECIAL.len() + WORDS.len(), HIDDEN]),
        (embeddings("position_embeddings"), vec![PLACES, HIDDEN]),
        (embeddings("token_type_embeddings"), vec![2, HIDDEN]),
        (embeddings("LayerNorm"), vec![HIDDEN]),
        ("bert.embeddings.LayerNorm.bias".to_owned(), vec![HIDDEN]),
    ];
    for layer in 0..LAYERS {
        for (part, outputs, inputs) in [
            ("attention.self.query", HIDDEN, Some(HIDDEN)),
            ("attention.self.key", HIDDEN, Some(HIDDEN)),
            ("attention.self.value", HIDDEN, Some(HIDDEN)),
            ("attention.output.dense", HIDDEN, Some(HIDDEN)),
            ("attention.output.LayerNorm", HIDDEN, None),
            ("intermediate.dense", INTERMEDIATE, Some(HIDDEN)),
            ("output.dense", HIDDEN, Some(INTERMEDIATE)),
            ("output.LayerNorm", HIDDEN, None),
        ] {
            let name = format!("bert.encoder.layer.{layer}.{part}");
            shapes.push((format!("{name}.weight"), [outputs].into_iter().chain(inputs).collect()));
            shapes.push((format!("{name}.bias"), vec![outputs]));
        }
    }
    shapes.push(("linear.weight".to_owned(), vec![dimensions, HIDDEN]));
    shapes
}

/// The weights: numbers from -0.5 to 0.5, of which the scales of normalisations lie around 1.
fn safetensors(dimensions: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    let (mut header, mut data) = (Map::new(), Vec::new());
    for (name, shape) in shapes(dimensions) {
        let start = data.len();
        let middle = if name.ends_with("LayerNorm.weight") { 1.0 } else { 0.0 };
        for _ in 0..shape.iter().product::<usize>() {
            data.extend((middle + next()).to_le_bytes());
        }
        header.insert(name, json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, data.len()] }));
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat()
}
