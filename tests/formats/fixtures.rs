//! Reading the fixtures of stored formats; `tests/fixtures/formats/make.py` says what they are and makes them.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use flate2::read::GzDecoder;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::io::Read;
use std::path::{Path, PathBuf};
use strata_store::catalog::rusqlite::Connection;

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/formats").join(name)
}

/// The bytes of a compressed fixture.
fn read(name: &str) -> Vec<u8> {
    let packed = std::fs::read(path(name)).unwrap_or_else(|_| {
        panic!("there is no fixture `{name}`: run `make fixtures`, look at what it makes, and commit that")
    });
    let mut bytes = Vec::new();
    GzDecoder::new(packed.as_slice()).read_to_end(&mut bytes).expect("a fixture is compressed");
    bytes
}

/// Makes the data directory that a server of this schema left behind.
pub fn data_of_schema(data: &Path, schema: u64) {
    let sql = String::from_utf8(read(&format!("catalog/{schema:04}.sql.gz"))).expect("SQL is text");
    lay_catalog(data, &sql);
    let world = std::fs::read(path("world.json")).expect("the world is there");
    let world: Value = serde_json::from_slice(&world).expect("the world is JSON");
    for content in world["contents"].as_array().expect("contents") {
        let bytes = STANDARD.decode(content.as_str().expect("a text")).expect("base64");
        let hash = hex::encode(Sha256::digest(&bytes));
        let folder = data.join("blobs").join(&hash[..2]).join(&hash[2..4]);
        std::fs::create_dir_all(&folder).expect("made");
        std::fs::write(folder.join(hash), bytes).expect("written");
    }
}

/// Makes a data directory with the catalog that this SQL makes.
pub fn lay_catalog(data: &Path, sql: &str) {
    std::fs::create_dir_all(data).expect("made");
    let connection = open(data);
    connection.pragma_update(None, "journal_mode", "WAL").expect("set");
    // Rows come table by table.
    connection.pragma_update(None, "foreign_keys", "OFF").expect("set");
    connection.execute_batch(sql).expect("the SQL of a fixture runs");
}

/// The catalog of a directory that no server uses.
pub fn open(data: &Path) -> Connection {
    Connection::open(data.join("catalog.db")).expect("the catalog opens")
}

/// One number that the catalog of a directory answers.
pub fn number(data: &Path, sql: &str) -> u64 {
    let found: i64 = open(data).query_row(sql, [], |row| row.get(0)).expect("the question has an answer");
    found.unsigned_abs()
}

/// Unpacks an archive into a new directory.
pub fn unpack(name: &str, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    tar::Archive::new(read(name).as_slice()).unpack(to).expect("an archive unpacks");
}

/// Every file below a directory and its bytes.
pub fn files(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(inner) = waiting.pop() {
        for entry in std::fs::read_dir(&inner).expect("listed") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                waiting.push(path);
            } else {
                let bytes = std::fs::read(&path).expect("read");
                files.push((path, bytes));
            }
        }
    }
    files.sort_unstable();
    files
}
