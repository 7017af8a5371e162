//! A vault, an engine on a running server, and servers made from what is stored.

use std::sync::Arc;
use std::time::Duration;

use backup_core::catalog::BackupRecord;
use backup_core::engine::{CheckReport, LogOptions, LogSource, Restored, Work};
use backup_core::entry::{EntryPath, Selector};
use backup_core::env::Env;
use backup_core::log::{LogPath, LogRange};
use backup_core::observe::{Observer, Progress};
use backup_core::repository::{MemoryRepository, Repository};
use backup_core::run::{self, BackupOptions};
use backup_core::{BackupSourceExt as _, Finding, Lineage, LogPosition, RecoveryTarget, Result, ServiceId};
use backup_redis::{RedisEngine, RedisSettings, RestoreSettings};
use backup_testkit::{Redis, scratch_dir};
use futures::TryStreamExt as _;
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

/// How long a server may take for what it does at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How a test reaches `server`.
pub(crate) fn settings(server: &Redis) -> RedisSettings {
    let login = server.password().map(|password| format!(":{password}@")).unwrap_or_default();
    RedisSettings::default().url(format!("redis://{login}127.0.0.1:{}", server.port())).identity("the test")
}

/// An engine on `server`.
pub(crate) fn engine(server: &Redis) -> RedisEngine {
    RedisEngine::new(settings(server)).unwrap()
}

pub(crate) fn work() -> Work {
    Work::new(Env::system())
}

/// The backups of one service.
#[derive(Debug, Clone)]
pub(crate) struct Vault(pub(crate) Arc<dyn Repository>);

impl Vault {
    /// An empty one in memory.
    pub(crate) fn memory() -> Self {
        Self(Arc::new(MemoryRepository::new(ServiceId::new("cache").unwrap())))
    }

    pub(crate) async fn backup(&self, engine: &RedisEngine) -> BackupRecord {
        self.try_backup(engine).await.unwrap_or_else(|error| panic!("{engine}: {error:?}"))
    }

    pub(crate) async fn try_backup(&self, engine: &RedisEngine) -> Result<BackupRecord> {
        run::backup(self.0.as_ref(), engine, BackupOptions::default(), &work()).await
    }

    /// Restores the snapshot of `backup`.
    pub(crate) async fn restore(&self, backup: &BackupRecord, settings: RestoreSettings) -> Result<Restored> {
        let engine = RedisEngine::new(RedisSettings::default()).unwrap().with_restore(settings);
        let goal = RecoveryTarget::backup(backup.id);
        let plan = run::plan_restore(self.0.as_ref(), &engine, goal, Selector::all(), &work()).await?;
        run::restore(&engine, &plan, &work()).await
    }

    pub(crate) async fn check(&self, engine: &RedisEngine, backup: &BackupRecord) -> CheckReport {
        run::check(self.0.as_ref(), engine, backup.id, &work()).await.unwrap()
    }

    /// A record of `backup` as text.
    pub(crate) async fn record(&self, backup: &BackupRecord, name: &str) -> String {
        let source = self.0.open(backup.id).await.unwrap();
        let bytes = source.read_small(&EntryPath::new(name).unwrap(), 1 << 20).await.unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Writes the snapshot file of `backup` into a new folder.
    pub(crate) async fn file(&self, backup: &BackupRecord) -> (TempDir, Restored) {
        let home = scratch_dir().unwrap();
        let engine = RedisEngine::new(RedisSettings::default().data_dir(home.path().join("data"))).unwrap();
        let goal = RecoveryTarget::backup(backup.id);
        let plan = run::plan_restore(self.0.as_ref(), &engine, goal, Selector::all(), &work()).await.unwrap();
        let restored = run::restore(&engine, &plan, &work()).await.unwrap();
        (home, restored)
    }

    /// Starts a server like `like` from the snapshot of `backup`.
    pub(crate) async fn server(&self, backup: &BackupRecord, like: &Redis) -> (TempDir, Redis) {
        let (home, _) = self.file(backup).await;
        let server = Redis::builder(like.version()).data_dir(home.path().join("data")).start().await.unwrap();
        (home, server)
    }

    pub(crate) async fn log(&self) -> Arc<dyn LogSource> {
        self.0.log().await.unwrap()
    }

    /// The way from the end of `backup` along the history that the source follows.
    pub(crate) async fn path(&self, backup: &BackupRecord) -> LogPath {
        self.log().await.ledger().paths(backup.snapshot.stop.as_ref().unwrap()).remove(0)
    }

    /// The stored stream behind `backup` up to `end`.
    pub(crate) async fn stream(&self, backup: &BackupRecord, end: u64) -> Vec<u8> {
        let log = self.log().await;
        let mut bytes = Vec::new();
        for range in self.path(backup).await.ranges {
            let part = LogRange::new(range.lineage.clone(), range.start..range.end.min(end));
            let pieces: Vec<_> = log.read(part).try_collect().await.unwrap();
            bytes.extend(pieces.concat());
        }
        bytes
    }
}

pub(crate) fn fact<'a>(backup: &'a BackupRecord, name: &str) -> &'a str {
    backup.snapshot.fact(name).unwrap_or_else(|| panic!("no fact {name}: {backup:?}"))
}

pub(crate) fn finding<'a>(findings: &'a [Finding], code: &str) -> Option<&'a Finding> {
    findings.iter().find(|finding| finding.code == code)
}

/// Lets `server` execute a stream as if it were a client's. The stream begins in `database`.
pub(crate) async fn replay(server: &Redis, database: u64, stream: &[u8]) {
    let socket = tokio::net::UnixStream::connect(server.socket()).await.unwrap();
    let (mut read, mut write) = socket.into_split();
    let stream =
        [format!("SELECT {database}\r\n").into_bytes(), stream.to_vec(), b"ECHO end-of-stream\r\n".to_vec()].concat();
    let writing = tokio::spawn(async move {
        write.write_all(&stream).await.unwrap();
        write
    });
    let mut answers = Vec::new();
    while !answers.ends_with(b"end-of-stream\r\n") {
        assert_ne!(read.read_buf(&mut answers).await.unwrap(), 0, "the server hung up: {}", server.log());
    }
    drop(writing.await.unwrap());
    let text = String::from_utf8_lossy(&answers);
    let errors: Vec<_> = text.lines().filter(|line| line.starts_with('-')).collect();
    assert!(errors.is_empty(), "{errors:?}");
}

/// Where the stream of `server` stands, with everything that was written before.
pub(crate) async fn position(server: &Redis) -> LogPosition {
    let id = server.info("replication", "master_replid").await.unwrap().unwrap();
    let offset = server.info("replication", "master_repl_offset").await.unwrap().unwrap().parse().unwrap();
    LogPosition::new(Lineage::new(id), offset, "")
}

/// Up to which offset the log of the lineage of `position` is stored.
pub(crate) async fn stored_end(repository: &dyn Repository, position: &LogPosition) -> u64 {
    let ledger = repository.log().await.unwrap().ledger();
    ledger.covered(&position.lineage).end().unwrap_or(0)
}

/// What was noticed.
#[derive(Debug, Default)]
pub(crate) struct Found(Mutex<Vec<Finding>>);

impl Observer for Found {
    fn on(&self, progress: &Progress) {
        if let Progress::Found(finding) = progress {
            self.0.lock().push(finding.clone());
        }
    }
}

impl Found {
    pub(crate) fn has(&self, code: &str) -> bool {
        self.0.lock().iter().any(|finding| finding.code == code)
    }
}

/// A capture that runs beside a test.
pub(crate) struct Capture {
    vault: Vault,
    pub(crate) found: Arc<Found>,
    cancel: CancellationToken,
    task: tokio::task::JoinHandle<Result<()>>,
}

impl Capture {
    pub(crate) fn start(vault: &Vault, settings: RedisSettings) -> Self {
        let found = Arc::new(Found::default());
        let cancel = CancellationToken::new();
        let work = work().with_observer(Arc::clone(&found) as Arc<dyn Observer>).with_cancel(cancel.clone());
        let repository = Arc::clone(&vault.0);
        let task = tokio::spawn(async move {
            let engine = RedisEngine::new(settings)?;
            let options = LogOptions::default().flush_after(Duration::from_millis(20));
            run::capture(repository.as_ref(), &engine, options, &work).await.map(drop)
        });
        Self { vault: vault.clone(), found, cancel, task }
    }

    /// Waits until the log is stored up to `position`.
    pub(crate) async fn reaches(&self, position: &LogPosition) {
        let deadline = backup_testkit::wait::Deadline::after(PATIENCE);
        loop {
            let end = stored_end(&*self.vault.0, position).await;
            if end >= position.offset {
                return;
            }
            assert!(!self.task.is_finished(), "the capture has ended");
            assert!(!deadline.passed(), "{end} of {position:?}, found {:?}", self.found);
            backup_testkit::wait::pause().await;
        }
    }

    /// Waits until something was noticed.
    pub(crate) async fn finds(&self, code: &str) {
        let deadline = backup_testkit::wait::Deadline::after(PATIENCE);
        while !self.found.has(code) {
            assert!(!self.task.is_finished(), "the capture has ended");
            assert!(!deadline.passed(), "{code} is not in {:?}", self.found);
            backup_testkit::wait::pause().await;
        }
    }

    /// Ends it as it is meant to be ended.
    pub(crate) async fn stop(self) {
        self.cancel.cancel();
        self.task.await.unwrap().unwrap();
    }

    /// Ends it in the middle of whatever it does.
    pub(crate) async fn abort(self) {
        self.task.abort();
        assert!(self.task.await.is_err_and(|error| error.is_cancelled()));
    }

    /// The error that it ends with by itself.
    pub(crate) async fn fails(self) -> backup_core::Error {
        self.task.await.unwrap().unwrap_err()
    }
}
