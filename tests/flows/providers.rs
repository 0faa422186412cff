//! Models of providers, over a provider that speaks the protocol: asked directly, in a collection and its retriever, and
//! what becomes of their failures and of their keys.

use crate::support::provider::{DIMENSIONS, Provider};
use crate::support::{Api, SOON, Server, World, object, retriever_body, submit, wait_for, wait_for_task};
use serde_json::{Value, json};
use std::io::Write;
use tempfile::NamedTempFile;

const KEY: &str = "pk-0perat0r";
const OWN_KEY: &str = "pk-0rganizati0n";

/// A server with the providers that a file describes, which is read at every start.
pub(super) fn server_with(settings: &str) -> (Server, NamedTempFile) {
    server_with_and(settings, &[])
}

/// The same with further arguments.
pub(super) fn server_with_and(settings: &str, arguments: &[&str]) -> (Server, NamedTempFile) {
    let mut file = NamedTempFile::new().expect("a file");
    file.write_all(settings.as_bytes()).expect("it is written");
    let providers = ["--providers", file.path().to_str().expect("a path of letters")];
    let server = Server::start_with(&[&providers[..], arguments].concat());
    (server, file)
}

pub(super) fn settings(provider: &Provider) -> String {
    format!(
        "[[providers]]\nname = \"own\"\nurl = \"{}\"\nkey = \"{KEY}\"\nallow_private = true\n\
         [[providers.models]]\nid = \"words\"\ntask = \"embed_text\"\ndimensions = {DIMENSIONS}\n\
         [[providers.models]]\nid = \"too-short\"\ntask = \"embed_text\"\ndimensions = {DIMENSIONS}\n\
         [[providers.models]]\nid = \"writer\"\ntask = \"generate\"\n",
        provider.url
    )
}

fn namespace(server: &Server, name: &str) -> Api {
    let admin = server.api();
    let made = admin.post(
        "/v1/namespaces",
        json!({ "namespace_name": name, "feature_extractors": [{ "feature_extractor_name": "text_extractor", "version": "v1" }] }),
    );
    admin.within(made.text("/namespace_id"))
}

fn asked(api: &Api, model: &str, inputs: Value) -> crate::support::Answer {
    api.post("/v1/inference", json!({ "provider": "own", "model": model, "inputs": inputs }))
}

#[test]
fn a_provider_embeds_and_writes_when_it_is_asked() {
    let provider = Provider::start();
    let (server, _file) = server_with(&settings(&provider));
    let api = namespace(&server, "asking");
    let one = asked(&api, "words", json!({ "text": "a green bottle" })).ok();
    assert_eq!(one["data"].as_array().map(Vec::len), Some(DIMENSIONS), "{one}");
    assert_eq!((one["provider"].as_str(), one["tokens_used"]["total_tokens"].as_i64()), (Some("own"), Some(3)));
    let texts: Vec<String> = (0..70).map(|n| format!("text number {n}")).collect();
    let many = asked(&api, "words", json!({ "texts": texts })).ok();
    let alone = asked(&api, "words", json!({ "text": texts[65] })).ok();
    assert_eq!(many["data"][65], alone["data"], "vectors stand in the order of the texts");
    let by_name = json!({ "inference_name": "own/words", "inputs": { "text": "a green bottle" } });
    assert_eq!(api.post("/v1/inference", by_name).ok()["data"], one["data"]);

    let written = asked(&api, "writer", json!({ "prompt": "hello" })).ok();
    assert_eq!((&written["data"], &written["tokens_used"]["total_tokens"]), (&json!("you said: hello"), &json!(7)));
    let written = asked(&api, "writer", json!({ "prompts": ["a", "b"], "system": "be kind" })).ok();
    assert_eq!(written["data"], json!(["you said: a", "you said: b"]));
    let messages = json!([{ "role": "user", "content": "first" }, { "role": "assistant", "content": "second" }, { "role": "user", "content": "third" }]);
    assert_eq!(asked(&api, "writer", json!({ "messages": messages })).ok()["data"], "you said: third");
    let seen = provider.seen();
    assert!(seen.iter().all(|(_, key, _)| *key == format!("Bearer {KEY}")), "the operator's key");
    assert_eq!(seen.last().expect("it was asked").2["messages"].as_array().map(Vec::len), Some(3));
}

#[test]
fn what_a_provider_does_wrong_is_told_and_no_key_is() {
    let provider = Provider::start();
    let (server, _file) = server_with(&settings(&provider));
    let api = namespace(&server, "failing");
    let text = || json!({ "text": "a" });
    assert_eq!(asked(&api, "busy-twice", text()).status, 200, "after two refusals");
    assert_eq!(asked(&api, "failing-once", text()).status, 200, "after a failure");
    let busy = asked(&api, "always-busy", text());
    assert_eq!(
        (busy.status, &busy.body["error"]["details"]["retry_after_seconds"]),
        (429, &json!(77)),
        "{}",
        busy.body
    );
    for (model, status, says) in [
        ("broken", 502, "no JSON"),
        ("too-few", 502, "0 vectors to 1 texts"),
        ("too-short", 502, "vectors of 15 numbers"),
        ("refusing", 502, "refused the key"),
        ("unknown", 422, "no model `unknown`"),
        ("away", 502, "answered 302"),
        ("writer", 422, "inputs.prompt"),
    ] {
        let answer = asked(&api, model, text());
        assert_eq!(answer.status, status, "{model}: {}", answer.body);
        assert!(answer.text("/error/message").contains(says), "{model}: {}", answer.body);
        assert!(!answer.body.to_string().contains(KEY), "{model}: {}", answer.body);
    }
    let nobody = api.post("/v1/inference", json!({ "provider": "nobody", "model": "x", "inputs": text() }));
    assert_eq!((nobody.status, nobody.text("/error/code")), (404, "provider_not_found"));
    let nothing = api.post("/v1/inference", json!({ "model": "no_such_model", "inputs": text() }));
    assert_eq!((nothing.status, nothing.text("/error/code")), (404, "model_not_found"));
    let keyless =
        api.post("/v1/inference", json!({ "provider": "openai", "model": "text-embedding-3-small", "inputs": text() }));
    assert_eq!(keyless.status, 503);
    assert!(keyless.text("/error/message").contains("default_llm_credentials.openai"), "{}", keyless.body);
    assert!(!server.log_text().contains(KEY), "the log");
}

#[test]
fn a_provider_that_is_down_or_private_is_named() {
    let provider = Provider::start();
    let closed = "[[providers]]\nname = \"gone\"\nurl = \"http://127.0.0.1:9/v1\"\nallow_private = true\n";
    let guarded = format!("[[providers]]\nname = \"guarded\"\nurl = \"{}\"\n", provider.url);
    let (server, _file) = server_with(&format!("{closed}{guarded}"));
    let api = namespace(&server, "unreachable");
    let ask =
        |name: &str| api.post("/v1/inference", json!({ "provider": name, "model": "m", "inputs": { "text": "a" } }));
    let gone = ask("gone");
    assert_eq!(gone.status, 502, "{}", gone.body);
    assert!(gone.text("/error/message").contains("the provider `gone`"), "{}", gone.body);
    let private = ask("guarded");
    assert_eq!(private.status, 503, "{}", private.body);
    assert!(private.text("/error/message").contains("allow_private"), "{}", private.body);
    assert!(provider.seen().is_empty(), "nothing was sent");
}

#[test]
fn an_organization_asks_with_its_own_key() {
    let provider = Provider::start();
    let (server, _file) = server_with(&settings(&provider));
    let (admin, api) = (server.api(), namespace(&server, "own"));
    let last_key = || provider.seen().last().expect("it was asked").1.clone();
    let set =
        |value: Value| admin.send("PATCH", "/v1/organizations", Some(&json!({ "default_llm_credentials": value })));
    let early = set(json!({ "own": "{{SECRET.provider_key}}" }));
    assert_eq!(early.status, 422, "{}", early.body);
    assert_eq!(set(json!({ "nobody": "key" })).status, 422);
    // A key itself goes into the vault.
    let kept = set(json!({ "own": OWN_KEY })).ok();
    assert_eq!(kept["default_llm_credentials"], json!({ "own": "{{SECRET.llm_own}}" }));
    asked(&api, "words", json!({ "text": "a" })).ok();
    assert_eq!(last_key(), format!("Bearer {OWN_KEY}"));

    admin
        .post("/v1/organizations/secrets", json!({ "secret_name": "provider_key", "secret_value": "pk-an0ther" }))
        .ok();
    let with_own = |key: &str| json!({ "provider": "own", "model": "words", "inputs": { "text": "a" }, "parameters": { "llm_api_key": key } });
    api.post("/v1/inference", with_own("{{SECRET.provider_key}}")).ok();
    assert_eq!(last_key(), "Bearer pk-an0ther");
    assert_eq!(api.post("/v1/inference", with_own("{{SECRET.nothing}}")).status, 422);

    admin.delete("/v1/organizations/secrets/llm_own").ok();
    let gone = asked(&api, "words", json!({ "text": "a" }));
    assert!(gone.status == 422 && gone.text("/error/message").contains("`llm_own` does not exist"), "{}", gone.body);
    set(json!({})).ok();
    asked(&api, "words", json!({ "text": "a" })).ok();
    assert_eq!(last_key(), format!("Bearer {KEY}"), "the operator's again");
    let shown =
        [admin.get("/v1/organizations").ok(), admin.get("/v1/organizations/secrets").ok(), json!(server.log_text())];
    for value in shown {
        let text = value.to_string();
        assert!([KEY, OWN_KEY, "pk-an0ther"].iter().all(|key| !text.contains(key)), "{value}");
    }
}

#[test]
fn a_key_that_may_only_read_asks_no_provider() {
    let provider = Provider::start();
    let (server, _file) = server_with(&settings(&provider));
    let (admin, api) = (server.api(), namespace(&server, "reading"));
    let email = admin.get("/v1/me").text("/user_email").to_owned();
    let body = json!({ "name": "reader", "permissions": ["read"] });
    let made = admin.post(&format!("/v1/organizations/users/{email}/api-keys"), body).ok();
    let secret = made["key"].as_str().or(made["api_key"].as_str()).expect("a key").to_owned();
    let reader = api.with_key(&secret);
    assert_eq!(asked(&reader, "words", json!({ "text": "a" })).status, 403);
    let local = json!({ "model": "all_minilm_l6_v2_int8", "inputs": { "text": "a" } });
    reader.post("/v1/inference", local).ok();
    assert!(provider.seen().is_empty());
}

/// A collection over the bucket `articles` with these parameters.
fn collection(api: &Api, bucket: &str, parameters: Value) -> crate::support::Answer {
    api.post(
        "/v1/collections",
        json!({
            "collection_name": "remote",
            "source": { "type": "bucket", "bucket_ids": [bucket] },
            "feature_extractor": {
                "feature_extractor_name": "text_extractor", "version": "v1", "parameters": parameters,
                "input_mappings": { "text": "content" }, "field_passthrough": [{ "source_path": "title" }],
            },
        }),
    )
}

#[test]
fn a_collection_is_embedded_and_searched_by_a_provider() {
    let provider = Provider::start();
    let (mut server, file) = server_with(&settings(&provider));
    let world = World::create(&server.api(), "library");
    let (api, bucket) = (&world.api, world.id("bucket_id"));
    for (parameters, field) in [
        (json!({ "embedding_model": "nobody/words" }), "embedding_model"),
        (json!({ "embedding_model": "own/other" }), "embedding_dimensions"),
        (json!({ "embedding_model": "own/words", "embedding_dimensions": 7 }), "embedding_dimensions"),
        (json!({ "embedding_model": "no_such_model" }), "embedding_model"),
        (json!({ "response_shape": "the tone" }), "llm_model"),
        (json!({ "response_shape": "the tone", "llm_provider": "nobody", "llm_model": "x" }), "llm_provider"),
        (json!({ "llm_api_key": "sk-direct" }), "llm_api_key"),
    ] {
        let refused = collection(api, bucket, parameters);
        assert!(refused.status == 422 && refused.text("/error/message").contains(field), "{field}: {}", refused.body);
    }
    let shape = json!({ "type": "object", "properties": { "words": { "type": "integer" } } });
    let parameters = json!({
        "embedding_model": "own/words", "split_by": "sentences", "chunk_size": 1,
        "response_shape": shape, "llm_provider": "own", "llm_model": "writer",
    });
    let made = collection(api, bucket, parameters);
    let collection_id = made.text("/collection_id").to_owned();
    assert_eq!(made.text("/vector_indexes/0/feature_uri"), "mixpeek://text_extractor@v1/own__words", "{}", made.body);
    assert_eq!(made.body["output_schema"]["properties"]["words"]["type"], "integer", "{}", made.body);
    let text = "Trumpets are loud. Violins have four strings.";
    let new = api.post(&format!("/v1/buckets/{bucket}/objects"), object("Music", 1999, text));
    let (_, task) = submit(api, bucket, &[new.text("/object_id").to_owned()], &collection_id);
    assert_eq!(wait_for_task(api, &task), "COMPLETED");
    let documents = api.list(&format!("/v1/collections/{collection_id}/documents/list"));
    assert_eq!(documents.len(), 2, "{documents:?}");
    for document in &documents {
        let words = document["text"].as_str().map(|text| text.split_whitespace().count());
        assert_eq!(document["words"].as_u64().map(|n| n as usize), words, "{document}");
        assert!(document.get("none").is_none() && document["text"] != "not the text", "{document}");
    }
    let retriever = api.post("/v1/retrievers", retriever_body(api, "by_words", &collection_id));
    let path = format!("/v1/retrievers/{}/execute", retriever.text("/retriever_id"));
    let found = wait_for("the search to find it", SOON, || {
        let answer = api.post(&path, json!({ "inputs": { "query": "violins" } })).ok();
        answer["documents"][0]["text"].as_str().map(str::to_owned)
    });
    assert_eq!(found, "Violins have four strings.");
    let by_feature =
        json!({ "feature_uri": "mixpeek://text_extractor@v1/own__words", "inputs": { "text": "violins" } });
    assert_eq!(api.post("/v1/inference", by_feature).ok()["model"], "words");

    // Without the provider in the settings the documents stay, and who searches them is told what is missing.
    std::fs::write(file.path(), "").expect("the settings are emptied");
    server.stop();
    server.start_again();
    let api = Api::new(server.url(), crate::support::KEY).within(world.id("namespace_id"));
    let kept = api.get(&format!("/v1/collections/{collection_id}")).ok();
    assert_eq!(kept["vector_indexes"], made.body["vector_indexes"]);
    assert_eq!(api.list(&format!("/v1/collections/{collection_id}/documents/list")).len(), 2);
    let missing = api.post(&path, json!({ "inputs": { "query": "violins" } }));
    assert_eq!(missing.status, 503, "{}", missing.body);
    assert!(missing.text("/error/message").contains("there is no provider `own`"), "{}", missing.body);
}
