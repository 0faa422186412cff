//! How good a ranking is, given which documents are relevant. The definitions are those of `trec_eval` and `ranx`; a test
//! compares the values with the former's.

use std::collections::{BTreeMap, HashMap, HashSet};
use strata_model::{Error, Result};

/// A measure of a ranking's first `k` documents, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Metric {
    /// The part of the first k places that relevant documents hold; places that the ranking leaves empty count.
    Precision,
    /// The part of the relevant documents that is among the first k.
    Recall,
    /// The harmonic mean of precision and recall.
    F1,
    /// The same with recall counting four times as much (F-beta with beta 2).
    F2,
    /// Average precision: precision at the place of each relevant document among the first k, summed, over the number of
    /// relevant documents. Its mean over queries is MAP.
    AveragePrecision,
    /// Normalized discounted cumulative gain of Järvelin and Kekäläinen (2002): the gain of a document is its grade
    /// itself, not `2^grade - 1`, the discount `log2(1 + rank)`; what `trec_eval` calls `ndcg_cut` and `ranx` `ndcg`.
    Ndcg,
    /// 1 over the rank of the first relevant document; 0 where it is not among the first k.
    ReciprocalRank,
    /// Whether any relevant document is among the first k.
    HitRate,
}

/// What evaluations measure unless they are told.
pub const DEFAULT: [Metric; 6] =
    [Metric::Precision, Metric::Recall, Metric::F1, Metric::AveragePrecision, Metric::Ndcg, Metric::ReciprocalRank];

impl Metric {
    pub const ALL: [Self; 8] = [
        Self::Precision,
        Self::Recall,
        Self::F1,
        Self::F2,
        Self::AveragePrecision,
        Self::Ndcg,
        Self::ReciprocalRank,
        Self::HitRate,
    ];
    /// Those that need no order.
    pub const OF_SETS: [Self; 4] = [Self::Precision, Self::Recall, Self::F1, Self::F2];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Precision => "precision",
            Self::Recall => "recall",
            Self::F1 => "f1",
            Self::F2 => "f2",
            Self::AveragePrecision => "map",
            Self::Ndcg => "ndcg",
            Self::ReciprocalRank => "mrr",
            Self::HitRate => "hit_rate",
        }
    }

    /// One of `known`, by its name in any case.
    pub fn parse(text: &str, known: &[Self], at: &str) -> Result<Self> {
        let found = known.iter().find(|metric| metric.as_str().eq_ignore_ascii_case(text));
        found.copied().ok_or_else(|| {
            let names: Vec<&str> = known.iter().map(|metric| metric.as_str()).collect();
            Error::invalid(at, format!("`{text}` is not a metric; one of {}", names.join(", ")))
        })
    }
}

/// Which documents are relevant to a query, and how much. What is not named has grade 0; negative grades count as 0.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Judgments {
    grades: HashMap<String, f64>,
    /// The grades above 0, the largest first.
    ideal: Vec<f64>,
}

impl Judgments {
    pub fn new(grades: impl IntoIterator<Item = (String, f64)>) -> Self {
        let grades: HashMap<String, f64> = grades.into_iter().filter(|(_, grade)| *grade > 0.0).collect();
        let mut ideal: Vec<f64> = grades.values().copied().collect();
        ideal.sort_by(|a, b| b.total_cmp(a));
        Self { grades, ideal }
    }

    pub fn is_empty(&self) -> bool {
        self.ideal.is_empty()
    }

    pub fn grade(&self, document_id: &str) -> f64 {
        self.grades.get(document_id).copied().unwrap_or(0.0)
    }
}

/// Measures the first `k` documents of a ranking, best first; a document that occurs again is passed over. 0 where nothing
/// is relevant or `k` is 0.
pub fn measure(metric: Metric, ranking: &[String], judgments: &Judgments, k: usize) -> f64 {
    if k == 0 || judgments.is_empty() {
        return 0.0;
    }
    let mut seen = HashSet::new();
    let first = ranking.iter().filter(|id| seen.insert(id.as_str())).take(k);
    let gains: Vec<f64> = first.map(|id| judgments.grade(id)).collect();
    let found = gains.iter().filter(|gain| **gain > 0.0).count() as f64;
    let (precision, recall) = (found / k as f64, found / judgments.ideal.len() as f64);
    match metric {
        Metric::Precision => precision,
        Metric::Recall => recall,
        Metric::F1 => f_beta(precision, recall, 1.0),
        Metric::F2 => f_beta(precision, recall, 2.0),
        Metric::AveragePrecision => average_precision(&gains) / judgments.ideal.len() as f64,
        Metric::Ndcg => discounted(&gains) / discounted(&judgments.ideal[..k.min(judgments.ideal.len())]),
        Metric::ReciprocalRank => {
            gains.iter().position(|gain| *gain > 0.0).map_or(0.0, |place| 1.0 / (place as f64 + 1.0))
        }
        Metric::HitRate => f64::from(found > 0.0),
    }
}

fn f_beta(precision: f64, recall: f64, beta: f64) -> f64 {
    let weighed = beta * beta * precision + recall;
    if weighed == 0.0 { 0.0 } else { (1.0 + beta * beta) * precision * recall / weighed }
}

/// The sum of the precisions at the places of relevant documents.
fn average_precision(gains: &[f64]) -> f64 {
    let mut found = 0.0;
    let mut sum = 0.0;
    for (place, gain) in gains.iter().enumerate() {
        if *gain > 0.0 {
            found += 1.0;
            sum += found / (place as f64 + 1.0);
        }
    }
    sum
}

fn discounted(gains: &[f64]) -> f64 {
    gains.iter().enumerate().map(|(place, gain)| gain / (place as f64 + 2.0).log2()).sum()
}

/// Measures what was predicted against what was expected, both as sets; of the predictions only the first `k` where that
/// is given. Where nothing was expected and nothing predicted, all is right.
pub fn measure_sets(metric: Metric, predicted: &[String], expected: &[String], k: Option<usize>) -> f64 {
    let predicted: HashSet<&String> = predicted.iter().take(k.unwrap_or(usize::MAX)).collect();
    let expected: HashSet<&String> = expected.iter().collect();
    if predicted.is_empty() && expected.is_empty() {
        return 1.0;
    }
    let common = predicted.intersection(&expected).count() as f64;
    let part = |of: usize| if of == 0 { 0.0 } else { common / of as f64 };
    let (precision, recall) = (part(predicted.len()), part(expected.len()));
    match metric {
        Metric::Recall => recall,
        Metric::F1 => f_beta(precision, recall, 1.0),
        Metric::F2 => f_beta(precision, recall, 2.0),
        _ => precision,
    }
}

/// The mean of each metric over several measurements; empty where there are none.
pub fn means(measured: &[BTreeMap<String, f64>]) -> BTreeMap<String, f64> {
    let mut sums: BTreeMap<String, f64> = BTreeMap::new();
    for one in measured {
        for (name, value) in one {
            *sums.entry(name.clone()).or_default() += value;
        }
    }
    sums.into_iter().map(|(name, sum)| (name, sum / measured.len() as f64)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(list: &[&str]) -> Vec<String> {
        list.iter().map(|id| (*id).to_owned()).collect()
    }

    fn judged(list: &[(&str, f64)]) -> Judgments {
        Judgments::new(list.iter().map(|(id, grade)| ((*id).to_owned(), *grade)))
    }

    #[track_caller]
    fn near(found: f64, wanted: f64) {
        assert!((found - wanted).abs() < 1e-9, "{found} is not {wanted}");
    }

    #[test]
    fn every_metric_by_hand() {
        // Relevant at places 1 and 3 of the first 4; `e` is never found, `z` is not relevant.
        let ranking = ids(&["a", "b", "c", "d", "f"]);
        let judgments = judged(&[("a", 1.0), ("c", 3.0), ("e", 2.0), ("z", 0.0), ("y", -1.0)]);
        let at = |metric, k| measure(metric, &ranking, &judgments, k);
        near(at(Metric::Precision, 4), 0.5);
        near(at(Metric::Recall, 4), 2.0 / 3.0);
        near(at(Metric::F1, 4), 2.0 * 0.5 * (2.0 / 3.0) / (0.5 + 2.0 / 3.0));
        near(at(Metric::F2, 4), 5.0 * 0.5 * (2.0 / 3.0) / (4.0 * 0.5 + 2.0 / 3.0));
        near(at(Metric::AveragePrecision, 4), (1.0 + 2.0 / 3.0) / 3.0);
        let ideal = 3.0 + 2.0 / 3f64.log2() + 1.0 / 2.0;
        near(at(Metric::Ndcg, 4), (1.0 + 3.0 / 2.0) / ideal);
        near(at(Metric::ReciprocalRank, 4), 1.0);
        near(at(Metric::HitRate, 4), 1.0);
        near(at(Metric::Ndcg, 1), 1.0 / 3.0);
        near(at(Metric::Precision, 10), 0.2);
    }

    #[test]
    fn what_is_late_absent_or_repeated() {
        let judgments = judged(&[("a", 1.0)]);
        let late = ids(&["x", "x", "y", "a"]);
        near(measure(Metric::ReciprocalRank, &late, &judgments, 10), 1.0 / 3.0);
        near(measure(Metric::ReciprocalRank, &late, &judgments, 2), 0.0);
        for metric in Metric::ALL {
            near(measure(metric, &[], &judgments, 5), 0.0);
            near(measure(metric, &late, &Judgments::default(), 5), 0.0);
            near(measure(metric, &late, &judgments, 0), 0.0);
        }
    }

    #[test]
    fn sets_have_no_order_and_no_repetitions() {
        let (predicted, expected) = (ids(&["a", "b", "b", "c", "d"]), ids(&["a", "c", "x"]));
        let of = |metric, k| measure_sets(metric, &predicted, &expected, k);
        near(of(Metric::Precision, None), 0.5);
        near(of(Metric::Recall, None), 2.0 / 3.0);
        near(of(Metric::F1, None), 4.0 / 7.0);
        near(of(Metric::F2, None), 5.0 * 0.5 * (2.0 / 3.0) / (2.0 + 2.0 / 3.0));
        near(of(Metric::Precision, Some(1)), 1.0);
        near(of(Metric::Recall, Some(1)), 1.0 / 3.0);
        near(measure_sets(Metric::F1, &[], &[], None), 1.0);
        near(measure_sets(Metric::F1, &[], &expected, None), 0.0);
    }

    #[test]
    fn names_lead_to_metrics() {
        assert_eq!(Metric::parse("NDCG", &Metric::ALL, "metrics.0").unwrap(), Metric::Ndcg);
        let error = Metric::parse("ndcg", &Metric::OF_SETS, "metrics.0").unwrap_err().to_string();
        assert!(error.contains("`metrics.0`") && error.contains("precision, recall, f1, f2"), "{error}");
    }
}
