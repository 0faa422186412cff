//! Requests that schemathesis makes up from the OpenAPI document: what the document allows, what it forbids, and chains
//! of requests in which ids from answers go into the next ones. No answer may be a fault of the server, and each must be
//! one that the document states: status, content type and schema.
//!
//! The program comes from the folder of the interpreter in `STRATA_TEST_PYTHON`, which `make test` sets. The short form goes
//! once through every bound and every type of every parameter, and makes 30 chains. With `STRATA_FUZZ_SECONDS` each of these
//! tests goes on with random requests for about so long, `STRATA_FUZZ_EXAMPLES` at a time for each operation. The operations
//! are divided among tests, which run beside each other.

use crate::support::{KEY, Server, World};
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";
/// What does not depend on chance.
const ONCE: &str = "examples,coverage";
/// Operations that can take away the key that requests are sent with.
const ENDS_KEYS: &str = "/users/.user_email.$|/api-keys/.key_name.";

#[test]
fn requests_about_retrievers_are_answered_as_the_document_says() {
    the_world_is_asked(&["--include-path-regex", "^/v1/retrievers"]);
}

#[test]
fn requests_about_buckets_and_namespaces_are_answered_as_the_document_says() {
    the_world_is_asked(&["--include-path-regex", "^/v1/(buckets|namespaces)"]);
}

#[test]
fn requests_about_collections_and_documents_are_answered_as_the_document_says() {
    the_world_is_asked(&["--include-path-regex", "^/v1/(collections|documents|annotations)"]);
}

#[test]
fn requests_about_everything_else_are_answered_as_the_document_says() {
    the_world_is_asked(&[
        "--include-path-regex",
        "^/v1/(?!retrievers|buckets|namespaces|collections|documents|annotations)",
    ]);
}

#[test]
fn deletions_and_chains_of_requests_are_answered_as_the_document_says() {
    let server = Server::start();
    let world = World::create(&server.api(), "chains");
    let fuzzer = Fuzzer::new(&server, &[("header.X-Namespace", world.id("namespace_id"))]);
    // What is refused makes no id that the next request could name.
    fuzzer.run_long(&["--phases", "stateful", "--mode", "positive", "--exclude-path-regex", ENDS_KEYS]);
    fuzzer.run(&["--phases", ONCE, "--include-method", "DELETE", "--exclude-path-regex", ENDS_KEYS]);
    assert_eq!(server.api().get("/v1/me").status, 200, "the key was ended, and what came then tested nothing");
    fuzzer.run(&["--phases", ONCE, "--include-path-regex", ENDS_KEYS]);
}

/// Sends requests of some operations, most of them about things that are there. Those that end something would end these.
fn the_world_is_asked(operations: &[&str]) {
    let server = Server::start();
    let world = World::create(&server.api(), "world").with_snapshot();
    let ids = world.ids.iter().map(|(name, id)| (format!("path.{name}"), id.as_str()));
    let known: Vec<(String, &str)> = ids.chain([("header.X-Namespace".to_owned(), world.id("namespace_id"))]).collect();
    let known: Vec<(&str, &str)> = known.iter().map(|(name, id)| (name.as_str(), *id)).collect();
    let fuzzer = Fuzzer::new(&server, &known);
    let phases = if fuzzer.seconds.is_some() { "examples,coverage,fuzzing,stateful" } else { ONCE };
    let others = ["--phases", phases, "--exclude-method", "DELETE", "--exclude-path-regex", ENDS_KEYS];
    fuzzer.run_long(&[operations, &others].concat());
    assert_eq!(server.api().get("/v1/me").status, 200, "the key was ended, and what came then tested nothing");
}

struct Fuzzer<'a> {
    server: &'a Server,
    examples: String,
    seconds: Option<String>,
}

impl<'a> Fuzzer<'a> {
    /// One that puts most of the time the known value where a parameter is asked for.
    fn new(server: &'a Server, known: &[(&str, &str)]) -> Self {
        // That a model or a provider is not there is no fault; the answer says what to do.
        let mut settings =
            "[checks]\nnot_a_server_error.expected-statuses = [\"2xx\", \"3xx\", \"4xx\", \"502\", \"503\"]\n"
                .to_owned();
        for (n, (_, value)) in known.iter().enumerate() {
            writeln!(settings, "[dictionaries.known{n}]\nvalues = [{value:?}]").expect("a text takes all");
        }
        settings.push_str("[parameters]\n");
        for (n, (name, _)) in known.iter().enumerate() {
            let binding = format!("{name:?} = {{ dictionary = \"known{n}\", probability = 0.8 }}");
            writeln!(settings, "{binding}").expect("a text takes all");
        }
        std::fs::write(server.data_dir().join("schemathesis.toml"), settings).expect("the settings are written");
        let examples = std::env::var("STRATA_FUZZ_EXAMPLES").unwrap_or_else(|_| "30".to_owned());
        Self { server, examples, seconds: std::env::var("STRATA_FUZZ_SECONDS").ok() }
    }

    /// [`Fuzzer::run`], for as long as `STRATA_FUZZ_SECONDS` says, if it does.
    fn run_long(&self, arguments: &[&str]) {
        match &self.seconds {
            Some(seconds) => self.run(&[arguments, &["--max-time", seconds.as_str()]].concat()),
            None => self.run(arguments),
        }
    }

    fn run(&self, arguments: &[&str]) {
        let python = std::env::var("STRATA_TEST_PYTHON").expect(
            "STRATA_TEST_PYTHON names a Python that has the package `schemathesis`; `make test` prepares one and sets it",
        );
        let mut command = Command::new(Path::new(&python).with_file_name("schemathesis"));
        // One worker: `ast.parse` of CPython 3.11 counts its depth across threads and fails in one at random (gh-106905).
        command
            .args(["--config-file", "schemathesis.toml", "run", &format!("{}/openapi.json", self.server.url())])
            .args(["--header", &format!("Authorization: Bearer {KEY}"), "--checks", CHECKS])
            .args(["--max-examples", &self.examples, "--workers", "1", "--seed", "7"])
            .args(["--generation-database", "none", "--no-color", "--continue-on-failure"])
            // How fast the machine is decides nothing.
            .args(["--suppress-health-check", "all", "--request-timeout", "90"])
            .args(arguments)
            .current_dir(self.server.data_dir());
        let output = command.output().expect("schemathesis runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        if self.seconds.is_some() {
            println!("{said}");
        }
    }
}
