//! The stores that need no server, held to the rules of the conformance suite.

use std::sync::Arc;

use backup_storage::conformance::{Capabilities, run};
use backup_storage::fault::{FaultPlan, FaultStore, WriteOnceGuard};
use backup_storage::store::Store;
use object_store::memory::InMemory;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory_conforms() {
    run(&Store::memory(), Capabilities::default()).await;
}

/// With every object synced to the disk, as in production.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_directory_conforms() {
    let temp = tempfile::tempdir().unwrap();
    let store = Store::local(&temp.path().join("vault")).unwrap();
    run(&store, Capabilities::default()).await;
}

#[tokio::test]
async fn a_directory_conforms_on_one_thread() {
    let temp = tempfile::tempdir().unwrap();
    run(&Store::local(temp.path()).unwrap(), Capabilities::default().large(1 << 20)).await;
}

/// An unknown implementation is not trusted to list in order.
#[tokio::test]
async fn a_wrapped_store_conforms() {
    run(&Store::from_object_store(Arc::new(InMemory::new())), Capabilities::default().large(1 << 20)).await;
}

/// The test doubles change nothing by themselves; the suite itself passes the guard except where it recycles a name on purpose.
#[tokio::test(start_paused = true)]
async fn quiet_test_doubles_conform() {
    let guard = WriteOnceGuard::new(Arc::new(InMemory::new()));
    guard.excuse("/recreate/");
    let faults = FaultStore::new(Arc::new(guard.clone()), 1, FaultPlan::quiet().yields(5));
    run(&Store::from_object_store(Arc::new(faults.clone())), Capabilities::default().large(1 << 20)).await;
    assert_eq!(faults.log(), []);
    guard.assert_clean();
    assert!(guard.history().len() > 100);
}
