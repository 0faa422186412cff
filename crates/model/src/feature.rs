//! Feature URIs and the vector indexes they name.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// `mixpeek://{extractor}@{version}/{output}`, or a bare index name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FeatureUri {
    Extractor { extractor: String, version: String, output: Option<String> },
    Bare(String),
}

impl FeatureUri {
    pub fn parse(text: &str) -> Result<Self> {
        let Some(rest) = text.strip_prefix("mixpeek://") else {
            if text.is_empty() || text.contains("://") {
                return Err(Error::invalid(
                    "feature_uri",
                    format!("`{text}` is neither `mixpeek://extractor@version/output` nor an index name"),
                ));
            }
            return Ok(Self::Bare(text.to_owned()));
        };
        let (head, output) = match rest.split_once('/') {
            Some((head, output)) => (head, (!output.is_empty()).then(|| output.to_owned())),
            None => (rest, None),
        };
        let Some((extractor, version)) = head.split_once('@').filter(|(e, v)| !e.is_empty() && !v.is_empty()) else {
            return Err(Error::invalid("feature_uri", format!("`{text}` lacks `extractor@version`")));
        };
        Ok(Self::Extractor { extractor: extractor.into(), version: version.into(), output })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VectorKind {
    Dense,
    Sparse,
    MultiDense,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Distance {
    #[default]
    Cosine,
    Dot,
    Euclidean,
}

/// One named vector of a collection.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VectorIndex {
    /// `{extractor}_{version}_{output}`, the key under which documents carry the vector.
    pub name: String,
    pub feature_uri: String,
    pub kind: VectorKind,
    /// Numbers per vector; `None` for sparse vectors.
    pub dimensions: Option<usize>,
    #[serde(default)]
    pub distance: Distance,
    /// Registry id of the model that makes it; empty for vectors that callers bring.
    #[serde(default)]
    pub model: String,
    /// Other names by which callers ask for it.
    #[serde(default)]
    pub aliases: Vec<String>,
}

impl VectorIndex {
    /// Whether `uri` means this index: by name, URI, the URI's last part, model or alias.
    pub fn answers_to(&self, uri: &str) -> bool {
        let is_output = self.feature_uri.rsplit_once('/').is_some_and(|(_, output)| output == uri);
        if self.name == uri || self.feature_uri == uri || is_output || self.aliases.iter().any(|a| a == uri) {
            return true;
        }
        let (
            Ok(FeatureUri::Extractor { extractor, version, output }),
            Ok(FeatureUri::Extractor { extractor: e, version: v, .. }),
        ) = (FeatureUri::parse(uri), FeatureUri::parse(&self.feature_uri))
        else {
            return false;
        };
        if extractor != e || version != v {
            return false;
        }
        let Some(output) = output else { return true };
        self.aliases.contains(&output) || self.model == output || self.name == output
    }
}
