//! What keeps the server standing when more is asked than it can do: a bound on the requests under way, by class, and on
//! the memory of their bodies. Who finds no place waits for a moment, together with few others, and is then told when to
//! come again. Health and metrics are always answered.
//!
//! While requests are turned away, those that were let in are answered by threads of their own.

mod aside;
mod body;
mod kind;
mod public;

pub(crate) use public::Toll;

use crate::{
    App,
    error::{ApiError, bare, overloaded},
    extract::is_json_lines,
};
use aside::Rush;
use axum::{
    body::{Body, HttpBody},
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use body::{Account, Cut, Holding, Paced};
use kind::Class;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use strata_engine::protection::{Admission, Standing};
use strata_model::Principal;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Memory for the bodies of all requests under way, in KiB.
const BODIES_KIB: usize = 256 << 10;
/// What a body of JSON lines takes of it, which is read part by part.
const LINES_BYTES: u64 = 16 << 20;
/// What a caller who found no place is told to wait.
const RETRY_AFTER_SECONDS: u64 = 1;

/// How much is done at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Requests under way, by class.
    pub reads: usize,
    pub writes: usize,
    pub searches: usize,
    pub uploads: usize,
    /// Requests of each class that wait for a place.
    pub waiting: usize,
    /// How long they do.
    pub wait: Duration,
    /// Open connections.
    pub connections: usize,
    /// How long a client may take to send a header, or to send or take more of a body.
    pub patience: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            reads: 256,
            writes: 256,
            searches: 64,
            uploads: 256,
            waiting: 256,
            wait: Duration::from_secs(5),
            connections: 4096,
            patience: Duration::from_secs(30),
        }
    }
}

/// Places of one class.
#[derive(Clone)]
struct Places {
    free: Arc<Semaphore>,
    /// Who waits holds one of these.
    queue: Arc<Semaphore>,
}

impl Places {
    fn new(places: usize, waiting: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(places)), queue: Arc::new(Semaphore::new(waiting)) }
    }

    /// A place, at once or after a moment.
    async fn take(&self, wait: Duration) -> Option<OwnedSemaphorePermit> {
        if let Ok(place) = self.free.clone().try_acquire_owned() {
            return Some(place);
        }
        let _turn = self.queue.try_acquire().ok()?;
        tokio::time::timeout(wait, self.free.clone().acquire_owned()).await.ok()?.ok()
    }
}

/// Every request goes through here.
pub(crate) struct Gate {
    app: App,
    bounds: Bounds,
    reads: Places,
    writes: Places,
    searches: Places,
    uploads: Places,
    bodies: Arc<Semaphore>,
    rush: Arc<Rush>,
}

impl Gate {
    pub fn new(app: App, bounds: Bounds) -> Self {
        let places = |count| Places::new(count, bounds.waiting);
        Self {
            app,
            bounds,
            reads: places(bounds.reads),
            writes: places(bounds.writes),
            searches: places(bounds.searches),
            uploads: places(bounds.uploads),
            bodies: Arc::new(Semaphore::new(BODIES_KIB)),
            rush: Arc::new(Rush::new()),
        }
    }

    fn places(&self, class: Class) -> &Places {
        match class {
            Class::Reads => &self.reads,
            Class::Writes => &self.writes,
            Class::Searches => &self.searches,
            Class::Uploads => &self.uploads,
        }
    }

    /// Takes memory for so many bytes of a body; false where there is none in time.
    async fn make_room(&self, bytes: u64, account: &Account) -> bool {
        let room = self.bodies.clone().acquire_many_owned(body::places(bytes));
        match tokio::time::timeout(self.bounds.wait, room).await {
            Ok(Ok(room)) => {
                account.hold(room);
                true
            }
            Ok(Err(_)) | Err(_) => false,
        }
    }
}

/// Lets a request through when there is a place for it, and ends it where its body does not come.
pub(crate) async fn pass(State(gate): State<Arc<Gate>>, mut request: Request, next: Next) -> Response {
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let route = matched.as_ref().map_or("unmatched", MatchedPath::as_str);
    let Some(class) = kind::class(request.method(), route) else { return next.run(request).await };
    if kind::adds(request.method(), route, class)
        && let Err(error) = gate.app.check_room()
    {
        return ApiError(error).into_response();
    }
    let Some(place) = gate.places(class).take(gate.bounds.wait).await else {
        gate.rush.note();
        metrics::counter!("strata_http_turned_away_total", "class" => class.name()).increment(1);
        return busy(class.name());
    };
    let seen = Seen::default();
    request.extensions_mut().insert(seen.clone());
    let account = Arc::new(Account::default());
    if !request.body().is_end_stream() {
        let (is_lines, is_file) = (is_json_lines(request.headers()), route == "/v1/blobs/{token}");
        let paid = match (is_lines, is_file) {
            (_, true) => 0,
            (true, false) => LINES_BYTES,
            (false, false) => body::announced(request.headers()),
        };
        if paid > 0 && !gate.make_room(paid, &account).await {
            return busy("bodies");
        }
        let room = (!is_lines && !is_file).then(|| gate.bodies.clone());
        let patience = gate.bounds.patience;
        let bill = account.clone();
        request = request.map(|body| Body::new(Paced::new(body, patience, room, paid, bill)));
    }
    let mut response = if gate.rush.is_on() { aside::run(request, next).await } else { next.run(request).await };
    let is_fault = response.status().is_client_error() || response.status().is_server_error();
    match account.was_cut().filter(|_| is_fault) {
        Some(Cut::Slow) => response = bare(StatusCode::REQUEST_TIMEOUT, "the body came too slowly; send it again"),
        Some(Cut::NoRoom) => response = busy("bodies"),
        None => {}
    }
    if let Some(standing) = seen.tally().shown {
        show(standing, response.headers_mut());
    }
    let streams = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "text/event-stream");
    if streams { response.map(|body| Body::new(Holding::new(body, place))) } else { response }
}

fn busy(what: &str) -> Response {
    overloaded(format!("the server has too much to do ({what}); try again in a moment"), RETRY_AFTER_SECONDS)
}

/// Where those stand for whom a request was counted.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Tally>>);

#[derive(Default)]
struct Tally {
    /// Whether the key was counted.
    is_counted: bool,
    shown: Option<Standing>,
}

impl Seen {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the standing if it is nearer to its limit than what is known, or the request was refused for it.
    fn note(&self, (standing, outcome): Admission) -> Result<(), ApiError> {
        let mut tally = self.tally();
        let is_nearest =
            standing.is_some_and(|new| tally.shown.is_none_or(|old| outcome.is_err() || new.remaining < old.remaining));
        if is_nearest {
            tally.shown = standing;
        }
        outcome.map_err(ApiError)
    }
}

/// Counts a request of a key, once, or refuses it.
pub(crate) fn count(app: &App, parts: &Parts, principal: &Principal) -> Result<(), ApiError> {
    let Some(seen) = parts.extensions.get::<Seen>() else { return Ok(()) };
    if std::mem::replace(&mut seen.tally().is_counted, true) {
        return Ok(());
    }
    let route = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
    seen.note(app.admit_key(principal, kind::group(&parts.method, route)))
}

pub(crate) const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
pub(crate) const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
pub(crate) const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
pub(crate) const WINDOW: HeaderName = HeaderName::from_static("x-ratelimit-window");

fn show(standing: Standing, headers: &mut HeaderMap) {
    headers.insert(LIMIT, standing.limit.into());
    headers.insert(REMAINING, standing.remaining.into());
    headers.insert(RESET, standing.reset_at.into());
    headers.insert(WINDOW, standing.window_seconds.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn few_wait_for_a_place_and_not_for_long() {
        let places = Places::new(1, 1);
        let wait = Duration::from_secs(5);
        let first = places.take(wait).await.unwrap();
        let waiting = tokio::spawn({
            let places = places.clone();
            async move { places.take(wait).await.is_some() }
        });
        tokio::task::yield_now().await;
        assert!(places.take(wait).await.is_none(), "nobody else may wait");
        drop(first);
        assert!(waiting.await.unwrap());
        let _first = places.take(wait).await.unwrap();
        assert!(places.take(Duration::from_millis(10)).await.is_none(), "nothing came free");
    }

    #[test]
    fn of_several_limits_the_nearest_is_shown_and_one_that_refuses_before_all() {
        let standing = |limit, remaining| Some(Standing { limit, remaining, reset_at: 0, window_seconds: 60 });
        let seen = Seen::default();
        for (limit, remaining, shown) in [(60, 50, 60), (10, 5, 10), (600, 599, 10)] {
            assert!(seen.note((standing(limit, remaining), Ok(()))).is_ok());
            assert_eq!(seen.tally().shown.map(|standing| standing.limit), Some(shown));
        }
        assert!(seen.note((None, Ok(()))).is_ok());
        let busy = strata_model::Error::Busy { message: String::new(), retry_after_seconds: 1 };
        assert!(seen.note((standing(7, 5), Err(busy))).is_err());
        assert_eq!(seen.tally().shown.map(|standing| standing.limit), Some(7));
    }
}
