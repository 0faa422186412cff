//! Embedding text by whichever model a name means: one of the registry, which runs here, or a provider's.

use super::{
    client::Patience,
    providers::{DEFAULT_MAX_CHARS, ProviderTask, Target},
};
use crate::{Engine, org_models};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};
use strata_infer::TextEmbedder;
use strata_model::{Error, Result, Scope, limits};

/// Texts of one request to a provider, and the characters that they may have together.
const MAX_TEXTS: usize = 64;
const MAX_CHARS: usize = 200_000;

/// Numbers that a provider says of what it read and wrote, such as `total_tokens`.
pub type Usage = BTreeMap<String, i64>;

/// A model that makes dense vectors of texts.
#[derive(Clone)]
pub(crate) enum Embedder {
    Local(TextEmbedder),
    Remote(RemoteEmbedder),
}

/// A provider's model, and the key to ask it with.
#[derive(Clone)]
pub(crate) struct RemoteEmbedder {
    target: Target,
    key: Option<String>,
}

impl Embedder {
    /// One vector a text, in order, in the background; see [`TextEmbedder::embed`].
    pub async fn embed(&self, texts: Vec<String>) -> Result<Vec<Vec<f32>>> {
        match self {
            Self::Local(model) => model.embed(texts).await,
            Self::Remote(model) => Ok(model.embed(texts, Patience::Background).await?.0),
        }
    }

    /// The vector of a text that somebody waits for.
    pub async fn embed_query(&self, text: &str) -> Result<Vec<f32>> {
        let none = || Error::internal("the model gave no vector");
        match self {
            Self::Local(model) => model.embed_query(text).await,
            Self::Remote(model) => {
                let (vectors, _) = model.embed(vec![text.to_owned()], Patience::Request).await?;
                vectors.into_iter().next().ok_or_else(none)
            }
        }
    }
}

impl RemoteEmbedder {
    /// One vector a text, in order, and what the provider says that it took. Texts go 64 at a time; each is cut where
    /// the settings of the model say.
    ///
    /// Errors: as those of [`Provider::post`](super::providers::Provider::post); `Provider` where the vectors are not as
    /// many, as long or as finite as they must be.
    pub async fn embed(&self, texts: Vec<String>, patience: Patience) -> Result<(Vec<Vec<f32>>, Usage)> {
        let most = self.target.declared.as_ref().map_or(DEFAULT_MAX_CHARS, |model| model.max_chars);
        let texts: Vec<String> = texts.into_iter().map(|text| sendable(text, most)).collect();
        let (mut vectors, mut usage) = (Vec::with_capacity(texts.len()), Usage::new());
        let mut rest = &texts[..];
        while !rest.is_empty() {
            let (batch, after) = rest.split_at(batch_of(rest));
            rest = after;
            let body = json!({ "model": self.target.model, "input": batch, "encoding_format": "float" });
            let answer = self.target.provider.post("/embeddings", self.key.as_deref(), &body, patience).await?;
            vectors.extend(self.vectors(&answer, batch.len())?);
            add_usage(&mut usage, &answer);
        }
        Ok((vectors, usage))
    }

    fn vectors(&self, answer: &Value, count: usize) -> Result<Vec<Vec<f32>>> {
        let wrong = |what: &str| Error::Provider(format!("`{}` answered {what}", self.target.id()));
        let data = answer.get("data").and_then(Value::as_array).ok_or_else(|| wrong("without vectors"))?;
        if data.len() != count {
            return Err(wrong(&format!("{} vectors to {count} texts", data.len())));
        }
        let mut vectors = vec![Vec::new(); count];
        for (place, row) in data.iter().enumerate() {
            let index = row.get("index").and_then(Value::as_u64).map_or(place, |i| usize::try_from(i).unwrap_or(count));
            let numbers = row.get("embedding").and_then(Value::as_array).ok_or_else(|| wrong("without vectors"))?;
            let vector: Vec<f32> = numbers.iter().filter_map(|number| Some(number.as_f64()? as f32)).collect();
            let is_whole = vector.len() == numbers.len() && vector.iter().all(|number| number.is_finite());
            if !is_whole || !(1..=limits::MAX_DIMENSIONS).contains(&vector.len()) {
                return Err(wrong("a vector that is none"));
            }
            if let Some(expected) = self.target.dimensions().filter(|expected| *expected != vector.len()) {
                return Err(wrong(&format!("vectors of {} numbers; its settings say {expected}", vector.len())));
            }
            match vectors.get_mut(index) {
                Some(slot) if slot.is_empty() => *slot = vector,
                _ => return Err(wrong("vectors in an order that is none")),
            }
        }
        Ok(vectors)
    }
}

/// A text as providers take it: none refuses a blank, and most refuse an empty text.
fn sendable(text: String, most: usize) -> String {
    if text.is_empty() {
        return " ".to_owned();
    }
    match text.char_indices().nth(most) {
        Some((end, _)) => text[..end].to_owned(),
        None => text,
    }
}

/// How many of the texts make the next request; at least one.
fn batch_of(texts: &[String]) -> usize {
    let mut chars = 0;
    let fits = texts.iter().take(MAX_TEXTS).take_while(|text| {
        chars += text.len();
        chars <= MAX_CHARS
    });
    fits.count().max(1)
}

/// Adds the whole numbers of an answer's `usage`.
pub(super) fn add_usage(to: &mut Usage, answer: &Value) {
    for (name, number) in answer.get("usage").and_then(Value::as_object).into_iter().flatten() {
        if let Some(number) = number.as_i64() {
            let sum = to.entry(name.clone()).or_default();
            *sum = sum.saturating_add(number);
        }
    }
}

impl Engine {
    /// The text model of a name: an id or alias of the registry, `provider/model`, or the name of one that the organization
    /// brought. `key` is the caller's own for a provider, see [`Engine::provider_key`].
    ///
    /// Errors: `Missing` where nothing has that name; `Conflict` where the namespace may not use it; `Unavailable` where the model is not installed, or the provider
    /// has no key; `Invalid` where the provider's model does not embed.
    pub(crate) async fn text_embedder(
        self: &Arc<Self>,
        scope: &Scope,
        name: &str,
        key: Option<&str>,
    ) -> Result<Embedder> {
        if org_models::is_name(name) {
            return self.brought_embedder(scope, name).await.map(Embedder::Local);
        }
        let Some(target) = self.providers.target(name).filter(|_| !is_local(name)) else {
            return match name.split_once('/') {
                Some((provider, _)) if !is_local(name) => Err(self.unknown_provider(provider)),
                _ => self.embedder(name).await.map(Embedder::Local),
            };
        };
        self.remote_embedder(&scope.organization_id, target, key).await.map(Embedder::Remote)
    }

    pub(super) async fn remote_embedder(
        &self,
        organization_id: &str,
        target: Target,
        key: Option<&str>,
    ) -> Result<RemoteEmbedder> {
        target.must(ProviderTask::EmbedText, "model")?;
        let key = self.provider_key(organization_id, &target.provider, key).await?;
        Ok(RemoteEmbedder { target, key })
    }

    /// See [`Target::fingerprint`]. `Unavailable` where the provider is not there any more, `Missing` where the name is
    /// no provider's.
    pub(crate) fn provider_fingerprint(&self, name: &str) -> Result<String> {
        let Some((provider, _)) = name.split_once('/') else { return Err(Error::missing("model", name)) };
        let target = self.providers.target(name).ok_or_else(|| self.unknown_provider(provider))?;
        Ok(target.fingerprint())
    }

    /// What a provider that is not there is told as: the settings may have changed since its name was stored.
    pub(super) fn unknown_provider(&self, name: &str) -> Error {
        let known = self.providers.names();
        Error::Unavailable(format!(
            "there is no provider `{name}`; there are {known}, and the server's settings may name others as `[[providers]]`"
        ))
    }
}

/// Whether a name is one of the registry's, some of which have a slash, too.
pub(crate) fn is_local(name: &str) -> bool {
    strata_infer::Registry::resolve(name).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::providers::{ProviderConfig, Providers};

    fn remote(dimensions: Option<usize>) -> RemoteEmbedder {
        let config = ProviderConfig {
            name: "own".into(),
            url: Some("http://a/v1".into()),
            key: None,
            allow_private: false,
            models: vec![crate::inference::ProviderModel {
                id: "m".into(),
                task: ProviderTask::EmbedText,
                dimensions,
                max_chars: 4,
            }],
        };
        let target = Providers::new(&[config], false).unwrap().target("own/m").unwrap();
        RemoteEmbedder { target, key: None }
    }

    #[test]
    fn vectors_come_back_in_the_order_of_the_texts_or_not_at_all() {
        let row = |index: u64, numbers: Value| json!({ "index": index, "embedding": numbers });
        let of = |rows: Vec<Value>| remote(Some(2)).vectors(&json!({ "data": rows }), 2);
        let turned = of(vec![row(1, json!([0, 1])), row(0, json!([1.0, 0.5]))]).unwrap();
        assert_eq!(turned, [[1.0, 0.5], [0.0, 1.0]]);
        for wrong in [
            vec![row(0, json!([1, 0]))],
            vec![row(0, json!([1, 0])), row(0, json!([1, 0]))],
            vec![row(0, json!([1, 0])), row(7, json!([1, 0]))],
            vec![row(0, json!([1, 0])), row(1, json!([1, 0, 0]))],
            vec![row(0, json!([1, 0])), row(1, json!([1, "x"]))],
            vec![row(0, json!([1, 0])), row(1, json!([1, 1e300]))],
            vec![row(0, json!([1, 0])), json!({})],
        ] {
            assert!(matches!(of(wrong.clone()), Err(Error::Provider(_))), "{wrong:?}");
        }
        assert!(remote(None).vectors(&json!({ "error": "no" }), 1).is_err());
    }

    #[test]
    fn texts_are_cut_between_characters_and_none_is_empty() {
        assert_eq!(sendable("üüüüü".into(), 4), "üüüü");
        assert_eq!(sendable(String::new(), 4), " ");
        assert_eq!(sendable("ab".into(), 4), "ab");
    }

    #[test]
    fn a_batch_has_few_texts_and_few_characters() {
        assert_eq!(batch_of(&vec!["x".to_owned(); 200]), MAX_TEXTS);
        assert_eq!(batch_of(&["x".repeat(MAX_CHARS + 1), "y".into()]), 1);
        assert_eq!(batch_of(&["x".repeat(MAX_CHARS - 1), "y".into(), "z".into()]), 2);
    }
}
