//! Who sends events out: one task, which looks through the outbox whenever something was added to it. The events of a
//! channel go one after the other, each when the one before has arrived or was given up, those of several channels beside
//! each other. A try that failed is made again after a pause that doubles; so a receiver that stood still misses nothing
//! that is younger than the tries of one event.

use super::{MAX_DEAD, channel::Kept};
use crate::{
    Engine,
    fetch::{Answer, Request},
    times,
};
use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use hmac::{Hmac, Mac};
use reqwest::{
    Method,
    header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};
use serde_json::json;
use sha2::Sha256;
use std::{collections::HashSet, panic::AssertUnwindSafe, sync::Arc, time::Duration};
use strata_model::{Error, Result};
use strata_store::{
    catalog::webhooks::outbox::{self, Address, Delivery},
    faults,
};

/// Channels that are served at once, and events that one gets before another has its turn.
const AT_ONCE: usize = 16;
const TURN: usize = 64;
/// The pause after the first try that failed, and the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// The longest that the task sleeps without looking, and its pause when the catalog fails.
const IDLE: Duration = Duration::from_secs(60);
const TROUBLE: Duration = Duration::from_secs(5);
/// Most bytes of an answer, of which nothing is kept.
const MAX_ANSWER_BYTES: u64 = 1 << 20;
/// Longest error that is kept, in characters.
const MAX_ERROR_CHARS: usize = 500;

/// Starts the task, if events are to be sent. It lives until the engine's queue stops.
pub(crate) fn start(engine: &Arc<Engine>) {
    let Some(tries) = engine.config.webhook_tries else { return };
    let engine = engine.clone();
    let stop = engine.queue.stopping();
    let tracker = engine.queue.tracker().clone();
    drop(tracker.spawn(async move { stop.run_until_cancelled(work(&engine, tries)).await }));
}

async fn work(engine: &Engine, tries: u32) {
    let mut served: HashSet<Address> = HashSet::new();
    let mut turns = FuturesUnordered::new();
    loop {
        let mut pause = IDLE;
        match engine.catalog.read(outbox::waiting).await {
            Ok(waiting) => {
                let now = engine.catalog.now_micros();
                for (address, due_at) in waiting {
                    if served.contains(&address) {
                        continue;
                    }
                    if due_at > now {
                        pause = pause.min(Duration::from_micros(due_at.abs_diff(now)));
                    } else if turns.len() < AT_ONCE {
                        served.insert(address.clone());
                        turns.push(turn(engine, tries, address));
                    }
                }
            }
            Err(error) => {
                tracing::error!(%error, "events for webhooks cannot be read; it is tried again");
                pause = TROUBLE;
            }
        }
        tokio::select! {
            Some(address) = turns.next(), if !turns.is_empty() => {
                served.remove(&address);
            }
            () = engine.catalog.outbox_changed() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Sends what is due to a channel, in its order, until something fails or others should have their turn.
async fn turn(engine: &Engine, tries: u32, address: Address) -> Address {
    for _ in 0..TURN {
        match AssertUnwindSafe(step(engine, tries, &address)).catch_unwind().await {
            Ok(Ok(true)) => continue,
            Ok(Ok(false)) => break,
            Ok(Err(error)) => {
                tracing::error!(%error, webhook_id = address.webhook_id, "what became of an event was not written down");
            }
            Err(_) => tracing::error!(webhook_id = address.webhook_id, "the delivery of an event panicked"),
        }
        tokio::time::sleep(TROUBLE).await;
        break;
    }
    address
}

/// Sends the first event that waits for a channel, if it is due; answers whether it is off the queue.
async fn step(engine: &Engine, tries: u32, address: &Address) -> Result<bool> {
    let of = address.clone();
    let Some(delivery) = engine.catalog.read(move |connection| outbox::head(connection, &of)).await? else {
        return Ok(false);
    };
    if delivery.due_at > engine.catalog.now_micros() {
        return Ok(false);
    }
    let sent = send(engine, &delivery).await;
    faults::reach(faults::Point::EventSent).map_err(Error::internal)?;
    let now = engine.catalog.now();
    let Err(Failure { error, asked_pause }) = sent else {
        metrics::counter!("strata_webhook_events_total", "outcome" => "delivered").increment(1);
        engine.catalog.write(move |tx| outbox::delivered(tx, &delivery, &now)).await?;
        return Ok(true);
    };
    let is_last = delivery.attempts + 1 >= i64::from(tries);
    metrics::counter!("strata_webhook_events_total", "outcome" => if is_last { "given_up" } else { "failed" })
        .increment(1);
    let (webhook_id, event_id) = (&delivery.webhook.webhook_id, delivery.event_id());
    if is_last {
        tracing::warn!(webhook_id, event_id, tries, "an event for a webhook was given up");
    } else {
        tracing::debug!(webhook_id, event_id, tries = delivery.attempts + 1, "an event for a webhook is tried again");
    }
    let pause = pause_after(delivery.attempts).max(asked_pause.min(LONGEST_PAUSE));
    let due_at = engine.catalog.now_micros() + i64::try_from(pause.as_micros()).unwrap_or(i64::MAX / 2);
    let due_at = (!is_last).then_some(due_at);
    let write = engine.catalog.write(move |tx| outbox::failed(tx, &delivery, &error, due_at, MAX_DEAD, &now));
    write.await?;
    Ok(is_last)
}

/// The pause after a try that failed, when `before` have failed before it.
fn pause_after(before: i64) -> Duration {
    let doublings = u32::try_from(before).unwrap_or(u32::MAX).min(16);
    (FIRST_PAUSE * 2u32.pow(doublings)).min(LONGEST_PAUSE)
}

/// Why an event has not arrived.
struct Failure {
    error: String,
    /// The pause that the receiver asks for.
    asked_pause: Duration,
}

impl Failure {
    fn new(error: impl std::fmt::Display) -> Self {
        let error = error.to_string().chars().take(MAX_ERROR_CHARS).collect();
        Self { error, asked_pause: Duration::ZERO }
    }
}

async fn send(engine: &Engine, delivery: &Delivery) -> Result<(), Failure> {
    let channels = engine.opened_channels(&delivery.webhook).await.map_err(Failure::new)?;
    let place = usize::try_from(delivery.channel).unwrap_or(usize::MAX);
    let channel = channels.get(place).ok_or_else(|| Failure::new("the channel is not there any more"))?;
    let request = request(delivery, channel, engine.catalog.now_micros()).map_err(Failure::new)?;
    let answer = engine.fetcher.send(request).await.map_err(Failure::new)?;
    judge(&answer)
}

/// Whether an answer means that the receiver has the event. A redirect does not: what was signed for one place is sent to no
/// other.
fn judge(answer: &Answer) -> Result<(), Failure> {
    match answer.status {
        200..=299 => Ok(()),
        300..=399 => Err(Failure::new(format!("the receiver answered {}; redirects are not followed", answer.status))),
        status => Err(Failure {
            asked_pause: Duration::from_secs(answer.retry_after.unwrap_or(0)),
            ..Failure::new(format!("the receiver answered {status}"))
        }),
    }
}

fn request(delivery: &Delivery, channel: &Kept, now_micros: i64) -> Result<Request> {
    let event_id = delivery.event_id();
    let body = json!({
        "event_id": event_id,
        "event_type": delivery.event_type,
        "created_at": delivery.created_at,
        "webhook_id": delivery.webhook.webhook_id,
        "organization_id": delivery.webhook.organization_id,
        "namespace_id": delivery.namespace_id,
        "resource_type": delivery.resource_type,
        "payload": delivery.payload,
    });
    let body = serde_json::to_vec(&body).map_err(Error::internal)?;
    let seconds = now_micros.div_euclid(times::SECOND).to_string();
    let mut headers = HeaderMap::new();
    for (name, value) in channel.headers() {
        let name = HeaderName::try_from(name).map_err(Error::internal)?;
        headers.insert(name, hidden(value)?);
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let said = [
        ("x-strata-event-id", event_id),
        ("x-strata-event-type", delivery.event_type.clone()),
        ("x-strata-try", (delivery.attempts + 1).to_string()),
        ("x-strata-timestamp", seconds.clone()),
    ];
    for (name, value) in said {
        headers.insert(HeaderName::from_static(name), HeaderValue::try_from(value).map_err(Error::internal)?);
    }
    if let Some(secret) = channel.signing_secret() {
        let signature = format!("v1={}", signature(secret, &seconds, &body)?);
        headers.insert(HeaderName::from_static("x-strata-signature"), hidden(&signature)?);
    }
    Ok(Request {
        method: Method::POST,
        url: channel.url().to_owned(),
        headers,
        body: Some(body.into()),
        domains: Vec::new(),
        follows: false,
        max_bytes: MAX_ANSWER_BYTES,
        timeout: Duration::from_secs_f64(channel.timeout_seconds()),
    })
}

/// A value that no trace shows.
fn hidden(value: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::try_from(value).map_err(Error::internal)?;
    value.set_sensitive(true);
    Ok(value)
}

/// HMAC-SHA256 over the time of the try in Unix seconds, a dot and the body, in hex.
fn signature(secret: &str, seconds: &str, body: &[u8]) -> Result<String> {
    let mut mac: Hmac<Sha256> = Hmac::new_from_slice(secret.as_bytes()).map_err(Error::internal)?;
    mac.update(seconds.as_bytes());
    mac.update(b".");
    mac.update(body);
    Ok(hex::encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let seconds: Vec<u64> = [0, 1, 2, 9, 10, 14, i64::MAX].iter().map(|n| pause_after(*n).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 512, 600, 600, 600]);
    }

    /// Computed with `openssl dgst -sha256 -hmac`.
    #[test]
    fn a_signature_is_that_of_time_and_body() {
        let expected = "19deeee1dbf3e68132db6a4db41cfe324ecf01ea3d30e68ce4b483b0d0980d5c";
        assert_eq!(signature("s3cret", "1767323045", b"{\"a\":1}").unwrap(), expected);
    }

    #[test]
    fn only_a_success_means_that_an_event_has_arrived() {
        let answer = |status| Answer {
            status,
            url: "https://a.example".parse().unwrap(),
            content_type: None,
            body: bytes::Bytes::new(),
            retry_after: Some(7),
        };
        assert!(judge(&answer(204)).is_ok());
        for status in [301, 400, 410, 500] {
            assert!(judge(&answer(status)).is_err(), "{status}");
        }
        let pause = judge(&answer(503)).err().map(|failure| failure.asked_pause);
        assert_eq!(pause, Some(Duration::from_secs(7)));
    }
}
