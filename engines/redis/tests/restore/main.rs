//! The ways back, on real servers.

mod files;
mod harness;
mod live;
mod replay;
