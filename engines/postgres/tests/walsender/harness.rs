//! Sources whose log is kept, restored directories that follow a WAL server, and feeds of both.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use backup_core::catalog::BackupRecord;
use backup_core::engine::Work;
use backup_core::entry::Selector;
use backup_core::env::Env;
use backup_core::repository::{MemoryRepository, Repository};
use backup_core::run::{self, BackupOptions};
use backup_core::{RecoveryTarget, ServiceId};
use backup_postgres::conn::Settings;
use backup_postgres::walsender::{DirectoryFeed, Endpoint, Progress, WalServer, WalServerOptions};
use backup_postgres::wire::{Session, SessionKind};
use backup_postgres::{Error, Lsn, PostgresEngine, PostgresSettings};
use backup_testkit::tokio_postgres::Client;
use backup_testkit::{PgVersion, Postgres, PostgresBuilder, StopMode, require_or_skip, scratch_dir, unprivileged};
use tempfile::TempDir;

/// How long a server may take for what it does at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A source that keeps all of its log in `pg_wal`.
pub(crate) fn source(version: PgVersion) -> PostgresBuilder {
    // A recycled segment would have another name; none is recycled while so much is kept.
    Postgres::builder(version).setting("wal_keep_size", "4GB").setting("max_wal_size", "4GB")
}

/// One backup in memory.
pub(crate) struct Vault {
    repository: MemoryRepository,
    record: BackupRecord,
}

impl Vault {
    pub(crate) async fn of(source: &Postgres) -> Self {
        let repository = MemoryRepository::new(ServiceId::new("bank").unwrap());
        let settings = PostgresSettings::default().url(source.unix_conn_string("postgres"));
        let engine = PostgresEngine::new(settings).unwrap();
        let work = Work::new(Env::system());
        let record = run::backup(&repository, &engine, BackupOptions::default(), &work).await.unwrap();
        Self { repository, record }
    }

    /// Restores into a directory of its own.
    pub(crate) async fn restore(&self, version: PgVersion) -> Restored {
        let home = scratch_dir().unwrap();
        let data = home.path().join("data");
        std::fs::create_dir(&data).unwrap();
        unprivileged().own(&data).unwrap();
        let engine = PostgresEngine::new(PostgresSettings::default().data_dir(&data)).unwrap();
        let work = Work::new(Env::system());
        let repository: &dyn Repository = &self.repository;
        let goal = RecoveryTarget::backup(self.record.id);
        let plan = run::plan_restore(repository, &engine, goal, Selector::all(), &work).await.unwrap();
        run::restore(&engine, &plan, &work).await.unwrap();
        Restored { _home: home, data, version }
    }
}

/// A restored data directory.
pub(crate) struct Restored {
    _home: TempDir,
    data: PathBuf,
    version: PgVersion,
}

impl Restored {
    /// Has it follow `conninfo` until `target` and become a primary before the record there is applied, or follow for
    /// ever.
    pub(crate) fn follow(&self, conninfo: &str, target: Option<Lsn>) {
        let conninfo = conninfo.replace('\'', "''");
        let end = target.map_or_else(String::new, |target| {
            format!(
                "recovery_target_lsn = '{target}'\nrecovery_target_inclusive = off\nrecovery_target_action = 'promote'\n"
            )
        });
        let signal = format!("primary_conninfo = '{conninfo}'\nrecovery_target_timeline = 'latest'\n{end}");
        std::fs::write(self.data.join("standby.signal"), signal).unwrap();
    }

    /// Adds settings for as long as it is in recovery.
    pub(crate) fn configure(&self, settings: &str) {
        let path = self.data.join("standby.signal");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, text + settings).unwrap();
    }

    /// Starts it and waits until it can be asked.
    pub(crate) async fn open(&self) -> Postgres {
        Postgres::builder(self.version)
            .setting("archive_mode", "off")
            // It comes back soon after an interruption, so that a test need not wait.
            .setting("wal_retrieve_retry_interval", "100ms")
            .open(&self.data)
            .await
            .unwrap_or_else(|e| panic!("{}", e.full()))
    }
}

/// A directory of segments.
pub(crate) struct Archive(pub(crate) TempDir);

impl Archive {
    pub(crate) fn new() -> Self {
        Self(scratch_dir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes over what is in `pg_wal` of `server` and wanted.
    pub(crate) fn copy(&self, server: &Postgres, wanted: impl Fn(&str) -> bool) {
        for name in log_files(server) {
            if wanted(&name) {
                // Under its name only when it is whole, as an archive command should do it.
                let (staged, path) = (self.path().join("staged"), self.path().join(&name));
                std::fs::copy(server.data_dir().join("pg_wal").join(&name), &staged).unwrap();
                std::fs::rename(staged, path).unwrap();
            }
        }
    }

    pub(crate) async fn feed(&self) -> DirectoryFeed {
        DirectoryFeed::open(self.path(), &Env::system()).await.unwrap().interval(Duration::from_millis(20))
    }

    pub(crate) async fn serve(&self) -> WalServer {
        serve(self.feed().await, options()).await
    }
}

/// The names of segments and histories in `pg_wal` of `server`, in their order.
pub(crate) fn log_files(server: &Postgres) -> Vec<String> {
    let entries = std::fs::read_dir(server.data_dir().join("pg_wal")).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| (name.len() == 24 && !name.contains('.')) || name.ends_with(".history"));
    names.sort();
    names
}

/// Options of a server in a test: impatient.
pub(crate) fn options() -> WalServerOptions {
    WalServerOptions::default().progress_interval(Duration::from_millis(50))
}

pub(crate) async fn serve(feed: DirectoryFeed, options: WalServerOptions) -> WalServer {
    WalServer::start(Arc::new(feed), options, &Env::system()).await.unwrap()
}

/// What our client needs to know of `server`.
pub(crate) fn settings(server: &WalServer, rest: &str) -> Settings {
    let text = match server.endpoint() {
        Endpoint::Tcp(address) => format!("host={} port={}", address.ip(), address.port()),
        Endpoint::Unix { dir, port } => format!("host='{}' port={port}", dir.display()),
        other => panic!("{other:?}"),
    };
    let text = format!("{text} user={} password={} {rest}", server.user(), server.token().reveal());
    Settings::parse(&text, |_| None).unwrap()
}

pub(crate) async fn connect(server: &WalServer) -> Result<Session, Error> {
    Session::connect(&settings(server, ""), SessionKind::Replication).await
}

/// Waits until the progress of `server` is as wanted.
pub(crate) async fn wait_for(server: &WalServer, mut wanted: impl FnMut(&Progress) -> bool) -> Progress {
    let mut watch = server.progress();
    let found = tokio::time::timeout(PATIENCE, watch.wait_for(|progress| wanted(progress))).await;
    match found {
        Ok(progress) => progress.unwrap().clone(),
        Err(_) => panic!("not in time: {:?}, failure {:?}", server.progress().borrow(), server.failure()),
    }
}

/// One value of a query as text.
pub(crate) async fn value(client: &Client, sql: &str) -> String {
    client.query_one(&format!("select ({sql})::text"), &[]).await.unwrap().get(0)
}

pub(crate) async fn position(client: &Client) -> Lsn {
    value(client, "pg_current_wal_insert_lsn()").await.parse().unwrap()
}

/// Creates the ledger: rows with consecutive numbers, one transaction each.
pub(crate) async fn create_ledger(client: &Client) {
    client.batch_execute("create table ledger (n bigserial primary key, filler text)").await.unwrap();
}

/// Writes `count` rows of some kilobytes; where the log was behind the last one.
pub(crate) async fn write_ledger(client: &Client, count: usize) -> Lsn {
    for _ in 0..count {
        let sql = "insert into ledger (filler) select string_agg(md5(random()::text), '') from generate_series(1, 60)";
        client.batch_execute(sql).await.unwrap();
    }
    position(client).await
}

pub(crate) async fn ledger(client: &Client) -> usize {
    value(client, "select count(*) from ledger").await.parse().unwrap()
}

/// The timeline that a primary writes on.
pub(crate) async fn timeline(client: &Client) -> u32 {
    let name = value(client, "pg_walfile_name(pg_current_wal_insert_lsn())").await;
    u32::from_str_radix(&name[..8], 16).unwrap()
}

/// An archive with some full segments of 1 MiB, the newest one not full, on timelines 1 and 2.
pub(crate) async fn two_timelines(version: PgVersion) -> Option<Archive> {
    let first = require_or_skip!(source(version).initdb_arg("--wal-segsize=1").start().await, None);
    let client = first.connect("postgres").await.unwrap();
    create_ledger(&client).await;
    write_ledger(&client, 600).await;
    let mut second = source(version).standby_of(&first).await.unwrap_or_else(|e| panic!("{}", e.full()));
    second.promote().await.unwrap();
    let client = second.connect("postgres").await.unwrap();
    write_ledger(&client, 1500).await;
    // The end is to lie in the middle of a segment, where what the server writes while it stops does not leave it.
    let far = "select (pg_current_wal_insert_lsn() - '0/0')::bigint % 1048576 not between 262144 and 786432";
    while client.query_one(far, &[]).await.unwrap().get(0) {
        // In records that are smaller than a page.
        let sql =
            "select count(pg_logical_emit_message(false, 'test', repeat('x', 1000))) from generate_series(1, 100)";
        client.batch_execute(sql).await.unwrap();
    }
    drop(client);
    second.stop(StopMode::Fast).await.unwrap();
    let archive = Archive::new();
    archive.copy(&first, |_| true);
    archive.copy(&second, |_| true);
    Some(archive)
}
