//! Kills, faults and damaged files: nothing wrong is served, and nothing is lost.

use crate::support::{
    C, Dir, Memory, PATIENCE, answers, generation_of, ids, open, point, quiet, small, spec, until, words,
};
use serde_json::json;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use strata_model::Error;
use strata_model::document::VectorValue;
use strata_store::index::{EdgeConfig, EdgeIndex, Index, Restriction, ShardState};

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

/// Each file of a closed shard in turn is removed, cut or overwritten. The rebuilt shard is closed again and is the next
/// round's victim, so the files are known by their place and not by their name.
fn damage_is_seen_and_rebuilt(optimized: bool) {
    let mut plain = spec(8);
    plain.vectors.truncate(1);
    plain.payload.truncate(1);
    let (dir, feed) = (Dir::new(), Memory::new(plain));
    small(&feed);
    let config = EdgeConfig { indexing_kilobytes: 1, ..quiet() };
    let expected = std::cell::OnceCell::new();
    let round = |what: &str, rebuilt: bool, harm: &dyn Fn()| {
        harm();
        let before = fs::read_dir(dir.path()).map_or(String::new(), |_| generation_of(&dir.path()));
        let index = EdgeIndex::open(dir.path(), feed.clone(), config.clone()).unwrap();
        let found = answers(&index);
        assert_eq!(&found, expected.get_or_init(|| found.clone()), "{what}");
        assert_eq!(index.status()[0].points, 400, "{what}");
        // Damage is never served: the shard there now is another one.
        assert_eq!(generation_of(&dir.path()) != before, rebuilt, "{what}");
        if optimized {
            index.optimize(C).unwrap();
        }
    };
    round("the directory is not there", true, &|| {});
    round("nothing is wrong", false, &|| {});
    round("the directory is gone", true, &|| fs::remove_dir_all(dir.path()).unwrap());
    let shorten = |path: &Path| {
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    };
    let shard = || dir.path().join(C).join(generation_of(&dir.path()));
    round("all files are cut", true, &|| files(&shard()).iter().for_each(|path| shorten(path)));
    round("a load did not end", true, &|| fs::write(shard().join("strata.state"), "loading").unwrap());
    round("`current` names nothing", true, &|| fs::write(dir.path().join(C).join("current"), "x").unwrap());
    let filled = || files(&shard()).into_iter().filter(|p| fs::metadata(p).unwrap().len() > 0).collect::<Vec<_>>();
    let count = filled().len();
    assert!(count > 20, "{count} files");
    // Every second file of an optimised shard, to save time: half of them are its plain segment's.
    let step = if optimized { 2 } else { 1 };
    for i in 0..count / step {
        let all = filled();
        let Some(path) = all.get(i * step) else { break };
        let what = format!("`{}` ({})", path.display(), ["gone", "cut", "garbage"][i % 3]);
        round(&what, true, &|| match i % 3 {
            0 => fs::remove_file(path).unwrap(),
            1 => shorten(path),
            _ => {
                let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
                let length = fs::metadata(path).unwrap().len().min(512) as usize;
                file.write_all(&vec![0xA5; length]).unwrap();
            }
        });
    }
}

#[test]
fn damage_to_plain_segments_is_seen_and_rebuilt() {
    damage_is_seen_and_rebuilt(false);
}

#[test]
fn damage_to_optimized_segments_is_seen_and_rebuilt() {
    damage_is_seen_and_rebuilt(true);
}

/// The files of a running index, copied away, are what a kill leaves.
#[test]
fn a_kill_is_replayed() {
    let (dir, feed) = (Dir::new(), Memory::new(spec(8)));
    small(&feed);
    let index = open(&dir.path(), &feed);
    ids(&index, &words("common"), &Restriction::None, 1);
    index.optimize(C).unwrap();
    let mut head = 0;
    for document in 1..=50 {
        let changed = point(
            json!({"tag": "x", "n": 0}),
            &[("d", VectorValue::Dense(vec![document as f32; 8]))],
            Some("replaced word3"),
        );
        head = feed.write(C, document, (document % 2 == 0).then_some(changed));
    }
    index.notify(C);
    assert!(index.wait_applied(C, head, PATIENCE));
    let expected = answers(&index);
    let killed = Dir::new();
    copy(&dir.path(), &killed.path());
    // More is written while the process is down.
    let reopened = open(&killed.path(), &feed);
    assert_eq!(answers(&reopened), expected);
    assert_eq!(reopened.applied(C), head);
    assert_eq!(reopened.status()[0].points, 375);
    assert_eq!(generation_of(&killed.path()), "1", "replayed, not rebuilt");
    drop(reopened);
    let later = feed.write(C, 1_000, Some(point(json!({}), &[], Some("zebra"))));
    let reopened = open(&killed.path(), &feed);
    assert_eq!(ids(&reopened, &words("zebra"), &Restriction::None, 10), [1_000]);
    assert_eq!(reopened.applied(C), later);
    assert_eq!(generation_of(&killed.path()), "1");
}

#[test]
fn a_fault_while_running_is_healed() {
    let (dir, feed) = (Dir::new(), Memory::new(spec(8)));
    let head = small(&feed);
    let index = EdgeIndex::open(dir.path(), feed.clone(), EdgeConfig { indexing_kilobytes: 1, ..quiet() }).unwrap();
    let expected = answers(&index);
    fs::remove_dir_all(dir.path().join(C).join(generation_of(&dir.path()))).unwrap();
    assert!(matches!(index.optimize(C), Err(Error::Unavailable(_))));
    assert!(index.wait_applied(C, head, PATIENCE));
    until("ready", || index.status()[0].state == ShardState::Ready);
    assert_eq!(answers(&index), expected);
    assert!(index.status()[0].last_error.is_some());
    index.close();
    drop(index);
    assert_eq!(answers(&open(&dir.path(), &feed)), expected);
    assert_eq!(generation_of(&dir.path()), "2");
}
