//! What a newer version has written is refused with both versions and a way out, and stays as it is.

use super::{fail, fixtures};
use sha2::{Digest, Sha256};
use std::path::Path;
use strata_store::{backup, catalog::SCHEMA};

/// Whether a message names both schemas and says what to do.
#[track_caller]
fn assert_names_both(said: &str) {
    assert!(said.contains(&format!("schema {}", SCHEMA + 1)), "{said}");
    assert!(said.contains(&format!("knows 1 to {SCHEMA}")), "{said}");
    assert!(said.contains("newer one"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn a_directory_of_a_newer_schema_is_refused_by_every_command_as_it_is() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let data = dir.path().join("data");
    fixtures::data_of_schema(&data, SCHEMA);
    let newer = i64::try_from(SCHEMA + 1).expect("a small number");
    fixtures::open(&data).pragma_update(None, "user_version", newer).expect("set");
    let before = fixtures::files(&data);
    let place = dir.path().join("backups");
    let place = place.to_str().expect("UTF-8");
    for arguments in [&["serve", "--listen", "127.0.0.1:0"][..], &["doctor"], &["backup", place]] {
        assert_names_both(&fail(arguments, Some(&data)));
        assert!(fixtures::files(&data) == before, "{arguments:?} has changed something");
    }
    let good = dir.path().join("good");
    fixtures::unpack(&format!("backup/{}.tar.gz", backup::Manifest::FORMAT), &good);
    let said = fail(&["restore", good.to_str().expect("UTF-8")], Some(&data));
    assert!(said.contains("not empty"), "{said}");
    assert!(fixtures::files(&data) == before, "a restore has changed something");
}

/// Changes the only manifest of a repository as a newer version would have written it.
fn rewrite_manifest(place: &Path, from: &str, to: &str) {
    let mut entries = std::fs::read_dir(place.join("manifests")).expect("listed");
    let entry = entries.next().expect("a manifest").expect("an entry");
    let name = entry.file_name().into_string().expect("UTF-8");
    let text = std::fs::read_to_string(entry.path()).expect("read");
    assert!(text.contains(from), "`{from}` is in {text}");
    let text = text.replace(from, to);
    let (backup_id, _) = name.split_once('.').expect("a name has its id before its hash");
    let renamed = format!("{backup_id}.{}.json", hex::encode(Sha256::digest(text.as_bytes())));
    std::fs::remove_file(entry.path()).expect("removed");
    std::fs::write(place.join("manifests").join(renamed), text).expect("written");
}

#[test]
fn a_backup_of_a_newer_version_is_refused_and_nothing_is_restored_of_it() {
    let format = backup::Manifest::FORMAT;
    let dir = tempfile::tempdir().expect("temporary directory");
    let place = dir.path().join("backups");
    let fixture = format!("backup/{format}.tar.gz");

    fixtures::unpack(&fixture, &place);
    let stored = fixtures::files(&place.join("manifests")).remove(0).1;
    let stored: serde_json::Value = serde_json::from_slice(&stored).expect("a manifest is JSON");
    let of_schema = |schema: &str| format!("\"schema\": {schema},");
    rewrite_manifest(&place, &of_schema(&stored["schema"].to_string()), &of_schema(&(SCHEMA + 1).to_string()));
    let target = dir.path().join("target");
    assert_names_both(&fail(&["restore", place.to_str().expect("UTF-8")], Some(&target)));

    let of_format = |format: u32| format!("\"format\": {format},");
    rewrite_manifest(&place, &of_format(format), &of_format(format + 1));
    let said = fail(&["restore", place.to_str().expect("UTF-8")], Some(&target));
    assert!(said.contains(&format!("format {}", format + 1)) && said.contains(&format!("1 to {format}")), "{said}");

    std::fs::write(place.join("strata-backups.json"), format!("{{\"format\":{}}}\n", format + 1)).expect("written");
    let from = place.to_str().expect("UTF-8");
    for arguments in [&["restore", from][..], &["backups", from], &["backups", from, "--verify"]] {
        let said = fail(arguments, (arguments[0] == "restore").then_some(target.as_path()));
        assert!(said.contains(&format!("format {}", format + 1)) && said.contains("1 to"), "{said}");
    }
    let entries = std::fs::read_dir(dir.path()).expect("listed");
    let left: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
    assert_eq!(left, ["backups"], "nothing was made");
}
