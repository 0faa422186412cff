//! What goes on beside searches: new specs, closed and dropped shards, optimising and checkpoints.

use crate::support::{
    C, Dir, Memory, PATIENCE, Random, answers, dense, ids, open, point, quiet, small, spec, until, words,
};
use serde_json::json;
use std::fs;
use std::sync::Arc;
use std::time::Duration;
use strata_model::acl::READERS;
use strata_model::document::VectorValue;
use strata_model::filter::{Condition, Filter, Operator};
use strata_model::{Error, Reader, Result};
use strata_store::index::{
    Change, EdgeConfig, EdgeIndex, Feed, Index, PayloadIndex, PayloadKind, Restriction, ShardSpec, ShardState,
};

#[test]
fn a_new_spec_is_built_beside_the_old() {
    let (dir, feed) = (Dir::new(), Memory::new(spec(8)));
    small(&feed);
    let index = open(&dir.path(), &feed);
    let before = answers(&index);
    let filter = Filter::eq("extra", "yes");
    assert!(!index.can_filter(C, &Reader::All, &filter).unwrap());
    let seq =
        feed.write(C, 500, Some(point(json!({"extra": "yes"}), &[("d", VectorValue::Dense(vec![1.0; 8]))], None)));
    feed.specs
        .lock()
        .unwrap()
        .get_mut(C)
        .unwrap()
        .payload
        .push(PayloadIndex { field: "extra".into(), kind: PayloadKind::Keyword });
    index.respec(C);
    until("the field is indexed", || index.can_filter(C, &Reader::All, &filter).unwrap());
    assert_eq!(ids(&index, &dense(&[1.0; 8]), &Restriction::Filter(filter.clone()), 10), [500]);
    assert!(index.wait_applied(C, seq, PATIENCE));
    until("ready", || index.status()[0].state == ShardState::Ready);
    drop(index);
    feed.write(C, 500, None);
    let index = open(&dir.path(), &feed);
    assert!(index.can_filter(C, &Reader::All, &filter).unwrap());
    assert_eq!(answers(&index), before);
}

#[test]
fn an_index_that_knows_no_readers_answers_none_of_them_until_it_is_built_anew() {
    let (dir, feed) = (Dir::new(), Memory::new(spec(2)));
    let read_by = |words: &[&str]| point(json!({ READERS: words }), &[("d", VectorValue::Dense(vec![1.0, 0.0]))], None);
    feed.fill(C, [read_by(&["*"]), read_by(&["=ann", "=bob"]), read_by(&[])]);
    let index = open(&dir.path(), &feed);
    let (ann, everything) = (Reader::Principal("ann".into()), Filter::all());
    let asked = |reader: &Reader| index.search(C, reader, &dense(&[1.0, 0.0]), &Restriction::None, 10, None);
    assert_eq!(asked(&Reader::All).unwrap().len(), 3);
    for reader in [&ann, &Reader::Anyone] {
        assert!(!index.can_filter(C, reader, &everything).unwrap());
        assert!(matches!(asked(reader), Err(Error::Unavailable(_))));
    }
    feed.specs
        .lock()
        .unwrap()
        .get_mut(C)
        .unwrap()
        .payload
        .push(PayloadIndex { field: READERS.into(), kind: PayloadKind::Keyword });
    index.respec(C);
    until("readers are known", || index.can_filter(C, &ann, &everything).unwrap());
    let found = |reader: &Reader| asked(reader).unwrap().iter().map(|hit| hit.document_seq).collect::<Vec<_>>();
    assert_eq!((found(&Reader::All), found(&ann), found(&Reader::Anyone)), (vec![1, 2, 3], vec![1, 2], vec![1]));
    let by_name = Filter::Is(Condition {
        field: READERS.into(),
        operator: Operator::Eq,
        value: "=bob".into(),
        case_sensitive: true,
    });
    assert!(!index.can_filter(C, &ann, &by_name).unwrap(), "who else reads a document is not told");
}

#[test]
fn few_shards_stay_open_and_dropped_ones_go() {
    let (dir, feed) = (Dir::new(), Memory::new(spec(2)));
    let index = EdgeIndex::open(dir.path(), feed.clone(), EdgeConfig { max_open: 2, ..quiet() }).unwrap();
    let names: Vec<String> = (0..5).map(|i| format!("col_{i}")).collect();
    for name in &names {
        feed.specs.lock().unwrap().insert(name.clone(), ShardSpec { collection_id: name.clone(), ..spec(2) });
        feed.write(name, 1, Some(point(json!({}), &[], Some(name))));
    }
    for name in names.iter().chain(&names) {
        let hits = index.search(name, &Reader::All, &words(name), &Restriction::None, 1, None).unwrap();
        assert_eq!(hits.len(), 1);
        let open = index.status().iter().filter(|s| s.state == ShardState::Ready).count();
        assert!(open <= 2, "{:?}", index.status());
    }
    assert!(dir.path().join("col_0").exists());
    feed.specs.lock().unwrap().remove("col_0");
    index.drop_collection("col_0").unwrap();
    assert!(!dir.path().join("col_0").exists());
    assert!(matches!(
        index.search("col_0", &Reader::All, &words("x"), &Restriction::None, 1, None),
        Err(Error::Missing { .. })
    ));
    index.close();
    assert!(matches!(
        index.search("col_1", &Reader::All, &words("x"), &Restriction::None, 1, None),
        Err(Error::Unavailable(_))
    ));
}

#[test]
fn what_a_kill_left_of_a_dropped_collection_goes_at_the_next_start() {
    let (dir, feed) = (Dir::new(), Memory::new(spec(8)));
    small(&feed);
    feed.specs.lock().unwrap().insert("col_gone".into(), ShardSpec { collection_id: "col_gone".into(), ..spec(8) });
    feed.write("col_gone", 1, Some(point(json!({}), &[], Some("gone"))));
    let index = open(&dir.path(), &feed);
    let found = index.search("col_gone", &Reader::All, &words("gone"), &Restriction::None, 1, None).unwrap();
    assert_eq!(found.len(), 1);
    let expected = answers(&index);
    index.close();
    drop(index);
    // The catalog forgot it, and the process ended before its files went; of another one only the directory is left.
    feed.specs.lock().unwrap().remove("col_gone");
    fs::create_dir(dir.path().join("col_empty")).unwrap();
    // What is no collection's is nobody's business.
    fs::create_dir(dir.path().join("notes")).unwrap();
    fs::write(dir.path().join("notes/readme"), "mine").unwrap();
    let left = |name: &str| dir.path().join(name).exists();
    assert!(left("col_gone") && left(C));

    let index = open(&dir.path(), &feed);
    until("leftovers to go", || !left("col_gone") && !left("col_empty"));
    assert_eq!(answers(&index), expected);
    assert!(left("notes/readme") && left(C));
    until("their slots to go", || index.status().iter().all(|shard| shard.collection_id == C));
}

/// Writers, searches, `optimize` and checkpoints at once: nothing is lost and nothing fails.
#[test]
fn background_care_beside_writes_and_searches() {
    let (dir, feed) = (Dir::new(), Memory::new(spec(8)));
    let busy = EdgeConfig {
        optimize_tail: 300,
        contended_tail: 300,
        checkpoint_every: 200,
        tick: Duration::from_millis(1),
        indexing_kilobytes: 1,
        ..quiet()
    };
    let index = EdgeIndex::open(dir.path(), feed.clone(), busy.clone()).unwrap();
    std::thread::scope(|scope| {
        for start in [1, 2] {
            let (index, feed) = (&index, &feed);
            scope.spawn(move || {
                let mut random = Random(0xBEEF + start as u64);
                for i in 0..600 {
                    let document = start + 2 * (i % 500);
                    let written = (i % 11 != 0).then(|| {
                        point(json!({"n": i}), &[("d", VectorValue::Dense(random.vector(8)))], Some("common"))
                    });
                    let deleted = written.is_none();
                    let seq = feed.write(C, document, written);
                    index.notify(C);
                    assert!(index.wait_applied(C, seq, PATIENCE));
                    let found = ids(index, &words("common"), &Restriction::Ids(vec![document]), 1);
                    assert_eq!(found.is_empty(), deleted, "document {document} in round {i}");
                }
            });
        }
    });
    assert_eq!(index.status()[0].last_error, None);
    let live = feed.live().len();
    assert_eq!(ids(&index, &words("common"), &Restriction::None, 2_000).len(), live);
    drop(index);
    let index = EdgeIndex::open(dir.path(), feed.clone(), busy).unwrap();
    assert_eq!(ids(&index, &words("common"), &Restriction::None, 2_000).len(), live);
}

/// A feed that is not worked on while it is read: to the index that looks as if others had the processors.
struct Slow(Arc<Memory>);

impl Feed for Slow {
    fn spec(&self, collection_id: &str) -> Result<Option<ShardSpec>> {
        self.0.spec(collection_id)
    }
    fn changes_after(&self, collection_id: &str, after: i64, limit: usize) -> Result<Vec<Change>> {
        std::thread::sleep(Duration::from_millis(5));
        self.0.changes_after(collection_id, after, limit)
    }
    fn head(&self, collection_id: &str) -> Result<i64> {
        self.0.head(collection_id)
    }
}

/// With pauses between batches these changes take seconds; who waits for them ends the pauses, and without anybody they
/// come too.
#[test]
fn changes_give_way_until_somebody_waits_for_them() {
    let (dir, feed) = (Dir::new(), Memory::new(spec(8)));
    let config = EdgeConfig { batch: 10, give_way: Duration::from_secs(3600), replay_before_search: 1, ..quiet() };
    let index = EdgeIndex::open(dir.path(), Arc::new(Slow(feed.clone())), config).unwrap();
    let mut random = Random(0x5EED);
    let mut write = |numbers: std::ops::Range<i64>| {
        let mut vector = || [("d", VectorValue::Dense(random.vector(8)))];
        numbers.map(|n| feed.write(C, n, Some(point(json!({"n": n}), &vector(), None)))).last().unwrap()
    };
    let head = write(1..1001);
    index.notify(C);
    until("some changes are applied", || index.applied(C) > 0);
    assert!(index.applied(C) < head);
    assert!(index.wait_applied(C, head, PATIENCE));
    let head = write(1001..1101);
    index.notify(C);
    until("the rest is applied", || index.applied(C) == head);
}
