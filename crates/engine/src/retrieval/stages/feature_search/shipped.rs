//! Weight sets: weights of a stage's searches that were approved after an evaluation and stand in place of those that
//! would be learned.

use super::legs::LEXICAL;
use super::{Kind, Search};
use crate::retrieval::learning::Arm;
use crate::retrieval::params::Setting;
use crate::retrieval::stages::weight_set::{self, Shipped};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use strata_model::feature::FeatureUri;
use strata_model::{Error, Result};

/// JSON Schema of `shipped_weight_set`.
pub(super) fn schema() -> Value {
    weight_set::schema(
        "Weights that were approved after an evaluation. While they are there, every execution uses them as they are, whatever the other settings say; interactions are kept and count again once the set is gone.",
        "Weights by feature: what a search has as `feature_uri`, the feature's URI, or `lexical`; with `#1` after it, of the second search alone. Without any the weights are learned.",
    )
}

/// The weights of a stage's searches.
#[derive(Debug)]
pub(super) struct WeightSet {
    pub id: Arc<str>,
    /// By feature; with `#` and the number of a search, of that search alone.
    weights: BTreeMap<String, f64>,
    /// What each search calls its feature, where it does.
    called: Vec<Option<String>>,
}

impl WeightSet {
    /// The set of these searches; `None` where it has no weights. What is missing in it, and what names no search, is
    /// refused as far as it can be known without collections.
    pub fn of(set: Shipped, searches: &[Search]) -> Result<Option<Self>> {
        if set.weights.is_empty() {
            return Ok(None);
        }
        let known: Vec<Known> = searches.iter().map(Known::of).collect();
        check(&set.weights, &known, &set.weights_at)?;
        Ok(Some(Self { id: set.id, weights: set.weights, called: searches.iter().map(called).collect() }))
    }

    /// The weight of each arm; the error is the feature of one that has none.
    pub fn weights<'a>(&self, arms: &'a [Arm]) -> std::result::Result<Vec<f64>, &'a str> {
        arms.iter().map(|arm| self.weight(arm).ok_or(arm.feature.as_str())).collect()
    }

    fn weight(&self, arm: &Arm) -> Option<f64> {
        let called = self.called.get(arm.search)?.as_deref().filter(|_| arm.feature != LEXICAL);
        let names = [Some(arm.feature.as_str()), called];
        let of_search = names.iter().flatten().find_map(|name| self.weights.get(&format!("{name}#{}", arm.search)));
        let of_feature = || names.iter().flatten().find_map(|name| self.weights.get(*name));
        of_search.or_else(of_feature).copied()
    }
}

/// What a search calls the feature that it looks in; `None` where it is not said, or said by a template.
fn called(search: &Search) -> Option<String> {
    match search.kind {
        Kind::Lexical => None,
        Kind::Auto | Kind::Dense | Kind::Hybrid => search.feature.as_ref().and_then(Setting::literal),
    }
}

/// What is known of a search without its collections.
struct Known {
    /// What it calls the features that it looks in.
    features: Vec<String>,
    /// Whether its collections or its inputs say which features those are.
    is_open: bool,
}

impl Known {
    fn of(search: &Search) -> Self {
        let called = called(search);
        let words = matches!(search.kind, Kind::Lexical | Kind::Hybrid).then(|| LEXICAL.to_owned());
        let is_open = called.is_none() && search.kind != Kind::Lexical;
        Self { features: called.into_iter().chain(words).collect(), is_open }
    }
}

/// Refuses keys that can be of no search, and searches without a key.
fn check(weights: &BTreeMap<String, f64>, known: &[Known], at: &str) -> Result<()> {
    let is_named = |feature: &str| known.iter().any(|search| search.features.iter().any(|own| own == feature));
    // What one search has by name is not guessed to be what another one means.
    let weighs = |key: &str, number: usize, feature: &str| {
        let (name, only) = numbered(key);
        only.is_none_or(|only| only == number) && (name == feature || (!is_named(name) && may_mean(feature, name)))
    };
    for key in weights.keys() {
        let (name, only) = numbered(key);
        let is_its = |(number, search): (usize, &Known)| {
            let may_be = search.is_open && only.is_none_or(|only| only == number) && FeatureUri::parse(name).is_ok();
            may_be || search.features.iter().any(|feature| weighs(key, number, feature))
        };
        if !known.iter().enumerate().any(is_its) {
            return Err(Error::invalid(
                format!("{at}.{key}"),
                "names no search of this stage; write what a search has as `feature_uri`, or `lexical`, and `#1` after \
                 it for the second search alone",
            ));
        }
    }
    for (number, search) in known.iter().enumerate() {
        let lacks = |feature: &&String| !weights.keys().any(|key| weighs(key, number, feature));
        if let Some(feature) = search.features.iter().find(lacks) {
            return Err(Error::invalid(at, format!("has no weight of `{feature}`, where search {number} looks")));
        }
    }
    Ok(())
}

/// The feature that a key names, and the only search that it means.
fn numbered(key: &str) -> (&str, Option<usize>) {
    let parts = key.rsplit_once('#').and_then(|(name, number)| Some((name, number.parse().ok()?)));
    parts.map_or((key, None), |(name, number)| (name, Some(number)))
}

/// Whether what a search calls a feature may be the one that has the URI `key`: names, and the last parts of URIs, are
/// resolved by the collections.
fn may_mean(called: &str, key: &str) -> bool {
    match (FeatureUri::parse(called), FeatureUri::parse(key)) {
        (Ok(FeatureUri::Bare(name)), Ok(FeatureUri::Extractor { .. })) => name != LEXICAL,
        (
            Ok(FeatureUri::Extractor { extractor, version, .. }),
            Ok(FeatureUri::Extractor { extractor: of, version: at, .. }),
        ) => extractor == of && version == at,
        _ => false,
    }
}
