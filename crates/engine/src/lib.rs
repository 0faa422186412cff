//! Floor 2: what Strata does. Principals and namespaces, ingestion, derivations and extractors, documents and their
//! lineage, retrieval.
//!
//! This crate knows no HTTP: it takes values that were checked, answers values, and says in [`strata_model::Error`]
//! whose fault it is when it cannot.

pub mod annotations;
pub mod audit;
pub mod backups;
pub mod batches;
pub mod buckets;
pub mod clones;
pub mod clustering;
pub mod collections;
pub mod connections;
pub mod derivations;
pub mod doctor;
pub mod documents;
pub mod events;
pub mod experiments;
pub mod extract;
pub mod extractors;
mod feed;
pub mod fetch;
mod hiding;
pub mod inference;
mod inline;
pub mod interactions;
pub mod listing;
pub mod migrations;
mod models;
pub mod namespaces;
pub mod objects;
pub mod org_models;
mod outside;
mod payload;
pub mod presign;
pub mod principals;
mod private_file;
pub mod protection;
pub mod published;
pub mod retrieval;
pub mod retrievers;
pub mod secrets;
pub mod snapshots;
pub mod split;
pub mod standalone;
pub mod subjects;
pub mod times;
pub mod transfers;
mod upkeep;
pub mod uploads;
mod web;
pub mod webhooks;

pub use strata_store::faults::{Point as FaultPoint, arm as arm_fault};

pub use doctor::Check;
pub use models::MEDIA_CHILD;

use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};
use strata_infer::Registry;
use strata_model::{Error, Result};
use strata_store::{
    Blobs, Catalog, disk,
    index::{EdgeConfig, EdgeIndex, Index},
    room::Room,
    seams::System,
};
use tokio::sync::Semaphore;

/// How a server is set up. By default one derivation runs at a time, and no events are sent.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Holds `catalog.db`, `blobs/`, `index/`, `admin.key` and `secrets.key`.
    pub data_dir: PathBuf,
    pub models_dir: PathBuf,
    /// The first key of a fresh directory, instead of a random one.
    pub bootstrap_key: Option<String>,
    /// The key that seals secrets, 32 bytes in hex or base64, instead of the one in `secrets.key`.
    pub secrets_key: Option<String>,
    /// Where clients reach this server, for presigned URLs. No slash at the end.
    pub public_url: String,
    /// Whether blobs may be fetched from private and loopback addresses, and stages may reach them.
    pub allow_private_urls: bool,
    /// Where SQLite files lie that connections may read; without it, none may.
    pub sql_files: Option<PathBuf>,
    /// Whether a proxy stands in front that says in `X-Forwarded-For` whom it asks for.
    pub trust_proxy: bool,
    /// Derivations that run at once.
    pub workers: usize,
    /// Providers of models besides those that are known.
    pub providers: Vec<inference::ProviderConfig>,
    /// Where custom extractors may listen: `http://host:port` or `unix:/path/of/a/socket`.
    pub extractor_endpoints: Vec<String>,
    /// How often an event is sent to a webhook that does not take it; `None`: none is sent, all wait.
    pub webhook_tries: Option<u32>,
    /// How old the key that signs URLs gets before another one does; `None` where none takes its place by itself.
    pub rotate_signing_every: Option<Duration>,
    /// When backups are made, if they are.
    pub backups: Option<backups::Schedule>,
    /// How often keys may ask, how much an organization may have, and what of the disk stays free.
    pub allowed: protection::Allowed,
}

/// The running engine. One per data directory.
pub struct Engine {
    pub(crate) catalog: Catalog,
    pub(crate) blobs: Blobs,
    pub(crate) index: Arc<dyn Index>,
    pub(crate) registry: Registry,
    pub(crate) config: Config,
    pub(crate) signer: presign::Signer,
    pub(crate) vault: secrets::Vault,
    pub(crate) pools: connections::Pools,
    pub(crate) fetcher: fetch::Fetcher,
    pub(crate) providers: Arc<inference::Providers>,
    pub(crate) queue: derivations::Queue,
    pub(crate) payload: payload::Builder,
    /// Memory for inputs of derivations, in KiB.
    pub(crate) input_room: Arc<Semaphore>,
    pub(crate) memory: retrievers::Memory,
    pub(crate) experiments: experiments::Runner,
    pub(crate) transfers: transfers::Runner,
    pub(crate) limiter: published::Limiter,
    pub(crate) counts: protection::Counts,
    pub(crate) room: Arc<Room>,
    pub(crate) subjects: subjects::Worker,
    /// Whether some organization has reads logged.
    pub(crate) audits_reads: AtomicBool,
    /// By the ids of custom extractors: what asks their processes.
    callers: parking_lot::Mutex<std::collections::HashMap<String, Arc<extract::custom::Caller>>>,
    keys: principals::KeyCache,
    models: models::Models,
    brought: org_models::Loaded,
    media: strata_media::Decoder,
    heavy: Arc<Semaphore>,
    first_key: Option<String>,
}

impl Engine {
    /// Opens the data directory, makes what a fresh one needs, and starts the workers.
    pub async fn open(config: Config) -> Result<Arc<Self>> {
        disk::make_dirs(&config.data_dir)
            .map_err(|e| Error::internal(format!("cannot make `{}`: {e}", config.data_dir.display())))?;
        let place = config.data_dir.join("catalog.db");
        private_file::make(&place)?;
        let catalog = Catalog::open(&place, Arc::new(System::default()))?;
        let room = Arc::new(Room::new(config.data_dir.clone(), config.allowed.reserve_bytes));
        let blobs = Blobs::local(config.data_dir.join("blobs"))?.within(room.clone());
        let first_key = principals::bootstrap(&catalog, &config).await?;
        let signer = presign::Signer::open(&catalog).await?;
        let vault = secrets::Vault::new(&config)?;
        let audits_reads = catalog.read(strata_store::catalog::audit::any_reads).await?;
        let feed = Arc::new(feed::CatalogFeed::new(catalog.clone()));
        let index_config = EdgeConfig { reserve_bytes: config.allowed.reserve_bytes, ..EdgeConfig::default() };
        let index = EdgeIndex::open(config.data_dir.join("index"), feed, index_config)?;
        let engine = Arc::new(Self {
            fetcher: fetch::Fetcher::new(config.allow_private_urls)?,
            providers: Arc::new(inference::Providers::new(&config.providers, config.allow_private_urls)?),
            registry: Registry::open(config.models_dir.clone()),
            queue: derivations::Queue::default(),
            payload: payload::Builder::default(),
            input_room: Arc::new(Semaphore::new(objects::INPUT_KIBIBYTES as usize)),
            memory: retrievers::Memory::default(),
            experiments: experiments::Runner::default(),
            transfers: transfers::Runner::default(),
            limiter: published::Limiter::default(),
            counts: protection::Counts::default(),
            room,
            subjects: subjects::Worker::default(),
            audits_reads: AtomicBool::new(audits_reads),
            callers: parking_lot::Mutex::default(),
            keys: principals::KeyCache::default(),
            models: models::Models::new(Registry::open(config.models_dir.clone())),
            brought: org_models::Loaded::default(),
            media: models::decoder(&config.models_dir)?,
            heavy: Arc::new(Semaphore::new(models::heavy_places())),
            signer,
            vault,
            pools: connections::Pools::default(),
            catalog,
            blobs,
            index,
            config,
            first_key,
        });
        derivations::start(&engine);
        payload::start(&engine);
        experiments::start(&engine);
        subjects::start(&engine);
        transfers::start(&engine);
        upkeep::start(&engine);
        protection::start(&engine);
        backups::start(&engine);
        webhooks::start(&engine);
        Ok(engine)
    }

    /// The key that [`Engine::open`] made for a fresh directory.
    pub fn first_key(&self) -> Option<&str> {
        self.first_key.as_deref()
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Finishes running derivations and checkpoints the index.
    pub async fn close(&self) {
        self.queue.stop().await;
        let index = self.index.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || index.close()).await {
            tracing::error!(%error, "the index did not close cleanly; it will be replayed at the next start");
        }
    }

    /// Tells the index of a change and, if asked, waits until searches see it.
    pub(crate) async fn indexed(&self, touched: Vec<(String, i64)>, wait: bool) {
        for (collection, _) in &touched {
            self.index.notify(collection);
        }
        if wait {
            let index = self.index.clone();
            let waited = tokio::task::spawn_blocking(move || {
                touched.iter().all(|(collection, seq)| index.wait_applied(collection, *seq, INDEX_WAIT))
            });
            if !matches!(waited.await, Ok(true)) {
                tracing::warn!(
                    "a write was answered before the index had it; it is stored and will be searchable soon"
                );
            }
        }
    }
}

/// The longest a write waits for the index. The write itself is on disk already.
const INDEX_WAIT: Duration = Duration::from_secs(10);
