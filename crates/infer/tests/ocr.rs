//! Text in photos of pages, and in pages that are made here.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::OnceLock;
use strata_infer::{Pixels, Registry, TextLine, TextReader};
use support::photo;

fn reader() -> &'static TextReader {
    static READER: OnceLock<TextReader> = OnceLock::new();
    READER.get_or_init(|| {
        let registry = Registry::open(Registry::default_dir().unwrap());
        registry.pull(Registry::default_text_reader()).unwrap();
        TextReader::load(&registry, "pp_ocr_v6_small", 2).unwrap()
    })
}

fn words(lines: &[TextLine]) -> String {
    lines.iter().map(|line| line.text.as_str()).collect::<Vec<_>>().join(" ")
}

/// What stands on the page that `scikit-image` has a photo of, as far as the photo shows it.
const PAGE: [&str; 6] = ["Region-based segmentation", "markers", "background", "coins", "histogram", "grey values"];

#[test]
fn a_photo_of_a_page_is_read_line_by_line() {
    let lines = reader().read_blocking(&photo("scikit-image/page.png")).unwrap();
    for line in &lines {
        println!("{:.2} {} {:?}", line.confidence, line.text, line.quad[0]);
    }
    let text = words(&lines).to_lowercase();
    let found = PAGE.iter().filter(|word| text.contains(&word.to_lowercase())).count();
    assert!(found >= 5, "{found} of {PAGE:?} in {text}");
    let tops: Vec<f32> = lines.iter().map(|line| line.quad[0][1]).collect();
    assert!(tops.windows(2).all(|pair| pair[0] < pair[1] + 30.0), "from top to bottom: {tops:?}");
}

#[test]
fn what_has_no_text_has_no_lines() {
    for color in [0, 90, 255] {
        let blank = Pixels::new(300, 200, vec![color; 300 * 200 * 3]).unwrap();
        assert!(reader().read_blocking(&blank).unwrap().is_empty(), "{color}");
    }
    assert!(reader().read_blocking(&Pixels::new(1, 1, vec![7; 3]).unwrap()).unwrap().is_empty());
    let lines = reader().read_blocking(&photo("scikit-image/grass.png")).unwrap();
    assert!(words(&lines).len() < 20, "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn text_is_the_same_whoever_asks_and_in_every_company() {
    let page = photo("scikit-image/page.png");
    let (one, other) = tokio::join!(reader().read(page.clone()), reader().read_now(page));
    assert_eq!(one.unwrap(), other.unwrap());
}
