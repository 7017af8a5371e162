//! The engine against real servers: what is restored is what was there, and what cannot be done is refused.
//!
//! Every version that is under test makes the round trip both ways; what does not depend on the version is shown on one.
#![allow(clippy::unwrap_used)]

mod archive;
mod capture;
mod changed;
mod clock;
mod conformance;
mod delta;
mod failover;
mod harness;
mod incremental;
#[allow(dead_code)]
#[path = "../wal/load.rs"]
mod load;
mod moments;
mod network;
mod pages;
mod refusals;
mod resetwal;
mod roundtrip;
mod service;
mod shapes;
mod standby;
mod storage;
mod unprivileged;
mod unread;
