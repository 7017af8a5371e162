//! The encrypted, incremental, write-once backup repository over any object store.

pub mod error;
pub mod store;
