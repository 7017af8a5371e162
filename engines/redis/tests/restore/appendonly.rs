//! As an append-only log of several parts, which stock servers load.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use backup_core::{Goal, RecoveryTarget};
use backup_redis::RestoreSettings;
use backup_redis::rdb::{ExpiryRule, Rules};
use backup_testkit::redis::{RedisClient, RedisPersistence, every_type};
use backup_testkit::{Redis, RedisVersion, redis_versions_under_test, require_or_skip, scratch_dir, wait};

use crate::harness::{Vault, digest, offset, run};

async fn started(version: RedisVersion, dir: &Path) -> Redis {
    let server = Redis::builder(version).data_dir(dir).persistence(RedisPersistence::AppendOnly);
    server.start().await.unwrap_or_else(|error| panic!("{version}: {error:?}"))
}

/// A transaction over two databases.
async fn step(there: &mut RedisClient, number: u32) {
    let lines = format!("MULTI\nSET number {number}\nSELECT 5\nSADD numbers {number}\nSELECT 3\nEXEC");
    let commands: Vec<Vec<&str>> = lines.lines().map(|line| line.split(' ').collect()).collect();
    there.send(&commands).await.unwrap();
}

async fn has(server: &Redis, number: u32) {
    let mut here = server.connect().await.unwrap();
    run(&mut here, "SELECT 3").await;
    assert_eq!(run(&mut here, "GET number").await, number.to_string(), "{}", server.version());
    run(&mut here, "SELECT 5").await;
    assert_eq!(run(&mut here, "SCARD numbers").await, number.to_string(), "{}", server.version());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_server_starts_at_any_place_of_the_log() {
    for version in redis_versions_under_test().into_iter().filter(|version| *version != RedisVersion::Redis62) {
        let source = require_or_skip!(Redis::builder(version).start().await);
        every_type(&source).await.unwrap();
        let mut there = source.connect().await.unwrap();
        run(&mut there, "SELECT 3").await;
        let vault = Vault::memory();
        vault.backup(&source).await;
        let mut steps = Vec::new();
        let writing = async {
            for number in 1..=4 {
                step(&mut there, number).await;
                steps.push(offset(&source).await);
            }
        };
        vault.capture(&source, writing).await;
        let home = scratch_dir().unwrap();
        let dir = home.path().join("place");
        // In the midst of the third: the second is the last whole one.
        let goal = RecoveryTarget::new(Goal::Position((steps[2] - 1).to_string()));
        vault.recover(goal, RestoreSettings::files(&dir)).await.unwrap();
        has(&started(version, &dir).await, 2).await;

        let dir = home.path().join("latest");
        vault.recover(RecoveryTarget::latest(), RestoreSettings::files(&dir)).await.unwrap();
        let mut server = started(version, &dir).await;
        has(&server, 4).await;
        assert_eq!(digest(&server).await, digest(&source).await, "{version}");
        // It is a log of its own from here on.
        run(&mut server.connect().await.unwrap(), "SET more data").await;
        server.restart().await.unwrap();
        assert_eq!(run(&mut server.connect().await.unwrap(), "GET more").await, "data");

        let again = vault.recover(RecoveryTarget::latest(), RestoreSettings::files(&dir)).await.unwrap_err();
        assert!(again.to_string().contains("has a appendonlydir already"), "{again}");
    }
}

/// The second that the server's clock shows.
async fn second(client: &mut RedisClient) -> i64 {
    client.run("TIME").await.unwrap().items()[0].text().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_own_tool_goes_back_by_time() {
    for version in [RedisVersion::Redis82, RedisVersion::Valkey81] {
        let source = require_or_skip!(Redis::builder(version).start().await);
        let mut there = source.connect().await.unwrap();
        run(&mut there, "SELECT 3").await;
        let vault = Vault::memory();
        vault.backup(&source).await;
        let mut between = 0;
        let writing = async {
            step(&mut there, 1).await;
            step(&mut there, 2).await;
            // Their moments are those of arrival.
            vault.covers(&source).await;
            between = second(&mut there).await + 1;
            let deadline = wait::Deadline::after(Duration::from_secs(60));
            // One second more than needed: arrival is told by a clock that was compared with the server's.
            while second(&mut there).await <= between + 1 {
                assert!(!deadline.passed());
                backup_testkit::wait::pause().await;
            }
            step(&mut there, 3).await;
        };
        vault.capture(&source, writing).await;
        let home = scratch_dir().unwrap();
        let dir = home.path().join("data");
        vault.recover(RecoveryTarget::latest(), RestoreSettings::files(&dir)).await.unwrap();
        // The server's program is this tool when it is called so.
        let name = if version.is_valkey() { "valkey-check-aof" } else { "redis-check-aof" };
        let output = Command::new(source.binaries().program())
            .arg0(name)
            .args(["--truncate-to-timestamp", &between.to_string(), "appendonly.aof.manifest"])
            .current_dir(dir.join("appendonlydir"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("Successfully truncated"), "{version}: {output:?}");
        has(&started(version, &dir).await, 2).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_such_a_log_is_refused_with_the_reason() {
    let source = require_or_skip!(Redis::builder(RedisVersion::Redis62).start().await);
    let mut there = source.connect().await.unwrap();
    let vault = Vault::memory();
    let backup = vault.backup(&source).await;
    vault.capture(&source, async { drop(run(&mut there, "SET a 1").await) }).await;
    let home = scratch_dir().unwrap();
    let way = RestoreSettings::files(home.path().join("data"));
    let refused = async |way| vault.recover(RecoveryTarget::latest(), way).await.unwrap_err().to_string();
    let text = refused(way.clone()).await;
    assert!(text.contains("servers of redis rdb 9 do not know"), "{text}");
    let text = refused(way.clone().rules(Rules::default().expiry(ExpiryRule::Never))).await;
    assert!(text.contains("cannot be changed on its way"), "{text}");
    let text = refused(RestoreSettings::replay(crate::harness::client(&source))).await;
    assert!(text.contains("only the snapshot itself comes back"), "{text}");
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
    vault.restore(&backup, way).await.unwrap();
    assert!(home.path().join("data/dump.rdb").exists());
}
