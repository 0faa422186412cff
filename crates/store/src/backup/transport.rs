//! How what an object store is asked gets there: over the HTTP client that the rest of the process has, so that there is one
//! TLS in it. What is asked, signed and tried again is decided above; this only says what kind of failure one was.

use futures::future::BoxFuture;
use http_body_util::BodyExt;
use object_store::{
    ClientConfigKey, ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
        HttpResponseBody, HttpService,
    },
};
use reqwest::{Body, Certificate, Client, ClientBuilder, NoProxy, Proxy};
use std::{error::Error, io::ErrorKind, time::Duration};

/// What is said of this program where no other name is set.
const AGENT: &str = concat!("strata/", env!("CARGO_PKG_VERSION"));

/// Makes clients of options. Of these `AWS_RANDOMIZE_ADDRESSES` has no effect: addresses are tried in the order in which
/// they are told.
#[derive(Debug)]
pub(super) struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = builder(options)?.build().map_err(unusable)?;
        Ok(HttpClient::new(Service(client)))
    }
}

#[derive(Debug)]
struct Service(Client);

impl HttpService for Service {
    // An `async fn` of the trait, spelled as its macro does.
    fn call<'service, 'answer>(
        &'service self,
        request: HttpRequest,
    ) -> BoxFuture<'answer, Result<HttpResponse, HttpError>>
    where
        'service: 'answer,
        Self: 'answer,
    {
        Box::pin(self.send(request))
    }
}

impl Service {
    /// The answer, of whatever status, as soon as its head is there; its body comes piece by piece.
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let request = reqwest::Request::try_from(request.map(outgoing)).map_err(broken)?;
        let answer: hyper::Response<Body> = self.0.execute(request).await.map_err(broken)?.into();
        Ok(answer.map(|body| HttpResponseBody::new(body.map_err(broken))))
    }
}

/// A body of one piece can be sent again by the client, where a kept connection turns out to be gone.
fn outgoing(body: HttpRequestBody) -> Body {
    match body.as_bytes().cloned() {
        Some(bytes) => Body::from(bytes),
        None => Body::wrap(body),
    }
}

/// The failure of a request or of its answer, without the URL: who tries again names it where it is no secret.
fn broken(error: reqwest::Error) -> HttpError {
    let kind = kind(&error);
    HttpError::new(kind, error.without_url())
}

/// What decides whether a request is tried again: always, only where it may happen twice, or never.
fn kind(error: &reqwest::Error) -> HttpErrorKind {
    if error.is_timeout() {
        return HttpErrorKind::Timeout;
    }
    if error.is_connect() {
        return HttpErrorKind::Connect;
    }
    if error.is_decode() {
        return HttpErrorKind::Decode;
    }
    let mut cause = error.source();
    while let Some(at) = cause {
        if let Some(kind) = kind_of_cause(at) {
            return kind;
        }
        cause = at.source();
    }
    HttpErrorKind::Unknown
}

fn kind_of_cause(cause: &(dyn Error + 'static)) -> Option<HttpErrorKind> {
    if let Some(error) = cause.downcast_ref::<hyper::Error>() {
        if error.is_closed() || error.is_incomplete_message() || error.is_body_write_aborted() {
            return Some(HttpErrorKind::Request);
        }
        return error.is_timeout().then_some(HttpErrorKind::Timeout);
    }
    match cause.downcast_ref::<std::io::Error>()?.kind() {
        ErrorKind::TimedOut => Some(HttpErrorKind::Timeout),
        ErrorKind::ConnectionAborted
        | ErrorKind::ConnectionReset
        | ErrorKind::BrokenPipe
        | ErrorKind::UnexpectedEof => Some(HttpErrorKind::Interrupted),
        _ => None,
    }
}

type SetTime = fn(ClientBuilder, Duration) -> ClientBuilder;

/// The options that are times.
const TIMES: [(ClientConfigKey, SetTime); 6] = [
    (ClientConfigKey::Timeout, |builder, time| builder.timeout(time)),
    (ClientConfigKey::ConnectTimeout, |builder, time| builder.connect_timeout(time)),
    (ClientConfigKey::ReadTimeout, |builder, time| builder.read_timeout(time)),
    (ClientConfigKey::PoolIdleTimeout, |builder, time| builder.pool_idle_timeout(time)),
    (ClientConfigKey::Http2KeepAliveInterval, |builder, time| builder.http2_keep_alive_interval(time)),
    (ClientConfigKey::Http2KeepAliveTimeout, |builder, time| builder.http2_keep_alive_timeout(time)),
];

/// A client with these options. An option whose value cannot be read is an error that does not repeat it.
fn builder(options: &ClientOptions) -> object_store::Result<ClientBuilder> {
    let is_set = |key| value(options, key, switch).map(Option::unwrap_or_default);
    let agent = options.get_config_value(&ClientConfigKey::UserAgent).unwrap_or_else(|| AGENT.to_owned());
    let mut builder = Client::builder()
        .user_agent(agent)
        // An object's length is that of its bytes as they travel.
        .no_gzip()
        .no_brotli()
        .no_deflate()
        .no_zstd()
        .https_only(!is_set(ClientConfigKey::AllowHttp)?)
        .danger_accept_invalid_certs(is_set(ClientConfigKey::AllowInvalidCertificates)?)
        .tls_built_in_native_certs(!is_set(ClientConfigKey::NoSystemCertificates)?)
        .http2_keep_alive_while_idle(is_set(ClientConfigKey::Http2KeepAliveWhileIdle)?);
    for (key, set) in TIMES {
        if let Some(time) = value(options, key, time)? {
            builder = set(builder, time);
        }
    }
    if let Some(connections) = value(options, ClientConfigKey::PoolMaxIdlePerHost, |text| text.parse::<usize>().ok())? {
        builder = builder.pool_max_idle_per_host(connections);
    }
    if let Some(size_bytes) = value(options, ClientConfigKey::Http2MaxFrameSize, |text| text.parse::<u32>().ok())? {
        builder = builder.http2_max_frame_size(size_bytes);
    }
    if is_set(ClientConfigKey::Http1Only)? {
        builder = builder.http1_only();
    }
    if is_set(ClientConfigKey::Http2Only)? {
        builder = builder.http2_prior_knowledge();
    }
    proxied(builder, options)
}

/// With the proxy of the options, where they have one; else that of the environment is used.
fn proxied(mut builder: ClientBuilder, options: &ClientOptions) -> object_store::Result<ClientBuilder> {
    let Some(url) = options.get_config_value(&ClientConfigKey::ProxyUrl) else { return Ok(builder) };
    if let Some(pem) = options.get_config_value(&ClientConfigKey::ProxyCaCertificate) {
        builder = builder.add_root_certificate(Certificate::from_pem(pem.as_bytes()).map_err(unusable)?);
    }
    let excluded = options.get_config_value(&ClientConfigKey::ProxyExcludes);
    let excluded = excluded.and_then(|hosts| NoProxy::from_string(&hosts));
    Ok(builder.proxy(Proxy::all(url).map_err(unusable)?.no_proxy(excluded)))
}

/// An option's value, or `None` where it has none.
fn value<T>(
    options: &ClientOptions,
    key: ClientConfigKey,
    parse: impl FnOnce(&str) -> Option<T>,
) -> object_store::Result<Option<T>> {
    let Some(text) = options.get_config_value(&key) else { return Ok(None) };
    parse(&text).map(Some).ok_or_else(|| unusable(format!("`{}` has a value that is none", key.as_ref())))
}

fn switch(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "on" | "yes" | "y" => Some(true),
        "0" | "false" | "off" | "no" | "n" => Some(false),
        _ => None,
    }
}

/// A time such as `5m`, `30 seconds` or `1s 500ms`.
fn time(text: &str) -> Option<Duration> {
    text.parse::<jiff::SignedDuration>().ok()?.try_into().ok()
}

fn unusable(source: impl Into<Box<dyn Error + Send + Sync>>) -> object_store::Error {
    object_store::Error::Generic { store: "HTTP client", source: source.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use futures::StreamExt;
    use object_store::PutPayload;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
        task::JoinHandle,
    };

    const TAKEN: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nabcdef";

    /// Where a server listens.
    async fn listen() -> (TcpListener, String) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}/bucket/object", listener.local_addr().unwrap());
        (listener, url)
    }

    /// Takes one request, up to `end`, says `answer` and hangs up; what was asked.
    fn serve(listener: TcpListener, end: &'static [u8], answer: &'static [u8]) -> JoinHandle<String> {
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let asked = read_to(&mut stream, end).await;
            stream.write_all(answer).await.unwrap();
            asked
        })
    }

    async fn read_to(stream: &mut TcpStream, end: &[u8]) -> String {
        let mut asked = Vec::new();
        while !asked.ends_with(end) {
            assert_ne!(stream.read_buf(&mut asked).await.unwrap(), 0, "{}", String::from_utf8_lossy(&asked));
        }
        String::from_utf8(asked).unwrap()
    }

    fn client(options: &ClientOptions) -> HttpClient {
        Connector.connect(options).unwrap()
    }

    fn near() -> ClientOptions {
        ClientOptions::new().with_allow_http(true)
    }

    fn request(method: &str, url: &str, body: HttpRequestBody) -> HttpRequest {
        hyper::Request::builder().method(method).uri(url).body(body).unwrap()
    }

    async fn failed(options: &ClientOptions, url: &str) -> HttpError {
        client(options).execute(request("GET", url, HttpRequestBody::empty())).await.map(drop).unwrap_err()
    }

    #[tokio::test]
    async fn a_body_in_pieces_goes_out_with_its_length_and_the_answer_comes_back() {
        let (listener, url) = listen().await;
        let server = serve(listener, b"onetwo", TAKEN);
        let payload: PutPayload = [Bytes::from_static(b"one"), Bytes::from_static(b"two")].into_iter().collect();
        let answer = client(&near()).execute(request("PUT", &url, payload.into())).await.unwrap();
        assert_eq!(answer.status().as_u16(), 200);
        assert_eq!(answer.into_body().bytes().await.unwrap(), "abcdef");
        let asked = server.await.unwrap().to_ascii_lowercase();
        assert!(asked.starts_with("put /bucket/object http/1.1\r\n"), "{asked}");
        assert!(asked.contains("content-length: 6\r\n") && asked.contains("user-agent: strata/"), "{asked}");
    }

    #[tokio::test]
    async fn what_came_of_an_answer_is_passed_on_before_it_breaks_off() {
        let (listener, url) = listen().await;
        let server = serve(listener, b"\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc");
        let answer = client(&near()).execute(request("GET", &url, HttpRequestBody::empty())).await.unwrap();
        let mut pieces = answer.into_body().bytes_stream();
        assert_eq!(pieces.next().await.unwrap().unwrap(), "abc");
        let error = pieces.next().await.unwrap().unwrap_err();
        assert_eq!(error.kind(), HttpErrorKind::Interrupted, "{error:?}");
        server.await.unwrap();
    }

    #[tokio::test]
    async fn each_failure_is_told_by_its_kind_and_without_the_url() {
        let (listener, url) = listen().await;
        let server = serve(listener, b"\r\n\r\n", b"");
        let error = failed(&near(), &url).await;
        assert_eq!(error.kind(), HttpErrorKind::Request, "{error:?}");
        assert!(!format!("{error:?}").contains("bucket"), "{error:?}");
        server.await.unwrap();

        // The server's end went with the task, so nobody listens there.
        let error = failed(&near(), &url).await;
        assert_eq!(error.kind(), HttpErrorKind::Connect, "{error:?}");

        let (silent, url) = listen().await;
        let error = failed(&near().with_timeout(Duration::from_millis(50)), &url).await;
        assert_eq!(error.kind(), HttpErrorKind::Timeout, "{error:?}");
        drop(silent);
    }

    #[tokio::test]
    async fn without_leave_nothing_is_asked_without_tls() {
        let (listener, url) = listen().await;
        let error = failed(&ClientOptions::new(), &url).await;
        assert_eq!(error.kind(), HttpErrorKind::Unknown, "{error:?}");
        drop(listener);
    }

    #[test]
    fn options_are_read_as_they_are_written() {
        for (text, seconds) in [("5m", 300.0), ("30 seconds", 30.0), ("1s 500ms", 1.5), ("0s", 0.0), ("2min", 120.0)] {
            assert_eq!(time(text), Some(Duration::from_secs_f64(seconds)), "{text}");
        }
        let options = ClientOptions::new().with_timeout(Duration::from_millis(300_250));
        assert_eq!(value(&options, ClientConfigKey::Timeout, time).unwrap(), Some(Duration::from_millis(300_250)));
        for (key, text) in [
            (ClientConfigKey::Timeout, "s3cret"),
            (ClientConfigKey::ConnectTimeout, "-1s"),
            (ClientConfigKey::AllowHttp, "s3cret"),
            (ClientConfigKey::PoolMaxIdlePerHost, "s3cret"),
        ] {
            let error = Connector.connect(&ClientOptions::new().with_config(key, text)).unwrap_err();
            assert!(error.to_string().contains(key.as_ref()) && !error.to_string().contains(text), "{error}");
        }
        client(&ClientOptions::new().with_config(ClientConfigKey::Http2MaxFrameSize, "65536"));
    }
}
