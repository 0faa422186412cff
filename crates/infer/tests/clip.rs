//! CLIP with small weights of chance: what is loaded, what decides a vector, and what is refused. The weights that mean
//! something come from a hub.

#![allow(clippy::unwrap_used)]

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use candle_transformers::models::clip::text_model::{Activation, ClipTextConfig};
use candle_transformers::models::clip::vision_model::ClipVisionConfig;
use candle_transformers::models::clip::{ClipConfig, ClipModel};
use serde_json::{Value, json};
use strata_infer::{Clip, ModelEntry, Pixels, Registry};

const SIDE: usize = 32;
const WORDS: [&str; 6] = ["a", "cat", "dog", "photo", "of", "ready"];

/// An entry like the registry's, for vectors of 8 numbers.
fn entry() -> &'static ModelEntry {
    static ENTRY: std::sync::OnceLock<ModelEntry> = std::sync::OnceLock::new();
    ENTRY.get_or_init(|| ModelEntry { dimensions: 8, ..*Registry::resolve("clip_vit_b_32").unwrap() })
}

fn settings() -> Value {
    let part = json!({
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "hidden_act": "quick_gelu",
    });
    let (mut text, mut vision) = (part.clone(), part);
    text["vocab_size"] = json!(WORDS.len() + 3);
    text["max_position_embeddings"] = json!(6);
    vision["image_size"] = json!(SIDE);
    vision["patch_size"] = json!(16);
    json!({ "projection_dim": 8, "text_config": text, "vision_config": vision })
}

/// Words are numbers; the end of a text has the largest, as in the real vocabulary.
fn tokens() -> Vec<u8> {
    let (start, unknown, end) = (WORDS.len(), WORDS.len() + 1, WORDS.len() + 2);
    let mut vocabulary: serde_json::Map<String, Value> =
        WORDS.iter().enumerate().map(|(id, word)| ((*word).to_owned(), json!(id))).collect();
    for (id, word) in [(start, "<start>"), (unknown, "<unknown>"), (end, "<end>")] {
        vocabulary.insert(word.into(), json!(id));
    }
    let special = |id: usize, word: &str| json!({ "id": word, "ids": [id], "tokens": [word] });
    let part = |word: &str| json!({ "SpecialToken": { "id": word, "type_id": 0 } });
    let text = json!({ "Sequence": { "id": "A", "type_id": 0 } });
    let json = json!({
        "version": "1.0",
        "pre_tokenizer": { "type": "Whitespace" },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [part("<start>"), text, part("<end>")],
            "pair": [part("<start>"), text, part("<end>")],
            "special_tokens": { "<start>": special(start, "<start>"), "<end>": special(end, "<end>") },
        },
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "<unknown>" },
    });
    json.to_string().into_bytes()
}

/// Weights as a file.
fn weights() -> Vec<u8> {
    let part = |words, places| ClipTextConfig {
        vocab_size: words,
        embed_dim: 16,
        activation: Activation::QuickGelu,
        intermediate_size: 32,
        max_position_embeddings: places,
        pad_with: None,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        projection_dim: 8,
    };
    let config = ClipConfig {
        text_config: part(WORDS.len() + 3, 6),
        vision_config: ClipVisionConfig {
            embed_dim: 16,
            activation: Activation::QuickGelu,
            intermediate_size: 32,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            projection_dim: 8,
            num_channels: 3,
            image_size: SIDE,
            patch_size: 16,
        },
        logit_scale_init_value: 2.6592,
        image_size: SIDE,
    };
    let made = VarMap::new();
    let tensors = VarBuilder::from_varmap(&made, DType::F32, &Device::Cpu);
    // The runtime makes this one itself where it is not there.
    tensors.pp("vision_model.embeddings").get(16, "class_embedding").unwrap();
    ClipModel::new(tensors, &config).unwrap();
    // Numbers that are the same at every run.
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    let all = made.data().lock().unwrap();
    let mut names: Vec<&String> = all.keys().collect();
    names.sort();
    for name in names {
        let shape = all[name].shape().clone();
        let numbers: Vec<f32> = (0..shape.elem_count()).map(|_| next()).collect();
        all[name].set(&Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap()).unwrap();
    }
    drop(all);
    let file = tempfile::NamedTempFile::new().unwrap();
    made.save(file.path()).unwrap();
    std::fs::read(file.path()).unwrap()
}

fn load(settings: Value) -> strata_model::Result<Clip> {
    Clip::of(entry(), weights(), &tokens(), settings.to_string().as_bytes())
}

fn picture(width: u32, height: u32, seed: u8) -> Pixels {
    let bytes = (0..width * height * 3).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8 ^ seed).collect();
    Pixels::new(width, height, bytes).unwrap()
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

#[tokio::test]
async fn images_and_texts_get_unit_vectors_of_one_length() {
    let clip = load(settings()).unwrap();
    let texts = ["photo of a cat", "photo of a dog", "photo of a cat dog dog dog"];
    let texts = clip.embed_texts(texts.map(str::to_owned).to_vec()).await.unwrap();
    let images = [picture(SIDE as u32, SIDE as u32, 0), picture(90, 50, 0), picture(SIDE as u32, SIDE as u32, 255)];
    let mut seen = Vec::new();
    for image in images {
        seen.push(clip.embed_image(image).await.unwrap());
    }
    for vector in texts.iter().chain(&seen) {
        assert_eq!(vector.len(), 8);
        assert!((cosine(vector, vector) - 1.0).abs() < 1e-5);
    }
    assert!(cosine(&texts[0], &texts[1]) < 0.9999, "words decide");
    // Six places: the beginning, four words, the end.
    assert_eq!(texts[2], texts[0], "of a long text the first words are seen");
    assert!(cosine(&seen[0], &seen[2]) < 0.9999, "pixels decide");
    let again = load(settings()).unwrap();
    assert_eq!(again.fingerprint(), clip.fingerprint());
    assert_eq!(again.embed_queries(vec!["photo of a cat".into()]).await.unwrap()[0], texts[0]);
    assert_eq!(again.embed_image_now(picture(SIDE as u32, SIDE as u32, 0)).await.unwrap(), seen[0]);
}

#[test]
fn files_of_another_network_are_refused_with_the_reason() {
    for (at, value, why) in [
        ("/text_config/hidden_act", json!("gelu"), "activation"),
        ("/projection_dim", json!(9), "9 numbers"),
        ("/vision_config/num_hidden_layers", json!(3), "layers.2"),
        ("/text_config/vocab_size", json!("x"), "config.json"),
    ] {
        let mut wrong = settings();
        *wrong.pointer_mut(at).unwrap() = value;
        let refused = load(wrong).unwrap_err().to_string();
        assert!(refused.contains(why), "{at}: {refused}");
    }
}
