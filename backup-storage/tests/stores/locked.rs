//! A vault under object lock, on a gateway that keeps versions.

use std::collections::HashSet;
use std::path::Path;

use backup_storage::conformance::{Capabilities, run};
use backup_storage::store::{Checksum, ObjectName, Store, StoreSettings};
use backup_testkit::{Versity, require_or_skip};
use futures::{StreamExt as _, TryStreamExt as _};

use crate::directory_engine::Directories;
use crate::whole_way::{create, take, whole_way};

/// A locked bucket demands a checksum with each object.
fn locked(server: &Versity) -> (Store, StoreSettings) {
    server.create_locked_bucket("locked", 1).unwrap();
    let settings = crate::versity(server).checksum(Some(Checksum::Crc64nvme));
    (Store::open("s3://locked/region-1", &settings).unwrap(), settings)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_locked_bucket_conforms_and_goes_the_whole_way() {
    let server = require_or_skip!(Versity::start().await);
    let (store, settings) = locked(&server);
    run(&store, Capabilities::default().recreate(false).large(1 << 20).races(2, 64)).await;
    whole_way(&Store::open("s3://locked/region-2", &settings).unwrap()).await;
}

/// Whoever has the right to delete only hides: what was stored is there until its lock ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_under_object_lock_destroys_nothing() {
    let server = require_or_skip!(Versity::start().await);
    let (store, settings) = locked(&server);
    let repository = create(&store).await;
    take(&repository, &Directories::new(None)).await;
    let names: Vec<ObjectName> = store.list("").map_ok(|meta| meta.name).try_collect().await.unwrap();
    let mut stored = HashSet::new();
    for name in &names {
        stored.insert(blake3::hash(&store.get(name).await.unwrap()));
    }
    assert!(stored.len() > 4, "a description, a key, entries, packs");

    let outcomes: Vec<_> = store.delete_many(futures::stream::iter(names.clone())).collect().await;
    assert_eq!(outcomes.len(), names.len());
    for (name, outcome) in outcomes {
        outcome.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    assert_eq!(store.list("").count().await, 0, "nothing is to be seen");
    let mut kept = HashSet::new();
    for dir in [server.data_dir(), server.versions_dir()] {
        digests(&dir, &mut kept);
    }
    assert!(stored.is_subset(&kept), "every version that was put is on the gateway's disk");
    // This gateway counts a marker as an object, so a hidden name is taken; S3 itself documents that it is free.
    let error = store.with_settings(settings.retries(1)).create(&names[0], "forged").await.unwrap_err();
    assert!(format!("{error:?}").contains("the store says that it exists, but it cannot be read"), "{error:?}");
}

fn digests(dir: &Path, found: &mut HashSet<blake3::Hash>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            digests(&path, found);
        } else {
            found.insert(blake3::hash(&std::fs::read(&path).unwrap()));
        }
    }
}
