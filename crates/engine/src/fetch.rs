//! Bytes from URLs that callers name. A caller must not reach through this server what only this server can reach, so
//! every address is looked at before it is connected to: names are resolved here, redirects are followed here, and
//! each hop is judged anew.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use reqwest::{
    Client, Method, Response, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    header::{self, HeaderMap},
};
use std::{
    error::Error as StdError,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};
use strata_model::{Error, Result};

/// Most redirects that one fetch follows.
const MAX_REDIRECTS: usize = 5;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest silence between two pieces of an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// An HTTP client that goes only where callers may send it.
#[derive(Clone)]
pub struct Fetcher {
    client: Client,
    allow_private: bool,
}

/// A whole answer.
#[derive(Debug)]
pub struct Fetched {
    pub bytes: Bytes,
    /// As the other side says, without parameters.
    pub media_type: Option<String>,
    pub filename: Option<String>,
}

/// An answer whose bytes are still to come.
pub struct Remote {
    pub media_type: Option<String>,
    pub filename: Option<String>,
    /// Fails when the promised size is exceeded.
    pub body: BoxStream<'static, Result<Bytes>>,
}

/// A request that a caller composed.
pub struct Request {
    pub method: Method,
    pub url: String,
    pub headers: HeaderMap,
    pub body: Option<Bytes>,
    /// Hosts that it may go to; `*.` before one means its subdomains. Empty: every one.
    pub domains: Vec<String>,
    /// Whether redirects are followed; else they are answered as they are.
    pub follows: bool,
    /// Largest answer.
    pub max_bytes: u64,
    /// For everything together.
    pub timeout: Duration,
}

/// A whole answer, of whatever status.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub url: Url,
    pub content_type: Option<String>,
    pub body: Bytes,
    /// Seconds that it asks to wait before another request.
    pub retry_after: Option<u64>,
}

impl Fetcher {
    /// `allow_private` lets private and loopback addresses through, for a server whose callers are all trusted.
    pub fn new(allow_private: bool) -> Result<Self> {
        let client = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .dns_resolver(Arc::new(Guard { allow_private }))
            // A proxy would resolve the names, out of our sight.
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .user_agent(concat!("strata/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(Error::internal)?;
        Ok(Self { client, allow_private })
    }

    /// A client of a process that the operator named, at a socket of this machine where one is given. Work may take it as
    /// long as a request says.
    pub fn to_neighbour(socket: Option<&Path>) -> Result<Self> {
        let mut client = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .user_agent(concat!("strata/", env!("CARGO_PKG_VERSION")));
        if let Some(socket) = socket {
            client = client.unix_socket(socket);
        }
        Ok(Self { client: client.build().map_err(Error::internal)?, allow_private: true })
    }

    /// The content of `url`, at most `max_bytes` of it.
    pub async fn fetch(&self, url: &str, max_bytes: u64) -> Result<Fetched> {
        let remote = self.open(url, max_bytes).await?;
        let pieces: Vec<Bytes> = remote.body.try_collect().await?;
        Ok(Fetched { bytes: pieces.concat().into(), media_type: remote.media_type, filename: remote.filename })
    }

    /// [`Fetcher::fetch`], with the bytes as they come.
    pub async fn open(&self, url: &str, max_bytes: u64) -> Result<Remote> {
        let mut at = self.check(url)?;
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.client.get(at.clone()).send().await.map_err(|e| failure(&at, e))?;
            if !answer.status().is_redirection() {
                return remote(at, answer, max_bytes);
            }
            at = self.next_hop(&at, &answer)?;
        }
        Err(Error::Upstream(format!("`{url}` redirects more than {MAX_REDIRECTS} times")))
    }

    /// Sends a request and follows its redirects, if it says so, each judged anew. What a caller put into headers goes to the origin that
    /// it named and no further; a body that a redirect would take elsewhere ends the request.
    pub async fn send(&self, request: Request) -> Result<Answer> {
        let (url, timeout) = (request.url.clone(), request.timeout);
        let work = self.follow(request);
        let too_slow = |_| Error::Upstream(format!("`{url}` did not answer within {} s", timeout.as_secs_f64()));
        tokio::time::timeout(timeout, work).await.map_err(too_slow)?
    }

    async fn follow(&self, request: Request) -> Result<Answer> {
        let Request { mut method, url, mut headers, mut body, domains, follows, max_bytes, .. } = request;
        let first = self.check(&url)?;
        let mut at = first.clone();
        for _ in 0..=MAX_REDIRECTS {
            if !domains.is_empty() && !domains.iter().any(|domain| is_within(&at, domain)) {
                let host = at.host_str().unwrap_or_default();
                return Err(Error::invalid("url", format!("`{host}` is not one of the `allowed_domains`")));
            }
            let mut sent = self.client.request(method.clone(), at.clone()).headers(headers.clone());
            sent = body.iter().fold(sent, |sent, body| sent.body(body.clone()));
            let answer = sent.send().await.map_err(|e| failure(&at, e))?;
            if !follows || !matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return whole(at, answer, max_bytes).await;
            }
            let next = self.next_hop(&at, &answer)?;
            let keeps_method = matches!(answer.status().as_u16(), 307 | 308);
            if !keeps_method && method != Method::GET && method != Method::HEAD {
                (method, body) = (Method::GET, None);
                headers.remove(header::CONTENT_TYPE);
            }
            if next.origin() != at.origin() {
                if body.is_some() {
                    return Err(Error::Upstream(format!("`{at}` redirects a body to another server; it is not sent")));
                }
                headers.clear();
            }
            at = next;
        }
        Err(Error::Upstream(format!("`{first}` redirects more than {MAX_REDIRECTS} times")))
    }

    fn next_hop(&self, at: &Url, answer: &Response) -> Result<Url> {
        let location = answer.headers().get(header::LOCATION).and_then(|l| l.to_str().ok());
        let next = location.and_then(|l| at.join(l).ok());
        let next = next.ok_or_else(|| Error::Upstream(format!("`{at}` redirects to nowhere")))?;
        self.check(next.as_str())
    }

    /// Refuses a URL that is never asked: one that is no HTTP, holds a password, or names an address that is out of bounds.
    pub fn judge(&self, url: &str) -> Result<()> {
        self.check(url).map(drop)
    }

    /// Whether the URL may be asked at all. Names are judged when they are resolved.
    fn check(&self, text: &str) -> Result<Url> {
        let url = Url::parse(text.trim()).map_err(|e| Error::invalid("url", format!("`{text}` is no URL: {e}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Error::invalid("url", format!("`{}:` is not fetched; only http and https are", url.scheme())));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error::invalid("url", "must not carry a user name or a password"));
        }
        let address = match url.host() {
            Some(url::Host::Ipv4(ip)) => Some(IpAddr::V4(ip)),
            Some(url::Host::Ipv6(ip)) => Some(IpAddr::V6(ip)),
            Some(url::Host::Domain(_)) => None,
            None => return Err(Error::invalid("url", format!("`{text}` names no host"))),
        };
        match address {
            Some(ip) if !self.allow_private && !is_public(ip) => Err(refusal(&ip.to_string())),
            _ => Ok(url),
        }
    }
}

/// Whether a URL's host is a domain, or below one that begins with `*.`; with a port, only on that.
fn is_within(url: &Url, domain: &str) -> bool {
    let host = url.host_str().unwrap_or_default().trim_end_matches('.');
    let domain = domain.to_lowercase();
    let (domain, port) = match domain.rsplit_once(':') {
        Some((name, port)) if !name.ends_with(':') && port.parse::<u16>().is_ok() => (name, port.parse::<u16>().ok()),
        _ => (domain.as_str(), None),
    };
    if port.is_some() && port != url.port_or_known_default() {
        return false;
    }
    match domain.strip_prefix("*.") {
        Some(parent) => host.strip_suffix(parent).is_some_and(|below| below.len() > 1 && below.ends_with('.')),
        None => host == domain,
    }
}

async fn whole(url: Url, answer: Response, max_bytes: u64) -> Result<Answer> {
    let status = answer.status().as_u16();
    let content_type = answer.headers().get(header::CONTENT_TYPE).and_then(|t| t.to_str().ok()).map(str::to_owned);
    let retry_after = answer.headers().get(header::RETRY_AFTER).and_then(|t| t.to_str().ok()?.trim().parse().ok());
    let pieces: Vec<Bytes> = pieces(url.clone(), answer, max_bytes)?.try_collect().await?;
    Ok(Answer { status, url, content_type, body: pieces.concat().into(), retry_after })
}

fn refusal(host: &str) -> Error {
    Error::invalid(
        "url",
        format!("`{host}` is not a public address; this server fetches from private ones only when it is started so"),
    )
}

fn remote(url: Url, answer: Response, max_bytes: u64) -> Result<Remote> {
    if !answer.status().is_success() {
        return Err(Error::Upstream(format!("`{url}` answered {}", answer.status())));
    }
    let headers = answer.headers();
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|t| t.to_str().ok()).and_then(media_type_of);
    let disposition = headers.get(header::CONTENT_DISPOSITION).and_then(|d| d.to_str().ok());
    let filename = disposition.and_then(disposition_filename).or_else(|| path_filename(&url));
    Ok(Remote { media_type, filename, body: pieces(url, answer, max_bytes)? })
}

/// The bytes of an answer as they come, as long as they are not too many.
fn pieces(url: Url, answer: Response, max_bytes: u64) -> Result<BoxStream<'static, Result<Bytes>>> {
    let too_large = move || {
        Error::TooLarge(format!("the content of the URL has more than {max_bytes} bytes, the most that is fetched"))
    };
    if answer.content_length().is_some_and(|size| size > max_bytes) {
        return Err(too_large());
    }
    let mut seen = 0u64;
    let pieces = answer.bytes_stream().map(move |piece| {
        let piece = piece.map_err(|e| failure(&url, e))?;
        seen += piece.len() as u64;
        if seen > max_bytes { Err(too_large()) } else { Ok(piece) }
    });
    Ok(pieces.boxed())
}

/// `Text/HTML; charset=x` as `text/html`.
pub(crate) fn media_type_of(header: &str) -> Option<String> {
    let media_type = header.split(';').next()?.trim().to_lowercase();
    media_type.contains('/').then_some(media_type)
}

fn disposition_filename(header: &str) -> Option<String> {
    let part = header.split(';').find_map(|p| p.trim().strip_prefix("filename="))?;
    let name = part.trim_matches('"').rsplit(['/', '\\']).next()?.trim();
    (!name.is_empty()).then(|| name.chars().take(255).collect())
}

fn path_filename(url: &Url) -> Option<String> {
    let last = url.path_segments()?.next_back().filter(|s| !s.is_empty())?;
    // `+` is a plain character in a path, and a blank only in a query.
    let query = format!("x={}", last.replace('+', "%2B"));
    let (_, name) = url::form_urlencoded::parse(query.as_bytes()).next()?;
    Some(name.chars().filter(|c| !c.is_control() && *c != '/').take(255).collect())
}

/// A private address is the caller's fault; everything else is the other side's.
fn failure(url: &Url, error: reqwest::Error) -> Error {
    let mut source: Option<&(dyn StdError + 'static)> = Some(&error);
    while let Some(at) = source {
        if let Some(Refused(host)) = at.downcast_ref::<Refused>() {
            return refusal(host);
        }
        source = at.source();
    }
    let what = if error.is_timeout() {
        "did not answer in time"
    } else if error.is_connect() {
        "cannot be reached"
    } else {
        "broke off its answer"
    };
    // The URL may hold a secret.
    tracing::debug!(error = %error.without_url(), "a fetch failed");
    Error::Upstream(format!("`{url}` {what}"))
}

/// Resolves names and keeps the addresses that may be connected to.
struct Guard {
    allow_private: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("`{0}` has no public address")]
struct Refused(String);

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
            if !allow_private && found.iter().any(|address| !is_public(address.ip())) {
                return Err(Box::new(Refused(host)) as Box<dyn StdError + Send + Sync>);
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Whether an address is one of the open internet: none that this machine, its network or its provider keeps to
/// itself (IANA's special-purpose registries, and the addresses that embed another one).
pub fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let special = a == 0
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (18..20).contains(&b))
        || a >= 240;
    !(special
        || ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_documentation()
        || ip.is_multicast()
        || ip.is_broadcast())
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let s = ip.segments();
    let embedded = |high: u16, low: u16| is_public_v4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    match s {
        // IPv4 inside: mapped, NAT64, 6to4.
        [0, 0, 0, 0, 0, 0xffff, high, low] => embedded(high, low),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        [0x2002, high, low, ..] => embedded(high, low),
        // Local NAT64, Teredo and other protocol assignments, documentation.
        [0x64, 0xff9b, 1, ..] | [0x2001, 0..0x200, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..0x1000, ..] => false,
        // Only 2000::/3 is given out to the public.
        _ => (0x2000..0x4000).contains(&s[0]),
    }
}

#[cfg(test)]
#[path = "fetch_tests.rs"]
mod tests;
