//! What the tests of this crate share: real files, tools, and a decoder whose children are this crate's own.

#![allow(clippy::unwrap_used, dead_code)]

use std::{
    path::{Path, PathBuf},
    process::Command,
};
use strata_media::{Config, Decoder, Source, Tools};

/// A real file, for example `opencv-doc/vtest.avi`.
pub fn file(name: &str) -> PathBuf {
    let beside = || Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("test-files");
    let folder = std::env::var_os("STRATA_TEST_FILES").map_or_else(beside, PathBuf::from);
    let path = folder.join(name);
    assert!(path.exists(), "`{}` is missing: run `scripts/fetch-test-files.sh`", path.display());
    path
}

pub fn source(name: &str) -> Source {
    Source::Path(file(name))
}

pub fn bytes(bytes: Vec<u8>) -> Source {
    Source::Bytes(bytes.into())
}

pub fn tools() -> Tools {
    let models = std::env::var_os("STRATA_MODELS").map(PathBuf::from).unwrap_or_default();
    let tools = Tools::default().completed(&[&models.join("ffmpeg"), &models.join("pdfium")]);
    assert!(tools.ffmpeg.is_some() && tools.pdfium.is_some(), "{tools:?}: run `strata models pull media_tools`");
    tools
}

pub fn config() -> Config {
    Config::new(env!("CARGO_BIN_EXE_strata-media-child").into(), Vec::new(), tools())
}

pub fn decoder() -> Decoder {
    Decoder::new(config())
}

/// A Photoshop document of one colour, as it is saved for others: without layers.
pub fn photoshop(width: u32, height: u32, color: [u8; 3]) -> Vec<u8> {
    let mut file = b"8BPS\0\x01\0\0\0\0\0\0\0\x03".to_vec();
    file.extend(height.to_be_bytes());
    file.extend(width.to_be_bytes());
    // Eight bits of RGB; no palette, resources or layers; not packed.
    file.extend(b"\0\x08\0\x03\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    for plane in color {
        file.extend(std::iter::repeat_n(plane, (width * height) as usize));
    }
    file
}

/// A file that `ffmpeg` makes of real ones, kept as long as the folder lives.
pub fn made(folder: &Path, name: &str, arguments: &[&str]) -> PathBuf {
    let path = folder.join(name);
    let run = Command::new(tools().ffmpeg.unwrap())
        .args(["-hide_banner", "-loglevel", "error", "-nostdin", "-y"])
        .args(arguments)
        .arg(&path)
        .output()
        .unwrap();
    assert!(run.status.success(), "{name}: {}", String::from_utf8_lossy(&run.stderr));
    path
}
