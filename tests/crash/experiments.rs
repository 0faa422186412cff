//! `kill -9` and a stop under an evaluation: it begins again and ends, with its task.

use crate::support::{SOON, Server, World, ended, wait_for};
use serde_json::{Value, json};

#[test]
fn an_evaluation_that_the_end_of_the_process_cuts_short_runs_again_to_its_end() {
    let mut server = Server::start();
    let world = World::create(&server.api(), "cut");
    let query = |number: usize| {
        let inputs = json!({ "query": format!("a stream of the number {number} and some words to read") });
        json!({ "query_id": format!("q{number}"), "query_input": inputs, "relevant_documents": [world.id("document_id")] })
    };
    let queries: Vec<Value> = (0..600).map(query).collect();
    let dataset = json!({ "dataset_name": "long", "queries": queries });
    world.api.post("/v1/retrievers/evaluations/datasets", dataset).ok();
    let path = format!("/v1/retrievers/{}/evaluations", world.id("retriever_id"));
    let started = world.api.post(&path, json!({ "dataset_name": "long" }));
    let (task, evaluation) = (started.text("/task_id").to_owned(), started.text("/evaluation_id").to_owned());
    let within = |server: &Server| server.api().within(world.id("namespace_id"));
    let begun = |server: &Server| {
        wait_for("the evaluation to begin", SOON, || {
            let status = within(server).get(&format!("{path}/{evaluation}")).text("/status").to_owned();
            (status != "pending").then_some(status)
        })
    };
    assert_eq!(begun(&server), "in_progress", "it takes long enough to be cut short");
    server.kill();
    server.start_again();
    begun(&server);
    server.stop();
    server.start_again();
    let api = within(&server);
    let status = wait_for("the task to end", SOON, || {
        let status = api.get(&format!("/v1/tasks/{task}")).text("/status").to_owned();
        ended(&status).then_some(status)
    });
    let record = api.get(&format!("{path}/{evaluation}")).ok();
    assert_eq!((status.as_str(), &record["status"]), ("COMPLETED", &json!("completed")), "{}", record["error_message"]);
    assert_eq!(record["evaluated_queries"], json!(600));

    // One that is canceled stays ended.
    let started = api.post(&path, json!({ "dataset_name": "long" }));
    api.delete(&format!("/v1/tasks/{}", started.text("/task_id"))).ok();
    assert_eq!(api.delete(&format!("/v1/tasks/{}", started.text("/task_id"))).status, 409);
    let record = api.get(&format!("{path}/{}", started.text("/evaluation_id"))).ok();
    assert_eq!(record["status"], json!("failed"), "{record}");
    let task = api.get(&format!("/v1/tasks/{}", started.text("/task_id"))).ok();
    assert_eq!(task["status"], json!("CANCELED"), "{task}");
}
