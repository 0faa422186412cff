#![allow(clippy::unwrap_used)]

use super::*;
use std::io::Write;
use std::path::PathBuf;

/// An archive below `dir` with these files, as tar or as zip.
fn packed(dir: &Path, files: &[(&str, &[u8])], is_zip: bool) -> PathBuf {
    let path = dir.join("model.archive");
    let file = std::fs::File::create(&path).unwrap();
    if is_zip {
        let mut zip = zip::ZipWriter::new(file);
        for (name, content) in files {
            zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
            zip.write_all(content).unwrap();
        }
        zip.finish().unwrap();
    } else {
        let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(file, flate2::Compression::fast()));
        for (name, content) in files {
            let mut header = tar::Header::new_gnu();
            // Past the checks of the writer.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            tar.append(&header, *content).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap();
    }
    path
}

/// What is wrong with an archive of these files.
fn refused(files: &[(&str, &[u8])], is_zip: bool) -> String {
    let temp = tempfile::tempdir().unwrap();
    let path = packed(temp.path(), files, is_zip);
    match Brought::open(&path, BroughtFormat::Onnx) {
        Err(Error::Invalid(wrong)) => wrong.into_iter().map(|e| format!("{} {}; ", e.field, e.message)).collect(),
        other => panic!("{other:?}"),
    }
}

const GOOD: [(&str, &[u8]); 2] = [("model.onnx", b"m"), ("tokenizer.json", b"{}")];

#[test]
fn files_are_found_at_the_root_and_in_one_folder_of_either_kind_of_archive() {
    let temp = tempfile::tempdir().unwrap();
    let pooled: &[u8] = br#"{ "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false }"#;
    for (is_zip, container) in [(false, "tar.gz"), (true, "zip")] {
        let path = packed(temp.path(), &GOOD, is_zip);
        let model = Brought::open(&path, BroughtFormat::Onnx).unwrap();
        assert_eq!((model.container(), model.max_tokens(), model.pooling), (container, MAX_TOKENS, Pooling::Mean));
        let below: [(&str, &[u8]); 5] = [
            ("small/onnx/model.onnx", b"m"),
            ("small/tokenizer.json", b"{}"),
            ("small/sentence_bert_config.json", br#"{ "max_seq_length": 128 }"#),
            ("small/1_Pooling/config.json", pooled),
            ("small/README.md", b"words"),
        ];
        let path = packed(temp.path(), &below, is_zip);
        let other = Brought::open(&path, BroughtFormat::Onnx).unwrap();
        assert_eq!((other.max_tokens(), other.pooling), (128, Pooling::First));
        assert_ne!(model.fingerprint(), other.fingerprint(), "the way it is run is part of it");
    }
}

#[test]
fn what_could_harm_is_refused_by_name() {
    for is_zip in [false, true] {
        for name in ["../model.onnx", "/etc/model.onnx", "a/../../model.onnx", "a\\..\\model.onnx"] {
            let told = refused(&[GOOD[0], GOOD[1], (name, b"x")], is_zip);
            assert!(told.contains("leads out"), "{name}: {told}");
        }
        let told = refused(&GOOD[..1], is_zip);
        assert!(told.contains("tokenizer.json is not in the archive"), "{told}");
        let zeros = vec![0; 64 << 20];
        let told = refused(&[("model.onnx", zeros.as_slice()), GOOD[1]], is_zip);
        assert!(told.contains("far more comes out"), "{told}");
        let told = refused(&[("a/model.onnx", b"m"), ("b/tokenizer.json", b"{}")], is_zip);
        assert!(told.contains("several folders"), "{told}");
        let told = refused(&[GOOD[0], GOOD[1], ("2_Dense/config.json", b"{}")], is_zip);
        assert!(told.contains("2_Dense"), "{told}");
        let names: Vec<String> = (0..300).map(|n| format!("file {n}")).collect();
        let many: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), b"x".as_slice())).collect();
        assert!(refused(&many, is_zip).contains("entries"));
    }
    assert!(refused(&[GOOD[0], GOOD[0], GOOD[1]], false).contains("twice"));
    assert!(
        refused(&[GOOD[0], GOOD[1], ("1_Pooling/config.json", br#"{ "pooling_mode_max_tokens": true }"#)], true)
            .contains("pooling_mode_max_tokens")
    );
}

#[test]
fn links_and_what_is_no_archive_are_refused() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("links");
    let gzip = flate2::write::GzEncoder::new(std::fs::File::create(&path).unwrap(), flate2::Compression::fast());
    let mut tar = tar::Builder::new(gzip);
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    tar.append_link(&mut header, "model.onnx", "/etc/passwd").unwrap();
    tar.into_inner().unwrap().finish().unwrap();
    let told = Brought::open(&path, BroughtFormat::Onnx).unwrap_err().to_string();
    assert!(told.contains("`model.onnx`: is a link"), "{told}");
    for (bytes, expected) in [
        ("PK of no archive".as_bytes(), "damaged"),
        ([0x1f, 0x8b, 1, 2].as_slice(), "damaged"),
        (b"x".as_slice(), "neither"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let told = Brought::open(&path, BroughtFormat::Onnx).unwrap_err().to_string();
        assert!(told.contains(expected), "{told}");
    }
}

#[test]
fn a_network_that_is_none_is_refused_and_not_run() {
    let temp = tempfile::tempdir().unwrap();
    let path = packed(temp.path(), &GOOD, true);
    let model = Brought::open(&path, BroughtFormat::Onnx).unwrap();
    let refused = TextEmbedder::of("custom/none@1.0.0", model, EmbedConfig::default()).unwrap_err();
    assert!(matches!(refused, Error::Invalid(_)), "{refused}");
}
