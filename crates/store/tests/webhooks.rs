//! The outbox: an event waits for those that want it, in the transaction that makes it true, and for nobody else.

#![allow(clippy::unwrap_used)]

use serde_json::json;
use std::sync::Arc;
use strata_model::Error;
use strata_store::{
    Catalog,
    catalog::{
        from_sql,
        webhooks::{
            self, Event, Health, Wanted, Webhook,
            outbox::{self, Address, Delivery, Of},
        },
    },
    seams::System,
};

const CREATED: &str = "object.created";

fn open(dir: &std::path::Path) -> Catalog {
    let catalog = Catalog::open(&dir.join("catalog.db"), Arc::new(System::default())).unwrap();
    let setup = "INSERT INTO organizations VALUES ('org_1', 'o', '{}', 't', 't'), ('org_2', 'p', '{}', 't', 't');
        INSERT INTO namespaces VALUES ('ns_1', 'org_1', 'one', '{}', 't', 't'), ('ns_2', 'org_2', 'two', '{}', 't', 't');";
    catalog.write_blocking(move |tx| tx.execute_batch(setup).map_err(from_sql)).unwrap();
    catalog
}

fn webhook(organization_id: &str, name: &str) -> Webhook {
    Webhook {
        webhook_id: format!("wh_{organization_id}_{name}"),
        organization_id: organization_id.into(),
        name: name.into(),
        body: Default::default(),
        sealed: None,
        is_active: true,
        created_by: "usr_1".into(),
        created_at: "2026-01-01T00:00:00.000000Z".into(),
        updated_at: "2026-01-01T00:00:00.000000Z".into(),
        health: Health::default(),
    }
}

fn wanted(event_type: &str, channels: usize) -> Wanted {
    Wanted { event_types: vec![event_type.into()], resource_types: Vec::new(), channels }
}

fn add(catalog: &Catalog, webhook: &Webhook, wanted: Wanted) {
    let webhook = webhook.clone();
    catalog.write_blocking(move |tx| webhooks::insert(tx, &webhook, &wanted)).unwrap();
}

fn queue(catalog: &Catalog, namespace_id: &'static str, number: u32) {
    let event = Event::new(CREATED, namespace_id);
    catalog.write_blocking(move |tx| webhooks::queue(tx, &event, || json!({ "number": number }))).unwrap();
}

fn head(catalog: &Catalog, webhook: &Webhook, channel: i64) -> Option<Delivery> {
    let address = Address { webhook_id: webhook.webhook_id.clone(), channel };
    catalog.read_blocking(|connection| outbox::head(connection, &address)).unwrap()
}

fn count(catalog: &Catalog, table: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM {table}");
    catalog.read_blocking(|connection| connection.query_row(&sql, [], |r| r.get(0)).map_err(from_sql)).unwrap()
}

#[test]
fn an_event_waits_for_its_own_organization_and_only_where_it_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path());
    queue(&catalog, "ns_1", 0);
    assert_eq!(count(&catalog, "webhook_events"), 0, "nobody wants it");
    let (own, other) = (webhook("org_1", "own"), webhook("org_2", "other"));
    add(&catalog, &own, wanted(CREATED, 1));
    add(&catalog, &other, wanted(CREATED, 1));
    queue(&catalog, "ns_1", 1);
    assert!(head(&catalog, &other, 0).is_none(), "another organization hears nothing");
    let delivery = head(&catalog, &own, 0).unwrap();
    assert_eq!((delivery.payload.clone(), delivery.resource_type.as_str()), (json!({ "number": 1 }), "object"));
    assert_eq!(delivery.namespace_id.as_deref(), Some("ns_1"));
    let known = catalog.read_blocking(|c| webhooks::get(c, "org_2", &own.webhook_id));
    assert!(matches!(known, Err(Error::Missing { .. })), "nor sees its webhooks");

    catalog.write_blocking(move |tx| outbox::delivered(tx, &delivery, "now")).unwrap();
    assert_eq!((count(&catalog, "webhook_events"), count(&catalog, "webhook_deliveries")), (0, 0));
    assert_eq!(catalog.read_blocking(|c| webhooks::get(c, "org_1", "own")).unwrap().health.delivered, 1);
}

#[test]
fn an_event_goes_with_the_change_that_it_tells_of() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path());
    let own = webhook("org_1", "own");
    add(&catalog, &own, wanted(CREATED, 1));
    let failed: Result<(), Error> = catalog.write_blocking(|tx| {
        webhooks::queue(tx, &Event::new(CREATED, "ns_1"), || json!({}))?;
        Err(Error::Conflict("no".into()))
    });
    assert!(failed.is_err());
    assert_eq!(count(&catalog, "webhook_events"), 0);
}

#[test]
fn every_channel_has_its_own_queue_in_the_order_of_the_events() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path());
    let own = webhook("org_1", "own");
    add(&catalog, &own, wanted(CREATED, 2));
    (1..=3).for_each(|n| queue(&catalog, "ns_1", n));
    let first = head(&catalog, &own, 0).unwrap();
    let id = first.event_id();
    catalog.write_blocking(move |tx| outbox::delivered(tx, &first, "now")).unwrap();
    assert_eq!(head(&catalog, &own, 0).unwrap().payload, json!({ "number": 2 }));
    let behind = head(&catalog, &own, 1).unwrap();
    assert_eq!((behind.payload.clone(), behind.event_id()), (json!({ "number": 1 }), id), "the same id for both");

    // One try fails and is due later, the next one is the last.
    let again = behind.clone();
    catalog.write_blocking(move |tx| outbox::failed(tx, &behind, "no", Some(77), 1, "now")).unwrap();
    let waiting = catalog.read_blocking(outbox::waiting).unwrap();
    let due: Vec<(i64, i64)> = waiting.iter().map(|(address, due_at)| (address.channel, *due_at)).collect();
    assert_eq!(due, [(1, 77), (0, 0)], "the one that has waited longest first");
    catalog.write_blocking(move |tx| outbox::failed(tx, &again, "never", None, 1, "now")).unwrap();
    assert_eq!(head(&catalog, &own, 1).unwrap().payload, json!({ "number": 2 }));
    let queued = catalog.read_blocking(|c| outbox::queued(c, &own.webhook_id, 10)).unwrap();
    assert_eq!((queued.waiting, queued.dead.len(), queued.dead[0].attempts), (4, 1, 2));

    // With one channel less, what waited for it goes.
    let (fewer, wanted) = (own.clone(), wanted(CREATED, 1));
    catalog.write_blocking(move |tx| webhooks::update(tx, &fewer, &wanted)).unwrap();
    assert_eq!((count(&catalog, "webhook_deliveries"), count(&catalog, "webhook_events")), (2, 2));
    let asleep = Webhook { is_active: false, ..own.clone() };
    let nothing = Wanted::default();
    catalog.write_blocking(move |tx| webhooks::update(tx, &asleep, &Wanted { channels: 1, ..nothing })).unwrap();
    assert!(head(&catalog, &own, 0).is_none(), "what waits for one that is not active stays");
    catalog.write_blocking(move |tx| webhooks::delete(tx, "org_1", &own.webhook_id)).unwrap();
    assert_eq!((count(&catalog, "webhook_deliveries"), count(&catalog, "webhook_events")), (0, 0));
}

#[test]
fn a_queue_that_is_too_long_loses_its_oldest_events_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path());
    let own = webhook("org_1", "own");
    add(&catalog, &own, wanted(CREATED, 1));
    (1..=5).for_each(|n| queue(&catalog, "ns_1", n));
    assert_eq!(catalog.write_blocking(|tx| outbox::drop_surplus(tx, 2, 2, "now")).unwrap(), 2);
    assert_eq!(catalog.write_blocking(|tx| outbox::drop_surplus(tx, 2, 2, "now")).unwrap(), 1);
    assert_eq!(catalog.write_blocking(|tx| outbox::drop_surplus(tx, 2, 2, "now")).unwrap(), 0);
    assert_eq!(head(&catalog, &own, 0).unwrap().payload, json!({ "number": 4 }));
    let health = catalog.read_blocking(|c| webhooks::get(c, "org_1", "own")).unwrap().health;
    assert_eq!(health.dropped, 3);
    assert!(health.last_error.is_some_and(|error| error.contains("dropped")));
}

#[test]
fn events_about_other_types_of_resources_are_not_queued() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path());
    let own = webhook("org_1", "own");
    let only = Wanted { resource_types: vec!["task".into()], ..wanted("resource.executed", 1) };
    add(&catalog, &own, only);
    for resource_type in ["retriever", "task"] {
        let of = Of::Organization { organization_id: "org_1", namespace_id: None };
        let event = Event { event_type: "resource.executed", resource_type, of };
        catalog.write_blocking(move |tx| webhooks::queue(tx, &event, || json!({ "of": resource_type }))).unwrap();
    }
    assert_eq!(count(&catalog, "webhook_events"), 1);
    assert_eq!(head(&catalog, &own, 0).unwrap().payload, json!({ "of": "task" }));
}
