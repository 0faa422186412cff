//! The index is derived: without it, or with any of its files cut short, the server starts, rebuilds it and gives the
//! same answers as before.

use crate::support::{
    Api, SOON, Server, files_under, hits, object, retriever_body, submit, text_collection, wait_for, wait_for_task,
};
use serde_json::{Value, json};

const TEXTS: [&str; 12] = [
    "A violin has four strings.",
    "A trumpet is a brass instrument.",
    "Rain fell all night.",
    "The sun rises in the east.",
    "An elephant has a long trunk.",
    "Penguins cannot fly.",
    "Bread is baked in an oven.",
    "The doctor treats children.",
    "A bicycle has two wheels.",
    "Iron is a metal.",
    "The river flows to the sea.",
    "Snow covers the mountains.",
];
const QUERIES: [&str; 4] = ["wind instrument", "weather", "animal", "physician"];

struct Library {
    retriever: String,
}

/// Twelve texts under a retriever, all of them searchable.
fn library(api: &Api) -> Library {
    let bucket = api.post(
        "/v1/buckets",
        json!({
            "bucket_name": "texts",
            "bucket_schema": { "properties": {
                "title": { "type": "string" }, "year": { "type": "integer" }, "content": { "type": "text" },
            } },
        }),
    );
    let bucket = bucket.text("/bucket_id");
    let path = format!("/v1/buckets/{bucket}/objects");
    let made = TEXTS.iter().enumerate().map(|(n, text)| api.post(&path, object("text", n as u32, text)));
    let objects: Vec<String> = made.map(|answer| answer.text("/object_id").to_owned()).collect();
    let collection = text_collection(api, "texts", bucket);
    let (_, task) = submit(api, bucket, &objects, &collection);
    assert_eq!(wait_for_task(api, &task), "COMPLETED");
    let retriever = api.post("/v1/retrievers", retriever_body(api, "finder", &collection));
    Library { retriever: retriever.text("/retriever_id").to_owned() }
}

/// The hits of every query, with scores as exact as another order of adding them up leaves them.
fn answers(api: &Api, library: &Library) -> Option<Vec<(String, f64)>> {
    let rounded = |(id, score): (String, f64)| (id, (score * 1e4).round() / 1e4);
    hits(api, &library.retriever, &QUERIES).map(|found| found.into_iter().map(rounded).collect())
}

fn same_after_restart(server: &mut Server, library: &Library, before: &[(String, f64)], what: &str) {
    server.start_again();
    let api = server.api();
    wait_for(&format!("the same answers after {what}"), SOON, || {
        answers(&api, library).filter(|after| after.as_slice() == before)
    });
}

#[test]
fn without_its_index_the_server_gives_the_same_answers_after_the_rebuild() {
    let mut server = Server::start();
    let library = library(&server.api());
    let before = wait_for("all texts to be searchable", SOON, || answers(&server.api(), &library));
    server.stop();
    std::fs::remove_dir_all(server.data_dir().join("index")).expect("there is an index directory");
    same_after_restart(&mut server, &library, &before, "the index was deleted");
}

#[test]
fn with_any_file_of_its_index_cut_short_the_server_gives_the_same_answers() {
    let mut server = Server::start();
    let library = library(&server.api());
    let before = wait_for("all texts to be searchable", SOON, || answers(&server.api(), &library));
    server.stop();
    let index = server.data_dir().join("index");
    let files = files_under(&index);
    assert!(!files.is_empty(), "the index has files");
    for file in files {
        // An earlier rebuild may have replaced or removed it.
        let Ok(facts) = std::fs::metadata(&file) else { continue };
        let name = file.strip_prefix(&index).expect("inside the index").display().to_string();
        let opened = std::fs::OpenOptions::new().write(true).open(&file).expect("the file can be opened");
        opened.set_len(facts.len() / 2).expect("the file can be cut");
        drop(opened);
        same_after_restart(&mut server, &library, &before, &format!("`{name}` was cut to half"));
        server.kill();
    }
}

#[test]
fn with_an_index_written_over_by_nonsense_the_server_gives_the_same_answers() {
    let mut server = Server::start();
    let library = library(&server.api());
    let before = wait_for("all texts to be searchable", SOON, || answers(&server.api(), &library));
    server.stop();
    for file in files_under(&server.data_dir().join("index")) {
        let size = std::fs::metadata(&file).expect("the file is there").len();
        let nonsense: Vec<u8> = (0..size.min(1 << 20)).map(|n| (n * 131 % 251) as u8).collect();
        std::fs::write(&file, nonsense).expect("the file can be written");
    }
    same_after_restart(&mut server, &library, &before, "every file was overwritten");
    let health: Value = server.api().get("/v1/health").ok();
    assert!(health.is_object(), "{health}");
}
