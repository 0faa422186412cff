//! Catalogs of every schema that there ever was.

use super::{assert_healthy, assert_world, fixtures};
use crate::support::{Server, object, submit, wait_for_task};
use strata_store::catalog::SCHEMA;

#[test]
fn a_catalog_of_every_schema_is_brought_up_to_date_shown_and_searched() {
    for schema in 1..=SCHEMA {
        let whose = format!("schema {schema}");
        let mut server = Server::start_on(|data| fixtures::data_of_schema(data, schema));
        let api = server.api();
        assert_world(&api, &whose);
        // It goes on from there.
        let bucket = api.list("/v1/buckets/list")[0]["bucket_id"].as_str().expect("an id").to_owned();
        let collection = api.list("/v1/collections/list")[0]["collection_id"].as_str().expect("an id").to_owned();
        let snow = object("Snow", 2004, "Snow covers the mountains.");
        let made = api.post(&format!("/v1/buckets/{bucket}/objects"), snow);
        let (_, task) = submit(&api, &bucket, &[made.text("/object_id").to_owned()], &collection);
        assert_eq!(wait_for_task(&api, &task), "COMPLETED", "{whose}");
        assert_eq!(api.list(&format!("/v1/collections/{collection}/documents/list")).len(), 4, "{whose}");
        server.stop();

        let data = server.data_dir();
        assert_healthy(&data, &whose);
        assert_eq!(fixtures::number(&data, "PRAGMA user_version"), SCHEMA, "{whose}");
        // What migrations count and note of what was there before.
        assert_eq!(fixtures::number(&data, "SELECT sum(documents) FROM document_counts"), 4, "{whose}");
        assert_eq!(fixtures::number(&data, "SELECT count(*) FROM document_artifacts"), 1, "{whose}");
        let of_objects = "SELECT sum(b.size_bytes) FROM object_blobs o JOIN blobs b ON b.hash = o.hash";
        let counted = fixtures::number(&data, "SELECT sum(bytes) FROM stored_bytes");
        assert_eq!(counted, fixtures::number(&data, of_objects), "{whose}");
    }
}
