//! Watching what is done to a directory, and letting the power go at every step of it.

use super::image::Disk;
use parking_lot::Mutex;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

/// One change of a file or directory, by its path.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    MakeDir(PathBuf),
    Create(PathBuf),
    Write(PathBuf, Vec<u8>),
    SyncFile(PathBuf),
    SyncDir(PathBuf),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    RemoveTree(PathBuf),
}

impl Change {
    /// The first one, of a renaming.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::MakeDir(path)
            | Self::Create(path)
            | Self::Write(path, _)
            | Self::SyncFile(path)
            | Self::SyncDir(path)
            | Self::Rename(path, _)
            | Self::Remove(path)
            | Self::RemoveTree(path) => path,
        }
    }
}

/// A change, or something that the tested code has said or is about to unsay.
#[derive(Debug, Clone)]
enum Step {
    Change(Change),
    Promised(String),
    TakenBack(String),
}

type Steps = Arc<Mutex<Vec<Step>>>;

/// The directories that are watched, in the whole process: each test has one of its own.
static WATCHED: Mutex<Vec<(PathBuf, Steps)>> = Mutex::new(Vec::new());

/// Tells whoever watches the place.
pub(crate) fn note(change: Change) {
    for (root, steps) in WATCHED.lock().iter() {
        if change.path().starts_with(root) {
            steps.lock().push(Step::Change(change.clone()));
        }
    }
}

/// What happens below a directory from when this is made. What is there before is on the disk for good.
pub(crate) struct Recording {
    root: PathBuf,
    before: Disk,
    steps: Steps,
}

/// How much of what was not synced a cut leaves.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cut {
    /// Nothing.
    Strict,
    /// Some of it, by this seed: names in any order, files cut short or with holes.
    Torn(u64),
    /// Everything: the process died and the machine did not.
    Killed,
}

impl Recording {
    pub(crate) fn begin(root: &Path) -> Self {
        let steps = Steps::default();
        WATCHED.lock().push((root.to_owned(), steps.clone()));
        Self { root: root.to_owned(), before: Disk::read(root), steps }
    }

    /// From here on every cut must leave this.
    pub(crate) fn promise(&self, what: impl Into<String>) {
        self.steps.lock().push(Step::Promised(what.into()));
    }

    /// From here on a cut may leave this or not.
    pub(crate) fn take_back(&self, what: impl Into<String>) {
        self.steps.lock().push(Step::TakenBack(what.into()));
    }

    /// Lets the power go before every step and after the last one, in each of these ways, and has what is left looked at:
    /// its directory, and what was promised by then.
    pub(crate) fn at_every_step(self, cuts: &[Cut], mut look: impl FnMut(&Path, &BTreeSet<String>)) {
        WATCHED.lock().retain(|(root, _)| *root != self.root);
        let steps = self.steps.lock().clone();
        let mut disk = self.before;
        let mut promised = BTreeSet::new();
        for number in 0..=steps.len() {
            for cut in cuts {
                let cut = match cut {
                    // Each step has chances of its own.
                    Cut::Torn(seed) => Cut::Torn(seed.wrapping_add(number as u64 * 0x9e37)),
                    other => *other,
                };
                let step = say(steps.get(number));
                let _told = Told(format!("{cut:?} before step {number} of {}: {step}", steps.len()));
                let left = tempfile::tempdir().unwrap();
                disk.leave(cut, left.path());
                look(left.path(), &promised);
            }
            match steps.get(number) {
                Some(Step::Change(change)) => disk.change(change, &self.root),
                Some(Step::Promised(what)) => {
                    promised.insert(what.clone());
                }
                Some(Step::TakenBack(what)) => {
                    promised.remove(what);
                }
                None => {}
            }
        }
    }
}

/// A step in words, without bytes.
fn say(step: Option<&Step>) -> String {
    match step {
        Some(Step::Change(Change::Write(path, bytes))) => format!("{} bytes into `{}`", bytes.len(), path.display()),
        Some(other) => format!("{other:?}"),
        None => "nothing more".to_owned(),
    }
}

/// Says where the power went when a look fails.
struct Told(String);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the power went: {}", self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk;

    /// What each cut leaves of a file, at each step.
    fn seen(recording: Recording, cut: Cut, name: &str) -> Vec<Option<String>> {
        let mut seen = Vec::new();
        recording.at_every_step(&[cut], |left, _| seen.push(std::fs::read_to_string(left.join(name)).ok()));
        seen
    }

    #[test]
    fn a_file_is_there_when_it_and_its_directory_are_synced() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a");
        let run = || {
            let recording = Recording::begin(directory.path());
            disk::write_new(&file, b"abc").unwrap();
            disk::sync_dir(directory.path()).unwrap();
            disk::remove_file(&file).unwrap();
            recording
        };
        let text = Some("abc".to_owned());
        // Before, created, written, synced, its directory synced, removed.
        let strict = seen(run(), Cut::Strict, "a");
        assert_eq!(strict, [None, None, None, None, text.clone(), text.clone()], "nobody has synced the removal");
        let killed = seen(run(), Cut::Killed, "a");
        assert_eq!(killed, [None, Some(String::new()), text.clone(), text.clone(), text, None]);
    }

    #[test]
    fn a_name_given_before_the_bytes_are_synced_may_lead_to_anything() {
        let directory = tempfile::tempdir().unwrap();
        let draft = directory.path().join("draft");
        let recording = Recording::begin(directory.path());
        std::fs::write(&draft, vec![7u8; 2_000]).unwrap();
        note(Change::Create(draft.clone()));
        note(Change::Write(draft.clone(), vec![7; 2_000]));
        disk::rename(&draft, &directory.path().join("named")).unwrap();
        disk::sync_dir(directory.path()).unwrap();
        let cuts: Vec<Cut> = (0..40).map(Cut::Torn).collect();
        let mut last = BTreeSet::new();
        recording.at_every_step(&cuts, |left, _| {
            if let Ok(bytes) = std::fs::read(left.join("named")) {
                last.insert((bytes.len() == 2_000, bytes.iter().all(|byte| *byte == 7), bytes.is_empty()));
            }
        });
        assert!(last.contains(&(true, true, false)), "whole");
        assert!(last.contains(&(true, false, false)), "with a hole");
        assert!(last.contains(&(false, true, true)), "empty");
        assert!(last.contains(&(false, true, false)), "cut short");
    }

    #[test]
    #[should_panic(expected = "past the witness")]
    fn what_is_written_past_these_functions_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let recording = Recording::begin(directory.path());
        std::fs::write(directory.path().join("a"), "abc").unwrap();
        disk::rename(&directory.path().join("a"), &directory.path().join("b")).unwrap();
        recording.at_every_step(&[Cut::Strict], |_, _| {});
    }
}
