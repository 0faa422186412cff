//! A catalog with one collection, `col_1`, in the namespace `ns_1`, and documents for it.

use serde_json::Value;
use std::sync::Arc;
use strata_model::{
    Scope,
    document::{Document, Lineage},
};
use strata_store::{Catalog, catalog::from_sql, seams::System};

pub fn scope(namespace: &str) -> Scope {
    Scope::whole("org_1", namespace)
}

pub fn document(id: &str, fields: Value) -> Document {
    Document {
        seq: 0,
        document_id: id.into(),
        collection_id: "col_1".into(),
        lineage: Lineage { root_object_id: Some(format!("obj_{id}")), ..Lineage::default() },
        fields: fields.as_object().cloned().unwrap(),
        source_blobs: vec![],
        document_blobs: vec![],
        internal_metadata: Default::default(),
        content_hash: None,
        derivation_id: None,
        created_at: "2026-01-01T00:00:00.000000Z".into(),
        updated_at: "2026-01-01T00:00:00.000000Z".into(),
    }
}

pub fn open(dir: &std::path::Path) -> Catalog {
    let catalog = Catalog::open(&dir.join("catalog.db"), Arc::new(System::default())).unwrap();
    let setup = "INSERT INTO organizations VALUES ('org_1', 'o', '{}', 't', 't');
        INSERT INTO namespaces VALUES ('ns_1', 'org_1', 'one', '{}', 't', 't'), ('ns_2', 'org_1', 'two', '{}', 't', 't');
        INSERT INTO collections VALUES ('col_1', 'ns_1', 'c', 1, '{}', 't', 't');";
    catalog.write_blocking(move |tx| tx.execute_batch(setup).map_err(from_sql)).unwrap();
    catalog
}
