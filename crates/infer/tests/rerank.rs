//! Cross-encoders: one that can be checked by hand, and a real BERT with a head.

#![allow(clippy::unwrap_used, dead_code)]

#[path = "../../../tests/support/cross_encoder.rs"]
mod cross_encoder;

use std::fs;
use std::path::Path;
use strata_infer::{CrossEncoder, InstallState, Registry, Task};
use strata_model::Error;

fn score(model: &CrossEncoder, query: &str, documents: &[&str], batch: usize) -> Vec<f32> {
    let documents = documents.iter().map(|text| (*text).to_owned()).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(model.score(query, documents, batch)).unwrap()
}

fn close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{found:?} is not {expected:?}");
}

fn registry(dir: &Path) -> Registry {
    Registry::open(dir.to_owned())
}

#[test]
fn a_directory_beside_the_models_scores_pairs() {
    let dir = tempfile::tempdir().unwrap();
    cross_encoder::write(&dir.path().join("word_overlap"));
    let model = CrossEncoder::load(&registry(dir.path()), "word_overlap", 2).unwrap();
    assert_eq!(model.id(), "word_overlap");
    let documents =
        ["A violin has four strings", "a trumpet is made of brass", "", "nothing is known", "VIOLIN strings, violin!"];
    let one = |shared| cross_encoder::score(shared);
    // Words count once for each time that the document has them; `a` and `is` are words too.
    let expected = [one(2), one(0), one(0), one(0), one(3)];
    for batch in [1, 2, 32] {
        close(&score(&model, "violin strings", &documents, batch), &expected);
    }
    assert!(score(&model, "violin", &[], 4).is_empty());
    close(&score(&model, "", &["violin"], 4), &[one(0)]);
}

#[test]
fn a_pair_is_cut_to_what_the_model_reads() {
    let dir = tempfile::tempdir().unwrap();
    cross_encoder::write(&dir.path().join("word_overlap"));
    let model = CrossEncoder::load(&registry(dir.path()), "word_overlap", 1).unwrap();
    let late = format!("{} violin", "river ".repeat(600));
    let early = format!("violin {}", "river ".repeat(600));
    close(&score(&model, "violin", &[&late, &early], 8), &[cross_encoder::score(0), cross_encoder::score(1)]);
}

#[test]
fn a_model_of_the_registry_is_installed_from_files_and_checked_from_then_on() {
    let (dir, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let registry = registry(dir.path());
    let name = "cross-encoder/ms-marco-MiniLM-L6-v2";
    let entry = Registry::resolve_for(name, Task::RerankText).unwrap();
    assert!(Registry::resolve_for(name, Task::EmbedText).is_err());
    match CrossEncoder::load(&registry, name, 1) {
        Err(Error::Unavailable(message)) => {
            assert!(message.ends_with("run `strata models pull ms_marco_minilm_l6_v2`"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(registry.pull_from(name, files.path()), Err(Error::Unavailable(m)) if m.contains("model.onnx")));
    cross_encoder::write(files.path());
    let report = registry.pull_from(name, files.path()).unwrap();
    assert!(!report.already_installed && report.installed_bytes > 1_000);
    assert_eq!(registry.state(entry), InstallState::Installed);
    assert!(
        registry.verify(name).unwrap().is_good() && registry.pull_from(name, files.path()).unwrap().already_installed
    );
    let model = CrossEncoder::load(&registry, "ms-marco-MiniLM-L-6-v2", 1).unwrap();
    close(&score(&model, "brass", &["brass"], 1), &[cross_encoder::score(1)]);

    let file = registry.path(entry).join("tokenizer.json");
    let changed = fs::read_to_string(&file).unwrap().replace("violin", "viola!");
    fs::write(&file, changed).unwrap();
    assert!(!registry.verify(name).unwrap().is_good());
    assert!(matches!(CrossEncoder::load(&registry, name, 1), Err(Error::Unavailable(m)) if m.contains("damaged")));
    assert!(!registry.pull_from(name, files.path()).unwrap().already_installed, "pulling again repairs it");
    assert!(registry.verify(name).unwrap().is_good());
}

#[test]
fn what_is_no_cross_encoder_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let registry = registry(dir.path());
    for name in ["nothing", "../x", ".hidden", "", "a/b", "all_minilm_l6_v2"] {
        assert!(matches!(CrossEncoder::load(&registry, name, 1), Err(Error::Missing { .. })), "{name}");
    }
    let broken = dir.path().join("broken");
    cross_encoder::write(&broken);
    fs::write(broken.join("model.onnx"), b"not a model").unwrap();
    assert!(matches!(CrossEncoder::load(&registry, "broken", 1), Err(Error::Unavailable(_))));
    fs::remove_file(broken.join("tokenizer.json")).unwrap();
    assert!(
        matches!(CrossEncoder::load(&registry, "broken", 1), Err(Error::Unavailable(m)) if m.contains("tokenizer"))
    );
}

#[test]
fn a_real_bert_gives_each_pair_the_same_number_in_any_batch() {
    let installed = Registry::open(Registry::default_dir().unwrap());
    installed.pull("all_minilm_l6_v2").unwrap();
    let from = installed.path(Registry::resolve("all_minilm_l6_v2").unwrap());
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("minilm-with-a-head");
    fs::create_dir(&own).unwrap();
    let model = cross_encoder::with_head(&fs::read(from.join("model.onnx")).unwrap(), 384);
    fs::write(own.join("model.onnx"), model).unwrap();
    fs::copy(from.join("tokenizer.json"), own.join("tokenizer.json")).unwrap();
    let model = CrossEncoder::load(&registry(dir.path()), "minilm-with-a-head", 2).unwrap();
    let long = "The river runs through the valley and the bread is made of rye. ".repeat(80);
    let documents = ["A violin has four strings.", "Bread", &long, "", "A trumpet is made of brass, and it is loud."];
    let alone = score(&model, "which instrument has strings", &documents, 1);
    let together = score(&model, "which instrument has strings", &documents, 32);
    close(&together, &alone);
    assert!(alone.iter().all(|score| (0.0..=1.0).contains(score)));
    assert!(
        alone.windows(2).all(|pair| (pair[0] - pair[1]).abs() > 1e-6),
        "different texts, different numbers: {alone:?}"
    );
    // Which of the two is the query is told by the token types.
    let turned = score(&model, "A violin has four strings.", &["which instrument has strings"], 1);
    assert!((turned[0] - alone[0]).abs() > 1e-6);
}
