//! What learned fusion learns from, kept in memory: the newest interactions of a retriever. New ones are read as they come;
//! after one was deleted all are read again.

use super::Traced;
use crate::{
    Engine,
    retrieval::{
        context,
        learning::{Credit, Event, Feedback},
    },
    times,
};
use lru::LruCache;
use parking_lot::Mutex;
use serde_json::Value;
use std::{num::NonZeroUsize, sync::Arc};
use strata_model::{Result, Scope};
use strata_store::catalog::interactions::{self as rows, Interaction};

/// Most interactions that weights are learned from, the newest.
const MAX_EVENTS: usize = 10_000;
/// Most retrievers whose interactions are kept.
const MAX_RETRIEVERS: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// The interactions of one retriever.
#[derive(Default)]
struct Kept {
    /// The last one that is among them.
    last: i64,
    feedback: Arc<Feedback>,
}

pub(crate) struct Remembered(Mutex<LruCache<String, Arc<tokio::sync::Mutex<Kept>>>>);

impl Default for Remembered {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(MAX_RETRIEVERS)))
    }
}

impl Remembered {
    /// Has the interactions of a retriever read again: one was deleted. A read that is under way fills what nobody finds.
    pub fn forget(&self, retriever_id: &str) {
        self.0.lock().pop(retriever_id);
    }
}

impl Engine {
    /// The newest interactions with the results of a retriever.
    pub(super) async fn feedback(&self, scope: &Scope, retriever_id: &str) -> Result<Arc<Feedback>> {
        let kept = self.memory.feedback.0.lock().get_or_insert_mut(retriever_id.to_owned(), Arc::default).clone();
        let mut kept = kept.lock().await;
        let (scope, id, last) = (scope.clone(), retriever_id.to_owned(), kept.last);
        let read = self.catalog.read(move |c| {
            let found = rows::of_retriever(c, &scope, &id, last, MAX_EVENTS)?;
            let last = found.last().map(|interaction| interaction.seq);
            Ok((last, found.iter().map(|interaction| Arc::new(event(interaction))).collect::<Vec<_>>()))
        });
        if let (Some(last), more) = read.await? {
            let before = &kept.feedback.events;
            let passed = (before.len() + more.len()).saturating_sub(MAX_EVENTS);
            let events = before.iter().cloned().chain(more).skip(passed).collect();
            (kept.last, kept.feedback) = (last, Arc::new(Feedback { events }));
        }
        Ok(kept.feedback.clone())
    }
}

fn event(interaction: &Interaction) -> Event {
    let traced = interaction.traced.clone().unwrap_or_default();
    // What an older version kept in another shape teaches nothing.
    let traced: Traced = serde_json::from_value(traced).unwrap_or_default();
    let mut inputs = traced.inputs.map(|inputs| context(&inputs)).unwrap_or_default();
    if let Some(user) = &interaction.user_id {
        inputs.entry("user_id".into()).or_insert_with(|| user.clone());
    }
    let credit = |found: crate::retrievers::Found| Credit {
        stage: found.search.stage.into(),
        search: found.search.search,
        feature: found.search.feature.into(),
        rank: found.rank,
    };
    Event {
        at: times::micros(&interaction.occurred_at),
        kinds: interaction.types.clone(),
        inputs,
        found: traced.found.into_iter().map(credit).collect(),
        feature_uri: interaction.fields.get("feature_uri").and_then(Value::as_str).map(str::to_owned),
    }
}
