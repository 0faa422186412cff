//! Reading the web: pages as text, as their sites allow.

pub(crate) mod page;
mod robots;

use crate::retrieval::{Call, Reply};
use futures::future::BoxFuture;
use page::{Page, Wanted};
use robots::Robots;
use std::{collections::HashMap, sync::Arc, time::Duration};
use strata_model::{Error, Result};
use tokio::sync::{Mutex, OnceCell};

/// Largest page, in bytes.
const MAX_PAGE_BYTES: u64 = 5 << 20;
/// Largest `robots.txt` that is read.
const MAX_ROBOTS_BYTES: u64 = 512 << 10;

/// What sends requests.
pub(crate) type Ask<'a> = Box<dyn Fn(Call) -> BoxFuture<'a, Result<Reply>> + Send + Sync + 'a>;

/// Reads pages; knows what each site's `robots.txt` lets it read.
pub(crate) struct Reader<'a> {
    ask: Ask<'a>,
    timeout: Duration,
    headers: Vec<(String, String)>,
    /// By origin.
    robots: Mutex<HashMap<String, Arc<OnceCell<Robots>>>>,
}

impl<'a> Reader<'a> {
    /// `timeout` is for one page; `headers` go with each request beside those that say what is wanted.
    pub fn new(ask: Ask<'a>, timeout: Duration, headers: Vec<(String, String)>) -> Self {
        Self { ask, timeout, headers, robots: Mutex::default() }
    }

    /// What lies at an address, whatever the status. One that the site asks not to read is [`Error::Upstream`].
    pub async fn fetch(&self, address: &str) -> Result<Reply> {
        let url = url::Url::parse(address.trim())
            .map_err(|error| Error::invalid("url", format!("`{address}` is no URL: {error}")))?;
        if !self.may_read(&url).await? {
            return Err(Error::Upstream(format!("the `robots.txt` of `{address}` asks not to read it")));
        }
        (self.ask)(self.get(url.as_str(), MAX_PAGE_BYTES)).await
    }

    /// A page.
    pub async fn page(&self, address: &str, wanted: Wanted) -> Result<Page> {
        let reply = self.fetch(address).await?;
        if !(200..300).contains(&reply.status) {
            return Err(Error::Upstream(format!("`{address}` answered {}", reply.status)));
        }
        read(address, reply, wanted).await
    }

    async fn may_read(&self, url: &url::Url) -> Result<bool> {
        let origin = url.origin().ascii_serialization();
        let cell = self.robots.lock().await.entry(origin.clone()).or_default().clone();
        let robots = cell.get_or_try_init(|| async {
            let reply = (self.ask)(self.get(&format!("{origin}/robots.txt"), MAX_ROBOTS_BYTES)).await;
            match reply {
                Ok(reply) if (200..300).contains(&reply.status) => {
                    Ok(Robots::parse(&String::from_utf8_lossy(&reply.body)))
                }
                // A server that is in trouble is left alone; one that has no such file has no such rules.
                Ok(reply) if reply.status >= 500 => Ok(Robots::closed()),
                Ok(_) | Err(Error::TooLarge(_)) => Ok(Robots::default()),
                Err(error) => Err(error),
            }
        });
        let path = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
        Ok(robots.await?.allows(&path))
    }

    fn get(&self, url: &str, max_bytes: u64) -> Call {
        let accept = ("Accept".to_owned(), "text/html, text/plain;q=0.9, */*;q=0.5".to_owned());
        let headers = [accept].into_iter().chain(self.headers.iter().cloned()).collect();
        Call { headers, ..Call::get(url, max_bytes, self.timeout) }
    }
}

/// Reads an answer as a page, on a thread that may take its time.
pub(crate) async fn read(address: &str, reply: Reply, wanted: Wanted) -> Result<Page> {
    let asked = address.to_owned();
    let reading = tokio::task::spawn_blocking(move || page::read(&asked, &reply, wanted));
    // A reader that panics has met a page that it cannot read.
    reading.await.map_err(|_| Error::Upstream(format!("`{address}` cannot be read as a page")))?
}

/// Whether the pieces of a pattern, between its stars, stand in the URL, one after the other.
pub(crate) fn is_part(pattern: &str, url: &str) -> bool {
    let mut rest = url;
    pattern.split('*').all(|piece| match rest.find(piece) {
        Some(at) => {
            rest = &rest[at + piece.len()..];
            true
        }
        None => false,
    })
}

/// Which URLs are meant: those that one of `include` is a part of, or all where there is none; none that one of `exclude`
/// is a part of.
#[derive(Debug, Clone, Default)]
pub(crate) struct Patterns {
    pub include: Vec<String>,
    pub exclude: Vec<String>,
}

impl Patterns {
    pub fn allow(&self, url: &str) -> bool {
        let found = |patterns: &[String]| patterns.iter().any(|pattern| is_part(pattern, url));
        (self.include.is_empty() || found(&self.include)) && !found(&self.exclude)
    }
}

/// Whether two URLs are of one host.
pub(crate) fn same_host(a: &str, b: &str) -> bool {
    let host = |text: &str| url::Url::parse(text).ok().and_then(|url| url.host_str().map(str::to_owned));
    host(a).is_some_and(|a| Some(a) == host(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_by_pattern() {
        let patterns = Patterns { include: vec!["/docs/*.html".into()], exclude: vec!["draft".into()] };
        for (url, allowed) in [
            ("http://h/docs/a.html", true),
            ("http://h/docs/a.pdf", false),
            ("http://h/docs/draft/a.html", false),
            ("http://h/a.html/docs/", false),
        ] {
            assert_eq!(patterns.allow(url), allowed, "{url}");
        }
        assert!(Patterns::default().allow("http://h/"));
        assert!(same_host("http://h/a", "https://h:8/b") && !same_host("http://h", "http://i") && !same_host("", ""));
    }
}
