//! The places that templates read, and which of them a parameter may.

use super::Dialect;
use std::fmt;
use strata_model::{Error, Result};

/// A root a template can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Namespace {
    /// The inputs of the execution.
    Input,
    /// The document a stage looks at.
    Doc,
    /// Results that earlier stages kept with `output_alias`.
    Context,
    /// Counts and results of earlier stages by name.
    Stage,
    /// Values of the organization's vault.
    Secret,
}

impl Namespace {
    pub(super) fn parse(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "input" | "inputs" => Some(Self::Input),
            "doc" | "document" => Some(Self::Doc),
            "context" => Some(Self::Context),
            "stage" | "stages" => Some(Self::Stage),
            "secret" | "secrets" => Some(Self::Secret),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Input => "INPUT",
            Self::Doc => "DOC",
            Self::Context => "CONTEXT",
            Self::Stage => "STAGE",
            Self::Secret => "SECRET",
        }
    }
}

/// A place that a template reads: `INPUT.query` is `(Input, Some("query"))`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    pub namespace: Namespace,
    /// Path below the namespace; `None` where it is computed.
    pub path: Option<String>,
}

impl Reference {
    /// The input's name, for a reference to one.
    pub fn input(&self) -> Option<&str> {
        let path = self.path.as_deref().filter(|_| self.namespace == Namespace::Input)?;
        path.split('.').next()
    }

    /// The secret's name, for a reference to one.
    pub fn secret(&self) -> Option<&str> {
        self.path.as_deref().filter(|_| self.namespace == Namespace::Secret)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "`{}.{path}`", self.namespace.name()),
            None => write!(f, "`{}`", self.namespace.name()),
        }
    }
}

pub(super) fn reference(name: &str, at: &str, dialect: Dialect) -> Result<Reference> {
    let (root, path) = match name.split_once('.') {
        Some((root, path)) => (root, Some(path.to_owned())),
        None => (name, None),
    };
    match Namespace::parse(root) {
        Some(Namespace::Secret) if !dialect.takes_secrets() => {
            Err(Error::invalid(at, "secrets are not available to this parameter"))
        }
        Some(Namespace::Secret) if path.is_none() => {
            let message =
                "a secret is read by its name, as in `{{SECRET.name}}`, which is then letters, digits and `_`";
            Err(Error::invalid(at, message))
        }
        Some(namespace) => Ok(Reference { namespace, path }),
        None => {
            Err(Error::invalid(at, format!("`{root}` is not a template namespace; one of INPUT, DOC, CONTEXT, STAGE")))
        }
    }
}
