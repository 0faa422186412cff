//! Ten times what the server can do, as open-loop requests: they come whether or not those before them were answered, and
//! among them come clients that connect anew each time, that are slow, and that never end what they began. Every request
//! is answered or refused with when to come again, memory stays, and what was acknowledged is there.
//!
//! Five seconds; `STRATA_LOAD_SECONDS` and `STRATA_LOAD_FACTOR` set another time and another multiple. How much a machine
//! can do is measured first, and only printed.

use super::slow;
use crate::support::{Api, KEY, SOON, Server, wait_for};
use reqwest::{Client, Method, header::RETRY_AFTER};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{sync::Semaphore, task::JoinSet, time::timeout};

/// How much memory the process may ever have had: what its bounds allow for bodies and caches, and as much again.
const MOST_MEMORY: u64 = 2 << 30;
/// How long a client waits for an answer: longer than the server lets any request take.
const PATIENCE: Duration = Duration::from_secs(90);
/// Few enough clients to be served at once, and enough to share what a write to the disk costs.
const QUIET_CLIENTS: usize = 16;
/// Most requests under way, so that the bound of connections is not reached.
const MOST_AT_ONCE: u64 = 3_000;
/// Files of this process besides connections.
const OTHER_FILES: u64 = 200;
/// One of each kind of request.
const ROUND: u64 = 8;
/// What a server that has too much to do may say.
const REFUSALS: [u16; 3] = [429, 503, 507];

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("`{name}` is no number")))
}

#[test]
fn ten_times_what_it_can_do_is_answered_or_refused_and_nothing_acknowledged_is_lost() {
    let (seconds, factor) = (setting("STRATA_LOAD_SECONDS", 5), setting("STRATA_LOAD_FACTOR", 10));
    let mut server = Server::start();
    let load = Arc::new(Load::new(&server));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let quiet_seconds = (seconds / 5).clamp(2, 20);
    let per_second = runtime.block_on(load.rate(quiet_seconds));
    let address = server.url().strip_prefix("http://").expect("a server without TLS").to_owned();
    let (sent, held_back, recovery) = runtime.block_on(async {
        let mut troublesome = slow::clients(&address);
        let (sent, held_back) = load.storm(per_second * factor as f64, seconds).await;
        troublesome.abort_all();
        let ended = Instant::now();
        let calm = async { while !load.round().await {} };
        assert!(timeout(SOON, calm).await.is_ok(), "the server does not answer as before");
        (sent, held_back, ended.elapsed())
    });
    let peak = server.peak_resident_bytes();
    let lost = runtime.block_on(load.missing());
    let told = load.told();
    println!(
        "{per_second:.0} requests/s can be done; {sent} sent in {seconds} s at {factor} times that, {held_back} held back; \
         answers by status {:?}; {} acknowledged, {} lost; {} MiB at most; as before after {recovery:?}",
        told.statuses,
        told.made.len(),
        lost.len(),
        peak >> 20,
    );
    assert!(told.wrong.is_empty(), "{} answers are wrong, the first of them:\n{}", told.faults, told.wrong.join("\n"));
    assert!(lost.is_empty(), "{} of {} acknowledged are not there: {:?}", lost.len(), told.made.len(), lost.first());
    assert!(peak < MOST_MEMORY, "{} MiB", peak >> 20);
    server.stop();
    let doctor = Command::new(env!("CARGO_BIN_EXE_strata")).args(["doctor", "--data"]).arg(server.data_dir()).output();
    let doctor = doctor.expect("the binary runs");
    assert!(doctor.status.success(), "{}", String::from_utf8_lossy(&doctor.stdout));
}

/// Where requests go.
struct Place {
    bucket: String,
    copies: String,
    objects: Vec<String>,
}

/// What came of all requests.
#[derive(Default)]
struct Told {
    statuses: BTreeMap<u16, u64>,
    /// Paths of what was acknowledged.
    made: Vec<String>,
    /// How many answers should not be, and the first of them.
    faults: u64,
    wrong: Vec<String>,
}

struct Load {
    url: String,
    /// Keeps its connections.
    steady: Client,
    /// Connects for each request.
    fleeting: Client,
    place: Place,
    number: AtomicU64,
    told: Mutex<Told>,
}

impl Load {
    fn new(server: &Server) -> Self {
        let client = || Client::builder().timeout(PATIENCE).pool_idle_timeout(Duration::from_secs(5));
        Self {
            url: server.url().to_owned(),
            steady: client().build().expect("an HTTP client"),
            fleeting: client().pool_max_idle_per_host(0).build().expect("an HTTP client"),
            place: Place::prepare(&server.api()),
            number: AtomicU64::new(0),
            told: Mutex::default(),
        }
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().expect("no client panics while it holds this")
    }

    /// Requests that few clients get answered in a second, once everything has been asked before.
    async fn rate(self: &Arc<Self>, seconds: u64) -> f64 {
        for _ in 0..3 {
            assert!(self.round().await, "a server with one client answers: {:?}", self.told().wrong);
        }
        let ends = Instant::now() + Duration::from_secs(seconds);
        let mut clients = JoinSet::new();
        for _ in 0..QUIET_CLIENTS {
            let load = self.clone();
            clients.spawn(async move {
                let mut done = 0_u32;
                while Instant::now() < ends {
                    done += u32::from(load.one().await);
                }
                done
            });
        }
        let done: u32 = clients.join_all().await.into_iter().sum();
        assert!(done > 0, "a server with {QUIET_CLIENTS} clients answers: {:?}", self.told().wrong);
        f64::from(done) / seconds as f64
    }

    /// Sends so many a second, answered or not. Answers how many were sent, and how many were not since this process had
    /// enough under way.
    async fn storm(self: &Arc<Self>, per_second: f64, seconds: u64) -> (u64, u64) {
        let places = Arc::new(Semaphore::new(most_at_once()));
        let started = Instant::now();
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        let (mut sent, mut held_back) = (0, 0);
        let mut under_way = JoinSet::new();
        while started.elapsed() < Duration::from_secs(seconds) {
            tick.tick().await;
            let due = (started.elapsed().as_secs_f64() * per_second) as u64;
            while sent + held_back < due {
                let Ok(place) = places.clone().try_acquire_owned() else {
                    held_back += 1;
                    continue;
                };
                let load = self.clone();
                under_way.spawn(async move {
                    load.one().await;
                    drop(place);
                });
                sent += 1;
            }
            while under_way.try_join_next().is_some() {}
        }
        under_way.join_all().await;
        (sent, held_back)
    }

    /// One of each kind, one after the other; whether all were done.
    async fn round(&self) -> bool {
        for _ in 0..ROUND {
            if !self.one().await {
                return false;
            }
        }
        true
    }

    /// The next request of the mix; whether it was done.
    async fn one(&self) -> bool {
        let n = self.number.fetch_add(1, Ordering::Relaxed);
        match n % ROUND {
            0..=2 => self.create(n).await,
            3 => self.upload(n).await,
            4 | 5 => self.search(n).await,
            6 => self.ask("work", "/v1/collections/shelf/documents/list?page_size=20", n, &json!({})).await.is_some(),
            _ => self.batch(n).await,
        }
    }

    async fn create(&self, n: u64) -> bool {
        let body = json!({ "title": format!("number {n}"), "number": n });
        let made = self.ask("work", "/v1/collections/shelf/documents", n, &body).await;
        self.keep(made, "/document_id", |id| format!("/v1/collections/shelf/documents/{id}"))
    }

    async fn upload(&self, n: u64) -> bool {
        let path = format!("/v1/buckets/{}/objects", self.place.bucket);
        let made = self.ask("work", &path, n, &object(n)).await;
        self.keep(made, "/object_id", |id| format!("{path}/{id}"))
    }

    async fn search(&self, n: u64) -> bool {
        let direction = [(n as f64).cos(), (n as f64).sin()];
        self.ask("plane", "/v1/retrievers/execute", n, &search(direction)).await.is_some()
    }

    async fn batch(&self, n: u64) -> bool {
        let path = format!("/v1/buckets/{}/batches", self.place.bucket);
        let body = json!({ "object_ids": self.place.objects, "collection_ids": [self.place.copies] });
        let Some(made) = self.ask("work", &path, n, &body).await else { return false };
        let submit = made["batch_id"].as_str().map(|id| format!("{path}/{id}/submit"));
        let kept = self.keep(Some(made), "/batch_id", |id| format!("{path}/{id}"));
        match submit {
            Some(submit) => self.ask("work", &submit, n, &json!({})).await.is_some() && kept,
            None => kept,
        }
    }

    /// Remembers the path of what was made, by its id.
    fn keep(&self, made: Option<Value>, id: &str, path: impl Fn(&str) -> String) -> bool {
        let Some(made) = made else { return false };
        match made.pointer(id).and_then(Value::as_str) {
            Some(id) => self.told().made.push(path(id)),
            None => self.fault(format!("no `{id}` in {made}")),
        }
        true
    }

    fn fault(&self, what: String) {
        let mut told = self.told();
        told.faults += 1;
        if told.wrong.len() < 10 {
            told.wrong.push(what);
        }
    }

    /// The body of a success. Whatever is neither that nor a refusal as it should be is a fault.
    async fn ask(&self, namespace: &str, path: &str, n: u64, body: &Value) -> Option<Value> {
        let client = if n.is_multiple_of(5) { &self.fleeting } else { &self.steady };
        let request = client.request(Method::POST, format!("{}{path}", self.url)).bearer_auth(KEY);
        let response = match request.header("X-Namespace", namespace).json(body).send().await {
            Ok(response) => response,
            Err(error) => {
                self.fault(format!("POST {path}: {error:?}"));
                return None;
            }
        };
        let status = response.status().as_u16();
        let says_when = response.headers().contains_key(RETRY_AFTER);
        let text = response.text().await.unwrap_or_else(|error| format!("broken off: {error:?}"));
        *self.told().statuses.entry(status).or_default() += 1;
        if (200..300).contains(&status) {
            match serde_json::from_str(&text) {
                Ok(body) => return Some(body),
                Err(_) => self.fault(format!("POST {path} answered {status}: {text}")),
            }
        } else if !REFUSALS.contains(&status) || (status != 507 && !says_when) {
            self.fault(format!("POST {path} answered {status}, `Retry-After` {says_when}: {text}"));
        }
        None
    }

    /// What was acknowledged and is not there.
    async fn missing(self: &Arc<Self>) -> Vec<String> {
        let (paths, next) = (Arc::new(self.told().made.clone()), Arc::new(AtomicUsize::new(0)));
        let mut clients = JoinSet::new();
        for _ in 0..QUIET_CLIENTS {
            let (load, paths, next) = (self.clone(), paths.clone(), next.clone());
            clients.spawn(async move {
                let mut missing = Vec::new();
                while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let request = load.steady.get(format!("{}{path}", load.url)).bearer_auth(KEY);
                    let answer = request.header("X-Namespace", "work").send().await;
                    if !answer.is_ok_and(|answer| answer.status() == 200) {
                        missing.push(path.clone());
                    }
                }
                missing
            });
        }
        clients.join_all().await.into_iter().flatten().collect()
    }
}

impl Place {
    fn prepare(admin: &Api) -> Self {
        admin.post("/v1/namespaces/standalone", json!({ "namespace_id": "plane" })).ok();
        let documents: Vec<Value> = (0..500)
            .map(|n| {
                let angle = f64::from(n);
                json!({ "document_id": n.to_string(), "vectors": { "plane": [angle.cos(), angle.sin()] } })
            })
            .collect();
        admin.post("/v1/namespaces/plane/documents/upsert", json!({ "documents": documents })).ok();

        let extractor = json!({ "feature_extractor_name": "passthrough_extractor", "version": "v1" });
        admin.post("/v1/namespaces", json!({ "namespace_name": "work", "feature_extractors": [extractor] })).ok();
        let api = admin.within("work");
        let schema = json!({ "properties": { "title": { "type": "string" }, "content": { "type": "text" } } });
        let bucket = api.post("/v1/buckets", json!({ "bucket_name": "texts", "bucket_schema": schema }));
        let bucket = bucket.text("/bucket_id").to_owned();
        let copies = json!({
            "collection_name": "copies",
            "source": { "type": "bucket", "bucket_ids": [bucket] },
            "feature_extractor": extractor,
        });
        let copies = api.post("/v1/collections", copies).text("/collection_id").to_owned();
        api.post("/v1/collections", json!({ "collection_name": "shelf" })).ok();
        let path = format!("/v1/buckets/{bucket}/objects");
        let objects = (0..10).map(|n| api.post(&path, object(u64::MAX - n)).text("/object_id").to_owned()).collect();
        wait_for("searches to find something", SOON, || {
            let found = admin.within("plane").post("/v1/retrievers/execute", search([1.0, 0.0]));
            found.body["results"].as_array().is_some_and(|hits| !hits.is_empty()).then_some(())
        });
        Self { bucket, copies, objects }
    }
}

/// A small object that no other is like.
fn object(n: u64) -> Value {
    let text = format!("text {n} ").repeat(100);
    json!({ "title": n.to_string(), "blobs": [{ "property": "content", "type": "text", "data": text }] })
}

fn search(direction: [f64; 2]) -> Value {
    let search = json!({ "feature_uri": "plane", "query": { "input_mode": "vector", "value": direction } });
    json!({ "inputs": {}, "stages": [{
        "stage_name": "search",
        "config": { "stage_id": "feature_search", "parameters": { "searches": [search] } },
    }] })
}

/// How many connections this process may have open, as far as its limit of files can be raised.
fn most_at_once() -> usize {
    let limit = getrlimit(Resource::Nofile);
    // Where it may not be raised it is as it was.
    _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    // The server has the same limit, and takes as many connections as leave it half of its files.
    usize::try_from((files / 2).saturating_sub(OTHER_FILES).min(MOST_AT_ONCE)).expect("a small number")
}
