//! One run of a model after the other, on threads that may block, with a bound on how many callers wait.

use std::sync::Arc;
use strata_model::{Error, Result};
use tokio::sync::Semaphore;

/// The right to run a model that uses all threads.
#[derive(Debug, Clone)]
pub struct Turn {
    what: &'static str,
    waiting: usize,
    turn: Arc<Semaphore>,
    room: Arc<Semaphore>,
}

impl Turn {
    /// `waiting` callers may have a run or wait for one; `what` they ask for is named in errors, in the plural.
    pub fn new(what: &'static str, waiting: usize) -> Self {
        Self { what, waiting, turn: Arc::new(Semaphore::new(1)), room: Arc::new(Semaphore::new(waiting)) }
    }

    /// Runs `work` when it is its turn. Dropping the future gives up the place in the queue; work that has begun goes on to
    /// its end, and others wait for it.
    ///
    /// Errors: `Busy` where too many wait; what `work` answers; `Internal` where it panics.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        let room = self.room.clone().try_acquire_owned().map_err(|_| Error::Busy {
            message: format!("{} {} are already waiting for the model", self.waiting, self.what),
            retry_after_seconds: 1,
        })?;
        let turn = self.turn.clone().acquire_owned().await.map_err(Error::internal)?;
        let held = move || {
            let _held = (room, turn);
            work()
        };
        tokio::task::spawn_blocking(held).await.map_err(Error::internal)?
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn one_runs_others_wait_and_too_many_are_refused() {
        let turn = Turn::new("recordings", 2);
        let (go, gate) = std::sync::mpsc::channel::<()>();
        let first = tokio::spawn({
            let turn = turn.clone();
            async move { turn.run(move || gate.recv().map_err(Error::internal)).await }
        });
        while turn.turn.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let second = tokio::spawn({
            let turn = turn.clone();
            async move { turn.run(|| Ok(2)).await }
        });
        while turn.room.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(
            matches!(turn.run(|| Ok(3)).await, Err(Error::Busy { message, .. }) if message.contains("2 recordings"))
        );
        go.send(()).unwrap();
        first.await.unwrap().unwrap();
        assert_eq!(second.await.unwrap().unwrap(), 2);
        assert!(turn.run::<()>(|| panic!("a bug")).await.is_err());
        assert_eq!(turn.run(|| Ok(4)).await.unwrap(), 4);
    }
}
