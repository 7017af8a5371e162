//! The engine on real servers.

mod capture;
mod failover;
mod harness;
mod moments;
mod refusals;
mod snapshot;
