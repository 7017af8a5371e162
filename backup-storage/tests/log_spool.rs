//! A log writer with a spool: what is acknowledged though the vault is away, and what becomes of it whatever happens next.
#![allow(clippy::unwrap_used)]
#![allow(clippy::single_range_in_vec_init, reason = "sets of offsets are compared, often of one interval")]

#[path = "log_spool/conformance.rs"]
mod conformance;
#[path = "log_spool/host.rs"]
mod host;
#[path = "log_spool/opening.rs"]
mod opening;
#[path = "log_spool/seeds.rs"]
mod seeds;
#[path = "log_spool/sending.rs"]
mod sending;
