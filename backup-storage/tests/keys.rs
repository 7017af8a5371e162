//! The keys of a repository that is in use: who can open what, and what is written across epochs.
#![allow(clippy::unwrap_used)]

mod content;
#[path = "keys/epochs.rs"]
mod epochs;
#[path = "keys/recipients.rs"]
mod recipients;
#[path = "keys/reseal.rs"]
mod reseal;
#[path = "keys/walk.rs"]
mod walk;
#[path = "keys/world.rs"]
mod world;
