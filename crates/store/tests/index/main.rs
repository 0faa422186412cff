//! The index against a catalog in memory: what it finds, what it survives, and that it is exact where it says so.

#![allow(clippy::unwrap_used)]

mod damage;
mod filtering;
mod finding;
mod support;
mod upkeep;
