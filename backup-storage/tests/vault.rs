//! A vault of many services: what is there, and how one of them is destroyed.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use backup_core::catalog::{Actor, Event, Role, ServiceChange, ServiceSpec};
use backup_core::engine::{BackupSinkExt, Work};
use backup_core::entry::{EntryMeta, EntryPath};
use backup_core::env::Env;
use backup_core::repository::{Found, ParentChoice, Repository};
use backup_core::{Consistency, ErrorKind, ServiceId, Snapshot};
use backup_crypto::{Identity, RawKey, X25519SecretKey};
use backup_storage::fault::{Crash, Fault, FaultOp, FaultPlan, FaultStore};
use backup_storage::store::{ObjectName, Store, StoreSettings};
use backup_storage::{AddRecipient, KeyHolder, SharedKeys, Vault};
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::memory::InMemory;

fn id(name: &str) -> ServiceId {
    ServiceId::new(name).unwrap()
}

fn key() -> RawKey {
    RawKey::take(&mut [5; 32])
}

fn vault(store: Store) -> Vault {
    Vault::new(store, SharedKeys::new(vec![key().into()], Identity::from(key())), Env::seeded(3))
}

fn work() -> Work {
    Work::new(Env::seeded(4))
}

async fn happens(repository: &dyn Repository, changes: Vec<ServiceChange>) {
    let event = |change| Event::Service {
        change,
        lease: None,
        by: Actor::new(Role::Platform, "test"),
        at: Env::seeded(0).now(),
    };
    let events: Vec<_> = changes.into_iter().map(event).collect();
    repository.decide(&mut |_| Ok(events.clone())).await.unwrap();
}

/// A service with a backup.
async fn filled(vault: &Vault, service: &ServiceId) -> Arc<dyn Repository> {
    let repository = backup_core::repository::Vault::create(vault, service).await.unwrap();
    let spec = Box::new(ServiceSpec::new("test", "startup", "here", "here"));
    happens(&*repository, vec![ServiceChange::Created { spec }]).await;
    let session = repository.begin(ParentChoice::None, &work()).await.unwrap();
    let meta = EntryMeta::file(EntryPath::new("file").unwrap());
    session.sink().put_bytes(meta, Bytes::from_static(b"precious")).await.unwrap();
    let now = Env::seeded(0).now();
    let snapshot = Snapshot::new("test", "1", "source", "none", Consistency::PointInTime, (now, now));
    session.commit(snapshot).await.unwrap();
    repository
}

async fn doom(repository: &dyn Repository) {
    happens(repository, vec![ServiceChange::Deleted { reason: None }, ServiceChange::PurgeBegun]).await;
}

async fn names(store: &Store) -> Vec<String> {
    let objects: Vec<_> = store.list("").try_collect().await.unwrap();
    objects.into_iter().map(|object| object.name.as_str().to_owned()).collect()
}

async fn found(vault: &Vault, service: &ServiceId) -> &'static str {
    match backup_core::repository::Vault::find(vault, service).await.unwrap() {
        Found::Nothing => "nothing",
        Found::Repository(_) => "repository",
        Found::Remains => "remains",
        other => panic!("{other:?}"),
    }
}

async fn destroy(vault: &Vault, service: &ServiceId) -> backup_core::Result<backup_core::repository::Destroyed> {
    backup_core::repository::Vault::destroy(vault, service, &work()).await
}

#[tokio::test]
async fn nothing_is_left_on_disk_of_a_service_that_was_purged_and_the_others_stay() {
    let dir = tempfile::tempdir().unwrap();
    let vault = vault(Store::local(dir.path()).unwrap());
    let (gone, stays) = (id("gone"), id("stays"));
    let repository = filled(&vault, &gone).await;
    filled(&vault, &stays).await;
    assert_eq!(backup_core::repository::Vault::services(&vault).await.unwrap(), [gone.clone(), stays.clone()]);
    assert_eq!(found(&vault, &id("nobody")).await, "nothing");
    assert_eq!(destroy(&vault, &id("nobody")).await.unwrap().objects, 0);
    let again = backup_core::repository::Vault::create(&vault, &gone).await;
    assert_eq!(again.unwrap_err().kind(), ErrorKind::Conflict);

    for changes in [vec![], vec![ServiceChange::Deleted { reason: None }]] {
        happens(&*repository, changes).await;
        assert_eq!(destroy(&vault, &gone).await.unwrap_err().kind(), ErrorKind::Conflict, "it is not being purged");
        assert_eq!(found(&vault, &gone).await, "repository");
    }
    happens(&*repository, vec![ServiceChange::PurgeBegun]).await;
    // A put that was killed half-way has left this.
    std::fs::write(dir.path().join("gone/packs/x#1"), b"half").unwrap();
    let destroyed = destroy(&vault, &gone).await.unwrap();
    assert!(destroyed.keys == 1 && destroyed.objects >= 5, "{destroyed:?}");
    assert_eq!(found(&vault, &gone).await, "nothing");
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["stays"]);
    assert_eq!(backup_core::repository::Vault::services(&vault).await.unwrap(), std::slice::from_ref(&stays));
    assert_eq!(found(&vault, &stays).await, "repository");
    filled(&vault, &gone).await;
}

#[tokio::test]
async fn a_process_that_dies_anywhere_leaves_what_the_next_one_finishes() {
    for after in 0.. {
        let inner = Arc::new(InMemory::new());
        let faults = FaultStore::new(Arc::clone(&inner) as Arc<dyn ObjectStore>, after, FaultPlan::quiet());
        let vault = vault(Store::from_object_store(Arc::new(faults.clone())));
        let service = id("svc");
        let repository = filled(&vault, &service).await;
        doom(&*repository).await;
        drop(repository);
        faults.crash(Crash { after, lands: after % 2 == 0, hangs: true });
        let finished = tokio::select! {
            outcome = destroy(&vault, &service) => { outcome.unwrap(); true }
            () = faults.crashed() => false,
        };
        faults.revive();
        let rest =
            names(&Store::from_object_store(Arc::clone(&inner) as Arc<dyn ObjectStore>).at("svc").unwrap()).await;
        let keys = rest.iter().any(|name| name.starts_with("keys/"));
        // Whoever copies what is there now can read nothing of it once the keys have gone.
        if !keys {
            assert_ne!(found(&vault, &service).await, "repository");
            let identity = Identity::from(key());
            let (settings, env) = (backup_storage::RepositorySettings::default(), Env::seeded(9));
            let opened =
                backup_storage::Repository::open(vault.store(), service.clone(), identity, &settings, env).await;
            assert!(opened.is_err());
        }
        if rest.iter().any(|name| !name.starts_with("keys/") && name != "purge" && name != "repository") {
            assert_eq!(found(&vault, &service).await, if keys { "repository" } else { "remains" });
        }
        destroy(&vault, &service).await.unwrap();
        assert_eq!(names(&Store::from_object_store(inner)).await, [""; 0]);
        if finished {
            assert!(after > 5, "{after}");
            return;
        }
    }
}

#[tokio::test]
async fn keys_of_several_epochs_and_recipients_go_first_and_nobody_is_locked_out_of_finishing() {
    for after in 0.. {
        let inner = Arc::new(InMemory::new());
        let faults = FaultStore::new(Arc::clone(&inner) as Arc<dyn ObjectStore>, after, FaultPlan::quiet());
        let vault = vault(Store::from_object_store(Arc::new(faults.clone())));
        let service = id("svc");
        let repository = filled(&vault, &service).await;
        let (settings, env) = (backup_storage::RepositorySettings::default(), Env::seeded(9));
        let identity = Identity::from(key());
        let opened = backup_storage::Repository::open(vault.store(), service.clone(), identity, &settings, env).await;
        let (opened, by) = (opened.unwrap(), Actor::new(Role::Operator, "test"));
        // Names of keys come before and behind the one of who destroys.
        for seed in 20..24 {
            let other = KeyHolder::from(X25519SecretKey::take(&mut [seed; 32]).public_key());
            opened.add_recipient(&other, &AddRecipient::default(), &by, &work()).await.unwrap();
        }
        opened.rotate_keys(&[], &by, &work()).await.unwrap();
        opened.rotate_keys(&[], &by, &work()).await.unwrap();
        drop(opened);
        doom(&*repository).await;
        drop(repository);
        faults.crash(Crash { after, lands: after % 2 == 0, hangs: true });
        let finished = tokio::select! {
            outcome = destroy(&vault, &service) => { assert_eq!(outcome.unwrap().keys, 15); true }
            () = faults.crashed() => false,
        };
        faults.revive();
        let rest =
            names(&Store::from_object_store(Arc::clone(&inner) as Arc<dyn ObjectStore>).at("svc").unwrap()).await;
        if rest.iter().any(|name| name.starts_with("keys/")) {
            assert!(rest.iter().any(|name| name.starts_with("catalog/")), "what can be read goes first");
        }
        destroy(&vault, &service).await.unwrap();
        assert_eq!(names(&Store::from_object_store(inner)).await, [""; 0], "{after}");
        if finished {
            assert!(after > 8, "{after}");
            return;
        }
    }
}

#[tokio::test]
async fn a_mark_alone_destroys_nothing_and_lost_keys_do_not_either() {
    let inner = Arc::new(InMemory::new());
    let vault = vault(Store::from_object_store(Arc::clone(&inner) as Arc<dyn ObjectStore>));
    let service = id("svc");
    filled(&vault, &service).await;
    let store = Store::from_object_store(inner).at("svc").unwrap();
    // Somebody who can only write objects says so.
    let mark = ObjectName::new("purge").unwrap();
    assert!(store.create(&mark, Bytes::from_static(b"gone")).await.unwrap().is_ours());
    assert_eq!(found(&vault, &service).await, "repository");
    assert_eq!(destroy(&vault, &service).await.unwrap_err().kind(), ErrorKind::Conflict);
    store.delete(&mark).await.unwrap();

    let keys: Vec<_> = store.list("keys").try_collect().await.unwrap();
    store.delete(&keys[0].name).await.unwrap();
    let before = names(&store).await;
    assert_eq!(destroy(&vault, &service).await.unwrap_err().kind(), ErrorKind::Damaged);
    assert_eq!(names(&store).await, before, "a repository that has lost its keys may get them back");
}

#[tokio::test]
async fn a_store_that_refuses_to_delete_is_told_and_nothing_is_called_destroyed() {
    let faults = FaultStore::new(Arc::new(InMemory::new()), 1, FaultPlan::quiet());
    let settings = StoreSettings::default().retries(1);
    let vault = vault(Store::from_object_store(Arc::new(faults.clone())).with_settings(settings));
    let service = id("svc");
    let repository = filled(&vault, &service).await;
    doom(&*repository).await;
    faults.set_plan(FaultPlan::quiet().with(Fault::DeleteDenied, 1.0));
    assert_eq!(destroy(&vault, &service).await.unwrap_err().kind(), ErrorKind::Environment);
    assert_eq!(found(&vault, &service).await, "repository", "its keys are still there");
    faults.set_plan(FaultPlan::quiet());
    // Once among others, and once alone.
    faults.script(FaultOp::Delete, "/commit", 0, Fault::DeleteDenied);
    faults.script(FaultOp::Delete, "/commit", 0, Fault::DeleteDenied);
    let denied = destroy(&vault, &service).await.unwrap_err();
    assert!(denied.kind() == ErrorKind::Environment && denied.to_string().contains("packs/"), "{denied}");
    assert_eq!(found(&vault, &service).await, "remains");
    destroy(&vault, &service).await.unwrap();
    assert_eq!(found(&vault, &service).await, "nothing");
}
