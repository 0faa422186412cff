//! Backups and snapshots of every format that there ever was.

use super::{assert_healthy, assert_world, fixtures, succeed};
use crate::support::{Server, wait_for_task};
use serde_json::json;
use strata_store::{backup, snapshot};

#[test]
fn a_backup_of_every_format_is_whole_and_restored() {
    for format in 1..=backup::Manifest::FORMAT {
        let whose = format!("backup format {format}");
        let dir = tempfile::tempdir().expect("temporary directory");
        let place = dir.path().join("backups");
        fixtures::unpack(&format!("backup/{format}.tar.gz"), &place);
        let place = place.to_str().expect("UTF-8");
        succeed(&["backups", place, "--verify"], None);
        let mut server = Server::start_on(|data| drop(succeed(&["restore", place], Some(data))));
        assert_world(&server.api(), &whose);
        server.stop();
        assert_healthy(&server.data_dir(), &whose);
        // The repository is gone on with.
        let made = succeed(&["backup", place], Some(&server.data_dir()));
        assert_eq!(made["new_blobs"], 0, "{whose}: what is there is counted on: {made}");
        succeed(&["backups", place, "--verify"], None);
    }
}

#[test]
fn a_snapshot_of_every_format_is_whole_and_restored() {
    for format in 1..=snapshot::FORMAT {
        let whose = format!("snapshot format {format}");
        let mut server = Server::start_on(|data| {
            fixtures::unpack(&format!("snapshot/{format}.tar.gz"), data);
            let sql = data.join("catalog.sql");
            fixtures::lay_catalog(data, &std::fs::read_to_string(&sql).expect("the fixture has a catalog"));
            std::fs::remove_file(sql).expect("removed");
        });
        let admin = server.api();
        let below = "/v1/namespaces/default/snapshots";
        let listed = admin.post(&format!("{below}/list"), json!({})).ok();
        assert_eq!(listed["total_count"], 1, "{whose}: {listed}");
        let id = fixtures::open(&server.data_dir())
            .query_row("SELECT snapshot_id FROM snapshots", [], |row| row.get::<_, String>(0))
            .expect("there is one");
        let verified = admin.get(&format!("{below}/{id}/verify?deep=true")).ok();
        assert_eq!(verified["issues"].as_array().map_or(0, Vec::len), 0, "{whose}: {verified}");
        let asked = admin.post(&format!("{below}/{id}/restore"), json!({ "target_namespace_name": "from before" }));
        assert_eq!(wait_for_task(&admin, asked.text("/task_id")), "COMPLETED", "{whose}");
        assert_world(&admin.within(asked.text("/target_namespace_id")), &whose);
        server.stop();
        assert_healthy(&server.data_dir(), &whose);
    }
}
