//! Scenario files, and the operations that their steps call.

use serde::Deserialize;
use serde_json::{Map, Value};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// The folder of what scenarios may name as given.
const GIVEN: &str = "given";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Folder and name, without the ending.
    #[serde(skip)]
    pub name: String,
    pub title: String,
    #[expect(dead_code, reason = "for the reader of the file")]
    pub shows: String,
    #[serde(default)]
    pub given: Vec<String>,
    pub steps: Vec<Step>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    pub shows: String,
    /// An operation id of `operations.tsv`.
    pub call: Option<String>,
    /// Instead of `call`: a URL to read, without a key.
    pub fetch: Option<String>,
    #[serde(default)]
    pub path: Map<String, Value>,
    #[serde(default)]
    pub query: Map<String, Value>,
    #[serde(default)]
    pub headers: Map<String, Value>,
    pub body: Option<Value>,
    #[serde(default)]
    pub expect: Expect,
    /// Names to JSON pointers into the answer's body.
    #[serde(default)]
    pub save: BTreeMap<String, String>,
    /// Whether to ask again until the answer is as expected.
    #[serde(default)]
    pub until: bool,
    /// Why the SDK cannot send this request.
    pub raw: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    #[serde(default = "ok")]
    pub status: u16,
    pub body: Option<Value>,
}

impl Default for Expect {
    fn default() -> Self {
        Self { status: ok(), body: None }
    }
}

fn ok() -> u16 {
    200
}

/// A line of `operations.tsv`.
#[derive(Debug, Clone)]
pub struct Operation {
    pub method: String,
    pub path: String,
    pub id: String,
    pub area: String,
}

impl Operation {
    /// All of them by id, or by method and path where another one has the id.
    pub fn all() -> BTreeMap<String, Self> {
        let lines = include_str!("../operations.tsv").lines().filter(|line| !line.starts_with('#'));
        let read = |line: &str| {
            let columns: Vec<&str> = line.split('\t').collect();
            let [method, path, id, _, area] = columns[..] else { panic!("`{line}` has not five columns") };
            let text = str::to_owned;
            (text(id), Self { method: text(method), path: text(path), id: text(id), area: text(area) })
        };
        let mut all = BTreeMap::new();
        for (id, operation) in lines.map(read) {
            // An id that several operations have is that of the last; the others go by method and path.
            if let Some(other) = all.insert(id, operation) {
                let id = format!("{} {}", other.method, other.path);
                all.insert(id.clone(), Self { id, ..other });
            }
        }
        all
    }

    /// Names of the parameters in the path.
    pub fn parameters(&self) -> impl Iterator<Item = &str> {
        self.path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
    }

    /// Whether it takes something that can be wrong.
    pub fn can_be_refused(&self) -> bool {
        self.method != "GET" || self.parameters().next().is_some()
    }
}

/// All scenarios, and what they may name as given.
pub struct Library {
    pub scenarios: Vec<Scenario>,
    pub given: BTreeMap<String, Scenario>,
    pub operations: BTreeMap<String, Operation>,
}

impl Library {
    pub fn load() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/contract/scenarios");
        let folders = entries(&root).into_iter().filter(|entry| entry.is_dir());
        let files =
            folders.flat_map(|folder| entries(&folder)).filter(|file| file.extension().is_some_and(|e| e == "yaml"));
        let read: Vec<Scenario> = files.map(|file| read(&root, &file)).collect();
        let (given, scenarios): (Vec<_>, Vec<_>) = read.into_iter().partition(|s| s.name.starts_with(GIVEN));
        let library = Self {
            scenarios,
            given: given.into_iter().map(|s| (s.name[GIVEN.len() + 1..].to_owned(), s)).collect(),
            operations: Operation::all(),
        };
        library.check();
        library
    }

    /// The scenarios to run: all, or those that have `STRATA_SCENARIO` in their names.
    pub fn chosen(&self) -> Vec<&Scenario> {
        let part = std::env::var("STRATA_SCENARIO").unwrap_or_default();
        self.scenarios.iter().filter(|scenario| scenario.name.contains(&part)).collect()
    }

    /// The steps of all scenarios; what is given does not count.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.scenarios.iter().flat_map(|scenario| &scenario.steps)
    }

    fn check(&self) {
        for scenario in self.scenarios.iter().chain(self.given.values()) {
            let name = &scenario.name;
            assert!(!scenario.steps.is_empty(), "{name} has no steps");
            for given in &scenario.given {
                assert!(self.given.contains_key(given), "{name}: there is no `{given}` to be given");
            }
            for step in &scenario.steps {
                let at = format!("{name}, \"{}\"", step.shows);
                assert!(step.call.is_some() != step.fetch.is_some(), "{at}: has `call` or `fetch`");
                let Some(call) = &step.call else { continue };
                let operation = self.operations.get(call);
                let operation = operation.unwrap_or_else(|| panic!("{at}: `{call}` is no operation"));
                for parameter in step.path.keys() {
                    let is_known = operation.parameters().any(|known| known == parameter);
                    assert!(is_known, "{at}: {} has no `{parameter}`", operation.path);
                }
            }
        }
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

fn read(root: &Path, file: &Path) -> Scenario {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    // Only `true` and `false` are truths; `n` and `on` are texts.
    let options = serde_saphyr::options! { strict_booleans: true };
    let mut scenario: Scenario = serde_saphyr::from_str_with_options(&text, options)
        .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let name = file.strip_prefix(root).expect("files lie below the root").with_extension("");
    scenario.name = name.to_string_lossy().into_owned();
    scenario
}
