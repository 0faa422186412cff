//! Models of organizations: whose they are, where they may be used, and what keeps their archives.

#![allow(clippy::unwrap_used)]

#[expect(dead_code, reason = "documents are for other tests")]
mod common;

use common::{open, scope};
use strata_model::{Error, Fields};
use strata_store::catalog::{
    from_sql,
    models::{self, ModelUpload, OrgModel},
    objects::{self, removal},
};

fn model(id: &str, organization: &str) -> OrgModel {
    OrgModel {
        model_id: id.into(),
        organization_id: organization.into(),
        name: "small".into(),
        version: "1.0.0".into(),
        archive_hash: "a".repeat(64),
        fingerprint: "f".into(),
        dimensions: 3,
        body: Fields::new(),
        created_at: "t".into(),
        updated_at: "t".into(),
    }
}

#[test]
fn a_model_is_its_organizations_and_its_archive_stays_while_anybody_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path());
    let hash = "a".repeat(64);
    let kept = hash.clone();
    let write = catalog.write_blocking(move |tx| {
        tx.execute_batch("INSERT INTO organizations VALUES ('org_2', 'p', '{}', 't', 't')").map_err(from_sql)?;
        objects::put_blob(tx, &kept, 1, "application/gzip", "t")?;
        models::insert(tx, &model("mdl_1", "org_1"))?;
        assert!(
            matches!(models::insert(tx, &model("mdl_3", "org_1")), Err(Error::Conflict(_))),
            "a version is one model"
        );
        models::insert(tx, &model("mdl_2", "org_2"))?;
        models::enable(tx, &scope("ns_1"), "mdl_1", "t")?;
        models::enable(tx, &scope("ns_1"), "mdl_1", "t")
    });
    write.unwrap();
    let unreferenced = |hash: &str| {
        let hashes = vec![hash.to_owned()];
        catalog.read_blocking(|c| removal::unreferenced(c, &hashes)).unwrap().len()
    };
    catalog
        .read_blocking(|c| {
            for name in ["mdl_1", "custom/small@1.0.0"] {
                assert_eq!(models::get(c, "org_1", name)?.model_id, "mdl_1");
            }
            assert_eq!(models::get(c, "org_2", "custom/small@1.0.0")?.model_id, "mdl_2");
            for unknown in ["mdl_1", "small", "custom/small", "custom/small@2.0.0", "custom/@", ""] {
                assert!(models::find(c, "org_2", unknown)?.is_none(), "{unknown}");
            }
            assert!(
                models::is_enabled(c, &scope("ns_1"), "mdl_1")? && !models::is_enabled(c, &scope("ns_2"), "mdl_1")?
            );
            assert_eq!(models::namespaces_of(c, "org_1", "mdl_1")?, [scope("ns_1")]);
            assert!(models::namespaces_of(c, "org_2", "mdl_1")?.is_empty());
            Ok(())
        })
        .unwrap();
    assert_eq!(unreferenced(&hash), 0);
    let stranger = catalog.write_blocking(|tx| models::delete(tx, "org_2", "mdl_1"));
    assert!(matches!(stranger, Err(Error::Missing { .. })));
    catalog.write_blocking(|tx| models::delete(tx, "org_1", "mdl_1")).unwrap();
    assert_eq!(unreferenced(&hash), 0, "the other organization has the same");
    catalog.write_blocking(|tx| models::delete(tx, "org_2", "mdl_2")).unwrap();
    assert_eq!(unreferenced(&hash), 1);
}

#[test]
fn an_upload_holds_its_archive_until_its_time_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path());
    let hash = "b".repeat(64);
    let upload = ModelUpload {
        upload_id: "mup_1".into(),
        organization_id: "org_1".into(),
        status: "PENDING".into(),
        archive_hash: Some(hash.clone()),
        model_id: None,
        body: Fields::new(),
        expires_at: "2026-01-01".into(),
        created_at: "t".into(),
        updated_at: "t".into(),
    };
    let written = upload.clone();
    catalog.write_blocking(move |tx| models::put_upload(tx, &written)).unwrap();
    let read = catalog.read_blocking(|c| {
        assert_eq!(models::waiting(c, "org_1")?, 1);
        assert!(models::upload(c, "org_2", "mup_1").is_err());
        models::upload_by_signature(c, "mup_1")
    });
    assert_eq!(read.unwrap(), upload);
    assert!(catalog.write_blocking(|tx| models::expire(tx, "2025-12-31")).unwrap().is_empty());
    assert_eq!(catalog.write_blocking(|tx| models::expire(tx, "2026-01-02")).unwrap(), [hash]);
    let over = catalog.read_blocking(|c| models::upload(c, "org_1", "mup_1")).unwrap();
    assert_eq!((over.status.as_str(), over.archive_hash), ("CANCELED", None));
}
