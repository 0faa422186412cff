//! The audit log of an organization: what each call leaves in it, reading it, and for how long it is kept.
//!
//! A change and its row are committed together; [`strata_store::catalog::audit`] says how.

use crate::{Engine, times::DAY};
use std::sync::{Arc, atomic::Ordering};
use strata_model::{Error, Principal, Result};
use strata_store::catalog::audit as rows;

pub use rows::{Call, Entry, Event, Operation, Selection, Settings, caller, during, within};
pub(crate) use rows::{about, carried};

/// Longest retention, in days.
pub const MAX_RETENTION_DAYS: u32 = 36_500;
/// Most events that one transaction of the sweep removes.
const SWEEP: usize = 2_000;
/// Events that are read at once for an export.
const EXPORT_PAGE: usize = 1_000;

/// What a change of the settings says. What is `None` stays.
#[derive(Debug, Clone, Copy, Default)]
pub struct SettingsChange {
    pub reads: Option<bool>,
    /// Days; 0 means for ever.
    pub retention_days: Option<u32>,
}

impl Engine {
    /// The entry of a call that begins now. `resource_id` is what its path names; `is_change` says whether its writes
    /// take the entry along.
    pub fn audit_entry(
        &self,
        operation: Arc<Operation>,
        call: Call,
        resource_id: Option<String>,
        is_change: bool,
    ) -> Arc<Entry> {
        let at = (self.catalog.now_micros(), self.catalog.random());
        Arc::new(Entry::new(operation, call, at, resource_id, is_change))
    }

    /// Writes what no write of the call could know, on disk when this returns. Nothing where nobody knows the caller.
    pub async fn audit_answer(&self, entry: Arc<Entry>, status_code: u16) -> Result<()> {
        if entry.organization_id().is_none() {
            return Ok(());
        }
        self.catalog.write(move |tx| rows::store(tx, &entry, Some(status_code))).await
    }

    /// Whether some organization has reads logged.
    pub fn audits_reads(&self) -> bool {
        self.audits_reads.load(Ordering::Relaxed)
    }

    /// Whether this organization has.
    pub async fn audits_reads_of(&self, organization_id: String) -> Result<bool> {
        if !self.audits_reads() {
            return Ok(false);
        }
        Ok(self.catalog.read(move |connection| rows::settings(connection, &organization_id)).await?.reads)
    }

    /// A page of the selected events, newest first, and how many are selected.
    pub async fn audit_events(
        &self,
        principal: &Principal,
        selection: Selection,
        page: (usize, usize),
    ) -> Result<(Vec<Event>, i64)> {
        let organization = principal.organization_id.clone();
        let read = self.catalog.read(move |connection| {
            let events = rows::list(connection, &organization, &selection, page)?;
            Ok((events, rows::count(connection, &organization, &selection)?))
        });
        read.await
    }

    pub async fn audit_event(&self, principal: &Principal, audit_id: &str) -> Result<Event> {
        let (organization, audit_id) = (principal.organization_id.clone(), audit_id.to_owned());
        self.catalog.read(move |connection| rows::get(connection, &organization, &audit_id)).await
    }

    /// The next selected events behind `before`, newest first; empty at the end.
    pub async fn audit_part(
        &self,
        organization_id: &str,
        selection: &Selection,
        before: Option<String>,
        most: usize,
    ) -> Result<Vec<Event>> {
        let (organization, mut selection) = (organization_id.to_owned(), selection.clone());
        selection.before = before;
        let page = (most.min(EXPORT_PAGE), 0);
        self.catalog.read(move |connection| rows::list(connection, &organization, &selection, page)).await
    }

    pub async fn audit_settings(&self, principal: &Principal) -> Result<Settings> {
        let organization = principal.organization_id.clone();
        self.catalog.read(move |connection| rows::settings(connection, &organization)).await
    }

    pub async fn change_audit_settings(&self, principal: &Principal, change: SettingsChange) -> Result<Settings> {
        if change.retention_days.is_some_and(|days| days > MAX_RETENTION_DAYS) {
            let message = format!("must be from 1 to {MAX_RETENTION_DAYS}, or 0 for ever");
            return Err(Error::invalid("retention_days", message));
        }
        let organization = principal.organization_id.clone();
        let write = self.catalog.write(move |tx| {
            let mut settings = rows::settings(tx, &organization)?;
            settings.reads = change.reads.unwrap_or(settings.reads);
            if let Some(days) = change.retention_days {
                settings.retention_days = (days > 0).then_some(days);
            }
            rows::put_settings(tx, &organization, settings)?;
            Ok((settings, rows::any_reads(tx)?))
        });
        let (settings, any_reads) = write.await?;
        self.audits_reads.store(any_reads, Ordering::Relaxed);
        Ok(settings)
    }

    /// Removes events that are older than their organization keeps them.
    pub(crate) async fn sweep_audit(&self) -> Result<()> {
        for (organization, settings) in self.catalog.read(rows::all_settings).await? {
            let Some(days) = settings.retention_days else { continue };
            let before = self.catalog.now_micros() - i64::from(days) * DAY;
            loop {
                let of = organization.clone();
                if self.catalog.write(move |tx| rows::expire(tx, &of, before, SWEEP)).await? < SWEEP {
                    break;
                }
            }
        }
        Ok(())
    }
}
