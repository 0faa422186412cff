//! What the server should hold, as maps.

use crate::support::Random;
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub const KINDS: [&str; 3] = ["bird", "stone", "tool"];
const WORDS: [&str; 8] = ["amber", "birch", "copper", "dune", "ember", "fjord", "grove", "heath"];

/// The fields of an object or a document.
#[derive(Debug, Clone, PartialEq)]
pub struct Thing {
    pub number: i64,
    pub kind: &'static str,
    pub words: String,
}

impl Thing {
    pub fn to_json(&self) -> Value {
        json!({ "number": self.number, "kind": self.kind, "words": self.words })
    }

    /// As the server shows it.
    pub fn of(row: &Value) -> Self {
        let kind = row["kind"].as_str().unwrap_or_default();
        Self {
            number: row["number"].as_i64().unwrap_or_else(|| panic!("a number in {row}")),
            kind: KINDS.into_iter().find(|known| *known == kind).unwrap_or_else(|| panic!("a kind in {row}")),
            words: row["words"].as_str().unwrap_or_default().to_owned(),
        }
    }
}

#[derive(Default)]
pub struct Twin {
    pub objects: BTreeMap<String, Thing>,
    /// By root object, as it was when it was last derived.
    pub all: BTreeMap<String, Thing>,
    pub some: BTreeMap<String, Thing>,
    /// By document id, with its vector.
    pub brought: BTreeMap<String, (Thing, [f64; 4])>,
}

impl Twin {
    pub fn derive(&mut self, ids: &[String]) {
        for id in ids {
            let thing = self.objects[id].clone();
            if thing.kind == KINDS[0] {
                self.some.insert(id.clone(), thing.clone());
            }
            self.all.insert(id.clone(), thing);
        }
    }

    /// Answers how many documents of each tier go with it.
    pub fn remove_object(&mut self, id: &str) -> (u64, u64) {
        self.objects.remove(id);
        (u64::from(self.all.remove(id).is_some()), u64::from(self.some.remove(id).is_some()))
    }
}

pub fn words(random: &mut Random) -> String {
    let count = 1 + random.below(4);
    let chosen: Vec<&str> = (0..count).map(|_| WORDS[random.below(WORDS.len() as u64) as usize]).collect();
    chosen.join(" ")
}

/// A direction.
pub fn place(random: &mut Random) -> [f64; 4] {
    // None is at the origin.
    std::array::from_fn(|n| random.below(201) as f64 - 100.0 + if n == 0 { 0.5 } else { 0.0 })
}

/// The cosine.
pub fn similarity(a: &[f64; 4], b: &[f64; 4]) -> f64 {
    let dot = |x: &[f64; 4], y: &[f64; 4]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
