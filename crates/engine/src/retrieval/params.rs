//! Reading stage parameters: spellings, ranges, templates and places, the same way for every stage.

use super::conditions::FilterTemplate;
use super::template::{Dialect, Namespace, Node, Program, Reference, Rendered, Variables};
use serde_json::Value;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use strata_model::{Error, Fields, Result};

/// Parameters that any stage may carry and that change no result here.
const SHARED: [&str; 5] = ["cache_behavior", "cache_ttl_seconds", "hard_timeout_ms", "batch_size", "version"];

/// Turns a JSON value into a parameter; the text is its place.
pub type Check<T> = fn(&Value, &str) -> Result<T>;

/// A [`Check`] that remembers something, such as a range.
type SharedCheck<T> = Arc<dyn Fn(&Value, &str) -> Result<T> + Send + Sync>;

/// What reading parameters found besides the parameters.
#[derive(Debug, Default)]
pub struct Findings {
    pub references: Vec<Reference>,
    pub warnings: Vec<String>,
    /// Evaluations that are named, each with the place that names it.
    pub evaluations: Vec<(String, String)>,
    /// How many retrievers are around this one.
    pub depth: usize,
}

/// Parameters not read yet.
pub struct Params<'f> {
    left: Fields,
    at: String,
    findings: &'f mut Findings,
}

impl<'f> Params<'f> {
    pub fn new(fields: Fields, at: impl Into<String>, findings: &'f mut Findings) -> Self {
        Self { left: fields, at: at.into(), findings }
    }

    /// The place of a parameter, for errors.
    pub fn place(&self, name: &str) -> String {
        format!("{}.{name}", self.at)
    }

    pub fn has(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.left.get(*name).is_some_and(|v| !is_absent(v)))
    }

    /// Takes the first of `names` that is there. Null, and the text `null` that generated clients send, are absent.
    pub fn take(&mut self, names: &[&str]) -> Option<(String, Value)> {
        let mut found = None;
        for name in names {
            if let Some(value) = self.left.remove(*name).filter(|v| !is_absent(v)) {
                found.get_or_insert((format!("{}.{name}", self.at), value));
            }
        }
        found
    }

    /// Takes a parameter for which null is a value.
    pub fn take_raw(&mut self, name: &str) -> Option<Value> {
        self.left.remove(name)
    }

    /// The place of the parameters themselves.
    pub fn at(&self) -> &str {
        &self.at
    }

    /// How many retrievers are around the one that this stage is of.
    pub fn depth(&self) -> usize {
        self.findings.depth
    }

    /// A parameter that may hold templates.
    pub fn setting<T: 'static>(
        &mut self,
        names: &[&str],
        check: impl Fn(&Value, &str) -> Result<T> + Send + Sync + 'static,
    ) -> Result<Option<Setting<T>>> {
        self.setting_in(Dialect::Plain, names, check)
    }

    /// [`Params::setting`] whose templates are read in a dialect.
    pub fn setting_in<T: 'static>(
        &mut self,
        dialect: Dialect,
        names: &[&str],
        check: impl Fn(&Value, &str) -> Result<T> + Send + Sync + 'static,
    ) -> Result<Option<Setting<T>>> {
        match self.take(names) {
            Some((at, value)) => self.made(dialect, &value, at, check).map(Some),
            None => Ok(None),
        }
    }

    pub fn setting_of<T: 'static>(
        &mut self,
        value: &Value,
        at: String,
        check: impl Fn(&Value, &str) -> Result<T> + Send + Sync + 'static,
    ) -> Result<Setting<T>> {
        self.made(Dialect::Plain, value, at, check)
    }

    fn made<T: 'static>(
        &mut self,
        dialect: Dialect,
        value: &Value,
        at: String,
        check: impl Fn(&Value, &str) -> Result<T> + Send + Sync + 'static,
    ) -> Result<Setting<T>> {
        let node = self.note(Node::parse_in(value, &at, dialect)?);
        let setting = Setting { node, at, check: Arc::new(check) };
        if setting.node.is_literal() {
            (setting.check)(value, &setting.at)?;
        }
        Ok(setting)
    }

    /// A parameter that is known when the plan is made.
    pub fn fixed<T>(&mut self, names: &[&str], check: Check<T>) -> Result<Option<T>> {
        match self.take(names) {
            Some((at, value)) => check(&value, &at).map(Some),
            None => Ok(None),
        }
    }

    pub fn filter(&mut self, names: &[&str]) -> Result<Option<FilterTemplate>> {
        match self.take(names) {
            Some((at, value)) => self.filter_of(&value, &at).map(Some),
            None => Ok(None),
        }
    }

    pub fn filter_of(&mut self, value: &Value, at: &str) -> Result<FilterTemplate> {
        let filter = FilterTemplate::parse(value, at)?;
        self.findings.references.extend(filter.references());
        Ok(filter)
    }

    /// A template with loops.
    pub fn program(&mut self, names: &[&str]) -> Result<Option<Program>> {
        let Some((at, value)) = self.take(names) else { return Ok(None) };
        let Value::String(source) = value else { return Err(Error::invalid(at, "must be a string")) };
        self.program_of(&source, &at).map(Some)
    }

    pub fn program_of(&mut self, source: &str, at: &str) -> Result<Program> {
        let program = Program::parse(source, at)?;
        self.findings.references.extend(program.references().iter().cloned());
        Ok(program)
    }

    /// Remembers what a node reads.
    pub fn note(&mut self, node: Node) -> Node {
        self.findings.references.extend(node.references());
        node
    }

    /// Remembers that the stage reads something beside its templates.
    pub fn reads(&mut self, reference: Reference) {
        self.findings.references.push(reference);
    }

    /// Remembers that an evaluation is named at a place; whether it is there is looked up when the plan is made.
    pub fn names_evaluation(&mut self, evaluation_id: String, at: String) {
        self.findings.evaluations.push((evaluation_id, at));
    }

    pub fn warn(&mut self, warning: impl Into<String>) {
        self.findings.warnings.push(warning.into());
    }

    /// Parameters below this place, with the same findings.
    pub fn below(&mut self, fields: Fields, at: String) -> Params<'_> {
        Params { left: fields, at, findings: self.findings }
    }

    /// Warns about what no stage has read.
    pub fn finish(self) {
        for name in self.left.keys().filter(|name| !SHARED.contains(&name.as_str())) {
            self.findings
                .warnings
                .push(format!("`{}.{name}` is not a parameter of this stage and was ignored", self.at));
        }
    }
}

/// Whether a parameter counts as not sent.
pub fn is_absent(value: &Value) -> bool {
    value.is_null() || value.as_str() == Some("null")
}

/// A parameter whose value may be known only when the plan is executed.
#[derive(Clone)]
pub struct Setting<T> {
    node: Node,
    at: String,
    check: SharedCheck<T>,
}

impl<T> fmt::Debug for Setting<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.node)
    }
}

impl<T> Setting<T> {
    /// The value, or `None` where an input it reads was not sent.
    pub fn value(&self, variables: &Variables) -> Result<Option<T>> {
        match self.node.render(variables)? {
            Rendered::Value(value) if is_absent(&value) => Ok(None),
            Rendered::Value(value) => (self.check)(&value, &self.at).map(Some),
            Rendered::Missing(_) => Ok(None),
        }
    }
    /// The value; what is not there is the caller's error at the setting's place.
    pub fn needed(&self, variables: &Variables) -> Result<T> {
        self.value(variables)?.ok_or_else(|| {
            let read: Vec<String> = self.node.references().iter().map(Reference::to_string).collect();
            Error::invalid(&self.at, format!("has no value: nothing is there of {}", read.join(", ")))
        })
    }
    /// Names of the secrets that its templates read.
    pub fn secrets(&self) -> Vec<String> {
        self.node.references().iter().filter_map(Reference::secret).map(str::to_owned).collect()
    }
    /// Whether its templates read anything of a namespace.
    pub fn reads(&self, namespace: Namespace) -> bool {
        self.node.references().iter().any(|reference| reference.namespace == namespace)
    }
    /// Its place in the retriever.
    pub fn at(&self) -> &str {
        &self.at
    }
    /// The value where no template is in it.
    pub fn literal(&self) -> Option<T> {
        match &self.node {
            Node::Literal(value) => (self.check)(value, &self.at).ok(),
            _ => None,
        }
    }
}

/// The value of an optional setting, or the default.
pub fn value_or<T>(setting: Option<&Setting<T>>, variables: &Variables, default: T) -> Result<T> {
    Ok(match setting {
        Some(setting) => setting.value(variables)?.unwrap_or(default),
        None => default,
    })
}

/// A whole number; text that is one counts.
pub fn count(range: RangeInclusive<u64>) -> impl Fn(&Value, &str) -> Result<usize> + Send + Sync + 'static {
    move |value, at| {
        let whole = |f: f64| (f.fract() == 0.0 && f >= 0.0).then_some(f as u64);
        let number =
            value.as_u64().or_else(|| value.as_f64().and_then(whole)).or_else(|| value.as_str()?.trim().parse().ok());
        match number.filter(|n| range.contains(n)) {
            Some(n) => Ok(n as usize),
            None => Err(Error::invalid(at, format!("must be an integer from {} to {}", range.start(), range.end()))),
        }
    }
}

/// A number; text that is one counts.
pub fn number(range: RangeInclusive<f64>) -> impl Fn(&Value, &str) -> Result<f64> + Send + Sync + 'static {
    move |value, at| {
        let number = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
        number.filter(|n| range.contains(n)).ok_or_else(|| {
            let bounds = match (*range.start(), *range.end()) {
                (least, most) if most < f64::MAX => format!("from {least} to {most}"),
                (least, _) if least > 0.0 && least <= f64::MIN_POSITIVE => "above 0".into(),
                (least, _) if least > f64::MIN => format!("of at least {least}"),
                _ => "that is finite".into(),
            };
            Error::invalid(at, format!("must be a number {bounds}"))
        })
    }
}

pub fn text(value: &Value, at: &str) -> Result<String> {
    match value {
        Value::String(text) if !text.trim().is_empty() => Ok(text.clone()),
        Value::String(_) => Err(Error::invalid(at, "must not be empty")),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err(Error::invalid(at, "must be a string")),
    }
}

/// One text or a list of them.
pub fn texts(value: &Value, at: &str) -> Result<Vec<String>> {
    match value {
        Value::Array(list) => list.iter().enumerate().map(|(i, v)| text(v, &format!("{at}.{i}"))).collect(),
        one => Ok(vec![text(one, at)?]),
    }
}

pub fn flag(value: &Value, at: &str) -> Result<bool> {
    match value {
        Value::Bool(flag) => Ok(*flag),
        Value::String(text) if text == "true" || text == "false" => Ok(text == "true"),
        _ => Err(Error::invalid(at, "must be true or false")),
    }
}

/// One of a few words.
pub fn choice<T: Copy>(value: &Value, at: &str, known: &[(&str, T)]) -> Result<T> {
    let found = value.as_str().and_then(|text| known.iter().find(|(name, _)| *name == text));
    found.map(|(_, choice)| *choice).ok_or_else(|| {
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        Error::invalid(at, format!("must be one of {}", names.join(", ")))
    })
}
