//! The engine against real servers.

#![allow(clippy::unwrap_used)]

mod between;
mod cluster;
mod conformance;
mod damage;
mod export;
mod extras;
mod full;
mod harness;
mod hostile;
mod increments;
mod motion;
mod native;
mod objects;
mod replicas;
mod roundtrip;
mod selection;
mod storage;
