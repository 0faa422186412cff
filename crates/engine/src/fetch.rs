//! Bytes from URLs that callers name. A caller must not reach through this server what only this server can reach, so
//! every address is looked at before it is connected to: names are resolved here, redirects are followed here, and
//! each hop is judged anew.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use reqwest::{
    Client, Response, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    header,
};
use std::{
    error::Error as StdError,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
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

    fn next_hop(&self, at: &Url, answer: &Response) -> Result<Url> {
        let location = answer.headers().get(header::LOCATION).and_then(|l| l.to_str().ok());
        let next = location.and_then(|l| at.join(l).ok());
        let next = next.ok_or_else(|| Error::Upstream(format!("`{at}` redirects to nowhere")))?;
        self.check(next.as_str())
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
    let too_large = move || {
        Error::TooLarge(format!("the content of the URL has more than {max_bytes} bytes, the most that is fetched"))
    };
    if answer.content_length().is_some_and(|size| size > max_bytes) {
        return Err(too_large());
    }
    let headers = answer.headers();
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|t| t.to_str().ok()).and_then(media_type_of);
    let disposition = headers.get(header::CONTENT_DISPOSITION).and_then(|d| d.to_str().ok());
    let filename = disposition.and_then(disposition_filename).or_else(|| path_filename(&url));
    let mut seen = 0u64;
    let body = answer.bytes_stream().map(move |piece| {
        let piece = piece.map_err(|e| failure(&url, e))?;
        seen += piece.len() as u64;
        if seen > max_bytes { Err(too_large()) } else { Ok(piece) }
    });
    Ok(Remote { media_type, filename, body: body.boxed() })
}

fn media_type_of(header: &str) -> Option<String> {
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
    tracing::debug!(%error, "a fetch failed");
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
