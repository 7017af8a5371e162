//! Key by key: beside other data, into other versions, into clusters of another size.

use std::collections::BTreeMap;

use backup_core::ErrorKind;
use backup_redis::RestoreSettings;
use backup_redis::rdb::{ExpiryRule, KeyFilter, Rules};
use backup_redis::restore::Way;
use backup_testkit::redis::{RedisCluster, contents, every_type};
use backup_testkit::{Redis, RedisVersion, redis_versions_under_test, require_or_skip};

use crate::harness::{Vault, big, client, run};

#[tokio::test(flavor = "multi_thread")]
async fn every_type_comes_back_beside_other_data() {
    for version in redis_versions_under_test() {
        let source = require_or_skip!(Redis::builder(version).start().await);
        every_type(&source).await.unwrap();
        if version == RedisVersion::Redis72 {
            big(&mut source.connect().await.unwrap(), "big", 65 << 20).await;
        }
        let vault = Vault::memory();
        let backup = vault.backup(&source).await;
        let target = Redis::builder(version).start().await.unwrap();
        let mut here = target.connect().await.unwrap();
        run(&mut here, "SET old data").await;
        vault.restore(&backup, RestoreSettings::replay(client(&target))).await.unwrap();
        assert_eq!(run(&mut here, "GET old").await, "data");
        run(&mut here, "DEL old").await;
        assert_eq!(contents(&target).await.unwrap(), contents(&source).await.unwrap(), "{version}");

        // Again it finds every key, and replaces none unless told to.
        let again = RestoreSettings::replay(client(&target));
        let error = vault.restore(&backup, again.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
        let Way::Replay(replay) = again.way.clone() else { unreachable!() };
        let replace = RestoreSettings::new(Way::Replay(replay.replace(true)));
        vault.restore(&backup, replace).await.unwrap();
        assert_eq!(contents(&target).await.unwrap(), contents(&source).await.unwrap(), "{version}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn newer_data_come_back_into_older_servers_of_the_other_kind() {
    let source = require_or_skip!(Redis::builder(RedisVersion::Valkey91).start().await);
    let mut there = source.connect().await.unwrap();
    for line in [
        "RPUSH list a b",
        "ZADD zset 1 a",
        "XADD stream 1-1 f v",
        "HSET hash f v",
        "HEXPIREAT hash 4102444800 FIELDS 1 f",
    ] {
        run(&mut there, line).await;
    }
    let vault = Vault::memory();
    let backup = vault.backup(&source).await;
    let target = Redis::builder(RedisVersion::Redis72).start().await.unwrap();
    // A hash with expiring fields is nothing that it knows.
    let way = RestoreSettings::replay(client(&target));
    let error = vault.restore(&backup, way.clone()).await.unwrap_err();
    assert!(error.to_string().contains("takes no values of type 22"), "{error}");
    let mut here = target.connect().await.unwrap();
    assert_eq!(run(&mut here, "DBSIZE").await, "0", "nothing was sent");
    vault.restore(&backup, way.rules(Rules::default().expiry(ExpiryRule::Never))).await.unwrap();
    assert_eq!(run(&mut here, "DBSIZE").await, "4");
    assert_eq!(run(&mut here, "LRANGE list 0 -1").await, "a\nb");
    assert_eq!(run(&mut here, "HGET hash f").await, "v");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_some_keys_under_other_names() {
    let source = require_or_skip!(Redis::builder(RedisVersion::Redis72).start().await);
    let mut there = source.connect().await.unwrap();
    for line in ["SELECT 2", "SET user:1 a", "EXPIREAT user:1 4102444800", "SET other b"] {
        run(&mut there, line).await;
    }
    let vault = Vault::memory();
    let backup = vault.backup(&source).await;
    let target = Redis::builder(RedisVersion::Redis72).start().await.unwrap();
    let mut here = target.connect().await.unwrap();
    run(&mut here, "SET user:1 theirs").await;
    let rules = Rules::default()
        .filter(KeyFilter::all().pattern("user:*"))
        .rename("user:", "restored:")
        .into_database(0)
        .expiry(ExpiryRule::Shift(-1000));
    vault.restore(&backup, RestoreSettings::replay(client(&target)).rules(rules)).await.unwrap();
    assert_eq!(run(&mut here, "DBSIZE").await, "2");
    assert_eq!(run(&mut here, "GET user:1").await, "theirs");
    assert_eq!(run(&mut here, "GET restored:1").await, "a");
    assert_eq!(run(&mut here, "PEXPIRETIME restored:1").await, "4102444799000");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_comes_back_with_another_number_of_nodes() {
    let version = RedisVersion::Redis72;
    let source = require_or_skip!(RedisCluster::start(version, 3).await);
    for number in 0..600 {
        let key = format!("key:{{{}}}:{number}", number % 37);
        let owner = source.owner(backup_redis::rdb::slot_of(key.as_bytes())).unwrap();
        run(&mut owner.connect().await.unwrap(), &format!("SET {key} value-{number}")).await;
    }
    let target = RedisCluster::start(version, 5).await.unwrap();
    let mut wanted = BTreeMap::new();
    for node in source.nodes() {
        let vault = Vault::memory();
        let backup = vault.backup(node).await;
        let way = RestoreSettings::replay(client(&target.nodes()[0]));
        vault.restore(&backup, way).await.unwrap();
        wanted.extend(contents(node).await.unwrap().keys);
    }
    let (mut has, mut used) = (BTreeMap::new(), 0);
    for node in target.nodes() {
        let keys = contents(node).await.unwrap().keys;
        used += usize::from(!keys.is_empty());
        has.extend(keys);
    }
    assert_eq!((wanted.len(), used), (600, 5));
    assert_eq!(has, wanted);
}
