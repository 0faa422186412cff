//! The blob store.

use super::{CUTS, files_under, runtime};
use crate::{
    Blobs,
    disk::{self, witness::Recording},
};
use bytes::Bytes;
use futures::TryStreamExt;
use std::{path::Path, time::Duration};
use strata_model::{Result, id};

const TEXTS: [&str; 3] = ["a first content", "a second one", "one that comes in pieces"];

fn store(directory: &Path) -> Blobs {
    Blobs::local(directory.join("data/blobs")).unwrap()
}

/// A content piece by piece.
fn pieces(text: &str) -> impl futures::Stream<Item = Result<Bytes>> + Send + use<> {
    let pieces: Vec<_> = text.as_bytes().chunks(7).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    futures::stream::iter(pieces)
}

async fn remove(blobs: &Blobs, hash: &str) {
    let removal = blobs.begin_removal(hash).unwrap();
    blobs.delete(hash).await.unwrap();
    drop(removal);
}

/// Puts each content, one of them twice, and removes one and puts it again: as a sweep and a caller do.
async fn work(blobs: &Blobs, recording: &Recording) {
    for text in [TEXTS[0], TEXTS[1], TEXTS[0]] {
        let hash = blobs.put(Bytes::from_static(text.as_bytes())).await.unwrap();
        recording.promise(hash);
    }
    for _ in 0..2 {
        let held = blobs.put_stream(pieces(TEXTS[2]), 1_000).await.unwrap();
        recording.promise(held.hash());
    }
    for text in [TEXTS[1], TEXTS[2]] {
        let hash = id::sha256_hex(text.as_bytes());
        recording.take_back(hash.as_str());
        remove(blobs, &hash).await;
    }
    let hash = blobs.put(Bytes::from_static(TEXTS[1].as_bytes())).await.unwrap();
    recording.promise(hash);
}

#[test]
fn contents_that_were_promised_are_there_and_whole_wherever_the_power_goes() {
    let runtime = runtime();
    let directory = tempfile::tempdir().unwrap();
    let recording = Recording::begin(directory.path());
    runtime.block_on(async { work(&store(directory.path()), &recording).await });
    recording.at_every_step(&CUTS, |left, promised| {
        runtime.block_on(async {
            let blobs = store(left);
            for hash in promised {
                assert_eq!(id::sha256_hex(&blobs.get(hash).await.unwrap()), *hash);
            }
            // What has its name is what the name says, promised or not.
            let named: Vec<String> = blobs.older_than(Duration::ZERO).try_collect().await.unwrap();
            for hash in &named {
                assert_eq!(id::sha256_hex(&blobs.get(hash).await.unwrap()), *hash);
            }
            for text in TEXTS {
                let hash = blobs.put(Bytes::from_static(text.as_bytes())).await.unwrap();
                assert_eq!(blobs.get(&hash).await.unwrap(), text);
            }
            for text in TEXTS {
                remove(&blobs, &id::sha256_hex(text.as_bytes())).await;
            }
            let rest = files_under(&left.join("data"));
            assert_eq!(rest, [Path::new("blobs/removals.lock")], "drafts of the dead and what was removed are gone");
        });
    });
}

#[test]
fn a_content_that_a_killed_writer_named_is_made_durable_before_it_is_promised() {
    let runtime = runtime();
    let directory = tempfile::tempdir().unwrap();
    let blobs = store(directory.path());
    let recording = Recording::begin(directory.path());
    // It died between the name and the syncing of the directories.
    let hash = id::sha256_hex(TEXTS[0].as_bytes());
    let folder = directory.path().join("data/blobs").join(&hash[..2]).join(&hash[2..4]);
    disk::make_dirs_unsynced(&folder).unwrap();
    disk::write_new(&folder.join(&hash), TEXTS[0].as_bytes()).unwrap();
    runtime.block_on(blobs.put(Bytes::from_static(TEXTS[0].as_bytes()))).unwrap();
    recording.promise(hash);
    recording.at_every_step(&CUTS, |left, promised| {
        for hash in promised {
            assert_eq!(runtime.block_on(store(left).get(hash)).unwrap(), TEXTS[0]);
        }
    });
}
