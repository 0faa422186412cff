//! Late interaction with small weights of chance: what each token's vector is, which tokens have one, and what is refused.
//! The numbers to compare with come from `late_interaction.py`. The weights that mean something come from a hub.

#![allow(clippy::unwrap_used)]

#[path = "../../../tests/support/colbert.rs"]
mod colbert;

use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use strata_infer::{EmbedConfig, InstallState, ModelEntry, Registry, Task, TokenEmbedder, TokenVectors};
use strata_model::{Error, Result};

const DIMENSIONS: usize = 8;

/// An entry like the registry's, for vectors of 8 numbers.
fn entry() -> &'static ModelEntry {
    static ENTRY: std::sync::OnceLock<ModelEntry> = std::sync::OnceLock::new();
    ENTRY.get_or_init(|| ModelEntry { dimensions: DIMENSIONS, ..*Registry::resolve("colbertv2").unwrap() })
}

fn load(dir: &Path) -> Result<TokenEmbedder> {
    let read = |name: &str| fs::read(dir.join(name)).unwrap();
    let (weights, tokens, settings) = (read("model.safetensors"), read("tokenizer.json"), read("config.json"));
    TokenEmbedder::of(entry(), weights, &tokens, &settings, EmbedConfig::default())
}

fn embedder() -> TokenEmbedder {
    let dir = tempfile::tempdir().unwrap();
    colbert::write(dir.path(), DIMENSIONS);
    load(dir.path()).unwrap()
}

fn close(text: &str, found: &TokenVectors, expected: &TokenVectors) {
    let lengths = |vectors: &TokenVectors| vectors.iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(lengths(found), lengths(expected), "{text}");
    let mut pairs = found.iter().flatten().zip(expected.iter().flatten());
    assert!(pairs.all(|(a, b)| (a - b).abs() < 1e-4), "{text}: {found:?} is not {expected:?}");
}

/// Texts and their vectors, as the script has computed them.
fn computed(kind: &str) -> Vec<(String, TokenVectors)> {
    let all: Value = serde_json::from_str(include_str!("late_interaction.json")).unwrap();
    let read = |one: &Value| {
        let vectors = serde_json::from_value(one["vectors"].clone()).unwrap();
        (one["text"].as_str().unwrap().to_owned(), vectors)
    };
    all[kind].as_array().unwrap().iter().map(read).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn vectors_are_those_of_the_published_model() {
    let embedder = embedder();
    let (queries, expected): (Vec<String>, Vec<TokenVectors>) = computed("queries").into_iter().unzip();
    let together = embedder.embed_queries(queries.clone()).await.unwrap();
    assert!(together.iter().all(|vectors| vectors.len() == strata_infer::late_interaction::QUERY_TOKENS));
    for ((query, found), expected) in queries.iter().zip(&together).zip(&expected) {
        close(query, found, expected);
        close(query, &embedder.embed_query(query).await.unwrap(), expected);
    }
    let (documents, expected): (Vec<String>, Vec<TokenVectors>) = computed("documents").into_iter().unzip();
    let together = embedder.embed(documents.clone()).await.unwrap();
    for ((document, found), expected) in documents.iter().zip(&together).zip(&expected) {
        close(document, found, expected);
        close(document, &embedder.embed_now(vec![document.clone()]).await.unwrap()[0], expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn signs_have_no_vector_in_a_document_and_what_has_no_place_is_cut() {
    let embedder = embedder();
    // The beginning, the marker and the end count; the endings of words count for themselves.
    let (long, signed) = ("water ".repeat(300), "water, ".repeat(300));
    for (text, count) in
        [("", 3), ("...!?", 3), ("bread", 4), ("Rivers, rivers.", 7), (long.as_str(), 48), (signed.as_str(), 26)]
    {
        let vectors = embedder.embed(vec![text.to_owned()]).await.unwrap().remove(0);
        assert_eq!(vectors.len(), count, "{text}");
        let length = |vector: &Vec<f32>| vector.iter().map(|x| x * x).sum::<f32>();
        assert!(vectors.iter().all(|vector| (length(vector) - 1.0).abs() < 1e-5), "{text}");
    }
    // A sign is read even so: the vectors beside it are others.
    let texts = ["bread water", "bread, water"].map(str::to_owned).to_vec();
    let vectors = embedder.embed(texts).await.unwrap();
    assert_eq!(vectors[0].len(), vectors[1].len());
    assert_ne!(vectors[0], vectors[1]);
}

#[test]
fn a_model_of_the_registry_is_installed_from_files() {
    let (dir, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let registry = Registry::open(dir.path().to_owned());
    let entry = Registry::resolve_for("colbertv2_v1", Task::EmbedTokens).unwrap();
    let load = |id: &str| TokenEmbedder::load(&registry, id, EmbedConfig::default());
    assert!(matches!(load("splade_tiny"), Err(Error::Missing { .. })));
    match load("colbert-ir/colbertv2.0") {
        Err(Error::Unavailable(message)) => {
            assert!(message.ends_with("run `strata models pull colbertv2`"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    colbert::write(files.path(), entry.dimensions);
    registry.pull_from("colbertv2", files.path()).unwrap();
    assert_eq!(registry.state(entry), InstallState::Installed);
    let embedder = load("colbertv2_v1").unwrap();
    assert_eq!((embedder.model_id(), embedder.dimensions()), ("colbertv2", 128));
    assert_eq!(load("colbertv2").unwrap().fingerprint(), embedder.fingerprint());
}

#[test]
fn files_of_another_network_are_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |name: &str, change: &dyn Fn(&mut Value)| {
        colbert::write(dir.path(), DIMENSIONS);
        let file = dir.path().join(name);
        let mut json: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        change(&mut json);
        fs::write(&file, json.to_string()).unwrap();
        load(dir.path()).unwrap_err().to_string()
    };
    for (key, value, why) in [
        ("hidden_act", json!("swish"), "config.json"),
        ("num_hidden_layers", json!(3), "layer.2"),
        ("max_position_embeddings", json!(16), "16 tokens"),
    ] {
        let message = refused("config.json", &|settings: &mut Value| settings[key] = value.clone());
        assert!(message.contains(why), "{key}: {message}");
    }
    let message = refused("tokenizer.json", &|tokens: &mut Value| {
        let vocabulary = tokens["model"]["vocab"].as_object_mut().unwrap();
        let id = vocabulary.remove("[unused1]").unwrap();
        vocabulary.insert("[unused9]".to_owned(), id);
    });
    assert!(message.contains("`[unused1]`"), "{message}");
    colbert::write(dir.path(), DIMENSIONS + 1);
    let message = load(dir.path()).unwrap_err().to_string();
    assert!(message.contains("linear"), "{message}");
}
