//! Increments that read only what changed: what they hold is what a backup of everything would.

use std::time::Duration;

use backup_core::engine::LogOptions;
use backup_core::run::BackupOptions;
use backup_postgres::{ChangeTracking, Method, PostgresEngine, PostgresSettings};
use backup_storage::store::Store;
use backup_testkit::pgbench::{Bank, ChangeShape, Dataset};
use backup_testkit::{PgVersion, Postgres, StopMode, require_or_skip, versions_under_test};

use crate::harness::{
    Capture, PATIENCE, Tally, Target, digest, digest_of, fact, finding, flushed, on, read_bytes, settings, value,
};
use crate::{load, storage};

const VERSION: PgVersion = PgVersion::V17;

fn tracking(server: &Postgres, changes: ChangeTracking) -> PostgresEngine {
    PostgresEngine::new(settings(server).method(Method::Local).changes(changes)).unwrap()
}

fn quick() -> LogOptions {
    LogOptions::default().flush_after(Duration::from_millis(20))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_change_is_in_the_increment() {
    // The map itself is held against every version's log in the tests of the log.
    let few = [PgVersion::V13, PgVersion::V15, PgVersion::V18];
    for version in versions_under_test().into_iter().filter(|version| few.contains(version)) {
        let builder = load::builder(version, 1).initdb_arg("--data-checksums");
        let server = require_or_skip!(builder.start().await);
        let client = server.connect("postgres").await.unwrap();
        let bank = Bank::create(&client, 500).await.unwrap();
        load::run(&client, load::TABLES).await;
        let vault = storage::create(&Store::memory()).await;
        let auto = tracking(&server, ChangeTracking::Auto);
        let parent = vault.backup(&auto).await;
        assert_eq!(fact(&parent, "changes"), None, "there was nothing to compare with");
        let capture = Capture::start(&vault.0, settings(&server), quick());
        let work = bank.run(&server, "postgres", 2).await.unwrap();
        // Some of it while the parent of the last ones is taken.
        let (middle, ()) = tokio::join!(vault.backup(&auto), load::run(&client, load::CHANGES));
        assert!(work.wait_committed(50, PATIENCE).await);
        work.stop().await;
        capture.reaches(1, flushed(&client).await).await;
        let expected = digest(&server).await;
        let last = vault.backup(&auto).await;
        let whole = on(&parent, &vault, &auto).await;
        // Reads everything, and finds nothing that the log did not say.
        let verify = tracking(&server, ChangeTracking::Verify);
        let doubted = [on(&parent, &vault, &verify).await, on(&middle, &vault, &verify).await];
        capture.stop().await;
        for backup in [&middle, &last, &whole] {
            assert_eq!(fact(backup, "changes"), Some("log"), "{version}: {:?}", backup.snapshot.findings);
            assert!(read_bytes(backup) < backup.data_bytes / 2, "{version}: {backup:?}");
        }
        for backup in &doubted {
            assert_eq!(fact(backup, "changes"), Some("verified"), "{version}");
            assert_eq!(finding(backup, "changes-wrong"), None, "{version}");
        }
        for backup in [&last, &whole, &doubted[1]] {
            let target = Target::new(version).map_tablespaces(&server).await;
            target.restore(&vault, backup).await.unwrap();
            assert!(vault.check(&target.engine(), backup).await.is_sound(), "{version}");
            assert_eq!(digest_of(&target).await, expected, "{version}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn little_is_read_when_little_changed() {
    // Without checksums: bits that are only hints change pages without a word, and the older page is as good.
    let server = require_or_skip!(Postgres::builder(VERSION).start().await);
    let client = server.connect("postgres").await.unwrap();
    let dataset = Dataset::realistic(48 << 20, 7);
    dataset.load(&server, "postgres").await.unwrap();
    let vault = storage::create(&Store::memory()).await;
    let auto = tracking(&server, ChangeTracking::Auto);
    let mut backups = vec![(vault.backup(&auto).await, digest(&server).await)];
    let capture = Capture::start(&vault.0, settings(&server), quick());
    for round in 0..4 {
        dataset.change_fraction(&client, 0.002, ChangeShape::Spread, round).await.unwrap();
        if round == 2 {
            // Of this round the log is taken from the server itself.
            client.batch_execute("select pg_switch_wal()").await.unwrap();
        } else {
            capture.reaches(1, flushed(&client).await).await;
        }
        let expected = digest(&server).await;
        backups.push((vault.backup(&auto).await, expected));
    }
    capture.stop().await;
    for (backup, _) in &backups[1..] {
        assert_eq!(fact(backup, "changes"), Some("log"), "{:?}", backup.snapshot.findings);
        assert!(read_bytes(backup) < backup.data_bytes / 10, "{} of {}", read_bytes(backup), backup.data_bytes);
        assert!(backup.new_bytes < backup.data_bytes / 10, "{} of {}", backup.new_bytes, backup.data_bytes);
    }
    // Whoever is told nothing compares, and has the same.
    let never = vault.backup(&tracking(&server, ChangeTracking::Never)).await;
    assert_eq!((fact(&never, "changes"), read_bytes(&never) > never.data_bytes / 4), (None, true));
    let last = backups.last().unwrap().1.clone();
    backups.push((never, last));
    let target = Target::new(VERSION);
    for (backup, expected) in backups.iter().skip(1).step_by(2) {
        let target = PostgresEngine::new(target.settings().delta(true)).unwrap();
        vault.restore(&target, backup).await.unwrap();
        let mut restored = Postgres::open(VERSION, target.settings().data_dir.as_ref().unwrap()).await.unwrap();
        restored.wait_writable(PATIENCE).await.unwrap();
        assert_eq!(&digest(&restored).await, expected);
        restored.stop(StopMode::Fast).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_history_under_the_same_names_is_noticed() {
    let builder = Postgres::builder(VERSION).setting("wal_keep_size", "1GB");
    let mut server = require_or_skip!(builder.start().await);
    let client = server.connect("postgres").await.unwrap();
    Tally::create(&client).await;
    let vault = storage::create(&Store::memory()).await;
    vault.backup(&tracking(&server, ChangeTracking::Auto)).await;
    drop(client);
    server.stop(StopMode::Fast).await.unwrap();
    // The same cluster a second time, on the same timeline: only what was written since differs.
    let copy = server.home().join("copy");
    assert!(std::process::Command::new("cp").arg("-a").arg(server.data_dir()).arg(&copy).status().unwrap().success());
    let twin = Postgres::open(VERSION, &copy).await.unwrap();
    let server = Postgres::open(VERSION, server.data_dir()).await.unwrap();
    let (client, other) = (server.connect("postgres").await.unwrap(), twin.connect("postgres").await.unwrap());
    let timeline = "select timeline_id from pg_control_checkpoint()";
    assert_eq!(value(&client, timeline).await, value(&other, timeline).await);
    Tally::add(&client, 0..50).await;
    let parent = vault.backup(&tracking(&server, ChangeTracking::Auto)).await;
    assert_eq!(fact(&parent, "changes"), Some("log"));
    // Far enough that the parent's end is in its past, as it seems.
    for n in 0..4 {
        Tally::add(&other, 100 * n..100 * n + 50).await;
        other.batch_execute("select pg_switch_wal()").await.unwrap();
    }
    let expected = digest(&twin).await;
    let backup = vault.backup(&tracking(&twin, ChangeTracking::Auto)).await;
    assert_eq!(backup.parent, Some(parent.id));
    assert_eq!(fact(&backup, "changes"), Some("compared"));
    assert!(finding(&backup, "changes-unknown").is_some_and(|why| why.message.contains("not the one that the parent")));
    let place = Target::new(VERSION);
    place.restore(&vault, &backup).await.unwrap();
    assert_eq!(digest_of(&place).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_is_known_across_a_failover() {
    let mut primary = require_or_skip!(Postgres::builder(VERSION).start().await);
    let client = primary.connect("postgres").await.unwrap();
    Tally::create(&client).await;
    let standby = Postgres::standby_of(&primary).await.unwrap();
    let vault = storage::create(&Store::memory()).await;
    let both = PostgresSettings::default().url(format!(
        "host=127.0.0.1,127.0.0.1 port={},{} user={} password={} dbname=postgres connect_timeout=5",
        primary.port(),
        standby.port(),
        primary.superuser(),
        primary.password()
    ));
    let capture = Capture::start(&vault.0, both, quick());
    vault.backup(&tracking(&primary, ChangeTracking::Auto)).await;
    Tally::add(&client, 0..50).await;
    let shared = flushed(&client).await;
    standby.wait_replayed(shared, PATIENCE).await.unwrap();
    capture.reaches(1, shared).await;
    primary.kill9().await;
    standby.promote().await.unwrap();
    standby.wait_writable(PATIENCE).await.unwrap();
    let client = standby.connect("postgres").await.unwrap();
    Tally::add(&client, 100..150).await;
    capture.reaches(2, flushed(&client).await).await;
    let expected = digest(&standby).await;
    let backup = vault.backup(&tracking(&standby, ChangeTracking::Auto)).await;
    assert_eq!(fact(&backup, "changes"), Some("log"), "{:?}", backup.snapshot.findings);
    assert!(read_bytes(&backup) < backup.data_bytes / 2);
    let verified = on(&backup, &vault, &tracking(&standby, ChangeTracking::Verify)).await;
    assert_eq!(finding(&verified, "changes-wrong"), None);
    capture.stop().await;
    let target = Target::new(VERSION);
    target.restore(&vault, &backup).await.unwrap();
    assert_eq!(digest_of(&target).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_doubt_makes_it_read_everything_and_say_why() {
    let server = require_or_skip!(load::builder(VERSION, 1).start().await);
    let client = server.connect("postgres").await.unwrap();
    Tally::create(&client).await;
    let vault = storage::create(&Store::memory()).await;
    let auto = tracking(&server, ChangeTracking::Auto);
    vault.backup(&auto).await;
    Tally::add(&client, 0..20).await;
    // A segment that is missing is a part of the log that nobody has seen.
    let segment = value(&client, "select pg_walfile_name(pg_current_wal_lsn())").await;
    client.batch_execute("select pg_switch_wal(); create table more as select generate_series(1, 1000)").await.unwrap();
    client.batch_execute("select pg_switch_wal(); checkpoint").await.unwrap();
    std::fs::remove_file(server.data_dir().join("pg_wal").join(segment)).unwrap();
    let expected = digest(&server).await;
    let backup = vault.backup(&auto).await;
    assert_eq!(fact(&backup, "changes"), Some("compared"));
    assert!(finding(&backup, "changes-unknown").is_some(), "{:?}", backup.snapshot.findings);
    let target = Target::new(VERSION);
    target.restore(&vault, &backup).await.unwrap();
    assert_eq!(digest_of(&target).await, expected);
    let full = vault.try_backup(&auto, BackupOptions::full()).await.unwrap();
    assert_eq!((full.parent, fact(&full, "changes")), (None, None));
}
