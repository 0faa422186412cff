//! The settings of embedded shards.

use std::time::Duration;

/// How embedded shards are kept.
#[derive(Debug, Clone, PartialEq)]
pub struct EdgeConfig {
    /// Changes after which graphs are built for them. Unindexed points are scanned, about 0.1 ms per 1,000.
    pub optimize_tail: u64,
    /// The same while the processors are wanted by others.
    pub contended_tail: u64,
    /// Changes after which a shard is checkpointed; bounds the replay after a kill.
    pub checkpoint_every: u64,
    /// A shard with fewer changes is checkpointed when it was left alone for this long.
    pub checkpoint_idle: Duration,
    /// Shards open at once; each costs some 64 memory maps and more per payload index.
    pub max_open: usize,
    /// Most changes per engine update.
    pub batch: usize,
    /// How long changes gather for one update while nobody waits for them.
    pub gather: Duration,
    /// How long changes that nobody waits for may give way to others who want the processors.
    pub give_way: Duration,
    /// Changes that opening a shard replays before the first search is answered; more are replayed in the background.
    pub replay_before_search: usize,
    pub appliers: usize,
    /// How long the maintainer may sleep.
    pub tick: Duration,
    /// After a search met a fault, the shard is not replaced again for this long.
    pub heal_interval: Duration,
    /// Beam width of graph searches; `limit` where that is larger.
    pub search_ef: usize,
    /// Keep dense vectors in memory maps instead of memory.
    pub on_disk: bool,
    /// Segments with vectors above this size get a graph.
    pub indexing_kilobytes: usize,
    /// Searches over fewer bytes of vectors than this scan instead of walking the graph.
    pub full_scan_kilobytes: usize,
    pub wal_segment_bytes: usize,
    /// Bytes of the disk that stay free: with less, nothing is applied, built or checkpointed, and searches go on over what
    /// there is.
    pub reserve_bytes: u64,
}

impl Default for EdgeConfig {
    fn default() -> Self {
        Self {
            optimize_tail: 10_000,
            contended_tail: 40_000,
            checkpoint_every: 20_000,
            checkpoint_idle: Duration::from_secs(5),
            max_open: 64,
            batch: 256,
            gather: Duration::from_millis(20),
            give_way: Duration::from_secs(5),
            replay_before_search: 5_000,
            appliers: 2,
            tick: Duration::from_millis(500),
            heal_interval: Duration::from_secs(60),
            search_ef: 80,
            on_disk: true,
            indexing_kilobytes: 10_000,
            full_scan_kilobytes: 10_000,
            wal_segment_bytes: 1 << 20,
            reserve_bytes: 0,
        }
    }
}
