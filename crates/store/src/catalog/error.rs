//! SQLite's errors in the project's words.

use rusqlite::{ErrorCode, ffi::SQLITE_IOERR_SHMSIZE};
use strata_model::Error;

/// A full disk is the disk's fault and says so; a broken constraint is a conflict; the rest is ours.
pub fn from_sql(error: rusqlite::Error) -> Error {
    let rusqlite::Error::SqliteFailure(failure, ref message) = error else {
        return Error::internal(format!("catalog: {error}"));
    };
    let full = || Error::Full("the disk is full: nothing was written; free some room and try again".into());
    match failure.code {
        ErrorCode::DiskFull => full(),
        // The file that readers and the writer share could not grow.
        ErrorCode::SystemIoFailure if failure.extended_code == SQLITE_IOERR_SHMSIZE => full(),
        ErrorCode::ConstraintViolation => Error::Conflict(message.clone().unwrap_or_else(|| error.to_string())),
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
            Error::Busy { message: "the catalog is busy".into(), retry_after_seconds: 1 }
        }
        _ => Error::internal(format!("catalog: {error}")),
    }
}
