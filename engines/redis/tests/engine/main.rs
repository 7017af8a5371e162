//! The engine on real servers.

#![allow(clippy::unwrap_used)]

mod capture;
mod conformance;
mod failover;
mod harness;
mod moments;
mod refusals;
mod service;
mod snapshot;
mod soak;
