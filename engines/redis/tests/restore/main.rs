//! The ways back, on real servers.
#![allow(clippy::unwrap_used)]

mod files;
mod harness;
mod ledger;
mod live;
mod moments;
mod replay;
