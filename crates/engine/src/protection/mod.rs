//! What keeps one caller from using up what all share: how often keys and the public may ask, how much an organization may store, and a
//! reserve of the disk.

mod quotas;
mod rates;
mod room;

pub use quotas::Quotas;
pub use rates::{Admission, Standing};
pub(crate) use rates::{Counts, network};
pub(crate) use room::start;

use strata_model::rates::Rates;

/// What the operator allows. By default everything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Requests a minute of each key, where neither the key nor its organization says otherwise, of each published
    /// retriever, where its organization does not, and of each address that asks these or reads files by signed URLs.
    pub rates: Rates,
    /// What each organization may have.
    pub quotas: Quotas,
    /// Bytes of the disk that stay free; 0 for none.
    pub reserve_bytes: u64,
}
