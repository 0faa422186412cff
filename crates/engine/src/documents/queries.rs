//! What a page costs: one query for its documents, one for the contents behind them, one for their vectors.

#![allow(clippy::unwrap_used)]

use super::{DocumentQuery, Show, ShowVectors, read::page_of};
use std::{cell::RefCell, sync::Arc};
use strata_model::{
    Scope,
    document::{Document, Lineage, VectorValue, Vectors},
    filter::Filter,
};
use strata_store::{
    Catalog,
    catalog::{
        documents, from_sql,
        rusqlite::trace::{TraceEvent, TraceEventCodes},
    },
    seams::System,
};

const DOCUMENTS: usize = 250;

thread_local! {
    static ASKED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

fn scope() -> Scope {
    Scope::whole("org_1", "ns_1")
}

/// A collection with payload indexes, and documents with a vector, each of an object with a blob.
fn filled(dir: &std::path::Path) -> Catalog {
    let catalog = Catalog::open(&dir.join("catalog.db"), Arc::new(System::default())).unwrap();
    let setup = "INSERT INTO organizations VALUES ('org_1', 'o', '{}', 't', 't');
        INSERT INTO namespaces VALUES ('ns_1', 'org_1', 'one', '{}', 't', 't');
        INSERT INTO buckets VALUES ('bkt_1', 'ns_1', 'b', '{}', 't', 't');
        INSERT INTO collections VALUES ('col_1', 'ns_1', 'c', 1, '{}', 't', 't');";
    let object = "INSERT INTO objects (object_id, namespace_id, bucket_id, status, content_hash, fields, blobs, body, created_at,
        updated_at) VALUES (?1, 'ns_1', 'bkt_1', 'COMPLETED', '', '{}', '[]', '{}', 't', 't')";
    let fill = catalog.write_blocking(move |tx| {
        tx.execute_batch(setup).map_err(from_sql)?;
        strata_store::catalog::payload::declare(tx, "col_1", &["n".to_owned()])?;
        for n in 0..DOCUMENTS {
            let object_id = format!("obj_{n}");
            tx.execute(object, [&object_id]).map_err(from_sql)?;
            let document = Document {
                seq: 0,
                document_id: format!("doc_{n}"),
                collection_id: "col_1".into(),
                lineage: Lineage { root_object_id: Some(object_id), ..Lineage::default() },
                fields: serde_json::Map::from_iter([("n".to_owned(), n.into())]),
                source_blobs: vec![],
                document_blobs: vec![],
                internal_metadata: Default::default(),
                content_hash: None,
                derivation_id: None,
                created_at: "t".into(),
                updated_at: "t".into(),
            };
            let vectors = Vectors::from([("v".to_owned(), VectorValue::Dense(vec![1.0, n as f32]))]);
            documents::put(tx, &scope(), &document, 0, &vectors)?;
        }
        Ok(())
    });
    fill.unwrap();
    catalog
}

/// The statements that a page runs.
fn statements(catalog: &Catalog, query: DocumentQuery) -> Vec<String> {
    let note = |event: TraceEvent<'_>| {
        if let TraceEvent::Stmt(_, sql) = event {
            ASKED.with_borrow_mut(|asked| asked.push(sql.to_owned()));
        }
    };
    ASKED.with_borrow_mut(Vec::clear);
    let page = catalog.read_blocking(|connection| {
        connection.trace_v2(TraceEventCodes::SQLITE_TRACE_STMT, Some(note));
        let page = page_of(connection, &scope(), &query);
        connection.trace_v2(TraceEventCodes::empty(), None);
        page
    });
    assert_eq!(page.unwrap().gathered.rows.len(), query.limit);
    ASKED.take()
}

#[test]
fn a_page_is_one_query_for_documents_one_for_blobs_and_one_for_vectors() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = filled(dir.path());
    let all = DocumentQuery {
        collections: vec!["col_1".into()],
        limit: 100,
        show: Show { vectors: ShowVectors::All, urls: true, ..Show::default() },
        ..DocumentQuery::default()
    };
    let few = serde_json::json!({ "n": { "gte": 7 } });
    let cases = [
        all.clone(),
        DocumentQuery { sort: Some(("n".into(), true)), ..all.clone() },
        DocumentQuery { filter: Filter::parse(&few, "filters").unwrap(), offset: 20, ..all.clone() },
        DocumentQuery { sort: Some(("other".into(), false)), search: None, ..all.clone() },
    ];
    for query in cases {
        let asked = statements(&catalog, query.clone());
        let count = |part: &str| asked.iter().filter(|sql| sql.contains(part)).count();
        let reads =
            (count(" fields, source_blobs"), count("FROM objects") + count("FROM object_blobs"), count("FROM vectors"));
        assert_eq!(reads, (1, 1, 1), "{query:?}: {asked:#?}");
        // Names and indexes are looked up beside them; nothing is asked for each document.
        assert!(asked.len() <= 10, "{query:?}: {asked:#?}");
    }
}
