//! The numbers of `/metrics`, in Prometheus's text format.

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::sync::OnceLock;

pub(crate) const DURATION: &str = "strata_http_request_duration_seconds";

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
