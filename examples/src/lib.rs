//! Runnable compositions of the backup crates
