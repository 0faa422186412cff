//! The catalog and the blobs against a real directory.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use strata_model::Error;
use strata_store::{Blobs, Catalog, catalog::from_sql, seams::System};

fn open(dir: &std::path::Path) -> Catalog {
    Catalog::open(&dir.join("catalog.db"), Arc::new(System::default())).unwrap()
}

fn set(
    name: &str,
    value: &str,
) -> impl FnOnce(&rusqlite::Transaction<'_>) -> strata_model::Result<()> + Send + 'static {
    let (name, value) = (name.to_owned(), value.to_owned());
    move |tx| {
        tx.execute("INSERT INTO settings (name, value) VALUES (?1, ?2)", [&name, &value]).map_err(from_sql)?;
        Ok(())
    }
}

fn count(catalog: &Catalog) -> i64 {
    catalog.read_blocking(|c| c.query_row("SELECT count(*) FROM settings", [], |r| r.get(0)).map_err(from_sql)).unwrap()
}

#[tokio::test]
async fn concurrent_writes_all_land_and_stay_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path());
    let writes = (0..200).map(|i| {
        let catalog = catalog.clone();
        tokio::spawn(async move { catalog.write(set(&format!("k{i}"), "v")).await })
    });
    for write in writes.collect::<Vec<_>>() {
        write.await.unwrap().unwrap();
    }
    assert_eq!(count(&catalog), 200);
    drop(catalog);
    assert_eq!(count(&open(dir.path())), 200);
}

#[tokio::test]
async fn a_failing_or_panicking_write_undoes_only_itself() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path());
    let good = catalog.write(set("a", "1"));
    let bad = catalog.write(|tx| {
        set("b", "1")(tx)?;
        Err::<(), _>(Error::Conflict("no".into()))
    });
    let panics = catalog.write(|tx| {
        set("c", "1")(tx)?;
        if tx.is_autocommit() { Ok(()) } else { panic!("on purpose") }
    });
    let (good, bad, panics) = tokio::join!(good, bad, panics);
    good.unwrap();
    assert!(matches!(bad, Err(Error::Conflict(_))));
    assert!(matches!(panics, Err(Error::Internal(_))));
    assert_eq!(count(&catalog), 1);
    catalog.write(set("d", "1")).await.unwrap();
    assert_eq!(count(&catalog), 2);
}

#[test]
fn a_newer_catalog_is_refused_untouched() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let path = dir.path().join("catalog.db");
    let raw = rusqlite::Connection::open(&path).unwrap();
    raw.pragma_update(None, "user_version", 9999).unwrap();
    drop(raw);
    let refused = Catalog::open(&path, Arc::new(System::default())).err().unwrap();
    assert!(refused.to_string().contains("9999"), "{refused}");
}

#[tokio::test]
async fn blobs_are_named_by_their_content() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::local(dir.path().join("blobs")).unwrap();
    let hash = blobs.put(bytes::Bytes::from_static(b"hello")).await.unwrap();
    assert_eq!(hash, "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
    assert_eq!(blobs.put(bytes::Bytes::from_static(b"hello")).await.unwrap(), hash);
    assert_eq!(&blobs.get_range(&hash, 1, 3).await.unwrap()[..], b"el");
    assert_eq!(blobs.size(&hash).await.unwrap(), Some(5));
    blobs.delete(&hash).await.unwrap();
    blobs.delete(&hash).await.unwrap();
    assert!(matches!(blobs.get(&hash).await, Err(Error::Missing { .. })));
}

#[tokio::test]
async fn repeatable_writes_that_share_a_commit_fail_alone_too() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path());
    // While this one waits, the others gather behind it.
    let (go, gate) = std::sync::mpsc::channel();
    let slow = catalog.write(move |_| gate.recv().map_err(Error::internal));
    let others = (0..30).map(|i| {
        let (catalog, name) = (catalog.clone(), format!("k{i}"));
        async move {
            let work = move |runs: &mut u32, tx: &rusqlite::Transaction<'_>| {
                *runs += 1;
                match i % 10 {
                    // Nothing was changed yet: the others need not run again for it.
                    3 => return Err(Error::Conflict("early".into())),
                    7 => set(&format!("{name} gone"), "1")(tx)?,
                    _ => return set(&name, "1")(tx),
                }
                if i == 17 { panic!("on purpose") } else { Err(Error::Conflict("late".into())) }
            };
            (i, catalog.write_again(0, std::time::Duration::ZERO, work).await)
        }
    });
    // Polled in this order: all are queued when the gate opens.
    let (slow, others, opened) = tokio::join!(slow, futures::future::join_all(others), async { go.send(()) });
    slow.unwrap();
    opened.unwrap();
    for (i, outcome) in others {
        match (i % 10, outcome) {
            (3 | 7, Err(Error::Conflict(_))) | (7, Err(Error::Internal(_))) => {}
            (3 | 7, other) => panic!("{i} should fail: {other:?}"),
            (_, outcome) => assert!(outcome.unwrap().0 <= 2, "once, and once more for those that failed late"),
        }
    }
    assert_eq!(count(&catalog), 24);
    drop(catalog);
    assert_eq!(count(&open(dir.path())), 24);
}

#[tokio::test]
async fn a_patient_write_goes_with_the_next_that_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path());
    let ever = std::time::Duration::from_secs(1 << 20);
    let work = |_: &mut (), tx: &rusqlite::Transaction<'_>| set("patient", "1")(tx);
    // Alone it would wait for days.
    let (patient, other) = tokio::join!(catalog.write_again((), ever, work), catalog.write(set("other", "1")));
    patient.unwrap();
    other.unwrap();
    assert_eq!(count(&catalog), 2);
    // Nothing can come any more, so it waits no longer.
    let last = catalog.write_again((), ever, |_, tx| set("last", "1")(tx));
    let mut last = Box::pin(last);
    assert!(futures::poll!(&mut last).is_pending());
    drop(last);
    drop(catalog);
    assert_eq!(count(&open(dir.path())), 3);
}

/// Names of namespaces, remembered. Counts how often they were really read.
async fn names(catalog: &Catalog, reads: &Arc<std::sync::atomic::AtomicUsize>) -> Vec<String> {
    let reads = reads.clone();
    let query = move |c: &rusqlite::Connection| {
        reads.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let mut statement = c.prepare("SELECT name FROM namespaces ORDER BY name").map_err(from_sql)?;
        let found = statement.query_map([], |r| r.get(0)).map_err(from_sql)?;
        found.collect::<rusqlite::Result<Vec<String>>>().map_err(from_sql)
    };
    catalog.recall("names".into(), query).await.unwrap().to_vec()
}

#[tokio::test]
async fn definitions_are_remembered_until_a_write_changes_one() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path());
    let reads = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let add = |name: &'static str| {
        catalog.write(move |tx| {
            let organization = "INSERT INTO organizations VALUES ('org_1', 'o', '{}', '', '') ON CONFLICT DO NOTHING";
            tx.execute(organization, []).map_err(from_sql)?;
            let namespace = "INSERT INTO namespaces VALUES (?1, 'org_1', ?1, '{}', '', '')";
            tx.execute(namespace, [name]).map(drop).map_err(from_sql)
        })
    };
    add("a").await.unwrap();
    assert_eq!(names(&catalog, &reads).await, ["a"]);
    catalog.write(set("unrelated", "1")).await.unwrap();
    assert_eq!(names(&catalog, &reads).await, ["a"]);
    assert_eq!(reads.load(std::sync::atomic::Ordering::SeqCst), 1);
    add("b").await.unwrap();
    assert_eq!(names(&catalog, &reads).await, ["a", "b"]);
    catalog.write(|tx| tx.execute("DELETE FROM namespaces WHERE name = 'a'", []).map_err(from_sql)).await.unwrap();
    assert_eq!(names(&catalog, &reads).await, ["b"]);
    assert_eq!(reads.load(std::sync::atomic::Ordering::SeqCst), 3);
}
