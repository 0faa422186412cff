//! Threads for the requests that were let in while others are turned away. On the threads that turn away, each step of an
//! answer would wait behind all those refusals, and searches, which take the most steps, would never end.

use crate::middleware::request_id;
use axum::{
    extract::Request,
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::{
    panic::resume_unwind,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    runtime::{Builder, Runtime},
    task::JoinSet,
};
use tracing::Instrument;

/// How long after a refusal requests are still answered here.
const CALM_AFTER: Duration = Duration::from_secs(2);

/// Made when it is first needed, and never dropped, since what a request began may go on after its answer. `None` where
/// there can be no more threads.
static THREADS: LazyLock<Option<Runtime>> = LazyLock::new(|| {
    let made = Builder::new_multi_thread().thread_name("let-in").enable_all().build();
    made.inspect_err(|error| tracing::warn!(%error, "no threads for requests that were let in")).ok()
});

/// Whether requests are turned away now.
pub(super) struct Rush {
    since: Instant,
    /// Milliseconds since then until it is calm again.
    until: AtomicU64,
}

impl Rush {
    pub fn new() -> Self {
        Self { since: Instant::now(), until: AtomicU64::new(0) }
    }

    fn millis(&self) -> u64 {
        self.since.elapsed().as_millis().try_into().unwrap_or(u64::MAX)
    }

    /// A request was turned away.
    pub fn note(&self) {
        self.until.store(self.millis() + CALM_AFTER.as_millis() as u64, Ordering::Relaxed);
    }

    pub fn is_on(&self) -> bool {
        self.millis() < self.until.load(Ordering::Relaxed)
    }
}

/// Answers a request on the other threads. What is not awaited any more is not run any further, as elsewhere.
pub(super) async fn run(request: Request, next: Next) -> Response {
    let Some(threads) = &*THREADS else { return next.run(request).await };
    let answer = request_id::CURRENT.scope(request_id::current(), next.run(request)).in_current_span();
    let mut tasks = JoinSet::new();
    tasks.spawn_on(answer, threads.handle());
    match tasks.join_next().await {
        Some(Ok(response)) => response,
        Some(Err(error)) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(error) => crate::error::ApiError(strata_model::Error::internal(error)).into_response(),
        },
        None => unreachable!("a task was spawned"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{Router, body::Body, middleware::from_fn, routing::get};
    use futures::FutureExt;
    use std::panic::AssertUnwindSafe;
    use tower::ServiceExt;

    /// Asks routes behind [`run`], as the request `r1`; the error is what one panicked with.
    async fn asked(path: &str) -> std::thread::Result<Response> {
        let routes = Router::new()
            .route(
                "/",
                get(|| async {
                    let thread = std::thread::current();
                    format!("{} on {}", request_id::current(), thread.name().unwrap_or_default())
                }),
            )
            .route(
                "/panic",
                get(|| async {
                    if true {
                        panic!("the reason")
                    }
                }),
            )
            .layer(from_fn(run));
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let answer = request_id::CURRENT.scope("r1".to_owned(), routes.oneshot(request));
        AssertUnwindSafe(answer).catch_unwind().await.map(Result::unwrap)
    }

    #[tokio::test]
    async fn a_panic_on_the_other_threads_goes_on_where_the_answer_is_awaited() {
        let panic = asked("/panic").await.unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"the reason"));
        let response = asked("/").await.unwrap();
        let text = axum::body::to_bytes(response.into_body(), 100).await.unwrap();
        assert_eq!(text, "r1 on let-in", "and the next request is answered there");
    }

    #[test]
    fn a_refusal_makes_a_rush_and_nothing_else_does() {
        let rush = Rush::new();
        assert!(!rush.is_on());
        rush.note();
        assert!(rush.is_on());
        rush.until.store(rush.millis(), Ordering::Relaxed);
        assert!(!rush.is_on());
    }
}
