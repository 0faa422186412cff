//! A site is read page by page, as its `robots.txt` allows, and found by what its pages say.

use super::providers::{server_with_and, settings};
use crate::support::{Api, SOON, Server, provider::Provider, wait_for, wait_for_task};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

/// A small site: a start page, two below it, one below one of those, one that nobody may read, and one that is busy at first.
struct Site {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

fn page(title: &str, body: &str) -> (&'static str, &'static str, String) {
    (
        "200 OK",
        "text/html",
        format!(
            "<html><head><title>{title}</title></head><body><article><h1>{title}</h1>{body}</article></body></html>"
        ),
    )
}

impl Site {
    fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let kept = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut reader = BufReader::new(stream);
                let mut head = String::new();
                while reader.read_line(&mut head).is_ok_and(|read| read > 2) {}
                let path = head.split(' ').nth(1).unwrap_or("/").to_owned();
                let before = {
                    let mut asked = kept.lock().expect("no panic holds it");
                    asked.push(path.clone());
                    asked.iter().filter(|one| **one == path).count()
                };
                let (status, kind, body) = match path.as_str() {
                    "/robots.txt" => ("200 OK", "text/plain", "User-agent: *\nDisallow: /secret\n".to_owned()),
                    "/" => page(
                        "Instruments",
                        "<p>An overview. <a href='/violins'>Violins</a> <a href='/drums'>Drums</a> <a href='/secret/x'>Secret</a> \
                         <a href='/manual.pdf'>The manual</a> <a href='http://elsewhere.invalid/'>Elsewhere</a></p>",
                    ),
                    "/violins" => page(
                        "Violins",
                        "<p>A violin has four strings. It is played with a bow. <a href='/bows'>Bows</a></p>\
                         <pre><code class='language-python'>tune('G', 'D', 'A', 'E')</code></pre><img src='/v.png' alt='A violin'>",
                    ),
                    "/drums" if before == 1 => ("503 Busy\r\nRetry-After: 0", "text/plain", String::new()),
                    "/drums" => page("Drums", "<p>A drum is struck with sticks or with the hands.</p>"),
                    "/bows" => page("Bows", "<p>A bow is strung with the hair of horses.</p>"),
                    _ => ("404 Not Found", "text/plain", String::new()),
                };
                let answer = format!(
                    "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                drop(reader.get_mut().write_all(answer.as_bytes()));
            }
        });
        Self { url, asked }
    }

    fn asked(&self, path: &str) -> usize {
        self.asked.lock().expect("no panic holds it").iter().filter(|one| *one == path).count()
    }
}

fn crawl(api: &Api, name: &str, url: &str, parameters: Value) -> (String, Vec<Value>) {
    let bucket = json!({ "bucket_name": name, "bucket_schema": { "properties": { "url": { "type": "string" } } } });
    let bucket = api.post("/v1/buckets", bucket).text("/bucket_id").to_owned();
    api.post(&format!("/v1/buckets/{bucket}/objects"), json!({ "url": url })).ok();
    let collection = api.post(
        "/v1/collections",
        json!({
            "collection_name": name, "source": { "type": "bucket", "bucket_ids": [bucket] },
            "feature_extractor": { "feature_extractor_name": "web_scraper", "version": "v1", "parameters": parameters },
        }),
    );
    let collection = collection.text("/collection_id").to_owned();
    let task = api.post(&format!("/v1/collections/{collection}/trigger"), json!({}));
    let status = wait_for_task(api, task.text("/task_id"));
    let documents = api.list(&format!("/v1/collections/{collection}/documents/list"));
    (status, documents)
}

#[test]
fn a_site_is_read_as_far_as_it_allows_and_as_far_as_was_asked() {
    let (site, server) = (Site::open(), Server::start_with(&["--allow-private-urls"]));
    let api = server.api();
    let (status, documents) = crawl(&api, "site", &site.url, json!({ "retry_base_delay": 0.1 }));
    assert_eq!(status, "COMPLETED");
    let of = |title: &str| documents.iter().find(|document| document["title"] == title);
    let titles: Vec<&Value> = documents.iter().map(|document| &document["title"]).collect();
    assert_eq!(documents.len(), 4, "{titles:?}");
    let start = of("Instruments").expect("the first page");
    assert_eq!((&start["crawl_depth"], &start["parent_url"]), (&json!(0), &Value::Null));
    assert_eq!(start["asset_links"][0]["file_extension"], "pdf", "{start}");
    let violins = of("Violins").expect("a page below it");
    assert_eq!(violins["crawl_depth"], 1);
    assert_eq!(violins["parent_url"], json!(site.url));
    assert_eq!(violins["code_blocks"][0]["language"], "python");
    assert_eq!(violins["images"][0]["alt"], "A violin");
    assert_eq!(of("Bows").expect("a page below that")["crawl_depth"], 2);
    assert!(of("Drums").is_some() && site.asked("/drums") == 2, "a busy server is asked again");
    assert_eq!((site.asked("/secret/x"), site.asked("/robots.txt")), (0, 1));

    let collection = documents[0]["collection_id"].as_str().expect("an id").to_owned();
    let body = json!({
        "collection_identifiers": [collection], "inputs": {},
        "stages": [{ "stage_name": "search", "config": { "stage_id": "feature_search", "parameters": {
            "searches": [{ "query": { "input_mode": "text", "value": "percussion" } }], "final_top_k": 1 } } }],
    });
    let found = wait_for("the pages to be searchable", SOON, || {
        let answer = api.post("/v1/retrievers/execute", body.clone()).ok();
        answer["documents"].get(0).cloned()
    });
    assert_eq!(found["title"], "Drums");

    // Only the first page, its sentences as documents of their own.
    let shallow = json!({ "max_depth": 0, "chunk_strategy": "words", "chunk_size": 2, "chunk_overlap": 0 });
    let (_, chunks) = crawl(&api, "shallow", &format!("{}/violins", site.url), shallow);
    assert!(chunks.len() > 3 && chunks.iter().all(|chunk| chunk["crawl_depth"] == 0), "{chunks:?}");
}

#[test]
fn what_cannot_be_read_fails_with_the_reason_and_private_addresses_are_not_asked() {
    let (site, open) = (Site::open(), Server::start_with(&["--allow-private-urls"]));
    let (status, documents) = crawl(&open.api(), "none", &format!("{}/nothing", site.url), json!({}));
    assert_eq!((status.as_str(), documents.len()), ("FAILED", 0));
    let closed = Server::start();
    let (status, documents) = crawl(&closed.api(), "private", &site.url, json!({ "max_retries": 0 }));
    assert_eq!((status.as_str(), documents.len()), ("FAILED", 0));
    assert_eq!(site.asked("/"), 0);
    let refused = closed.api().post(
        "/v1/collections",
        json!({
            "collection_name": "semantic", "source": { "type": "none" },
            "feature_extractor": { "feature_extractor_name": "web_scraper", "version": "v1", "parameters": { "crawl_mode": "semantic" } },
        }),
    );
    assert_eq!(refused.status, 422, "{}", refused.body);
}

#[test]
fn a_language_model_finds_fields_of_each_page() {
    let (site, provider) = (Site::open(), Provider::start());
    let (server, _file) = server_with_and(&settings(&provider), &["--allow-private-urls"]);
    let api = server.api();
    let shape = json!({ "type": "object", "properties": { "words": { "type": "integer" } } });
    let parameters = json!({
        "retry_base_delay": 0.1, "chunk_strategy": "words", "chunk_size": 2, "chunk_overlap": 0,
        "response_shape": shape, "llm_provider": "own", "llm_model": "writer",
    });
    let (status, chunks) = crawl(&api, "shaped", &site.url, parameters);
    assert_eq!(status, "COMPLETED");
    let asked: Vec<String> = provider
        .seen()
        .iter()
        .map(|(_, _, body)| body["messages"][1]["content"].as_str().expect("a text").to_owned())
        .collect();
    assert_eq!(asked.len(), 4, "each page once: {asked:?}");
    for title in ["Instruments", "Violins", "Drums", "Bows"] {
        let text = asked.iter().find(|text| text.starts_with(title)).expect("the page is sent with its title");
        let mut of_page = chunks.iter().filter(|chunk| chunk["title"] == title).peekable();
        assert!(of_page.peek().is_some(), "{title}");
        for chunk in of_page {
            let words = chunk["words"].as_u64().map(|count| count as usize);
            assert_eq!(words, Some(text.split_whitespace().count()), "{chunk}");
            assert!(chunk["content"].as_str().is_some_and(|own| text.contains(own)), "{chunk}");
        }
    }
    let collection = chunks[0]["collection_id"].as_str().expect("an id");
    let described = api.get(&format!("/v1/collections/{collection}")).ok();
    assert_eq!(described["output_schema"]["properties"]["words"]["type"], "integer", "{described}");

    let nameless = api.post(
        "/v1/collections",
        json!({
            "collection_name": "nameless", "source": { "type": "none" },
            "feature_extractor": { "feature_extractor_name": "web_scraper", "version": "v1", "parameters": { "response_shape": "the tone" } },
        }),
    );
    assert!(nameless.status == 422 && nameless.text("/error/message").contains("llm_model"), "{}", nameless.body);
}
