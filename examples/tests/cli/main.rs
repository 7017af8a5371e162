//! `backupctl` from outside: what scripts and people rely on.
//!
//! Most tests call the program in process ([`backup_examples::cli::main_with`]); those in `process` run the real binary.

#![allow(clippy::unwrap_used, reason = "the harness fails the test that calls it")]

mod clickhouse;
mod drill;
mod errors;
mod harness;
mod hosts;
mod keeping;
mod keys;
mod killed;
mod log;
mod managed;
mod process;
mod redis;
mod redis_cluster;
mod restoring;
mod roundtrip;
mod usage;
