//! Words of a text for BM25: how a text is cut, folded and weighted, by language.
//!
//! A text is cut at word boundaries (Unicode Standard Annex 29) and lowercased; stop words of the language are left out and
//! the others stemmed (Snowball). Chinese and Japanese, and languages without a list and a stemmer here, are cut by a
//! segmenter that knows scripts without spaces, and nothing more. Weights are those of BM25 with k1 = 1.2 and b = 0.75, for
//! a mean length of 256 words.

use parking_lot::Mutex;
use qdrant_edge::bm25_embed::{EdgeBm25, EdgeBm25Config};
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

/// Languages with a list of stop words or a stemmer, by the codes of ISO 639-1.
const KNOWN: [(&str, &str); 28] = [
    ("ar", "arabic"),
    ("az", "azerbaijani"),
    ("bn", "bengali"),
    ("ca", "catalan"),
    ("da", "danish"),
    ("de", "german"),
    ("el", "greek"),
    ("en", "english"),
    ("es", "spanish"),
    ("eu", "basque"),
    ("fi", "finnish"),
    ("fr", "french"),
    ("he", "hebrew"),
    ("hu", "hungarian"),
    ("id", "indonesian"),
    ("it", "italian"),
    ("kk", "kazakh"),
    ("ne", "nepali"),
    ("nl", "dutch"),
    ("no", "norwegian"),
    ("pt", "portuguese"),
    ("ro", "romanian"),
    ("ru", "russian"),
    ("sl", "slovene"),
    ("sv", "swedish"),
    ("tg", "tajik"),
    ("tr", "turkish"),
    ("nb", "norwegian"),
];

/// Models by the name of their language, `None` for no language.
static MODELS: LazyLock<Mutex<HashMap<Option<&'static str>, Arc<EdgeBm25>>>> = LazyLock::new(Mutex::default);

/// The language that a code (`de`, `de-AT`) or a name (`german`) means; `None` where it is not one of [`KNOWN`].
fn known(language: &str) -> Option<&'static str> {
    let wanted = language.trim().to_lowercase();
    let code = wanted.split(['-', '_']).next().unwrap_or_default();
    KNOWN.iter().find(|(own, name)| *own == code || *name == wanted).map(|(_, name)| *name)
}

/// The model for texts of a language; `None` stands for English. Fails where the engine refuses a configuration of ours.
pub(super) fn model(language: Option<&str>) -> Option<Arc<EdgeBm25>> {
    let name = language.map_or(Some("english"), known);
    let mut models = MODELS.lock();
    if let Some(made) = models.get(&name) {
        return Some(made.clone());
    }
    let config = match name {
        Some(name) => json!({ "language": name }),
        // It has no stemmer; its stop words are not wanted.
        None => json!({ "tokenizer": "multilingual", "language": "chinese", "stopwords": { "custom": [] } }),
    };
    let config: EdgeBm25Config = serde_json::from_value(config).ok()?;
    let made = Arc::new(EdgeBm25::new(config).ok()?);
    models.insert(name, made.clone());
    Some(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(language: Option<&str>, text: &str) -> usize {
        model(language).unwrap().embed_query(text).indices.len()
    }

    fn same(language: Option<&str>, a: &str, b: &str) -> bool {
        let model = model(language).unwrap();
        model.embed_query(a).indices == model.embed_query(b).indices
    }

    #[test]
    fn there_is_a_model_for_every_language_and_for_none() {
        for (code, name) in KNOWN {
            assert!(model(Some(code)).is_some() && model(Some(name)).is_some(), "{code}");
        }
        assert!(model(None).is_some() && model(Some("tlh")).is_some());
    }

    #[test]
    fn words_are_stemmed_and_stop_words_left_out_by_their_language() {
        assert!(same(None, "The rivers", "river") && same(Some("en-GB"), "running", "runs"));
        assert!(same(Some("de"), "die Häuser", "Hauses") && !same(None, "Häuser", "Hauses"));
        assert!(same(Some("French"), "les chevaux", "cheval") || same(Some("fr"), "les maisons", "maison"));
        assert_eq!((words(Some("de"), "der die das"), words(None, "der die das")), (0, 3));
    }

    #[test]
    fn scripts_without_spaces_are_cut() {
        assert!(words(Some("ja"), "東京都に住んでいます") > 1);
        assert!(words(Some("zh"), "我们在北京学习") > 1);
    }
}
