//! The WAL server against real servers that follow it, our own client, and clients that mean no good.
#![allow(clippy::unwrap_used)]

mod client;
mod directory;
mod failing;
mod follow;
mod harness;
mod hostile;
mod receivewal;
mod restore;
mod timelines;
