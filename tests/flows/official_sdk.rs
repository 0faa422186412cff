//! The official Python SDK against a real server, both of its clients. The interpreter that has it comes from
//! `STRATA_TEST_PYTHON`, which `make test` sets.

use crate::support::{KEY, Server};
use std::process::Command;

#[test]
fn both_clients_of_the_official_sdk_run_the_whole_path() {
    let python = std::env::var("STRATA_TEST_PYTHON").expect(
        "STRATA_TEST_PYTHON names a Python that has the package `mixpeek`; `make test` prepares one and sets it",
    );
    let server = Server::start();
    for client in ["high_level", "brought_vectors", "generated"] {
        let output = Command::new(&python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/flows/sdk.py"))
            .args([client, server.url(), KEY])
            .output()
            .expect("STRATA_TEST_PYTHON is a program");
        assert!(
            output.status.success(),
            "{client}\n{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
