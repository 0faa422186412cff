//! Providers of models: endpoints that speak OpenAI's protocol, as the operator's settings describe them, and three that
//! are known by name and need nothing but a key.
//!
//! A provider's model is named `provider/model` wherever a model of the registry is named by its id. A name that the
//! registry knows is the registry's, also where it has a slash: a provider that is added changes the meaning of none.

use crate::fetch::Fetcher;
use reqwest::Url;
use std::{collections::BTreeMap, sync::Arc};
use strata_model::{Error, FieldError, Result, id, limits};
use tokio::sync::Semaphore;

/// Requests to one provider that are under way at once; others wait.
const MAX_AT_ONCE: usize = 8;
/// Characters of a text that are sent where the settings say nothing: about as much as models of 8,192 tokens take.
pub const DEFAULT_MAX_CHARS: usize = 24_000;
/// Longest name of a provider.
const MAX_NAME: usize = 63;
/// What no provider can be called: see [`crate::org_models`].
const MODELS_OF_ORGANIZATIONS: &str = "custom";

/// Providers that are there without settings, each with its address. Their keys come from who asks.
const KNOWN: [(&str, &str); 3] = [
    ("openai", "https://api.openai.com/v1"),
    ("google", "https://generativelanguage.googleapis.com/v1beta/openai"),
    ("anthropic", "https://api.anthropic.com/v1"),
];
/// Embedding models of the known providers, and the lengths of their vectors.
const KNOWN_EMBEDDERS: [(&str, &str, usize); 3] = [
    ("openai", "text-embedding-3-small", 1536),
    ("openai", "text-embedding-3-large", 3072),
    ("google", "gemini-embedding-001", 3072),
];

/// A key that is not to be seen in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    pub fn new(value: String) -> Self {
        Self(value)
    }
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

/// What a model of a provider does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProviderTask {
    /// Text to one dense vector, at `/embeddings`.
    EmbedText,
    /// Messages to a text, at `/chat/completions`.
    Generate,
}

/// A model of a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderModel {
    /// As the provider names it.
    pub id: String,
    pub task: ProviderTask,
    /// Length of the vectors of one that embeds.
    pub dimensions: Option<usize>,
    /// Characters of a text that are sent; the rest is cut.
    pub max_chars: usize,
}

/// A provider, as the operator describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderConfig {
    /// Lower-case letters, digits, `-` and `_`.
    pub name: String,
    /// What `/embeddings` and `/chat/completions` are appended to. A known provider needs none.
    pub url: Option<String>,
    /// Used where the organization has no key of its own.
    pub key: Option<Key>,
    /// Whether it may lie at a private address.
    pub allow_private: bool,
    pub models: Vec<ProviderModel>,
}

/// An endpoint that can be asked.
pub(crate) struct Provider {
    pub name: String,
    /// Without a slash at its end.
    pub url: String,
    pub key: Option<Key>,
    /// Whether it answers nobody without a key.
    pub needs_key: bool,
    pub(super) fetcher: Fetcher,
    pub(super) places: Semaphore,
    models: Vec<ProviderModel>,
}

/// One model of a provider.
#[derive(Clone)]
pub(crate) struct Target {
    pub provider: Arc<Provider>,
    /// As the provider names it.
    pub model: String,
    /// What is known of it.
    pub declared: Option<ProviderModel>,
}

impl Target {
    /// `provider/model`.
    pub fn id(&self) -> String {
        format!("{}/{}", self.provider.name, self.model)
    }

    /// What tells its vectors from those of every other: endpoint, model and length.
    pub fn fingerprint(&self) -> String {
        let dimensions = self.declared.as_ref().and_then(|model| model.dimensions).unwrap_or_default().to_string();
        let parts = [self.provider.url.as_bytes(), self.model.as_bytes(), dimensions.as_bytes()];
        hex::encode(id::sha256_parts(&parts))
    }

    /// Length of its vectors, where it is known.
    pub fn dimensions(&self) -> Option<usize> {
        self.declared.as_ref()?.dimensions
    }

    /// Refuses a model that is known to do something else. `at` names the field that chose it.
    pub fn must(&self, task: ProviderTask, at: &str) -> Result<()> {
        let Some(other) = self.declared.as_ref().filter(|model| model.task != task) else { return Ok(()) };
        let does = match other.task {
            ProviderTask::EmbedText => "embeds texts and writes none",
            ProviderTask::Generate => "writes texts and embeds none",
        };
        Err(Error::invalid(at, format!("`{}` {does}", self.id())))
    }
}

/// Every provider of this server, by name.
pub(crate) struct Providers(BTreeMap<String, Arc<Provider>>);

impl Providers {
    /// `allow_private` is the server's own setting; a provider may be allowed more.
    ///
    /// Errors: `Invalid`, naming the setting that is wrong.
    pub fn new(configs: &[ProviderConfig], allow_private: bool) -> Result<Self> {
        let mut providers = BTreeMap::new();
        for (name, url) in KNOWN {
            let known = ProviderConfig {
                name: name.to_owned(),
                url: Some(url.to_owned()),
                key: None,
                allow_private: false,
                models: Vec::new(),
            };
            providers.insert(name.to_owned(), Arc::new(Provider::new(&known, "providers", allow_private)?));
        }
        let mut seen = Vec::new();
        for (i, config) in configs.iter().enumerate() {
            let at = format!("providers.{i}");
            if seen.contains(&&config.name) {
                return Err(Error::invalid(format!("{at}.name"), format!("`{}` is there twice", config.name)));
            }
            seen.push(&config.name);
            providers.insert(config.name.clone(), Arc::new(Provider::new(config, &at, allow_private)?));
        }
        Ok(Self(providers))
    }

    pub fn get(&self, name: &str) -> Option<&Arc<Provider>> {
        self.0.get(name)
    }

    /// Their names, in order.
    pub fn names(&self) -> String {
        self.0.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
    }

    /// The model that `provider/model` names; `None` where no provider has that name. A model that the settings do not
    /// name is the provider's to know.
    pub fn target(&self, name: &str) -> Option<Target> {
        let (provider, model) = name.split_once('/')?;
        let provider = self.0.get(provider).filter(|_| !model.is_empty())?;
        Some(provider.target(model))
    }
}

impl Provider {
    fn new(config: &ProviderConfig, at: &str, allow_private: bool) -> Result<Self> {
        let known = KNOWN.iter().find(|(name, _)| *name == config.name);
        let wrong = |field: &str, message: &str| FieldError::new(format!("{at}.{field}"), message);
        let mut errors = Vec::new();
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
        if config.name.is_empty() || config.name.len() > MAX_NAME || !config.name.bytes().all(fits) {
            errors.push(wrong("name", "must have 1 to 63 characters of `a` to `z`, `0` to `9`, `-` and `_`"));
        }
        if config.name == MODELS_OF_ORGANIZATIONS {
            errors.push(wrong("name", "`custom` is what the names of models begin with that organizations bring"));
        }
        let url = config.url.as_deref().or(known.map(|(_, url)| *url)).unwrap_or_default().trim_end_matches('/');
        if !Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.query().is_none()) {
            errors.push(wrong("url", "must be an HTTP URL, such as `http://127.0.0.1:11434/v1`"));
        }
        for (i, model) in config.models.iter().enumerate() {
            if model.id.trim().is_empty() {
                errors.push(wrong(&format!("models.{i}.id"), "is required"));
            }
            if model.dimensions.is_some_and(|size| !(1..=limits::MAX_DIMENSIONS).contains(&size)) {
                errors.push(wrong(&format!("models.{i}.dimensions"), "must be 1 to 65536"));
            }
            if model.max_chars == 0 {
                errors.push(wrong(&format!("models.{i}.max_chars"), "must be at least 1"));
            }
        }
        if !errors.is_empty() {
            return Err(Error::Invalid(errors));
        }
        let mut models = config.models.clone();
        for (_, id, dimensions) in KNOWN_EMBEDDERS.iter().filter(|(name, ..)| *name == config.name) {
            if !models.iter().any(|model| model.id == *id) {
                models.push(ProviderModel {
                    id: (*id).to_owned(),
                    task: ProviderTask::EmbedText,
                    dimensions: Some(*dimensions),
                    max_chars: DEFAULT_MAX_CHARS,
                });
            }
        }
        Ok(Self {
            needs_key: known.is_some_and(|(_, own)| *own == url),
            name: config.name.clone(),
            url: url.to_owned(),
            key: config.key.clone(),
            fetcher: Fetcher::new(allow_private || config.allow_private)?,
            places: Semaphore::new(MAX_AT_ONCE),
            models,
        })
    }

    pub fn target(self: &Arc<Self>, model: &str) -> Target {
        let declared = self.models.iter().find(|known| known.id == model).cloned();
        Target { provider: self.clone(), model: model.to_owned(), declared }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(name: &str, url: Option<&str>) -> ProviderConfig {
        let (name, url) = (name.to_owned(), url.map(str::to_owned));
        ProviderConfig { name, url, key: Some(Key::new("s3cret".into())), allow_private: false, models: Vec::new() }
    }

    #[test]
    fn a_model_is_named_by_its_provider_and_by_what_that_calls_it() {
        let own = config("local", Some("http://127.0.0.1:1/v1/"));
        let providers = Providers::new(&[own], false).unwrap();
        let target = providers.target("local/org/small:2").unwrap();
        assert_eq!((target.model.as_str(), target.id().as_str()), ("org/small:2", "local/org/small:2"));
        assert_eq!(target.provider.url, "http://127.0.0.1:1/v1");
        assert!(!target.provider.needs_key && providers.get("openai").unwrap().needs_key);
        assert_eq!(providers.target("openai/text-embedding-3-large").unwrap().dimensions(), Some(3072));
        for none in ["local", "local/", "nobody/x", "text-embedding-3-large"] {
            assert!(providers.target(none).is_none(), "{none}");
        }
    }

    #[test]
    fn vectors_of_another_endpoint_or_model_do_not_compare() {
        let at = |url: &str| Providers::new(&[config("own", Some(url))], false).unwrap();
        let (one, two) = (at("http://a/v1"), at("http://b/v1"));
        let print = |providers: &Providers, name: &str| providers.target(name).unwrap().fingerprint();
        assert_eq!(print(&one, "own/m"), print(&at("http://a/v1/"), "own/m"));
        assert_ne!(print(&one, "own/m"), print(&two, "own/m"));
        assert_ne!(print(&one, "own/m"), print(&one, "own/n"));
    }

    #[test]
    fn settings_that_cannot_work_are_refused_by_name() {
        let wrong = |config: ProviderConfig| Providers::new(&[config], false).err().unwrap().to_string();
        assert!(wrong(config("My LLM", Some("http://a"))).contains("providers.0.name"));
        assert!(wrong(config("own", None)).contains("providers.0.url"));
        assert!(wrong(config("own", Some("ftp://a"))).contains("providers.0.url"));
        let twice = [config("own", Some("http://a")), config("own", Some("http://b"))];
        assert!(Providers::new(&twice, false).err().unwrap().to_string().contains("twice"));
        assert!(!format!("{:?}", config("own", None)).contains("s3cret"));
    }
}
