//! A course becomes documents as large as what one looks for: segments and screens, elements and pages, functions.

use super::{Shelf, damaged::failures, file, jpeg_size, opened, recordings::made_film};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use std::io::{Cursor, Write};
use zip::{ZipWriter, write::SimpleFileOptions};

/// Puts a film and its subtitles as one object.
fn put_lesson(shelf: &Shelf, film: &[u8], subtitles: &str) -> String {
    let body = json!({ "blobs": [
        { "property": "video", "type": "video", "data": STANDARD.encode(film), "metadata": { "filename": "lesson.mp4" } },
        { "property": "text", "type": "text", "data": subtitles, "metadata": { "filename": "lesson.srt" } },
    ] });
    shelf.api.post(&format!("/v1/buckets/{}/objects", shelf.bucket), body).text("/object_id").to_owned()
}

/// A cue every eight seconds, each with a word of its own.
fn subtitles(count: usize) -> String {
    let time = |seconds: usize| format!("00:{:02}:{:02},000", seconds / 60, seconds % 60);
    let cue = |n: usize| {
        let (start, end) = (time(n * 8), time(n * 8 + 6));
        format!("{}\r\n{start} --> {end}\r\n<i>Sentence</i> marker{n} ends.\r\n\r\n", n + 1)
    };
    format!("\u{feff}{}", (0..count).map(cue).collect::<String>())
}

#[test]
fn a_lesson_is_cut_between_its_subtitles() {
    let shelf = Shelf::open();
    let settings = json!({
        "segmentation_method": "srt", "min_segment_duration_ms": 10_000, "target_segment_duration_ms": 30_000,
        "use_whisper_asr": false, "extract_screen_text": false, "run_visual_embedding": true,
    });
    let lessons = shelf.collection("lessons", "course_content_extractor", settings);
    let film = std::fs::read(file("opencv-doc/vtest.avi")).expect("readable");
    let lesson = put_lesson(&shelf, &film, &subtitles(9));
    assert_eq!(shelf.derive(std::slice::from_ref(&lesson), &[&lessons]), "COMPLETED");
    shelf.settle(&lessons);
    let mut made = shelf.documents(&lessons);
    made.sort_by_key(|d| d["segment_index"].as_u64());
    assert!(made.len() >= 3, "80 seconds in thirties: {}", made.len());
    let (mut end, mut said) = (0.0, String::new());
    for part in &made {
        assert_eq!((&part["unit_type"], &part["doc_type"]), (&json!("video_segment"), &json!("video")));
        assert_eq!(part["start_time"].as_f64(), Some(end), "no gap: {part}");
        end = part["end_time"].as_f64().expect("an end");
        said.push_str(part["text_content"].as_str().unwrap_or_default());
        assert!(jpeg_size(&opened(&part["thumbnail_url"])).0 > 0);
    }
    for n in 0..9 {
        assert_eq!(said.matches(&format!("marker{n} ")).count(), 1, "{said}");
    }
    assert!(!said.contains('<'), "{said}");
    let hits = shelf.search(&lessons, json!({ "input_mode": "text", "value": "marker5" }), 3);
    assert!(!hits.is_empty());
}

#[test]
fn what_a_lesson_shows_is_read_and_stands_alone_too() {
    let shelf = Shelf::open();
    let settings = json!({
        "segmentation_method": "time", "use_whisper_asr": false, "ocr_frames_per_segment": 2,
        "target_segment_duration_ms": 30_000, "min_segment_duration_ms": 10_000,
    });
    let lessons = shelf.collection("lessons", "course_content_extractor", settings);
    let film = made_film("scikit-image/page.png", "scale=1152:-2", "12");
    let lesson = put_lesson(&shelf, &film, &subtitles(1));
    assert_eq!(shelf.derive(std::slice::from_ref(&lesson), &[&lessons]), "COMPLETED");
    let made = shelf.documents(&lessons);
    let of = |unit: &str| made.iter().filter(|d| d["unit_type"] == unit).collect::<Vec<_>>();
    let (segments, screens) = (of("video_segment"), of("screen_text"));
    assert_eq!((segments.len(), made.len()), (1, segments.len() + screens.len()));
    assert!(!screens.is_empty(), "what is shown: {made:?}");
    assert_eq!(segments[0]["text_content"], "Sentence marker0 ends.");
    let shown = segments[0]["screen_text"].as_str().expect("text").to_lowercase();
    for word in ["markers", "histogram"] {
        assert!(shown.contains(word), "{word} in {shown}");
    }
    for screen in screens {
        assert!(screen["text_content"].is_string() && screen["thumbnail_url"].is_string(), "{screen}");
        assert!(screen["start_time"].as_f64() < screen["end_time"].as_f64(), "{screen}");
    }
}

#[test]
fn a_book_becomes_elements_with_their_code_or_pages() {
    let shelf = Shelf::open();
    let quick = |mode: &str| {
        json!({
            "pdf_extraction_mode": mode, "generate_thumbnails": mode == "per_page", "extract_screen_text": false,
            "use_whisper_asr": false, "pdf_render_dpi": 72,
        })
    };
    let elements = shelf.collection("elements", "course_content_extractor", quick("per_element"));
    let pages = shelf.collection("pages", "course_content_extractor", quick("per_page"));
    let book = shelf.put_file("pdf", "pdf/R-data.pdf");
    assert_eq!(shelf.derive(std::slice::from_ref(&book), &[&elements, &pages]), "COMPLETED");
    shelf.settle(&elements);

    let made = shelf.documents(&elements);
    assert!(made.len() > 100, "{} elements", made.len());
    let total = made[0]["total_pages"].as_u64().expect("how many pages");
    for element in &made {
        assert_eq!(element["doc_type"], "pdf");
        assert!((1..=total).contains(&element["page_number"].as_u64().expect("a page")), "{element}");
        assert!(element["bbox"]["x0"].as_f64() < element["bbox"]["x1"].as_f64(), "{element}");
        assert!(element["element_index"].is_u64() && element["element_type"].is_string(), "{element}");
    }
    let titled = made.iter().filter(|element| element["title"].is_string()).count();
    assert!(titled * 10 > made.len() * 8, "{titled} of {} under a heading", made.len());
    let code: Vec<&Value> = made.iter().filter(|element| element["code_content"].is_string()).collect();
    println!(
        "{} of {} elements are code, such as {}",
        code.len(),
        made.len(),
        code.first().map_or("", |c| { c["code_content"].as_str().unwrap_or_default() })
    );
    assert!(code.len() > 10 && code.len() * 2 < made.len(), "{} of {}", code.len(), made.len());
    assert!(code.iter().all(|element| element["element_type"] == "code"));
    assert!(code.iter().any(|element| element["code_content"].as_str().is_some_and(|c| c.contains("<-"))));
    let hits = shelf.search(&elements, json!({ "input_mode": "text", "value": "reading spreadsheets" }), 3);
    assert!(!hits.is_empty());

    let made = shelf.documents(&pages);
    let mut numbers: Vec<u64> = made.iter().filter_map(|d| d["page_number"].as_u64()).collect();
    numbers.sort_unstable();
    assert!(numbers.iter().copied().eq(1..=total), "each page once: {numbers:?}");
    assert!(made.iter().all(|page| page["element_type"] == "page" && page["thumbnail_url"].is_string()));
}

const PYTHON: &str = "import math\n\n\ndef area(radius):\n    \"\"\"The area of a circle.\"\"\"\n    return math.pi * radius ** 2\n\n\n\
                      class Stack:\n    def push(self, item):\n        self.items.append(item)\n";
const RUST: &str = "/// Adds two numbers.\npub fn add(a: i32, b: i32) -> i32 {\n    a + b\n}\n\nstruct Point;\n\nimpl Point {\n    \
                    fn norm(&self) -> f64 {\n        0.0\n    }\n}\n";
const C: &str = "#include <stdio.h>\n\n/* Prints a greeting. */\nstatic void greet(const char *name)\n{\n    printf(\"%s\", name);\n}\n";

fn zipped(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in files {
        writer.start_file(*name, SimpleFileOptions::default()).expect("begun");
        writer.write_all(content).expect("written");
    }
    writer.finish().expect("whole").into_inner()
}

#[test]
fn functions_of_an_archive_are_found_with_their_lines() {
    let shelf = Shelf::open();
    let functions = shelf.collection("functions", "course_content_extractor", json!({ "use_whisper_asr": false }));
    let whole = json!({ "use_whisper_asr": false, "segment_functions": false, "supported_languages": ["python", "c"] });
    let files = shelf.collection("files", "course_content_extractor", whole);
    let archive = zipped(&[
        ("course/shapes.py", PYTHON.as_bytes()),
        ("course/src/lib.rs", RUST.as_bytes()),
        ("course/hello.c", C.as_bytes()),
        ("course/README.md", b"Not code."),
    ]);
    let course = shelf.put("excel", "course.zip", &archive);
    let lone = shelf.put("text", "shapes.py", PYTHON.as_bytes());
    let objects = [course.clone(), lone.clone()];
    assert_eq!(shelf.derive(&objects, &[&functions, &files]), "COMPLETED");
    shelf.settle(&functions);

    let made = shelf.documents(&functions);
    let mut found: Vec<(&str, u64, u64, &str)> = made
        .iter()
        .filter(|d| d["root_object_id"] == json!(course))
        .map(|d| {
            let text = |field: &str| d[field].as_str().unwrap_or_default();
            let line = |field: &str| d[field].as_u64().unwrap_or_default();
            (text("title"), line("start_line"), line("end_line"), text("code_language"))
        })
        .collect();
    found.sort_unstable();
    let expected = [
        ("Point", 6, 6, "rust"),
        ("Point::norm", 9, 11, "rust"),
        ("Stack", 9, 11, "python"),
        ("Stack.push", 10, 11, "python"),
        ("add", 2, 4, "rust"),
        ("area", 4, 6, "python"),
        ("greet", 4, 7, "c"),
    ];
    assert_eq!(found, expected);
    let area = made.iter().find(|d| d["title"] == "area" && d["root_object_id"] == json!(course)).expect("a function");
    assert_eq!(area["unit_type"], "code_function");
    assert_eq!(area["text_content"], "area\nThe area of a circle.\ndef area(radius):");
    assert!(area["code_content"].as_str().is_some_and(|code| code.contains("math.pi") && code.starts_with("def")));
    assert_eq!(made.iter().filter(|d| d["root_object_id"] == json!(lone)).count(), 3, "a file alone is read, too");
    let hits = shelf.search(&functions, json!({ "input_mode": "text", "value": "size of a round shape" }), 2);
    assert!(hits.iter().any(|hit| hit["title"] == "area"), "{hits:?}");

    let whole = shelf.documents(&files);
    let mut paths: Vec<&str> =
        whole.iter().filter(|d| d["root_object_id"] == json!(course)).filter_map(|d| d["file_path"].as_str()).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["course/hello.c", "course/shapes.py"]);
}

#[test]
fn what_is_no_course_is_refused_with_the_reason() {
    let shelf = Shelf::open();
    let functions = shelf.collection("functions", "course_content_extractor", json!({ "use_whisper_asr": false }));
    let bomb = shelf.put("excel", "bomb.zip", &zipped(&[("bomb.py", &vec![b'#'; 20 << 20])]));
    let words = shelf.put("excel", "words.zip", &zipped(&[("words.txt", b"No code.")]));
    let objects = [bomb, words];
    assert_eq!(shelf.derive(&objects, &[&functions]), "FAILED");
    let failed = failures(&shelf, &objects);
    assert_eq!(failed.len(), 2, "{failed:?}");
    assert!(failed[0].1.contains("`bomb.py`") && failed[0].1.contains("times as many"), "{}", failed[0].1);
    assert!(failed[1].1.contains("no source file"), "{}", failed[1].1);

    let refused = json!({
        "collection_name": "summaries", "source": { "type": "bucket", "bucket_ids": [shelf.bucket] },
        "feature_extractor": { "feature_extractor_name": "course_content_extractor", "version": "v1",
            "parameters": { "enrich_with_llm": true, "supported_languages": ["cobol"] } },
    });
    let answer = shelf.api.post("/v1/collections", refused);
    assert_eq!(answer.status, 422, "{}", answer.body);
    let told = answer.body.to_string();
    assert!(told.contains("enrich_with_llm") && told.contains("supported_languages"), "{told}");
}
