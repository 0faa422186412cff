//! What users can do with a result.

use strata_model::{Error, Result};

/// Every type of interaction.
pub const KINDS: [&str; 22] = [
    "impression",
    "view",
    "click",
    "dwell",
    "positive_feedback",
    "negative_feedback",
    "purchase",
    "add_to_cart",
    "wishlist",
    "long_view",
    "share",
    "bookmark",
    "query_refinement",
    "zero_results",
    "filter_toggle",
    "skip",
    "return_to_results",
    "play",
    "download",
    "save",
    "add_to_project",
    "rating",
];

pub fn is_kind(text: &str) -> bool {
    KINDS.contains(&text)
}

/// Refuses a text that is no type of interaction.
pub fn check_kind(text: &str, at: &str) -> Result<()> {
    if is_kind(text) {
        return Ok(());
    }
    Err(Error::invalid(at, format!("`{text}` is not a type of interaction; one of {}", KINDS.join(", "))))
}

/// How relevant a document is to a query after whose execution a user did this with it, from 0 for what says nothing or
/// the opposite to 5.
pub fn weight(kind: &str) -> f64 {
    match kind {
        "purchase" => 5.0,
        "add_to_cart" | "positive_feedback" | "add_to_project" => 2.0,
        "bookmark" | "wishlist" | "share" | "save" | "download" => 1.5,
        "click" | "long_view" | "play" => 1.0,
        "view" | "dwell" => 0.5,
        _ => 0.0,
    }
}
