//! The in-memory repository passes the suite for repositories.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod shelf;

use shelf::Shelf;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_repository_in_memory_conforms() {
    backup_core::conformance::repository::run(&Shelf::wrapped(|repository| repository)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_log_conforms() {
    backup_core::conformance::log::run(&Shelf::wrapped(|repository| repository)).await;
}
