//! The tools that decode media, pulled where they are missing.

#![allow(clippy::unwrap_used)]

use std::process::Command;
use strata_infer::{FileState, InstallState, Registry, Task};
use strata_model::Error;

fn installed() -> Registry {
    let registry = Registry::open(Registry::default_dir().unwrap());
    for entry in Registry::resolve_all("media_tools").unwrap() {
        registry.pull(entry.id).unwrap();
    }
    registry
}

#[test]
fn a_group_is_its_members_and_an_entry_is_itself() {
    let ids = |name| Registry::resolve_all(name).unwrap().iter().map(|entry| entry.id).collect::<Vec<_>>();
    assert_eq!(ids("media_tools"), ["ffmpeg", "pdfium"]);
    assert_eq!(ids("all_minilm_l6_v2"), ["all_minilm_l6_v2_int8"]);
    assert!(matches!(Registry::resolve_all("no_such_group"), Err(Error::Missing { .. })));
    assert!(Registry::resolve_all("media_tools").unwrap().iter().all(|entry| entry.task == Task::Decode));
}

#[test]
fn the_program_starts_and_the_library_is_one() {
    let registry = installed();
    let program = registry.file("ffmpeg", "ffmpeg").unwrap();
    let output = Command::new(program).arg("-version").output().unwrap();
    assert!(output.status.success() && output.stdout.starts_with(b"ffmpeg version"), "{output:?}");
    let library = std::fs::read(registry.file("pdfium", "libpdfium.so").unwrap()).unwrap();
    assert!(library.starts_with(b"\x7fELF"));
}

#[test]
fn a_tool_that_is_missing_or_changed_is_not_handed_out() {
    let temp = tempfile::tempdir().unwrap();
    let registry = Registry::open(temp.path().to_owned());
    match registry.file("pdfium", "libpdfium.so") {
        Err(Error::Unavailable(message)) => assert!(message.contains("run `strata models pull pdfium`"), "{message}"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(registry.file("pdfium", "no_such_file"), Err(Error::Internal(_))));

    let entry = Registry::resolve("pdfium").unwrap();
    let path = registry.path(entry).join("libpdfium.so");
    std::fs::create_dir(registry.path(entry)).unwrap();
    let mut bytes = std::fs::read(installed().file("pdfium", "libpdfium.so").unwrap()).unwrap();
    bytes[4096] ^= 1;
    std::fs::write(path, bytes).unwrap();
    assert_eq!(registry.state(entry), InstallState::Installed);
    assert!(matches!(registry.verify("pdfium").unwrap().files[0].state, FileState::WrongHash { .. }));
    assert!(matches!(registry.file("pdfium", "libpdfium.so"), Err(Error::Unavailable(m)) if m.contains("damaged")));
}
