//! Clusters as one backup, on real servers.

#![allow(clippy::unwrap_used)]

mod conformance;
mod harness;
mod refusals;
mod restore;
mod sources;
