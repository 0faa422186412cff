//! Files of the data directory that hold keys: readable by their owner only. The catalog is one: keys that sign URLs lie
//! in it.

use std::path::Path;
use strata_model::{Error, Result};
use strata_store::disk;

/// Replaces the file whole, readable by its owner only, and synced.
pub(crate) fn write(file: &Path, text: &str) -> Result<()> {
    disk::replace_private(file, format!("{text}\n").as_bytes()).map_err(|e| match e.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            Error::Full(format!("the disk is full: `{}` was not written", file.display()))
        }
        _ => Error::internal(format!("cannot write `{}`: {e}", file.display())),
    })
}

/// The text of the file; `None` where there is none. One that others may read is refused.
pub(crate) fn read(file: &Path) -> Result<Option<String>> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::Unavailable(format!("cannot read `{}`: {error}", file.display()))),
    };
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(file).map_err(Error::internal)?.permissions().mode();
        if mode & 0o077 != 0 {
            let name = file.display();
            return Err(Error::Unavailable(format!("`{name}` can be read by others; run `chmod 600 {name}`")));
        }
    }
    Ok(Some(text))
}

/// Makes an empty file that its owner alone may read and write, where there is none: other programs that open it keep
/// that, and SQLite gives it to the files beside it.
pub(crate) fn make(file: &Path) -> Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    match options.open(file) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(Error::internal(format!("cannot make `{}`: {error}", file.display())))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_is_its_owners_alone() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("admin.key");
        assert_eq!(read(&file).unwrap(), None);
        write(&file, "one").unwrap();
        write(&file, "two").unwrap();
        assert_eq!(read(&file).unwrap().as_deref(), Some("two\n"));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
            assert!(matches!(read(&file), Err(Error::Unavailable(message)) if message.contains("chmod 600")));
        }
    }

    #[test]
    fn a_file_that_is_there_stays_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("catalog.db");
        make(&file).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        }
        std::fs::write(&file, "rows").unwrap();
        make(&file).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "rows");
    }
}
