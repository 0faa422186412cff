//! Bodies of requests as they come: one that comes too slowly, or that there is no memory for, ends in an error.

use axum::{
    body::{Body, HttpBody},
    http::{HeaderMap, header},
};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};
use strata_model::limits::MAX_BODY_BYTES;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep},
};

/// Slower than this, in bytes a second, a body is cut once it has used up its patience.
const LEAST_PACE: u64 = 1024;
/// Bodies up to this size are paid for by the bound of requests.
const SMALL_BYTES: u64 = 64 << 10;
/// What is asked for when a body turns out to be longer than was known.
const STEP_BYTES: u64 = 1 << 20;

/// Why a body was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    Slow,
    NoRoom,
}

/// What the middleware shares with the body that it gives to the handler: memory taken for it, until the answer is there,
/// and what went wrong.
#[derive(Default)]
pub(super) struct Account {
    held: Mutex<(Option<OwnedSemaphorePermit>, Option<Cut>)>,
}

impl Account {
    pub fn hold(&self, permit: OwnedSemaphorePermit) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut held.0 {
            Some(there) => there.merge(permit),
            none => *none = Some(permit),
        }
    }

    fn cut(&self, why: Cut) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).1 = Some(why);
    }

    pub fn was_cut(&self) -> Option<Cut> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).1
    }
}

/// Places in the memory for bodies, which are of 1 KiB.
pub(super) fn places(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

/// How many bytes of memory are worth asking for before a body is read: as many as it says that it has, and 0 where it says
/// nothing, is small, or is larger than who reads it will take.
pub(super) fn announced(headers: &HeaderMap) -> u64 {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    length.filter(|length| (SMALL_BYTES + 1..=MAX_BODY_BYTES as u64).contains(length)).unwrap_or(0)
}

/// A body with patience and a bill.
pub(super) struct Paced {
    body: Body,
    patience: Duration,
    /// Of all time that was waited for bytes.
    waited: Duration,
    since: Option<Instant>,
    timer: Pin<Box<Sleep>>,
    came_bytes: u64,
    paid_bytes: u64,
    /// Where memory comes from; `None` where the body is not kept.
    room: Option<Arc<Semaphore>>,
    account: Arc<Account>,
}

impl Paced {
    /// `paid_bytes` are those for which `account` holds memory already.
    pub fn new(
        body: Body,
        patience: Duration,
        room: Option<Arc<Semaphore>>,
        paid_bytes: u64,
        account: Arc<Account>,
    ) -> Self {
        Self {
            body,
            patience,
            waited: Duration::ZERO,
            since: None,
            timer: Box::pin(tokio::time::sleep(patience)),
            came_bytes: 0,
            paid_bytes: paid_bytes.max(SMALL_BYTES),
            room,
            account,
        }
    }

    /// How long the next bytes may take.
    fn patience_left(&self) -> Duration {
        let earned = Duration::from_secs(self.came_bytes / LEAST_PACE);
        self.patience.min((self.patience + earned).saturating_sub(self.waited))
    }

    /// Pays for what came; false where there is no memory for it.
    fn pay(&mut self) -> bool {
        let Some(room) = &self.room else { return true };
        // What is too long is refused by who reads it.
        while self.paid_bytes < self.came_bytes && self.paid_bytes <= MAX_BODY_BYTES as u64 {
            match room.clone().try_acquire_many_owned(places(STEP_BYTES)) {
                Ok(permit) => self.account.hold(permit),
                Err(_) => return false,
            }
            self.paid_bytes += STEP_BYTES;
        }
        true
    }

    fn ended(&self, why: Cut) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.account.cut(why);
        Poll::Ready(Some(Err(axum::Error::new(match why {
            Cut::Slow => "the body came too slowly",
            Cut::NoRoom => "there is no memory for the body",
        }))))
    }
}

impl HttpBody for Paced {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                if let Some(since) = this.since.take() {
                    this.waited += since.elapsed();
                }
                let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()).and_then(Frame::data_ref);
                this.came_bytes += data.map_or(0, |data| data.len() as u64);
                if this.pay() { Poll::Ready(frame) } else { this.ended(Cut::NoRoom) }
            }
            Poll::Pending => {
                if this.since.is_none() {
                    let now = Instant::now();
                    this.since = Some(now);
                    let until = now + this.patience_left();
                    this.timer.as_mut().reset(until);
                }
                ready!(this.timer.as_mut().poll(cx));
                this.ended(Cut::Slow)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer that keeps its place until it is sent.
pub(super) struct Holding {
    body: Body,
    _place: OwnedSemaphorePermit,
}

impl Holding {
    pub fn new(body: Body, place: OwnedSemaphorePermit) -> Self {
        Self { body, _place: place }
    }
}

impl HttpBody for Holding {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;

    fn paced(body: Body, room: usize) -> (Body, Arc<Account>) {
        let account = Arc::new(Account::default());
        let room = Some(Arc::new(Semaphore::new(room)));
        let patience = Duration::from_millis(100);
        (Body::new(Paced::new(body, patience, room, 0, account.clone())), account)
    }

    #[tokio::test]
    async fn a_body_that_stops_is_cut_and_one_that_comes_is_not() {
        let halves = stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"half"))]);
        let never = futures::StreamExt::chain(halves, stream::pending());
        let (body, account) = paced(Body::from_stream(never), 8);
        assert!(axum::body::to_bytes(body, 100).await.is_err());
        assert_eq!(account.was_cut(), Some(Cut::Slow));
        let (body, account) = paced(Body::from("whole"), 8);
        assert_eq!(axum::body::to_bytes(body, 100).await.unwrap(), "whole");
        assert_eq!(account.was_cut(), None);
    }

    #[tokio::test]
    async fn a_body_that_drips_is_cut() {
        let drops = stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(40)).await;
            Some((Ok::<_, std::io::Error>(Bytes::from_static(b".")), ()))
        });
        let (body, account) = paced(Body::from_stream(drops), 8);
        assert!(axum::body::to_bytes(body, 100).await.is_err());
        assert_eq!(account.was_cut(), Some(Cut::Slow));
    }

    #[tokio::test]
    async fn a_body_of_unknown_length_is_cut_where_there_is_no_memory() {
        let long = || Body::from(vec![b'x'; 3 << 20]);
        let (body, account) = paced(long(), 2048);
        assert!(axum::body::to_bytes(body, 4 << 20).await.is_err());
        assert_eq!(account.was_cut(), Some(Cut::NoRoom));
        let (body, _) = paced(long(), 4096);
        assert_eq!(axum::body::to_bytes(body, 4 << 20).await.unwrap().len(), 3 << 20);
    }
}
