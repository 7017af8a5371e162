//! A vault, an engine on a running server, and places to restore into.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use backup_core::catalog::BackupRecord;
use backup_core::engine::{CheckReport, Restored, Work};
use backup_core::entry::Selector;
use backup_core::env::Env;
use backup_core::repository::{MemoryRepository, Repository};
use backup_core::run::{self, BackupOptions, RestorePlan};
use backup_core::{RecoveryTarget, Result, ServiceId};
use backup_postgres::{Method, PostgresEngine, PostgresSettings};
use backup_testkit::pgbench::{ClusterDigest, digest_cluster};
use backup_testkit::tokio_postgres::Client;
use backup_testkit::{PgVersion, Postgres, StopMode, scratch_dir, unprivileged};
use tempfile::TempDir;

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
