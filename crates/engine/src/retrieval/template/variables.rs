//! The values that templates read.

use super::Namespace;
use minijinja::value::{Object, Value as Jinja};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use strata_model::Fields;

/// What templates read. Cheap to clone.
#[derive(Clone)]
pub struct Variables {
    inputs: Arc<Fields>,
    input: Jinja,
    doc: Jinja,
    context: Jinja,
    stage: Jinja,
    secret: Jinja,
}

/// Without values: some are secret.
impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Variables").finish_non_exhaustive()
    }
}

impl Object for Variables {
    fn get_value(self: &Arc<Self>, key: &Jinja) -> Option<Jinja> {
        Some(match Namespace::parse(key.as_str()?)? {
            Namespace::Input => self.input.clone(),
            Namespace::Doc => self.doc.clone(),
            Namespace::Context => self.context.clone(),
            Namespace::Stage => self.stage.clone(),
            Namespace::Secret => self.secret.clone(),
        })
    }
}

impl Variables {
    pub fn new(inputs: Fields, context: &Fields, stage: &Fields) -> Self {
        Self {
            input: Jinja::from_serialize(&inputs),
            inputs: Arc::new(inputs),
            doc: Jinja::UNDEFINED,
            context: Jinja::from_serialize(context),
            stage: Jinja::from_serialize(stage),
            secret: Jinja::UNDEFINED,
        }
    }
    /// The inputs of the execution.
    pub fn inputs(&self) -> &Fields {
        &self.inputs
    }
    /// What earlier stages kept.
    pub fn context(&self) -> Value {
        serde_json::to_value(&self.context).unwrap_or_default()
    }
    /// The same variables with secrets.
    pub fn with_secrets(&self, secrets: &BTreeMap<String, String>) -> Self {
        Self { secret: Jinja::from_serialize(secrets), ..self.clone() }
    }
    /// The same variables with results of earlier stages.
    pub fn with_results(&self, context: &Fields, stage: &Fields) -> Self {
        Self { context: Jinja::from_serialize(context), stage: Jinja::from_serialize(stage), ..self.clone() }
    }
    /// The same variables with more in the context.
    pub fn with_context(&self, more: &Fields) -> Self {
        let context = Overlay { over: Jinja::from_serialize(more), base: self.context.clone() };
        Self { context: Jinja::from_object(context), ..self.clone() }
    }
    /// The same variables, looking at a document.
    pub fn with_doc(&self, doc: &Fields) -> Self {
        Self { doc: Jinja::from_serialize(doc), ..self.clone() }
    }
}

/// An object in front of another one.
#[derive(Debug)]
struct Overlay {
    over: Jinja,
    base: Jinja,
}

impl Object for Overlay {
    fn get_value(self: &Arc<Self>, key: &Jinja) -> Option<Jinja> {
        let found = |object: &Jinja| object.get_item(key).ok().filter(|value| !value.is_undefined());
        found(&self.over).or_else(|| found(&self.base))
    }
}
