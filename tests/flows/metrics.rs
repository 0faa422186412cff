//! The metrics of rankings beside those of `trec_eval`, which the interpreter in `STRATA_TEST_PYTHON` has as
//! `pytrec_eval`.

use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use strata_engine::retrieval::metrics::{Judgments, Metric, measure};

#[derive(Deserialize)]
struct Case {
    grades: BTreeMap<String, f64>,
    ranking: Vec<String>,
    /// Metric, k and value.
    expected: Vec<(String, usize, f64)>,
}

#[test]
fn metrics_agree_with_trec_eval_on_random_rankings_with_ties_and_missing_judgments() {
    let python = std::env::var("STRATA_TEST_PYTHON").expect(
        "STRATA_TEST_PYTHON names a Python that has the package `pytrec_eval`; `make test` prepares one and sets it",
    );
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/flows/metrics.py");
    let output = Command::new(python).args([script, "7", "300"]).output().expect("STRATA_TEST_PYTHON is a program");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("the script writes text");
    let (mut compared, mut names) = (0, BTreeSet::new());
    for line in text.lines() {
        let case: Case = serde_json::from_str(line).expect("a case");
        let judgments = Judgments::new(case.grades);
        let at = |metric: Metric, k: usize| measure(metric, &case.ranking, &judgments, k);
        for (name, k, wanted) in &case.expected {
            let metric = Metric::parse(name, &Metric::ALL, "name").expect("a metric of ours");
            let found = at(metric, *k);
            assert!((found - wanted).abs() < 1e-6, "{name}@{k}: {found} here, {wanted} there: {line}");
            compared += 1;
            names.insert(metric.as_str());
        }
        // trec_eval has no F-measure of the first k; it follows from the two that it has.
        for k in [1, 5, 20] {
            let (precision, recall) = (at(Metric::Precision, k), at(Metric::Recall, k));
            for (metric, beta) in [(Metric::F1, 1.0), (Metric::F2, 2.0)] {
                let below: f64 = beta * beta * precision + recall;
                let wanted = if below > 0.0 { (1.0 + beta * beta) * precision * recall / below } else { 0.0 };
                assert!((at(metric, k) - wanted).abs() < 1e-9, "{}@{k}: {line}", metric.as_str());
            }
        }
    }
    assert!(compared > 5_000, "only {compared} values were compared");
    assert_eq!(names, BTreeSet::from(["precision", "recall", "map", "ndcg", "mrr", "hit_rate"]));
}
