//! Clones of namespaces: buckets with their objects, collections with their documents, vectors and finished work, and
//! retrievers, under ids of their own. Contents are shared by their hash, so a clone of either mode copies rows only, and
//! nothing is computed again.

use crate::{
    Engine,
    namespaces::{Described, NamespaceCounts, NewNamespace},
    principals::check_name,
    transfers::{self, Choice, Making, NewTransfer, close_gate},
};
use strata_model::{Fields, Principal, Result, id};
use strata_store::catalog::{
    namespace_rows::Table,
    principals::{self, Namespace},
    resources::{self, Kind as Resource},
    rusqlite::Transaction,
    snapshots,
    transfers::{Kind, Transfer},
};

/// What a clone is to be.
#[derive(Debug, Clone)]
pub struct NewClone {
    pub name: String,
    /// The source's where it is `None`.
    pub description: Option<String>,
    /// Seconds until `expires_at`.
    pub ttl_seconds: Option<i64>,
    /// Whether it is meant to end; it is made in the same way, and the transfer remembers the word.
    pub is_branch: bool,
    /// Whether collections and documents come along.
    pub with_collections: bool,
    /// Whether retrievers do; they need the collections.
    pub with_retrievers: bool,
}

/// A clone that is being made.
#[derive(Debug, Clone)]
pub struct Cloning {
    pub namespace: Namespace,
    pub source_namespace_id: String,
    pub task_id: String,
    /// What comes along, as it is counted now.
    pub counts: NamespaceCounts,
    pub retrievers: i64,
    /// What the oldest retriever is called in the clone.
    pub primary_retriever_id: Option<String>,
}

/// What goes into a clone.
pub(crate) fn tables(with_collections: bool, with_retrievers: bool) -> Vec<Table> {
    let is_wanted = |table: &Table| match table {
        Table::Namespaces | Table::Extractors | Table::NamespaceModels | Table::Buckets | Table::Objects => true,
        Table::Collections | Table::CollectionSources | Table::Documents | Table::Derivations => with_collections,
        Table::Retrievers => with_collections && with_retrievers,
        // What users did and thought is the original's.
        Table::EvaluationDatasets | Table::Annotations | Table::AnnotationRevisions | Table::Interactions => false,
    };
    Table::ALL.into_iter().filter(is_wanted).collect()
}

/// The body of a namespace that is to be like another one, without what is that one's own.
pub(crate) fn body_like(source: &Fields) -> Fields {
    let mut body = source.clone();
    body.retain(|key, _| !key.starts_with('_') && key != "expires_at");
    body
}

impl Engine {
    /// Begins to clone a namespace. The clone can be seen at once and entered when its task has ended; what is written to
    /// the source after the task has begun to read is not in it.
    ///
    /// Errors: `Missing` for a namespace that the principal may not enter; `Conflict` where the name is taken or the
    /// source itself is being made.
    pub async fn clone_namespace(&self, principal: &Principal, identifier: &str, new: NewClone) -> Result<Cloning> {
        check_name("namespace_name", Some(&new.name), 1, 64)?;
        let Described { namespace: source, counts } = self.namespace(principal, identifier).await?;
        transfers::check_gate(&source)?;
        let (transfer_id, snapshot_id) = (self.catalog.new_id(id::TRANSFER, 16), self.catalog.new_id(id::SNAPSHOT, 16));
        let (task_id, now) = (self.catalog.new_id(id::TASK, 16), self.catalog.now());
        let mut body = body_like(&source.body);
        if let Some(description) = new.description {
            body.insert("description".into(), description.into());
        }
        let making = Making {
            status: "cloning".into(),
            task_id: task_id.clone(),
            dispatched_at: now.clone(),
            source_namespace_id: source.namespace_id.clone(),
            ..Making::default()
        };
        close_gate(&mut body, &making);
        let choice = Choice::of_tables(tables(new.with_collections, new.with_retrievers));
        let snapshot = choice.passing(&source, &snapshot_id, &now)?;
        let mode = if new.is_branch { "branch" } else { "copy" };
        let transfer = Transfer {
            transfer_id: transfer_id.clone(),
            organization_id: source.organization_id.clone(),
            kind: Kind::Clone,
            source_namespace_id: source.namespace_id.clone(),
            target_namespace_id: None,
            snapshot_id,
            task_id: task_id.clone(),
            status: "pending".into(),
            attempts: 0,
            body: Fields::from_iter([("mode".to_owned(), mode.into())]),
            created_at: now.clone(),
            updated_at: now,
        };
        let (of, source_id) = (principal.clone(), source.namespace_id.clone());
        let furnish = move |tx: &Transaction<'_>, target: &Namespace| {
            let source = principals::namespace(tx, &of, &source_id)?;
            snapshots::insert(tx, &snapshot)?;
            let transfer = Transfer { target_namespace_id: Some(target.namespace_id.clone()), ..transfer };
            let inputs = vec![source_id, target.namespace_id.clone()];
            transfers::queue(tx, &NewTransfer { transfer, task_type: "api_namespaces_create", inputs })?;
            resources::list(tx, Resource::Retriever, &source.scope())
        };
        let wanted = NewNamespace { namespace_id: None, name: new.name, ttl_seconds: new.ttl_seconds, body };
        let (namespace, mut retrievers) = self.make_namespace(principal, wanted, furnish).await?;
        self.transfers.wake();
        retrievers.truncate(if new.with_collections && new.with_retrievers { retrievers.len() } else { 0 });
        let counts = match new.with_collections {
            true => counts,
            false => NamespaceCounts { collections: 0, documents: 0, ..counts },
        };
        Ok(Cloning {
            namespace,
            source_namespace_id: source.namespace_id,
            task_id,
            counts,
            retrievers: retrievers.len() as i64,
            primary_retriever_id: retrievers.first().map(|oldest| id::copied_id(&transfer_id, &oldest.id)),
        })
    }
}
