//! What cannot be done is refused with one clear error, and nothing is written or lost.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use backup_core::engine::Work;
use backup_core::observe::{Observer, Phase, Progress};
use backup_core::run::{self, BackupOptions};
use backup_core::{BackupEngine, ErrorKind, Finding, Severity};
use backup_postgres::{Method, PostgresEngine, PostgresSettings};
use backup_testkit::{PgVersion, Postgres, SmallDisk, StopMode, or_skip, require_or_skip};
use parking_lot::Mutex;

use crate::harness::{METHODS, Target, Vault, beside, digest, digest_of, engine, folder, settings, work};

const VERSION: PgVersion = PgVersion::V17;

/// Every file below `dir` with its length.
fn listing(dir: &Path) -> BTreeMap<std::path::PathBuf, u64> {
    let mut found = BTreeMap::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            let facts = path.symlink_metadata().unwrap();
            if facts.is_dir() {
                folders.push(path.clone());
            }
            found.insert(path, facts.len());
        }
    }
    found
}

/// That a restore of `vault`'s only backup by `settings` is refused for `code`, by the plan and by the engine, and that
/// `untouched` stays as it is.
async fn assert_refused(vault: &Vault, settings: PostgresSettings, code: &str, untouched: &Path) {
    let record = vault.0.catalog().await.unwrap().backups().next().unwrap().clone();
    let engine = PostgresEngine::new(settings).unwrap();
    let before = listing(untouched);
    let plan = vault.plan(&engine, &record).await.unwrap();
    let blockers: Vec<&Finding> = plan.blockers().collect();
    assert!(blockers.iter().any(|f| f.code == code && !f.subject.is_empty()), "{code}: {blockers:?}");
    // What stands in the surroundings is not the fault of who asked.
    let kind = match code {
        "running" | "no-space" | "wrong-owner" => ErrorKind::Environment,
        _ => ErrorKind::InvalidInput,
    };
    assert_eq!(vault.restore(&engine, &record).await.unwrap_err().kind(), kind, "{code}");
    let source = vault.0.open(record.id).await.unwrap();
    let goal = backup_core::RecoveryTarget::backup(record.id);
    let cx = backup_core::engine::RestoreContext::new(work(), source, goal);
    assert_eq!(engine.restore(&cx).await.unwrap_err().kind(), kind, "{code}");
    assert_eq!(before, listing(untouched), "{code}: something was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_that_are_not_ours_to_write() {
    let mut server = require_or_skip!(Postgres::builder(VERSION).start().await);
    let client = server.connect("postgres").await.unwrap();
    let space = beside(&server, "space");
    client.batch_execute(&format!("create tablespace space location '{}'", space.display())).await.unwrap();
    client.batch_execute("create table t tablespace space as select generate_series(1, 100)").await.unwrap();
    let vault = Vault::memory();
    vault.backup(&engine(&server, Method::Local)).await;

    let target = Target::new(VERSION);
    assert_refused(&vault, target.settings(), "not-empty", &space).await;
    let mapped = target.map_tablespaces(&server).await;
    std::fs::write(mapped.data().join("precious"), "x").unwrap();
    assert_refused(&vault, mapped.settings(), "not-empty", mapped.data()).await;
    // Not even a rewriting restore takes over what is no cluster.
    assert_refused(&vault, mapped.settings().delta(true), "not-empty", mapped.data()).await;
    assert_refused(&vault, mapped.settings().data_dir(server.data_dir()), "not-empty", server.data_dir()).await;
    assert_refused(&vault, mapped.settings().data_dir(server.data_dir()).delta(true), "running", &space).await;

    // A tablespace's directory that holds something else, also when its own cluster is rewritten.
    server.stop(StopMode::Fast).await.unwrap();
    let own = PostgresSettings::default().data_dir(server.data_dir()).delta(true);
    std::fs::write(space.join("precious"), "x").unwrap();
    assert_refused(&vault, own, "not-empty", &space).await;
    std::fs::remove_file(space.join("precious")).unwrap();
    let other = beside(&server, "other");
    std::fs::create_dir(other.join("PG_17_202406281")).unwrap();
    let elsewhere = PostgresSettings::default()
        .data_dir(server.data_dir())
        .delta(true)
        .tablespace(client_oid(&vault).await, &other);
    assert_refused(&vault, elsewhere, "not-empty", &other).await;
    server.start().await.unwrap();
    assert_eq!(server.connect("postgres").await.unwrap().query("select * from t", &[]).await.unwrap().len(), 100);
}

/// The only tablespace in the only backup.
async fn client_oid(vault: &Vault) -> String {
    let record = vault.0.catalog().await.unwrap().backups().next().unwrap().clone();
    let text = record.snapshot.fact("tablespaces").unwrap().to_owned();
    text.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_not_rewritten_into_another() {
    let server = require_or_skip!(Postgres::builder(VERSION).start().await);
    let vault = Vault::memory();
    vault.backup(&engine(&server, Method::Local)).await;
    let mut other = require_or_skip!(Postgres::builder(VERSION).fresh_identity().start().await);
    other.stop(StopMode::Fast).await.unwrap();
    let into_other = PostgresSettings::default().data_dir(other.data_dir()).delta(true);
    assert_refused(&vault, into_other, "other-cluster", other.data_dir()).await;
    other.start().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_that_make_no_sense() {
    let server = require_or_skip!(Postgres::builder(VERSION).start().await);
    let vault = Vault::memory();
    let record = vault.backup(&engine(&server, Method::Local)).await;
    let relative = PostgresSettings::default().data_dir("relative/path");
    let unknown = Target::new(VERSION).settings().tablespace("4711", "/somewhere");
    for settings in [relative, unknown, PostgresSettings::default()] {
        let refused = vault.plan(&PostgresEngine::new(settings).unwrap(), &record).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{refused}");
    }
    assert_eq!(
        PostgresEngine::new(PostgresSettings::default().url("postgres://x:y@[")).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_without_room() {
    let server = require_or_skip!(Postgres::builder(VERSION).start().await);
    let vault = Vault::memory();
    vault.backup(&engine(&server, Method::Local)).await;
    let Some(place) = SmallDisk::mount(4 << 20).unwrap() else { return };
    let data = place.path().join("data");
    folder(&data);
    let into_little = PostgresSettings::default().data_dir(&data);
    assert_refused(&vault, into_little, "no-space", &data).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_may_not() {
    let server = require_or_skip!(Postgres::builder(VERSION).start().await);
    let client = server.connect("postgres").await.unwrap();
    client.batch_execute("create role plain login password 'secret-word'").await.unwrap();
    let vault = Vault::memory();
    let url = |user: &str, password: &str| {
        format!("host=127.0.0.1 port={} user={user} password={password} dbname=postgres", server.port())
    };
    let plain = PostgresSettings::default().url(url("plain", "secret-word"));
    let wrong = PostgresSettings::default().url(url("postgres", "guessed-word"));
    for settings in [plain.clone().method(Method::Protocol), plain.method(Method::Local), wrong] {
        let engine = PostgresEngine::new(settings).unwrap();
        let error = vault.try_backup(&engine, BackupOptions::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Environment, "{error}");
        let shown = format!("{error} {error:?} {engine} {engine:?}");
        assert!(!shown.contains("guessed-word") && !shown.contains("secret-word"), "{shown}");
    }
    assert_eq!(vault.count().await, 0);

    // What the local way needs is what the guide says.
    client
        .batch_execute(
            "grant execute on function pg_backup_start(text, boolean), pg_backup_stop(boolean) to plain;
             alter role plain replication",
        )
        .await
        .unwrap();
    let allowed = settings(&server).url(url("plain", "secret-word")).data_dir(server.data_dir());
    for method in METHODS {
        vault.backup(&PostgresEngine::new(allowed.clone().method(method)).unwrap()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_of_somebody_else() {
    let server = require_or_skip!(Postgres::builder(VERSION).start().await);
    let stranger = require_or_skip!(Postgres::builder(VERSION).fresh_identity().start().await);
    let standby = require_or_skip!(Postgres::standby_of(&server).await);
    let vault = Vault::memory();
    for (dir, part) in [(stranger.data_dir(), "system identifier"), (standby.data_dir(), "another running server")] {
        for method in [None, Some(Method::Local)] {
            let mut told = settings(&server).data_dir(dir);
            told.method = method;
            let engine = PostgresEngine::new(told).unwrap();
            let error = vault.try_backup(&engine, BackupOptions::default()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Environment, "{error}");
            assert!(error.to_string().contains(part), "{error}");
        }
        // Nobody has to be where the server is to ask it.
        let told = settings(&server).data_dir(dir).method(Method::Protocol);
        assert_eq!(PostgresEngine::new(told).unwrap().inspect().await.unwrap().method, "protocol");
    }
    // Not even one whose files say that they are the server's.
    let forged = beside(&server, "forged");
    folder(&forged.join("global"));
    for file in ["postmaster.pid", "global/pg_control", "PG_VERSION"] {
        std::fs::copy(server.data_dir().join(file), forged.join(file)).unwrap();
    }
    let told = settings(&server).data_dir(&forged).method(Method::Local);
    let error = vault.try_backup(&PostgresEngine::new(told).unwrap(), BackupOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Environment, "{error}");
    assert_eq!(vault.count().await, 0);
}

/// Says once that bytes are being read, and waits until it may go on.
#[derive(Debug)]
struct Pause {
    paused: AtomicBool,
    reached: SyncSender<()>,
    resume: Mutex<Receiver<()>>,
}

/// An observer, what tells that it holds, and what lets it go on.
fn pause() -> (Arc<Pause>, Receiver<()>, SyncSender<()>) {
    let (reached, told) = sync_channel(1);
    let (go, resume) = sync_channel(1);
    (Arc::new(Pause { paused: AtomicBool::new(false), reached, resume: Mutex::new(resume) }), told, go)
}

impl Observer for Pause {
    fn on(&self, progress: &Progress) {
        let reading = matches!(progress, Progress::Advanced { phase: Phase::Read, .. });
        if reading && !self.paused.swap(true, Ordering::Relaxed) {
            self.reached.send(()).unwrap();
            self.resume.lock().recv().unwrap();
        }
    }
}

/// Takes a backup, and does `meanwhile` when some of it has been read.
async fn disturbed<T>(
    vault: &Vault,
    engine: PostgresEngine,
    meanwhile: impl Future<Output = T>,
) -> backup_core::Result<T> {
    let (observer, told, go) = pause();
    let work = Work::new(backup_core::env::Env::system()).with_observer(observer);
    let repository = Arc::clone(&vault.0);
    let backup = tokio::spawn(async move {
        run::backup(repository.as_ref(), &engine, BackupOptions::default(), &work).await.map(drop)
    });
    tokio::task::spawn_blocking(move || told.recv()).await.unwrap().unwrap();
    let done = meanwhile.await;
    go.send(()).unwrap();
    backup.await.unwrap().map(|()| done)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_stops_half_way() {
    for method in METHODS {
        let mut server = require_or_skip!(Postgres::builder(VERSION).start().await);
        let client = server.connect("postgres").await.unwrap();
        client
            .batch_execute("create table t as select i, md5(i::text) from generate_series(1, 300000) i")
            .await
            .unwrap();
        let vault = Vault::memory();
        let error = disturbed(&vault, engine(&server, method), server.kill9()).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Environment), "{method}: {error}");
        assert_eq!(vault.count().await, 0);
        server.start().await.unwrap();
        let record = vault.backup(&engine(&server, method)).await;
        let target = Target::new(VERSION);
        target.restore(&vault, &record).await.unwrap();
        assert_eq!(digest_of(&target).await, digest(&server).await);
    }
}

/// No slot is free, and the server removes what the backup would need.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_log_that_is_gone() {
    let built = Postgres::builder(VERSION).initdb_arg("--wal-segsize=1").setting("max_replication_slots", "0");
    let built = built.setting("min_wal_size", "2MB").setting("max_wal_size", "2MB").setting("wal_keep_size", "0");
    let Some(server) = or_skip(built.start().await) else { return };
    let client = server.connect("postgres").await.unwrap();
    client.batch_execute("create table t (line text)").await.unwrap();
    for method in METHODS {
        let vault = Vault::memory();
        let much = async {
            for _ in 0..12 {
                client
                    .batch_execute("insert into t select md5(i::text) from generate_series(1, 5000) i")
                    .await
                    .unwrap();
                client.batch_execute("select pg_switch_wal()").await.unwrap();
            }
            client.batch_execute("checkpoint").await.unwrap();
            client.batch_execute("checkpoint").await.unwrap();
        };
        let error = disturbed(&vault, engine(&server, method), much).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Environment, "{method}: {error}");
        assert!(error.to_string().contains("was removed while the backup ran"), "{method}: {error}");
        assert_eq!(vault.count().await, 0);
        // With the advice of the error no slot is needed.
        for sql in ["alter system set wal_keep_size = '64MB'", "select pg_reload_conf()"] {
            client.batch_execute(sql).await.unwrap();
        }
        vault.backup(&engine(&server, method)).await;
        for sql in ["alter system reset wal_keep_size", "select pg_reload_conf()"] {
            client.batch_execute(sql).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_tomorrow() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        let mut startup = vec![0; u32::from_be_bytes(length) as usize - 4];
        stream.read_exact(&mut startup).unwrap();
        // AuthenticationOk, ParameterStatus, ReadyForQuery.
        let mut answer = b"R\0\0\0\x08\0\0\0\0".to_vec();
        let parameter = b"server_version\x0019.0\0";
        answer.push(b'S');
        answer.extend_from_slice(&u32::try_from(parameter.len() + 4).unwrap().to_be_bytes());
        answer.extend_from_slice(parameter);
        answer.extend_from_slice(b"Z\0\0\0\x05I");
        stream.write_all(&answer).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let url = format!("host=127.0.0.1 port={port} user=x password=y sslmode=disable");
    let engine = PostgresEngine::new(PostgresSettings::default().url(url)).unwrap();
    let error = engine.inspect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Environment, "{error}");
    assert!(error.to_string().contains("19"), "{error}");
    drop(engine);
    answering.join().unwrap();
}

/// A server that cannot be backed up says so before anything is read.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_enough_log() {
    let built = Postgres::builder(VERSION).setting("wal_level", "minimal").setting("max_wal_senders", "0");
    let server = require_or_skip!(built.start().await);
    let engine = PostgresEngine::new(settings(&server)).unwrap();
    let found = engine.inspect().await.unwrap().findings;
    assert!(found.iter().any(|f| f.code == "wal-level" && f.severity == Severity::Blocker), "{found:?}");
    let vault = Vault::memory();
    let error = vault.try_backup(&engine, BackupOptions::default()).await.unwrap_err();
    assert_eq!((error.kind(), vault.count().await), (ErrorKind::Environment, 0));
}
