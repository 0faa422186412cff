//! Watches the room on the disk. Without it nothing is written: callers are told, and work that is due waits.

use crate::Engine;
use std::{sync::Arc, time::Duration};
use strata_model::Result;

const EVERY: Duration = Duration::from_secs(1);

impl Engine {
    /// [`strata_model::Error::Full`] while the disk has less room than is kept free.
    pub fn check_room(&self) -> Result<()> {
        self.room.check()
    }
}

/// Tells the log and the metrics, and wakes what waited. Ends with the engine's queue.
pub(crate) fn start(engine: &Arc<Engine>) {
    let engine = engine.clone();
    let (stop, tracker) = (engine.queue.stopping(), engine.queue.tracker().clone());
    let watch = async move {
        let mut was_full = false;
        loop {
            if let Ok(free) = engine.room.free_bytes() {
                metrics::gauge!("strata_disk_free_bytes").set(free as f64);
            }
            let fault = engine.room.check().err();
            match &fault {
                Some(error) if !was_full => tracing::error!(%error, "writes are refused and work waits for room"),
                None if was_full => {
                    tracing::info!("the disk has room again");
                    engine.queue.wake();
                }
                _ => {}
            }
            was_full = fault.is_some();
            tokio::time::sleep(EVERY).await;
        }
    };
    drop(tracker.spawn(async move { stop.run_until_cancelled(watch).await }));
}
