//! Runs scenarios and tells all that was not as expected.

use super::{
    file::{Library, Scenario, Step},
    matching::differences,
    transport::{Answer, Request, Transport},
};
use serde_json::{Map, Value};
use std::{
    collections::BTreeSet,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// How long a step with `until` asks again.
const PATIENCE: Duration = Duration::from_secs(60);
/// Most of a request or an answer that a failure shows, in characters.
const SHOWN: usize = 2000;

/// Runs the chosen scenarios, several at a time; answers what failed.
pub fn all<T: Transport>(library: &Library, workers: usize, connect: impl Fn() -> T + Sync) -> Vec<String> {
    let (chosen, next, failures) = (library.chosen(), AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                let mut transport = connect();
                while let Some(scenario) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let started = Instant::now();
                    let mut run = Run::new(library, scenario, &mut transport);
                    run.scenario(scenario);
                    println!("{} took {} ms", scenario.name, started.elapsed().as_millis());
                    failures.lock().expect("no worker panics while it holds the failures").extend(run.failures);
                }
            });
        }
    });
    let mut failures = failures.into_inner().expect("no worker panicked");
    failures.sort();
    failures
}

struct Run<'a, T> {
    library: &'a Library,
    transport: &'a mut T,
    /// What was saved, by name.
    saved: Map<String, Value>,
    made: BTreeSet<String>,
    failures: Vec<String>,
}

/// A name that nothing was saved under.
struct Unknown(String);

impl<'a, T: Transport> Run<'a, T> {
    fn new(library: &'a Library, scenario: &Scenario, transport: &'a mut T) -> Self {
        let own = scenario.name.replace(['/', '_'], "-");
        let saved = Map::from_iter([("scenario".to_owned(), Value::from(own))]);
        Self { library, transport, saved, made: BTreeSet::new(), failures: Vec::new() }
    }

    /// What is given first, each thing once; then the steps. Steps whose names were not saved, since another failed,
    /// are passed over.
    fn scenario(&mut self, scenario: &Scenario) {
        for given in &scenario.given {
            if self.made.insert(given.clone()) {
                self.scenario(&self.library.given[given]);
            }
            if !self.failures.is_empty() {
                return;
            }
        }
        for (number, step) in scenario.steps.iter().enumerate() {
            let at = format!("{}, step {}, \"{}\" ({})", scenario.name, number + 1, step.shows, scenario.title);
            match self.step(step) {
                Ok(None) => {}
                Ok(Some(failure)) => self.failures.push(format!("{at}\n{failure}")),
                Err(Unknown(_)) if !self.failures.is_empty() => {}
                Err(Unknown(name)) => self.failures.push(format!("{at}\n  nothing is saved as `{name}`")),
            }
        }
    }

    /// Answers what was not as expected.
    fn step(&mut self, step: &Step) -> Result<Option<String>, Unknown> {
        let request = self.request(step)?;
        let expected = step.expect.body.as_ref().map(|body| self.filled(body)).transpose()?;
        let started = Instant::now();
        loop {
            let answer = self.transport.send(&request);
            let mut wrong = self.wrong(step, expected.as_ref(), &answer);
            if wrong.is_empty() {
                for (name, pointer) in &step.save {
                    match answer.body.pointer(pointer) {
                        Some(value) => drop(self.saved.insert(name.clone(), value.clone())),
                        None => wrong.push(format!("{pointer}: expected something to save, found nothing")),
                    }
                }
            }
            if wrong.is_empty() {
                return Ok(None);
            }
            if !step.until || started.elapsed() > PATIENCE || answer.problem.is_some() {
                return Ok(Some(told(&request, &answer, &wrong)));
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    fn wrong(&self, step: &Step, expected: Option<&Value>, answer: &Answer) -> Vec<String> {
        let mut wrong: Vec<String> = answer.problem.iter().cloned().collect();
        if answer.status != step.expect.status {
            wrong.push(format!("expected status {}, found {}", step.expect.status, answer.status));
        } else if let Some(expected) = expected {
            wrong.extend(differences(expected, Some(&answer.body)));
        }
        wrong
    }

    fn request(&self, step: &Step) -> Result<Request, Unknown> {
        let mut request = Request { raw: step.raw.is_some(), ..Request::default() };
        if let Some(url) = &step.fetch {
            request.fetch = Some(text(&self.filled(&Value::from(url.as_str()))?));
            return Ok(request);
        }
        let operation = &self.library.operations[step.call.as_deref().unwrap_or_default()];
        request.method = operation.method.clone();
        request.template = operation.path.clone();
        for parameter in operation.parameters() {
            let value = match step.path.get(parameter) {
                Some(said) => text(&self.filled(said)?),
                None => text(self.implied(parameter)?),
            };
            request.path.insert(parameter.to_owned(), value);
        }
        for (name, value) in &step.query {
            request.query.insert(name.clone(), self.filled(value)?);
        }
        request.headers.extend(self.saved.get("namespace_id").map(|id| ("X-Namespace".to_owned(), text(id))));
        for (name, value) in &step.headers {
            request.headers.insert(name.clone(), text(&self.filled(value)?));
        }
        request.body = step.body.as_ref().map(|body| self.filled(body)).transpose()?;
        Ok(request)
    }

    /// The value of a path parameter that a step leaves out: what is saved under its name; `x_identifier` takes `x_id`.
    fn implied(&self, parameter: &str) -> Result<&Value, Unknown> {
        let by_id = parameter.strip_suffix("_identifier").map(|what| format!("{what}_id"));
        let found = self.saved.get(parameter).or_else(|| self.saved.get(&by_id?));
        found.ok_or_else(|| Unknown(parameter.to_owned()))
    }

    /// The value with `${name}` replaced by what is saved; alone in a text it keeps its type.
    fn filled(&self, value: &Value) -> Result<Value, Unknown> {
        let filled = match value {
            Value::String(text) => return self.filled_text(text),
            Value::Array(list) => Value::Array(list.iter().map(|value| self.filled(value)).collect::<Result<_, _>>()?),
            Value::Object(map) => {
                let each = map.iter().map(|(key, value)| Ok((text(&self.filled_text(key)?), self.filled(value)?)));
                Value::Object(each.collect::<Result<_, Unknown>>()?)
            }
            plain => plain.clone(),
        };
        Ok(filled)
    }

    fn filled_text(&self, whole: &str) -> Result<Value, Unknown> {
        let (mut filled, mut rest) = (String::new(), whole);
        while let Some((before, after)) = rest.split_once("${") {
            let (name, after) = after.split_once('}').expect("`${` has its `}`");
            let value = self.saved.get(name).ok_or_else(|| Unknown(name.to_owned()))?;
            if before.is_empty() && after.is_empty() && filled.is_empty() {
                return Ok(value.clone());
            }
            filled.push_str(before);
            filled.push_str(&text(value));
            rest = after;
        }
        Ok(Value::from(filled + rest))
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn told(request: &Request, answer: &Answer, wrong: &[String]) -> String {
    let short = |text: String| match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    };
    let mut lines =
        vec![short(request.to_string()), format!("answered {}: {}", answer.status, short(answer.body.to_string()))];
    lines.extend(wrong.iter().cloned());
    lines.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}
