//! What the tests share: a server process, a JSON client, waiting on conditions, and a world with one of everything.

mod api;
#[expect(dead_code, reason = "what the tests of the models need besides")]
pub mod cross_encoder;
mod openapi;
pub mod postgres;
pub mod provider;
mod random;
mod server;
mod world;

pub use api::{Answer, Api};
pub use openapi::Operation;
pub use random::Random;
pub use server::{KEY, Server};
pub use world::{World, ended, object, retriever_body, submit, text_collection, wait_for_task};

use std::time::{Duration, Instant};

/// How long a test waits for something that should happen soon.
pub const SOON: Duration = Duration::from_secs(60);

/// Asks until there is an answer; panics with what was awaited when the deadline passes.
#[track_caller]
pub fn wait_for<T>(what: &str, deadline: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(started.elapsed() < deadline, "waited {deadline:?} in vain for {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}
