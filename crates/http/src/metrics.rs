//! The numbers of `/metrics`, in Prometheus's text format.

use axum::http::Method;
use metrics::{Counter, Histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::{
    collections::HashMap,
    sync::{LazyLock, OnceLock, PoisonError, RwLock},
    time::Duration,
};

const DURATION: &str = "strata_http_request_duration_seconds";

/// Upper bounds of the duration histogram, in seconds.
const BOUNDS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];

/// The process's recorder; installed at the first call. `None` when another one is installed already.
pub(crate) fn handle() -> Option<&'static PrometheusHandle> {
    static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    let install = || {
        let builder = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Full(DURATION.into()), &BOUNDS);
        let handle = builder.ok()?.install_recorder().ok()?;
        metrics::describe_counter!("strata_http_requests_total", "Requests answered.");
        metrics::describe_counter!("strata_http_turned_away_total", "Requests and connections without a place.");
        metrics::describe_histogram!(DURATION, metrics::Unit::Seconds, "Time until an answer began.");
        Some(handle)
    };
    HANDLE.get_or_init(install).as_ref()
}

/// What is counted of one method of a route, with the statuses that it has answered.
struct Answers {
    durations: Histogram,
    by_status: HashMap<u16, Counter>,
}

/// By route and method. Looked up for every answer; the recorder would make and hash the labels anew.
static ANSWERS: LazyLock<RwLock<HashMap<String, HashMap<&'static str, Answers>>>> = LazyLock::new(RwLock::default);

/// Counts an answer.
pub(crate) fn answered(method: &Method, route: &str, status: u16, took: Duration) {
    let method = known(method);
    {
        let answers = ANSWERS.read().unwrap_or_else(PoisonError::into_inner);
        let own = answers.get(route).and_then(|methods| methods.get(method));
        if let Some((own, counter)) = own.and_then(|own| Some((own, own.by_status.get(&status)?))) {
            counter.increment(1);
            return own.durations.record(took.as_secs_f64());
        }
    }
    let labels = [("method", method.to_owned()), ("route", route.to_owned()), ("status", status.to_string())];
    let mut answers = ANSWERS.write().unwrap_or_else(PoisonError::into_inner);
    let own = answers.entry(route.to_owned()).or_default().entry(method).or_insert_with(|| Answers {
        durations: metrics::histogram!(DURATION, &labels[..2]),
        by_status: HashMap::new(),
    });
    own.durations.record(took.as_secs_f64());
    let count = || metrics::counter!("strata_http_requests_total", &labels);
    own.by_status.entry(status).or_insert_with(count).increment(1);
}

/// The name under which a method is counted: there are few, whatever callers make up.
fn known(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

/// Everything measured so far.
pub(crate) async fn render() -> String {
    handle().map(PrometheusHandle::render).unwrap_or_default()
}

/// Folds recorded values into histograms for as long as the server runs, so that they do not pile up where nobody asks.
pub(crate) async fn upkeep() {
    let mut ticks = tokio::time::interval(std::time::Duration::from_secs(5));
    loop {
        ticks.tick().await;
        if let Some(handle) = handle() {
            handle.run_upkeep();
        }
    }
}
