//! Small files that are replaced whole: keys, and the marks of the index.

use super::CUTS;
use crate::disk::{self, witness::Recording};

#[test]
fn a_file_that_is_replaced_holds_the_old_text_or_the_new_one() {
    for is_private in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let recording = Recording::begin(directory.path());
        let home = directory.path().join("made/anew");
        disk::make_dirs(&home).unwrap();
        let replace = |text: &str| {
            let file = home.join("admin.key");
            match is_private {
                true => disk::replace_private(&file, text.as_bytes()),
                false => disk::replace(&file, text.as_bytes()),
            }
        };
        let texts = ["the first text", "the second", "the third, which is longer"];
        for text in texts {
            replace(text).unwrap();
            recording.promise(text);
            recording.take_back(text);
        }
        recording.at_every_step(&CUTS, |left, promised| {
            let file = left.join("made/anew/admin.key");
            let found = std::fs::read_to_string(&file).ok();
            if let Some(promised) = promised.first() {
                assert_eq!(found.as_ref(), Some(promised));
            }
            assert!(found.as_deref().is_none_or(|found| texts.contains(&found)), "{found:?}");
            disk::make_dirs(file.parent().unwrap()).unwrap();
            disk::replace(&file, b"the next run").unwrap();
            assert_eq!(std::fs::read_to_string(&file).unwrap(), "the next run");
            assert_eq!(super::files_under(left).len(), 1, "no draft stays");
        });
    }
}
