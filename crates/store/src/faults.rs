//! Named places where state moves, at which a test lets a process fail or die. Nothing is armed unless the binary says so;
//! a place that is not armed costs one look at a cell that never changes.

use std::{
    io,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};
use strata_model::{Error, Result};

/// A place where state moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Point {
    /// A blob's bytes are on disk under a temporary name.
    BlobWritten,
    /// It has its name, which may be lost with the power.
    BlobNamed,
    /// It is durable; no row names it yet.
    BlobKept,
    /// A blob that no row names has been removed.
    BlobRemoved,
    /// A group of changes is in a transaction that is not committed.
    CatalogWritten,
    /// It is committed; nobody has been told.
    CatalogCommitted,
    /// An event waits for its receivers, in the transaction that makes it true.
    EventQueued,
    /// A receiver has been sent one and has answered or not; nothing is written down of it.
    EventSent,
    /// An extractor has made its outputs; nothing of them is stored.
    DerivationMade,
    /// They are committed; what follows from them is not begun.
    DerivationCompleted,
    /// Changes are in the index's memory and its log.
    IndexApplied,
    /// The index's files are on disk; its manifest is that of the last time.
    IndexFlushed,
    /// The manifest names them.
    IndexMarked,
    /// A rebuilt shard is complete and not in use.
    IndexRebuilt,
}

impl Point {
    pub const ALL: [Self; 14] = [
        Self::BlobWritten,
        Self::BlobNamed,
        Self::BlobKept,
        Self::BlobRemoved,
        Self::CatalogWritten,
        Self::CatalogCommitted,
        Self::EventQueued,
        Self::EventSent,
        Self::DerivationMade,
        Self::DerivationCompleted,
        Self::IndexApplied,
        Self::IndexFlushed,
        Self::IndexMarked,
        Self::IndexRebuilt,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::BlobWritten => "blob_written",
            Self::BlobNamed => "blob_named",
            Self::BlobKept => "blob_kept",
            Self::BlobRemoved => "blob_removed",
            Self::CatalogWritten => "catalog_written",
            Self::CatalogCommitted => "catalog_committed",
            Self::EventQueued => "event_queued",
            Self::EventSent => "event_sent",
            Self::DerivationMade => "derivation_made",
            Self::DerivationCompleted => "derivation_completed",
            Self::IndexApplied => "index_applied",
            Self::IndexFlushed => "index_flushed",
            Self::IndexMarked => "index_marked",
            Self::IndexRebuilt => "index_rebuilt",
        }
    }
}

/// What happens at an armed place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    /// The process ends at once, as with `kill -9`: nothing is unwound, flushed or said.
    Die,
    /// The step fails, once.
    Fail,
}

#[derive(Debug)]
struct Plan {
    point: Point,
    action: Action,
    /// How often the place is still passed without harm.
    spared: AtomicU64,
}

static ARMED: OnceLock<Plan> = OnceLock::new();

/// Arms one place for the rest of the process: `place:die:N` or `place:fail:N`, at the N-th time that it is reached,
/// counted from 1.
///
/// Errors: `Invalid` where the text says something else; `Conflict` where one is armed already.
pub fn arm(text: &str) -> Result<()> {
    let plan = parse(text).ok_or_else(|| {
        let names = Point::ALL.map(Point::name).join(", ");
        Error::invalid("fault", format!("`{text}` is not `place:die:N` or `place:fail:N`; places are {names}"))
    })?;
    ARMED.set(plan).map_err(|_| Error::Conflict("a fault is armed already".into()))
}

fn parse(text: &str) -> Option<Plan> {
    let mut parts = text.split(':');
    let (name, action, nth) = (parts.next()?, parts.next()?, parts.next()?);
    let point = Point::ALL.into_iter().find(|point| point.name() == name)?;
    let action = match action {
        "die" => Action::Die,
        "fail" => Action::Fail,
        _ => return None,
    };
    let nth: u64 = nth.parse().ok().filter(|nth| *nth > 0 && parts.next().is_none())?;
    Some(Plan { point, action, spared: AtomicU64::new(nth - 1) })
}

/// Passes a place. Fails, or does not return, where it is armed and its time has come.
pub fn reach(point: Point) -> io::Result<()> {
    match ARMED.get() {
        Some(plan) if plan.point == point => plan.meet(),
        _ => Ok(()),
    }
}

impl Plan {
    fn meet(&self) -> io::Result<()> {
        let is_spared = self.spared.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if is_spared.is_ok() {
            return Ok(());
        }
        match self.action {
            Action::Die => {
                eprintln!("fault: the process dies at {}", self.point.name());
                std::process::abort()
            }
            Action::Fail => {
                // Never again.
                if self.spared.swap(u64::MAX, Ordering::SeqCst) != 0 {
                    return Ok(());
                }
                eprintln!("fault: a step fails at {}", self.point.name());
                Err(io::Error::other(format!("a fault at {}", self.point.name())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_fails_once_at_its_time() {
        let plan = parse("blob_named:fail:3").unwrap();
        let met: Vec<bool> = (0..6).map(|_| plan.meet().is_ok()).collect();
        assert_eq!(met, [true, true, false, true, true, true]);
    }

    #[test]
    fn what_is_no_plan_is_refused() {
        for text in [
            "",
            "blob_named",
            "blob_named:die",
            "blob_named:die:0",
            "odd:die:1",
            "blob_named:rest:1",
            "blob_named:die:1:2",
        ] {
            assert!(parse(text).is_none(), "{text}");
        }
        let names: std::collections::HashSet<&str> = Point::ALL.map(Point::name).into_iter().collect();
        assert_eq!(names.len(), Point::ALL.len());
    }
}
