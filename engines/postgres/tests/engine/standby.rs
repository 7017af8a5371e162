//! Backups from a standby, while its primary is under load.

use backup_testkit::pgbench::Bank;
use backup_testkit::{PgVersion, Postgres, StopMode, require_or_skip, versions_under_test};

use crate::harness::{METHODS, PATIENCE, Target, Vault, digest, digest_of, engine, value};

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_as_good_as_its_primary() {
    for version in versions_under_test() {
        let primary = require_or_skip!(Postgres::builder(version).setting("checkpoint_timeout", "30s").start().await);
        let client = primary.connect("postgres").await.unwrap();
        let bank = Bank::create(&client, 10_000).await.unwrap();
        let standby = require_or_skip!(Postgres::standby_of(&primary).await);
        let vault = Vault::memory();
        for method in METHODS {
            let load = bank.run(&primary, "postgres", 2).await.unwrap();
            assert!(load.wait_committed(20, PATIENCE).await);
            let record = vault.backup(&engine(&standby, method)).await;
            assert!(load.wait_committed(20, PATIENCE).await);
            load.stop().await;
            assert_eq!(record.snapshot.fact("standby"), Some("yes"));
            let report = vault.check(&engine(&standby, method), &record).await;
            assert!(report.findings.is_empty(), "{version} {method}: {:?}", report.findings);

            let target = Target::new(version);
            target.restore(&vault, &record).await.unwrap();
            let mut copy = target.open().await;
            let copied = copy.connect("postgres").await.unwrap();
            Bank::check(&copied).await.unwrap_or_else(|e| panic!("{version} {method}: {}", e.full()));
            // It does not go on following the primary, now or after a restart.
            assert_eq!(value(&copied, "select count(*) from pg_stat_wal_receiver").await, "0");
            copied.batch_execute("create table own as select 1").await.unwrap();
            copy.restart().await.unwrap();
            copy.wait_writable(PATIENCE).await.unwrap();
            copy.stop(StopMode::Fast).await.unwrap();

            // Nothing moves: equal.
            standby.wait_replayed(primary.current_lsn().await.unwrap(), PATIENCE).await.unwrap();
            let still = vault.backup(&engine(&standby, method)).await;
            let target = Target::new(version);
            target.restore(&vault, &still).await.unwrap();
            assert_eq!(digest_of(&target).await, digest(&primary).await);
        }
    }
}

/// A standby that is made of a restored server follows it, instead of promoting itself as the restore did.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_of_what_was_restored_stays_one() {
    for version in versions_under_test() {
        let server = require_or_skip!(Postgres::builder(version).start().await);
        let vault = Vault::memory();
        let record = vault.backup(&engine(&server, METHODS[0])).await;
        let target = Target::new(version);
        target.restore(&vault, &record).await.unwrap();
        let restored = target.open().await;
        let standby = Postgres::standby_of(&restored).await.unwrap_or_else(|e| panic!("{}", e.full()));
        let client = restored.connect("postgres").await.unwrap();
        client.batch_execute("create table later as select 42 as answer").await.unwrap();
        standby.wait_replayed(restored.current_lsn().await.unwrap(), PATIENCE).await.unwrap();
        let follower = standby.connect("postgres").await.unwrap();
        assert_eq!(value(&follower, "select answer from later").await, "42");
        assert_eq!(value(&follower, "select pg_is_in_recovery()").await, "true");
    }
}

/// A server that was promoted long ago and has lost its history is backed up without it.
#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_is_lost() {
    let mut primary = require_or_skip!(Postgres::builder(PgVersion::V17).start().await);
    let mut standby = Postgres::standby_of(&primary).await.unwrap();
    primary.kill9().await;
    standby.promote().await.unwrap();
    standby.wait_writable(PATIENCE).await.unwrap();
    standby.stop(StopMode::Fast).await.unwrap();
    std::fs::remove_file(standby.data_dir().join("pg_wal/00000002.history")).unwrap();
    standby.start().await.unwrap();
    let expected = digest(&standby).await;
    for method in METHODS {
        let vault = Vault::memory();
        let backup = vault.backup(&engine(&standby, method)).await;
        let target = Target::new(PgVersion::V17);
        target.restore(&vault, &backup).await.unwrap();
        assert_eq!(digest_of(&target).await, expected, "{method}");
    }
}
