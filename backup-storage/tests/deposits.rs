//! Hosts that only write: what they deposit, who makes backups of it, and what somebody gets who takes such a host over.
#![allow(clippy::unwrap_used)]

mod content;
#[path = "deposits/world.rs"]
mod world;

#[path = "deposits/collections.rs"]
mod collections;
#[path = "deposits/conformance.rs"]
mod conformance;
#[path = "deposits/crashes.rs"]
mod crashes;
#[path = "deposits/forgery.rs"]
mod forgery;
#[path = "deposits/increments.rs"]
mod increments;
#[path = "deposits/keys.rs"]
mod keys;
#[path = "deposits/lost.rs"]
mod lost;
#[path = "deposits/theft.rs"]
mod theft;
