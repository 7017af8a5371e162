//! A primary that dies, a standby that is promoted, and a log that goes on.

use std::time::Duration;

use backup_core::engine::LogOptions;
use backup_core::{Goal, RecoveryTarget, run};
use backup_postgres::{Method, PostgresSettings, Replay};
use backup_testkit::pgbench::Bank;
use backup_testkit::{PgVersion, Postgres, StopMode, require_or_skip};

use crate::harness::{Capture, PATIENCE, Tally, Target, Vault, digest, engine, flushed, value, work};
use crate::storage;

const VERSION: PgVersion = PgVersion::V17;

/// How a capture reaches both nodes of a cluster.
fn both(one: &Postgres, two: &Postgres) -> PostgresSettings {
    PostgresSettings::default().url(format!(
        "host=127.0.0.1,127.0.0.1 port={},{} user={} password={} dbname=postgres connect_timeout=5",
        one.port(),
        two.port(),
        one.superuser(),
        one.password()
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_goes_on_after_a_failover_and_both_histories_can_be_restored() {
    let mut primary = require_or_skip!(Postgres::builder(VERSION).start().await);
    let client = primary.connect("postgres").await.unwrap();
    let bank = Bank::create(&client, 500).await.unwrap();
    Tally::create(&client).await;
    let standby = Postgres::standby_of(&primary).await.unwrap();
    let vault = Vault::memory();
    let quick = LogOptions::default().flush_after(Duration::from_millis(20));
    let capture = Capture::start(&vault.0, both(&primary, &standby), quick);
    vault.backup(&engine(&primary, Method::Local)).await;
    let load = bank.run(&primary, "postgres", 2).await.unwrap();
    assert!(load.wait_committed(300, PATIENCE).await);
    Tally::add(&client, 0..20).await;
    let early = value(&client, "clock_timestamp()").await;
    Tally::add(&client, 20..40).await;
    let shared = flushed(&client).await;
    standby.wait_replayed(shared, PATIENCE).await.unwrap();
    // What the primary does from here on, the standby never sees.
    let standby_client = standby.connect("postgres").await.unwrap();
    standby_client.batch_execute("alter system set primary_conninfo = ''").await.unwrap();
    standby_client.batch_execute("select pg_reload_conf()").await.unwrap();
    let gone = "select count(*) from pg_stat_wal_receiver";
    while value(&standby_client, gone).await != "0" {}
    Tally::add(&client, 40..60).await;
    let lost = flushed(&client).await;
    capture.reaches(1, lost).await;
    drop(load);
    primary.kill9().await;
    standby.promote().await.unwrap();
    standby.wait_writable(PATIENCE).await.unwrap();
    let client = standby.connect("postgres").await.unwrap();
    Tally::add(&client, 100..120).await;
    let middle = flushed(&client).await;
    Tally::add(&client, 120..140).await;
    capture.reaches(2, flushed(&client).await).await;
    assert!(!capture.found.has("log-hole"));
    capture.stop().await;

    let restorable = run::windows(vault.0.as_ref(), None, &work()).await.unwrap();
    let ends: Vec<_> =
        restorable.windows.iter().map(|w| (w.window.to.lineage.as_str().to_owned(), w.window.orphaned)).collect();
    assert_eq!(ends, [("2".to_owned(), false), ("1".to_owned(), true)], "{restorable:?}");
    assert!(restorable.holes.is_empty(), "{:?}", restorable.holes);

    let rows = async |server: &Postgres| -> Vec<i32> {
        let client = server.connect("postgres").await.unwrap();
        Bank::check(&client).await.unwrap();
        Tally::rows(&client).await.into_iter().map(|(n, _)| n).collect()
    };
    let at = |goal: Goal| RecoveryTarget::new(goal);
    let time = early.replace(' ', "T").parse().unwrap();
    let text = |lsn: u64| format!("{:X}/{:X}", lsn >> 32, lsn & 0xffff_ffff);
    for replay in [Replay::Files, Replay::Serve] {
        // Before the switch, behind it, at the end of the new history, and at the end of the old one.
        let place = Target::new(VERSION);
        assert_eq!(rows(&place.recover(&vault, at(Goal::Time(time)), replay).await).await, (0..20).collect::<Vec<_>>());
        let place = Target::new(VERSION);
        let target = at(Goal::Position(text(middle.into()))).exclusive();
        let expected: Vec<i32> = (0..40).chain(100..120).collect();
        assert_eq!(rows(&place.recover(&vault, target, replay).await).await, expected);
        let place = Target::new(VERSION);
        let restored = place.recover(&vault, RecoveryTarget::latest(), replay).await;
        assert_eq!(digest(&restored).await, digest(&standby).await, "{replay:?}");
        let timeline = "select timeline_id from pg_control_checkpoint()";
        let client = restored.connect("postgres").await.unwrap();
        client.batch_execute("checkpoint").await.unwrap();
        assert_eq!(value(&client, timeline).await, "3");
        let place = Target::new(VERSION);
        let target = at(Goal::Position(format!("{}@1", text(lost.into())))).exclusive();
        assert_eq!(rows(&place.recover(&vault, target, replay).await).await, (0..60).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_commit_is_lost_with_the_primary_and_its_disk() {
    const LIVES: i32 = 50;
    let synchronous = Postgres::builder(VERSION).setting("synchronous_standby_names", "backup");
    // The first server must be able to commit before anybody follows it.
    let mut server = require_or_skip!(synchronous.setting("synchronous_commit", "local").start().await);
    let client = server.connect("postgres").await.unwrap();
    Tally::create(&client).await;
    let disk = tempfile::tempdir().unwrap();
    let vault = storage::create(&storage::on_disk(disk.path())).await;
    vault.backup(&engine(&server, Method::Local)).await;
    let follow = |server: &Postgres| {
        let url = format!("{} application_name=backup", server.unix_conn_string("postgres"));
        Capture::start(
            &vault.0,
            PostgresSettings::default().url(url),
            LogOptions::default().flush_after(Duration::ZERO),
        )
    };
    drop(client);
    let mut places = Vec::new();
    let mut acknowledged = 0;
    for life in 0..LIVES {
        let capture = follow(&server);
        let client = server.connect("postgres").await.unwrap();
        client.batch_execute("set synchronous_commit = on").await.unwrap();
        Tally::add(&client, acknowledged..acknowledged + 3).await;
        acknowledged += 3;
        // At once, with everything that the server has on its disk.
        server.kill9().await;
        std::fs::remove_dir_all(server.data_dir()).unwrap();
        capture.kill().await;
        drop(client);
        let place = Target::new(VERSION);
        let replay = if life % 2 == 0 { Replay::Files } else { Replay::Serve };
        server = place.recover(&vault, RecoveryTarget::latest(), replay).await;
        let client = server.connect("postgres").await.unwrap();
        let rows: Vec<i32> = Tally::rows(&client).await.into_iter().map(|(n, _)| n).collect();
        assert_eq!(rows, (0..acknowledged).collect::<Vec<_>>(), "life {life}");
        places.push(place);
    }
    let restorable = run::windows(vault.0.as_ref(), None, &work()).await.unwrap();
    assert!(restorable.holes.is_empty(), "{:?}", restorable.holes);
    server.stop(StopMode::Immediate).await.unwrap();
}
