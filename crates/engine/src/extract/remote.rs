//! What an extractor's parameters say of providers, settled when a collection is made: the parameters then say all that
//! its vectors depend on, whatever becomes of the server's settings.

use crate::{Engine, inference::is_local, org_models};
use serde_json::{Map, Value};
use strata_model::{Error, Fields, Result};

/// Parameter with the length of the vectors of a provider's model, or of one that an organization brings.
pub(crate) const DIMENSIONS: &str = "embedding_dimensions";

impl Engine {
    /// Completes the extractor of a collection as clients write it: the length of a provider's vectors is written into
    /// its parameters.
    ///
    /// Errors: `Invalid` where a provider is named that is not there, or another length than its settings have.
    pub(crate) fn settle_extractor(&self, request: &mut Fields) -> Result<()> {
        if let Some(extractor) = request.get_mut("feature_extractor").filter(|extractor| extractor.is_object()) {
            return self.settle_parameters(extractor, "feature_extractor");
        }
        let first = request.get_mut("feature_extractors").and_then(|list| list.get_mut(0));
        first.map_or(Ok(()), |extractor| self.settle_parameters(extractor, "feature_extractors.0"))
    }

    fn settle_parameters(&self, extractor: &mut Value, at: &str) -> Result<()> {
        let named =
            ["parameters", "params"].into_iter().find(|name| extractor.get(*name).is_some_and(Value::is_object));
        let Some(named) = named else { return Ok(()) };
        let Some(Value::Object(parameters)) = extractor.get_mut(named) else { return Ok(()) };
        let at = |field: &str| format!("{at}.{named}.{field}");
        if let Some(provider) = parameters.get("llm_provider").and_then(Value::as_str) {
            self.known_provider(provider, at("llm_provider"))?;
        }
        // Those that organizations bring are settled with the transaction that writes the collection.
        let is_remote = |name: &&str| !is_local(name) && !org_models::is_name(name);
        let Some(model) = parameters.get("embedding_model").and_then(Value::as_str).filter(is_remote) else {
            return Ok(());
        };
        let Some((provider, _)) = model.split_once('/') else { return Ok(()) };
        self.known_provider(provider, at("embedding_model"))?;
        match self.providers.target(model).and_then(|target| target.dimensions()) {
            Some(dimensions) => settle_dimensions(parameters, dimensions, at(DIMENSIONS)),
            None => Ok(()),
        }
    }

    fn known_provider(&self, name: &str, at: String) -> Result<()> {
        match self.providers.get(name) {
            Some(_) => Ok(()),
            None => {
                Err(Error::invalid(at, format!("there is no provider `{name}`; there are {}", self.providers.names())))
            }
        }
    }
}

/// Writes down how long the vectors are. `Invalid` where the caller says something else.
pub(crate) fn settle_dimensions(parameters: &mut Map<String, Value>, dimensions: usize, at: String) -> Result<()> {
    match parameters.get(DIMENSIONS).filter(|sent| !sent.is_null()) {
        Some(sent) if sent.as_u64() != u64::try_from(dimensions).ok() => {
            Err(Error::invalid(at, format!("is {dimensions} with this model")))
        }
        _ => {
            parameters.insert(DIMENSIONS.to_owned(), dimensions.into());
            Ok(())
        }
    }
}
