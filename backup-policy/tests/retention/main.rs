//! What retention keeps: rule by rule, against an independent planner, and by its properties.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

mod oracle;
mod properties;
mod restore;
mod rules;
mod stage;
