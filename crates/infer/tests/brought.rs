//! Models that somebody brings, run for real: the registry's files in archives. `make test` installs them into
//! `$STRATA_MODELS`.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use strata_infer::{Brought, BroughtFormat, EmbedConfig, Registry, TextEmbedder};
use tempfile::TempDir;

const TEXTS: [&str; 3] = [
    "A violin has four strings and is played with a bow.",
    "Bread",
    "The goalkeeper saved the penalty in the last minute of the match.",
];

/// An archive with files of a model of the registry, and perhaps one more.
fn packed(model: &str, files: &[&str], more: Option<(&str, &str)>) -> (TempDir, PathBuf) {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("model.tar.gz");
    let file = std::fs::File::create(&path).unwrap();
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(file, flate2::Compression::fast()));
    for name in files {
        tar.append_path_with_name(Registry::default_dir().unwrap().join(model).join(name), name).unwrap();
    }
    if let Some((name, content)) = more {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, content.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap();
    (temp, path)
}

fn texts() -> Vec<String> {
    TEXTS.iter().map(|text| (*text).to_owned()).collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[test]
fn a_graph_that_is_brought_makes_the_vectors_of_the_registrys_own() {
    let registry = Registry::open(Registry::default_dir().unwrap());
    let known = TextEmbedder::load(&registry, Registry::default_text_model(), EmbedConfig::default()).unwrap();
    let (_temp, path) = packed(known.model_id(), &["model.onnx", "tokenizer.json"], None);
    let opened = Brought::open(&path, BroughtFormat::Onnx).unwrap();
    let fingerprint = opened.fingerprint();
    let own = TextEmbedder::of("custom/small@1.0.0", opened, EmbedConfig::default()).unwrap();
    assert_eq!((own.dimensions(), own.max_tokens()), (known.dimensions(), known.max_tokens()));
    assert_eq!((own.model_id(), own.fingerprint()), ("custom/small@1.0.0", fingerprint.as_str()));
    let (one, other) = (known.embed_blocking(texts()).unwrap(), own.embed_blocking(texts()).unwrap());
    assert!(one.iter().zip(&other).all(|(one, other)| cosine(one, other) > 0.9999));
}

#[test]
fn a_bert_in_safetensors_is_pooled_as_it_says() {
    let files = ["model.safetensors", "tokenizer.json", "config.json"];
    let first = r#"{ "pooling_mode_cls_token": true }"#;
    let load = |more| {
        let (_temp, path) = packed(Registry::default_sparse_model(), &files, more);
        let opened = Brought::open(&path, BroughtFormat::Safetensors).unwrap();
        TextEmbedder::of("custom/bert@1.0.0", opened, EmbedConfig::default()).unwrap()
    };
    let (mean, first) = (load(None), load(Some(("1_Pooling/config.json", first))));
    assert_eq!((mean.dimensions(), mean.max_tokens()), (128, 512));
    assert_ne!(mean.fingerprint(), first.fingerprint());
    let together = mean.embed_blocking(texts()).unwrap();
    for (text, vector) in TEXTS.iter().zip(&together) {
        assert!((cosine(vector, vector) - 1.0).abs() < 1e-4, "of length 1");
        let alone = mean.embed_query_blocking(text).unwrap();
        assert!(cosine(vector, &alone) > 0.9999, "a vector does not depend on its batch");
        assert!(cosine(vector, &first.embed_query_blocking(text).unwrap()) < 0.999);
    }
}

#[test]
fn a_bert_that_is_none_is_refused() {
    let other = r#"{ "model_type": "mpnet" }"#;
    let (_temp, path) = packed(
        Registry::default_sparse_model(),
        &["model.safetensors", "tokenizer.json"],
        Some(("config.json", other)),
    );
    let opened = Brought::open(&path, BroughtFormat::Safetensors).unwrap();
    let told = TextEmbedder::of("custom/other@1.0.0", opened, EmbedConfig::default()).unwrap_err().to_string();
    assert!(told.contains("config.json"), "{told}");
}
