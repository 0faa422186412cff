//! Whole texts from templates with loops.

use super::environment::{Bounded, describe, environment, is_unknown};
use super::references::reference;
use super::syntax::{checked, refuse_statements};
use super::{Dialect, Reference, Variables};
use crate::retrieval::limits;
use minijinja::value::Value as Jinja;
use minijinja::{Environment, UndefinedBehavior};
use std::fmt;
use std::sync::LazyLock;
use strata_model::{Error, Fields, Result};

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
