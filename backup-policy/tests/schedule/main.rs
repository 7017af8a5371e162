//! When backups are made.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

mod clocks;
mod due;
mod slots;
