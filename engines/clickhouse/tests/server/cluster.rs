//! Several servers as one backup.

use backup_clickhouse::engine::facts;
use backup_clickhouse::{ClickHouseCluster, ClusterSettings, MemberSettings, RestoreSettings};
use backup_core::entry::Selector;
use backup_core::{BackupEngine, ErrorKind};
use backup_testkit::{
    ClickHouse as Server, ClickHouseVersion, ZooKeeper, clickhouse_versions_under_test, require_or_skip,
};

use crate::harness::{Vault, fact, replica, run, settings, shadows};
use crate::storage;

/// A cluster of these servers, with their shards and replicas.
fn cluster(servers: &[(u32, u32, &Server)]) -> ClickHouseCluster {
    let members =
        servers.iter().map(|(shard, replica, server)| MemberSettings::new(*shard, *replica, settings(server)));
    ClickHouseCluster::new(members.fold(ClusterSettings::default().identity("the cluster"), ClusterSettings::member))
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_are_one_backup_and_come_back_to_two_servers_or_to_one() {
    for version in clickhouse_versions_under_test() {
        let one = require_or_skip!(Server::builder(version).start().await);
        let two = require_or_skip!(Server::builder(version).start().await);
        for (shard, server) in [(0, &one), (1, &two)] {
            let fill = format!(
                "INSERT INTO shop.orders SELECT number * 2 + {shard}, {shard} FROM numbers(1000 * ({shard} + 1))"
            );
            run(
                server,
                &[
                    "CREATE DATABASE shop",
                    "CREATE TABLE shop.orders (id UInt64, shard UInt8) ENGINE = MergeTree ORDER BY id",
                    &fill,
                ],
            )
            .await;
        }
        run(
            &two,
            &[
                "CREATE TABLE shop.alone (id UInt64) ENGINE = Log",
                "INSERT INTO shop.alone SELECT number FROM numbers(7)",
            ],
        )
        .await;
        let source = cluster(&[(1, 1, &one), (2, 1, &two)]);
        let vault = Vault::memory();
        let first = vault.backup_by(&source).await.unwrap();
        let backup = vault.backup_by(&source).await.unwrap();
        assert_eq!(backup.parent, Some(first.id));
        let group = backup.snapshot.group.as_ref().unwrap();
        assert!(group.skew.is_some_and(|micros| micros < 10_000_000), "{:?}", group.skew);
        let names: Vec<_> = group.members.iter().map(|member| member.name.to_string()).collect();
        assert_eq!(names, ["shard-01-replica-01", "shard-02-replica-01"]);
        assert!(group.members.iter().all(|member| member.fact(facts::PARTS_KEPT) == Some("1")), "of the same member");
        assert_eq!((fact(&backup, facts::SERVERS), fact(&backup, facts::ROWS)), (2, 3000));
        assert!(shadows(&one).is_empty() && shadows(&two).is_empty());
        assert!(vault.check_by(&source, &backup).await.is_sound());

        let sql = "SELECT count(), uniqExact(id), max(shard) FROM shop.orders";
        let (a, b) = (
            require_or_skip!(Server::builder(version).start().await),
            require_or_skip!(Server::builder(version).start().await),
        );
        // In whatever order they are named.
        vault.restore_by(&cluster(&[(2, 1, &b), (1, 1, &a)]), &backup, Selector::all()).await.unwrap();
        for (server, like) in [(&a, &one), (&b, &two)] {
            assert_eq!(server.query(sql).await.unwrap(), like.query(sql).await.unwrap());
        }
        assert_eq!(b.query("SELECT count() FROM shop.alone").await.unwrap(), "7");
        assert_eq!(a.query("EXISTS TABLE shop.alone").await.unwrap(), "0");

        let all = require_or_skip!(Server::builder(version).start().await);
        let into = cluster(&[(1, 1, &all)]);
        vault.restore_by(&into, &backup, Selector::all()).await.unwrap();
        assert_eq!(all.query(sql).await.unwrap(), "3000\t3000\t1");
        assert_eq!(all.query("SELECT count() FROM shop.alone").await.unwrap(), "7");
        let error = vault.restore_by(&into, &backup, Selector::all()).await.unwrap_err();
        assert!(error.to_string().contains("shop.orders"), "{error}");

        // One that is away: nothing is stored, and nothing stays frozen.
        let gone = MemberSettings::new(3, 1, settings(&two).url("http://127.0.0.1:1").data_dir("/nowhere"));
        let broken = ClickHouseCluster::new(source.settings().clone().member(gone)).unwrap();
        let error = vault.backup_by(&broken).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        let twice = cluster(&[(1, 1, &one), (2, 1, &one)]);
        let error = vault.backup_by(&twice).await.unwrap_err();
        assert!(error.to_string().contains("same data directory"), "{error}");
        assert!(shadows(&one).is_empty() && shadows(&two).is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_are_read_once_and_come_back_as_replicas_or_as_one() {
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
                "CREATE TABLE shop.r (n UInt64, s String) ENGINE = ReplicatedMergeTree('/tables/{shard}/r', '{replica}') ORDER BY n",
            ],
        )
        .await;
    }
    let own = [
        "CREATE TABLE shop.own (n UInt64) ENGINE = MergeTree ORDER BY n",
        "INSERT INTO shop.own SELECT number FROM numbers(9)",
    ];
    run(&two, &own).await;
    run(&one, &["INSERT INTO shop.r SELECT number, hex(sipHash64(number)) FROM numbers(50000)"]).await;
    run(&two, &["SYSTEM SYNC REPLICA shop.r"]).await;
    let count = "SELECT count(), sum(cityHash64(n, s)) FROM shop.r";
    let wanted = one.query(count).await.unwrap();

    let home = tempfile::tempdir().unwrap();
    let vault = storage::create(&storage::on_disk(home.path())).await;
    let source = cluster(&[(1, 1, &one), (1, 2, &two)]);
    let backup = vault.backup_by(&source).await.unwrap();
    // Of the whole: one replica, and what the other one has alone.
    assert_eq!(fact(&backup, facts::ROWS), 50_009);
    let alone = storage::create(&storage::on_disk(&home.path().join("alone"))).await.backup(&one).await;
    assert!(backup.stored_bytes * 10 < alone.stored_bytes * 11, "{} of {}", backup.stored_bytes, alone.stored_bytes);
    assert!(vault.check_by(&source, &backup).await.is_sound());

    let zookeeper = require_or_skip!(ZooKeeper::start().await);
    let (a, b) = (replica(&zookeeper, "a").await, replica(&zookeeper, "b").await);
    vault.restore_by(&cluster(&[(1, 1, &a), (1, 2, &b)]), &backup, Selector::all()).await.unwrap();
    for server in [&a, &b] {
        run(server, &["SYSTEM SYNC REPLICA shop.r"]).await;
        assert_eq!(server.query(count).await.unwrap(), wanted);
    }
    assert_eq!(b.query("SELECT count() FROM shop.own").await.unwrap(), "9");
    assert_eq!(a.query("EXISTS TABLE shop.own").await.unwrap(), "0");

    let all = Server::builder(ClickHouseVersion::V18_16).start().await.unwrap();
    let into = cluster(&[(1, 1, &all)]).with_restore(RestoreSettings::default().unreplicated(true));
    vault.restore_by(&into, &backup, Selector::all()).await.unwrap();
    assert_eq!(all.query(count).await.unwrap(), wanted);
    assert_eq!(all.query("SELECT count() FROM shop.own").await.unwrap(), "9");
}

/// Free ports: the server itself knows by its own that it is meant.
fn ports(count: usize) -> Vec<u16> {
    let listeners: Vec<_> = (0..count).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_servers_say_of_their_cluster_has_to_fit() {
    for version in clickhouse_versions_under_test() {
        let ports = ports(2);
        let shards: String = ports
            .iter()
            .map(|port| format!("<shard><replica><host>127.0.0.1</host><port>{port}</port></replica></shard>"))
            .collect();
        let config = format!("<remote_servers><shop>{shards}</shop></remote_servers>");
        let start = async |port: u16| {
            let builder = Server::builder(version).config("tcp_port", &port.to_string()).raw_config(config.clone());
            builder.start().await
        };
        let (one, two) = (require_or_skip!(start(ports[0]).await), require_or_skip!(start(ports[1]).await));
        for server in [&one, &two] {
            run(server, &["CREATE TABLE default.t (id UInt64) ENGINE = MergeTree ORDER BY id"]).await;
        }
        let called = |name: &str, servers: &[(u32, u32, &Server)]| {
            ClickHouseCluster::new(cluster(servers).settings().clone().cluster(name)).unwrap()
        };
        let vault = Vault::memory();
        vault.backup_by(&called("shop", &[(1, 1, &one), (2, 1, &two)])).await.unwrap();
        for (name, servers, wanted) in [
            ("shop", vec![(2, 1, &one), (1, 1, &two)], "is given as 1/1, and says that it is 2/1 of shop"),
            ("shop", vec![(1, 1, &one)], "shop consists of 1/1, 2/1, and given are 1/1"),
            ("shop", vec![(1, 1, &one), (1, 2, &two)], "shop consists of 1/1, 2/1, and given are 1/1, 1/2"),
            ("shopp", vec![(1, 1, &one), (2, 1, &two)], "no server knows a cluster called shopp; what they know: "),
        ] {
            let engine = called(name, &servers);
            let error = vault.backup_by(&engine).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
            assert!(error.to_string().contains(wanted), "{version}: {error}");
            assert_eq!(engine.inspect().await.unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        assert!(shadows(&one).is_empty() && shadows(&two).is_empty());
        // Where it is not asked for, nothing is compared.
        vault.backup_by(&cluster(&[(2, 1, &one), (1, 1, &two)])).await.unwrap();
    }
}
