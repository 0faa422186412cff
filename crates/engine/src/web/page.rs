//! A page as readable text. What comes in is whatever somebody put on the open web: how deep it nests is looked at
//! before anything walks it.

use crate::retrieval::backend::Reply;
use dom_smoothie::{Config, Readability, TextMode};
use serde_json::{Value, json};
use strata_model::{Error, Fields, Result};

/// Elements of one page.
const MAX_ELEMENTS: usize = 100_000;
/// Deepest nesting of elements.
const MAX_DEPTH: usize = 400;
/// Links of one page.
const MAX_LINKS: usize = 2_000;
/// Elements that have no end.
const VOID: [&str; 14] =
    ["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr"];

/// Characters from which the readable part of a page stands for it, unless it is said otherwise.
pub(crate) const READABLE_CHARS: usize = 500;

/// What is to be made of a page.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub html: bool,
    pub markdown: bool,
    pub links: bool,
    pub images: bool,
    /// What [`Details`] has.
    pub details: bool,
    /// Fewer characters of readable text than this, and all text of the page is taken.
    pub min_chars: usize,
}

/// A page that was read.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    /// What is written into a document.
    pub content: Fields,
    /// Absolute URLs, without fragments, each once.
    pub links: Vec<String>,
    /// Empty unless it was asked for.
    pub details: Details,
}

/// What a page holds beside its text.
#[derive(Debug, Clone, Default)]
pub(crate) struct Details {
    /// As `links`, with the words that lead there.
    pub links: Vec<Link>,
    /// `language`, `code`, `line_start`, `line_end`: lines are counted within the block.
    pub code_blocks: Vec<Value>,
    /// `src`, `alt`, `title`, `width`, `height`.
    pub images: Vec<Value>,
    /// Links to files: `url`, `file_type`, `link_text`, `file_extension`.
    pub asset_links: Vec<Value>,
}

/// A link of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    /// Absolute, without fragment.
    pub url: String,
    pub text: String,
}

impl Link {
    /// What it promises: its text, and the words of its path.
    pub fn words(&self) -> String {
        let path = url::Url::parse(&self.url).map(|url| url.path().to_owned()).unwrap_or_default();
        format!("{} {}", self.text, path.replace(['/', '-', '_', '.'], " ")).trim().to_owned()
    }
}

/// Reads an answer. Blocks.
pub(crate) fn read(asked: &str, reply: &Reply, wanted: Wanted) -> Result<Page> {
    let text = decoded(reply);
    let kind = reply.media_type.as_deref().unwrap_or("text/html");
    let mut content = Fields::new();
    content.insert("url".into(), asked.into());
    content.insert("final_url".into(), reply.url.as_str().into());
    let (mut links, mut details) = (Vec::new(), Details::default());
    match kind {
        "text/html" | "application/xhtml+xml" => {
            links = readable(&text, &reply.url, wanted, &mut content, &mut details)?;
        }
        kind if kind.starts_with("text/") || kind.ends_with("json") || kind.ends_with("xml") => {
            content.insert("title".into(), Value::Null);
            content.insert("content_length".into(), text.chars().count().into());
            content.insert("text".into(), text.into());
            content.insert("strategy_used".into(), "plain_text".into());
            content.insert("metadata".into(), json!({}));
        }
        other => return Err(Error::Upstream(format!("`{}` is no text but {other}", reply.url))),
    }
    if let Value::Object(metadata) = &mut content["metadata"] {
        metadata.insert("status".into(), reply.status.into());
        metadata.insert("media_type".into(), kind.into());
    }
    Ok(Page { content, links, details })
}

/// UTF-8, or Latin 1 where the answer says so.
fn decoded(reply: &Reply) -> String {
    match reply.charset.as_deref() {
        Some("iso-8859-1" | "latin1" | "windows-1252" | "us-ascii") => {
            reply.body.iter().map(|byte| char::from(*byte)).collect()
        }
        _ => String::from_utf8_lossy(&reply.body).into_owned(),
    }
}

fn readable(html: &str, url: &str, wanted: Wanted, content: &mut Fields, details: &mut Details) -> Result<Vec<String>> {
    let broken = |what: &dyn std::fmt::Display| Error::Upstream(format!("`{url}` cannot be read: {what}"));
    if depth(html) > MAX_DEPTH {
        return Err(broken(&format!("its elements nest deeper than {MAX_DEPTH}")));
    }
    let base = url::Url::parse(url).ok();
    let reader = |text_mode| {
        let config = Config { max_elements_to_parse: MAX_ELEMENTS, text_mode, ..Config::default() };
        // What stands in a request lies at no URL.
        Readability::new(html, base.as_ref().map(|_| url), Some(config))
    };
    let page = reader(TextMode::Formatted).map_err(|e| broken(&e))?;
    let links = addresses(&page, "a[href]", "href", base.as_ref());
    if wanted.images {
        content.insert("images".into(), addresses(&page, "img[src]", "src", base.as_ref()).into());
    }
    if wanted.details {
        *details = described(&page, base.as_ref());
    }
    let title = page.get_article_title().to_string();
    page.doc.select("script, style, noscript, template").remove();
    let everything = page.doc.select("body").formatted_text().trim().to_owned();
    let article = reader(TextMode::Formatted).map_err(|e| broken(&e))?.parse();
    let (text, strategy) = match &article {
        Ok(article) if article.length >= wanted.min_chars => (article.text_content.trim().to_owned(), "readability"),
        Err(dom_smoothie::ReadabilityError::TooManyElements(..)) => {
            return Err(broken(&format!("it has more than {MAX_ELEMENTS} elements")));
        }
        _ => (everything, "full_text"),
    };
    let mut metadata = Fields::new();
    if let Ok(article) = &article {
        for (name, value) in [
            ("author", &article.byline),
            ("description", &article.excerpt),
            ("site_name", &article.site_name),
            ("language", &article.lang),
            ("published_time", &article.published_time),
            ("modified_time", &article.modified_time),
            ("image", &article.image),
        ] {
            metadata.extend(value.as_ref().map(|value| (name.to_owned(), Value::from(value.as_str()))));
        }
    }
    let own_title = article.as_ref().ok().map(|article| article.title.clone()).filter(|title| !title.is_empty());
    content.insert("title".into(), own_title.unwrap_or(title).into());
    content.insert("content_length".into(), text.chars().count().into());
    content.insert("text".into(), text.into());
    content.insert("strategy_used".into(), strategy.into());
    content.insert("metadata".into(), Value::Object(metadata));
    if wanted.markdown {
        let markdown = reader(TextMode::Markdown).map_err(|e| broken(&e))?.parse();
        content.insert("markdown".into(), markdown.map(|article| article.text_content.to_string()).ok().into());
    }
    if wanted.html {
        content.insert("html".into(), html.into());
    }
    if wanted.links {
        content.insert("links".into(), links.clone().into());
    }
    Ok(links)
}

/// Most entries of each kind of detail.
const MAX_DETAILS: usize = 500;
/// Most characters of one code block.
const MAX_CODE_CHARS: usize = 50_000;
/// Ends of paths that are files and no pages, with what they are.
const ASSETS: [(&str, &[&str]); 5] = [
    ("document", &["pdf", "doc", "docx", "ppt", "pptx", "xls", "xlsx", "csv", "txt", "epub"]),
    ("image", &["png", "jpg", "jpeg", "gif", "webp", "svg", "avif", "heic", "jxl"]),
    ("video", &["mp4", "mov", "webm", "avi", "mkv"]),
    ("audio", &["mp3", "wav", "flac", "ogg", "m4a"]),
    ("archive", &["zip", "tar", "gz", "tgz", "bz2", "xz", "7z"]),
];

fn described(page: &Readability, base: Option<&url::Url>) -> Details {
    let mut details = Details::default();
    let absolute = |address: &str| {
        let mut url = base?.join(address.trim()).ok()?;
        url.set_fragment(None);
        matches!(url.scheme(), "http" | "https").then_some(url)
    };
    let mut seen = std::collections::HashSet::new();
    for element in page.doc.select("a[href]").iter() {
        let Some(url) = element.attr("href").and_then(|href| absolute(&href)) else { continue };
        if details.links.len() >= MAX_LINKS || !seen.insert(url.to_string()) {
            continue;
        }
        let text = element.text().split_whitespace().collect::<Vec<_>>().join(" ");
        let extension = url.path().rsplit_once('.').map(|(_, end)| end.to_ascii_lowercase()).unwrap_or_default();
        if let Some((kind, _)) = ASSETS.iter().find(|(_, ends)| ends.contains(&&*extension)) {
            if details.asset_links.len() < MAX_DETAILS {
                let asset =
                    json!({ "url": url.as_str(), "file_type": kind, "link_text": text, "file_extension": extension });
                details.asset_links.push(asset);
            }
            continue;
        }
        details.links.push(Link { url: url.into(), text });
    }
    for element in page.doc.select("img[src]").iter().take(MAX_DETAILS) {
        let Some(src) = element.attr("src").and_then(|src| absolute(&src)) else { continue };
        let attribute = |name: &str| element.attr(name).map(|value| value.to_string());
        let number = |name: &str| attribute(name).and_then(|value| value.trim_end_matches("px").parse::<u32>().ok());
        details.images.push(json!({
            "src": src.as_str(), "alt": attribute("alt"), "title": attribute("title"),
            "width": number("width"), "height": number("height"),
        }));
    }
    for element in page.doc.select("pre").iter().take(MAX_DETAILS) {
        let code: String = element.text().chars().take(MAX_CODE_CHARS).collect();
        let code = code.trim_end();
        if code.trim().is_empty() {
            continue;
        }
        let inner = element.select("code");
        let class = inner.attr("class").or_else(|| element.attr("class")).map(|class| class.to_string());
        let language = class.as_deref().and_then(|class| {
            let named =
                |word: &str| word.strip_prefix("language-").or_else(|| word.strip_prefix("lang-")).map(str::to_owned);
            class.split_whitespace().find_map(named)
        });
        let lines = code.lines().count();
        details.code_blocks.push(json!({ "language": language, "code": code, "line_start": 1, "line_end": lines }));
    }
    details
}

/// The addresses in an attribute of some elements, absolute, http only, each once.
fn addresses(page: &Readability, selector: &str, attribute: &str, base: Option<&url::Url>) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for element in page.doc.select(selector).iter() {
        let Some(address) = element.attr(attribute) else { continue };
        let Some(mut url) = base.and_then(|base| base.join(address.trim()).ok()) else { continue };
        url.set_fragment(None);
        if matches!(url.scheme(), "http" | "https") && seen.insert(url.to_string()) {
            found.push(url.into());
        }
        if found.len() >= MAX_LINKS {
            break;
        }
    }
    found
}

/// At least how deep the elements nest, told from their tags alone: an element that is closed by another one's start
/// counts as open.
fn depth(html: &str) -> usize {
    let (mut open, mut deepest) = (0usize, 0usize);
    for tag in html.split('<').skip(1) {
        match tag.as_bytes().first() {
            Some(b'/') => open = open.saturating_sub(1),
            Some(first) if first.is_ascii_alphabetic() => {
                let name: String = tag.chars().take_while(char::is_ascii_alphanumeric).take(10).collect();
                let is_closed = tag.split('>').next().is_some_and(|tag| tag.ends_with('/'));
                // These end where their like begins, and many pages leave it at that.
                let ends_itself =
                    matches!(&*name.to_ascii_lowercase(), "p" | "li" | "option" | "td" | "tr" | "th" | "dd" | "dt");
                if !is_closed && !ends_itself && !VOID.contains(&&*name.to_ascii_lowercase()) {
                    open += 1;
                    deepest = deepest.max(open);
                }
            }
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(html: &str) -> Reply {
        Reply {
            status: 200,
            url: "http://example.org/dir/page.html".into(),
            media_type: Some("text/html".into()),
            charset: Some("utf-8".into()),
            body: html.as_bytes().to_vec(),
            retry_after: None,
        }
    }
    fn wanted() -> Wanted {
        Wanted { html: false, markdown: true, links: true, images: true, details: true, min_chars: 100 }
    }

    #[test]
    fn an_article_comes_without_what_surrounds_it() {
        let body = "A violin has four strings, and it is played with a bow. ".repeat(10);
        let html = format!(
            "<html lang=en><head><title>Violins - A site</title><meta name=author content=Ann></head><body>\
             <nav><a href=/home>Home</a></nav><script>alert(1)</script><article><h1>Violins</h1><p>{body}</p>\
             <p>{body} <a href='other.html#x'>more</a> <b>bold</b></p><img src=/v.png></article></body></html>"
        );
        let page = read("http://example.org/short", &reply(&html), wanted()).unwrap();
        let content = &page.content;
        let text = content["text"].as_str().unwrap();
        assert!(text.contains("four strings") && !text.contains("alert") && !text.contains("Home"), "{text}");
        assert!(content["title"].as_str().unwrap().contains("Violins"), "{content:?}");
        assert_eq!(
            (&content["url"], &content["strategy_used"]),
            (&json!("http://example.org/short"), &json!("readability"))
        );
        assert_eq!(page.links, ["http://example.org/home", "http://example.org/dir/other.html"]);
        assert_eq!(content["images"], json!(["http://example.org/v.png"]));
        assert!(content["markdown"].as_str().unwrap().contains("**bold**"), "{}", content["markdown"]);
        assert_eq!(content["metadata"]["language"], "en");
        assert!(content.get("html").is_none());
    }

    #[test]
    fn what_stands_beside_the_text_is_listed() {
        let html = "<a href='/a.pdf'>The manual</a> <a href='b-c.html'>More</a> <a href='b-c.html#x'>again</a>\
                    <img src=v.png alt='A view' width=20> <pre><code class='language-rust'>fn a() {}\nfn b() {}\n</code></pre>";
        let details = read("u", &reply(html), wanted()).unwrap().details;
        assert_eq!(details.links, [Link { url: "http://example.org/dir/b-c.html".into(), text: "More".into() }]);
        assert_eq!(details.links[0].words(), "More  dir b c html");
        assert_eq!(details.asset_links[0]["file_type"], "document");
        assert_eq!((&details.images[0]["alt"], &details.images[0]["width"]), (&json!("A view"), &json!(20)));
        let code = &details.code_blocks[0];
        assert_eq!((&code["language"], &code["line_end"]), (&json!("rust"), &json!(2)));
    }

    #[test]
    fn a_page_with_little_text_gives_all_it_has() {
        let page = read("u", &reply("<title>T</title><p>Short.</p><script>x()</script>"), wanted()).unwrap();
        assert_eq!(
            (page.content["text"].as_str(), &page.content["strategy_used"]),
            (Some("Short."), &json!("full_text"))
        );
        let empty = read("u", &reply(""), wanted()).unwrap();
        assert_eq!(empty.content["content_length"], 0);
        let plain = Reply { media_type: Some("text/plain".into()), ..reply("a < b") };
        assert_eq!(read("u", &plain, wanted()).unwrap().content["text"], "a < b");
        let image = Reply { media_type: Some("image/png".into()), ..reply("x") };
        assert!(read("u", &image, wanted()).unwrap_err().to_string().contains("image/png"));
        let latin = Reply { charset: Some("iso-8859-1".into()), body: b"<p>caf\xe9</p>".to_vec(), ..reply("") };
        assert_eq!(read("u", &latin, wanted()).unwrap().content["text"], "café");
    }

    #[test]
    fn hostile_pages_are_refused_or_read() {
        for html in [
            "<div>".repeat(300_000),
            "<b><i>".repeat(100_000),
            "<table><tr><td>".repeat(50_000),
            "<svg>".repeat(100_000),
        ] {
            assert!(read("u", &reply(&html), wanted()).unwrap_err().to_string().contains("nest"), "{}", &html[..20]);
        }
        for html in [
            "<p>".repeat(50_000),
            "<li>".repeat(50_000),
            "<".repeat(100_000),
            "&amp;".repeat(100_000),
            format!("<a {}>", "x=1 ".repeat(50_000)),
            "<!--".repeat(50_000),
            "</p>".repeat(50_000),
        ] {
            drop(read("u", &reply(&html), wanted()));
        }
        let many = "<br>".repeat(MAX_ELEMENTS + 1);
        assert!(read("u", &reply(&many), wanted()).unwrap_err().to_string().contains("elements"));
    }
}
