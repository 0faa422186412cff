//! From a fused ranking to documents: fetch, filter, group, count.

use super::legs::Leg;
use super::{Facet, FeatureSearch, GroupBy, GroupMode};
use crate::retrieval::fusion::Fused;
use crate::retrieval::stages::Run;
use crate::retrieval::{Hit, SearchPlace, limits, view};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use strata_model::Result;
use strata_model::filter::Filter;

impl FeatureSearch {
    /// Reads the documents of a fused ranking until there are enough that pass the stage's `post_filters`. Each says which
    /// weight set ranked it.
    pub(super) async fn collect(
        &self,
        run: &mut Run<'_>,
        legs: &[Leg],
        fused: Vec<Fused>,
        before: Option<Vec<Hit>>,
        final_top_k: usize,
        weight_set_id: Option<Arc<str>>,
    ) -> Result<Vec<Hit>> {
        let post = run.post_filters.take();
        let mut known: HashMap<i64, Hit> = before.into_iter().flatten().map(|hit| (hit.document.seq, hit)).collect();
        let mut kept = Vec::new();
        let mut groups = self.group_by.as_ref().map(Groups::new);
        for chunk in fused.chunks(limits::FETCH_CHUNK.max(final_top_k)) {
            let absent: Vec<i64> = chunk.iter().map(|f| f.seq).filter(|seq| !known.contains_key(seq)).collect();
            if !absent.is_empty() {
                known.extend(run.backend.fetch(&absent).await?.into_iter().map(|d| (d.seq, Hit::new(d))));
            }
            let stage = run.stage_name;
            let mut hits: Vec<Hit> = chunk
                .iter()
                .filter_map(|f| Some(scored(known.remove(&f.seq)?, f, legs, stage, weight_set_id.as_ref())))
                .collect();
            if let Some(post) = post {
                hits = run.keep(hits, post)?;
            }
            match &mut groups {
                Some(groups) => hits.into_iter().for_each(|hit| groups.add(hit)),
                None => kept.extend(hits),
            }
            if kept.len() >= final_top_k || groups.as_ref().is_some_and(Groups::are_full) {
                break;
            }
        }
        kept.truncate(final_top_k);
        Ok(groups.map_or(kept, Groups::into_hits))
    }

    /// Documents that satisfy the filter, unscored.
    pub(super) async fn filter_only(
        &self,
        run: &mut Run<'_>,
        filter: &Filter,
        before: Option<Vec<Hit>>,
        final_top_k: usize,
    ) -> Result<Vec<Hit>> {
        let post = run.post_filters.take();
        let wide = post.is_some() || self.group_by.is_some();
        let mut hits = match before {
            Some(hits) => hits,
            None => {
                let collections = self.stage_collections(run).await?;
                let limit = if wide { final_top_k.max(limits::MAX_SCAN_PER_COLLECTION) } else { final_top_k };
                run.scan_of(&collections, filter, limit).await?
            }
        };
        if let Some(post) = post {
            hits = run.keep(hits, post)?;
        }
        if let Some(by) = &self.group_by {
            let mut groups = Groups::new(by);
            hits.into_iter().for_each(|hit| groups.add(hit));
            return Ok(groups.into_hits());
        }
        hits.truncate(final_top_k);
        Ok(hits)
    }

    /// Counts the values of facet fields over everything the filter lets through.
    pub(super) async fn count_facets(&self, run: &mut Run<'_>, filter: &Filter, before: Option<&[Hit]>) -> Result<()> {
        if self.facets.is_empty() {
            return Ok(());
        }
        let read;
        let hits = match before {
            Some(hits) => hits,
            None => {
                let collections = self.stage_collections(run).await?;
                read = run.scan_of(&collections, filter, limits::MAX_FACET_SCAN).await?;
                &read
            }
        };
        let counted = self.facets.iter().map(|facet| count(facet, hits));
        run.notes.facets.extend(counted);
        Ok(())
    }
}

fn scored(mut hit: Hit, fused: &Fused, legs: &[Leg], stage: &str, weight_set_id: Option<&Arc<str>>) -> Hit {
    hit.score = Some(fused.score);
    hit.searches.extend(fused.places.iter().filter_map(|place| {
        let leg = legs.get(place.ranking)?;
        Some(SearchPlace {
            stage: stage.to_owned(),
            search: leg.basis.search,
            feature: leg.feature.clone(),
            rank: place.rank,
            score: place.score,
            share: place.share,
            weight_set_id: weight_set_id.cloned(),
        })
    }));
    hit
}

/// `{key, values: [{value, count}]}`, the most frequent first. A list counts once for each of its values.
fn count(facet: &Facet, hits: &[Hit]) -> Value {
    let mut counts: HashMap<String, (Value, usize)> = HashMap::new();
    for hit in hits {
        let found = view::field(hit, &facet.key);
        let mut values: Vec<&Value> = match found.as_deref() {
            Some(Value::Array(list)) => list.iter().collect(),
            Some(one) => vec![one],
            None => continue,
        };
        values.retain(|v| v.is_string() || v.is_number() || v.is_boolean());
        values.sort_by_key(|v| v.to_string());
        values.dedup();
        for value in values {
            counts.entry(value.to_string()).or_insert_with(|| (value.clone(), 0)).1 += 1;
        }
    }
    let mut ordered: Vec<(String, (Value, usize))> = counts.into_iter().collect();
    ordered.sort_by(|(a_key, (_, a)), (b_key, (_, b))| b.cmp(a).then_with(|| a_key.cmp(b_key)));
    let values: Vec<Value> = ordered
        .into_iter()
        .take(facet.limit)
        .map(|(_, (value, count))| json!({"value": value, "count": count}))
        .collect();
    json!({"key": facet.key, "values": values})
}

/// Hits by the value of a field, in the order in which the values first appear. Documents without the field belong to
/// no group.
struct Groups<'g> {
    by: &'g GroupBy,
    per_group: usize,
    places: HashMap<String, usize>,
    groups: Vec<(Value, Vec<Hit>)>,
}

impl<'g> Groups<'g> {
    fn new(by: &'g GroupBy) -> Self {
        let per_group = if by.mode == GroupMode::First { 1 } else { by.max_per_group };
        Self { by, per_group, places: HashMap::new(), groups: Vec::new() }
    }

    fn add(&mut self, hit: Hit) {
        let Some(key) = view::field(&hit, &self.by.field).map(|v| v.into_owned()).filter(|v| !v.is_null()) else {
            return;
        };
        let place = match self.places.get(&key.to_string()) {
            Some(place) => *place,
            None if self.groups.len() == self.by.limit => return,
            None => {
                self.places.insert(key.to_string(), self.groups.len());
                self.groups.push((key, Vec::new()));
                self.groups.len() - 1
            }
        };
        let members = &mut self.groups[place].1;
        if members.len() < self.per_group {
            members.push(hit);
        }
    }

    fn are_full(&self) -> bool {
        self.groups.len() == self.by.limit && self.groups.iter().all(|(_, members)| members.len() == self.per_group)
    }

    fn into_hits(self) -> Vec<Hit> {
        let keyed = self.by.mode == GroupMode::All;
        let member = |key: &Value, hit: Hit| Hit { group: keyed.then(|| key.clone()), ..hit };
        self.groups
            .into_iter()
            .flat_map(|(key, hits)| hits.into_iter().map(move |hit| member(&key, hit)).collect::<Vec<_>>())
            .collect()
    }
}
