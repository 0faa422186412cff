//! The extractors that a collection can use: those built in, and those of other processes.

use super::{Configured, Custom, Definition, FileInput, Input, Output, Shape};
use crate::Engine;
use serde_json::Value;
use std::sync::Arc;
use strata_model::{Error, Fields, Result, schema::FieldType};

/// An extractor that a collection can use.
#[derive(Clone)]
pub enum Extractor {
    BuiltIn(&'static Definition),
    /// One that runs in another process, as it was when the collection took it.
    Custom(Arc<Custom>),
}

impl Extractor {
    pub fn name(&self) -> &str {
        match self {
            Self::BuiltIn(definition) => definition.name,
            Self::Custom(custom) => &custom.description.name,
        }
    }
    pub fn version(&self) -> &str {
        match self {
            Self::BuiltIn(definition) => definition.version,
            Self::Custom(custom) => &custom.description.version,
        }
    }
    /// `{name}_{version}`.
    pub fn id(&self) -> String {
        format!("{}_{}", self.name(), self.version())
    }
    pub fn input_types(&self) -> &[FieldType] {
        match self {
            Self::BuiltIn(definition) => definition.input_types,
            Self::Custom(custom) => &custom.input_types,
        }
    }
    /// The files that it reads, by content.
    pub fn files(&self) -> &[FileInput] {
        match self {
            Self::BuiltIn(definition) => definition.files,
            Self::Custom(custom) => &custom.files,
        }
    }
    pub fn input_schema(&self) -> Value {
        match self {
            Self::BuiltIn(definition) => (definition.input_schema)(),
            Self::Custom(custom) => custom.input_schema(),
        }
    }
    pub fn default_parameters(&self) -> Value {
        match self {
            Self::BuiltIn(definition) => (definition.default_parameters)(),
            Self::Custom(custom) => custom.default_parameters(),
        }
    }
    pub fn reads_source(&self) -> bool {
        match self {
            Self::BuiltIn(definition) => definition.reads_source,
            Self::Custom(custom) => custom.description.reads_source,
        }
    }
    /// What it makes with `parameters`.
    pub fn shape(&self, parameters: &Fields) -> Result<Shape> {
        match self {
            Self::BuiltIn(definition) => definition.shape(parameters),
            Self::Custom(custom) => custom.shape(parameters),
        }
    }
    /// The fields of its documents and their types.
    pub(super) fn fields(&self, parameters: &Fields) -> Result<Vec<(String, FieldType)>> {
        match self {
            Self::BuiltIn(definition) => {
                Ok(definition.shape(parameters)?.fields.into_iter().map(|(name, kind)| (name.into(), kind)).collect())
            }
            Self::Custom(custom) => {
                Ok(custom.description.fields.iter().map(|(name, kind)| (name.clone(), *kind)).collect())
            }
        }
    }
    pub(super) async fn run(&self, engine: &Arc<Engine>, extractor: &Configured, input: Input) -> Result<Vec<Output>> {
        match self {
            Self::BuiltIn(definition) => (definition.run)(engine, extractor, input).await,
            Self::Custom(custom) => custom.run(engine, extractor, input).await,
        }
    }
    /// The registration of one that runs elsewhere.
    pub fn custom(&self) -> Option<&Arc<Custom>> {
        match self {
            Self::BuiltIn(_) => None,
            Self::Custom(custom) => Some(custom),
        }
    }

    /// The one that a request means: a name, an id, and perhaps a version. `custom` are those of the namespace.
    pub(crate) fn find(name: &str, version: Option<&str>, custom: &[Arc<Custom>], at: &str) -> Result<Self> {
        let built_in: Vec<Self> = super::definitions().iter().map(|definition| Self::BuiltIn(definition)).collect();
        let own = custom.iter().map(|custom| Self::Custom(custom.clone()));
        let all: Vec<Self> = built_in.into_iter().chain(own).collect();
        let is_meant = |one: &&Self| {
            one.id() == name || one.name() == name || one.custom().is_some_and(|c| c.extractor_id == name)
        };
        let Some(found) = all.iter().find(is_meant) else {
            let mut names: Vec<&str> = all.iter().map(Self::name).collect();
            names.dedup();
            let message = format!("`{name}` is not an extractor here; one of {}", names.join(", "));
            return Err(Error::invalid(format!("{at}.feature_extractor_name"), message));
        };
        let Some(version) = version else { return Ok(found.clone()) };
        let versions: Vec<&Self> = all.iter().filter(|one| one.name() == found.name()).collect();
        if let Some(found) = versions.iter().find(|one| one.version() == version) {
            return Ok((*found).clone());
        }
        let known: Vec<&str> = versions.iter().map(|one| one.version()).collect();
        let message = format!("`{version}` is not a version of {name}; it has {}", known.join(", "));
        Err(Error::invalid(format!("{at}.version"), message))
    }
}
