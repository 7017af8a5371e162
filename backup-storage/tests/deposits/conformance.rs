//! What every repository must do, where hosts write and somebody with the keys reads.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use backup_core::catalog::{BackupRecord, Catalog, Rejected};
use backup_core::conformance::repository::{self as cases, RepositoryHarness};
use backup_core::engine::{BackupSink, BackupSource, LogOptions, LogSink, LogSource, Work};
use backup_core::env::Env;
use backup_core::repository::{
    BackupSession, CollectOptions, Collected, CollectionPlan, Decision, ParentChoice, Repository as CoreRepository,
    VerifyLevel, VerifyReport,
};
use backup_core::{BackupId, Result, ServiceId, SessionId, Snapshot};
use backup_storage::store::Store;
use backup_storage::{CreateOptions, DepositRepository, HostFile, Repository, RepositorySettings};
use parking_lot::Mutex;

use super::world::{by, raw};

/// Begins sessions as a host, adopts what they deposit at once, and reads with the keys.
struct Depositing {
    store: Store,
    env: Env,
    with_keys: Repository,
    file: HostFile,
    /// A folder for each backup, as the host's was when it was deposited: the suite builds on any backup, a host on its last one.
    states: Arc<States>,
}

struct States {
    dir: tempfile::TempDir,
    next: AtomicU32,
}

impl States {
    fn of(&self, backup: BackupId) -> PathBuf {
        self.dir.path().join(backup.to_string())
    }

    fn fresh(&self, parent: Option<BackupId>) -> PathBuf {
        let dir = self.dir.path().join(format!("work-{}", self.next.fetch_add(1, Ordering::Relaxed)));
        std::fs::create_dir(&dir).unwrap();
        if let Some(parent) = parent {
            copy(&self.of(parent), &dir);
        }
        dir
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

struct DepositSession {
    inner: Box<dyn BackupSession>,
    /// The parent, for whoever wants to read it. A host cannot.
    source: Option<Arc<dyn BackupSource>>,
    with_keys: Repository,
    env: Env,
    states: Arc<States>,
    dir: PathBuf,
}

#[async_trait]
impl BackupSession for DepositSession {
    fn id(&self) -> SessionId {
        self.inner.id()
    }

    fn parent(&self) -> Option<&BackupRecord> {
        self.inner.parent()
    }

    fn parent_source(&self) -> Option<Arc<dyn BackupSource>> {
        assert!(self.inner.parent_source().is_none());
        self.source.clone()
    }

    fn sink(&self) -> Arc<dyn BackupSink> {
        self.inner.sink()
    }

    async fn commit(self: Box<Self>, snapshot: Snapshot) -> Result<BackupRecord> {
        let record = self.inner.commit(snapshot).await?;
        let done = self.with_keys.adopt_deposits(&Work::new(self.env.clone())).await?;
        assert!(done.refused.is_empty() && done.waiting.is_empty(), "{done:?}");
        let adopted = done.adopted.into_iter().find(|adopted| adopted.record.id == record.id);
        if let Some(adopted) = adopted {
            assert_eq!(adopted.record, record, "the host and the catalog say the same");
        }
        let kept = self.states.of(record.id);
        std::fs::create_dir(&kept).unwrap();
        copy(&self.dir, &kept);
        Ok(record)
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        self.inner.abort().await
    }
}

impl fmt::Debug for DepositSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl CoreRepository for Depositing {
    fn service(&self) -> &ServiceId {
        CoreRepository::service(&self.with_keys)
    }

    async fn catalog(&self) -> Result<Arc<Catalog>> {
        self.with_keys.catalog().await
    }

    async fn decide(&self, decide: &mut Decision<'_>) -> Result<Arc<Catalog>> {
        self.with_keys.decide(decide).await
    }

    async fn begin(&self, parent: ParentChoice, work: &Work) -> Result<Box<dyn BackupSession>> {
        let catalog = self.catalog().await?;
        let parent = match parent {
            ParentChoice::None => None,
            ParentChoice::Newest => catalog.latest_sound().map(|backup| backup.id),
            ParentChoice::Backup(id) => Some(catalog.existing(id).map_err(Rejected::asked)?.id),
        };
        let dir = self.states.fresh(parent);
        let settings = RepositorySettings::default().workers(3);
        let host =
            DepositRepository::open(&self.store, self.file.clone(), Some(&dir), &settings, self.env.clone()).await?;
        let inner = host.begin(parent.map_or(ParentChoice::None, ParentChoice::Backup), work).await?;
        let source = match parent {
            Some(parent) => Some(self.open(parent).await?),
            None => None,
        };
        let (with_keys, env, states) = (self.with_keys.clone(), self.env.clone(), Arc::clone(&self.states));
        Ok(Box::new(DepositSession { inner, source, with_keys, env, states, dir }))
    }

    async fn open(&self, backup: BackupId) -> Result<Arc<dyn BackupSource>> {
        CoreRepository::open(&self.with_keys, backup).await
    }

    async fn verify(&self, level: VerifyLevel, work: &Work) -> Result<VerifyReport> {
        self.with_keys.verify(level, work).await
    }

    async fn plan_collection(&self, options: &CollectOptions, work: &Work) -> Result<CollectionPlan> {
        self.with_keys.plan_collection(options, work).await
    }

    async fn collect(&self, options: &CollectOptions, work: &Work) -> Result<Collected> {
        self.with_keys.collect(options, work).await
    }

    async fn open_log(&self, options: LogOptions, work: &Work) -> Result<Arc<dyn LogSink>> {
        self.with_keys.open_log(options, work).await
    }

    async fn log(&self) -> Result<Arc<dyn LogSource>> {
        self.with_keys.log().await
    }
}

impl fmt::Display for Depositing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_keys.fmt(f)
    }
}

impl fmt::Debug for Depositing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.with_keys, f)
    }
}

struct Harness {
    store: Store,
    env: Env,
    made: Mutex<BTreeMap<ServiceId, (HostFile, Arc<States>)>>,
}

impl Harness {
    async fn open(&self, service: &ServiceId) -> Depositing {
        let settings = RepositorySettings::default().workers(3);
        let opened = Repository::open(&self.store, service.clone(), raw(1).1, &settings, self.env.clone());
        let with_keys = opened.await.unwrap();
        let (file, states) = self.made.lock()[service].clone();
        Depositing { store: self.store.clone(), env: self.env.clone(), with_keys, file, states }
    }
}

#[async_trait]
impl RepositoryHarness for Harness {
    fn env(&self) -> Env {
        self.env.clone()
    }

    async fn fresh(&self) -> Arc<dyn CoreRepository> {
        let service = ServiceId::new(format!("service-{}", self.made.lock().len())).unwrap();
        let (options, settings) = (CreateOptions::default(), RepositorySettings::default());
        let recipients = vec![raw(1).0];
        let made = Repository::create(&self.store, service.clone(), recipients, options, &settings, self.env.clone());
        let file = made.await.unwrap().add_host("host", &by()).await.unwrap();
        let states = Arc::new(States { dir: tempfile::tempdir().unwrap(), next: AtomicU32::new(0) });
        self.made.lock().insert(service.clone(), (file, states));
        Arc::new(self.open(&service).await)
    }

    async fn reopen(&self, service: &ServiceId) -> Arc<dyn CoreRepository> {
        Arc::new(self.open(service).await)
    }
}

fn harness() -> Harness {
    Harness { store: Store::memory(), env: Env::seeded(7), made: Mutex::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deposited_is_what_was_put() {
    let harness = harness();
    cases::empty_repository(&harness).await;
    cases::two_sessions_at_once(&harness).await;
    cases::duplicate_paths_are_refused(&harness).await;
    cases::failed_puts_put_nothing(&harness).await;
    cases::contents_of_every_size(&harness).await;
    cases::odd_pieces(&harness).await;
    cases::special_entries(&harness).await;
    cases::local_files_bring_their_facts(&harness).await;
    cases::vanished_and_odd_files(&harness).await;
    cases::files_that_change_while_read(&harness).await;
    cases::inspectors_see_everything_once(&harness).await;
    cases::entries_and_selectors(&harness).await;
    cases::ranges(&harness).await;
    cases::footprints(&harness).await;
    cases::counters(&harness).await;
    cases::verification_of_sound_content(&harness).await;
    cases::members_are_backups_of_their_own(&harness).await;
    cases::members_go_on_from_their_parents(&harness).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn increments_are_made_by_what_the_host_remembers() {
    let harness = harness();
    cases::nothing_changed(&harness).await;
    cases::changed_blocks(&harness).await;
    cases::grown_and_shrunk(&harness).await;
    cases::streams_are_compared_too(&harness).await;
    cases::deleted_entries(&harness).await;
    cases::identities_are_reused(&harness).await;
    cases::backups_stay_restorable_alone(&harness).await;
    cases::unchanged_files_are_not_read(&harness).await;
    cases::changes_make_the_next_backup(&harness).await;
    cases::changes_that_are_verified(&harness).await;
    cases::patches_make_complete_entries(&harness).await;
    cases::patches_of_zeros_and_of_the_same(&harness).await;
    cases::patches_that_are_verified(&harness).await;
    cases::patches_that_do_not_fit(&harness).await;
    cases::inspectors_see_what_a_patch_brings(&harness).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deposited_is_extracted_as_anything_is() {
    let harness = harness();
    cases::extract_places_everything(&harness).await;
    cases::extract_delta_writes_what_differs(&harness).await;
    cases::extract_resumes(&harness).await;
    cases::extract_refuses_existing(&harness).await;
    cases::extract_keeps_and_removes(&harness).await;
    cases::extract_writes_last_things_last(&harness).await;
}
