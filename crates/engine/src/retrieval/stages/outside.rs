//! What the stages share that ask something outside for each document: secrets and how they are kept out of what is
//! shown, failures of single documents, and documents that only an answer has.

use super::{Room, Run};
use crate::hiding::Hidden;
use crate::retrieval::conditions::FilterTemplate;
use crate::retrieval::params::{choice, text};
use crate::retrieval::snapshot::weight_of;
use crate::retrieval::{Hit, view};
use futures::{StreamExt, stream};
use serde_json::Value;
use std::collections::BTreeMap;
use strata_model::document::{Document, Lineage};
use strata_model::{Error, Fields, Result};

/// Failures that are told one by one.
const MAX_TOLD: usize = 5;
/// Longest name of a field that a stage writes, in characters.
const MAX_FIELD_CHARS: usize = 255;

/// What becomes of a document for which the outside failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnError {
    /// It passes as it is.
    Skip,
    Remove,
    /// The stage fails.
    Raise,
}

pub(super) fn on_error(value: &Value, at: &str) -> Result<OnError> {
    let known = [("skip", OnError::Skip), ("remove", OnError::Remove), ("raise", OnError::Raise)];
    choice(value, at, &known)
}

/// The dot path of a field that a stage writes.
pub(super) fn field(value: &Value, at: &str) -> Result<String> {
    let field = text(value, at)?;
    if field.chars().count() > MAX_FIELD_CHARS || field.split('.').any(str::is_empty) {
        return Err(Error::invalid(at, format!("must be a dot path of at most {MAX_FIELD_CHARS} characters")));
    }
    Ok(field)
}

/// What came of asking for one document.
pub(super) enum Outcome {
    /// It was not asked for, or nothing is to be written.
    Untouched,
    Made(Value),
    Failed(Error),
}

impl Outcome {
    /// The same for another document.
    pub fn again(&self) -> Self {
        match self {
            Self::Untouched => Self::Untouched,
            Self::Made(value) => Self::Made(value.clone()),
            Self::Failed(Error::Invalid(fields)) => Self::Failed(Error::Invalid(fields.clone())),
            Self::Failed(Error::TooLarge(text)) => Self::Failed(Error::TooLarge(text.clone())),
            Self::Failed(Error::Unavailable(text)) => Self::Failed(Error::Unavailable(text.clone())),
            Self::Failed(other) => Self::Failed(Error::Upstream(other.to_string())),
        }
    }

    /// A failure where there is no room for what was made.
    fn within(self, room: &mut Room) -> Self {
        match self {
            Self::Made(value) => match room.take(weight_of(&value)) {
                Ok(()) => Self::Made(value),
                Err(error) => Self::Failed(error),
            },
            other => other,
        }
    }
}

impl From<Result<Value>> for Outcome {
    fn from(result: Result<Value>) -> Self {
        result.map_or_else(Self::Failed, Self::Made)
    }
}

/// Asks for each hit that is meant, `parallel` at a time; the outcomes come in the order of the hits. With
/// [`OnError::Raise`] nothing is asked any more after a failure.
pub(super) async fn ask_each<'a, Asked, Asking>(
    asked: Vec<Option<Asked>>,
    parallel: usize,
    on_error: OnError,
    ask: impl Fn(Asked) -> Asking,
) -> Vec<Outcome>
where
    Asking: Future<Output = Outcome> + 'a,
{
    let work = asked.into_iter().map(|asked| {
        let asking = asked.map(&ask);
        async move {
            match asking {
                Some(asking) => asking.await,
                None => Outcome::Untouched,
            }
        }
    });
    let mut under_way = stream::iter(work).buffered(parallel);
    let (mut outcomes, mut room) = (Vec::new(), Room::default());
    while let Some(outcome) = under_way.next().await {
        let outcome = outcome.within(&mut room);
        let is_last = on_error == OnError::Raise && matches!(outcome, Outcome::Failed(_));
        outcomes.push(outcome);
        if is_last {
            break;
        }
    }
    outcomes
}

/// Writes what was made into the hits; reports what failed, without secrets.
pub(super) fn settle(
    run: &mut Run<'_>,
    hits: Vec<Hit>,
    outcomes: impl IntoIterator<Item = Outcome>,
    output: &str,
    on_error: OnError,
    secrets: &Secrets,
) -> Result<Vec<Hit>> {
    let mut kept = Vec::with_capacity(hits.len());
    let (mut made, mut failed, mut room) = (0, 0, Room::default());
    for (mut hit, outcome) in hits.into_iter().zip(outcomes) {
        match outcome.within(&mut room) {
            Outcome::Untouched => kept.push(hit),
            Outcome::Made(value) => {
                made += 1;
                view::set(&mut hit, output, secrets.hidden_in(value));
                kept.push(hit);
            }
            Outcome::Failed(error) if on_error == OnError::Raise => return Err(secrets.hidden_in_error(error)),
            Outcome::Failed(error) => {
                failed += 1;
                if failed <= MAX_TOLD {
                    let (id, error) = (&hit.document.document_id, secrets.hidden_in_error(error));
                    let what = if on_error == OnError::Skip { "left" } else { "took out" };
                    run.notes.warnings.push(format!("stage `{}` {what} `{id}`: {error}", run.stage_name));
                }
                if on_error == OnError::Skip {
                    kept.push(hit);
                }
            }
        }
    }
    run.metadata.insert("made".into(), made.into());
    run.metadata.insert("failed".into(), failed.into());
    Ok(kept)
}

/// Which hits satisfy `when`.
pub(super) fn meant(run: &mut Run<'_>, hits: &[Hit], when: Option<&FilterTemplate>) -> Result<Vec<bool>> {
    hits.iter().map(|hit| when.map_or(Ok(true), |when| run.meets(hit, when))).collect()
}

/// A document that only the answer has; `place` is its place among such documents.
pub(super) fn answer_document(run: &Run<'_>, document_id: String, place: usize, fields: Fields) -> Document {
    let now = strata_store::seams::rfc3339(run.now_micros);
    Document {
        seq: -1 - i64::try_from(place).unwrap_or(i64::MAX - 1),
        document_id,
        collection_id: String::new(),
        lineage: Lineage::default(),
        fields,
        source_blobs: Vec::new(),
        document_blobs: Vec::new(),
        internal_metadata: Fields::new(),
        content_hash: None,
        derivation_id: None,
        created_at: now.clone(),
        updated_at: now,
    }
}

/// The secrets that a stage reads. Their values are taken out of everything that is shown.
#[derive(Default)]
pub(super) struct Secrets {
    pub values: BTreeMap<String, String>,
    hidden: Hidden,
}

impl Secrets {
    /// Opens secrets by name; each comes with the place that reads it.
    pub async fn open(run: &Run<'_>, names: &[(String, String)]) -> Result<Self> {
        let mut values = BTreeMap::new();
        for (name, at) in names {
            if values.contains_key(name) {
                continue;
            }
            let value = run.backend.secret(name).await?.ok_or_else(|| missing(name, at))?;
            values.insert(name.clone(), value);
        }
        Ok(Self { hidden: Hidden::of(values.values()), values })
    }

    /// Takes a text that holds a secret out of what is shown, too.
    pub fn hide(&mut self, value: &str) {
        self.hidden.hide(value);
    }

    pub fn hidden_in(&self, value: Value) -> Value {
        self.hidden.in_value(value)
    }

    pub fn hidden_in_error(&self, error: Error) -> Error {
        self.hidden.in_error(error)
    }
}

/// The refusal of a secret that is not there.
pub fn missing(name: &str, at: &str) -> Error {
    Error::invalid(at, format!("the secret `{name}` does not exist; make it with POST /v1/organizations/secrets"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_there_is_no_room_for_fails_and_the_rest_does_not() {
        let mut room = Room::default();
        let large = || Outcome::Made("x".repeat(100 << 20).into());
        assert!(matches!(large().within(&mut room), Outcome::Made(_)));
        assert!(matches!(large().within(&mut room), Outcome::Made(_)));
        assert!(matches!(large().within(&mut room), Outcome::Failed(Error::TooLarge(_))));
        assert!(matches!(Outcome::Made(1.into()).within(&mut room), Outcome::Made(_)));
    }

    #[test]
    fn a_field_is_a_short_path() {
        assert_eq!(field(&json!("a.b"), "at").unwrap(), "a.b");
        for wrong in [json!(""), json!("a..b"), json!(".a"), json!("a.".repeat(200)), json!({})] {
            assert!(field(&wrong, "at").is_err(), "{wrong}");
        }
    }
}
