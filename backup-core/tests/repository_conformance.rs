//! The in-memory repository passes the suite for repositories.

mod shelf;

use shelf::Shelf;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_repository_in_memory_conforms() {
    backup_core::conformance::repository::run(&Shelf::new()).await;
}
