//! Why a hit is where it is, and where in its source it comes from.

use super::Hit;
use crate::extract::Definition;
use serde_json::{Value, json};
use strata_model::Fields;
use strata_model::document::Document;

/// `searches` (each search that found it, with rank, score and share of the fused score), `movements` (its place and score
/// after each stage) and `position` (where in its source object it stands, in the fields of its extractor: characters,
/// pages, boxes, seconds; null where it is not a part). Lineage itself stands on the document.
pub fn of(hit: &Hit) -> Value {
    json!({
        "searches": hit.searches,
        "movements": hit.movements,
        "position": position(&hit.document),
    })
}

/// The fields that place a document in its source; `None` where it has none.
fn position(document: &Document) -> Option<Fields> {
    let extractor = document.lineage.chain.last().map(|step| step.feature_extractor_id.as_str());
    let names = extractor.and_then(Definition::find).map_or(&[][..], |extractor| extractor.position_fields);
    let found = names.iter().filter_map(|name| Some(((*name).to_owned(), document.fields.get(*name)?.clone())));
    let found: Fields = found.collect();
    (!found.is_empty()).then_some(found)
}
