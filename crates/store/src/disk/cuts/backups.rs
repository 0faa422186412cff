//! Repositories of backups in a directory: making, counting on what is there, thinning out.

use super::{CUTS, FEW_CUTS, files_under, runtime};
use crate::{
    Blobs, Catalog,
    backup::{self, Order, Repository, retention},
    catalog::from_sql,
    disk::{self, witness::Recording},
    seams::System,
};
use bytes::Bytes;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};
use strata_model::id;

/// A data directory with one object for each content.
pub(super) struct Data {
    directory: tempfile::TempDir,
}

impl Data {
    pub(super) fn new() -> Self {
        let data = Self { directory: tempfile::tempdir().unwrap() };
        data.catalog()
            .write_blocking(|tx| {
                tx.execute_batch(
                    "INSERT INTO organizations VALUES ('org_1', 'o', '{}', 't', 't');
                     INSERT INTO namespaces VALUES ('ns_1', 'org_1', 'one', '{}', 't', 't');
                     INSERT INTO buckets VALUES ('bkt_1', 'ns_1', 'texts', '{}', 't', 't');",
                )
                .map_err(from_sql)
            })
            .unwrap();
        data
    }

    fn catalog(&self) -> Catalog {
        Catalog::open(&self.directory.path().join("catalog.db"), Arc::new(System::default())).unwrap()
    }

    pub(super) async fn add(&self, text: &'static str) {
        let blobs = Blobs::local(self.directory.path().join("blobs")).unwrap();
        let hash = blobs.put(Bytes::from_static(text.as_bytes())).await.unwrap();
        let write = self.catalog().write_blocking(move |tx| {
            let size_bytes = text.len() as i64;
            tx.execute("INSERT INTO blobs VALUES (?1, ?2, 'text/plain', 't')", (&hash, size_bytes))
                .map_err(from_sql)?;
            tx.execute(
                "INSERT INTO objects (object_id, namespace_id, bucket_id, status, content_hash, fields, blobs, body,
                     created_at, updated_at)
                 VALUES ('obj_' || ?1, 'ns_1', 'bkt_1', 'COMPLETED', ?1, '{}', '[]', '{}', 't', 't')",
                [&hash],
            )
            .map_err(from_sql)?;
            tx.execute("INSERT INTO object_blobs VALUES ('obj_' || ?1, 'b', ?1)", [&hash]).map_err(from_sql)?;
            Ok(())
        });
        write.unwrap();
    }

    pub(super) async fn back_up(&self, place: &Path) -> backup::Made {
        let order = Order { data_dir: self.directory.path().to_owned(), files: Vec::new(), version: "0".into() };
        let repository = Repository::open_or_make(place.to_str().unwrap()).await.unwrap();
        let made = backup::make(&order, &repository, &System::default()).await.unwrap();
        assert_eq!(made.lost, [""; 0]);
        made
    }
}

async fn thin_out(place: &Path, source: &str) {
    let repository = Repository::open(place.to_str().unwrap()).await.unwrap();
    let pruned = retention::prune(&repository, source, 1, &System::default()).await.unwrap();
    assert!(!pruned.put_off, "nobody else is at work");
}

/// The ids of the backups that are there, each of them whole.
async fn whole(place: &Path) -> BTreeSet<String> {
    let repository = Repository::open(place.to_str().unwrap()).await.unwrap();
    let verified = backup::verify(&repository, None).await.unwrap();
    for one in &verified {
        assert!(one.ok, "a backup that is named is whole: {one:?}");
    }
    verified.into_iter().map(|one| one.backup_id).collect()
}

/// Of a repository with one backup: every file that it should have.
async fn expected_files(place: &Path) -> Vec<PathBuf> {
    let repository = Repository::open(place.to_str().unwrap()).await.unwrap();
    let listed = repository.manifests().await.unwrap();
    assert_eq!(listed.len(), 1);
    let manifest = listed[0].manifest.as_ref().unwrap();
    let mut files = vec![PathBuf::from("strata-backups.json"), Path::new("manifests").join(&listed[0].name)];
    let chunks: BTreeSet<&str> = manifest.chunks().collect();
    files.extend(chunks.iter().map(|hash| Path::new("chunks").join(&hash[..2]).join(hash)));
    let contents = ["first", "second"].map(|text| id::sha256_hex(text.as_bytes()));
    files.extend(contents.iter().map(|hash| Path::new("blobs").join(&hash[..2]).join(hash)));
    files.sort_unstable();
    files
}

#[test]
fn a_backup_that_was_made_is_whole_wherever_the_power_goes() {
    let runtime = runtime();
    let data = Data::new();
    let home = tempfile::tempdir().unwrap();
    let place = home.path().join("on/another/disk");
    let recording = Recording::begin(home.path());
    runtime.block_on(async {
        data.add("first").await;
        let first = data.back_up(&place).await;
        recording.promise(first.backup_id.as_str());
        data.add("second").await;
        let second = data.back_up(&place).await;
        recording.promise(second.backup_id.as_str());
        recording.take_back(first.backup_id.as_str());
        thin_out(&place, &second.source).await;
    });
    let mut looks = 0;
    recording.at_every_step(&FEW_CUTS, |left, promised| {
        let place = left.join("on/another/disk");
        looks += 1;
        runtime.block_on(async {
            // A place where nothing was promised may be no repository yet.
            if !promised.is_empty() {
                let there = whole(&place).await;
                assert!(promised.is_subset(&there), "{promised:?} of {there:?}");
            }
            // To see every time what the next runs leave would take minutes.
            if looks % 7 != 0 {
                return;
            }
            let first = data.back_up(&place).await;
            let there = whole(&place).await;
            assert!(there.contains(&first.backup_id) && promised.is_subset(&there));
            thin_out(&place, &first.source).await;
            // A thinning sweeps where it has removed something, as the second one has for sure.
            let next = data.back_up(&place).await;
            thin_out(&place, &next.source).await;
            assert_eq!(whole(&place).await, BTreeSet::from([next.backup_id]));
            let expected = expected_files(&place).await;
            assert_eq!(files_under(&place), expected, "no draft, no mark and nothing unnamed stays");
        });
    });
}

#[test]
fn a_content_that_a_killed_backup_left_is_made_durable_before_one_counts_on_it() {
    let runtime = runtime();
    let data = Data::new();
    let home = tempfile::tempdir().unwrap();
    let place = home.path().join("backups");
    runtime
        .block_on(async {
            data.add("first").await;
            Repository::open_or_make(place.to_str().unwrap()).await.unwrap();
            let recording = Recording::begin(home.path());
            // It died between the name and the syncing of the directories.
            let hash = id::sha256_hex(b"first");
            let folder = place.join("blobs").join(&hash[..2]);
            disk::make_dirs_unsynced(&folder).unwrap();
            disk::write_new(&folder.join(&hash), b"first").unwrap();
            let made = data.back_up(&place).await;
            assert_eq!(made.new_blobs, 0, "what is there is not written again");
            recording.promise(made.backup_id.as_str());
            recording
        })
        .at_every_step(&CUTS, |left, promised| {
            if !promised.is_empty() {
                assert_eq!(runtime.block_on(whole(&left.join("backups"))), *promised);
            }
        });
}
