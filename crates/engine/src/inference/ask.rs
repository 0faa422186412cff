//! One model asked directly: which one is meant, what goes in, what comes out.

use super::{
    client::Patience,
    embed::{Usage, is_local},
    inputs,
    providers::{ProviderTask, Target},
};
use crate::{Engine, collections::Collection, extract, org_models};
use serde_json::{Value, json};
use std::sync::Arc;
use strata_infer::{ModelEntry, Registry, SparseVector, Task};
use strata_model::{Error, Fields, Result, Scope, feature::FeatureUri};
use strata_store::catalog::resources::{self, Kind};

/// What the models that run here are answered under as `provider`, and may be asked for as.
pub const LOCAL: &str = "strata";
/// Documents that one reranking takes, and pairs that run at once.
const MAX_DOCUMENTS: usize = 1_000;
const PAIRS: usize = 32;

/// A model and what to ask it. Exactly one of `model`, `inference_name` and `feature_uri` names it.
#[derive(Debug, Clone, Default)]
pub struct Ask {
    /// Whose model `model` is; this server's where it is left out.
    pub provider: Option<String>,
    pub model: Option<String>,
    /// A name of the registry, `provider/model`, the name of a model that the organization brought, or that of a directory
    /// beside the registry's models.
    pub inference_name: Option<String>,
    /// A vector of a built-in extractor or of a collection of the namespace: the model that makes it.
    pub feature_uri: Option<String>,
    pub inputs: Fields,
    pub parameters: Fields,
    /// Whether the caller may have this server send something elsewhere.
    pub may_reach_outside: bool,
}

/// What a model said.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    pub data: Value,
    pub provider: String,
    pub model: String,
    /// What a provider counted.
    pub usage: Option<Usage>,
}

/// The model that is meant.
enum Chosen {
    Local(&'static ModelEntry),
    /// A directory beside the registry's own.
    Directory(String),
    /// The name of one that the organization brought.
    Brought(String),
    Remote(Target),
}

impl Engine {
    /// Asks a model.
    ///
    /// Errors: `Invalid` where no model is named, or more than one, or an input or parameter is not what the model takes;
    /// `Missing` where nothing has the name; `Conflict` where the namespace may not use the model; `Forbidden` where the caller may not reach outside and that is asked;
    /// `Unavailable`, saying what to run or set, where the model is not installed or the provider not set up; `Provider`
    /// where that fails; `Busy` where too much is asked at once.
    pub async fn infer(self: &Arc<Self>, scope: &Scope, ask: Ask) -> Result<Told> {
        let local = |data: Value, model: &str| Told { data, provider: LOCAL.into(), model: model.into(), usage: None };
        match self.chosen(scope, &ask).await? {
            Chosen::Remote(target) => self.ask_provider(scope, &target, &ask).await,
            Chosen::Directory(name) => Ok(local(self.reranked(&name, &ask).await?, &name)),
            Chosen::Local(entry) => Ok(local(self.ask_local(entry, &ask).await?, entry.id)),
            Chosen::Brought(name) => {
                inputs::only(&ask.parameters, &[])?;
                let texts = inputs::texts(&ask.inputs)?;
                let model = self.brought_embedder(scope, &name).await?;
                let vectors = model.embed_queries(texts.values).await?;
                Ok(local(inputs::as_asked(vectors, texts.is_list), model.model_id()))
            }
        }
    }

    async fn chosen(&self, scope: &Scope, ask: &Ask) -> Result<Chosen> {
        let given = |text: &'_ Option<String>| {
            text.as_deref().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let provider = given(&ask.provider).filter(|name| name != LOCAL);
        let name = match (given(&ask.model), given(&ask.inference_name), given(&ask.feature_uri)) {
            (Some(model), None, None) => match provider {
                Some(provider) => {
                    let found = self.providers.get(&provider);
                    let found = found.ok_or_else(|| Error::missing("provider", provider))?;
                    return Ok(Chosen::Remote(found.target(&model)));
                }
                None => model,
            },
            (None, Some(name), None) => name,
            (None, None, Some(uri)) => self.model_of_feature(scope, &uri).await?,
            (None, None, None) => {
                return Err(Error::invalid("model", "is required, or else `inference_name` or `feature_uri`"));
            }
            _ => return Err(Error::invalid("model", "is one of three: `model`, `inference_name`, `feature_uri`")),
        };
        if let Ok(entry) = Registry::resolve(&name) {
            return Ok(Chosen::Local(entry));
        }
        if org_models::is_name(&name) {
            return Ok(Chosen::Brought(name));
        }
        if let Some(target) = self.providers.target(&name) {
            return Ok(Chosen::Remote(target));
        }
        let is_pairs = ask.inputs.contains_key("documents");
        if is_pairs { Ok(Chosen::Directory(name)) } else { Err(Error::missing("model", name)) }
    }

    /// The model behind a vector that extractors make.
    async fn model_of_feature(&self, scope: &Scope, uri: &str) -> Result<String> {
        let parsed = FeatureUri::parse(uri)?;
        let shapes = extract::definitions()
            .iter()
            .filter_map(|definition| definition.shape((definition.default_parameters)().as_object()?).ok());
        let built_in = shapes.flat_map(|shape| shape.vectors).find(|vector| vector.answers_to(uri));
        if let Some(vector) = built_in {
            return Ok(vector.model);
        }
        if let FeatureUri::Extractor { output: Some(output), .. } = parsed
            && is_local(&output)
        {
            return Ok(output);
        }
        let (scope, wanted) = (scope.clone(), uri.to_owned());
        let find = self.catalog.read(move |connection| {
            for row in resources::list(connection, Kind::Collection, &scope)? {
                let vectors = Collection::from_row(row)?.vector_indexes;
                let found = vectors.into_iter().find(|vector| !vector.model.is_empty() && vector.answers_to(&wanted));
                if found.is_some() {
                    return Ok(found);
                }
            }
            Ok(None)
        });
        Ok(find.await?.ok_or_else(|| Error::missing("feature", uri))?.model)
    }

    async fn ask_local(self: &Arc<Self>, entry: &'static ModelEntry, ask: &Ask) -> Result<Value> {
        match entry.task {
            Task::EmbedText => {
                inputs::only(&ask.parameters, &[])?;
                let texts = inputs::texts(&ask.inputs)?;
                let vectors = self.embedder(entry.id).await?.embed_queries(texts.values).await?;
                Ok(inputs::as_asked(vectors, texts.is_list))
            }
            Task::EmbedSparse => {
                inputs::only(&ask.parameters, &[])?;
                let texts = inputs::texts(&ask.inputs)?;
                let model = self.sparse_embedder(entry.id).await?;
                let vectors = futures::future::try_join_all(texts.values.iter().map(|text| model.embed_query(text)));
                let shown = |SparseVector { indices, values }| json!({ "indices": indices, "values": values });
                Ok(inputs::as_asked(vectors.await?.into_iter().map(shown), texts.is_list))
            }
            Task::EmbedTokens => {
                let are_queries = inputs::are_queries(&ask.parameters)?;
                let texts = inputs::texts(&ask.inputs)?;
                let model = self.token_embedder(entry.id).await?;
                let vectors = match are_queries {
                    true => model.embed_queries(texts.values).await?,
                    false => model.embed_now(texts.values).await?,
                };
                Ok(inputs::as_asked(vectors, texts.is_list))
            }
            Task::RerankText => self.reranked(entry.id, ask).await,
            _ => self.ask_media(entry, ask).await,
        }
    }

    /// How relevant each document is to the query, in their order, each from 0 to 1.
    async fn reranked(self: &Arc<Self>, model: &str, ask: &Ask) -> Result<Value> {
        inputs::only(&ask.parameters, &[])?;
        let query = inputs::text(&ask.inputs, "query")?;
        let documents = inputs::list(&ask.inputs, "documents", MAX_DOCUMENTS)?;
        Ok(json!(self.cross_encoder(model).await?.score(&query, documents, PAIRS).await?))
    }

    async fn ask_provider(&self, scope: &Scope, target: &Target, ask: &Ask) -> Result<Told> {
        if !ask.may_reach_outside {
            return Err(Error::Forbidden("asking a provider needs a key with the permission `write`".into()));
        }
        let key = ["llm_api_key", "api_key"].iter().find_map(|name| ask.parameters.get(*name)?.as_str());
        let organization = &scope.organization_id;
        let told = |data, usage| Told {
            data,
            provider: target.provider.name.clone(),
            model: target.model.clone(),
            usage: Some(usage),
        };
        let embeds = match &target.declared {
            Some(declared) => declared.task == ProviderTask::EmbedText,
            None => inputs::is_to_embed(&ask.inputs),
        };
        if embeds {
            inputs::only(&ask.parameters, &["llm_api_key", "api_key"])?;
            let texts = inputs::texts(&ask.inputs)?;
            let embedder = self.remote_embedder(organization, target.clone(), key).await?;
            let (vectors, usage) = embedder.embed(texts.values, Patience::Request).await?;
            return Ok(told(inputs::as_asked(vectors, texts.is_list), usage));
        }
        let prompts = inputs::prompts(&ask.inputs, &ask.parameters)?;
        let (mut written, mut usage) = (Vec::new(), Usage::new());
        for prompt in &prompts.values {
            let generated = self.generate(organization, target, key, prompt, Patience::Request).await?;
            for (name, number) in &generated.usage {
                *usage.entry(name.clone()).or_default() += number;
            }
            written.push(generated.text);
        }
        Ok(told(inputs::as_asked(written, prompts.is_list), usage))
    }
}
