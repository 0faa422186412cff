//! Templates in stage parameters: `{{INPUT.query}}`, `{{doc.title}}`.
//!
//! A text that is exactly one template keeps its value's type; any other text renders to text. Templates are compiled
//! when a plan is parsed and may only read. Evaluation is bounded by having nothing to repeat with: no loops, macros,
//! includes or unbounded filters, checked operands of `*`, `~` and `+`, a depth limit, and a limit on what is rendered. Values are never compiled, so an
//! input that looks like a template stays text.

use super::{limits, operators};
use minijinja::value::{Kwargs, Object, Value as Jinja};
use minijinja::{Environment, ErrorKind, Expression, UndefinedBehavior, filters, tests as predicates};
use regex::Regex;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, LazyLock};
use strata_model::{Error, Fields, Result};

/// A root a template can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Namespace {
    /// The inputs of the execution.
    Input,
    /// The document a stage looks at.
    Doc,
    /// Results that earlier stages kept with `output_alias`.
    Context,
    /// Counts and results of earlier stages by name.
    Stage,
    /// Values of the organization's vault.
    Secret,
}

impl Namespace {
    fn parse(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "input" | "inputs" => Some(Self::Input),
            "doc" | "document" => Some(Self::Doc),
            "context" => Some(Self::Context),
            "stage" | "stages" => Some(Self::Stage),
            "secret" | "secrets" => Some(Self::Secret),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Input => "INPUT",
            Self::Doc => "DOC",
            Self::Context => "CONTEXT",
            Self::Stage => "STAGE",
            Self::Secret => "SECRET",
        }
    }
}

/// How the templates of a parameter are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Dialect {
    /// Double braces, and no secrets.
    #[default]
    Plain,
    /// A part of a request that leaves this server: secrets may be read, and `{DOC.x}` means `{{DOC.x}}`.
    Request,
    /// The URL of a request: [`Dialect::Request`], and what a template puts into it is percent-encoded, unless the URL
    /// begins with that template or the filter `safe` says that it is encoded.
    Url,
}

impl Dialect {
    fn takes_secrets(self) -> bool {
        self != Self::Plain
    }
}

/// A place that a template reads: `INPUT.query` is `(Input, Some("query"))`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    pub namespace: Namespace,
    /// Path below the namespace; `None` where it is computed.
    pub path: Option<String>,
}

impl Reference {
    /// The input's name, for a reference to one.
    pub fn input(&self) -> Option<&str> {
        let path = self.path.as_deref().filter(|_| self.namespace == Namespace::Input)?;
        path.split('.').next()
    }

    /// The secret's name, for a reference to one.
    pub fn secret(&self) -> Option<&str> {
        self.path.as_deref().filter(|_| self.namespace == Namespace::Secret)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "`{}.{path}`", self.namespace.name()),
            None => write!(f, "`{}`", self.namespace.name()),
        }
    }
}

/// A template with loops, for a stage that renders whole texts. Its steps are counted, so that it ends; it has no
/// variables of its own, so that no text can double itself; what is not there renders to nothing.
pub struct Program {
    source: String,
    /// The source with its operands checked.
    code: String,
    at: String,
    references: Vec<Reference>,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Program({:?})", self.source)
    }
}

static PROGRAMS: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut env = environment();
    env.set_undefined_behavior(UndefinedBehavior::Chainable);
    env.set_fuel(Some(limits::MAX_PROGRAM_STEPS));
    env
});

impl Program {
    /// Compiles `text`; `at` names the place for errors.
    pub fn parse(text: &str, at: &str) -> Result<Self> {
        if text.len() > limits::MAX_TEMPLATE_BYTES {
            return Err(Error::invalid(at, format!("a template is at most {} bytes long", limits::MAX_TEMPLATE_BYTES)));
        }
        let words = ["if", "elif", "else", "endif", "for", "endfor"];
        refuse_statements(text, at, &words)?;
        let broken = |e: minijinja::Error| Error::invalid(at, format!("is not a template: {}", describe(&e)));
        let code = checked(text, at)?;
        let names = PROGRAMS.template_from_str(&code).map_err(broken)?.undeclared_variables(true);
        let references = names.iter().map(|name| reference(name, at, Dialect::Plain)).collect::<Result<Vec<_>>>()?;
        let program = Self { source: text.to_owned(), code, at: at.to_owned(), references };
        let nothing = Variables::new(Fields::new(), &Fields::new(), &Fields::new());
        match program.run(&nothing) {
            Err(e) if is_unknown(e.kind()) => Err(broken(e)),
            _ => Ok(program),
        }
    }

    pub fn references(&self) -> &[Reference] {
        &self.references
    }

    pub fn render(&self, variables: &Variables) -> Result<String> {
        self.run(variables).map_err(|e| Error::invalid(&self.at, format!("cannot be evaluated: {}", describe(&e))))
    }

    fn run(&self, variables: &Variables) -> Result<String, minijinja::Error> {
        let mut sink = Bounded(Vec::new());
        let template = PROGRAMS.template_from_str(&self.code)?;
        template.render_captured_to(Jinja::from_object(variables.clone()), &mut sink)?;
        Ok(String::from_utf8_lossy(&sink.0).into_owned())
    }
}

/// The template with checks at the operands of what could make much of little.
fn checked(text: &str, at: &str) -> Result<String> {
    operators::checked(text).ok_or_else(|| {
        Error::invalid(at, format!("has more than {} products and joins", limits::MAX_TEMPLATE_OPERATORS))
    })
}

/// Most blanks of an indentation.
const MAX_INDENT: usize = 16;

/// Names are looked up when they are used, so a run over nothing finds the unknown ones.
fn is_unknown(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::UnknownFilter | ErrorKind::UnknownTest | ErrorKind::UnknownFunction)
}

/// What a template came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Rendered {
    Value(Value),
    /// It reads something that is not there. The inputs among that, by name; empty where only a document's field or a
    /// stage's result is missing.
    Missing(Vec<String>),
}

/// A compiled template.
pub struct Template {
    source: String,
    /// The source with its operands checked.
    code: String,
    at: String,
    /// `None` for a text with templates in it.
    expression: Option<Expression<'static, 'static>>,
    environment: &'static Environment<'static>,
    references: Vec<Reference>,
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Template({:?})", self.source)
    }
}

static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(environment);

static URLS: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut env = environment();
    env.add_filter("safe", filters::safe);
    env.set_formatter(|out, state, value| {
        if value.is_safe() || value.is_none() {
            return minijinja::escape_formatter(out, state, value);
        }
        let text = value.to_string();
        percent_encoded(&text).try_for_each(|piece| out.write_str(&piece).map_err(minijinja::Error::from))
    });
    env
});

/// A text as a part of a URL that keeps its meaning wherever it stands.
pub fn percent_encoded(text: &str) -> impl Iterator<Item = String> + '_ {
    text.bytes().map(|byte| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    })
}

/// Only filters whose result is no longer than a small multiple of what they read.
fn environment() -> Environment<'static> {
    let mut env = Environment::empty();
    env.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    env.set_recursion_limit(limits::MAX_TEMPLATE_DEPTH);
    env.set_keep_trailing_newline(true);
    env.add_filter("default", filters::default);
    env.add_filter("d", filters::default);
    env.add_filter("lower", filters::lower);
    env.add_filter("upper", filters::upper);
    env.add_filter("title", filters::title);
    env.add_filter("capitalize", filters::capitalize);
    env.add_filter("trim", filters::trim);
    env.add_filter("length", filters::length);
    env.add_filter("count", filters::length);
    env.add_filter("first", filters::first);
    env.add_filter("last", filters::last);
    env.add_filter("int", filters::int);
    env.add_filter("float", filters::float);
    env.add_filter("bool", filters::bool);
    env.add_filter("string", |value: &Jinja| value.to_string());
    env.add_filter("abs", filters::abs);
    env.add_filter("round", filters::round);
    env.add_filter("tojson", tojson);
    env.add_filter("join", join);
    env.add_filter(operators::NUMBER, operators::number);
    env.add_filter(operators::SHORT, operators::short);
    env.add_test("defined", predicates::is_defined);
    env.add_test("undefined", predicates::is_undefined);
    env.add_test("none", predicates::is_none);
    env.add_test("string", predicates::is_string);
    env.add_test("number", predicates::is_number);
    env.add_test("boolean", predicates::is_boolean);
    env.add_test("sequence", predicates::is_sequence);
    env.add_test("mapping", predicates::is_mapping);
    env
}

/// JSON, indented by no more than a few blanks.
fn tojson(value: &Jinja, indent: Option<Jinja>, arguments: Kwargs) -> Result<Jinja, minijinja::Error> {
    let asked = match &indent {
        Some(indent) => Some(indent.clone()),
        None => arguments.get::<Option<Jinja>>("indent")?,
    };
    if asked.and_then(|indent| usize::try_from(indent).ok()).is_some_and(|blanks| blanks > MAX_INDENT) {
        let reason = format!("`tojson` indents by at most {MAX_INDENT} blanks");
        return Err(minijinja::Error::new(ErrorKind::InvalidOperation, reason));
    }
    filters::tojson(value, indent, arguments)
}

fn join(values: &Jinja, separator: Option<&str>) -> Result<String, minijinja::Error> {
    let mut text = String::new();
    for (i, value) in values.try_iter()?.enumerate() {
        if i > 0 {
            text.push_str(separator.unwrap_or_default());
        }
        text.push_str(&value.to_string());
        // Parts without length are bounded, too.
        if text.len().max(i) > limits::MAX_RENDERED_BYTES {
            return Err(minijinja::Error::new(ErrorKind::InvalidOperation, "the joined text is too long"));
        }
    }
    Ok(text)
}

impl Template {
    /// Compiles `text`, or gives `None` where it holds no template. `at` names the place for errors.
    pub fn parse(text: &str, at: &str, dialect: Dialect) -> Result<Option<Self>> {
        let written = match dialect {
            Dialect::Plain => Cow::Borrowed(text),
            Dialect::Request | Dialect::Url => doubled(text),
        };
        let text = &*written;
        if !text.contains("{{") && !text.contains("{%") {
            return Ok(None);
        }
        if text.len() > limits::MAX_TEMPLATE_BYTES {
            return Err(Error::invalid(at, format!("a template is at most {} bytes long", limits::MAX_TEMPLATE_BYTES)));
        }
        refuse_statements(text, at, &["if", "elif", "else", "endif"])?;
        let broken = |e: minijinja::Error| Error::invalid(at, format!("`{text}` is not a template: {}", describe(&e)));
        let begins_fixed = dialect == Dialect::Url && !text.trim_start().starts_with("{{");
        let environment: &'static Environment<'static> = if begins_fixed { &URLS } else { &ENVIRONMENT };
        let code = checked(text, at)?;
        let (expression, names) = match whole(&code) {
            Some(inner) => {
                let expression = environment.compile_expression_owned(inner.to_owned()).map_err(broken)?;
                let names = expression.undeclared_variables(true);
                (Some(expression), names)
            }
            None => (None, environment.template_from_str(&code).map_err(broken)?.undeclared_variables(true)),
        };
        let mut references = names.iter().map(|name| reference(name, at, dialect)).collect::<Result<Vec<_>>>()?;
        references.sort_by(|a, b| a.path.cmp(&b.path));
        let template = Self { source: text.to_owned(), code, at: at.to_owned(), expression, environment, references };
        template.try_out()?;
        Ok(Some(template))
    }

    fn try_out(&self) -> Result<()> {
        let nothing = Jinja::from_object(Variables::new(Fields::new(), &Fields::new(), &Fields::new()));
        let failure = match &self.expression {
            Some(expression) => expression.eval(nothing).err(),
            None => self.render_text(nothing).err(),
        };
        match failure {
            Some(e) if is_unknown(e.kind()) => {
                Err(Error::invalid(&self.at, format!("`{}` is not a template: {}", self.source, describe(&e))))
            }
            _ => Ok(()),
        }
    }

    pub fn references(&self) -> &[Reference] {
        &self.references
    }

    /// Evaluates the template. A missing input is a [`Rendered::Missing`], anything else that goes wrong is the
    /// caller's error at the template's place.
    pub fn render(&self, variables: &Variables) -> Result<Rendered> {
        let context = Jinja::from_object(variables.clone());
        let outcome = match &self.expression {
            Some(expression) => expression.eval(context).map(|v| (!v.is_undefined()).then_some(v)),
            None => self.render_text(context).map(Some),
        };
        match outcome {
            Ok(Some(value)) => {
                Ok(Rendered::Value(serde_json::to_value(&value).map_err(|e| Error::invalid(&self.at, e.to_string()))?))
            }
            Ok(None) => Ok(self.missing(variables)),
            Err(e) if e.kind() == ErrorKind::UndefinedError => Ok(self.missing(variables)),
            Err(e) => Err(Error::invalid(&self.at, format!("`{}` cannot be evaluated: {}", self.source, describe(&e)))),
        }
    }

    fn render_text(&self, context: Jinja) -> Result<Jinja, minijinja::Error> {
        let mut sink = Bounded(Vec::new());
        self.environment.template_from_str(&self.code)?.render_captured_to(context, &mut sink)?;
        Ok(Jinja::from(String::from_utf8_lossy(&sink.0).into_owned()))
    }

    fn missing(&self, variables: &Variables) -> Rendered {
        let absent = |r: &&Reference| r.input().is_none_or(|name| !variables.inputs.contains_key(name));
        let inputs = self.references.iter().filter(|r| r.namespace == Namespace::Input);
        let mut names: Vec<String> =
            inputs.clone().filter(absent).map(|r| r.input().unwrap_or("inputs").to_owned()).collect();
        if names.is_empty() {
            // The input is there and the part of it that the template reads is not.
            names = inputs.filter_map(|r| r.path.clone()).collect();
        }
        names.dedup();
        Rendered::Missing(names)
    }
}

/// A writer that stops a template from rendering more than it may.
struct Bounded(Vec<u8>);

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > limits::MAX_RENDERED_BYTES {
            return Err(std::io::Error::other("the rendered text is too long"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn describe(error: &minijinja::Error) -> String {
    error.detail().map_or_else(|| error.kind().to_string(), str::to_owned)
}

/// The expression of a text that is exactly one `{{ … }}`.
fn whole(text: &str) -> Option<&str> {
    let inner = text.trim().strip_prefix("{{")?.strip_suffix("}}")?;
    let inner = inner.strip_prefix('-').unwrap_or(inner);
    let inner = inner.strip_suffix('-').unwrap_or(inner);
    let alone = !inner.contains("{{") && !inner.contains("}}") && !inner.contains("{%");
    alone.then_some(inner)
}

/// Other statements could repeat work without end, reach other templates, or hide a block from the check of operands.
fn refuse_statements(text: &str, at: &str, known: &[&str]) -> Result<()> {
    for block in text.split("{%").skip(1) {
        let word = block.trim_start_matches(['-', '+']).trim_start();
        let word: String = word.chars().take_while(|c| c.is_ascii_alphabetic()).collect();
        if !known.contains(&word.as_str()) {
            let known = known.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
            return Err(Error::invalid(at, format!("templates have {known} here, not `{word}`")));
        }
    }
    Ok(())
}

/// `{DOC.x}` as `{{DOC.x}}`. Other braces stay as they are: a text may hold JSON.
fn doubled(text: &str) -> Cow<'_, str> {
    static SINGLE: LazyLock<Regex> = LazyLock::new(|| {
        let path = r"(?:\.[A-Za-z0-9_]+|\[(?:\d+|'[^'{}]*'|\u{22}[^\u{22}{}]*\u{22})\])+";
        let names = "(?i:inputs?|doc|document|context|stages?|secrets?)";
        Regex::new(&format!(r"\{{\s*({names}{path})\s*\}}")).expect("the expression is valid")
    });
    if !text.contains('{') {
        return Cow::Borrowed(text);
    }
    SINGLE.replace_all(text, |found: &regex::Captures<'_>| {
        let all = found.get(0).expect("a match has a whole");
        let is_doubled = text[..all.start()].ends_with('{') || text[all.end()..].starts_with('}');
        if is_doubled { all.as_str().to_owned() } else { format!("{{{{{}}}}}", &found[1]) }
    })
}

fn reference(name: &str, at: &str, dialect: Dialect) -> Result<Reference> {
    let (root, path) = match name.split_once('.') {
        Some((root, path)) => (root, Some(path.to_owned())),
        None => (name, None),
    };
    match Namespace::parse(root) {
        Some(Namespace::Secret) if !dialect.takes_secrets() => {
            Err(Error::invalid(at, "secrets are not available to this parameter"))
        }
        Some(Namespace::Secret) if path.is_none() => {
            let message =
                "a secret is read by its name, as in `{{SECRET.name}}`, which is then letters, digits and `_`";
            Err(Error::invalid(at, message))
        }
        Some(namespace) => Ok(Reference { namespace, path }),
        None => {
            Err(Error::invalid(at, format!("`{root}` is not a template namespace; one of INPUT, DOC, CONTEXT, STAGE")))
        }
    }
}

/// What templates read. Cheap to clone.
#[derive(Clone)]
pub struct Variables {
    inputs: Arc<Fields>,
    input: Jinja,
    doc: Jinja,
    context: Jinja,
    stage: Jinja,
    secret: Jinja,
}

/// Without values: some are secret.
impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Variables").finish_non_exhaustive()
    }
}

impl Object for Variables {
    fn get_value(self: &Arc<Self>, key: &Jinja) -> Option<Jinja> {
        Some(match Namespace::parse(key.as_str()?)? {
            Namespace::Input => self.input.clone(),
            Namespace::Doc => self.doc.clone(),
            Namespace::Context => self.context.clone(),
            Namespace::Stage => self.stage.clone(),
            Namespace::Secret => self.secret.clone(),
        })
    }
}

impl Variables {
    pub fn new(inputs: Fields, context: &Fields, stage: &Fields) -> Self {
        Self {
            input: Jinja::from_serialize(&inputs),
            inputs: Arc::new(inputs),
            doc: Jinja::UNDEFINED,
            context: Jinja::from_serialize(context),
            stage: Jinja::from_serialize(stage),
            secret: Jinja::UNDEFINED,
        }
    }
    /// The inputs of the execution.
    pub fn inputs(&self) -> &Fields {
        &self.inputs
    }
    /// What earlier stages kept.
    pub fn context(&self) -> Value {
        serde_json::to_value(&self.context).unwrap_or_default()
    }
    /// The same variables with secrets.
    pub fn with_secrets(&self, secrets: &BTreeMap<String, String>) -> Self {
        Self { secret: Jinja::from_serialize(secrets), ..self.clone() }
    }
    /// The same variables with results of earlier stages.
    pub fn with_results(&self, context: &Fields, stage: &Fields) -> Self {
        Self { context: Jinja::from_serialize(context), stage: Jinja::from_serialize(stage), ..self.clone() }
    }
    /// The same variables with more in the context.
    pub fn with_context(&self, more: &Fields) -> Self {
        let context = Overlay { over: Jinja::from_serialize(more), base: self.context.clone() };
        Self { context: Jinja::from_object(context), ..self.clone() }
    }
    /// The same variables, looking at a document.
    pub fn with_doc(&self, doc: &Fields) -> Self {
        Self { doc: Jinja::from_serialize(doc), ..self.clone() }
    }
}

/// An object in front of another one.
#[derive(Debug)]
struct Overlay {
    over: Jinja,
    base: Jinja,
}

impl Object for Overlay {
    fn get_value(self: &Arc<Self>, key: &Jinja) -> Option<Jinja> {
        let found = |object: &Jinja| object.get_item(key).ok().filter(|value| !value.is_undefined());
        found(&self.over).or_else(|| found(&self.base))
    }
}

/// JSON with templates in its texts.
#[derive(Debug, Clone)]
pub enum Node {
    Literal(Value),
    Template(Arc<Template>),
    Array(Vec<Node>),
    Object(Vec<(String, Node)>),
}

impl Node {
    pub fn parse(value: &Value, at: &str) -> Result<Self> {
        Self::parse_in(value, at, Dialect::Plain)
    }

    pub fn parse_in(value: &Value, at: &str, dialect: Dialect) -> Result<Self> {
        Self::parse_below(value, at, dialect, 0)
    }

    fn parse_below(value: &Value, at: &str, dialect: Dialect, depth: usize) -> Result<Self> {
        if depth > limits::MAX_PARAMETER_DEPTH {
            return Err(Error::invalid(at, format!("nests more than {} levels", limits::MAX_PARAMETER_DEPTH)));
        }
        match value {
            Value::String(text) => Ok(match Template::parse(text, at, dialect)? {
                Some(template) => Self::Template(Arc::new(template)),
                None => Self::Literal(value.clone()),
            }),
            Value::Array(list) if list.iter().any(|v| !v.is_number()) => {
                let nodes = list
                    .iter()
                    .enumerate()
                    .map(|(i, v)| Self::parse_below(v, &format!("{at}.{i}"), dialect, depth + 1));
                Ok(Self::Array(nodes.collect::<Result<_>>()?).folded(value))
            }
            Value::Object(map) => {
                let nodes = map
                    .iter()
                    .map(|(k, v)| Ok((k.clone(), Self::parse_below(v, &format!("{at}.{k}"), dialect, depth + 1)?)));
                Ok(Self::Object(nodes.collect::<Result<_>>()?).folded(value))
            }
            _ => Ok(Self::Literal(value.clone())),
        }
    }

    /// A branch without templates is one literal.
    fn folded(self, value: &Value) -> Self {
        let plain = match &self {
            Self::Array(nodes) => nodes.iter().all(Self::is_literal),
            Self::Object(nodes) => nodes.iter().all(|(_, node)| node.is_literal()),
            _ => false,
        };
        if plain { Self::Literal(value.clone()) } else { self }
    }

    pub fn is_literal(&self) -> bool {
        matches!(self, Self::Literal(_))
    }

    /// Everything that the templates read.
    pub fn references(&self) -> Vec<Reference> {
        match self {
            Self::Literal(_) => Vec::new(),
            Self::Template(template) => template.references().to_vec(),
            Self::Array(nodes) => nodes.iter().flat_map(Self::references).collect(),
            Self::Object(nodes) => nodes.iter().flat_map(|(_, node)| node.references()).collect(),
        }
    }

    /// The JSON with its templates evaluated; missing if any of them is.
    pub fn render(&self, variables: &Variables) -> Result<Rendered> {
        let mut missing = None;
        let value = self.fill(variables, &mut missing)?;
        Ok(missing.map_or(Rendered::Value(value), Rendered::Missing))
    }

    fn fill(&self, variables: &Variables, missing: &mut Option<Vec<String>>) -> Result<Value> {
        Ok(match self {
            Self::Literal(value) => value.clone(),
            Self::Template(template) => match template.render(variables)? {
                Rendered::Value(value) => value,
                Rendered::Missing(names) => {
                    missing.get_or_insert_default().extend(names);
                    Value::Null
                }
            },
            Self::Array(nodes) => {
                Value::Array(nodes.iter().map(|n| n.fill(variables, missing)).collect::<Result<_>>()?)
            }
            Self::Object(nodes) => {
                let filled = nodes.iter().map(|(k, n)| Ok((k.clone(), n.fill(variables, missing)?)));
                Value::Object(filled.collect::<Result<_>>()?)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn render(text: &str, inputs: Value) -> Rendered {
        let variables = Variables::new(inputs.as_object().cloned().unwrap(), &Fields::new(), &Fields::new());
        Template::parse(text, "at", Dialect::Plain).unwrap().unwrap().render(&variables).unwrap()
    }
    fn refused(text: &str) -> String {
        match Template::parse(text, "stages.0.x", Dialect::Plain) {
            Err(Error::Invalid(list)) => {
                assert_eq!(list[0].field, "stages.0.x");
                list[0].message.clone()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_whole_template_keeps_its_type() {
        let inputs = json!({"n": 3, "f": 0.5, "l": ["a", 1], "o": {"k": null}, "b": true, "s": "x", "v": [0.1, 2]});
        for (text, value) in [
            ("{{INPUT.n}}", json!(3)),
            ("{{ inputs.f }}", json!(0.5)),
            ("{{Input.l}}", json!(["a", 1])),
            ("{{input.o}}", json!({"k": null})),
            ("{{INPUTS.b}}", json!(true)),
            ("{{INPUT.v}}", json!([0.1, 2])),
            ("{{INPUT['s']}}", json!("x")),
            ("{{INPUT.n + 1}}", json!(4)),
            ("{{INPUT.absent | default(7)}}", json!(7)),
            ("n={{INPUT.n}}", json!("n=3")),
            ("{{INPUT.s}}{{INPUT.n}}", json!("x3")),
            ("{% if INPUT.absent %}a{% else %}b{% endif %}", json!("b")),
            ("{{INPUT.l | join(', ')}}", json!("a, 1")),
        ] {
            assert_eq!(render(text, inputs.clone()), Rendered::Value(value), "{text}");
        }
    }

    #[test]
    fn a_little_template_makes_no_giant() {
        let variables =
            |inputs: Value| Variables::new(inputs.as_object().cloned().unwrap(), &Fields::new(), &Fields::new());
        let error = |text: &str, inputs: Value| match Template::parse(text, "at", Dialect::Plain)
            .unwrap()
            .unwrap()
            .render(&variables(inputs))
        {
            Err(error) => error.to_string(),
            other => panic!("{text}: {other:?}"),
        };
        for text in [
            "{{ [1] * 99999999999 }}",
            "{{ 'x' * 99999999 }}",
            "{{ 99999999 * INPUT.s }}",
            "{{ (INPUT.l * 99999999) | join }}",
            "{{ 1 in (INPUT.l * 99999999999) }}",
            "a {{ [1, 2] * 99999999999999999999 }}",
        ] {
            assert!(error(text, json!({"s": "x", "l": [2]})).contains("multiplies numbers"), "{text}");
        }
        let hidden = "{% raw %}{{ '{% endraw %}{{ ([0] * 1000000000000) | join }}";
        assert!(refused(hidden).contains("not `raw`"), "nothing hides from the check");
        assert!(error("{{ 1 | tojson(99999999999999999) }}", json!({})).contains("at most 16"));
        assert!(error("{{ 1 | tojson(indent=9999999999) }}", json!({})).contains("at most 16"));
        let long = json!({"s": "x".repeat(limits::MAX_RENDERED_BYTES + 1)});
        assert!(
            error("{{ INPUT.s ~ 'x' }}", long.clone()).contains("too long")
                && error("{{ 'x' + INPUT.s }}", long).contains("too long")
        );
        assert_eq!(render("{{ INPUT.n * 2.5 + 1 }}", json!({"n": 3})), Rendered::Value(json!(8.5)));
        assert_eq!(
            render("{{ (INPUT.n + 1) * INPUT.m.k ** 2 }}", json!({"n": 3, "m": {"k": 2}})),
            Rendered::Value(json!(16))
        );
        assert_eq!(render("{{ INPUT.a ~ '*' ~ INPUT.b }}", json!({"a": "x", "b": 2})), Rendered::Value(json!("x*2")));
    }

    #[test]
    fn a_missing_input_is_named() {
        for text in ["{{INPUT.q}}", "a {{inputs.q}}", "{{INPUT.q.part}}", "{{INPUT.q | lower}}"] {
            assert_eq!(render(text, json!({"n": 1})), Rendered::Missing(vec!["q".into()]), "{text}");
        }
        assert_eq!(render("{{INPUT.o.part}}", json!({"o": {}})), Rendered::Missing(vec!["o.part".into()]));
        assert_eq!(render("{{DOC.x}}", json!({})), Rendered::Missing(vec![]));
        assert_eq!(render("{{INPUT.q}}", json!({"q": null})), Rendered::Value(Value::Null));
    }

    #[test]
    fn what_cannot_be_bounded_is_refused() {
        assert!(refused("{{INPUT.").contains("is not a template"));
        assert!(refused("{% for x in INPUT.l %}{% endfor %}").contains("`for`"));
        assert!(refused("{{FOO.x}}").contains("`FOO` is not a template namespace"));
        assert!(refused("{{secrets.key}}").contains("secrets"));
        assert!(refused("{{INPUT.x | nothing}}").contains("nothing"));
        assert!(refused(&format!("{{{{INPUT.x}}}}{}", "x".repeat(limits::MAX_TEMPLATE_BYTES))).contains("at most"));
    }

    #[test]
    fn inputs_are_never_compiled() {
        assert_eq!(render("{{INPUT.q}}", json!({"q": "{{INPUT.s}}", "s": 1})), Rendered::Value(json!("{{INPUT.s}}")));
        assert!(Template::parse("plain {braces} {DOC.x}", "at", Dialect::Plain).unwrap().is_none());
    }

    #[test]
    fn requests_read_single_braces_and_secrets() {
        let secrets = BTreeMap::from([("key".to_owned(), "s3cret".to_owned()), ("b".to_owned(), "two".to_owned())]);
        let doc = serde_json::json!({"id": 7, "t": {"x": "a/b c"}}).as_object().cloned().unwrap();
        let variables =
            Variables::new(Fields::new(), &Fields::new(), &Fields::new()).with_secrets(&secrets).with_doc(&doc);
        let render = |text: &str, dialect| match Template::parse(text, "at", dialect).unwrap() {
            Some(template) => template.render(&variables).unwrap(),
            None => Rendered::Value(text.into()),
        };
        for (text, value) in [
            ("{DOC.id}", json!(7)),
            ("{ doc.t['x'] }!", json!("a/b c!")),
            ("Bearer {{secrets.key}}", json!("Bearer s3cret")),
            ("{SECRET.key}/{{ SECRET.b }}", json!("s3cret/two")),
            (r#"{"id": {DOC.id}, "n": {"DOC.id": 1}}"#, json!(r#"{"id": 7, "n": {"DOC.id": 1}}"#)),
            ("{plain} {DOC} {DOC.}", json!("{plain} {DOC} {DOC.}")),
        ] {
            assert_eq!(render(text, Dialect::Request), Rendered::Value(value), "{text}");
        }
        for (text, value) in [
            ("https://h/{DOC.t.x}?q={{DOC.id}}", "https://h/a%2Fb%20c?q=7"),
            ("https://h/{{DOC.t.x | safe}}", "https://h/a/b c"),
            ("{{DOC.t.x}}/{DOC.id}", "a/b c/7"),
        ] {
            assert_eq!(render(text, Dialect::Url), Rendered::Value(json!(value)), "{text}");
        }
        assert_eq!(render("https://h/{DOC.none}", Dialect::Url), Rendered::Missing(vec![]));
        let template = Template::parse("{{SECRET.b}}{SECRET.key}", "at", Dialect::Request).unwrap().unwrap();
        let names: Vec<&str> = template.references().iter().filter_map(Reference::secret).collect();
        assert_eq!(names, ["b", "key"]);
        for computed in ["{{SECRET[DOC.id]}}", "{{SECRET['b']}}", "{{SECRET}}", "{{SECRET | length}}"] {
            assert!(Template::parse(computed, "at", Dialect::Request).is_err(), "{computed}");
        }
        assert!(!format!("{variables:?}").contains("s3cret"));
    }

    #[test]
    fn json_is_filled_below_the_surface() {
        let node = Node::parse(&json!({"a": ["{{INPUT.x}}", 1], "b": "c"}), "at").unwrap();
        let inputs = json!({"x": [1]}).as_object().cloned().unwrap();
        let variables = Variables::new(inputs, &Fields::new(), &Fields::new());
        assert_eq!(node.render(&variables).unwrap(), Rendered::Value(json!({"a": [[1], 1], "b": "c"})));
        assert!(Node::parse(&json!({"a": [1, {"b": 2}]}), "at").unwrap().is_literal());
    }
}
