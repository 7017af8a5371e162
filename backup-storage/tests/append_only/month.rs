//! The honest side: hosts that make backups, an operator who expires, collects and rebuilds, and the check of every day.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use backup_core::catalog::{Actor, BackupRecord, Role};
use backup_core::engine::Work;
use backup_core::entry::{EntryMeta, EntryPath};
use backup_core::env::{Env, ManualClock, SeededEntropy};
use backup_core::repository::{BackupSession, CollectOptions, ParentChoice, Repository as _, VerifyLevel};
use backup_core::{BackupId, BackupSinkExt, Consistency, ServiceId, Snapshot, run};
use backup_crypto::{Identity, RawKey};
use backup_policy::{Age, Cadence, Period, Profile, Tier};
use backup_storage::fault::{Fault, FaultPlan, FaultStore, WriteOnceGuard};
use backup_storage::store::Store;
use backup_storage::{CreateOptions, Repository, RepositorySettings};
use jiff::Timestamp;
use object_store::ObjectStore;

use crate::dated::Dated;
use crate::intruder;
use crate::traitor;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long a backup is kept whatever comes, and protected from whoever collects.
const KEPT: i64 = 14;
/// How often an honest backup is tried each day.
const TRIES: usize = 6;

/// Entries by their paths.
pub(crate) type Content = BTreeMap<String, Vec<u8>>;

/// What the other one has besides credentials that may only add.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Nothing.
    Outside,
    /// The repository's key.
    Inside,
}

/// A small generator of choices.
pub(crate) struct Choices(pub(crate) u64);

impl Choices {
    pub(crate) fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % most
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        noise(self.below(u64::MAX), len)
    }
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// A backup that was promised.
struct Honest {
    record: BackupRecord,
    content: Content,
}

/// Thirty days of one repository.
pub(crate) struct Month {
    side: Side,
    seed: u64,
    pub(crate) choices: Choices,
    clock: Arc<ManualClock>,
    pub(crate) env: Env,
    /// As who may do everything.
    whole: Store,
    /// As who may only add.
    adding: Store,
    /// The same, without what makes a repository of it.
    pub(crate) raw: Arc<dyn ObjectStore>,
    pub(crate) honest_ids: Vec<BackupId>,
    honest: Vec<Honest>,
    profile: Profile,
    day: u64,
    pub(crate) planted: usize,
    pub(crate) rebuilt: usize,
    failed: usize,
    swept: usize,
    restored: usize,
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { planted, rebuilt, failed, swept, restored, .. } = self;
        let made = self.honest.len();
        write!(
            f,
            "{made} backups made, {restored} restores, {planted} objects and entries planted, {failed} backups had to be repeated, \
             {swept} collections swept, the catalog rebuilt {rebuilt} times"
        )
    }
}

pub(crate) fn service() -> ServiceId {
    ServiceId::new("svc").unwrap()
}

pub(crate) fn key() -> RawKey {
    RawKey::take(&mut [1; 32])
}

pub(crate) fn settings() -> RepositorySettings {
    RepositorySettings::default().workers(1).memory_budget(64 << 20).pack_size(4 << 20)
}

fn by() -> Actor {
    Actor::new(Role::Operator, "operator")
}

pub(crate) async fn put(session: &dyn BackupSession, content: &Content) -> backup_core::Result<()> {
    for (path, bytes) in content {
        session.sink().put_bytes(EntryMeta::file(EntryPath::new(path.as_str())?), bytes.clone().into()).await?;
    }
    Ok(())
}

pub(crate) fn snapshot(at: Timestamp) -> Snapshot {
    Snapshot::new("test", "1", "source", "memory", Consistency::PointInTime, (at, at))
}

impl Month {
    pub(crate) async fn begin(side: Side, seed: u64) -> Self {
        let start: Timestamp = "2026-03-01T02:00:00Z".parse().unwrap();
        let clock = Arc::new(ManualClock::at(start));
        let env = Env::new(Arc::clone(&clock) as _, Arc::new(SeededEntropy::new(seed)));
        let guard = WriteOnceGuard::new(Arc::new(object_store::memory::InMemory::new()));
        let dated: Arc<dyn ObjectStore> = Arc::new(Dated::new(Arc::new(guard), Arc::clone(&clock)));
        let denied = FaultPlan::quiet().with(Fault::DeleteDenied, 1.0);
        let raw: Arc<dyn ObjectStore> = Arc::new(FaultStore::new(Arc::clone(&dated), seed, denied));
        let whole = Store::from_object_store(dated).with_env(env.clone());
        let adding = Store::from_object_store(Arc::clone(&raw)).with_env(env.clone());
        let (options, settings) = (CreateOptions::default(), settings());
        let made = Repository::create(&whole, service(), vec![key().into()], options, &settings, env.clone());
        made.await.unwrap();
        clock.advance(Duration::from_secs(3600));
        let age = Age::from_days(KEPT).unwrap();
        let profile = Profile::builder(Cadence::daily())
            .tier(Tier::by_age(Period::Daily, age))
            .tier(Tier::by_count(Period::Weekly, 3).unwrap())
            .minimum_age(age)
            .build()
            .unwrap();
        Self {
            side,
            seed,
            choices: Choices(seed ^ 0xa77a_c4e2),
            clock,
            env,
            whole,
            adding,
            raw,
            honest_ids: Vec::new(),
            honest: Vec::new(),
            profile,
            day: 0,
            planted: 0,
            rebuilt: 0,
            failed: 0,
            swept: 0,
            restored: 0,
        }
    }

    pub(crate) fn work(&self) -> Work {
        Work::new(self.env.clone())
    }

    async fn open_by(&self, store: &Store) -> Repository {
        let identity = Identity::from(key());
        let opened = Repository::open(store, service(), identity, &settings(), self.env.clone()).await;
        opened.unwrap_or_else(|error| panic!("seed {}, day {}: {error:?}", self.seed, self.day))
    }

    /// As the other one opens it, with a clock of its own.
    pub(crate) async fn open_at(&self, at: Timestamp) -> backup_storage::error::Result<Repository> {
        let entropy = Arc::clone(self.env.entropy());
        let env = Env::new(Arc::new(ManualClock::at(at)), entropy);
        Repository::open(&self.adding, service(), Identity::from(key()), &settings(), env).await
    }

    /// A day on which nobody else is there.
    pub(crate) async fn quiet_day(&mut self) {
        self.backup(false).await;
        self.pass().await;
    }

    async fn pass(&mut self) {
        self.clock.advance(DAY);
        self.day += 1;
    }

    pub(crate) async fn day(&mut self) {
        self.act().await;
        self.backup(true).await;
        self.act().await;
        self.expire().await;
        self.collect().await;
        self.check().await;
        self.pass().await;
    }

    async fn act(&mut self) {
        let times = self.choices.below(4);
        for _ in 0..times {
            self.planted += match self.side {
                Side::Outside => intruder::act(self).await,
                Side::Inside => traitor::act(self).await,
            };
        }
    }

    fn content(&self) -> Content {
        let mut content = Content::new();
        for file in 0..6u64 {
            // Half of them change every few days.
            let version = if file % 2 == 0 { 0 } else { (self.day + file) / 3 };
            let len = if file < 3 { 140 << 10 } else { 3 << 10 };
            content.insert(format!("file-{file}"), noise(self.seed ^ (file * 1_000 + version), len));
        }
        content.insert("day".to_owned(), self.day.to_string().into_bytes());
        content
    }

    /// Makes today's backup. Others may get in its way, but not each time.
    async fn backup(&mut self, disturbed: bool) {
        let content = self.content();
        let mut last = None;
        for attempt in 0..TRIES {
            match self.attempt(&content, attempt, disturbed).await {
                Ok(record) => {
                    self.honest_ids.push(record.id);
                    self.honest.push(Honest { record, content });
                    return;
                }
                Err(error) => {
                    self.failed += 1;
                    last = Some(error);
                }
            }
        }
        panic!("seed {}, day {}: no backup could be made: {last:?}", self.seed, self.day);
    }

    async fn attempt(
        &mut self,
        content: &Content,
        attempt: usize,
        disturbed: bool,
    ) -> backup_core::Result<BackupRecord> {
        let repository = self.open_by(&self.adding).await;
        let catalog = repository.catalog().await?;
        // A host builds on what it has made itself, and on nothing every seventh day.
        let own = self.honest.last().map(|honest| honest.record.id).filter(|id| catalog.backup(*id).is_some());
        let parent = match own.filter(|id| attempt < 2 && !self.day.is_multiple_of(7) && catalog.is_sound(*id)) {
            Some(own) => ParentChoice::Backup(own),
            None => ParentChoice::None,
        };
        let session = repository.begin(parent, &self.work()).await?;
        put(session.as_ref(), content).await?;
        if disturbed && attempt < 3 && self.choices.below(3) == 0 {
            self.act().await;
        }
        session.commit(snapshot(self.env.now())).await
    }

    async fn expire(&mut self) {
        let repository = self.open_by(&self.adding).await;
        let expired = run::expire(&repository, &self.profile, &by(), &self.work()).await;
        if self.side == Side::Outside {
            expired.unwrap_or_else(|error| panic!("seed {}, day {}: {error:?}", self.seed, self.day));
        }
    }

    fn protection(&self) -> CollectOptions {
        CollectOptions::default().protect(DAY * u32::try_from(KEPT).unwrap())
    }

    async fn collect(&mut self) {
        let repository = self.open_by(&self.whole).await;
        match repository.collect(&self.protection(), &self.work()).await {
            Ok(done) => self.swept += done.swept.len(),
            Err(error) if self.side == Side::Inside => println!("day {}: {error}", self.day),
            Err(error) => panic!("seed {}, day {}: {error:?}", self.seed, self.day),
        }
    }

    /// The honest backups that must be there.
    fn promised(&self) -> impl Iterator<Item = &Honest> {
        let since = self.env.now() - jiff::SignedDuration::from_hours(24 * KEPT);
        self.honest.iter().filter(move |honest| honest.record.ended_at > since)
    }

    /// Whether a backup can be had from the catalog as it is.
    async fn restores(&self, repository: &Repository, honest: &Honest) -> bool {
        let id = honest.record.id;
        let Ok(catalog) = repository.catalog().await else { return false };
        if catalog.backup(id).is_none() && run::reinstate(repository, id, &by(), &self.work()).await.is_err() {
            return false;
        }
        match repository.open(id).await {
            Ok(source) => try_read(source.as_ref()).await.as_ref() == Some(&honest.content),
            Err(_) => false,
        }
    }

    async fn check(&mut self) {
        let mut repository = self.open_by(&self.whole).await;
        let mut all = true;
        for honest in self.promised() {
            all = all && self.restores(&repository, honest).await;
        }
        if !all {
            repository = self.rebuild().await;
        }
        let mut restored = 0;
        for honest in self.promised() {
            let id = honest.record.id;
            assert!(
                self.restores(&repository, honest).await,
                "seed {}, day {}: backup {id} is lost",
                self.seed,
                self.day
            );
            restored += 1;
        }
        self.restored += restored;
        if self.side == Side::Outside {
            // Whatever else the plan keeps is there as well, and what is found to be wrong harms nobody.
            let catalog = repository.catalog().await.unwrap();
            for honest in self.honest.iter().filter(|honest| catalog.backup(honest.record.id).is_some()) {
                assert!(self.restores(&repository, honest).await, "seed {}, day {}", self.seed, self.day);
            }
            assert!(catalog.backups().all(|backup| self.honest_ids.contains(&backup.id)));
            let report = repository.verify(VerifyLevel::Full, &self.work()).await.unwrap();
            assert_eq!(report.harmed(), [], "seed {}, day {}: {:?}", self.seed, self.day, report.damages);
        }
    }

    async fn rebuild(&mut self) -> Repository {
        self.rebuilt += 1;
        let (identity, settings, work) = (Identity::from(key()), settings(), self.work());
        let salvaged = Repository::salvage(&self.whole, service(), identity, &settings, self.env.clone(), &work).await;
        salvaged.unwrap_or_else(|error| panic!("seed {}, day {}: {error:?}", self.seed, self.day)).0
    }

    /// Nobody else is there any more: another backup, and a catalog that is what it should be.
    pub(crate) async fn end(&mut self) {
        if self.side == Side::Inside {
            self.rebuild().await;
        }
        self.backup(false).await;
        self.check().await;
        let catalog = self.open_by(&self.whole).await.catalog().await.unwrap();
        assert!(self.promised().all(|honest| catalog.backup(honest.record.id).is_some()));
    }

    /// All backups are let go and condemned by forged entries of long ago.
    pub(crate) async fn takeover(&mut self) {
        let long_ago: Timestamp = "2001-01-01T00:00:00Z".parse().unwrap();
        let repository = self.open_at(long_ago).await.unwrap();
        traitor::expire_all(&repository, long_ago).await;
        traitor::condemn_all(&repository, long_ago, true).await;
    }

    /// How many backups are lost after the operator has collected and rebuilt the catalog.
    pub(crate) async fn collect_and_rebuild(&mut self, protected: bool) -> usize {
        let options = if protected { self.protection() } else { CollectOptions::default() };
        let mut told = false;
        for _ in 0..3 {
            let done = self.open_by(&self.whole).await.collect(&options, &self.work()).await.unwrap();
            told = told || done.findings.iter().any(|finding| finding.code == "collection-protected");
            // The store's clock shows by what is stored.
            self.quiet_day().await;
        }
        assert_eq!(told, protected, "it is told that something stays");
        let repository = self.rebuild().await;
        let mut lost = 0;
        for honest in &self.honest {
            lost += usize::from(!self.restores(&repository, honest).await);
        }
        lost
    }
}

/// What a backup holds, unless it cannot be read.
async fn try_read(source: &dyn backup_core::BackupSource) -> Option<Content> {
    use futures::{StreamExt, TryStreamExt};
    let mut content = BTreeMap::new();
    let mut entries = source.entries(backup_core::entry::Selector::all());
    while let Some(entry) = entries.next().await {
        let entry = entry.ok()?;
        let pieces: Vec<bytes::Bytes> = source.read(&entry.meta.path, 0..entry.len).try_collect().await.ok()?;
        content.insert(entry.meta.path.to_string(), pieces.concat());
    }
    Some(content)
}
