//! A cross-encoder from a hub: the order stays as it was until the model is pulled, and then the running server uses it.

use crate::support::{Api, Server, cross_encoder};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};

const REPOSITORY: &str = "/cross-encoder/ms-marco-MiniLM-L6-v2/resolve/main/";

/// Serves the files of the model below `files` as a hub does, for as long as the test runs; answers its address.
fn hub(files: &Path) -> String {
    cross_encoder::write(files);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let files = files.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // A client that goes away is its own business.
            let _ = answer(&stream, &files);
        }
    });
    address
}

fn answer(mut stream: &TcpStream, files: &Path) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let path = request.split(' ').nth(1).unwrap_or_default();
    let name = match path.strip_prefix(REPOSITORY) {
        Some("onnx/model.onnx") => "model.onnx",
        Some("tokenizer.json") => "tokenizer.json",
        _ => return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
    };
    let body = std::fs::read(files.join(name))?;
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len())?;
    stream.write_all(&body)
}

fn pull(server: &Server, hub: &str, model: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_strata"))
        .args(["models", "pull", model])
        .env("STRATA_MODELS", server.models_dir())
        .env("HF_ENDPOINT", hub)
        .output()
        .expect("the binary runs")
}

fn reranked(api: &Api) -> Value {
    let rerank = json!({ "inference_name": "cross-encoder/ms-marco-MiniLM-L6-v2", "query": "bread" });
    let stages = json!([
        { "stage_name": "all", "config": { "stage_id": "attribute_filter", "parameters": { "field": "n", "operator": "gt", "value": 0 } } },
        { "stage_name": "rerank", "config": { "stage_id": "rerank", "parameters": rerank } },
    ]);
    api.post("/v1/retrievers/execute", json!({ "inputs": {}, "stages": stages })).ok()
}

#[test]
fn a_cross_encoder_that_is_pulled_is_used_at_once() {
    let files = tempfile::tempdir().expect("temporary directory");
    let hub = hub(files.path());
    let server = Server::start_with_cross_encoder();
    let made = server.api().post("/v1/namespaces/standalone", json!({ "namespace_id": "hub-1" }));
    made.ok();
    let api = server.api().within("hub-1");
    let documents = json!([
        { "document_id": "brass", "vectors": { "v": [1, 0] }, "payload": { "n": 1, "content": "a trumpet is made of brass" } },
        { "document_id": "rye", "vectors": { "v": [0, 1] }, "payload": { "n": 2, "content": "bread is made of rye" } },
    ]);
    api.post("/v1/namespaces/hub-1/documents/upsert", json!({ "documents": documents })).ok();

    let before = reranked(&api);
    assert_eq!((&before["status"], &before["documents"][0]["document_id"]), (&json!("degraded"), &json!("brass")));
    let reason = before["degraded"][0]["reason"].as_str().expect("a reason");
    assert!(reason.contains("strata models pull ms_marco_minilm_l6_v2"), "{reason}");

    let pulled = pull(&server, &hub, "ms_marco_minilm_l6_v2");
    assert!(pulled.status.success(), "{}", String::from_utf8_lossy(&pulled.stderr));
    let after = reranked(&api);
    assert_eq!((&after["status"], &after["documents"][0]["document_id"]), (&json!("completed"), &json!("rye")));

    let nothing = pull(&server, &hub, "bge_reranker_v2_m3");
    let message = String::from_utf8_lossy(&nothing.stderr).into_owned();
    assert!(!nothing.status.success() && message.contains("404"), "{message}");
}
