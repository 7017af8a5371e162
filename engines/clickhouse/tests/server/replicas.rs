//! Replicated tables, on servers of 18.16 that share a ZooKeeper.

use backup_clickhouse::engine::facts;
use backup_clickhouse::{OnExisting, RestoreSettings};
use backup_testkit::{
    ClickHouse as Server, ClickHouseVersion, ZooKeeper, clickhouse_versions_under_test, require_or_skip,
};

use crate::harness::{fact, replica, run};
use crate::storage;

const COUNT: &str = "SELECT count(), sum(cityHash64(n, s)) FROM shop.r";

#[tokio::test(flavor = "multi_thread")]
async fn replicas_are_stored_once_and_come_back_as_replicas_or_as_one() {
    if !clickhouse_versions_under_test().contains(&ClickHouseVersion::V18_16) {
        return;
    }
    let zookeeper = require_or_skip!(ZooKeeper::start().await);
    let (one, two) = (replica(&zookeeper, "a").await, replica(&zookeeper, "b").await);
    for server in [&one, &two] {
        run(
            server,
            &[
                "CREATE DATABASE shop",
                "CREATE TABLE shop.r (n UInt64, s String) ENGINE = ReplicatedMergeTree('/tables/{shard}/r', '{replica}') \
                 PARTITION BY n % 4 ORDER BY n",
            ],
        )
        .await;
    }
    run(&one, &["INSERT INTO shop.r SELECT number, hex(sipHash64(number)) FROM numbers(200000)"]).await;
    run(&two, &["SYSTEM SYNC REPLICA shop.r"]).await;
    let wanted = one.query(COUNT).await.unwrap();
    assert_eq!(two.query(COUNT).await.unwrap(), wanted);

    let home = tempfile::tempdir().unwrap();
    let vault = storage::create(&storage::on_disk(home.path())).await;
    let first = vault.backup(&one).await;
    let second = vault.backup(&two).await;
    assert_eq!(fact(&second, facts::PARTS_KEPT), 4, "parts of replicas are the same");
    assert!(second.stored_bytes * 20 < first.stored_bytes, "{} after {}", second.stored_bytes, first.stored_bytes);

    // Other servers, another ZooKeeper: parts are attached at one, the others fetch them.
    let zookeeper = require_or_skip!(ZooKeeper::start().await);
    let (one, two) = (replica(&zookeeper, "a").await, replica(&zookeeper, "b").await);
    vault.restore(&first, &one, RestoreSettings::default()).await.unwrap();
    vault.restore(&first, &two, RestoreSettings::default().structure_only(true)).await.unwrap();
    run(&two, &["SYSTEM SYNC REPLICA shop.r"]).await;
    for server in [&one, &two] {
        assert_eq!(server.query(COUNT).await.unwrap(), wanted);
    }
    run(&two, &["INSERT INTO shop.r VALUES (1000000, 'x')"]).await;
    run(&one, &["SYSTEM SYNC REPLICA shop.r"]).await;
    assert_eq!(one.query("SELECT count() FROM shop.r").await.unwrap(), "200001");

    // A server without ZooKeeper.
    let alone = Server::builder(ClickHouseVersion::V18_16).start().await.unwrap();
    let error = vault.restore(&first, &alone, RestoreSettings::default()).await.unwrap_err();
    assert!(error.to_string().contains("shop.r"), "{error}");
    let way = RestoreSettings::default().unreplicated(true).existing(OnExisting::Replace);
    vault.restore(&first, &alone, way).await.unwrap();
    assert_eq!(alone.query(COUNT).await.unwrap(), wanted);
}
