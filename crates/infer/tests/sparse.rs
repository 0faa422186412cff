//! Sparse embedding with the real model. `make test` installs it into `$STRATA_MODELS`.
#![allow(clippy::unwrap_used)]

use strata_infer::{EmbedConfig, Registry, SparseEmbedder, SparseVector};

fn embedder() -> SparseEmbedder {
    let registry = Registry::open(Registry::default_dir().unwrap());
    SparseEmbedder::load(&registry, Registry::default_sparse_model(), EmbedConfig::default()).unwrap()
}

fn dot(a: &SparseVector, b: &SparseVector) -> f32 {
    let weight = |at: &u32| b.indices.binary_search(at).map_or(0.0, |place| b.values[place]);
    a.indices.iter().zip(&a.values).map(|(at, value)| value * weight(at)).sum()
}

/// Tokens of the model's vocabulary.
const RIVER: u32 = 2314;
const WATER: u32 = 2300;

#[tokio::test(flavor = "multi_thread")]
async fn words_and_near_words_have_weights() {
    let embedder = embedder();
    let vector = embedder.embed_query("the river flows into the sea").await.unwrap();
    assert!(vector.indices.is_sorted() && vector.indices.len() == vector.values.len());
    assert!(vector.values.iter().all(|value| *value > 0.0 && value.is_finite()));
    let weight = |token: u32| vector.indices.binary_search(&token).map_or(0.0, |place| vector.values[place]);
    // `water` is not in the text.
    assert!(weight(RIVER) > 1.0 && weight(WATER) > 0.2, "{vector:?}");
    assert!((10..=400).contains(&vector.indices.len()), "{}", vector.indices.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_right_text_wins_and_a_vector_does_not_depend_on_its_batch() {
    let embedder = embedder();
    let texts = [
        "A violin has four strings and is played with a bow.",
        "The stock market fell sharply after the bank raised interest rates.",
        "Bread is baked from flour, water and yeast.",
        "The goalkeeper saved the penalty in the last minute.",
    ];
    let vectors = embedder.embed(texts.iter().map(|text| (*text).to_owned()).collect()).await.unwrap();
    for (query, wanted) in [
        ("string instrument", 0),
        ("interest rates of the central bank", 1),
        ("how to make bread", 2),
        ("soccer penalty", 3),
    ] {
        let query = embedder.embed_query(query).await.unwrap();
        let scores: Vec<f32> = vectors.iter().map(|vector| dot(&query, vector)).collect();
        let best = (0..scores.len()).max_by(|a, b| scores[*a].total_cmp(&scores[*b])).unwrap();
        assert_eq!(best, wanted, "{scores:?}");
    }
    for (text, vector) in texts.iter().zip(&vectors) {
        let alone = embedder.embed_query(text).await.unwrap();
        let near = alone.values.iter().zip(&vector.values).all(|(a, b)| (a - b).abs() < 1e-3);
        assert!(alone.indices == vector.indices && near);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_text_gives_a_vector() {
    let embedder = embedder();
    for text in ["", " ", "\u{0}", "東京", &"word ".repeat(5_000)] {
        embedder.embed_query(text).await.unwrap();
    }
}
