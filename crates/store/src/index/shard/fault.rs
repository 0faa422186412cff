//! What breaks a shard, as a value: errors and panics of the engine.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Why a shard can no longer be trusted.
#[derive(Debug)]
pub(in crate::index) struct Fault(pub String);

impl<E: std::fmt::Display> From<E> for Fault {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// Runs an engine call; an error and a panic are both faults.
pub(super) fn guarded<T, E: std::fmt::Display>(what: &str, call: impl FnOnce() -> Result<T, E>) -> Result<T, Fault> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Fault(format!("{what}: {error}"))),
        Err(panic) => {
            let text =
                panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
            Err(Fault(format!("{what} panicked: {}", text.unwrap_or("no message"))))
        }
    }
}
