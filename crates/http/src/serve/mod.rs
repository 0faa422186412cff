//! Connections: so many at once, over TLS or not, each with bounds of its own, until the server stops. HTTP/1.1 only.

mod stream;
mod tls;

pub use tls::Tls;

use crate::{Bounds, metrics, router};
use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Request},
    http::{HeaderValue, header},
    middleware::map_response,
    response::Response,
};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use std::{
    io::{self, Write},
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    time::Duration,
};
use strata_engine::Engine;
use stream::Patient;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::util::MapRequest;

/// How long open requests may take to finish after the server was asked to stop.
const DRAIN: Duration = Duration::from_secs(20);
/// Largest header of a request, its first line included, in bytes.
const MAX_HEADER_BYTES: usize = 64 << 10;
/// How long to wait after no connection could be accepted, for want of files or memory.
const PAUSE: Duration = Duration::from_millis(200);
/// What a connection is told that there is no place for.
const TURNED_AWAY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// How the API is served.
#[derive(Clone, Default)]
pub struct Serving {
    pub bounds: Bounds,
    /// `None`: without TLS.
    pub tls: Option<Tls>,
}

/// Serves until `shutdown` ends, then lets open requests finish.
pub async fn serve(
    engine: Arc<Engine>,
    listener: TcpListener,
    serving: Serving,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let upkeep = tokio::spawn(metrics::upkeep());
    let mut app = router(engine, serving.bounds);
    if serving.tls.is_some() {
        app = app.layer(map_response(only_by_tls));
    }
    let places = Arc::new(Semaphore::new(serving.bounds.connections));
    let (open, stop) = (TaskTracker::new(), CancellationToken::new());
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = shutdown.as_mut() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            // The peer's fault.
            Err(error) if is_of_the_peer(&error) => continue,
            Err(error) => {
                tracing::error!(%error, "no connection can be accepted; trying again");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            ::metrics::counter!("strata_http_turned_away_total", "class" => "connections").increment(1);
            turn_away(stream);
            continue;
        };
        let connection = connection(stream, address, app.clone(), serving.clone(), stop.clone());
        drop(open.spawn(async move {
            connection.await;
            drop(place);
        }));
    }
    drop(listener);
    stop.cancel();
    open.close();
    if tokio::time::timeout(DRAIN, open.wait()).await.is_err() {
        tracing::warn!("requests were still open {} seconds after the stop; they are cut off", DRAIN.as_secs());
    }
    upkeep.abort();
    Ok(())
}

fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Says so as far as that goes without waiting.
fn turn_away(stream: TcpStream) {
    if let Ok(mut stream) = stream.into_std() {
        // Who has gone meanwhile need not be told.
        let _ = stream.write_all(TURNED_AWAY);
    }
}

/// Serves one connection to its end.
async fn connection(stream: TcpStream, address: SocketAddr, app: Router, serving: Serving, stop: CancellationToken) {
    // Answers are written whole; waiting to fill a packet gains nothing.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "small packets of a connection may wait");
    }
    let patience = serving.bounds.patience;
    let stream = Patient::new(stream, patience);
    let Some(Tls(acceptor)) = serving.tls else { return speak(stream, address, app, patience, stop).await };
    match tokio::time::timeout(patience, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => speak(stream, address, app, patience, stop).await,
        Ok(Err(error)) => tracing::debug!(%error, %address, "a connection did not begin"),
        Err(_) => tracing::debug!(%address, "a connection took too long to begin"),
    }
}

async fn speak<S>(stream: S, address: SocketAddr, app: Router, patience: Duration, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = MapRequest::new(app, move |request: hyper::Request<Incoming>| -> Request {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(address));
        request
    });
    let mut http = http1::Builder::new();
    // The same patience for the next request of a connection that is kept open.
    http.timer(TokioTimer::new()).header_read_timeout(patience).max_header_size(MAX_HEADER_BYTES);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)));
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, %address, "a connection ended");
    }
}

/// Who has come by TLS once comes by nothing else.
async fn only_by_tls(mut response: Response) -> Response {
    let year = HeaderValue::from_static("max-age=31536000");
    response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, year);
    response
}
