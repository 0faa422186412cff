//! Turns of a model that works on one input at a time: as many beside each other as there are threads, a thread each. No
//! thread waits for another between two layers, so together they are faster than one after the other on all threads.

use crate::limits::{MAX_THREADS, MAX_WAITING_TURNS};
use crate::queue::Priority;
use parking_lot::Mutex;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use strata_model::{Error, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A network and the turns at it, each with a state of its own: what is cheaper to use again than to make.
pub struct Pool<N, S = ()> {
    name: &'static str,
    network: Arc<N>,
    states: Arc<Mutex<Vec<State<S>>>>,
    turns: Arc<Semaphore>,
    /// Background work waits here first, so that never more of it stands before a query than there are threads.
    background: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

struct State<S> {
    thread: rten::ThreadPool,
    own: S,
}

/// The right to run once. Given back when it is dropped.
struct Turn {
    _turn: OwnedSemaphorePermit,
    _background: Option<OwnedSemaphorePermit>,
    _waiting: Option<OwnedSemaphorePermit>,
}

impl<N: Send + Sync + 'static, S: Default + Send + 'static> Pool<N, S> {
    /// `name` is the model's id, for errors.
    pub fn new(name: &'static str, threads: usize, network: N) -> Self {
        let threads = threads.clamp(1, MAX_THREADS);
        let state = || State { thread: rten::ThreadPool::with_num_threads(1), own: S::default() };
        Self {
            name,
            network: Arc::new(network),
            states: Arc::new(Mutex::new(std::iter::repeat_with(state).take(threads).collect())),
            turns: Arc::new(Semaphore::new(threads)),
            background: Arc::new(Semaphore::new(threads)),
            waiting: Arc::new(Semaphore::new(MAX_WAITING_TURNS)),
        }
    }

    /// Runs `work` on a thread that may block, when it is its turn. Dropping the future gives up what has not begun; what
    /// has begun goes on and keeps its turn until its end.
    ///
    /// Errors: `Busy` where too many queries wait; `Internal` where `work` panics.
    pub async fn run<T: Send + 'static>(
        &self,
        priority: Priority,
        work: impl FnOnce(&N, &mut S) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let turn = self.turn(priority).await?;
        let (name, network, states) = (self.name, self.network.clone(), self.states.clone());
        let run = move || run(name, &states, turn, |state| work(&network, state));
        tokio::task::spawn_blocking(run).await.map_err(Error::internal)?
    }

    /// [`Pool::run`] on this thread, which may block.
    pub fn run_here<T: Send>(&self, work: impl FnOnce(&N, &mut S) -> Result<T> + Send) -> Result<T> {
        let turn = crate::embed::block_on(self.turn(Priority::Ingest))?;
        run(self.name, &self.states, turn, |state| work(&self.network, state))
    }

    async fn turn(&self, priority: Priority) -> Result<Turn> {
        let (mut background, mut waiting) = (None, None);
        match priority {
            Priority::Ingest => {
                background = Some(self.background.clone().acquire_owned().await.map_err(Error::internal)?);
            }
            Priority::Query => {
                let room = self.waiting.clone().try_acquire_owned();
                waiting = Some(room.map_err(|_| Error::Busy {
                    message: format!("{MAX_WAITING_TURNS} queries are already waiting for model `{}`", self.name),
                    retry_after_seconds: 1,
                })?);
            }
        }
        let turn = self.turns.clone().acquire_owned().await.map_err(Error::internal)?;
        Ok(Turn { _turn: turn, _background: background, _waiting: waiting })
    }
}

fn run<S: Default + Send, T: Send>(
    name: &str,
    states: &Mutex<Vec<State<S>>>,
    turn: Turn,
    work: impl FnOnce(&mut S) -> Result<T> + Send,
) -> Result<T> {
    let state = states.lock().pop();
    // There are as many states as turns.
    let mut state = state.ok_or_else(|| Error::internal(format!("model `{name}` has no thread for a turn")))?;
    let State { thread, own } = &mut state;
    let result = catch_unwind(AssertUnwindSafe(|| thread.run(|| work(own))));
    let result = result.unwrap_or_else(|_| {
        state.own = S::default();
        Err(Error::Internal(format!("model `{name}` panicked")))
    });
    states.lock().push(state);
    drop(turn);
    result
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::mpsc;

    /// Polls once, to see that it waits.
    fn waits(future: std::pin::Pin<&mut impl Future>) -> bool {
        future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_pending()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_query_goes_before_background_work_and_what_runs_keeps_its_turn_when_its_caller_goes_away() {
        let pool = Pool::<(), ()>::new("test", 1, ());
        let (go, gate) = mpsc::channel::<()>();
        let (began, begins) = mpsc::channel::<&str>();
        let says = |name: &'static str| {
            let began = began.clone();
            move |(): &(), (): &mut ()| began.send(name).map_err(Error::internal)
        };
        let first = says("given up");
        let mut given_up = Box::pin(pool.run(Priority::Ingest, move |network, state| {
            first(network, state)?;
            gate.recv().map_err(Error::internal)
        }));
        assert!(waits(given_up.as_mut()));
        assert_eq!(begins.recv().unwrap(), "given up");
        drop(given_up);

        let mut one = Box::pin(pool.run(Priority::Ingest, says("one")));
        let mut two = Box::pin(pool.run(Priority::Ingest, says("two")));
        let mut query = Box::pin(pool.run(Priority::Query, says("query")));
        assert!(waits(one.as_mut()) && waits(two.as_mut()) && waits(query.as_mut()));
        assert!(begins.try_recv().is_err(), "the one that was given up still runs");
        go.send(()).unwrap();
        let (one, two, query) = tokio::join!(one, two, query);
        assert!(one.is_ok() && two.is_ok() && query.is_ok());
        assert_eq!(begins.try_iter().collect::<Vec<_>>(), ["query", "one", "two"]);
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_the_turn_comes_back() {
        let pool = Pool::<(), Vec<u8>>::new("test", 1, ());
        let failed = pool.run(Priority::Query, |(), _| -> Result<()> { panic!("for the test") }).await;
        assert!(matches!(failed, Err(Error::Internal(m)) if m.contains("panicked")));
        assert_eq!(pool.run(Priority::Ingest, |(), state| Ok(state.len())).await.unwrap(), 0);
    }
}
