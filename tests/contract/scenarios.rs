//! Scenarios: what the API does, as data. Each file below `scenarios` is one story: what is given, and steps with their
//! requests and answers; `scenarios/README.md` is their grammar. They run twice, over plain HTTP and through the
//! official SDK's generated client, and every operation of an area that has scenarios must occur in them.

mod file;
mod matching;
mod run;
mod transport;

use crate::support::{KEY, Server};
use file::{Library, Operation};
use std::collections::BTreeMap;
use transport::{Http, Sdk};

/// Areas of `operations.tsv` all of whose operations have scenarios.
const COVERED: [&str; 4] =
    ["documents", "interactions-evaluations-benchmarks-annotations", "lineage", "published-public-retrievers"];

#[test]
fn every_scenario_holds_over_http() {
    let library = Library::load();
    let server = Server::start();
    let failures = run::all(&library, 4, || Http::new(server.url(), KEY));
    println!("{} scenarios, {} steps", library.scenarios.len(), library.steps().count());
    assert!(failures.is_empty(), "{} steps failed\n\n{}", failures.len(), failures.join("\n\n"));
}

#[test]
fn every_scenario_holds_through_the_official_sdk() {
    let python = std::env::var("STRATA_TEST_PYTHON").expect(
        "STRATA_TEST_PYTHON names a Python that has the package `mixpeek`; `make test` prepares one and sets it",
    );
    let library = Library::load();
    let server = Server::start();
    let failures = run::all(&library, 1, || Sdk::start(&python, server.url(), KEY));
    assert!(failures.is_empty(), "{} steps failed\n\n{}", failures.len(), failures.join("\n\n"));
}

#[test]
fn every_operation_of_a_covered_area_has_a_scenario_of_its_success_and_one_of_its_refusal() {
    let library = Library::load();
    let mut seen: BTreeMap<&str, (bool, bool)> = BTreeMap::new();
    for step in library.steps() {
        let (done, refused) = seen.entry(step.call.as_deref().unwrap_or_default()).or_default();
        *done |= (200..300).contains(&step.expect.status);
        *refused |= (400..500).contains(&step.expect.status);
    }
    let operations = Operation::all();
    let covered = operations.values().filter(|operation| COVERED.contains(&operation.area.as_str()));
    let missing: Vec<String> = covered
        .filter_map(|operation| {
            let (done, refused) = seen.get(operation.id.as_str()).copied().unwrap_or_default();
            let lacks =
                [(!done, "a step that answers 2xx"), (!refused && operation.can_be_refused(), "one that answers 4xx")];
            let lacks: Vec<&str> = lacks.into_iter().filter_map(|(lacks, what)| lacks.then_some(what)).collect();
            (!lacks.is_empty()).then(|| format!("`{}` has no scenario with {}", operation.id, lacks.join(" and ")))
        })
        .collect();
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}
