//! What the tests share: a server process, a JSON client, waiting on conditions, and a world with one of everything.

mod api;
pub mod colbert;
#[expect(dead_code, reason = "what the tests of the models need besides")]
pub mod cross_encoder;
mod hits;
mod openapi;
pub mod postgres;
pub mod provider;
mod random;
pub mod receiver;
mod server;
mod world;

pub use api::{Answer, Api};
pub use hits::hits;
pub use openapi::Operation;
pub use random::Random;
pub use server::{KEY, Server};
pub use world::{World, ended, object, retriever_body, submit, text_collection, wait_for_task};

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Every file below a directory, in order.
pub fn files_under(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut waiting = vec![dir.to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in std::fs::read_dir(&dir).expect("the directory can be listed") {
            let path = entry.expect("an entry").path();
            if path.is_dir() { waiting.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    files
}

/// Width and height that a JPEG says it has.
pub fn jpeg_size(bytes: &[u8]) -> (u16, u16) {
    assert_eq!(bytes.get(..2), Some(&[0xff, 0xd8][..]), "a JPEG");
    let mut at = 2;
    loop {
        let (marker, length) = (bytes[at + 1], u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
        if (0xc0..=0xc2).contains(&marker) {
            let side = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
            return (side(at + 7), side(at + 5));
        }
        at += 2 + usize::from(length);
    }
}

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
