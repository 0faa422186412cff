//! Access lists of documents: what a list keeps from a key is missing in everything that the key reads, and what it may
//! read and not write stays as it is.

use crate::support::{Answer, Api, SOON, Server, wait_for, wait_for_task};
use serde_json::{Value, json};

/// Ids, titles and access lists of the documents; no title stands in anything but its document.
const DOCUMENTS: [(&str, &str); 5] = [
    ("doc_common", "common-owl"),
    ("doc_said", "said-owl"),
    ("doc_ann", "ann-owl"),
    ("doc_bob", "bob-owl"),
    ("doc_nobody", "nobody-owl"),
];

fn list_of(id: &str) -> Value {
    match id {
        "doc_common" => Value::Null,
        "doc_said" => json!({ "public": true, "read": ["bob"] }),
        "doc_ann" => json!({ "write": ["ann"] }),
        "doc_bob" => json!({ "read": ["bob"] }),
        _ => json!({ "public": false }),
    }
}

/// A key of the caller's user.
fn key(admin: &Api, name: &str, permissions: &[&str], principal: Option<&str>) -> Api {
    let email = admin.get("/v1/me").text("/user_email").to_owned();
    let mut body = json!({ "name": name, "permissions": permissions });
    if let Some(principal) = principal {
        body["principal_id"] = principal.into();
    }
    let made = admin.post(&format!("/v1/organizations/users/{email}/api-keys"), body);
    assert_eq!(made.body.get("principal_id").and_then(Value::as_str), principal, "{}", made.body);
    admin.with_key(made.text("/key"))
}

/// A collection of documents with lists, and who reads it.
struct Barn {
    server: Server,
    admin: Api,
    ann: Api,
    bob: Api,
    plain: Api,
    documents: String,
}

impl Barn {
    fn build() -> Self {
        let server = Server::start();
        let admin = server.api();
        let made = admin.post("/v1/collections", json!({ "collection_name": "barn" }));
        let documents = format!("/v1/collections/{}/documents", made.text("/collection_id"));
        let all: Vec<&str> = DOCUMENTS.iter().map(|(id, _)| *id).collect();
        for (id, title) in DOCUMENTS {
            let mut body = json!({
                "document_id": id, "title": title, "kind": "owl", "text": "a bird in the barn", "friends": all,
            });
            if !list_of(id).is_null() {
                body["internal_metadata"] = json!({ "_acl": list_of(id) });
            }
            admin.post(&documents, body).ok();
        }
        let may = ["read", "write", "delete"];
        Self {
            ann: key(&admin, "ann", &may, Some("ann")),
            bob: key(&admin, "bob", &may, Some("bob")),
            plain: key(&admin, "plain", &may, None),
            server,
            admin,
            documents,
        }
    }

    fn readers(&self) -> [(&'static str, &Api, Vec<&'static str>); 4] {
        [
            ("ann", &self.ann, vec!["doc_common", "doc_said", "doc_ann"]),
            ("bob", &self.bob, vec!["doc_common", "doc_said", "doc_bob"]),
            ("a key without principal", &self.plain, vec!["doc_common", "doc_said"]),
            ("an administrator", &self.admin, DOCUMENTS.iter().map(|(id, _)| *id).collect()),
        ]
    }

    fn one(&self, id: &str) -> String {
        format!("{}/{id}", self.documents)
    }

    /// Titles that an answer shows.
    fn shown(answer: &Value) -> Vec<&'static str> {
        let text = answer.to_string();
        DOCUMENTS.iter().filter(|(_, title)| text.contains(title)).map(|(id, _)| *id).collect()
    }
}

fn stage(id: &str, parameters: Value) -> Value {
    json!({ "stage_name": id, "config": { "stage_id": id, "parameters": parameters } })
}

fn all_owls() -> Value {
    stage("attribute_filter", json!({ "field": "kind", "operator": "eq", "value": "owl" }))
}

/// A search for words, among what a filter lets through where there is one.
fn words(filter: Option<Value>) -> Value {
    let mut search = json!({ "query": "bird", "lexical": true });
    if let Some(filter) = filter {
        search["filters"] = filter;
    }
    stage("feature_search", json!({ "searches": [search] }))
}

fn plan(stages: &[Value]) -> Value {
    json!({ "collection_identifiers": ["barn"], "stages": stages })
}

/// Everything that answers documents or values of them, by what it is: path and body, null for `GET`.
fn reads(barn: &Barn, retriever: &str) -> Vec<(&'static str, String, Value)> {
    let ids: Vec<&str> = DOCUMENTS.iter().map(|(id, _)| *id).collect();
    let here = |rest: &str| format!("{}{rest}", barn.documents);
    let adhoc = || "/v1/retrievers/execute".to_owned();
    let indexed = json!({ "field": "document_id", "operator": "in", "value": ids });
    let unindexed = json!({ "field": "kind", "operator": "contains", "value": "ow" });
    let count = json!([{ "function": "count", "alias": "n" }]);
    let join = json!({
        "target_collection_id": "barn", "source_field": "kind", "target_field": "kind", "output_field": "others",
        "multiple": true,
    });
    let execute = format!("/v1/retrievers/{retriever}/execute");
    vec![
        ("list", barn.documents.clone(), Value::Null),
        ("list by body", here("/list"), json!({})),
        ("list by filter", here("/list"), json!({ "filters": { "kind": "owl" } })),
        ("list by order", here("/list"), json!({ "sort": { "field": "title", "direction": "desc" } })),
        ("list by text", here("/list"), json!({ "search": "owl" })),
        ("list by group", here("/list"), json!({ "group_by": "title" })),
        ("list of the namespace", "/v1/documents/list".into(), json!({})),
        ("lists", "/v1/documents/list/batch".into(), json!({ "queries": [{ "key": "all", "request": {} }] })),
        ("by id", "/v1/documents/batch-get".into(), json!({ "document_ids": ids })),
        ("references", format!("{}?expand=friends", barn.one("doc_common")), Value::Null),
        ("aggregate", here("/aggregate"), json!({ "group_by": [{ "field": "title" }], "aggregations": count })),
        ("distinct", here("/distinct"), json!({ "field": "title" })),
        ("conditions", adhoc(), plan(&[all_owls()])),
        ("words", adhoc(), plan(&[words(None)])),
        ("words by an indexed filter", adhoc(), plan(&[words(Some(indexed))])),
        ("words by another filter", adhoc(), plan(&[words(Some(unindexed))])),
        ("join", adhoc(), plan(&[all_owls(), stage("document_enrich", join)])),
        ("stored", execute.clone(), json!({ "inputs": {} })),
        ("streamed", execute.clone(), json!({ "inputs": {}, "stream": true })),
        ("several", format!("{execute}/batch"), json!({ "queries": [{ "inputs": {} }, { "inputs": {} }] })),
        ("several, streamed", format!("{execute}/batch"), json!({ "queries": [{ "inputs": {} }], "stream": true })),
    ]
}

fn send(api: &Api, path: &str, body: &Value) -> Answer {
    if body.is_null() { api.get(path) } else { api.post(path, body.clone()) }
}

#[test]
fn every_read_shows_each_reader_what_it_may_see_and_nothing_else() {
    let barn = Barn::build();
    let mut stored = plan(&[words(None)]);
    stored["retriever_name"] = "finder".into();
    let retriever = barn.admin.post("/v1/retrievers", stored).text("/retriever_id").to_owned();
    for (what, path, body) in reads(&barn, &retriever) {
        for (who, api, visible) in barn.readers() {
            let found = send(api, &path, &body).ok();
            assert_eq!(Barn::shown(&found), visible, "{what} by {who}: {found}");
        }
    }
    for (who, api, visible) in barn.readers() {
        let count = api.get(&format!("{}/count", barn.documents)).ok();
        assert_eq!(count["count"], visible.len(), "{who}: {count}");
        let first = json!({ "filters": { "kind": "owl" }, "include_total": true, "limit": 1 });
        let first = api.post("/v1/documents/list", first).ok();
        assert_eq!(first["total_documents"], visible.len(), "{who}: {first}");
        let typed = api.get("/v1/retrievers/typeahead?q=bob&fields=title").ok();
        assert_eq!(Barn::shown(&typed).contains(&"doc_bob"), visible.contains(&"doc_bob"), "{who}: {typed}");
        for (id, _) in DOCUMENTS {
            let wanted = if visible.contains(&id) { 200 } else { 404 };
            for below in ["", "/ancestors", "/descendants", "/diagnostics", "/lineage", "?return_vectors=true"] {
                let answer = api.get(&format!("{}{below}", barn.one(id)));
                assert_eq!(answer.status, wanted, "{} by {who}: {}", answer.request, answer.body);
            }
            assert_eq!(api.get(&format!("/v1/documents/{id}")).status, wanted, "{id} by {who}");
            assert_eq!(api.get(&format!("/v1/namespaces/default/documents/{id}")).status, wanted, "{id} by {who}");
        }
    }
    let published = barn.admin.post(&format!("/v1/retrievers/{retriever}/publish"), json!({ "display_name": "owls" }));
    let path = format!("/v1/public/retrievers/{}/execute", published.text("/public_name"));
    let found = barn.admin.without_key().post(&path, json!({ "inputs": {} })).ok();
    assert_eq!(found["results"].as_array().map(Vec::len), Some(2), "{found}");
    assert!(!found.to_string().contains("ann-owl") && !found.to_string().contains("bob-owl"), "{found}");
}

#[test]
fn executions_are_shown_to_who_made_them_and_to_administrators() {
    let barn = Barn::build();
    let made = barn.ann.post("/v1/retrievers/execute", plan(&[words(None)]));
    let path = format!("/v1/retrievers/executions/{}", made.text("/execution_id"));
    let status = |api: &Api| api.get(&path).status;
    assert_eq!([&barn.ann, &barn.admin, &barn.bob, &barn.plain].map(status), [200, 200, 404, 404]);
}

#[test]
fn what_may_be_read_and_not_written_is_refused_and_what_may_not_be_read_is_missing() {
    let barn = Barn::build();
    let change = json!({ "title": "changed" });
    let acl = json!({ "public": true });
    for (id, wanted) in [("doc_ann", 404), ("doc_bob", 403), ("doc_said", 403), ("doc_nobody", 404)] {
        let path = barn.one(id);
        for (method, path, body) in [
            ("PATCH", path.clone(), Some(&change)),
            ("PUT", path.clone(), Some(&change)),
            ("PATCH", format!("/v1/documents/{id}"), Some(&change)),
            ("PATCH", format!("{path}/acl"), Some(&acl)),
            ("DELETE", path.clone(), None),
        ] {
            let answer = barn.bob.send(method, &path, body);
            assert_eq!(answer.status, wanted, "{}: {}", answer.request, answer.body);
        }
    }
    assert_eq!(barn.plain.send("PATCH", &barn.one("doc_said"), Some(&change)).status, 403);
    // What nobody may see is taken all the same.
    let again = json!({ "document_id": "doc_nobody", "title": "mine" });
    assert_eq!(barn.bob.post(&barn.documents, again).status, 409);

    // Of many, those are changed that may be.
    let batch = |ids: &[&str]| {
        let updates: Vec<Value> =
            ids.iter().map(|id| json!({ "document_id": id, "update_data": { "seen": 1 } })).collect();
        json!({ "updates": updates })
    };
    let done =
        barn.ann.post(&format!("{}/batch", barn.documents), batch(&["doc_ann", "doc_said", "doc_bob", "doc_common"]));
    let done = done.ok();
    assert_eq!((&done["updated_count"], &done["failed_count"]), (&json!(2), &json!(2)), "{done}");
    let bulk = json!({ "filters": { "kind": "owl" }, "update_data": { "seen": 2 } });
    let done = barn.bob.send("PATCH", &format!("{}/bulk", barn.documents), Some(&bulk)).ok();
    assert_eq!(done["updated_count"], 1, "{done}");
    let seen = |id: &str| barn.admin.get(&barn.one(id)).ok()["seen"].clone();
    assert_eq!(["doc_common", "doc_ann", "doc_bob"].map(seen), [json!(2), json!(1), Value::Null]);
    let removal = json!({ "document_ids": ["doc_ann", "doc_bob", "doc_nobody"] });
    let done = barn.ann.send("DELETE", &format!("{}/batch", barn.documents), Some(&removal)).ok();
    assert_eq!((&done["deleted_count"], &done["failed_count"]), (&json!(1), &json!(2)), "{done}");
    let removal = json!({ "filters": { "kind": "owl" } });
    barn.ann.send("DELETE", &format!("{}/batch", barn.documents), Some(&removal)).ok();
    let left = barn.admin.get(&barn.documents).ok();
    assert_eq!(Barn::shown(&left), ["doc_said", "doc_bob", "doc_nobody"], "{left}");
}

/// A document that is brought, at an angle from where the searches look.
fn brought(id: &str, angle: f64, acl: Option<Value>) -> Value {
    let mut document = json!({
        "document_id": id, "vectors": { "plane": [angle.cos(), angle.sin()] }, "payload": { "name": id, "even": true },
    });
    if let Some(acl) = acl {
        document["acl"] = acl;
    }
    document
}

/// The names that a vector search finds, best first.
fn nearest(api: &Api, filters: Option<Value>) -> Vec<String> {
    let search =
        json!({ "feature_uri": "plane", "query": { "input_mode": "vector", "value": [1.0, 0.0] }, "top_k": 3 });
    let mut body = json!({ "stages": [stage("feature_search", json!({ "searches": [search], "final_top_k": 3 }))] });
    if let Some(filters) = filters {
        body["filters"] = filters;
    }
    let answer = api.post("/v1/retrievers/execute", body).ok();
    let hits = answer["results"].as_array().unwrap_or_else(|| panic!("no hits in {answer}"));
    hits.iter().map(|hit| hit["document_id"].as_str().expect("an id").to_owned()).collect()
}

#[test]
fn a_search_finds_as_many_as_are_asked_for_of_what_may_be_read_and_a_change_counts_at_once() {
    let mut server = Server::start();
    let admin = server.api();
    admin.post("/v1/namespaces/standalone", json!({ "namespace_id": "plane-1" })).ok();
    let upsert = "/v1/namespaces/plane-1/documents/upsert";
    let near = (0..40).map(|n| brought(&format!("bob-{n}"), 0.01 * f64::from(n), Some(json!({ "read": ["bob"] }))));
    let far = (0..3).map(|n| brought(&format!("ann-{n}"), 1.0 + f64::from(n) / 10.0, Some(json!({ "read": ["ann"] }))));
    let documents: Vec<Value> = near.chain(far).collect();
    let collection = admin.post(upsert, json!({ "documents": documents })).text("/collection_id").to_owned();
    let inside = admin.within("plane-1");
    let may = ["read", "write", "delete"];
    let (ann, bob) = (key(&inside, "ann", &may, Some("ann")), key(&inside, "bob", &may, Some("bob")));
    let plain = key(&inside, "plain", &["read"], None);
    let own = ["ann-0", "ann-1", "ann-2"];
    for filters in
        [None, Some(json!({ "even": true })), Some(json!({ "field": "name", "operator": "contains", "value": "-" }))]
    {
        assert_eq!(nearest(&ann, filters.clone()), own, "{filters:?}");
        assert_eq!(nearest(&bob, filters.clone()), ["bob-0", "bob-1", "bob-2"], "{filters:?}");
        assert!(nearest(&plain, filters.clone()).is_empty(), "{filters:?}");
        assert_eq!(nearest(&inside, filters), ["bob-0", "bob-1", "bob-2"]);
    }

    let acl = |id: &str| format!("/v1/collections/{collection}/documents/{id}/acl");
    inside.send("PATCH", &acl("bob-0"), Some(&json!({ "read": ["ann"] }))).ok();
    assert_eq!(nearest(&ann, None), ["bob-0", "ann-0", "ann-1"]);
    assert_eq!(nearest(&bob, None), ["bob-1", "bob-2", "bob-3"]);
    inside.send("PATCH", &acl("bob-1"), Some(&json!({ "public": true }))).ok();
    assert_eq!(nearest(&plain, None), ["bob-1"]);
    // Written anew without a list, a document keeps its own; nobody else writes it.
    inside.post(upsert, json!({ "documents": [brought("bob-0", 0.0, None)] })).ok();
    assert_eq!(nearest(&ann, None), ["bob-0", "bob-1", "ann-0"]);
    assert_eq!(ann.post(upsert, json!({ "documents": [brought("bob-0", 0.0, None)] })).status, 403);
    assert_eq!(ann.post(upsert, json!({ "documents": [brought("bob-2", 0.0, None)] })).status, 409);

    server.kill();
    server.start_again();
    let after = |api: &Api| nearest(&api.at(server.url()), None);
    assert_eq!(after(&ann), ["bob-0", "bob-1", "ann-0"]);
    assert_eq!(after(&bob), ["bob-1", "bob-2", "bob-3"]);
    assert_eq!(after(&plain), ["bob-1"]);
}

#[test]
fn an_answer_that_is_kept_is_for_its_reader_only() {
    let barn = Barn::build();
    let ask = |api: &Api| {
        let response = api.respond("POST", "/v1/retrievers/execute", &[], &plan(&[words(None), all_owls()]));
        let is_kept = response.headers().get("x-cache").is_some_and(|cache| cache == "HIT");
        let body: Value = response.json().expect("JSON");
        (is_kept, Barn::shown(&body))
    };
    for (who, api, visible) in barn.readers() {
        wait_for("a kept answer", SOON, || {
            let (is_kept, shown) = ask(api);
            assert_eq!(shown, visible, "{who}");
            is_kept.then_some(())
        });
    }
    // One that is kept does not outlive the list that it rests on.
    barn.admin.send("PATCH", &format!("{}/acl", barn.one("doc_bob")), Some(&json!({ "read": ["ann"] }))).ok();
    assert_eq!(ask(&barn.bob).1, ["doc_common", "doc_said"]);
    assert_eq!(ask(&barn.ann).1, ["doc_common", "doc_said", "doc_ann", "doc_bob"]);
}

#[test]
fn what_is_made_from_a_document_has_its_list_and_follows_it() {
    let server = Server::start();
    let admin = server.api();
    let extractors = json!([{ "feature_extractor_name": "text_extractor", "version": "v1" }]);
    let made = admin.post("/v1/namespaces", json!({ "namespace_name": "papers", "feature_extractors": extractors }));
    let api = admin.within(made.text("/namespace_id"));
    let papers = api.post("/v1/collections", json!({ "collection_name": "papers" })).text("/collection_id").to_owned();
    let paper = format!("/v1/collections/{papers}/documents/doc_paper");
    let body = json!({
        "document_id": "doc_paper", "text": "Rain fills the lake. A dam holds it.",
        "internal_metadata": { "_acl": { "read": ["ann"] } },
    });
    api.post(&format!("/v1/collections/{papers}/documents"), body).ok();
    let lines = api.post(
        "/v1/collections",
        json!({
            "collection_name": "lines",
            "source": { "type": "collection", "collection_id": papers },
            "feature_extractor": {
                "feature_extractor_name": "text_extractor", "version": "v1",
                "parameters": { "split_by": "sentences", "chunk_size": 1 }, "input_mappings": { "text": "text" },
            },
        }),
    );
    let lines = lines.text("/collection_id").to_owned();
    let (ann, bob) = (key(&api, "ann", &["read"], Some("ann")), key(&api, "bob", &["read", "write"], Some("bob")));
    let listed = |api: &Api| api.list(&format!("/v1/collections/{lines}/documents/list")).len();
    // Whoever has it made, all of it is made.
    let derive = |dedup: &str| {
        let task = bob.post(&format!("/v1/collections/{lines}/trigger"), json!({ "dedup_strategy": dedup }));
        assert_eq!(wait_for_task(&api, task.text("/task_id")), "COMPLETED");
    };
    derive("skip");
    assert_eq!((listed(&api), listed(&ann), listed(&bob)), (2, 2, 0));
    assert_eq!(ann.get(&format!("{paper}/descendants")).ok().as_array().map(Vec::len), Some(2));
    api.send("PATCH", &format!("{paper}/acl"), Some(&json!({ "read": ["bob"] }))).ok();
    assert_eq!((listed(&api), listed(&ann), listed(&bob)), (2, 0, 2));
    derive("force");
    assert_eq!((listed(&api), listed(&ann), listed(&bob)), (2, 0, 2), "made anew they keep it");
    api.send("PATCH", &format!("{paper}/acl"), Some(&json!({ "public": true }))).ok();
    assert_eq!((listed(&ann), listed(&bob)), (2, 2));
}

#[test]
fn lists_and_principals_are_checked() {
    let barn = Barn::build();
    let many: Vec<String> = (0..257).map(|n| n.to_string()).collect();
    let long = "x".repeat(257);
    for (sent, field) in [
        (json!({ "read": many }), "read"),
        (json!({ "write": [""] }), "write"),
        (json!({ "write": [long] }), "write"),
        (json!({ "public": "yes" }), "public"),
        (json!({ "read": [1] }), "read"),
        (json!({ "reader": [] }), "reader"),
    ] {
        let answer = barn.admin.send("PATCH", &format!("{}/acl", barn.one("doc_common")), Some(&sent));
        assert_eq!(answer.status, 422, "{}", answer.body);
        assert!(answer.body.to_string().contains(field), "{}", answer.body);
        let body = json!({ "title": "x", "internal_metadata": { "_acl": sent } });
        let answer = barn.admin.post(&barn.documents, body);
        assert_eq!(answer.status, 422, "{}", answer.body);
        assert!(answer.body.to_string().contains(&format!("internal_metadata._acl.{field}")), "{}", answer.body);
    }
    let email = barn.admin.get("/v1/me").text("/user_email").to_owned();
    for principal in ["", &long] {
        let body = json!({ "name": "odd", "principal_id": principal });
        let answer = barn.admin.post(&format!("/v1/organizations/users/{email}/api-keys"), body);
        assert_eq!(answer.status, 422, "{}", answer.body);
    }
    // A principal that administers reads as itself.
    let admin = key(&barn.admin, "chief", &["admin"], Some("ann"));
    assert_eq!(admin.get(&barn.one("doc_bob")).status, 404);
    drop(barn.server);
}
