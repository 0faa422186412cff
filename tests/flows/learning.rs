//! What is made of interactions: weights of searches that follow the clicks, and a benchmark of words against meaning.

use crate::support::{Api, SOON, Server, object, submit, text_collection, wait_for, wait_for_task};
use serde_json::{Value, json};

/// A namespace of its own.
fn namespace(server: &Server, name: &str) -> Api {
    let admin = server.api();
    let extractors = json!([{ "feature_extractor_name": "text_extractor", "version": "v1" }]);
    let made = admin.post("/v1/namespaces", json!({ "namespace_name": name, "feature_extractors": extractors }));
    admin.within(made.text("/namespace_id"))
}

/// A retriever whose two searches find one document each: `doc_words` by its words, `doc_plane` by its vector.
fn two_searches(api: &Api) -> String {
    let vectors = json!([{ "name": "plane", "dimension": 2 }]);
    let collection = api.post("/v1/collections", json!({ "collection_name": "cups", "vector_indexes": vectors }));
    let documents = format!("/v1/collections/{}/documents", collection.text("/collection_id"));
    api.post(&documents, json!({ "document_id": "doc_words", "title": "green tea" })).ok();
    let vectors = json!({ "plane": [0.0, 1.0] });
    api.post(&documents, json!({ "document_id": "doc_plane", "title": "a cup", "vectors": vectors })).ok();
    let made = api.post(
        "/v1/retrievers",
        json!({
            "retriever_name": "learner",
            "collection_identifiers": ["cups"],
            "stages": [{ "stage_name": "both", "config": { "stage_id": "feature_search", "parameters": {
                "fusion": "learned",
                "learning_config": { "context_features": ["INPUT.user_id"], "reward_map": { "click": 1, "purchase": 3 } },
                "searches": [
                    { "lexical": true, "query": { "input_mode": "text", "value": "{{INPUT.query}}" } },
                    { "feature_uri": "plane", "query": { "input_mode": "vector", "value": [0.0, 1.0] }, "top_k": 1 },
                ],
            } } }],
        }),
    );
    made.text("/retriever_id").to_owned()
}

/// The answer, once the index has both documents.
fn asked(api: &Api, retriever: &str, user: &str) -> Value {
    let inputs = json!({ "query": "tea", "user_id": user });
    wait_for("both documents", SOON, || {
        let answer = api.post(&format!("/v1/retrievers/{retriever}/execute"), json!({ "inputs": inputs })).ok();
        let has_both = answer["documents"].as_array().is_some_and(|hits| hits.len() == 2);
        has_both.then_some(answer)
    })
}

fn clicked(api: &Api, answer: &Value, document: &str) {
    let click = json!({
        "feature_id": document, "interaction_type": ["click"], "position": 0, "execution_id": answer["execution_id"],
    });
    let kept = api.post("/v1/retrievers/interactions", click).ok();
    assert_eq!((&kept["deduplicated"], &kept["warning"]), (&json!(false), &Value::Null), "{kept}");
}

#[test]
fn learned_fusion_gives_weight_to_the_search_whose_documents_are_clicked() {
    let mut server = Server::start();
    let api = namespace(&server, "learning");
    let retriever = two_searches(&api);
    for number in 0..40 {
        let answer = asked(&api, &retriever, "ada");
        let learned = &answer["learned_fusion_context"];
        assert_eq!(learned["interactions"], json!(number), "{learned}");
        assert_eq!(learned["applied"], json!(number >= 5), "until five interactions the fusion is rrf: {learned}");
        clicked(&api, &answer, "doc_plane");
    }
    let weights = |answer: &Value| {
        let weights = &answer["learned_fusion_context"]["sampled_weights"];
        let of = |name: &str| weights[name].as_f64().unwrap_or_else(|| panic!("no weight of {name} in {answer}"));
        (of("lexical"), of("plane"))
    };
    let answer = asked(&api, &retriever, "ada");
    let (lexical, plane) = weights(&answer);
    assert!(plane > 0.8 && lexical < 0.2, "lexical {lexical}, plane {plane}");
    assert_eq!(answer["documents"][0]["document_id"], "doc_plane");
    assert_eq!(answer["learned_fusion_context"]["context_level"], "personal");
    assert_eq!(answer["stage_statistics"]["stages"]["both"]["metadata"]["fusion"], "learned");
    assert_eq!(answer["interpretation"]["ignored_input_keys"], json!([]), "the user's name is read");

    // Another user likes the words; until there are enough clicks of hers everybody's count.
    assert_eq!(asked(&api, &retriever, "bob")["learned_fusion_context"]["context_level"], "global");
    for _ in 0..40 {
        clicked(&api, &asked(&api, &retriever, "bob"), "doc_words");
    }
    let (lexical, plane) = weights(&asked(&api, &retriever, "bob"));
    assert!(lexical > 0.8 && plane < 0.2, "lexical {lexical}, plane {plane}");

    // What was learned outlives the process; an interaction whose execution it forgot is counted and not guessed at.
    let old = asked(&api, &retriever, "ada");
    server.stop();
    server.start_again();
    let api = server.api().within("learning");
    let late = json!({
        "feature_id": "doc_words", "interaction_type": ["click"], "position": 0, "retriever_id": retriever,
        "execution_id": old["execution_id"],
    });
    assert!(api.post("/v1/retrievers/interactions", late).ok()["warning"].is_string());
    let answer = asked(&api, &retriever, "ada");
    assert!(weights(&answer).1 > 0.8, "{answer}");
    let learned = &answer["learned_fusion_context"];
    assert_eq!((&learned["interactions"], &learned["skipped_interactions"]), (&json!(40), &json!(1)), "{learned}");

    // What is deleted is not learned from.
    let all = api.list("/v1/retrievers/interactions/list");
    assert_eq!(all.len(), 81);
    for interaction in &all {
        let id = interaction["interaction_id"].as_str().expect("an id");
        api.delete(&format!("/v1/retrievers/interactions/{id}")).ok();
    }
    let learned = &asked(&api, &retriever, "ada")["learned_fusion_context"];
    assert_eq!((&learned["interactions"], &learned["applied"]), (&json!(0), &json!(false)), "{learned}");
}

/// Sentences, and what somebody would ask who knows none of their words.
const MEANT: [(&str, &str); 12] = [
    ("A violin has four strings.", "bowed musical instrument"),
    ("The trumpet is made of brass.", "metal wind horn"),
    ("Rain fell all night.", "wet weather"),
    ("Dawn broke over hills.", "early morning sunrise"),
    ("She baked rye bread.", "homemade loaf from an oven"),
    ("The dog chased a rabbit.", "canine pursuing prey"),
    ("Our train leaves at noon.", "railway departure time"),
    ("He paid with coins.", "settling a bill in cash"),
    ("The judge sentenced a thief.", "court punishes robber"),
    ("Whales swim across oceans.", "marine mammals travelling seas"),
    ("The doctor treated his broken leg.", "physician healing a fracture"),
    ("Snow covered the village roofs.", "winter weather in a small town"),
];

#[test]
fn a_benchmark_tells_that_meaning_serves_users_better_than_words() {
    let server = Server::start();
    let api = namespace(&server, "benchmark");
    let schema = json!({ "properties": {
        "title": { "type": "string" }, "year": { "type": "integer" }, "content": { "type": "text" },
    } });
    let bucket = api.post("/v1/buckets", json!({ "bucket_name": "sentences", "bucket_schema": schema }));
    let bucket = bucket.text("/bucket_id").to_owned();
    let add = |(sentence, _): &(&str, &str)| {
        let made = api.post(&format!("/v1/buckets/{bucket}/objects"), object(sentence, 2000, sentence));
        made.text("/object_id").to_owned()
    };
    let objects: Vec<String> = MEANT.iter().map(add).collect();
    let collection = text_collection(&api, "sentences", &bucket);
    let (_, task) = submit(&api, &bucket, &objects, &collection);
    assert_eq!(wait_for_task(&api, &task), "COMPLETED");
    let feature = api.get(&format!("/v1/collections/{collection}")).text("/vector_indexes/0/feature_uri").to_owned();
    let retriever = |name: &str, mut search: Value| {
        search["query"] = json!({ "input_mode": "text", "value": "{{INPUT.query}}" });
        let parameters = json!({ "searches": [search], "final_top_k": 20 });
        let stage =
            json!({ "stage_name": "search", "config": { "stage_id": "feature_search", "parameters": parameters } });
        let body = json!({ "retriever_name": name, "collection_identifiers": [collection], "stages": [stage] });
        api.post("/v1/retrievers", body).text("/retriever_id").to_owned()
    };
    let words = retriever("words", json!({ "lexical": true }));
    let meaning = retriever("meaning", json!({ "feature_uri": feature }));
    wait_for("all sentences to be searchable", SOON, || {
        let path = format!("/v1/retrievers/{meaning}/execute");
        let hits = api.post(&path, json!({ "inputs": { "query": "anything" }, "limit": 20 })).ok();
        (hits["documents"].as_array()?.len() == MEANT.len()).then_some(())
    });
    let documents = api.list(&format!("/v1/collections/{collection}/documents/list"));
    let clicks: Vec<Value> = MEANT
        .iter()
        .enumerate()
        .map(|(number, (sentence, query))| {
            let document = documents.iter().find(|document| document["title"] == *sentence).expect("its document");
            json!({
                "feature_id": document["document_id"], "interaction_type": ["click"], "position": 5,
                "session_id": format!("session {number}"), "retriever_id": words, "execution_id": "exec_of_a_log",
                "query_snapshot": { "query": query },
            })
        })
        .collect();
    let kept = api.post("/v1/retrievers/interactions/batch", json!({ "interactions": clicks })).ok();
    assert_eq!(kept["created"], json!(MEANT.len()), "{kept}");
    let benchmark = api.post(
        "/v1/retrievers/benchmarks",
        json!({ "benchmark_name": "words or meaning", "baseline_retriever_id": words, "candidate_retriever_ids": [meaning] }),
    );
    let path = format!("/v1/retrievers/benchmarks/{}", benchmark.text("/benchmark_id"));
    let done = wait_for("the benchmark", SOON, || {
        let seen = api.get(&path).ok();
        matches!(seen["status"].as_str(), Some("completed" | "failed")).then_some(seen)
    });
    assert_eq!((&done["status"], &done["session_count"]), (&json!("completed"), &json!(12)), "{done}");
    let compared = &done["comparison"]["comparisons"][0];
    assert!(compared["ndcg_delta"]["10"].as_f64().is_some_and(|gain| gain > 0.3), "{compared}");
    assert!(compared["p_value"].as_f64().is_some_and(|p| p < 0.05), "{compared}");
    assert!(compared["confidence_interval"][0].as_f64().is_some_and(|low| low > 0.0), "{compared}");
    let advice = done["comparison"]["recommendation"].as_str().unwrap_or_default();
    assert!(advice.contains("`meaning`"), "{advice}");
    let [baseline, candidate] = &done["results"].as_array().expect("results")[..] else { panic!("{done}") };
    let rank = |result: &Value| result["metrics"]["mean_rank_clicked"].as_f64().expect("a rank");
    assert!(rank(candidate) < 2.0 && rank(baseline) > 50.0, "what is not found ranks behind everything: {done}");
    assert!(candidate["metrics"]["sessions_improved"].as_i64() > candidate["metrics"]["sessions_degraded"].as_i64());
}
