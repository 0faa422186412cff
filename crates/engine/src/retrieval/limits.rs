//! Bounds of retrieval that are not shared with other floors.

/// Most stages in one retriever.
pub const MAX_STAGES: usize = 50;
/// Longest template text, in bytes.
pub const MAX_TEMPLATE_BYTES: usize = 64 << 10;
/// Longest text a template may render, in bytes.
pub const MAX_RENDERED_BYTES: usize = 1 << 20;
/// Products and joins in one template.
pub const MAX_TEMPLATE_OPERATORS: usize = 256;
/// Steps that a template with loops may take.
pub const MAX_PROGRAM_STEPS: u64 = 100_000;
/// Deepest nesting of a template's evaluation.
pub const MAX_TEMPLATE_DEPTH: usize = 32;
/// Deepest nesting of JSON that holds templates.
pub const MAX_PARAMETER_DEPTH: usize = 32;
/// Documents an `attribute_filter` that comes first reads from each collection.
pub const MAX_SCAN_PER_COLLECTION: usize = 1_000;
/// Documents of each collection that facets are counted over.
pub const MAX_FACET_SCAN: usize = 10_000;
/// Facet fields of one search.
pub const MAX_FACETS: usize = 20;
/// Documents fetched at once while a fused ranking is read.
pub const FETCH_CHUNK: usize = 256;
/// Largest `final_top_k`.
pub const MAX_FINAL_TOP_K: usize = 5_000;
/// How deep retrievers may stand within each other.
pub const MAX_NESTED_RETRIEVERS: usize = 3;
/// Executions of another retriever in one stage.
pub const MAX_NESTED_EXECUTIONS: usize = 1_000;
/// Milliseconds that a `feature_search` may take unless it says otherwise.
pub const SEARCH_TIMEOUT_MS: u64 = 5_000;
/// Longest `hard_timeout_ms`.
pub const MAX_SEARCH_TIMEOUT_MS: u64 = 60_000;
/// Most bytes that one stage takes from elsewhere for the documents at hand.
pub const MAX_STAGE_BYTES: usize = 256 << 20;
/// Most documents between two stages; what a stage makes beyond them is left out, and the answer says so.
pub const MAX_WORKING_SET: usize = 20_000;
