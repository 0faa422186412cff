//! How much an organization may have. Counts are read inside the transaction that adds to them, so requests beside each
//! other cannot add more than is allowed.

use strata_model::{Error, Result, Scope};
use strata_store::catalog::{rusqlite::Connection, usage};

/// What each organization may have; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quotas {
    pub documents: Option<u64>,
    /// Bytes of the blobs of its objects, each reference counted.
    pub bytes: Option<u64>,
    /// Requests that its keys may send within a day.
    pub requests_per_day: Option<u32>,
}

/// What an organization had before something was written.
pub(crate) struct Meter {
    quotas: Quotas,
    organization_id: String,
    documents: u64,
    bytes: u64,
}

impl Quotas {
    /// Reads what there is; asks nothing where nothing is limited.
    pub(crate) fn meter(self, connection: &Connection, scope: &Scope) -> Result<Meter> {
        let organization_id = scope.organization_id.clone();
        let documents = match self.documents {
            Some(_) => usage::documents(connection, &organization_id)?,
            None => 0,
        };
        let bytes = match self.bytes {
            Some(_) => usage::bytes(connection, &organization_id)?,
            None => 0,
        };
        Ok(Meter { quotas: self, organization_id, documents, bytes })
    }
}

impl Meter {
    /// [`Error::Quota`] where there is more than before, and more than may be.
    pub fn check(&self, connection: &Connection) -> Result<()> {
        if let Some(limit) = self.quotas.documents {
            let current = usage::documents(connection, &self.organization_id)?;
            check("documents", self.documents, current, limit)?;
        }
        if let Some(limit) = self.quotas.bytes {
            let current = usage::bytes(connection, &self.organization_id)?;
            check("bytes", self.bytes, current, limit)?;
        }
        Ok(())
    }

    /// [`Error::Quota`] where these bytes would be too many.
    pub fn check_bytes(&self, coming: u64) -> Result<()> {
        match self.quotas.bytes {
            Some(limit) => check("bytes", self.bytes, self.bytes.saturating_add(coming), limit),
            None => Ok(()),
        }
    }
}

fn check(resource: &'static str, before: u64, current: u64, limit: u64) -> Result<()> {
    if current > before && current > limit {
        return Err(Error::Quota { resource, current, limit });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_grows_beyond_the_limit_is_refused() {
        assert!(check("documents", 1, 2, 2).is_ok());
        assert!(matches!(check("documents", 2, 3, 2), Err(Error::Quota { current: 3, limit: 2, .. })));
        assert!(check("documents", 9, 9, 2).is_ok() && check("documents", 9, 8, 2).is_ok());
    }
}
