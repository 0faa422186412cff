//! What holds of every template, filter and plan, whoever wrote it. `fuzz/` asks for the same with bytes that are led by
//! what they reach.

use crate::retrieval::fake::{self, Fake};
use crate::retrieval::template::{Dialect, Node, Program, Rendered, Template, Variables};
use crate::retrieval::{ExecuteRequest, FilterTemplate, Hit, PageRequest, Plan, RetrieverSpec, limits, registry, view};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use strata_model::filter::Filter;
use strata_model::{Error, Fields};

use super::generate::Choices;

/// The longest any of them may take here.
const SOON: Duration = Duration::from_secs(20);

fn inputs() -> Fields {
    let inputs =
        json!({"query": "apple pie", "n": 3, "list": ["a", 1, null], "rows": [[1, 0]], "object": {"a": {"b": [true]}}});
    inputs.as_object().cloned().unwrap_or_default()
}

fn variables() -> Variables {
    let document = Hit::new(fake::document(3, json!({"text": "apple", "n": 7, "kind": "plant"})));
    Variables::new(inputs(), &Fields::new(), &Fields::new()).with_doc(&view::field_view(&document))
}

/// An error that blames the caller, or says what is missing; never the server's own.
fn is_told(error: &Error) {
    assert!(!matches!(error, Error::Internal(_)), "{error}");
}

pub fn template(bytes: &[u8]) {
    let started = Instant::now();
    let text = Choices::new(bytes).template();
    let bounded = |length: usize| assert!(length <= 16 * limits::MAX_RENDERED_BYTES, "{text:?} made {length} bytes");
    match Template::parse(&text, "at", Dialect::Plain) {
        Ok(Some(template)) => match template.render(&variables()) {
            Ok(Rendered::Value(value)) => bounded(value.to_string().len()),
            Ok(Rendered::Missing(_)) => {}
            Err(error) => is_told(&error),
        },
        Ok(None) => {}
        Err(error) => is_told(&error),
    }
    match Program::parse(&text, "at").and_then(|program| program.render(&variables())) {
        Ok(rendered) => bounded(rendered.len()),
        Err(error) => is_told(&error),
    }
    assert!(started.elapsed() < SOON, "{text:?}");
}

pub fn filter(bytes: &[u8]) {
    let started = Instant::now();
    let written = Choices::new(bytes).filter(0);
    match FilterTemplate::parse(&written, "at") {
        Ok(template) => match template.resolve(&variables()) {
            Ok((filter, _)) => {
                let mut fields = fake::document(1, json!({"text": "apple", "n": 3})).view();
                let first = filter.matches(&fields);
                assert_eq!(filter.matches(&fields), first, "{written}");
                fields.clear();
                filter.matches(&fields);
            }
            Err(error) => is_told(&error),
        },
        Err(error) => is_told(&error),
    }
    // What is read without templates says the same of every document as what is read with them.
    if let Ok(Value::Null) =
        Node::parse(&written, "at").map(|node| if node.is_literal() { Value::Null } else { json!(1) })
        && let (Ok(plain), Ok(template)) = (Filter::parse(&written, "at"), FilterTemplate::parse(&written, "at"))
    {
        let (resolved, _) = template.resolve(&variables()).unwrap_or((Filter::all(), Vec::new()));
        assert_eq!(plain, resolved, "{written}");
    }
    assert!(started.elapsed() < SOON, "{written}");
}

fn fruit() -> Fake {
    let mut fake = Fake::fruit();
    let spec = RetrieverSpec {
        stages: vec![json!({"stage_id": "feature_search", "query": "apple"})],
        ..RetrieverSpec::default()
    };
    if let Ok(plan) = Plan::parse(&spec) {
        fake.plans.insert("ret_1".into(), Arc::new(plan));
    }
    fake
}

pub fn plan(bytes: &[u8]) {
    executed(bytes);
}

/// Whether the plan was executed to its end.
fn executed(bytes: &[u8]) -> bool {
    let known: Vec<(&str, Value)> = registry().iter().map(|d| (d.stage_id, (d.parameter_schema)())).collect();
    let stages = Choices::new(bytes).stages(&known);
    let spec = RetrieverSpec { stages: stages.as_array().cloned().unwrap_or_default(), ..RetrieverSpec::default() };
    let started = Instant::now();
    let plan = match Plan::parse(&spec) {
        Ok(plan) => plan,
        Err(error) => {
            is_told(&error);
            return false;
        }
    };
    let shown = plan.stages_json();
    match Plan::parse(&RetrieverSpec { stages: shown.clone(), ..RetrieverSpec::default() }) {
        Ok(again) => assert_eq!(again.stages_json(), shown),
        Err(error) => panic!("what is shown of {stages} is not taken: {error}"),
    }
    let request = ExecuteRequest {
        inputs: inputs(),
        page: PageRequest::Cursor { limit: 500, cursor: None },
        time_limit: Some(Duration::from_secs(5)),
        chance: 7,
        ..ExecuteRequest::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let outcome = runtime.block_on(plan.execute(&fruit(), request));
    match &outcome {
        Ok(execution) => {
            assert!(execution.total <= limits::MAX_WORKING_SET && execution.hits.len() <= 500, "{stages}");
            assert!(execution.stages.len() <= plan.stages.len());
            assert!(execution.hits.iter().all(|hit| hit.score.is_none_or(f64::is_finite)), "{stages}");
        }
        Err(error) => is_told(error),
    }
    assert!(started.elapsed() < SOON, "{stages}");
    outcome.is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

    /// As many bytes each time, the same ones in every run.
    fn hold(cases: u32, length: usize, property: fn(&[u8])) {
        let config = Config { cases, failure_persistence: None, max_shrink_iters: 2_000, ..Config::default() };
        let random = TestRng::from_seed(RngAlgorithm::ChaCha, &[11; 32]);
        let mut runner = TestRunner::new_with_rng(config, random);
        let outcome = runner.run(&vec(any::<u8>(), 0..length), |bytes| {
            property(&bytes);
            Ok(())
        });
        outcome.unwrap_or_else(|error| panic!("{error}"));
    }

    #[test]
    fn any_template_is_refused_or_rendered_within_its_bounds() {
        hold(3_000, 40, super::template);
    }

    #[test]
    fn any_filter_is_refused_or_answers() {
        hold(3_000, 60, super::filter);
    }

    #[test]
    fn many_plans_that_are_made_can_be_executed() {
        let mut random = fastrand::Rng::with_seed(11);
        let mut bytes = || (0..80).map(|_| random.u8(..)).collect::<Vec<u8>>();
        let done = (0..500).filter(|_| super::executed(&bytes())).count();
        assert!(done > 100, "{done} of 500");
    }

    #[test]
    fn any_plan_is_refused_or_executed_within_its_bounds() {
        hold(1_500, 80, super::plan);
    }
}
