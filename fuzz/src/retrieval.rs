//! The engine's retrieval with the backend in memory and the properties of its tests, which its library does not have.

pub use strata_engine::retrieval::*;

#[path = "../../crates/engine/src/retrieval/fake.rs"]
#[allow(dead_code)]
pub mod fake;

pub mod plan {
    pub use strata_engine::retrieval::Plan;
}

#[path = "../../crates/engine/src/retrieval/tests"]
pub mod tests {
    pub mod generate;
    pub mod properties;
}
