//! Templates in stage parameters: `{{INPUT.query}}`, `{{doc.title}}`.
//!
//! A text that is exactly one template keeps its value's type; any other text renders to text. Templates are compiled
//! when a plan is parsed and may only read. Evaluation is bounded by having nothing to repeat with: no loops, macros,
//! includes or unbounded filters, checked operands of `*`, `~` and `+`, a depth limit, and a limit on what is rendered.
//! Values are never compiled, so an input that looks like a template stays text. Loops are for a [`Program`] alone, whose
//! steps are counted.

mod environment;
mod node;
mod operators;
mod program;
mod references;
mod syntax;
mod variables;

pub use environment::percent_encoded;
pub use node::Node;
pub use program::Program;
pub use references::{Namespace, Reference};
pub use variables::Variables;

use super::limits;
use environment::{Bounded, ENVIRONMENT, URLS, describe, is_unknown};
use minijinja::value::Value as Jinja;
use minijinja::{Environment, ErrorKind, Expression};
use references::reference;
use serde_json::Value;
use std::borrow::Cow;
use std::fmt;
use strata_model::{Error, Fields, Result};
use syntax::{checked, doubled, refuse_statements, whole};

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
        let absent = |r: &&Reference| r.input().is_none_or(|name| !variables.inputs().contains_key(name));
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::collections::BTreeMap;

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
}
