//! The one integration target. Every test starts the real binary on a temporary directory and talks HTTP to it.

mod contract;
mod crash;
mod floors;
mod flows;
mod formats;
mod model;
mod support;
mod tenancy;
