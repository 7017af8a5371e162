//! A vault, an engine on a running server, and places to restore into.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use backup_core::catalog::BackupRecord;
use backup_core::engine::{CheckReport, LogOptions, LogSink, Restored, Work};
use backup_core::entry::Selector;
use backup_core::env::Env;
use backup_core::observe::{Observer, Progress};
use backup_core::repository::{MemoryRepository, ParentChoice, Repository};
use backup_core::run::{self, BackupOptions, RestorePlan};
use backup_core::{Finding, Lineage, RecoveryTarget, Result, ServiceId};
use backup_postgres::wal::{Event, LongPageHeader, SegmentName, WalFormat, WalReader};
use backup_postgres::{Method, PostgresEngine, PostgresSettings, Replay, TimelineId};
use backup_testkit::pgbench::{ClusterDigest, digest_cluster};
use backup_testkit::tokio_postgres::Client;
use backup_testkit::tokio_postgres::types::PgLsn;
use backup_testkit::{PgVersion, Postgres, StopMode, scratch_dir, unprivileged};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// Both ways to read.
pub(crate) const METHODS: [Method; 2] = [Method::Local, Method::Protocol];

/// How long a server may take for what it does at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How a test reaches `server`.
pub(crate) fn settings(server: &Postgres) -> PostgresSettings {
    PostgresSettings::default().url(server.unix_conn_string("postgres"))
}

/// An engine on `server` that reads by `method`.
pub(crate) fn engine(server: &Postgres, method: Method) -> PostgresEngine {
    PostgresEngine::new(settings(server).method(method)).unwrap()
}

/// Work in real time: it is compared with the times of files.
pub(crate) fn work() -> Work {
    Work::new(Env::system())
}

/// The backups of one service.
#[derive(Debug, Clone)]
pub(crate) struct Vault(pub(crate) Arc<dyn Repository>);

impl Vault {
    /// An empty one in memory.
    pub(crate) fn memory() -> Self {
        Self(Arc::new(MemoryRepository::new(ServiceId::new("bank").unwrap())))
    }

    pub(crate) async fn backup(&self, engine: &PostgresEngine) -> BackupRecord {
        self.try_backup(engine, BackupOptions::default()).await.unwrap_or_else(|e| panic!("{engine:?}: {e:?}"))
    }

    pub(crate) async fn try_backup(&self, engine: &PostgresEngine, options: BackupOptions) -> Result<BackupRecord> {
        run::backup(self.0.as_ref(), engine, options, &work()).await
    }

    /// Restores `target` into `engine`'s directory.
    pub(crate) async fn recover(&self, engine: &PostgresEngine, target: RecoveryTarget) -> Result<Restored> {
        let plan = run::plan_restore(self.0.as_ref(), engine, target, Selector::all(), &work()).await?;
        run::restore(engine, &plan, &work()).await
    }

    pub(crate) async fn count(&self) -> usize {
        self.0.catalog().await.unwrap().backups().count()
    }

    pub(crate) async fn plan(&self, engine: &PostgresEngine, backup: &BackupRecord) -> Result<RestorePlan> {
        let goal = RecoveryTarget::backup(backup.id);
        run::plan_restore(self.0.as_ref(), engine, goal, Selector::all(), &work()).await
    }

    pub(crate) async fn restore(&self, engine: &PostgresEngine, backup: &BackupRecord) -> Result<Restored> {
        let plan = self.plan(engine, backup).await?;
        run::restore(engine, &plan, &work()).await
    }

    pub(crate) async fn check(&self, engine: &PostgresEngine, backup: &BackupRecord) -> CheckReport {
        run::check(self.0.as_ref(), engine, backup.id, &work()).await.unwrap()
    }
}

/// A backup whose parent is `parent`.
pub(crate) async fn on(parent: &BackupRecord, vault: &Vault, engine: &PostgresEngine) -> BackupRecord {
    let mut options = BackupOptions::default();
    options.parent = ParentChoice::Backup(parent.id);
    vault.try_backup(engine, options).await.unwrap()
}

pub(crate) fn fact<'a>(backup: &'a BackupRecord, name: &str) -> Option<&'a str> {
    backup.snapshot.fact(name)
}

/// Bytes of content that the engine has read, or was sent.
pub(crate) fn read_bytes(backup: &BackupRecord) -> u64 {
    fact(backup, "read_bytes").unwrap().parse().unwrap()
}

pub(crate) fn finding<'a>(backup: &'a BackupRecord, code: &str) -> Option<&'a Finding> {
    backup.snapshot.findings.iter().find(|finding| finding.code == code)
}

/// A place to restore into, which goes with this value.
pub(crate) struct Target {
    home: TempDir,
    version: PgVersion,
    settings: PostgresSettings,
}

impl Target {
    pub(crate) fn new(version: PgVersion) -> Self {
        let home = scratch_dir().unwrap();
        let data = home.path().join("data");
        folder(&data);
        Self { home, version, settings: PostgresSettings::default().data_dir(data) }
    }

    pub(crate) fn data(&self) -> &Path {
        self.settings.data_dir.as_deref().unwrap()
    }

    /// Restores every tablespace of `server` into a directory of its own.
    pub(crate) async fn map_tablespaces(mut self, server: &Postgres) -> Self {
        let client = server.connect("postgres").await.unwrap();
        let sql = "select oid::text, spcname::text from pg_tablespace where pg_tablespace_location(oid) like '/%'";
        for row in client.query(sql, &[]).await.unwrap() {
            let dir = self.home.path().join(row.get::<_, &str>(1));
            folder(&dir);
            self.settings = self.settings.tablespace(row.get::<_, &str>(0), dir);
        }
        self
    }

    pub(crate) fn version(&self) -> PgVersion {
        self.version
    }

    pub(crate) fn settings(&self) -> PostgresSettings {
        self.settings.clone()
    }

    pub(crate) fn engine(&self) -> PostgresEngine {
        PostgresEngine::new(self.settings()).unwrap()
    }

    pub(crate) async fn restore(&self, vault: &Vault, backup: &BackupRecord) -> Result<Restored> {
        vault.restore(&self.engine(), backup).await
    }

    /// Restores `goal` by `replay`, and starts the server while or after that.
    pub(crate) async fn recover(&self, vault: &Vault, goal: RecoveryTarget, replay: Replay) -> Postgres {
        let engine = PostgresEngine::new(self.settings().replay(replay)).unwrap();
        if replay == Replay::Files {
            vault.recover(&engine, goal.clone()).await.unwrap_or_else(|e| panic!("{goal}: {e:?}"));
            return self.open().await;
        }
        let vault = vault.clone();
        let name = goal.to_string();
        let serving = tokio::spawn(async move { vault.recover(&engine, goal).await });
        // The marker of an unfinished restore is gone when the server may be started.
        let (control, marker) = (self.data().join("global/pg_control"), self.data().join("backup_restore_in_progress"));
        let ready = backup_testkit::wait::until_async(PATIENCE, || {
            (serving.is_finished() || (control.exists() && !marker.exists())).then_some(())
        });
        ready.await.unwrap_or_else(|| panic!("{name}: nothing to start"));
        if serving.is_finished() {
            panic!("{name}: {:?}", serving.await.unwrap());
        }
        let server = self.open().await;
        serving.await.unwrap().unwrap_or_else(|e| panic!("{name}: {e:?}"));
        server
    }

    /// Starts what was restored and waits until it takes writes.
    pub(crate) async fn open(&self) -> Postgres {
        let server = Postgres::open(self.version, self.data()).await.unwrap_or_else(|e| panic!("{}", e.full()));
        server.wait_writable(PATIENCE).await.unwrap_or_else(|e| panic!("{}", e.full()));
        server
    }
}

/// A folder that belongs to the server's account.
pub(crate) fn folder(path: &Path) {
    std::fs::create_dir_all(path).unwrap();
    unprivileged().own(path).unwrap();
}

/// The digest of every table of every database.
pub(crate) async fn digest(server: &Postgres) -> ClusterDigest {
    digest_cluster(&server.config("postgres")).await.unwrap_or_else(|e| panic!("{}", e.full()))
}

/// One value of a query as text.
pub(crate) async fn value(client: &Client, sql: &str) -> String {
    client.query_one(&format!("select ({sql})::text"), &[]).await.unwrap().get(0)
}

/// The digest of what was restored into `target`; the server is stopped again.
pub(crate) async fn digest_of(target: &Target) -> ClusterDigest {
    let mut server = target.open().await;
    let digest = digest(&server).await;
    server.stop(StopMode::Fast).await.unwrap();
    digest
}

/// A folder beside the data directory of `server`.
pub(crate) fn beside(server: &Postgres, name: &str) -> PathBuf {
    let path = server.home().join(name);
    folder(&path);
    path
}

/// A capture of a log that runs until it is stopped.
pub(crate) struct Capture {
    cancel: CancellationToken,
    task: tokio::task::JoinHandle<Result<Arc<dyn LogSink>>>,
    repository: Arc<dyn Repository>,
    pub(crate) found: Arc<Found>,
}

/// The findings of a capture.
#[derive(Debug, Default)]
pub(crate) struct Found(parking_lot::Mutex<Vec<Finding>>);

impl Observer for Found {
    fn on(&self, progress: &Progress) {
        if let Progress::Found(finding) = progress {
            self.0.lock().push(finding.clone());
        }
    }
}

impl Found {
    /// Whether something of this kind was found.
    pub(crate) fn has(&self, code: &str) -> bool {
        self.0.lock().iter().any(|finding| finding.code == code)
    }
}

impl Capture {
    /// Follows what `settings` describe.
    pub(crate) fn start(repository: &Arc<dyn Repository>, settings: PostgresSettings, options: LogOptions) -> Self {
        Self::start_in(Env::system(), repository, settings, options)
    }

    /// The same in another time.
    pub(crate) fn start_in(
        env: Env,
        repository: &Arc<dyn Repository>,
        settings: PostgresSettings,
        options: LogOptions,
    ) -> Self {
        let (cancel, found) = (CancellationToken::new(), Arc::new(Found::default()));
        let work = Work::new(env).with_cancel(cancel.clone()).with_observer(Arc::<Found>::clone(&found));
        let shared = Arc::clone(repository);
        let task = tokio::spawn(async move {
            let engine = PostgresEngine::new(settings)?;
            run::capture(shared.as_ref(), &engine, options, &work).await
        });
        Self { cancel, task, repository: Arc::clone(repository), found }
    }

    /// Waits until the log is stored up to `lsn` of `timeline`, without a hole before it.
    pub(crate) async fn reaches(&self, timeline: u32, lsn: PgLsn) {
        let lineage = Lineage::new(timeline.to_string());
        let lsn = u64::from(lsn);
        for _ in 0..6000 {
            let ledger = self.repository.log().await.unwrap().ledger();
            let end = ledger.covered(&lineage).end();
            if end.is_some_and(|end| end >= lsn) {
                return;
            }
            assert!(!self.task.is_finished(), "the capture ended before {lsn:X}, at {end:X?}: {:?}", self.found);
            tokio::time::timeout(Duration::from_millis(10), std::future::pending::<()>()).await.unwrap_err();
        }
        panic!("the capture does not reach {lsn:X}: {:?}", self.found);
    }

    /// Ends it as an operator does.
    pub(crate) async fn stop(self) -> Arc<dyn LogSink> {
        self.cancel.cancel();
        self.task.await.unwrap().unwrap()
    }

    /// Whether it has ended by itself.
    pub(crate) fn ended(&self) -> bool {
        self.task.is_finished()
    }

    /// Waits until it ends by itself, and why.
    pub(crate) async fn failure(self) -> backup_core::Error {
        let ended = tokio::time::timeout(PATIENCE, self.task).await.expect("the capture goes on");
        ended.unwrap().map(drop).expect_err("the capture ended without an error")
    }

    /// Ends it as a crash does.
    pub(crate) async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// Makes sure that everything up to here is on its way to whoever follows, and says where that is.
pub(crate) async fn flushed(client: &Client) -> PgLsn {
    // A transaction that writes and commits has its log flushed.
    client.batch_execute("select pg_logical_emit_message(true, 'test', 'flush')").await.unwrap();
    client.query_one("select pg_current_wal_flush_lsn()", &[]).await.unwrap().get(0)
}

/// The commits in the log files of `server`, in the order of the log.
pub(crate) fn commits(server: &Postgres, timeline: u32) -> Vec<Commit> {
    let timeline = TimelineId::new(timeline).unwrap();
    let mut names: Vec<SegmentName> = std::fs::read_dir(server.data_dir().join("pg_wal"))
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .filter(|name: &SegmentName| name.timeline == timeline)
        .collect();
    names.sort_unstable();
    let mut reader: Option<WalReader> = None;
    let mut commits = Vec::new();
    for name in names {
        let bytes = std::fs::read(server.data_dir().join("pg_wal").join(name.to_string())).unwrap();
        let Ok(header) = LongPageHeader::parse(&bytes) else { break };
        if header.check_name(name).is_err() {
            break;
        }
        let reader = reader.get_or_insert_with(|| {
            let format = WalFormat::of(&header, timeline).unwrap();
            WalReader::new(format, header.address).unwrap()
        });
        reader.push(bytes.into());
        while let Some(record) = reader.next().unwrap() {
            if let Some(Event::Commit(end)) = record.event().unwrap() {
                commits.push(Commit { xid: end.xid, time: end.time, start: record.start.0, end: record.end.0 });
            }
        }
    }
    commits
}

/// A commit in the log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Commit {
    pub(crate) xid: u32,
    pub(crate) time: jiff::Timestamp,
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// A table in which every transaction leaves a row: which of them a restored database has is known to the transaction.
pub(crate) struct Tally;

impl Tally {
    pub(crate) async fn create(client: &Client) {
        client.batch_execute("create table tally (n int primary key, filler text)").await.unwrap();
    }

    /// Adds rows `range`, one transaction each.
    pub(crate) async fn add(client: &Client, range: std::ops::Range<i32>) {
        for n in range {
            let sql = "insert into tally values ($1, repeat('x', 200))";
            client.execute(sql, &[&n]).await.unwrap();
        }
    }

    /// The rows, each with the transaction that added it.
    pub(crate) async fn rows(client: &Client) -> Vec<(i32, u32)> {
        let rows = client.query("select n, xmin::text::bigint from tally order by n", &[]).await.unwrap();
        rows.iter().map(|row| (row.get(0), row.get::<_, i64>(1) as u32)).collect()
    }
}
