//! What queries over definitions (namespaces, buckets, collections, retrievers) answered, kept until one of them
//! changes. The writer's connection tells of every row that changes, so nothing has to remember to forget.

use lru::LruCache;
use parking_lot::Mutex;
use rusqlite::{Connection, hooks::Action};
use std::{
    any::Any,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use tokio::sync::Notify;

/// The tables that remembered queries may read, and no others.
const TABLES: [&str; 5] = ["namespaces", "buckets", "collections", "collection_sources", "retrievers"];
/// Most answers that are kept.
const CAPACITY: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// Every change of a document writes a row here.
const CHANGES: &str = "changes";

/// What is added here is work for whoever delivers events.
const OUTBOX: [&str; 2] = ["webhook_deliveries", "webhook_routes"];

type Entry = (u64, Arc<dyn Any + Send + Sync>);

/// How much has been written since the process began. While it is the same, no definition and no document has changed
/// whose change was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    definitions: u64,
    documents: u64,
}

pub(super) struct Memo {
    /// Counts the commits that changed definitions.
    version: AtomicU64,
    /// The running transaction changed some.
    touched: AtomicBool,
    /// The same of documents.
    documents: AtomicU64,
    touched_documents: AtomicBool,
    /// The running transaction added to the outbox.
    touched_outbox: AtomicBool,
    outbox: Notify,
    entries: Mutex<LruCache<String, Entry>>,
}

impl Memo {
    pub(super) fn new() -> Arc<Self> {
        let entries = Mutex::new(LruCache::new(CAPACITY));
        Arc::new(Self {
            version: AtomicU64::new(0),
            touched: AtomicBool::new(false),
            documents: AtomicU64::new(0),
            touched_documents: AtomicBool::new(false),
            touched_outbox: AtomicBool::new(false),
            outbox: Notify::new(),
            entries,
        })
    }

    /// Watches the connection that writes.
    pub(super) fn watch(self: &Arc<Self>, connection: &Connection) {
        let memo = self.clone();
        let note = move |action: Action, _: &str, table: &str, _| {
            if TABLES.contains(&table) {
                memo.touched.store(true, Ordering::Relaxed);
            } else if table == CHANGES {
                memo.touched_documents.store(true, Ordering::Relaxed);
            } else if action == Action::SQLITE_INSERT && OUTBOX.contains(&table) {
                memo.touched_outbox.store(true, Ordering::Relaxed);
            }
        };
        connection.update_hook(Some(note));
    }

    /// Forgets what a transaction changed. Called when it has ended, and before anybody hears of it.
    pub(super) fn settle(&self) {
        if self.touched.swap(false, Ordering::Relaxed) {
            self.version.fetch_add(1, Ordering::SeqCst);
        }
        if self.touched_documents.swap(false, Ordering::Relaxed) {
            self.documents.fetch_add(1, Ordering::SeqCst);
        }
        if self.touched_outbox.swap(false, Ordering::Relaxed) {
            self.outbox.notify_one();
        }
    }

    /// Waits until a transaction has added to the outbox, or does not, where one has since this was last waited for.
    pub(super) async fn outbox_changed(&self) {
        self.outbox.notified().await;
    }

    pub(super) fn state(&self) -> State {
        State { definitions: self.version(), documents: self.documents.load(Ordering::SeqCst) }
    }

    /// What an answer must be marked with; taken before the snapshot that it is read from.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::SeqCst)
    }

    pub(super) fn find<T: Send + Sync + 'static>(&self, key: &str) -> Option<Arc<T>> {
        let version = self.version();
        let mut entries = self.entries.lock();
        let (marked, found) = entries.get(key)?;
        if *marked != version {
            return None;
        }
        found.clone().downcast().ok()
    }

    pub(super) fn keep<T: Send + Sync + 'static>(&self, key: String, version: u64, answer: Arc<T>) {
        self.entries.lock().put(key, (version, answer));
    }
}
