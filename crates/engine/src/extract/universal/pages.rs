//! Documents: each page of a PDF, of a text and of an HTML page.

use super::super::{Input, InputFile, Output, course::pages as book, image, parameters::Read};
use super::{
    part::{Part, tells},
    placed,
};
use crate::{
    Engine,
    objects::MAX_TEXT_BYTES,
    retrieval::Reply,
    split::{self, SplitBy, SplitConfig},
    web::{
        self,
        page::{READABLE_CHARS, Wanted},
    },
};
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc};
use strata_model::{Error, Fields, Result};

/// Dots an inch at which pages are looked at, and read where they hold no text.
const DPI: f32 = 150.0;
/// Words of a page of a text that says not where its pages end.
const PAGE_WORDS: usize = 500;
/// What such a text is called where it cannot be read.
const WHAT: &str = "the content";

/// What is wanted of documents.
pub(super) struct Job<'a> {
    engine: &'a Arc<Engine>,
    parameters: &'a Fields,
    max_pages: u64,
    keeps_text: bool,
}

/// A page of a text.
#[derive(Debug, PartialEq, Eq)]
struct Page {
    /// From 1.
    number: usize,
    text: String,
}

impl<'a> Job<'a> {
    pub fn new(engine: &'a Arc<Engine>, parameters: &'a Fields) -> Self {
        let read = Read(parameters);
        let max_pages = read.integer("max_document_pages").unwrap_or(50);
        Self { engine, parameters, max_pages, keeps_text: read.is("extract_text") }
    }

    /// The first pages of a PDF, or one of them. One that says little is found by what it shows, too; one that is blank
    /// makes no document.
    pub async fn pdf(&self, file: &InputFile, page: Option<u32>) -> Result<Vec<Part>> {
        let _room = self.engine.heavy().await?;
        let settings = book::Settings {
            by_element: false,
            finds_code: false,
            reads: true,
            pictures: true,
            keeps_wordless: true,
            max_pages: u32::try_from(self.max_pages).unwrap_or(u32::MAX),
            dpi: DPI,
        };
        let told = book::documents(self.engine, file, page, settings).await?;
        let picture = |(at, page): (usize, &Output)| match words_of(page).is_some_and(tells) {
            true => None,
            false => Some((at, page.artifacts.first()?.hash().to_owned())),
        };
        let pictures = told.iter().enumerate().filter_map(picture).collect();
        let seen = image::look_at(self.engine, self.parameters, pictures).await?;
        let mut seen: BTreeMap<usize, Vec<f32>> = seen.into_iter().collect();
        let total = told.len();
        let part = |(at, mut page): (usize, Output)| {
            let mut output = placed("document", at, total);
            for field in ["page_number", "total_pages", "thumbnail_url"] {
                output.put(field, page.fields.remove(field));
            }
            let words = words_of(&page).map(str::to_owned);
            output.put("text", words.clone().filter(|_| self.keeps_text));
            output.artifacts = page.artifacts;
            output.key = page.key;
            Part { output, seen: seen.remove(&at), words }
        };
        Ok(told.into_iter().enumerate().map(part).collect())
    }

    /// The pages of a text or of an HTML page, as many as are wanted, or one of them.
    pub async fn text_file(&self, file: &InputFile, input: &Input) -> Result<Vec<Part>> {
        // A text blob stands among the fields, read in whatever encoding it has.
        let text = match input.source.get(&file.property).and_then(Value::as_str) {
            Some(text) => text.to_owned(),
            None if file.size_bytes > MAX_TEXT_BYTES => {
                return Err(Error::TooLarge(format!(
                    "the text in `{}` has {} bytes; {MAX_TEXT_BYTES} at most are read",
                    file.property, file.size_bytes
                )));
            }
            None => String::from_utf8_lossy(&self.engine.blobs.get(&file.hash).await?).into_owned(),
        };
        let text = if file.media_type == "text/html" || is_html(&text) { readable(text).await? } else { text };
        self.cut(text, input.span.page).await
    }

    /// The same of a text that stands in a row.
    pub async fn text(&self, text: String) -> Result<Vec<Part>> {
        let text = if is_html(&text) { readable(text).await? } else { text };
        self.cut(text, None).await
    }

    async fn cut(&self, text: String, page: Option<u32>) -> Result<Vec<Part>> {
        let mut pages = tokio::task::spawn_blocking(move || pages(&text)).await.map_err(Error::internal)?;
        if pages.is_empty() {
            return Err(Error::invalid("content", "holds no text"));
        }
        let all = pages.len();
        pages.retain(|one| page.is_none_or(|page| u32::try_from(one.number) == Ok(page)));
        pages.truncate(usize::try_from(self.max_pages).unwrap_or(usize::MAX));
        let total = pages.len();
        let part = |(at, page): (usize, Page)| {
            let mut output = placed("document", at, total);
            output.put("page_number", page.number);
            output.put("total_pages", all);
            output.put("text", self.keeps_text.then(|| page.text.clone()));
            Part { output, seen: None, words: Some(page.text) }
        };
        Ok(pages.into_iter().enumerate().map(part).collect())
    }
}

/// What a page of a PDF says.
fn words_of(page: &Output) -> Option<&str> {
    page.fields.get("text_content")?.as_str()
}

/// Where a text has form feeds, what lies between them; else as many words as fill a printed page. Blank pages are left
/// out.
fn pages(text: &str) -> Vec<Page> {
    let (split_by, chunk_size) = match text.contains('\u{c}') {
        true => (SplitBy::Pages, 1),
        false => (SplitBy::Words, PAGE_WORDS),
    };
    let chunks = split::split(text, &SplitConfig { split_by, chunk_size, chunk_overlap: 0 });
    chunks.into_iter().map(|c| Page { number: c.page_number.unwrap_or(c.index + 1), text: c.text }).collect()
}

/// Whether a text is a page of the web, by how it begins.
fn is_html(text: &str) -> bool {
    let start: String = text.trim_start_matches('\u{feff}').trim_start().chars().take(14).collect();
    let start = start.to_ascii_lowercase();
    start == "<!doctype html" || start.starts_with("<html")
}

/// The readable text of an HTML page.
async fn readable(html: String) -> Result<String> {
    let reply = Reply {
        status: 200,
        url: WHAT.to_owned(),
        media_type: Some("text/html".to_owned()),
        charset: None,
        body: html.into_bytes(),
        retry_after: None,
    };
    let wanted = Wanted { min_chars: READABLE_CHARS, ..Wanted::default() };
    // It stays as it is, so trying again is of no use.
    let page = web::read(WHAT, reply, wanted).await.map_err(|error| Error::invalid("content", error.to_string()))?;
    Ok(page.content.get("text").and_then(Value::as_str).unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_the_pages_that_it_says_or_printed_ones() {
        let page = |number, text: &str| Page { number, text: text.to_owned() };
        assert_eq!(pages("One.\u{c} \u{c}Three."), [page(1, "One."), page(3, "Three.")]);
        let long = "word ".repeat(PAGE_WORDS + 1);
        let made = pages(&long);
        assert_eq!(made.iter().map(|page| page.number).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(made[1], page(2, "word"));
        assert!(pages(" \n").is_empty());
    }

    #[test]
    fn pages_of_the_web_are_told_by_their_beginning() {
        for html in ["<!DOCTYPE html><p>a", "\u{feff}\n <html lang=en>", "<HTML>", "<!doctype HTML PUBLIC"] {
            assert!(is_html(html), "{html}");
        }
        for text in ["", "<", "a <html>", "<svg/>", "# <!doctype html>", "<?xml version='1.0'?>"] {
            assert!(!is_html(text), "{text}");
        }
    }

    #[tokio::test]
    async fn only_what_a_page_says_is_read_and_what_cannot_be_read_is_the_callers() {
        let text = readable("<html><title>T</title><p>Short.</p><script>x()</script>".to_owned()).await.unwrap();
        assert_eq!(text, "Short.");
        let refused = readable(format!("<html>{}", "<div>".repeat(1000))).await.err().unwrap();
        assert!(matches!(refused, Error::Invalid(_)), "{refused}");
    }
}
