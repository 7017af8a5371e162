//! The engine on real servers.

#![allow(clippy::unwrap_used)]

mod capture;
mod conformance;
mod failover;
mod harness;
mod moments;
mod refusals;
mod scan;
mod sentinel;
mod service;
mod snapshot;
mod soak;
