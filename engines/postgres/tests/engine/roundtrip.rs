//! Under load, on every version, both ways: a backup restores to a consistent state between its start and its end.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use backup_core::BackupEngine;
use backup_core::catalog::{BackupKind, BackupRecord};
use backup_postgres::{Method, PostgresEngine};
use backup_testkit::pgbench::{Bank, BankState};
use backup_testkit::{PgVersion, Postgres, StopMode, require_or_skip, versions_under_test};

use crate::harness::{METHODS, PATIENCE, Target, Vault, beside, digest, engine, settings, value};

/// What a database of every kind of object is made of, besides the bank.
async fn furnish(server: &Postgres) {
    let client = server.connect("postgres").await.unwrap();
    for name in ["fast", "slow"] {
        let dir = beside(server, name);
        client.batch_execute(&format!("create tablespace {name} location '{}'", dir.display())).await.unwrap();
    }
    for sql in [
        "create database empty",
        "create database bank tablespace fast",
        "create database of_template template bank",
        "create table in_slow (id int primary key using index tablespace slow, text text) tablespace slow",
        "insert into in_slow select i, md5(i::text) from generate_series(1, 20000) i",
        "create unlogged table volatile as select i from generate_series(1, 5000) i",
        "create index on volatile (i)",
    ] {
        client.batch_execute(sql).await.unwrap();
    }
    // A name that is no UTF-8, in the data directory and in a database's folder.
    for folder in ["", "base/1"] {
        let path = server.data_dir().join(folder).join(OsStr::from_bytes(b"caf\xe9 \xff"));
        std::fs::write(&path, b"bytes").unwrap();
        backup_testkit::unprivileged().own(&path).unwrap();
    }
}

fn by_client(state: &BankState) -> BTreeMap<i32, i64> {
    state.last_by_client.iter().copied().collect()
}

/// A backup with what the bank had acknowledged before it began and after it had ended.
struct Shot {
    record: BackupRecord,
    before: BTreeMap<i32, i64>,
    after: BTreeMap<i32, i64>,
}

async fn shoot(vault: &Vault, server: &Postgres, method: Method) -> Shot {
    let client = server.connect("bank").await.unwrap();
    let before = by_client(&Bank::check(&client).await.unwrap());
    let record = vault.backup(&engine(server, method)).await;
    let after = by_client(&Bank::check(&client).await.unwrap());
    Shot { record, before, after }
}

async fn assert_restores(vault: &Vault, server: &Postgres, shot: &Shot) {
    let target = Target::new(server.version()).map_tablespaces(server).await;
    let restored = target.restore(vault, &shot.record).await.unwrap();
    assert_eq!(restored.extracted.removed, 0);
    let mut copy = target.open().await;
    let bank = copy.connect("bank").await.unwrap();
    let found = by_client(&Bank::check(&bank).await.unwrap_or_else(|e| panic!("{}", e.full())));
    for (client, last) in &shot.before {
        assert!(found.get(client) >= Some(last), "client {client}: {found:?} is older than the backup's start");
    }
    for (client, last) in &found {
        assert!(shot.after.get(client) >= Some(last), "client {client}: {found:?} is newer than the backup's end");
    }
    let client = copy.connect("postgres").await.unwrap();
    assert_eq!(value(&client, "select count(*) from volatile").await, "0", "unlogged tables are restored empty");
    assert_eq!(value(&client, "select count(*) from in_slow").await, "20000");
    client.batch_execute("insert into volatile values (1); create table new as select 1; checkpoint").await.unwrap();
    assert_eq!(value(&client, "select count(*) from pg_database").await, "6");
    assert_eq!(std::fs::read(target.data().join(OsStr::from_bytes(b"base/1/caf\xe9 \xff"))).unwrap(), b"bytes");

    // A timeline of its own.
    let source = server.connect("postgres").await.unwrap();
    let timeline = "select substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)";
    assert_ne!(value(&client, timeline).await, value(&source, timeline).await);
    copy.stop(StopMode::Fast).await.unwrap();
}

/// Restores what nobody wrote meanwhile: it is equal, and a restart shows that nothing of the recovery is left.
async fn assert_equals(vault: &Vault, server: &Postgres, record: &BackupRecord) {
    let target = Target::new(server.version()).map_tablespaces(server).await;
    target.restore(vault, record).await.unwrap();
    let mut copy = target.open().await;
    assert_eq!(digest(&copy).await, digest(server).await);
    copy.restart().await.unwrap();
    let client = copy.connect("postgres").await.unwrap();
    for setting in ["recovery_target", "recovery_target_action", "primary_conninfo"] {
        let sql = format!("select setting = boot_val from pg_settings where name = '{setting}'");
        assert_eq!(value(&client, &sql).await, "true", "{setting} is as if there had been no restore");
    }
    assert!(!target.data().join("standby.signal").exists());
    // The server rewrites the file, and with it the inclusion of what does not exist any more goes too.
    client.batch_execute("alter system set work_mem = '5MB'").await.unwrap();
    let conf = std::fs::read_to_string(target.data().join("postgresql.auto.conf")).unwrap();
    assert!(!conf.contains("include"), "{conf}");
    copy.stop(StopMode::Fast).await.unwrap();
}

async fn round_trip(version: PgVersion, method: Method) {
    let server = require_or_skip!(Postgres::builder(version).setting("checkpoint_timeout", "30s").start().await);
    furnish(&server).await;
    let client = server.connect("bank").await.unwrap();
    let bank = Bank::create(&client, 20_000).await.unwrap();
    let vault = Vault::memory();

    // Temporary tables are in use all the time.
    let temporary = server.connect("bank").await.unwrap();
    temporary.batch_execute("create temp table passing as select i from generate_series(1, 9999) i").await.unwrap();
    let load = bank.run(&server, "bank", 4).await.unwrap();
    assert!(load.wait_committed(50, PATIENCE).await);
    let full = shoot(&vault, &server, method).await;
    assert!(load.wait_committed(50, PATIENCE).await);
    let incremental = shoot(&vault, &server, method).await;
    let report = load.stop().await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);

    // Nothing moves: the restored cluster is equal.
    let still = shoot(&vault, &server, method).await;
    assert_eq!(full.record.kind, BackupKind::Full);
    for shot in [&incremental, &still] {
        assert_eq!(shot.record.kind, BackupKind::Incremental);
        assert!(shot.record.new_bytes < full.record.new_bytes / 2, "{shot:?}", shot = shot.record);
    }
    for shot in [&full, &incremental, &still] {
        assert_eq!(shot.record.snapshot.method, method.to_string());
        // Through a server without summaries everything is sent, and that is said.
        let usual = |code: &str| code == "unsafe-setting" || method == Method::Protocol && code == "changes-unknown";
        assert!(shot.record.snapshot.findings.iter().all(|f| usual(&f.code)), "{:?}", shot.record.snapshot);
        let report = vault.check(&engine(&server, method), &shot.record).await;
        assert!(report.findings.is_empty(), "{:?}", report.findings);
    }
    assert_restores(&vault, &server, &full).await;
    assert_restores(&vault, &server, &incremental).await;
    assert_equals(&vault, &server, &still.record).await;
}

macro_rules! both_ways {
    ($($name:ident: $version:ident),* $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            if versions_under_test().contains(&PgVersion::$version) {
                for method in METHODS {
                    round_trip(PgVersion::$version, method).await;
                }
            }
        }
    )*};
}

both_ways![v13: V13, v14: V14, v15: V15, v16: V16, v17: V17, v18: V18];

/// Without being told, the engine reads directly where it can, and says so.
#[tokio::test(flavor = "multi_thread")]
async fn the_way_is_chosen() {
    let server = require_or_skip!(Postgres::builder(PgVersion::V17).start().await);
    let alone = PostgresEngine::new(settings(&server)).unwrap();
    assert_eq!(alone.inspect().await.unwrap().method, "local");

    // A role that may only replicate reads through the server, also where the directory could be seen.
    let client = server.connect("postgres").await.unwrap();
    client
        .batch_execute("create role streamer login replication password 'x' in role pg_read_all_settings")
        .await
        .unwrap();
    let url = format!("host=127.0.0.1 port={} user=streamer password=x dbname=postgres", server.port());
    let streamer = PostgresEngine::new(settings(&server).url(url)).unwrap();
    assert_eq!(streamer.inspect().await.unwrap().method, "protocol");
    Vault::memory().backup(&streamer).await;
}
