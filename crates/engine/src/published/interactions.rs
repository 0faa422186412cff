//! What the public did with what it found, kept beside the interactions that owners report.

use super::Published;
use crate::{
    Engine,
    interactions::{NewInteraction, Recorded},
};
use serde_json::json;
use strata_model::{Error, FieldError, Fields, Result};
use strata_store::catalog::documents;

/// Longest `metadata` and longest `query_snapshot` that the public sends, in bytes of JSON.
const MAX_OBJECT_BYTES: usize = 16 << 10;
/// A type that is about no document.
const ZERO_RESULTS: &str = "zero_results";

impl Engine {
    /// Stores an interaction with something that a published retriever finds, unless it was reported in the last five
    /// minutes.
    pub async fn record_public_interaction(&self, published: &Published, sent: NewInteraction) -> Result<Recorded> {
        let found = self.findable(published, std::slice::from_ref(&sent)).await?;
        let sent = checked(sent, found.first().copied().unwrap_or(false))?;
        let recorded = self.record_interaction(&published.scope, Some(&published.retriever_id), sent).await;
        recorded.map_err(placed)
    }

    /// Stores interactions in one transaction. One that is wrong is answered with its error and does not keep the others
    /// out.
    pub async fn record_public_interactions(
        &self,
        published: &Published,
        sent: Vec<NewInteraction>,
    ) -> Result<Vec<Result<Recorded>>> {
        let found = self.findable(published, &sent).await?;
        let checked: Vec<Result<NewInteraction>> =
            sent.into_iter().zip(found).map(|(one, is)| checked(one, is)).collect();
        let good = checked.iter().filter_map(|one| one.as_ref().ok()).cloned().collect();
        let recorded = self.record_interactions(&published.scope, Some(&published.retriever_id), good).await?;
        let mut recorded = recorded.into_iter();
        let answers = checked.into_iter().map(|one| match one {
            Ok(_) => {
                recorded.next().unwrap_or_else(|| Err(Error::internal("an interaction has no answer"))).map_err(placed)
            }
            Err(error) => Err(error),
        });
        Ok(answers.collect())
    }

    /// Whether each names a document of the collections that the retriever reads.
    async fn findable(&self, published: &Published, sent: &[NewInteraction]) -> Result<Vec<bool>> {
        let retriever = self.retriever(&published.scope, &published.retriever_id).await?;
        let (scope, collections) = (published.scope.clone(), retriever.collection_ids);
        let ids: Vec<String> = sent.iter().map(|one| one.feature_id.clone()).collect();
        let read = self.catalog.read(move |connection| {
            let is_read = |collection: &str| collections.is_empty() || collections.iter().any(|id| id == collection);
            let is_findable = |id: &String| match documents::get(connection, &scope, None, id) {
                Ok(document) => Ok(is_read(&document.collection_id)),
                Err(Error::Missing { .. }) => Ok(false),
                Err(error) => Err(error),
            };
            ids.iter().map(is_findable).collect()
        });
        read.await
    }
}

/// Refuses what is too large, and a document that the retriever does not find.
fn checked(mut sent: NewInteraction, is_findable: bool) -> Result<NewInteraction> {
    let length = |object: &Option<Fields>| object.as_ref().map_or(0, |object| json!(object).to_string().len());
    for (at, object) in [("metadata", &sent.metadata), ("query_snapshot", &sent.query_snapshot)] {
        if length(object) > MAX_OBJECT_BYTES {
            return Err(Error::invalid(at, format!("must have at most {MAX_OBJECT_BYTES} bytes of JSON")));
        }
    }
    sent.interaction_types.iter_mut().for_each(|kind| kind.make_ascii_lowercase());
    if !is_findable && sent.interaction_types != [ZERO_RESULTS] {
        return Err(Error::invalid("document_id", "is not the id of a document that this retriever finds"));
    }
    Ok(sent)
}

/// Errors under the names that the public uses.
fn placed(error: Error) -> Error {
    let Error::Invalid(list) = error else { return error };
    let own = |fault: FieldError| match fault.field.as_str() {
        "feature_id" => FieldError { field: "document_id".into(), ..fault },
        _ => fault,
    };
    Error::Invalid(list.into_iter().map(own).collect())
}
