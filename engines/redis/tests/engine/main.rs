//! The engine on real servers.

mod capture;
mod conformance;
mod failover;
mod harness;
mod moments;
mod refusals;
mod snapshot;
