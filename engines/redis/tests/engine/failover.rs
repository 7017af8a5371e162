//! Primaries that go, replicas that take over, servers that forget: the log goes on, or says what is missing.

use backup_core::run;
use backup_redis::RedisSettings;
use backup_testkit::redis::{RedisPersistence, contents};
use backup_testkit::{Redis, RedisVersion, redis_versions_under_test, require_or_skip};

use crate::capture::{Load, assert_complete};
use crate::harness::{Capture, Vault, engine, position, settings, work};

/// How a capture reaches both nodes of a deployment.
fn both(one: &Redis, two: &Redis) -> RedisSettings {
    let url = format!("redis://127.0.0.1:{},127.0.0.1:{}", one.port(), two.port());
    RedisSettings::default().url(url).identity("the test")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_goes_on_after_a_failover() {
    for version in redis_versions_under_test() {
        let builder = Redis::builder(version).raw("repl-backlog-size", "64mb");
        let mut primary = require_or_skip!(builder.clone().start().await);
        let replica = builder.replica_of(&primary).start().await.unwrap();
        replica.wait_linked().await.unwrap();
        let vault = Vault::memory();
        let backup = vault.backup(&engine(&primary)).await;
        let capture = Capture::start(&vault, both(&primary, &replica));
        let load = Load::start(&primary).await;
        load.more().await;
        capture.reaches(&position(&primary).await).await;
        primary.kill9().await;
        load.end().await;
        replica.promote().await.unwrap();
        let load = Load::start(&replica).await;
        load.more().await;
        capture.reaches(&position(&replica).await).await;
        load.end().await;
        capture.reaches(&position(&replica).await).await;
        assert!(!capture.found.has("log-hole"), "{version}: {:?}", capture.found);
        capture.stop().await;

        let log = vault.log().await.ledger();
        let trunk = position(&replica).await.lineage;
        assert_eq!(log.trunk(), Some(&trunk));
        let fork = log.lineage(&trunk).unwrap().fork.clone().unwrap();
        assert_eq!(fork.lineage, backup.snapshot.stop.as_ref().unwrap().lineage);
        let restorable = run::windows(vault.0.as_ref(), None, &work()).await.unwrap();
        assert!(restorable.holes.is_empty(), "{:?}", restorable.holes);
        assert_complete(&vault, &backup, &replica).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_that_are_swapped_lose_nothing() {
    let primary = require_or_skip!(Redis::builder(RedisVersion::Redis82).start().await);
    let replica = Redis::replica_of(&primary).await.unwrap();
    let vault = Vault::memory();
    let backup = vault.backup(&engine(&primary)).await;
    let capture = Capture::start(&vault, both(&primary, &replica));
    let nodes = [&primary, &replica];
    for round in 0..4 {
        let (old, new) = (nodes[round % 2], nodes[(round + 1) % 2]);
        old.connect().await.unwrap().run(&format!("SET round {round}")).await.unwrap();
        capture.reaches(&position(old).await).await;
        old.failover_to(new).await.unwrap();
    }
    primary.connect().await.unwrap().run("SET end 1").await.unwrap();
    capture.reaches(&position(&primary).await).await;
    assert!(!capture.found.has("log-hole"), "{:?}", capture.found);
    capture.stop().await;
    assert_complete(&vault, &backup, &primary).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_no_longer_has_is_a_hole_and_a_new_backup_begins_a_new_window() {
    for version in redis_versions_under_test() {
        let server = require_or_skip!(Redis::builder(version).raw("repl-backlog-size", "16kb").start().await);
        let vault = Vault::memory();
        let backup = vault.backup(&engine(&server)).await;
        let mut client = server.connect().await.unwrap();
        client.run("SET a 1").await.unwrap();
        let capture = Capture::start(&vault, settings(&server));
        let first = position(&server).await;
        capture.reaches(&first).await;
        capture.abort().await;

        for n in 0..40 {
            client.run(&format!("SET lost:{n} {}", "x".repeat(4000))).await.unwrap();
        }
        let capture = Capture::start(&vault, settings(&server));
        capture.finds("log-hole").await;
        client.run("SET b 1").await.unwrap();
        capture.reaches(&position(&server).await).await;
        let again = vault.backup(&engine(&server)).await;
        client.run("SET c 1").await.unwrap();
        capture.reaches(&position(&server).await).await;
        capture.stop().await;

        let restorable = run::windows(vault.0.as_ref(), None, &work()).await.unwrap();
        assert_eq!(restorable.holes.len(), 1, "{:?}", restorable.holes);
        let hole = &restorable.holes[0].range;
        assert!(hole.lineage == first.lineage && hole.start >= first.offset && hole.len() > 100_000, "{hole}");
        assert_eq!(restorable.windows.len(), 2);
        assert!(restorable.windows[0].window.to.offset <= hole.start);
        assert_eq!(restorable.windows[1].window.backups[0].id, again.id);
        assert_complete(&vault, &again, &server).await;
        drop(backup);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_forgot_its_history_begins_another_one() {
    let mut server = require_or_skip!(Redis::builder(RedisVersion::Redis72).start().await);
    let vault = Vault::memory();
    vault.backup(&engine(&server)).await;
    let capture = Capture::start(&vault, settings(&server));
    server.connect().await.unwrap().run("SET a 1").await.unwrap();
    let before = position(&server).await;
    capture.reaches(&before).await;
    server.kill9().await;
    server.start().await.unwrap();
    capture.finds("log-hole").await;
    let backup = vault.backup(&engine(&server)).await;
    server.connect().await.unwrap().run("SET b 2").await.unwrap();
    capture.reaches(&position(&server).await).await;
    capture.stop().await;
    assert_ne!(position(&server).await.lineage, before.lineage);
    let restorable = run::windows(vault.0.as_ref(), None, &work()).await.unwrap();
    assert_eq!(restorable.windows.len(), 2, "{restorable:?}");
    assert_complete(&vault, &backup, &server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_came_back_from_its_file_goes_on_from_there() {
    let builder = Redis::builder(RedisVersion::Redis74).persistence(RedisPersistence::Snapshots(3600));
    let mut server = require_or_skip!(builder.start().await);
    let vault = Vault::memory();
    let backup = vault.backup(&engine(&server)).await;
    let capture = Capture::start(&vault, settings(&server));
    server.connect().await.unwrap().run("SET a 1").await.unwrap();
    capture.reaches(&position(&server).await).await;
    server.restart().await.unwrap();
    server.connect().await.unwrap().run("SET b 2").await.unwrap();
    capture.reaches(&position(&server).await).await;
    assert!(!capture.found.has("log-hole"), "{:?}", capture.found);

    // What it wrote behind its file is lost to it, and not to us.
    let mut client = server.connect().await.unwrap();
    client.run("SAVE").await.unwrap();
    client.run("SET c 3").await.unwrap();
    let longer = position(&server).await;
    capture.reaches(&longer).await;
    server.kill9().await;
    server.start().await.unwrap();
    server.connect().await.unwrap().run("SET d 4").await.unwrap();
    capture.reaches(&position(&server).await).await;
    capture.stop().await;
    assert_complete(&vault, &backup, &server).await;
    let restorable = run::windows(vault.0.as_ref(), None, &work()).await.unwrap();
    assert!(
        restorable.windows.iter().any(|w| w.window.to.lineage == longer.lineage && w.window.orphaned),
        "{restorable:?}"
    );
    assert_eq!(contents(&server).await.unwrap().keys.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_was_replaced_is_not_followed_any_more() {
    let builder = Redis::builder(RedisVersion::Valkey91).persistence(RedisPersistence::AppendOnly);
    let primary = require_or_skip!(builder.clone().start().await);
    let mut replica = builder.replica_of(&primary).start().await.unwrap();
    replica.wait_linked().await.unwrap();
    let vault = Vault::memory();
    vault.backup(&engine(&primary)).await;
    replica.promote().await.unwrap();
    replica.connect().await.unwrap().run("CONFIG REWRITE").await.unwrap();
    let capture = Capture::start(&vault, settings(&replica));
    replica.connect().await.unwrap().run("SET new 1").await.unwrap();
    let here = position(&replica).await;
    capture.reaches(&here).await;
    capture.stop().await;
    // The old one goes on by itself, and the new one is away.
    primary.connect().await.unwrap().run("SET old 1").await.unwrap();
    replica.kill9().await;
    let capture = Capture::start(&vault, both(&primary, &replica));
    capture.finds("log-interrupted").await;
    let stored = vault.log().await.ledger();
    assert!(stored.covered(&position(&primary).await.lineage).is_empty());
    assert_eq!(stored.trunk(), Some(&here.lineage));
    // It comes back with its data, but under another name.
    replica.start().await.unwrap();
    capture.finds("log-hole").await;
    capture.stop().await;
    assert_eq!(vault.log().await.ledger().trunk(), Some(&position(&replica).await.lineage));
}
