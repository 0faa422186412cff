//! Providers of models as the configuration file, or a file of their own, describes them.

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::path::Path;
use strata_engine::inference::{DEFAULT_MAX_CHARS, Key, ProviderConfig, ProviderModel, ProviderTask};

/// One `[[providers]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    name: String,
    /// The address below which OpenAI's protocol is spoken; a known provider needs none.
    url: Option<String>,
    key: Option<Secret>,
    /// The environment variable that holds the key.
    key_env: Option<String>,
    #[serde(default)]
    allow_private: bool,
    #[serde(default)]
    models: Vec<Model>,
}

/// One `[[providers.models]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Model {
    id: String,
    task: Task,
    dimensions: Option<usize>,
    max_chars: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Task {
    EmbedText,
    Generate,
}

/// A text that is not printed.
#[derive(Deserialize)]
struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

/// A file that holds `[[providers]]` and nothing else.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Alone {
    #[serde(default)]
    providers: Vec<Provider>,
}

/// Those of a file of their own. A wrong line is not shown: it may hold a key.
pub fn read(path: &Path) -> Result<Vec<Provider>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let parsed: Result<Alone, toml::de::Error> = toml::from_str(&text);
    match parsed {
        Ok(alone) => Ok(alone.providers),
        Err(error) => bail!("`{}` does not describe providers: {}", path.display(), error.message()),
    }
}

/// What the engine takes. `variable` reads the environment.
pub fn settle(providers: Vec<Provider>, variable: impl Fn(&str) -> Option<String>) -> Result<Vec<ProviderConfig>> {
    providers.into_iter().map(|provider| settled(provider, &variable)).collect()
}

fn settled(provider: Provider, variable: impl Fn(&str) -> Option<String>) -> Result<ProviderConfig> {
    let name = provider.name;
    let key = match (provider.key, provider.key_env) {
        (Some(_), Some(_)) => bail!("the provider `{name}` has both `key` and `key_env`"),
        (Some(key), None) => Some(key.0),
        (None, Some(named)) => match variable(&named).filter(|value| !value.is_empty()) {
            Some(value) => Some(value),
            None => bail!("`key_env` of the provider `{name}` names the variable `{named}`, which is not set"),
        },
        (None, None) => None,
    };
    let model = |model: Model| {
        if model.task == Task::Generate && model.dimensions.is_some() {
            bail!("`{}` of the provider `{name}` writes texts and has no `dimensions`", model.id);
        }
        Ok(ProviderModel {
            task: match model.task {
                Task::EmbedText => ProviderTask::EmbedText,
                Task::Generate => ProviderTask::Generate,
            },
            dimensions: model.dimensions,
            max_chars: model.max_chars.unwrap_or(DEFAULT_MAX_CHARS),
            id: model.id,
        })
    };
    Ok(ProviderConfig {
        models: provider.models.into_iter().map(model).collect::<Result<_>>()?,
        url: provider.url,
        key: key.map(|key| Key::new(key.trim().to_owned())),
        allow_private: provider.allow_private,
        name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        [[providers]]
        name = "local"
        url = "http://127.0.0.1:11434/v1"
        key_env = "LOCAL_KEY"
        allow_private = true
        [[providers.models]]
        id = "nomic-embed-text"
        task = "embed_text"
        dimensions = 768
    "#;

    fn settled(text: &str) -> Result<Vec<ProviderConfig>> {
        let alone: Alone = toml::from_str(text)?;
        settle(alone.providers, |name| (name == "LOCAL_KEY").then(|| "s3cret".to_owned()))
    }

    #[test]
    fn a_provider_is_read_with_its_key_from_the_environment() {
        let providers = settled(FILE).expect("valid");
        assert_eq!(providers[0].models[0].dimensions, Some(768));
        assert_eq!(providers[0].key, Some(Key::new("s3cret".into())));
        assert!(settled(&FILE.replace("LOCAL_KEY", "OTHER")).is_err(), "a key that is named must be there");
    }

    #[test]
    fn a_wrong_setting_is_refused_and_no_key_is_shown() {
        for (from, to) in [("embed_text", "embed"), ("allow_private", "private"), ("embed_text", "generate")] {
            assert!(settled(&FILE.replace(from, to)).is_err(), "{to}");
        }
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("providers.toml");
        std::fs::write(&path, "[[providers]]\nname = \"a\"\nkey = \"s3cret\" x").expect("written");
        let error = read(&path).expect_err("not TOML");
        assert!(!format!("{error:#}").contains("s3cret"), "{error:#}");
    }
}
