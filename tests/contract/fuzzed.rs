//! Requests that schemathesis makes up from the OpenAPI document. The program comes from the folder of the interpreter in
//! `STRATA_TEST_PYTHON`, which `make test` sets; `STRATA_FUZZ_EXAMPLES` says how many it makes for each operation.

use crate::support::{KEY, Server};
use std::path::Path;
use std::process::Command;

#[test]
fn no_request_that_the_document_allows_or_forbids_answers_5xx() {
    let python = std::env::var("STRATA_TEST_PYTHON").expect(
        "STRATA_TEST_PYTHON names a Python that has the package `schemathesis`; `make test` prepares one and sets it",
    );
    let program = Path::new(&python).with_file_name("schemathesis");
    let examples = std::env::var("STRATA_FUZZ_EXAMPLES").unwrap_or_else(|_| "2".to_owned());
    let server = Server::start();
    // One worker: `ast.parse` of CPython 3.11 counts its depth across threads and fails in one at random (gh-106905).
    let output = Command::new(program)
        .args(["run", &format!("{}/openapi.json", server.url())])
        .args(["--header", &format!("Authorization: Bearer {KEY}")])
        .args(["--checks", "not_a_server_error", "--max-examples", &examples, "--workers", "1", "--seed", "7"])
        .args(["--generation-database", "none"])
        .current_dir(server.data_dir())
        .output()
        .expect("schemathesis runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
