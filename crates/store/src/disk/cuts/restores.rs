//! Restoring a backup into a new directory.

use super::{FEW_CUTS, backups::Data, files_under, runtime};
use crate::{
    Blobs,
    backup::{self, Repository, Wanted},
    catalog::copy,
    disk::witness::Recording,
};
use std::path::Path;

async fn restore(place: &Path, to: &Path) {
    let repository = Repository::open(place.to_str().unwrap()).await.unwrap();
    let wanted = Wanted { backup_id: None, data_dir: to.to_owned(), skip_damaged: false };
    backup::restore(&repository, &wanted).await.unwrap();
}

fn assert_whole(restored: &Path) {
    copy::examine(&restored.join("catalog.db")).unwrap();
    // As the server does, which then has no drafts of the dead.
    Blobs::local(restored.join("blobs")).unwrap();
    let found = files_under(&restored.join("blobs")).into_iter().filter(|file| *file != Path::new("removals.lock"));
    let mut texts: Vec<String> =
        found.map(|file| std::fs::read_to_string(restored.join("blobs").join(file)).unwrap()).collect();
    texts.sort_unstable();
    assert_eq!(texts, ["first", "second"]);
}

#[test]
fn a_restored_directory_is_whole_or_not_there_wherever_the_power_goes() {
    let runtime = runtime();
    let data = Data::new();
    let (repository, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let place = repository.path().join("backups");
    runtime.block_on(async {
        data.add("first").await;
        data.add("second").await;
        data.back_up(&place).await;
    });
    let recording = Recording::begin(home.path());
    runtime.block_on(restore(&place, &home.path().join("new/data")));
    recording.promise("data");
    recording.at_every_step(&FEW_CUTS, |left, promised| {
        let restored = left.join("new/data");
        if restored.exists() {
            assert_whole(&restored);
        } else {
            assert!(promised.is_empty(), "it was promised");
            runtime.block_on(restore(&place, &restored));
            assert_whole(&restored);
        }
        let entries = std::fs::read_dir(left.join("new")).unwrap();
        let names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["data"], "of what was under way nothing stays");
    });
}
