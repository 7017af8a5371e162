//! The ways back, on real servers.
#![allow(clippy::unwrap_used)]

mod appendonly;
mod files;
mod harness;
mod ledger;
mod live;
mod look;
mod moments;
mod replay;
