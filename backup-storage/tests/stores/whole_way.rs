//! A whole life of a repository: made, backed up into twice, restored from, thinned out, collected, verified.

use std::time::Duration;

use backup_core::catalog::{Actor, Event, Role};
use backup_core::conformance::engine::EngineHarness as _;
use backup_core::engine::Work;
use backup_core::entry::Selector;
use backup_core::env::Env;
use backup_core::repository::{CollectOptions, Repository as _, VerifyLevel};
use backup_core::run::{BackupOptions, backup, plan_restore, restore};
use backup_core::{BackupId, ErrorKind, RecoveryTarget, ServiceId};
use backup_crypto::{Identity, RawKey};
use backup_storage::store::Store;
use backup_storage::{CreateOptions, Repository, RepositorySettings};
use futures::TryStreamExt as _;

use crate::directory_engine::Directories;

fn service() -> ServiceId {
    ServiceId::new("directory").unwrap()
}

fn key() -> RawKey {
    RawKey::take(&mut [7; 32])
}

fn work() -> Work {
    Work::new(Env::system())
}

/// Makes the repository, which finds out a store that is unfit.
pub(crate) async fn create(vault: &Store) -> Repository {
    let (recipients, settings) = (vec![key().into()], RepositorySettings::default());
    let made =
        Repository::create(vault, service(), recipients, CreateOptions::default(), &settings, Env::system()).await;
    made.unwrap_or_else(|error| panic!("{vault}: {error:?}"))
}

/// Opens it as another process would.
pub(crate) async fn open(vault: &Store) -> Repository {
    let (identity, settings) = (Identity::from(key()), RepositorySettings::default());
    let opened = Repository::open(vault, service(), identity, &settings, Env::system()).await;
    opened.unwrap_or_else(|error| panic!("{vault}: {error:?}"))
}

pub(crate) async fn take(repository: &Repository, live: &Directories) -> backup_core::catalog::BackupRecord {
    backup(repository, &*live.engine().await, BackupOptions::default(), &work()).await.unwrap()
}

/// What a restore of `target` leaves behind, as a digest; or why it is refused.
pub(crate) async fn restored(
    repository: &Repository,
    live: &Directories,
    target: RecoveryTarget,
) -> backup_core::Result<String> {
    let place = live.target().await;
    let engine = place.engine();
    let plan = plan_restore(repository, &*engine, target, Selector::all(), &work()).await?;
    restore(&*engine, &plan, &work()).await?;
    Ok(place.digest().await.expect("it starts"))
}

pub(crate) async fn whole_way(vault: &Store) {
    let live = Directories::new(None);
    let repository = create(vault).await;
    let before = live.digest().await;
    let first = take(&repository, &live).await;
    // Every block is touched, so that nothing of the first backup is needed by the second one.
    for step in 0..120 {
        live.mutate(step).await;
    }
    let after = live.digest().await;
    let second = take(&repository, &live).await;
    assert_eq!(second.parent, Some(first.id), "an increment");
    let unchanged = take(&repository, &live).await;
    assert_eq!(unchanged.new_bytes, 0, "what is stored is not stored again");

    let elsewhere = open(vault).await;
    let backups: Vec<BackupId> = elsewhere.catalog().await.unwrap().backups().map(|backup| backup.id).collect();
    assert_eq!(backups, [first.id, second.id, unchanged.id]);
    assert_eq!(restored(&elsewhere, &live, RecoveryTarget::backup(first.id)).await.unwrap(), before);
    assert_eq!(restored(&elsewhere, &live, RecoveryTarget::latest()).await.unwrap(), after);

    let packs = stored(&elsewhere, "packs").await;
    let expired = Event::BackupExpired {
        backup: first.id,
        reason: "a test".to_owned(),
        by: Actor::new(Role::Operator, "test"),
        at: Env::system().now(),
    };
    elsewhere.decide(&mut |_| Ok(vec![expired.clone()])).await.unwrap();
    let at_once = CollectOptions::default().grace(Duration::ZERO);
    let mut deleted = 0;
    for _ in 0..2 {
        deleted += elsewhere.collect(&at_once, &work()).await.unwrap().deleted;
    }
    assert!(deleted > 0 && stored(&elsewhere, "packs").await < packs, "the first backup's packs are gone");

    let survivor = open(vault).await;
    let refused = restored(&survivor, &live, RecoveryTarget::backup(first.id)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{refused}");
    assert_eq!(restored(&survivor, &live, RecoveryTarget::backup(second.id)).await.unwrap(), after);
    for level in [VerifyLevel::Catalog, VerifyLevel::Objects, VerifyLevel::Full] {
        let report = survivor.verify(level, &work()).await.unwrap();
        assert!(report.is_sound(), "{level:?}: {:?}", report.damages);
        assert_eq!(report.backups, 2);
    }
}

/// Bytes stored in a folder.
async fn stored(repository: &Repository, folder: &str) -> u64 {
    let objects: Vec<_> = repository.store().list(folder).try_collect().await.unwrap();
    objects.iter().map(|object| object.size).sum()
}
