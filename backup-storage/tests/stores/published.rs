//! A vault that is published over plain HTTP, for restores.

use backup_core::RecoveryTarget;
use backup_core::conformance::engine::EngineHarness as _;
use backup_core::engine::Work;
use backup_core::env::Env;
use backup_core::repository::{Repository as _, VerifyLevel};
use backup_core::run::{BackupOptions, backup};
use backup_storage::error::ErrorKind;
use backup_storage::store::{ObjectName, Store, StoreSettings};
use backup_testkit::{WebDav, require_or_skip, scratch_dir, unprivileged};
use futures::StreamExt as _;

use crate::directory_engine::Directories;
use crate::whole_way::{create, open, restored, take};

#[tokio::test(flavor = "multi_thread")]
async fn a_published_vault_is_restored_from_and_never_written() {
    let dir = scratch_dir().unwrap();
    let live = Directories::new(None);
    let vault = Store::local(dir.path()).unwrap();
    let repository = create(&vault).await;
    let first = take(&repository, &live).await;
    let before = live.digest().await;
    live.mutate(1).await;
    take(&repository, &live).await;
    unprivileged().own_tree(dir.path()).unwrap();

    let server = require_or_skip!(WebDav::publish(dir.path()).await);
    let published = Store::open(&server.url(), &StoreSettings::default()).unwrap();
    assert!(published.is_read_only());
    let reader = open(&published).await;
    assert_eq!(restored(&reader, &live, RecoveryTarget::backup(first.id)).await.unwrap(), before);
    assert_eq!(restored(&reader, &live, RecoveryTarget::latest()).await.unwrap(), live.digest().await);
    for level in [VerifyLevel::Catalog, VerifyLevel::Objects, VerifyLevel::Full] {
        let report = reader.verify(level, &Work::new(Env::system())).await.unwrap();
        assert!(report.is_sound(), "{level:?}: {:?}", report.damages);
    }
    // Listings over both say the same, in the same order.
    let names = |store: Store| async move { store.list("").map(|meta| meta.unwrap().name).collect::<Vec<_>>().await };
    assert_eq!(names(published.clone()).await, names(vault.clone()).await);

    let (engine, work) = (live.engine().await, Work::new(Env::system()));
    let refused = backup(&reader, &*engine, BackupOptions::default(), &work).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Environment, "{refused}");
    assert!(format!("{refused:?}").contains("for reading only"), "{refused:?}");
    let reading = ["GET ", "HEAD ", "PROPFIND "];
    let asked = server.requests();
    assert!(asked.iter().any(|line| line.starts_with("PROPFIND ")), "{asked:?}");
    let other: Vec<_> = asked.iter().filter(|line| !reading.iter().any(|method| line.starts_with(method))).collect();
    assert!(other.is_empty(), "{other:?}");
}

#[tokio::test]
async fn a_server_that_lists_nothing_is_told_at_once() {
    let dir = scratch_dir().unwrap();
    std::fs::write(dir.path().join("readable"), "x").unwrap();
    unprivileged().own_tree(dir.path()).unwrap();
    let server = require_or_skip!(WebDav::publish_without_listings(dir.path()).await);
    let store = Store::open(&server.url(), &StoreSettings::default()).unwrap();
    assert_eq!(store.get(&ObjectName::new("readable").unwrap()).await.unwrap(), "x");
    let failures = [store.list("").next().await.unwrap().unwrap_err(), store.list_dirs("").await.unwrap_err()];
    for error in failures {
        assert_eq!(error.kind(), ErrorKind::Environment, "{error}");
        assert!(error.to_string().ends_with("the web server does not list folders: it must answer PROPFIND (WebDAV)"));
    }
    assert_eq!(store.metrics().list.retries, 0, "waiting does not help");
}
