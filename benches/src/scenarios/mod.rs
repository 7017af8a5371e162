//! What is compared. Each file makes its dataset, lets contenders in turn do their work, and writes a report.

pub(crate) mod catalog;
pub(crate) mod changes;
pub(crate) mod clickhouse;
pub(crate) mod files;
pub(crate) mod growth;
pub(crate) mod postgres;
pub(crate) mod redis;
pub(crate) mod slow;
mod trees;
pub(crate) mod wal;
