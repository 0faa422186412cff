//! The audit log: a change and its event are on disk together, or neither is.

#![allow(clippy::unwrap_used)]

use std::{sync::Arc, time::Duration};
use strata_model::{Error, Permission, Principal};
use strata_store::{
    Catalog,
    catalog::{
        audit::{self, Call, Entry, Event, Operation, Selection},
        from_sql,
    },
    seams::System,
};

fn open(dir: &std::path::Path) -> Catalog {
    Catalog::open(&dir.join("catalog.db"), Arc::new(System::default())).unwrap()
}

fn principal() -> Principal {
    Principal {
        organization_id: "org_1".into(),
        user_id: "usr_1".into(),
        key_id: "key_1".into(),
        permissions: vec![Permission::Write],
        principal_id: None,
        namespaces: None,
        only: None,
        rates: Default::default(),
    }
}

/// The entry of a call that begins at `micros`.
fn entry(micros: i64, is_change: bool) -> Arc<Entry> {
    let operation = Operation {
        operation_id: "op".into(),
        method: "POST".into(),
        path: "/v1/buckets".into(),
        action: "bucket_created".into(),
        resource_type: "bucket".into(),
    };
    Arc::new(Entry::new(Arc::new(operation), Call::default(), (micros, 7), None, is_change))
}

fn events(catalog: &Catalog) -> Vec<Event> {
    catalog.read_blocking(|c| audit::list(c, "org_1", &Selection::default(), (100, 0))).unwrap()
}

/// A call that makes the setting `name`, and fails with it if asked to.
async fn call(catalog: &Catalog, entry: &Arc<Entry>, name: &'static str, fails: bool) -> strata_model::Result<()> {
    let work = async {
        audit::caller(&principal());
        audit::about(name);
        let write = catalog.write(move |tx| {
            tx.execute("INSERT INTO settings (name, value) VALUES (?1, '')", [name]).map_err(from_sql)?;
            if fails { Err(Error::Conflict("no".into())) } else { Ok(()) }
        });
        write.await
    };
    audit::during(entry.clone(), work).await
}

#[tokio::test]
async fn the_first_write_of_a_call_takes_its_event_along() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path());
    let made = entry(1_000, true);
    call(&catalog, &made, "a", false).await.unwrap();
    assert!(made.is_complete());
    call(&catalog, &made, "b", false).await.unwrap();
    let found = events(&catalog);
    let [event] = &found[..] else { panic!("{found:?}") };
    assert_eq!((event.resource_id.as_str(), event.status.as_str(), event.status_code), ("a", "success", None));
    assert_eq!((event.user_id.as_str(), event.key_id.as_str()), ("usr_1", "key_1"));
    assert!(!made.is_complete(), "the second write made something of another name");
    let stale = made.clone();
    catalog.write(move |tx| audit::store(tx, &stale, Some(201))).await.unwrap();
    let found = events(&catalog);
    let [event] = &found[..] else { panic!("{found:?}") };
    assert_eq!((event.resource_id.as_str(), event.status_code), ("b", Some(201)));
}

#[tokio::test]
async fn a_change_that_fails_leaves_no_event_until_its_answer_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path());
    let refused = entry(1_000, true);
    call(&catalog, &refused, "a", true).await.unwrap_err();
    assert_eq!((events(&catalog), refused.is_complete()), (Vec::new(), false));
    let answered = refused.clone();
    catalog.write(move |tx| audit::store(tx, &answered, Some(409))).await.unwrap();
    assert_eq!(events(&catalog)[0].status, "failure");
}

#[tokio::test]
async fn work_that_runs_again_and_work_in_a_task_of_its_own_take_it_along_too() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path());
    let again = catalog.clone();
    let work = async {
        audit::caller(&principal());
        again.write_again((), Duration::ZERO, |(), _| Ok(())).await
    };
    audit::during(entry(1_000, true), work).await.unwrap();
    assert_eq!(events(&catalog).len(), 1);
    let apart = catalog.clone();
    let work = async move {
        audit::caller(&principal());
        let write = async move { apart.write(|_| Ok(())).await };
        tokio::spawn(audit::carried(write)).await.unwrap()
    };
    audit::during(entry(2_000, true), work).await.unwrap();
    assert_eq!(events(&catalog).len(), 2);
}

#[tokio::test]
async fn what_reads_and_what_nobody_calls_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path());
    call(&catalog, &entry(1_000, false), "a", false).await.unwrap();
    catalog.write(|_| Ok(())).await.unwrap();
    audit::during(entry(2_000, true), catalog.write(|_| Ok(()))).await.unwrap();
    assert_eq!(events(&catalog), Vec::new());
}

#[tokio::test]
async fn times_select_and_old_events_expire() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path());
    for (micros, name) in [(1_000, "a"), (2_000, "b"), (3_000, "c")] {
        call(&catalog, &entry(micros, true), name, false).await.unwrap();
    }
    let selected = |start, end| {
        let selection = Selection { start, end, ..Selection::default() };
        let found = catalog.read_blocking(|c| audit::list(c, "org_1", &selection, (100, 0))).unwrap();
        found.into_iter().map(|event| event.resource_id).collect::<Vec<_>>()
    };
    assert_eq!(selected(None, None), ["c", "b", "a"]);
    assert_eq!(selected(Some(2_000), None), ["c", "b"]);
    assert_eq!(selected(None, Some(2_000)), ["b", "a"]);
    let expire = |limit| catalog.write_blocking(move |tx| audit::expire(tx, "org_1", 3_000, limit)).unwrap();
    assert_eq!((expire(1), expire(5), expire(5)), (1, 1, 0));
    assert_eq!(selected(None, None), ["c"]);
}
