//! What searches find, to be compared with what they find later.

use super::Api;
use serde_json::json;

/// Ids and scores of the hits of every query, in their order; `None` while a query has fewer than five, or is put off
/// because the index is being rebuilt.
pub fn hits(api: &Api, retriever_id: &str, queries: &[&str]) -> Option<Vec<(String, f64)>> {
    let mut all = Vec::new();
    for query in queries {
        let path = format!("/v1/retrievers/{retriever_id}/execute");
        let answer = api.post(&path, json!({ "inputs": { "query": query } }));
        if answer.status != 200 {
            assert_eq!(answer.status, 503, "while the index is rebuilt a search may only be put off: {}", answer.body);
            return None;
        }
        let hits = answer.body["results"].as_array().cloned().unwrap_or_default();
        if hits.len() < 5 {
            return None;
        }
        all.extend(hits.iter().map(|hit| {
            let id = hit["document_id"].as_str().expect("an id").to_owned();
            (id, hit["score"].as_f64().expect("a score"))
        }));
    }
    Some(all)
}
