//! Pages of an execution's results: by offset, cursor, keyset or scroll.
//!
//! Every page is cut from a fresh execution. A cursor remembers where its page ended and which query it belongs to; it
//! carries nothing that must be kept on the server.

use super::{Hit, view};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use strata_model::{Error, Fields, Result};

/// Keys of `pagination`. The last ones are those of answers, which some callers send back as they are.
const KEYS: [&str; 12] = [
    "method",
    "limit",
    "page_size",
    "page_number",
    "page",
    "cursor",
    "after",
    "scroll_id",
    "scroll_ttl",
    "returned",
    "total",
    "has_next",
];

const MAX_LIMIT: u64 = 500;
const MAX_SCROLL_LIMIT: u64 = 1_000;
const DEFAULT_LIMIT: u64 = 10;
const DEFAULT_SCROLL_LIMIT: u64 = 100;
const DEFAULT_SCROLL_TTL_SECONDS: u64 = 300;
const MAX_PAGE_NUMBER: u64 = 1_000_000;

/// The page a caller asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum PageRequest {
    /// `page_number` counts from 1.
    Offset {
        page_size: usize,
        page_number: usize,
    },
    Cursor {
        limit: usize,
        cursor: Option<String>,
    },
    /// `after` holds the sort values of the last hit of the page before.
    Keyset {
        limit: usize,
        after: Option<Fields>,
    },
    Scroll {
        limit: usize,
        scroll_id: Option<String>,
        ttl_seconds: u64,
    },
}

impl Default for PageRequest {
    fn default() -> Self {
        Self::Cursor { limit: DEFAULT_LIMIT as usize, cursor: None }
    }
}

/// A page and its description for the answer.
#[derive(Debug)]
pub struct Page {
    pub hits: Vec<Hit>,
    /// `method`, `limit` or `page_size`, `returned`, `total`, `has_next` and, by method, `page_number`, `cursor`,
    /// `scroll_id` or `after`.
    pub answer: Fields,
}

/// What cursors and scroll ids hold.
#[derive(Debug, Serialize, Deserialize)]
struct Mark {
    /// Hits before the next page.
    offset: usize,
    /// The last document of the page before; wins over the offset while it is still a hit.
    after: Option<String>,
    /// Which hit of that document it was, from 0: a stage may make several of one.
    #[serde(default, skip_serializing_if = "is_first")]
    nth: usize,
    /// The query it belongs to.
    query: String,
    /// Unix seconds after which a scroll id is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<i64>,
}

impl PageRequest {
    /// Reads `pagination`, or else `limit`, `page_size`, `settings.limit` and `cursor`, from a request body. Gives the
    /// warnings that the answer should carry, too.
    pub fn parse(body: &Fields) -> Result<(Self, Vec<String>)> {
        let settings = match body.get("settings") {
            None | Some(Value::Null) => None,
            Some(Value::Object(settings)) => Some(settings),
            Some(_) => return Err(Error::invalid("settings", "must be an object")),
        };
        let mut warnings = unknown_keys("settings", settings, &["limit"]);
        let plain = body.get("limit").or_else(|| settings?.get("limit")).filter(|v| !v.is_null());
        let alias = body.get("page_size").filter(|v| !v.is_null());
        match body.get("pagination") {
            None | Some(Value::Null) => {
                if plain.zip(alias).is_some_and(|(a, b)| a != b) {
                    return Err(Error::invalid("page_size", "is another name of `limit` and differs from it"));
                }
                let at = if plain.is_some() { "limit" } else { "page_size" };
                let limit = count(plain.or(alias), at, 1..=MAX_LIMIT, DEFAULT_LIMIT)?;
                Ok((Self::Cursor { limit, cursor: text(body.get("cursor"), "cursor")? }, warnings))
            }
            Some(Value::Object(pagination)) => {
                if plain.or(alias).is_some() {
                    warnings.push("`pagination` was used and `limit` was not: send one of them".to_owned());
                }
                warnings.extend(unknown_keys("pagination", Some(pagination), &KEYS));
                Ok((Self::parse_method(pagination)?, warnings))
            }
            Some(_) => Err(Error::invalid("pagination", "must be an object with `method`")),
        }
    }

    fn parse_method(pagination: &Fields) -> Result<Self> {
        let get = |name: &str| pagination.get(name).filter(|v| !v.is_null());
        let size = get("limit").or_else(|| get("page_size"));
        let limit = |most| {
            count(
                size,
                "pagination.limit",
                1..=most,
                if most == MAX_LIMIT { DEFAULT_LIMIT } else { DEFAULT_SCROLL_LIMIT },
            )
        };
        let implied = if get("page_number").is_some() || get("page").is_some() { "offset" } else { "cursor" };
        match get("method").map_or(Some(implied), Value::as_str) {
            Some("offset") => Ok(Self::Offset {
                page_size: count(
                    get("page_size").or_else(|| get("limit")),
                    "pagination.page_size",
                    1..=MAX_LIMIT,
                    DEFAULT_LIMIT,
                )?,
                page_number: count(
                    get("page_number").or_else(|| get("page")),
                    "pagination.page_number",
                    1..=MAX_PAGE_NUMBER,
                    1,
                )?,
            }),
            Some("cursor") => {
                Ok(Self::Cursor { limit: limit(MAX_LIMIT)?, cursor: text(get("cursor"), "pagination.cursor")? })
            }
            Some("keyset") => {
                let after = match get("after") {
                    None => None,
                    Some(Value::Object(after)) => Some(after.clone()),
                    Some(_) => {
                        return Err(Error::invalid(
                            "pagination.after",
                            "must be the `after` object of the page before",
                        ));
                    }
                };
                Ok(Self::Keyset { limit: limit(MAX_LIMIT)?, after })
            }
            Some("scroll") => Ok(Self::Scroll {
                limit: limit(MAX_SCROLL_LIMIT)?,
                scroll_id: text(get("scroll_id"), "pagination.scroll_id")?,
                ttl_seconds: count(get("scroll_ttl"), "pagination.scroll_ttl", 60..=3600, DEFAULT_SCROLL_TTL_SECONDS)?
                    as u64,
            }),
            _ => Err(Error::invalid("pagination.method", "must be one of offset, cursor, keyset, scroll")),
        }
    }

    /// Refuses a cursor or scroll id that cannot be read, is of another query, or is too old, before work is done for
    /// it. `query` names the query; `now` is in Unix seconds.
    pub fn check(&self, query: &str, now: i64) -> Result<()> {
        self.mark(query, now).map(|_| ())
    }

    fn mark(&self, query: &str, now: i64) -> Result<Option<Mark>> {
        let (text, at) = match self {
            Self::Cursor { cursor: Some(text), .. } => (text, "pagination.cursor"),
            Self::Scroll { scroll_id: Some(text), .. } => (text, "pagination.scroll_id"),
            _ => return Ok(None),
        };
        let bytes = URL_SAFE_NO_PAD.decode(text).ok();
        let Some(mark) = bytes.and_then(|b| serde_json::from_slice::<Mark>(&b).ok()) else {
            return Err(Error::invalid(at, "was not made by this server; send the text of the page before, unchanged"));
        };
        if mark.query != query {
            return Err(Error::invalid(
                at,
                "belongs to another query: the inputs, filters or stages have changed; start again without it",
            ));
        }
        if mark.expires.is_some_and(|at| at < now) {
            return Err(Error::invalid(at, "has expired; start again without it, or ask for a longer `scroll_ttl`"));
        }
        Ok(Some(mark))
    }

    /// Cuts the page out of all hits.
    pub fn cut(&self, hits: &[Hit], query: &str, now: i64) -> Result<Page> {
        let total = hits.len();
        let start = self.start(hits, query, now)?.min(total);
        let end = start.saturating_add(self.size()).min(total);
        let has_next = end < total;
        let page = hits[start..end].to_vec();
        let mut answer = Fields::new();
        answer.insert("method".into(), self.method().into());
        let size_name = if matches!(self, Self::Offset { .. }) { "page_size" } else { "limit" };
        answer.insert(size_name.into(), self.size().into());
        if let Self::Offset { page_number, .. } = self {
            answer.insert("page_number".into(), (*page_number).into());
        }
        answer.insert("returned".into(), page.len().into());
        answer.insert("total".into(), total.into());
        answer.insert("has_next".into(), has_next.into());
        if let Some((name, next)) = self.next(&hits[..end], query, now).filter(|_| has_next && start < end) {
            answer.insert(name.into(), next);
        }
        Ok(Page { hits: page, answer })
    }

    /// Makes a page that has more than `most` hits as small; answers how many it had.
    pub fn cap(&mut self, most: usize) -> Option<usize> {
        match self {
            Self::Offset { page_size: size, .. }
            | Self::Cursor { limit: size, .. }
            | Self::Keyset { limit: size, .. }
            | Self::Scroll { limit: size, .. } => (*size > most).then(|| std::mem::replace(size, most)),
        }
    }

    fn method(&self) -> &'static str {
        match self {
            Self::Offset { .. } => "offset",
            Self::Cursor { .. } => "cursor",
            Self::Keyset { .. } => "keyset",
            Self::Scroll { .. } => "scroll",
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Offset { page_size: size, .. }
            | Self::Cursor { limit: size, .. }
            | Self::Keyset { limit: size, .. }
            | Self::Scroll { limit: size, .. } => *size,
        }
    }

    fn start(&self, hits: &[Hit], query: &str, now: i64) -> Result<usize> {
        match self {
            Self::Offset { page_size, page_number } => Ok((page_number - 1).saturating_mul(*page_size)),
            Self::Cursor { .. } | Self::Scroll { .. } => Ok(self.mark(query, now)?.map_or(0, |mark| {
                mark.after.and_then(|last| place_after(hits, &last, mark.nth)).unwrap_or(mark.offset)
            })),
            Self::Keyset { after: None, .. } => Ok(0),
            Self::Keyset { after: Some(after), .. } => start_after(after, hits),
        }
    }

    /// Where to go on after `seen`, the hits of this page and those before it.
    fn next(&self, seen: &[Hit], query: &str, now: i64) -> Option<(&'static str, Value)> {
        let (last, before) = seen.split_last()?;
        let document_id = &last.document.document_id;
        let nth = before.iter().filter(|hit| hit.document.document_id == *document_id).count();
        let mark = |expires| {
            let after = Some(document_id.clone());
            let mark = Mark { offset: seen.len(), after, nth, query: query.to_owned(), expires };
            serde_json::to_vec(&mark).ok().map(|bytes| Value::from(URL_SAFE_NO_PAD.encode(bytes)))
        };
        match self {
            Self::Offset { .. } => None,
            Self::Cursor { .. } => Some(("cursor", mark(None)?)),
            Self::Scroll { ttl_seconds, .. } => {
                Some(("scroll_id", mark(Some(now.saturating_add(*ttl_seconds as i64)))?))
            }
            Self::Keyset { .. } => {
                let mut after = json!({"score": last.score, "document_id": document_id});
                if !is_first(&nth) {
                    after["nth"] = nth.into();
                }
                Some(("after", after))
            }
        }
    }
}

fn is_first(nth: &usize) -> bool {
    *nth == 0
}

/// The place behind the hit that is the `nth` of its document, from 0, or behind the last one where there are fewer.
fn place_after(hits: &[Hit], document_id: &str, nth: usize) -> Option<usize> {
    let own = hits.iter().enumerate().filter(|(_, hit)| hit.document.document_id == document_id);
    own.take(nth.saturating_add(1)).last().map(|(place, _)| place + 1)
}

/// Where the hits after a keyset begin: after its document, or, where that is gone, after its score.
fn start_after(after: &Fields, hits: &[Hit]) -> Result<usize> {
    let document = after.get("document_id").and_then(Value::as_str);
    let score = after.get("score").and_then(Value::as_f64);
    if document.is_none() && score.is_none() {
        return Err(Error::invalid(
            "pagination.after",
            "must hold `document_id` or `score` of the last hit of the page before",
        ));
    }
    let nth = after.get("nth").and_then(Value::as_u64).and_then(|nth| usize::try_from(nth).ok()).unwrap_or(0);
    if let Some(place) = document.and_then(|document_id| place_after(hits, document_id, nth)) {
        return Ok(place);
    }
    let reached = |h: &Hit| match (view::field(h, "score").and_then(|v| v.as_f64()), score) {
        (Some(have), Some(seen)) => have < seen,
        _ => true,
    };
    Ok(hits.iter().position(reached).unwrap_or(hits.len()))
}

/// Warnings about keys that nobody reads.
pub fn unknown_keys(at: &str, fields: Option<&Fields>, known: &[&str]) -> Vec<String> {
    let keys = fields.into_iter().flat_map(Fields::keys).filter(|key| !known.contains(&key.as_str()));
    keys.map(|key| format!("`{at}.{key}` is not known here and was ignored")).collect()
}

fn count(value: Option<&Value>, at: &str, range: std::ops::RangeInclusive<u64>, default: u64) -> Result<usize> {
    let Some(value) = value else { return Ok(default as usize) };
    match value.as_u64().filter(|n| range.contains(n)) {
        Some(n) => Ok(n as usize),
        None => Err(Error::invalid(at, format!("must be an integer from {} to {}", range.start(), range.end()))),
    }
}

fn text(value: Option<&Value>, at: &str) -> Result<Option<String>> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(Error::invalid(at, "must be a string")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retrieval::fake;

    fn hits(count: i64) -> Vec<Hit> {
        let hit = |n: i64| Hit { score: Some(1.0 / (n as f64 + 1.0)), ..Hit::new(fake::document(n, json!({}))) };
        (0..count).map(hit).collect()
    }
    fn request(body: Value) -> Result<PageRequest, String> {
        PageRequest::parse(body.as_object().unwrap()).map(|(page, _)| page).map_err(|e| e.to_string())
    }
    fn ids(page: &Page) -> Vec<i64> {
        page.hits.iter().map(|h| h.document.seq).collect()
    }

    #[test]
    fn spellings() {
        assert_eq!(request(json!({})), Ok(PageRequest::default()));
        assert_eq!(request(json!({"page_size": 3})), Ok(PageRequest::Cursor { limit: 3, cursor: None }));
        assert_eq!(request(json!({"settings": {"limit": 4}})), Ok(PageRequest::Cursor { limit: 4, cursor: None }));
        assert_eq!(
            request(json!({"pagination": {"page_number": 2}})),
            Ok(PageRequest::Offset { page_size: 10, page_number: 2 })
        );
        assert_eq!(
            request(json!({"pagination": {"method": "scroll"}})),
            Ok(PageRequest::Scroll { limit: 100, scroll_id: None, ttl_seconds: 300 })
        );
        for (body, place) in [
            (json!({"limit": 3, "page_size": 4}), "page_size"),
            (json!({"limit": 501}), "`limit`"),
            (json!({"pagination": {"method": "magic"}}), "pagination.method"),
            (json!({"pagination": {"method": "offset", "page_number": 0}}), "pagination.page_number"),
            (json!({"pagination": {"method": "keyset", "after": "x"}}), "pagination.after"),
        ] {
            assert!(request(body).unwrap_err().contains(place));
        }
        let both = json!({"limit": 5, "pagination": {"method": "cursor", "limit": 2}});
        let (page, warnings) = PageRequest::parse(both.as_object().unwrap()).unwrap();
        assert_eq!((page, warnings.len()), (PageRequest::Cursor { limit: 2, cursor: None }, 1));
        let unknown = json!({"settings": {"colour": 1}, "pagination": {"page": 2, "offset": 20, "has_next": true}});
        let (_, warnings) = PageRequest::parse(unknown.as_object().unwrap()).unwrap();
        assert!(warnings[0].contains("`settings.colour`") && warnings[1].contains("`pagination.offset`"));
        assert_eq!(warnings.len(), 2);
    }

    #[test]
    fn a_page_can_be_capped() {
        let mut page = request(json!({"limit": 50})).unwrap();
        assert_eq!((page.cap(100), page.cap(20), page.size()), (None, Some(50), 20));
    }

    #[test]
    fn every_method_walks_all_hits_once() {
        for method in ["offset", "cursor", "keyset", "scroll"] {
            let mut seen = Vec::new();
            let mut body = json!({"pagination": {"method": method, "limit": 3}});
            loop {
                let page = request(body.clone()).unwrap().cut(&hits(7), "q", 100).unwrap();
                seen.extend(ids(&page));
                assert_eq!(page.answer["total"], 7);
                if page.answer["has_next"] == false {
                    break;
                }
                match method {
                    "offset" => {
                        body["pagination"]["page_number"] = (page.answer["page_number"].as_u64().unwrap() + 1).into()
                    }
                    "keyset" => body["pagination"]["after"] = page.answer["after"].clone(),
                    name => {
                        let key = if name == "cursor" { "cursor" } else { "scroll_id" };
                        body["pagination"][key] = page.answer[key].clone();
                    }
                }
            }
            assert_eq!(seen, (0..7).collect::<Vec<_>>(), "{method}");
        }
    }

    #[test]
    fn pages_go_on_within_a_document_of_several_hits() {
        let hits: Vec<Hit> = [0, 1, 1, 1, 2].map(|n| Hit::new(fake::document(n, json!({})))).into();
        for (method, key) in [("cursor", "cursor"), ("keyset", "after"), ("scroll", "scroll_id")] {
            let mut seen = Vec::new();
            let mut body = json!({"pagination": {"method": method, "limit": 1}});
            for _ in 0..hits.len() {
                let page = request(body.clone()).unwrap().cut(&hits, "q", 100).unwrap();
                seen.extend(ids(&page));
                body["pagination"][key] = page.answer.get(key).cloned().unwrap_or_default();
            }
            assert_eq!(seen, [0, 1, 1, 1, 2], "{method}");
            assert!(body["pagination"][key].is_null(), "{method}");
        }
    }

    #[test]
    fn cursors_are_bound_to_their_query_and_survive_new_hits() {
        let first = request(json!({"limit": 3})).unwrap().cut(&hits(7), "q", 0).unwrap();
        let next = request(json!({"limit": 3, "cursor": first.answer["cursor"]})).unwrap();
        assert!(next.check("other", 0).unwrap_err().to_string().contains("another query"));
        let mut more = hits(7);
        more.insert(0, Hit::new(fake::document(99, json!({}))));
        assert_eq!(ids(&next.cut(&more, "q", 0).unwrap()), [3, 4, 5]);
        assert!(request(json!({"cursor": "junk"})).unwrap().check("q", 0).is_err());
    }

    #[test]
    fn scroll_ids_expire_and_keysets_outlive_their_document() {
        let body = json!({"pagination": {"method": "scroll", "limit": 2, "scroll_ttl": 60}});
        let page = request(body).unwrap().cut(&hits(5), "q", 1000).unwrap();
        let next =
            request(json!({"pagination": {"method": "scroll", "limit": 2, "scroll_id": page.answer["scroll_id"]}}))
                .unwrap();
        assert!(next.check("q", 1060).is_ok());
        assert!(next.check("q", 1061).unwrap_err().to_string().contains("expired"));
        let gone = request(
            json!({"pagination": {"method": "keyset", "limit": 2, "after": {"score": 0.5, "document_id": "doc_gone"}}}),
        )
        .unwrap();
        assert_eq!(ids(&gone.cut(&hits(5), "q", 0).unwrap()), [2, 3]);
        let beyond = request(json!({"pagination": {"method": "offset", "page_number": 9}}))
            .unwrap()
            .cut(&hits(5), "q", 0)
            .unwrap();
        assert_eq!((beyond.hits.len(), &beyond.answer["has_next"]), (0, &json!(false)));
        assert_eq!(PageRequest::default().cut(&Vec::new(), "q", 0).unwrap().answer["total"], 0);
    }
}
