//! Capturing a log: what is acknowledged is stored, once, without a hole; what cannot be is said.

use std::time::Duration;

use backup_core::engine::LogOptions;
use backup_core::{ErrorKind, Goal, Lineage, RecoveryTarget, run};
use backup_postgres::{LogSlot, Method, PostgresEngine, PostgresSettings, Replay};
use backup_testkit::pgbench::Bank;
use backup_testkit::{PgVersion, Postgres, StopMode, require_or_skip};

use crate::harness::{Capture, PATIENCE, Tally, Target, Vault, digest, engine, flushed, settings, value, work};

const VERSION: PgVersion = PgVersion::V17;

fn position(text: &str) -> RecoveryTarget {
    RecoveryTarget::new(Goal::Position(text.to_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_that_is_killed_again_and_again_loses_nothing() {
    let server = require_or_skip!(Postgres::builder(VERSION).start().await);
    let client = server.connect("postgres").await.unwrap();
    let bank = Bank::create(&client, 500).await.unwrap();
    let vault = Vault::memory();
    vault.backup(&engine(&server, Method::Local)).await;
    let load = bank.run(&server, "postgres", 2).await.unwrap();
    let quick = LogOptions::default().flush_after(Duration::from_millis(20));
    for round in 0..6 {
        let capture = Capture::start(&vault.0, settings(&server), quick.clone());
        capture.reaches(1, flushed(&client).await).await;
        assert!(load.wait_committed(200, PATIENCE).await);
        if round % 2 == 0 { capture.kill().await } else { drop(capture.stop().await) }
    }
    let report = load.stop().await;
    let capture = Capture::start(&vault.0, settings(&server), quick);
    capture.reaches(1, flushed(&client).await).await;
    capture.stop().await;
    let restorable = run::windows(vault.0.as_ref(), None, &work()).await.unwrap();
    assert_eq!((restorable.windows.len(), restorable.holes.len()), (1, 0), "{restorable:?}");
    let expected = digest(&server).await;
    for replay in [Replay::Files, Replay::Serve] {
        let place = Target::new(VERSION);
        let restored = place.recover(&vault, RecoveryTarget::latest(), replay).await;
        assert_eq!(digest(&restored).await, expected, "{replay:?}");
        let state = Bank::check(&restored.connect("postgres").await.unwrap()).await.unwrap();
        assert_eq!(state.last_by_client, report.acknowledged);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_captures_the_later_one_goes_on() {
    let server = require_or_skip!(Postgres::builder(VERSION).start().await);
    let client = server.connect("postgres").await.unwrap();
    let vault = Vault::memory();
    let first = Capture::start(&vault.0, settings(&server), LogOptions::default());
    first.reaches(1, flushed(&client).await).await;
    let second = Capture::start(&vault.0, settings(&server).slot(LogSlot::None), LogOptions::default());
    let error = loop {
        // The older one finds out when it has something to store.
        flushed(&client).await;
        if first.ended() {
            break first.failure().await;
        }
    };
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    second.reaches(1, flushed(&client).await).await;
    second.stop().await;
    assert!(vault.0.log().await.unwrap().ledger().holes().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn log_that_the_server_removed_is_a_hole_and_a_new_backup_a_new_window() {
    let server = Postgres::builder(VERSION).initdb_arg("--wal-segsize=1").setting("max_wal_size", "4MB");
    let server = require_or_skip!(server.setting("min_wal_size", "2MB").start().await);
    let client = server.connect("postgres").await.unwrap();
    let vault = Vault::memory();
    let slotless = settings(&server).slot(LogSlot::None);
    vault.backup(&engine(&server, Method::Local)).await;
    let capture = Capture::start(&vault.0, slotless.clone(), LogOptions::default());
    capture.reaches(1, flushed(&client).await).await;
    capture.stop().await;
    for _ in 0..12 {
        client
            .batch_execute("create table gone as select repeat('x', 1000) from generate_series(1, 2000)")
            .await
            .unwrap();
        client.batch_execute("drop table gone; select pg_switch_wal(); checkpoint").await.unwrap();
    }
    let capture = Capture::start(&vault.0, slotless, LogOptions::default());
    capture.reaches(1, flushed(&client).await).await;
    assert!(capture.found.has("log-hole"));
    let restorable = run::windows(vault.0.as_ref(), None, &work()).await.unwrap();
    assert_eq!((restorable.windows.len(), restorable.holes.len()), (1, 1), "{restorable:?}");
    let hole = &restorable.holes[0];
    assert!(hole.reason.as_deref().is_some_and(|reason| reason.contains("removed")), "{hole:?}");
    // Into the hole nothing leads, and the refusal names what can be reached and both ends of what is missing.
    let inside = hole.range.start + 4096;
    let target = position(&format!("{:X}/{:X}", inside >> 32, inside & 0xffff_ffff));
    let error = vault.recover(&Target::new(VERSION).engine(), target).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    for part in [&hole.from.text, &hole.to.text, &restorable.windows[0].window.to.text] {
        assert!(error.to_string().contains(part), "{error} lacks {part}");
    }
    vault.backup(&engine(&server, Method::Local)).await;
    let end = flushed(&client).await;
    capture.reaches(1, end).await;
    capture.stop().await;
    let restorable = run::windows(vault.0.as_ref(), None, &work()).await.unwrap();
    assert_eq!(restorable.windows.len(), 2, "{restorable:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_begins_with_the_newest_backup_if_the_server_still_has_it() {
    let server = require_or_skip!(Postgres::builder(VERSION).setting("wal_keep_size", "1GB").start().await);
    let client = server.connect("postgres").await.unwrap();
    let vault = Vault::memory();
    let backup = vault.backup(&engine(&server, Method::Protocol)).await;
    client.batch_execute("create table t as select generate_series(1, 1000); select pg_switch_wal()").await.unwrap();
    client
        .batch_execute("insert into t select generate_series(1, 1000); select pg_switch_wal(); checkpoint")
        .await
        .unwrap();
    let capture = Capture::start(&vault.0, settings(&server), LogOptions::default());
    capture.reaches(1, flushed(&client).await).await;
    capture.stop().await;
    let restorable = run::windows(vault.0.as_ref(), None, &work()).await.unwrap();
    assert_eq!(restorable.windows.len(), 1);
    assert_eq!(restorable.windows[0].window.from(), backup.snapshot.stop.as_ref().unwrap());
    assert!(restorable.windows[0].window.path.len() > 16 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_clusters_log_is_refused() {
    let ours = require_or_skip!(Postgres::builder(VERSION).start().await);
    let vault = Vault::memory();
    let capture = Capture::start(&vault.0, settings(&ours), LogOptions::default());
    capture.reaches(1, flushed(&ours.connect("postgres").await.unwrap()).await).await;
    capture.stop().await;
    let other = require_or_skip!(Postgres::builder(VERSION).fresh_identity().start().await);
    let error = Capture::start(&vault.0, settings(&other), LogOptions::default()).failure().await;
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(error.to_string().contains(&ours.system_identifier().await.unwrap().to_string()), "{error}");
    // A wrong address is no reason to wait.
    let nowhere = PostgresSettings::default().url("host=127.0.0.1 port=1 user=x");
    let error = Capture::start(&vault.0, nowhere, LogOptions::default()).failure().await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_under_the_same_name_is_refused_and_nothing_is_added() {
    // Both have the system identifier of their template, and both are on timeline 1.
    let one = require_or_skip!(Postgres::builder(VERSION).start().await);
    let two = require_or_skip!(Postgres::builder(VERSION).start().await);
    let (first, second) = (one.connect("postgres").await.unwrap(), two.connect("postgres").await.unwrap());
    first.batch_execute("create table a as select 1").await.unwrap();
    second.batch_execute("create table b as select repeat('x', 1000) from generate_series(1, 1000)").await.unwrap();
    let vault = Vault::memory();
    let capture = Capture::start(&vault.0, settings(&one), LogOptions::default());
    capture.reaches(1, flushed(&first).await).await;
    capture.stop().await;
    let before = vault.0.log().await.unwrap().ledger().covered(&Lineage::new("1")).clone();
    let error = Capture::start(&vault.0, settings(&two), LogOptions::default()).failure().await;
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert_eq!(vault.0.log().await.unwrap().ledger().covered(&Lineage::new("1")), &before);
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_of_every_size_and_an_idle_server() {
    for size in ["1", "64"] {
        let server = Postgres::builder(VERSION).initdb_arg(format!("--wal-segsize={size}"));
        let server = require_or_skip!(server.setting("min_wal_size", "128MB").start().await);
        let client = server.connect("postgres").await.unwrap();
        let vault = Vault::memory();
        vault.backup(&engine(&server, Method::Local)).await;
        let capture = Capture::start(&vault.0, settings(&server), LogOptions::default());
        client.batch_execute("create table t as select generate_series(1, 10) as i").await.unwrap();
        for _ in 0..3 {
            client.batch_execute("select pg_switch_wal()").await.unwrap();
        }
        let named = value(&client, "pg_create_restore_point('before')").await;
        Tally::create(&client).await;
        Tally::add(&client, 0..5).await;
        client.batch_execute("delete from t").await.unwrap();
        let end = flushed(&client).await;
        capture.reaches(1, end).await;
        capture.stop().await;
        for (target, expected) in [
            (RecoveryTarget::new(Goal::Named("before".to_owned())), "10"),
            (position(&named).exclusive(), "10"),
            (RecoveryTarget::latest(), "0"),
        ] {
            let place = Target::new(VERSION);
            let restored = place.recover(&vault, target.clone(), Replay::Files).await;
            let client = restored.connect("postgres").await.unwrap();
            assert_eq!(value(&client, "select count(*) from t").await, expected, "{target} with segments of {size} MB");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_that_are_ambiguous_or_nowhere() {
    let server = require_or_skip!(Postgres::builder(VERSION).start().await);
    let client = server.connect("postgres").await.unwrap();
    let vault = Vault::memory();
    let capture = Capture::start(&vault.0, settings(&server), LogOptions::default());
    let backup = vault.backup(&engine(&server, Method::Local)).await;
    client.batch_execute("create table t as select 1 as i").await.unwrap();
    let xid = value(&client, "select xmin from t").await;
    let twice = [
        value(&client, "pg_create_restore_point('twice')").await,
        value(&client, "pg_create_restore_point('twice')").await,
    ];
    client.batch_execute("update t set i = 2").await.unwrap();
    capture.reaches(1, flushed(&client).await).await;
    capture.stop().await;

    let refused = async |target: RecoveryTarget, parts: &[&str]| {
        let error = vault.recover(&Target::new(VERSION).engine(), target).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        for part in parts {
            assert!(error.to_string().contains(part), "{error} lacks {part}");
        }
    };
    let stop = backup.snapshot.stop.as_ref().unwrap();
    refused(RecoveryTarget::new(Goal::Named("twice".into())), &["ambiguous", &twice[0], &twice[1]]).await;
    refused(RecoveryTarget::new(Goal::Named("never".into())), &["never", &stop.text]).await;
    refused(position("FF/0"), &["FF/0", &stop.text]).await;
    refused(position("0/28"), &["0/28", &stop.text]).await;
    refused(position("0/28@7"), &["0/28@7"]).await;
    refused(position("nonsense"), &["nonsense"]).await;
    let (before, after) = ("2020-01-01T00:00:00Z".parse().unwrap(), "2120-01-01T00:00:00Z".parse().unwrap());
    refused(RecoveryTarget::new(Goal::Time(before)), &["2020-01-01", &stop.text]).await;
    refused(RecoveryTarget::new(Goal::Time(after)), &["2120-01-01", &stop.text]).await;
    refused(RecoveryTarget::new(Goal::Transaction("4000000000".into())), &["4000000000"]).await;
    refused(RecoveryTarget::new(Goal::Transaction("x".into())), &["x"]).await;

    // Exactly the backup's end is a target like every other one.
    let own = stop.text.as_str();
    for (target, expected) in [
        (position(own).exclusive(), "no table"),
        (RecoveryTarget::new(Goal::Transaction(xid.clone())), "1"),
        (RecoveryTarget::new(Goal::Transaction(xid)).exclusive(), "no table"),
        (position(&twice[0]).exclusive(), "1"),
    ] {
        let place = Target::new(VERSION);
        let restored = place.recover(&vault, target.clone(), Replay::Files).await;
        let client = restored.connect("postgres").await.unwrap();
        let there = value(&client, "select to_regclass('t') is not null").await;
        let found = if there == "true" { value(&client, "select i from t").await } else { "no table".to_owned() };
        assert_eq!(found, expected, "{target}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_from_a_folder_are_stored_once() {
    let server = require_or_skip!(Postgres::builder(VERSION).setting("wal_keep_size", "1GB").start().await);
    let client = server.connect("postgres").await.unwrap();
    let bank = Bank::create(&client, 500).await.unwrap();
    let vault = Vault::memory();
    vault.backup(&engine(&server, Method::Local)).await;
    let load = bank.run(&server, "postgres", 2).await.unwrap();
    assert!(load.wait_committed(500, PATIENCE).await);
    client.batch_execute("select pg_switch_wal()").await.unwrap();
    assert!(load.wait_committed(500, PATIENCE).await);
    load.stop().await;
    let expected = digest(&server).await;
    flushed(&client).await;
    let archive = tempfile::tempdir().unwrap();
    let copy = || {
        for entry in std::fs::read_dir(server.data_dir().join("pg_wal")).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                std::fs::copy(entry.path(), archive.path().join(entry.file_name())).unwrap();
            }
        }
    };
    copy();
    let engine = PostgresEngine::new(PostgresSettings::default()).unwrap();
    let import = async || run::import(vault.0.as_ref(), &engine, archive.path(), LogOptions::default(), &work()).await;
    let first = import().await.unwrap();
    assert!(first.stored >= 2 && first.bytes > 16 << 20, "{first:?}");
    let again = import().await.unwrap();
    assert_eq!((again.stored, again.bytes), (0, 0), "{again:?}");
    // The segment that was being written has grown.
    client.batch_execute("create table later as select 1").await.unwrap();
    flushed(&client).await;
    copy();
    let more = import().await.unwrap();
    assert_eq!(more.stored, 1, "{more:?}");
    let place = Target::new(VERSION);
    let mut restored = place.recover(&vault, RecoveryTarget::latest(), Replay::Files).await;
    let there = restored.connect("postgres").await.unwrap();
    assert_eq!(value(&there, "select count(*) from later").await, "1");
    there.batch_execute("drop table later").await.unwrap();
    assert_eq!(digest(&restored).await, expected);
    restored.stop(StopMode::Immediate).await.unwrap();

    // The same name with other bytes.
    let mut names: Vec<_> = std::fs::read_dir(archive.path()).unwrap().map(|e| e.unwrap().path()).collect();
    names.sort();
    let mut bytes = std::fs::read(&names[0]).unwrap();
    let other = require_or_skip!(Postgres::builder(VERSION).start().await);
    let their = other.connect("postgres").await.unwrap();
    their.batch_execute("create table x as select repeat('y', 100) from generate_series(1, 100000)").await.unwrap();
    let segment = names[0].file_name().unwrap();
    std::fs::copy(other.data_dir().join("pg_wal").join(segment), &names[0]).unwrap();
    let error = import().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    // A byte that was damaged on the way.
    bytes[9000] ^= 1;
    std::fs::write(&names[0], &bytes).unwrap();
    let error = import().await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Conflict), "{error}");
}
