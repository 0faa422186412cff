//! Every bound in one place. Each is named where it is enforced, in an error that says the number.

/// Largest JSON request body, in bytes.
pub const MAX_BODY_BYTES: usize = 64 << 20;
/// Largest line of a body of JSON lines, in bytes.
pub const MAX_LINE_BYTES: usize = 8 << 20;
/// Largest uploaded or fetched blob, in bytes.
pub const MAX_BLOB_BYTES: u64 = 5 << 30;
/// Largest blob fetched from a URL while an object is created, in bytes.
pub const MAX_FETCH_BYTES: u64 = 512 << 20;
/// Deepest nesting of a filter tree.
pub const MAX_FILTER_DEPTH: usize = 16;
/// Most conditions in one filter.
pub const MAX_FILTER_CONDITIONS: usize = 256;
/// Most points of a polygon in a filter, its holes included.
pub const MAX_POLYGON_POINTS: usize = 1000;
/// Deepest nesting of JSON in a request body.
pub const MAX_JSON_DEPTH: usize = 64;
/// Most rows a page can hold.
pub const MAX_PAGE: usize = 1000;
/// Furthest that the offset of a query can reach.
pub const MAX_OFFSET: usize = 10_000;
/// Longest dense vector.
pub const MAX_DIMENSIONS: usize = 65_536;
/// Most documents one derivation may produce.
pub const MAX_DERIVED_DOCUMENTS: usize = 20_000;
/// Most rows of multi vectors that one derivation may make: of 128 numbers each, 128 MiB.
pub const MAX_DERIVED_ROWS: usize = 262_144;
/// Attempts of a derivation before it is failed for good.
pub const MAX_ATTEMPTS: u32 = 3;
/// Seconds a worker holds a derivation before others may take it.
pub const LEASE_SECONDS: i64 = 120;
/// Seconds a presigned URL works unless asked otherwise.
pub const PRESIGN_SECONDS: i64 = 3600;
/// Most seconds a presigned URL works.
pub const MAX_PRESIGN_SECONDS: i64 = 86_400;
/// Most searches in one `feature_search`.
pub const MAX_SEARCHES: usize = 10;
/// Deepest ranking any search may ask for.
pub const MAX_TOP_K: usize = 10_000;
