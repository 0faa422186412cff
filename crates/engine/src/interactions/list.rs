//! Lists of interactions.

use super::{Interaction, Mark};
use crate::Engine;
use strata_model::{Error, Result, Scope, filter::Filter};
use strata_store::catalog::interactions::{self as rows, Selection};

/// Which interactions, and which part of them.
#[derive(Debug, Clone)]
pub struct InteractionQuery {
    pub execution_id: Option<String>,
    /// Id or name; one that does not exist has no interactions.
    pub retriever_id: Option<String>,
    pub session_id: Option<String>,
    pub user_id: Option<String>,
    pub feature_id: Option<String>,
    pub interaction_type: Option<String>,
    pub filter: Filter,
    /// Text that the metadata contain.
    pub search: Option<String>,
    /// Field and whether descending.
    pub sort: (String, bool),
    pub limit: usize,
    pub offset: usize,
    /// Only interactions that come after this one.
    pub after: Option<Mark>,
    pub include_total: bool,
}

/// A part of a list of interactions.
#[derive(Debug, Clone, PartialEq)]
pub struct InteractionPage {
    pub items: Vec<Interaction>,
    /// Where to go on; `None` at the end.
    pub next: Option<Mark>,
    /// Where it was asked for.
    pub total: Option<i64>,
}

impl Engine {
    pub async fn interactions(&self, scope: &Scope, query: InteractionQuery) -> Result<InteractionPage> {
        let retriever = match &query.retriever_id {
            // One that is gone may have interactions still, by its id.
            Some(name) => Some(match self.retriever(scope, name).await {
                Ok(found) => found.id,
                Err(Error::Missing { .. }) => name.clone(),
                Err(other) => return Err(other),
            }),
            None => None,
        };
        let columns = [
            ("execution_id", query.execution_id),
            ("retriever_id", retriever),
            ("session_id", query.session_id),
            ("user_id", query.user_id),
            ("feature_id", query.feature_id),
        ];
        let selection = Selection {
            equal: columns.into_iter().filter_map(|(column, value)| Some((column, value?))).collect(),
            interaction_type: query.interaction_type,
            filter: query.filter,
            text: query.search,
            sort: query.sort,
        };
        let scope = scope.clone();
        self.catalog
            .read(move |connection| {
                let part = (query.limit + 1, query.offset);
                let mut items = rows::list(connection, &scope, &selection, query.after.as_ref(), part)?;
                let has_more = items.len() > query.limit;
                items.truncate(query.limit);
                let next = items.last().filter(|_| has_more).map(|last| Mark::of(last, &selection.sort.0));
                let total = query.include_total.then(|| rows::count(connection, &scope, &selection)).transpose()?;
                Ok(InteractionPage { items, next, total })
            })
            .await
    }
}
