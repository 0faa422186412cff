//! Text models that an organization brings: packed, sent, checked, enabled, used as those of the server, and gone again.

use crate::support::{Answer, Api, SOON, Server, World, submit, wait_for, wait_for_task};
use serde_json::{Value, json};
use std::path::PathBuf;

/// The model of the registry, which is brought under another name.
const KNOWN: &str = "all_minilm_l6_v2_int8";
const NAME: &str = "custom/small@1.0.0";

/// A gzipped tar archive of these files.
fn packed(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        // Past the checks of the writer.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append(&header, *content).expect("written to memory");
    }
    tar.into_inner().expect("written to memory").finish().expect("written to memory")
}

/// The files of the registry's model.
fn files() -> (Vec<u8>, Vec<u8>) {
    let models =
        PathBuf::from(std::env::var_os("STRATA_MODELS").expect("STRATA_MODELS names the directory of the models"));
    let read = |name: &str| std::fs::read(models.join(KNOWN).join(name)).expect("the model is installed");
    (read("model.onnx"), read("tokenizer.json"))
}

fn whole() -> Vec<u8> {
    let (model, tokenizer) = files();
    packed(&[("small/model.onnx", &model), ("small/tokenizer.json", &tokenizer), ("small/README.md", b"A model.")])
}

/// Announces a model of the format `onnx` and sends its archive; answers the upload and the ETag.
fn sent(api: &Api, name: &str, archive: &[u8]) -> (String, String) {
    let body = json!({ "name": name, "version": "1.0.0", "model_format": "onnx", "file_size_bytes": archive.len() });
    let made = api.post("/v1/models/uploads", body);
    let url = made.text("/presigned_url");
    let put = reqwest::blocking::Client::new().put(url).body(archive.to_vec()).send().expect("the server answers");
    assert!(put.status().is_success(), "{}", put.status());
    let etag = put.headers()["etag"].to_str().expect("text").to_owned();
    (made.text("/upload_id").to_owned(), etag)
}

fn confirmed(api: &Api, upload: &str, etag: &str) -> Answer {
    api.post(&format!("/v1/models/uploads/{upload}/confirm"), json!({ "etag": etag }))
}

/// Whether a content is stored.
fn is_stored(server: &Server, hash: &str) -> bool {
    server.data_dir().join("blobs").join(&hash[..2]).join(&hash[2..4]).join(hash).exists()
}

fn embedded(api: &Api, model: &str) -> Answer {
    api.post("/v1/inference", json!({ "model": model, "inputs": { "text": "a river in the mountains" } }))
}

#[track_caller]
fn assert_equal(one: &Value, other: &Value) {
    let numbers = |value: &Value| -> Vec<f64> {
        value.as_array().expect("a vector").iter().map(|number| number.as_f64().expect("a number")).collect()
    };
    let (one, other) = (numbers(one), numbers(other));
    assert_eq!(one.len(), other.len());
    assert!(one.iter().zip(&other).all(|(a, b)| (a - b).abs() < 1e-4), "the same model makes the same vectors");
}

fn collection(api: &Api, name: &str, bucket: &str, model: &str) -> Answer {
    api.post(
        "/v1/collections",
        json!({
            "collection_name": name,
            "source": { "type": "bucket", "bucket_ids": [bucket] },
            "feature_extractor": {
                "feature_extractor_name": "text_extractor",
                "version": "v1",
                "parameters": { "embedding_model": model },
                "input_mappings": { "text": "content" },
            },
        }),
    )
}

fn found(api: &Api, collection: &str) -> Vec<Value> {
    let feature = api.get(&format!("/v1/collections/{collection}")).text("/vector_indexes/0/feature_uri").to_owned();
    let search = json!({ "feature_uri": feature, "query": { "input_mode": "text", "value": "a stream" }, "top_k": 5 });
    let stage = json!({ "stage_name": "search", "stage_type": "filter", "config": {
        "stage_id": "feature_search", "parameters": { "searches": [search], "final_top_k": 5 } } });
    let body = json!({ "collection_identifiers": [collection], "inputs": {}, "stages": [stage] });
    api.post("/v1/retrievers/execute", body).ok()["documents"].as_array().cloned().expect("documents")
}

#[test]
fn a_model_that_is_brought_works_as_one_of_the_server_where_it_is_enabled() {
    let mut server = Server::start();
    let admin = server.api();
    let world = World::create(&admin, "with-model");
    let (api, bucket) = (&world.api, world.id("bucket_id"));
    admin.post("/v1/namespaces", json!({ "namespace_name": "without-model" })).ok();
    let other = admin.within("without-model");

    let archive = whole();
    let (upload, etag) = sent(&admin, "small", &archive);
    let done = confirmed(&admin, &upload, &etag).ok();
    assert_eq!((&done["validation_status"], &done["success"]), (&json!("passed"), &json!(true)), "{done}");
    assert_eq!(confirmed(&admin, &upload, &etag).ok()["model_id"], done["model_id"], "twice is once");
    let id = done["model_id"].as_str().expect("a model").to_owned();
    let model = admin.get(&format!("/v1/models/{id}")).ok()["model"].clone();
    assert_eq!((&model["embedding_dim"], &model["source"]), (&json!(384), &json!("customer")), "{model}");
    assert_eq!(model["registry"]["inference_service_id"], NAME);
    let hash = model["model_hash"].as_str().expect("a hash").to_owned();
    assert!(is_stored(&server, &hash));
    let listed = admin.get("/v1/models").ok();
    let is_listed = |model: &Value| model["model_id"] == json!(id);
    assert!(listed["models"].as_array().expect("models").iter().any(is_listed));
    let again = json!({ "name": "small", "version": "1.0.0", "model_format": "onnx" });
    assert_eq!(admin.post("/v1/models/uploads", again).status, 409, "the name has this version");

    // Nobody may name it until it is enabled, and elsewhere never.
    let refused = embedded(api, NAME);
    assert_eq!(refused.status, 409, "{}", refused.body);
    assert!(refused.text("/error/message").contains("not enabled"), "{}", refused.body);
    assert_eq!(collection(api, "early", bucket, NAME).status, 422);
    let namespace = world.id("namespace_id");
    let enable = format!("/v1/namespaces/{namespace}/models/org/{id}/enable");
    admin.post(&enable, json!({})).ok();
    let deploy = format!("/v1/namespaces/{namespace}/models/{id}/deploy");
    assert_eq!(admin.post(&deploy, json!({})).ok()["deployment_status"], "deployed");
    assert_eq!(admin.post(&deploy, json!({})).ok()["cached"], true);
    assert_eq!(embedded(&other, &id).status, 409);
    let available = admin.get("/v1/namespaces/without-model/models/available").ok();
    let seen = available["models"].as_array().expect("models").iter().find(|model| is_listed(model));
    assert_eq!(seen.expect("it is the organization's")["enabled_in_namespace"], false);

    let (own, known) = (embedded(api, NAME).ok(), embedded(api, KNOWN).ok());
    assert_equal(&own["data"], &known["data"]);
    assert_eq!((&own["provider"], &own["model"]), (&json!("strata"), &json!(NAME)));

    // By its id in the request; the collection writes down its name.
    let made = collection(api, "brought", bucket, &id);
    let brought = made.text("/collection_id").to_owned();
    let shown = api.get(&format!("/v1/collections/{brought}")).ok();
    let parameters = &shown["feature_extractor"]["parameters"];
    assert_eq!((&parameters["embedding_model"], &parameters["embedding_dimensions"]), (&json!(NAME), &json!(384)));
    let plain = collection(api, "plain", bucket, KNOWN).text("/collection_id").to_owned();
    let object = world.id("object_id").to_owned();
    for collection in [&brought, &plain] {
        let (_, task) = submit(api, bucket, std::slice::from_ref(&object), collection);
        assert_eq!(wait_for_task(api, &task), "COMPLETED");
        wait_for("the document to be searchable", SOON, || (found(api, collection).len() == 1).then_some(()));
    }
    let vector = |collection: &str| {
        let id = found(api, collection)[0]["document_id"].as_str().expect("an id").to_owned();
        let path = format!("/v1/collections/{collection}/documents/{id}?return_vectors=true");
        api.get(&path).ok()["vectors"]["text_extractor_v1_embedding"].clone()
    };
    assert_equal(&vector(&brought), &vector(&plain));

    let conflict = admin.delete(&format!("/v1/models/{id}"));
    assert_eq!(conflict.status, 409);
    assert!(conflict.text("/error/message").contains("`brought`"), "{}", conflict.body);
    assert_eq!(admin.post(&format!("/v1/namespaces/{namespace}/models/org/{id}/disable"), json!({})).status, 409);

    // It is there after a crash, archive and all.
    server.kill();
    server.start_again();
    let admin = server.api();
    let api = admin.within(namespace);
    assert_eq!(found(&api, &brought).len(), 1);
    assert_equal(&embedded(&api, NAME).ok()["data"], &known["data"]);
    let download = admin.get(&format!("/v1/models/{id}/download"));
    let bytes = reqwest::blocking::get(download.text("/download_url")).expect("an answer").bytes().expect("a body");
    assert_eq!(bytes.as_ref(), archive.as_slice());

    api.delete(&format!("/v1/collections/{brought}")).ok();
    admin.delete(&format!("/v1/models/{id}")).ok();
    assert!(!is_stored(&server, &hash), "nothing refers to the archive any more");
    assert_eq!(admin.get(&format!("/v1/models/{id}")).status, 404);
    assert_eq!(embedded(&api, NAME).status, 404);
}

#[test]
fn archives_that_make_no_model_are_told_and_not_kept() {
    let server = Server::start();
    let admin = server.api();
    let (_, tokenizer) = files();
    let refuse = |name: &str, archive: &[u8], expected: &str| {
        let (upload, etag) = sent(&admin, name, archive);
        let told = confirmed(&admin, &upload, &etag).ok();
        assert_eq!((&told["validation_status"], &told["model_id"]), (&json!("failed"), &Value::Null), "{told}");
        assert!(told["validation_errors"].to_string().contains(expected), "{expected}: {told}");
        assert!(!is_stored(&server, etag.trim_matches('"')), "{expected}");
    };
    let zeros = vec![0; 64 << 20];
    refuse("outward", &packed(&[("../model.onnx", b"m"), ("tokenizer.json", b"{}")]), "leads out");
    refuse("missing", &packed(&[("tokenizer.json", b"{}")]), "model.onnx");
    refuse("bomb", &packed(&[("model.onnx", zeros.as_slice()), ("tokenizer.json", b"{}")]), "far more");
    refuse("nothing", b"no archive at all", "neither");
    refuse("nonsense", &packed(&[("model.onnx", b"no graph"), ("tokenizer.json", tokenizer.as_slice())]), "archive");

    let (upload, etag) = sent(&admin, "another", &packed(&[("model.onnx", b"m"), ("tokenizer.json", b"{}")]));
    let told = confirmed(&admin, &upload, &"0".repeat(64)).ok();
    assert!(told["validation_errors"].to_string().contains("etag"), "{told}");
    assert!(!is_stored(&server, etag.trim_matches('"')));

    let pickle = json!({ "name": "pickle", "version": "1.0.0", "model_format": "pytorch" });
    let refused = admin.post("/v1/models/uploads", pickle);
    assert_eq!(refused.status, 422);
    assert!(refused.text("/error/message").contains("run code"), "{}", refused.body);
    let early =
        admin.post("/v1/models/uploads", json!({ "name": "early", "version": "1.0.0", "model_format": "onnx" }));
    assert_eq!(confirmed(&admin, early.text("/upload_id"), "").status, 409, "nothing has come");
    let own = admin.get("/v1/models").ok()["models"].to_string();
    assert!(!own.contains("customer"), "{own}");
}

#[test]
fn a_form_brings_a_model_into_one_namespace_and_takes_it_away_again() {
    let server = Server::start();
    let admin = server.api();
    let made = admin.post("/v1/namespaces", json!({ "namespace_name": "forms" }));
    let api = admin.within(made.text("/namespace_id"));
    let (model, tokenizer) = files();
    let archive = packed(&[("model.onnx", model.as_slice()), ("tokenizer.json", tokenizer.as_slice())]);
    let mut body = Vec::new();
    for (name, value) in [("name", "small"), ("version", "1.0.0"), ("model_format", "onnx")] {
        let part = format!("--limit\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        body.extend(part.into_bytes());
    }
    body.extend(b"--limit\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.tar.gz\"\r\n\r\n");
    body.extend(&archive);
    body.extend(b"\r\n--limit--\r\n");
    let path = "/v1/namespaces/forms/models";
    let kind = "multipart/form-data; boundary=limit";
    let done = api.try_send_bytes("POST", path, kind, body.clone().into()).expect("an answer");
    let id = done.text("/model_id").to_owned();
    assert_eq!(api.try_send_bytes("POST", path, kind, body.into()).expect("an answer").status, 409);
    assert_eq!(embedded(&api, NAME).ok()["data"].as_array().map(Vec::len), Some(384));

    // A vector that callers bring is searched by it.
    let declared = json!([{ "name": "meaning", "dimension": 384 }]);
    admin.post("/v1/namespaces/standalone", json!({ "namespace_id": "books", "vector_configs": declared })).ok();
    let promote = json!({ "vector_mappings": [{ "existing_index": "meaning", "inference_service": NAME }] });
    assert_eq!(admin.post("/v1/namespaces/books/promote", promote.clone()).status, 422, "it is not enabled there");
    admin.post(&format!("/v1/namespaces/books/models/org/{id}/enable"), json!({})).ok();
    admin.post("/v1/namespaces/books/promote", promote).ok();
    let conflict = admin.delete(&format!("/v1/namespaces/books/models/{id}"));
    assert_eq!(conflict.status, 409, "{}", conflict.body);

    // What came into one namespace stays while another uses it.
    api.delete(&format!("{path}/{id}")).ok();
    assert_eq!(embedded(&api, NAME).status, 409);
    admin.get(&format!("/v1/models/{id}")).ok();
}
