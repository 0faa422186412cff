//! Settings of what protects the server: how much is done at once, how often keys may ask, how much organizations may
//! have, what of the disk stays free, and TLS.

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::{path::PathBuf, time::Duration};
use strata_engine::protection::{Allowed, Quotas};
use strata_http::{Bounds, Serving, Tls};
use strata_model::rates::Rates;

/// What of the disk stays free unless something else is said, in MiB.
const DISK_RESERVE_MIB: u64 = 256;
/// Files that are left for what is no connection: the catalog, contents, the index, child processes.
const OWN_FILES: u64 = 1024;

/// Flags of what protects the server; the rest is set in the configuration file.
#[derive(Debug, Default, Clone, clap::Args)]
pub struct ProtectionArguments {
    /// Serve HTTPS with this certificate: a PEM file, with those between it and the root after it
    #[arg(long, env = "STRATA_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The key of the certificate: a PEM file
    #[arg(long, env = "STRATA_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// MiB of the disk that stay free: with less, writes are refused with 507; 0 for none [default: 256]
    #[arg(long, env = "STRATA_DISK_RESERVE_MIB", value_name = "N")]
    pub disk_reserve_mib: Option<u64>,
}

/// What the configuration file says.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProtectionFile {
    pub tls_cert: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    pub disk_reserve_mib: Option<u64>,
    pub load: LoadFile,
    pub rate_limits: RatesFile,
    pub quotas: QuotasFile,
}

/// The table `[load]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoadFile {
    reads: Option<usize>,
    writes: Option<usize>,
    searches: Option<usize>,
    uploads: Option<usize>,
    waiting: Option<usize>,
    wait_ms: Option<u64>,
    connections: Option<usize>,
    client_timeout_ms: Option<u64>,
}

/// The table `[rate_limits]`: requests a minute of each key.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RatesFile {
    metadata: Option<u32>,
    data: Option<u32>,
    search: Option<u32>,
    upload: Option<u32>,
    compute: Option<u32>,
}

/// The table `[quotas]`: what each organization may have.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuotasFile {
    documents: Option<u64>,
    bytes: Option<u64>,
    requests_per_day: Option<u32>,
}

/// Settled settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protection {
    pub allowed: Allowed,
    pub bounds: Bounds,
    /// Certificates and key.
    pub tls: Option<(PathBuf, PathBuf)>,
}

impl Protection {
    pub fn settle(arguments: ProtectionArguments, file: ProtectionFile) -> Result<Self> {
        let tls = match (arguments.tls_cert.or(file.tls_cert), arguments.tls_key.or(file.tls_key)) {
            (Some(certificates), Some(key)) => Some((certificates, key)),
            (None, None) => None,
            _ => bail!("`tls_cert` and `tls_key` go together"),
        };
        let reserve_mib = arguments.disk_reserve_mib.or(file.disk_reserve_mib).unwrap_or(DISK_RESERVE_MIB);
        let rates = file.rate_limits;
        let each = [rates.metadata, rates.data, rates.search, rates.upload, rates.compute];
        if each.contains(&Some(0)) || file.quotas.requests_per_day == Some(0) {
            bail!("a limit of requests must be at least 1; leave it out for none");
        }
        Ok(Self {
            allowed: Allowed {
                rates: Rates {
                    metadata: rates.metadata,
                    data: rates.data,
                    search: rates.search,
                    upload: rates.upload,
                    compute: rates.compute,
                },
                quotas: Quotas {
                    documents: file.quotas.documents,
                    bytes: file.quotas.bytes,
                    requests_per_day: file.quotas.requests_per_day,
                },
                reserve_bytes: reserve_mib.saturating_mul(1 << 20),
            },
            bounds: bounds(&file.load)?,
            tls,
        })
    }

    /// How the API is to be served. Reads the certificate.
    pub fn serving(&self) -> Result<Serving> {
        let tls = match &self.tls {
            Some((certificates, key)) => Some(Tls::open(certificates, key).context("TLS cannot be served")?),
            None => None,
        };
        let connections = self.bounds.connections.min(connections_that_fit());
        Ok(Serving { bounds: Bounds { connections, ..self.bounds }, tls })
    }
}

fn bounds(load: &LoadFile) -> Result<Bounds> {
    let usual = Bounds::default();
    let bounds = Bounds {
        reads: load.reads.unwrap_or(usual.reads),
        writes: load.writes.unwrap_or(usual.writes),
        searches: load.searches.unwrap_or(usual.searches),
        uploads: load.uploads.unwrap_or(usual.uploads),
        waiting: load.waiting.unwrap_or(usual.waiting),
        wait: load.wait_ms.map_or(usual.wait, Duration::from_millis),
        connections: load.connections.unwrap_or(usual.connections),
        patience: load.client_timeout_ms.map_or(usual.patience, Duration::from_millis),
    };
    let places = [bounds.reads, bounds.writes, bounds.searches, bounds.uploads, bounds.connections];
    if places.contains(&0) || bounds.patience.is_zero() {
        bail!("bounds in `[load]` must be at least 1; `waiting` and `wait_ms` may be 0");
    }
    // Far above what any machine does at once.
    if places.iter().chain([&bounds.waiting]).any(|count| *count > 1_000_000) {
        bail!("bounds in `[load]` can be at most 1000000");
    }
    Ok(bounds)
}

/// Raises the limit of open files as far as that goes; answers how many connections fit into it.
fn connections_that_fit() -> usize {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let limit = getrlimit(Resource::Nofile);
        let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if limit.current != limit.maximum
            && let Err(error) = setrlimit(Resource::Nofile, wanted)
        {
            tracing::warn!(%error, "the limit of open files stays as it is");
        }
        let Some(files) = getrlimit(Resource::Nofile).current else { return usize::MAX };
        let left = files.saturating_sub(OWN_FILES).max(files / 2);
        usize::try_from(left).unwrap_or(usize::MAX)
    }
    #[cfg(not(unix))]
    {
        usize::MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(text: &str) -> Result<Protection> {
        Protection::settle(ProtectionArguments::default(), toml::from_str(text)?)
    }

    #[test]
    fn nothing_is_limited_by_key_unless_that_is_said() {
        let usual = settled("").expect("valid");
        assert_eq!((usual.allowed.rates, usual.allowed.quotas), (Rates::default(), Quotas::default()));
        assert_eq!((usual.allowed.reserve_bytes, usual.bounds), (256 << 20, Bounds::default()));
        let text = "[rate_limits]\nsearch = 60\n[quotas]\ndocuments = 5\n[load]\nsearches = 2\nwait_ms = 0";
        let said = settled(text).expect("valid");
        assert_eq!((said.allowed.rates.search, said.allowed.quotas.documents), (Some(60), Some(5)));
        assert_eq!((said.bounds.searches, said.bounds.wait), (2, Duration::ZERO));
    }

    #[test]
    fn what_would_let_nothing_through_is_refused() {
        for text in ["[load]\nreads = 0", "[rate_limits]\ndata = 0", "tls_cert = \"a.pem\"", "[quotas]\nfiles = 1"] {
            assert!(settled(text).is_err(), "{text}");
        }
    }
}
