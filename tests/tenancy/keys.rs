//! Keys over the whole router: missing, wrong and expired ones answer 401, insufficient ones 403.

use crate::support::{Api, Operation, SOON, Server, World, wait_for};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const OPERATIONS: &str = include_str!("../contract/operations.tsv");

/// Endings of POST paths that read: a key that may only read may call them.
const READS: [&str; 26] = [
    "inference",
    "list",
    "execute",
    "explain",
    "search",
    "aggregate",
    "batch-get",
    "count",
    "distinct",
    "estimate-cost",
    "validate",
    "infer",
    "validate-mapping",
    "typeahead",
    "resolve",
    "intersect",
    "compare",
    "preview",
    "stats",
    "batch-count",
    "test",
    "diagnose",
    "group",
    "tree",
    "facets",
    "score",
];

/// Path with parameter names taken out, to how the contract says it is protected: `public`, `key` or `key+namespace`.
fn protection() -> BTreeMap<(String, String), String> {
    let lines = OPERATIONS.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            let cells: Vec<&str> = line.split('\t').collect();
            ((cells[0].to_owned(), shape(cells[1])), cells[3].to_owned())
        })
        .collect()
}

fn shape(path: &str) -> String {
    let segments = path.split('/').map(|segment| if segment.starts_with('{') { "{}" } else { segment });
    segments.collect::<Vec<_>>().join("/")
}

fn make_key(admin: &Api, body: Value) -> String {
    let email = admin.get("/v1/me").text("/user_email").to_owned();
    let made = admin.post(&format!("/v1/organizations/users/{email}/api-keys"), body);
    let found = ["/api_key", "/key"].iter().find_map(|field| made.body.pointer(field)?.as_str().map(str::to_owned));
    found.unwrap_or_else(|| panic!("{} answered {}: {}", made.request, made.status, made.body))
}

/// Operations that need a key, with paths that exist in the world.
fn protected(server: &Server, world: &World) -> Vec<(Operation, String, String)> {
    let protection = protection();
    let known = |name: &str| world.ids.get(name).cloned().unwrap_or_else(|| "unknown".to_owned());
    let operations = Operation::all(&server.api()).into_iter().filter_map(|operation| {
        let how = protection.get(&(operation.method.clone(), shape(&operation.path)))?;
        (how != "public").then(|| (operation.clone(), operation.path_with(known), how.clone()))
    });
    let operations: Vec<_> = operations.collect();
    assert!(operations.len() > 50, "only {} protected operations", operations.len());
    operations
}

#[test]
fn without_a_valid_key_every_protected_operation_answers_401() {
    let server = Server::start();
    let admin = server.api();
    let world = World::create(&admin, "locked");
    let soon = std::time::SystemTime::now() + std::time::Duration::from_secs(2);
    let expiring =
        make_key(&admin, json!({ "name": "expiring", "permissions": ["admin"], "expires_at": rfc3339(soon) }));
    let revoked = make_key(&admin, json!({ "name": "revoked", "permissions": ["admin"] }));
    let email = admin.get("/v1/me").text("/user_email").to_owned();
    admin.delete(&format!("/v1/organizations/users/{email}/api-keys/revoked")).ok();
    wait_for("the key to expire", SOON, || (admin.with_key(&expiring).get("/v1/me").status == 401).then_some(()));
    let callers = [
        ("no key", admin.without_key()),
        ("a wrong key", admin.with_key("sk_live_ffffffffffffffffffffffffffffffffffffffffffffffff")),
        ("no key at all", admin.with_key("")),
        ("an expired key", admin.with_key(&expiring)),
        ("a revoked key", admin.with_key(&revoked)),
    ];
    let mut wrong = Vec::new();
    for (operation, path, _) in protected(&server, &world) {
        for (what, caller) in &callers {
            let caller = caller.within(world.id("namespace_id"));
            let answer = caller.send(&operation.method, &path, operation.sample_body().as_ref());
            if answer.status != 401 {
                wrong.push(format!("{} with {what}: {} {}", answer.request, answer.status, answer.body));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_key_that_may_only_read_answers_403_on_every_write() {
    let server = Server::start();
    let admin = server.api();
    let world = World::create(&admin, "locked");
    let reader = admin.with_key(&make_key(&admin, json!({ "name": "reader", "permissions": ["read"] })));
    let reader = reader.within(world.id("namespace_id"));
    let mut wrong = Vec::new();
    let mut writes = 0;
    for (operation, path, _) in protected(&server, &world) {
        // A batch of reads is a read.
        let single = path.strip_suffix("/batch").filter(|rest| rest.ends_with("/list") || rest.ends_with("/execute"));
        let last = single.unwrap_or(&path).rsplit('/').next().unwrap_or_default();
        let reads = operation.method == "GET"
            || (operation.method == "POST" && (READS.contains(&last) || path.contains("/stats/")));
        if reads {
            continue;
        }
        writes += 1;
        let answer = reader.send(&operation.method, &path, operation.sample_body().as_ref());
        if answer.status != 403 {
            wrong.push(format!("{}: {} {}", answer.request, answer.status, answer.body));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(writes > 20, "only {writes} writes");
}

#[test]
fn a_key_that_may_not_read_answers_403_on_every_read_of_a_namespace() {
    let server = Server::start();
    let admin = server.api();
    let world = World::create(&admin, "locked");
    let writer = admin.with_key(&make_key(&admin, json!({ "name": "writer", "permissions": ["write"] })));
    let writer = writer.within(world.id("namespace_id"));
    let mut wrong = Vec::new();
    for (operation, path, how) in protected(&server, &world) {
        if operation.method != "GET" || how != "key+namespace" {
            continue;
        }
        let answer = writer.get(&path);
        if answer.status != 403 {
            wrong.push(format!("{}: {} {}", answer.request, answer.status, answer.body));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What a key that is for one retriever may call, of that one.
const OF_ITS_RETRIEVER: [(&str, &str); 6] = [
    ("GET", "/v1/me"),
    ("GET", "/v1/retrievers/{retriever_id}"),
    ("POST", "/v1/retrievers/{retriever_id}/execute"),
    ("POST", "/v1/retrievers/{retriever_id}/execute/batch"),
    ("POST", "/v1/retrievers/{retriever_id}/execute/explain"),
    ("POST", "/v1/retrievers/{retriever_id}/explain"),
];

#[test]
fn a_key_for_a_retriever_answers_403_on_everything_else() {
    let server = Server::start();
    let admin = server.api();
    let world = World::create(&admin, "locked");
    let stranger = admin.without_key().within(world.id("namespace_id"));
    let holder = admin.with_key(&world.retriever_key);
    let other = crate::support::retriever_body(&world.api, "other", world.id("collection_id"));
    let other = world.api.post("/v1/retrievers", other).text("/retriever_id").to_owned();
    let known = |name: &str| world.ids.get(name).cloned().unwrap_or_else(|| "unknown".to_owned());
    let (mut wrong, mut refused) = (Vec::new(), 0);
    for operation in Operation::all(&admin) {
        let (path, body) = (operation.path_with(known), operation.sample_body());
        if stranger.send(&operation.method, &path, body.as_ref()).status != 401 {
            continue;
        }
        let own = OF_ITS_RETRIEVER.contains(&(operation.method.as_str(), operation.path.as_str()));
        let answer = holder.send(&operation.method, &path, body.as_ref());
        if own == matches!(answer.status, 401 | 403) {
            wrong.push(format!("{}: {} {}", answer.request, answer.status, answer.body));
        }
        refused += usize::from(!own);
        // The same of another retriever in the same namespace.
        if own && operation.path_parameters.len() == 1 {
            let answer = holder.send(&operation.method, &operation.path_with(|_| other.clone()), body.as_ref());
            if answer.status != 403 {
                wrong.push(format!("{}: {} {}", answer.request, answer.status, answer.body));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(refused > 100, "only {refused} operations were refused");
}

#[test]
fn only_admins_make_keys() {
    let server = Server::start();
    let admin = server.api();
    let email = admin.get("/v1/me").text("/user_email").to_owned();
    let body = json!({ "name": "worker", "permissions": ["read", "write", "delete"] });
    let worker = admin.with_key(&make_key(&admin, body));
    let escalation = json!({ "name": "more", "permissions": ["admin"] });
    assert_eq!(worker.post(&format!("/v1/organizations/users/{email}/api-keys"), escalation).status, 403);
}

#[test]
fn only_admins_see_the_names_of_secrets() {
    let server = Server::start();
    let admin = server.api();
    let body = json!({ "name": "worker", "permissions": ["read", "write", "delete"] });
    let worker = admin.with_key(&make_key(&admin, body));
    assert_eq!(worker.get("/v1/organizations/secrets").status, 403);
    let value = json!({ "secret_name": "token", "secret_value": "hunter2" });
    assert_eq!(worker.post("/v1/organizations/secrets", value.clone()).status, 403);
    admin.post("/v1/organizations/secrets", value).ok();
    assert_eq!(admin.get("/v1/organizations/secrets").body["secrets"], json!(["token"]));
    let catalog = std::fs::read(server.data_dir().join("catalog.db-wal")).expect("the catalog has a log");
    assert!(!catalog.windows(7).any(|part| part == b"hunter2"), "the value is sealed on disk");
}

/// Seconds of the clock as RFC 3339 in UTC (Howard Hinnant's civil calendar from days).
fn rfc3339(time: std::time::SystemTime) -> String {
    let seconds = time.duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    let (days, rest) = ((seconds / 86_400) as i64 + 719_468, seconds % 86_400);
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}
