//! The server beside a model of it that is a few maps: the same operations go to both, drawn from a seed, with ends and
//! deaths of the server in between. Whatever they answer differently fails with the seed.
//!
//! 10,000 operations; `STRATA_MODEL_OPERATIONS` is another number. Many are done in several worlds beside each other, each
//! with a server and a seed of its own; `STRATA_TEST_SEED` repeats one of them, of as many operations as it had.

mod twin;

use crate::support::{Api, Random, SOON, Server, ended, wait_for};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use twin::{KINDS, Thing, Twin, similarity};

/// How many operations lie between two ends of the server, on average.
const LIFETIME: u64 = 700;
/// Most operations in one world.
const WORLD: u32 = 25_000;
/// Objects, and documents, from which on one goes where another would come: what is compared stays of one size.
const MOST: usize = 800;
/// Hits of a search that are compared.
const TOP: usize = 5;

struct Run {
    server: Server,
    api: Api,
    random: Random,
    twin: Twin,
    bucket: String,
    /// Whatever is in the bucket.
    all: String,
    /// Of that what is of the first kind, derived from `all`.
    some: String,
    /// Documents that are made directly, with vectors.
    brought: String,
    /// How often each operation was done.
    done: BTreeMap<&'static str, u32>,
}

#[test]
fn the_server_and_a_model_of_it_agree_on_everything() {
    let wanted: u32 = std::env::var("STRATA_MODEL_OPERATIONS").map_or(10_000, |text| text.parse().expect("a number"));
    let worlds = if std::env::var("STRATA_TEST_SEED").is_ok() { 1 } else { wanted.div_ceil(WORLD) };
    std::thread::scope(|scope| {
        for _ in 0..worlds {
            scope.spawn(|| {
                let mut run = Run::begin();
                for _ in 0..wanted.div_ceil(worlds) {
                    run.step();
                }
                run.compare_all();
                println!("{:?}", run.done);
            });
        }
    });
}

impl Run {
    fn begin() -> Self {
        let server = Server::start();
        let api = server.api();
        let kinds = json!({ "type": "string" });
        let schema = json!({ "properties": { "number": { "type": "integer" }, "kind": kinds, "words": kinds } });
        let bucket = api.post("/v1/buckets", json!({ "bucket_name": "things", "bucket_schema": schema }));
        let bucket = bucket.text("/bucket_id").to_owned();
        let passthrough =
            json!({ "feature_extractor_name": "passthrough_extractor", "include_all_source_fields": true });
        let all = api.post(
            "/v1/collections",
            json!({
                "collection_name": "all",
                "source": { "type": "bucket", "bucket_ids": [bucket] },
                "feature_extractor": passthrough,
            }),
        );
        let all = all.text("/collection_id").to_owned();
        // The kind of a thing never changes.
        let filter = json!({ "AND": [{ "field": "kind", "operator": "eq", "value": KINDS[0] }] });
        let some = api.post(
            "/v1/collections",
            json!({
                "collection_name": "some",
                "source": { "type": "collection", "collection_id": all, "source_filters": { "filters": filter } },
                "feature_extractor": passthrough,
            }),
        );
        let some = some.text("/collection_id").to_owned();
        let indexes = json!([{ "name": "place", "dimension": 4 }]);
        let brought = api.post("/v1/collections", json!({ "collection_name": "brought", "vector_indexes": indexes }));
        let brought = brought.text("/collection_id").to_owned();
        let (random, twin, done) = (Random::seeded(), Twin::default(), BTreeMap::new());
        Self { server, api, random, twin, bucket, all, some, brought, done }
    }

    fn step(&mut self) {
        if self.random.below(LIFETIME) == 0 {
            return self.live_again();
        }
        match self.random.below(100) {
            0..18 => self.create_object(),
            18..28 => self.change_object(),
            28..33 => self.remove_object(),
            33..37 => self.derive(),
            37..55 => self.create_document(),
            55..65 => self.change_document(),
            65..71 => self.remove_document(),
            71..77 => self.read_object(),
            77..83 => self.read_document(),
            83..89 => self.list_filtered(),
            89..98 => self.search(),
            _ => self.compare_derived(),
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.done.entry(what).or_default() += 1;
    }

    fn live_again(&mut self) {
        match self.random.below(2) {
            0 => {
                self.count("killed");
                self.server.kill();
            }
            _ => {
                self.count("stopped");
                self.server.stop();
            }
        }
        self.server.start_again();
        self.api = self.server.api();
        self.compare_all();
    }

    fn thing(&mut self) -> Thing {
        Thing {
            number: self.random.below(1000) as i64,
            kind: KINDS[self.random.below(KINDS.len() as u64) as usize],
            words: twin::words(&mut self.random),
        }
    }

    fn objects(&self) -> String {
        format!("/v1/buckets/{}/objects", self.bucket)
    }

    fn create_object(&mut self) {
        if self.twin.objects.len() >= MOST {
            return self.remove_object();
        }
        self.count("object created");
        let thing = self.thing();
        let made = self.api.post(&self.objects(), thing.to_json());
        self.twin.objects.insert(made.text("/object_id").to_owned(), thing);
    }

    fn change_object(&mut self) {
        let Some(id) = pick(&mut self.random, &self.twin.objects) else { return };
        self.count("object changed");
        let number = self.random.below(1000) as i64;
        self.api.send("PATCH", &format!("{}/{id}", self.objects()), Some(&json!({ "number": number }))).ok();
        self.twin.objects.get_mut(&id).expect("picked").number = number;
    }

    fn remove_object(&mut self) {
        let Some(id) = pick(&mut self.random, &self.twin.objects) else { return };
        self.count("object removed");
        let receipt = self.api.delete(&format!("{}/{id}?receipt=true", self.objects())).ok();
        let expected = self.twin.remove_object(&id);
        let told = |collection: &str| receipt["documents"][collection].as_u64().unwrap_or(0);
        assert_eq!((told(&self.all), told(&self.some)), expected, "the receipt of {id}: {receipt}");
        assert_eq!(self.api.get(&format!("{}/{id}", self.objects())).status, 404);
    }

    /// Objects once more, or for the first time.
    fn derive(&mut self) {
        let mut ids: Vec<String> = (0..8).filter_map(|_| pick(&mut self.random, &self.twin.objects)).collect();
        ids.sort();
        ids.dedup();
        if ids.is_empty() {
            return;
        }
        self.count("batch");
        let batches = format!("/v1/buckets/{}/batches", self.bucket);
        let body = json!({ "object_ids": ids, "collection_ids": [self.all] });
        let batch = self.api.post(&batches, body).text("/batch_id").to_owned();
        self.api.post(&format!("{batches}/{batch}/submit"), json!({})).ok();
        let status = wait_for("a batch to end", SOON, || {
            let status = self.api.get(&format!("{batches}/{batch}")).text("/status").to_owned();
            ended(&status).then_some(status)
        });
        assert_eq!(status, "COMPLETED", "batch {batch} of {ids:?}");
        self.twin.derive(&ids);
    }

    fn documents(&self) -> String {
        format!("/v1/collections/{}/documents", self.brought)
    }

    fn create_document(&mut self) {
        if self.twin.brought.len() >= MOST {
            return self.remove_document();
        }
        self.count("document created");
        let (thing, place) = (self.thing(), twin::place(&mut self.random));
        let mut body = thing.to_json();
        body["vectors"] = json!({ "place": place });
        let made = self.api.post(&self.documents(), body);
        self.twin.brought.insert(made.text("/document_id").to_owned(), (thing, place));
    }

    fn change_document(&mut self) {
        let Some(id) = pick(&mut self.random, &self.twin.brought) else { return };
        self.count("document changed");
        let number = self.random.below(1000) as i64;
        self.api.send("PATCH", &format!("{}/{id}", self.documents()), Some(&json!({ "number": number }))).ok();
        self.twin.brought.get_mut(&id).expect("picked").0.number = number;
    }

    fn remove_document(&mut self) {
        let Some(id) = pick(&mut self.random, &self.twin.brought) else { return };
        self.count("document removed");
        self.api.delete(&format!("{}/{id}", self.documents())).ok();
        self.twin.brought.remove(&id);
        assert_eq!(self.api.get(&format!("{}/{id}", self.documents())).status, 404);
    }

    fn read_object(&mut self) {
        let Some(id) = pick(&mut self.random, &self.twin.objects) else { return };
        self.count("object read");
        let read = self.api.get(&format!("{}/{id}", self.objects())).ok();
        assert_eq!(Thing::of(&read), self.twin.objects[&id], "{read}");
    }

    fn read_document(&mut self) {
        let Some(id) = pick(&mut self.random, &self.twin.brought) else { return };
        self.count("document read");
        let read = self.api.get(&format!("{}/{id}?return_vectors=true", self.documents())).ok();
        assert_eq!(Thing::of(&read), self.twin.brought[&id].0, "{read}");
    }

    /// A list by a filter, in order.
    fn list_filtered(&mut self) {
        self.count("list");
        let least = self.random.below(1000) as i64;
        let kind = KINDS[self.random.below(KINDS.len() as u64) as usize];
        let filter = json!({ "AND": [
            { "field": "number", "operator": "gte", "value": least }, { "field": "kind", "operator": "eq", "value": kind },
        ] });
        let body = json!({ "filters": filter, "sort": { "field": "number", "direction": "asc" } });
        let answer = self.api.post(&format!("{}/list?page_size=50", self.documents()), body).ok();
        let found: Vec<i64> = rows(&answer["results"]).iter().map(|row| Thing::of(row).number).collect();
        let mut expected: Vec<i64> = self
            .twin
            .brought
            .values()
            .map(|(thing, _)| thing)
            .filter(|thing| thing.number >= least && thing.kind == kind)
            .map(|thing| thing.number)
            .collect();
        expected.sort_unstable();
        expected.truncate(50);
        assert_eq!(found, expected, "{kind} from {least}");
    }

    /// The nearest of one kind, whichever documents share a place in the order.
    fn search(&mut self) {
        self.count("search");
        let wanted = twin::place(&mut self.random);
        let kind = KINDS[self.random.below(KINDS.len() as u64) as usize];
        let filter = json!({ "AND": [{ "field": "kind", "operator": "eq", "value": kind }] });
        let query = json!({ "input_mode": "vector", "value": wanted });
        let search = json!({ "feature_uri": "place", "query": query, "top_k": TOP, "filters": filter });
        let body = json!({
            "collection_identifiers": [self.brought],
            "inputs": {},
            "stages": [{ "stage_name": "search", "stage_type": "filter", "config": {
                "stage_id": "feature_search", "parameters": { "searches": [search], "final_top_k": TOP },
            } }],
        });
        let answer = self.api.post("/v1/retrievers/execute", body).ok();
        let found: Vec<f64> = rows(&answer["documents"])
            .iter()
            .map(|hit| {
                let id = hit["document_id"].as_str().expect("an id");
                let (thing, place) = self.twin.brought.get(id).unwrap_or_else(|| panic!("{id} is gone: {hit}"));
                assert_eq!((&Thing::of(hit), thing.kind), (thing, kind), "{hit}");
                similarity(place, &wanted)
            })
            .collect();
        let of_kind = self.twin.brought.values().filter(|(thing, _)| thing.kind == kind);
        let mut expected: Vec<f64> = of_kind.map(|(_, place)| similarity(place, &wanted)).collect();
        expected.sort_by(|a, b| b.total_cmp(a));
        expected.truncate(TOP);
        assert_eq!(found.len(), expected.len(), "{answer}");
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-4, "{found} where the nearest is at {expected}: {answer}");
        }
    }

    /// Both tiers of what is derived.
    fn compare_derived(&mut self) {
        self.count("derived compared");
        for (collection, expected) in [(&self.all, &self.twin.all), (&self.some, &self.twin.some)] {
            let listed = self.api.list(&format!("/v1/collections/{collection}/documents/list"));
            let found: BTreeMap<String, Thing> = listed
                .iter()
                .map(|row| (row["root_object_id"].as_str().expect("a root").to_owned(), Thing::of(row)))
                .collect();
            assert_eq!(found.len(), listed.len(), "an object has one document in {collection}");
            assert_eq!(&found, expected, "{collection}");
        }
    }

    fn compare_all(&mut self) {
        self.compare_derived();
        let listed = self.api.list(&format!("{}/list", self.objects()));
        let found: BTreeMap<String, Thing> =
            listed.iter().map(|row| (row["object_id"].as_str().expect("an id").to_owned(), Thing::of(row))).collect();
        assert_eq!(found, self.twin.objects);
        let listed = self.api.list(&format!("{}/list", self.documents()));
        let found: BTreeMap<String, Thing> =
            listed.iter().map(|row| (row["document_id"].as_str().expect("an id").to_owned(), Thing::of(row))).collect();
        let expected = self.twin.brought.iter().map(|(id, (thing, _))| (id.clone(), thing.clone())).collect();
        assert_eq!(found, expected);
    }
}

fn rows(list: &Value) -> &[Value] {
    list.as_array().map_or(&[], Vec::as_slice)
}

fn pick<T>(random: &mut Random, from: &BTreeMap<String, T>) -> Option<String> {
    if from.is_empty() {
        return None;
    }
    from.keys().nth(random.below(from.len() as u64) as usize).cloned()
}
