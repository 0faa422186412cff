//! `sample`: some documents of the working set, by chance.

use super::{Category, Draft, Run, Stage, StageDefinition, WorkingSet};
use crate::retrieval::params::{Params, Setting, choice, count, text, value_or};
use crate::retrieval::{Hit, view};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use strata_model::{Error, Result};

pub(super) const DEFINITION: StageDefinition = StageDefinition {
    stage_id: "sample",
    aliases: &[],
    category: Category::Reduce,
    description: "Keeps `count` documents by chance, in their order; a seed repeats the choice.",
    icon: "dices",
    parameter_schema: schema,
    reads_collections: false,
    parse,
};

const MAX_COUNT: u64 = 1_000;

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "count": {"type": "integer", "minimum": 1, "maximum": MAX_COUNT, "default": 10, "description": "Documents to keep."},
            "strategy": {
                "type": "string", "enum": ["random", "stratified", "reservoir", "systematic"], "default": "random",
                "description": "`random` and `reservoir` give each document the same chance; `systematic` takes one at even distances; `stratified` gives each value of `stratify_by` its share.",
            },
            "stratify_by": {"type": "string", "description": "Dot path whose values share the sample."},
            "min_per_stratum": {"type": "integer", "minimum": 0, "default": 1, "description": "Least documents of each value, as far as there are."},
            "seed": {"type": "integer", "description": "The same seed chooses the same documents."},
            "preserve_top_k": {"type": "integer", "minimum": 0, "default": 0, "description": "The first so many are kept whatever chance says, and count."},
        },
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strategy {
    Random,
    Stratified,
    Systematic,
}

#[derive(Debug)]
struct Sample {
    at: String,
    count: Option<Setting<usize>>,
    strategy: Option<Setting<Strategy>>,
    stratify_by: Option<Setting<String>>,
    min_per_stratum: Option<Setting<usize>>,
    seed: Option<Setting<u64>>,
    preserve_top_k: Option<Setting<usize>>,
}

fn parse(_draft: Draft<'_>, mut params: Params<'_>) -> Result<Arc<dyn Stage>> {
    let strategy = |value: &Value, at: &str| {
        let known = [
            ("random", Strategy::Random),
            // Of a working set that is there as a whole, a reservoir keeps what chance keeps.
            ("reservoir", Strategy::Random),
            ("stratified", Strategy::Stratified),
            ("systematic", Strategy::Systematic),
        ];
        choice(value, at, &known)
    };
    let seed = |value: &Value, at: &str| match value.as_i64() {
        Some(seed) => Ok(seed.cast_unsigned()),
        None => value.as_u64().ok_or_else(|| Error::invalid(at, "must be an integer")),
    };
    let stage = Sample {
        at: params.at().to_owned(),
        count: params.setting(&["count", "size", "limit"], count(1..=MAX_COUNT))?,
        strategy: params.setting(&["strategy", "method"], strategy)?,
        stratify_by: params.setting(&["stratify_by", "group_field"], text)?,
        min_per_stratum: params.setting(&["min_per_stratum"], count(0..=MAX_COUNT))?,
        seed: params.setting(&["seed"], seed)?,
        preserve_top_k: params.setting(&["preserve_top_k"], count(0..=MAX_COUNT))?,
    };
    if let Some(Strategy::Stratified) = stage.strategy.as_ref().and_then(Setting::literal)
        && stage.stratify_by.is_none()
    {
        return Err(Error::invalid(params.place("stratify_by"), "is required for `stratified`"));
    }
    params.finish();
    Ok(Arc::new(stage))
}

impl Stage for Sample {
    fn is_repeatable(&self) -> bool {
        self.seed.as_ref().is_some_and(|seed| seed.literal().is_some())
    }

    fn run<'a>(&'a self, run: &'a mut Run<'_>, set: WorkingSet) -> BoxFuture<'a, Result<WorkingSet>> {
        Box::pin(async move {
            let count = value_or(self.count.as_ref(), run.variables, 10)?;
            let strategy = value_or(self.strategy.as_ref(), run.variables, Strategy::Random)?;
            let least = value_or(self.min_per_stratum.as_ref(), run.variables, 1)?;
            let preserved = value_or(self.preserve_top_k.as_ref(), run.variables, 0)?.min(count);
            let seed = value_or(self.seed.as_ref(), run.variables, run.chance)?;
            let by = match &self.stratify_by {
                Some(by) => by.value(run.variables)?,
                None => None,
            };
            let hits = run.read(set).await?;
            let mut chance = fastrand::Rng::with_seed(seed);
            let preserved = preserved.min(hits.len());
            let (rest, wanted) = (hits.len() - preserved, count - preserved);
            let chosen = match (strategy, by) {
                (Strategy::Random, _) => random(&mut chance, (0..rest).collect(), wanted),
                (Strategy::Systematic, _) => systematic(&mut chance, rest, wanted),
                (Strategy::Stratified, Some(by)) => {
                    let strata = strata(&hits[preserved..], &by);
                    run.metadata.insert("strata".into(), strata.len().into());
                    stratified(&mut chance, strata, wanted, least)
                }
                (Strategy::Stratified, None) => {
                    return Err(Error::invalid(format!("{}.stratify_by", self.at), "is required for `stratified`"));
                }
            };
            run.metadata.insert("seed".into(), seed.cast_signed().into());
            let mut keep = vec![false; hits.len()];
            keep[..preserved].fill(true);
            chosen.into_iter().for_each(|place| keep[preserved + place] = true);
            let kept = hits.into_iter().zip(keep).filter_map(|(hit, keep)| keep.then_some(hit));
            Ok(WorkingSet::Read(kept.collect()))
        })
    }
}

/// `wanted` of the places, each with the same chance.
fn random(chance: &mut fastrand::Rng, places: Vec<usize>, wanted: usize) -> Vec<usize> {
    chance.choose_multiple(places, wanted)
}

/// Places at even distances, the first by chance.
fn systematic(chance: &mut fastrand::Rng, total: usize, wanted: usize) -> Vec<usize> {
    if wanted >= total {
        return (0..total).collect();
    }
    let step = total as f64 / wanted as f64;
    let begin = chance.f64() * step;
    (0..wanted).map(|i| ((begin + i as f64 * step) as usize).min(total - 1)).collect()
}

/// The places of each value of a field, in the order in which the values first appear; a missing value is one too.
fn strata(hits: &[Hit], by: &str) -> Vec<Vec<usize>> {
    let mut known: HashMap<String, usize> = HashMap::new();
    let mut strata: Vec<Vec<usize>> = Vec::new();
    for (place, hit) in hits.iter().enumerate() {
        let key = view::field(hit, by).map_or_else(|| "null".to_owned(), |value| value.to_string());
        let stratum = *known.entry(key).or_insert_with(|| {
            strata.push(Vec::new());
            strata.len() - 1
        });
        strata[stratum].push(place);
    }
    strata
}

/// Shares `wanted` among the strata: to each `least` as far as it has them, the rest in proportion, the largest
/// remainders first.
fn stratified(chance: &mut fastrand::Rng, strata: Vec<Vec<usize>>, wanted: usize, least: usize) -> Vec<usize> {
    let total: usize = strata.iter().map(Vec::len).sum();
    let mut left = wanted.min(total);
    let mut shares = vec![0; strata.len()];
    // Where there is not enough for all, those that come first get theirs.
    for (share, stratum) in shares.iter_mut().zip(&strata) {
        *share = least.min(stratum.len()).min(left);
        left -= *share;
    }
    let ideal = |i: usize| strata[i].len() as f64 * wanted as f64 / total.max(1) as f64;
    while left > 0 {
        let open = (0..strata.len()).filter(|i| shares[*i] < strata[*i].len());
        let short = |i: &usize| ideal(*i) - shares[*i] as f64;
        let Some(next) = open.max_by(|a, b| short(a).total_cmp(&short(b)).then(b.cmp(a))) else { break };
        shares[next] += 1;
        left -= 1;
    }
    strata.into_iter().zip(shares).flat_map(|(places, share)| random(chance, places, share)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strata_share_in_proportion_and_none_is_forgotten() {
        let strata = || vec![(0..80).collect::<Vec<_>>(), (80..99).collect(), vec![99]];
        let counts = |chosen: &[usize]| {
            [0..80, 80..99, 99..100].map(|range| chosen.iter().filter(|place| range.contains(*place)).count())
        };
        let mut chance = fastrand::Rng::with_seed(7);
        assert_eq!(counts(&stratified(&mut chance, strata(), 10, 1)), [8, 1, 1]);
        assert_eq!(counts(&stratified(&mut chance, strata(), 10, 0)), [8, 2, 0]);
        assert_eq!(counts(&stratified(&mut chance, strata(), 2, 1)), [1, 1, 0]);
        assert_eq!(stratified(&mut chance, strata(), 1_000, 1).len(), 100);
        assert!(stratified(&mut chance, Vec::new(), 10, 1).is_empty());
    }

    #[test]
    fn even_distances_cover_the_whole() {
        let mut chance = fastrand::Rng::with_seed(7);
        let places = systematic(&mut chance, 100, 4);
        assert_eq!(places.len(), 4);
        assert!(places.windows(2).all(|pair| pair[1] - pair[0] == 25), "{places:?}");
        assert_eq!(systematic(&mut chance, 3, 10), [0, 1, 2]);
    }
}
