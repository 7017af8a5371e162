//! Snapshots: what is stored is what the server holds, by either framing, from any node, over any connection.

use backup_redis::client::{TlsSettings, Trust};
use backup_redis::engine::facts;
use backup_redis::node::Prefer;
use backup_redis::{Method, RedisEngine, RedisSettings};
use backup_testkit::redis::{RedisCluster, contents, every_type};
use backup_testkit::{Redis, RedisVersion, redis_versions_under_test, require_or_skip};

use crate::harness::{Vault, engine, fact, finding, position, settings};

#[tokio::test(flavor = "multi_thread")]
async fn every_version_comes_back_as_it_was_by_both_framings() {
    for version in redis_versions_under_test() {
        for diskless in ["yes", "no"] {
            let builder = Redis::builder(version).setting("repl-diskless-sync", diskless);
            let server = require_or_skip!(builder.user("guest on >pass ~* +@all").start().await);
            every_type(&server).await.unwrap();
            let before = contents(&server).await.unwrap();
            let vault = Vault::memory();
            let engine = engine(&server);
            let backup = vault.backup(&engine).await;

            let (stop, here) = (backup.snapshot.stop.clone().unwrap(), position(&server).await);
            assert_eq!((stop.lineage, stop.offset), (here.lineage, here.offset), "{version}");
            assert_eq!(fact(&backup, facts::KEYS), before.keys.len().to_string());
            assert_eq!(fact(&backup, facts::COUNTED), "all");
            assert_eq!(fact(&backup, facts::CHECKSUM), "verified");
            assert_eq!(finding(&backup.snapshot.findings, "disk-snapshot").is_some(), diskless == "no");
            assert!(backup.snapshot.lossy.is_empty(), "{:?}", backup.snapshot.lossy);
            assert!(vault.record(&backup, facts::USERS).await.contains("user guest on"));
            assert!(vault.record(&backup, facts::CONFIGURATION).await.contains("\"maxmemory-policy\":\"noeviction\""));
            assert!(vault.record(&backup, facts::INFO).await.contains("# Replication"));
            if version.since_7() {
                assert!(vault.record(&backup, facts::FUNCTIONS).await.contains("register_function"));
            }
            let report = vault.check(&engine, &backup).await;
            assert!(report.is_sound() && report.findings.is_empty(), "{report:?}");

            let (_home, restored) = vault.server(&backup, &server).await;
            assert_eq!(contents(&restored).await.unwrap(), before, "{version} diskless {diskless}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_server_has_a_snapshot_and_a_second_one_follows_on() {
    for version in redis_versions_under_test() {
        let server = require_or_skip!(Redis::builder(version).password("secret word").start().await);
        let vault = Vault::memory();
        let url = format!("redis://default:secret%20word@127.0.0.1:{}", server.port());
        let engine = RedisEngine::new(RedisSettings::default().url(url)).unwrap();
        assert!(!format!("{engine} {engine:?}").contains("secret"));
        let empty = vault.backup(&engine).await;
        assert_eq!(fact(&empty, facts::KEYS), "0");
        server.connect().await.unwrap().run("SET a 1").await.unwrap();
        let full = vault.backup(&engine).await;
        assert_eq!(fact(&full, facts::DATABASES), "0=1");
        let (first, second) = (empty.snapshot.stop.unwrap(), full.snapshot.stop.unwrap());
        assert_eq!(first.lineage, second.lineage, "{version}: one history");
        assert!(first.offset < second.offset);
        assert!(full.snapshot.stopped_at > empty.snapshot.stopped_at.map(|at| at - 1_000_000));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_read_where_one_is_wished_for() {
    let primary = require_or_skip!(Redis::builder(RedisVersion::Valkey81).start().await);
    let replica = Redis::replica_of(&primary).await.unwrap();
    primary.connect().await.unwrap().run("SET a 1").await.unwrap();
    primary.wait_for_replica(&replica).await.unwrap();
    let vault = Vault::memory();
    // The address names the primary only; that knows its replica.
    let wish = RedisEngine::new(settings(&primary).prefer(Prefer::Replica)).unwrap();
    let backup = vault.backup(&wish).await;
    assert_eq!(fact(&backup, facts::ROLE), "replica");
    assert_eq!(backup.snapshot.stop.as_ref().unwrap().lineage, position(&primary).await.lineage);
    let (_home, restored) = vault.server(&backup, &primary).await;
    assert_eq!(contents(&restored).await.unwrap(), contents(&primary).await.unwrap());

    drop(replica);
    let backup = vault.backup(&wish).await;
    assert_eq!(fact(&backup, facts::ROLE), "primary", "there is none any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_and_unix_sockets_lead_to_the_same_data() {
    let server = require_or_skip!(Redis::builder(RedisVersion::Redis72).tls().start().await);
    server.connect().await.unwrap().run("SET a 1").await.unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let ca = scratch.path().join("ca.pem");
    std::fs::write(&ca, server.tls_ca().unwrap()).unwrap();
    let port = server.tls_port().unwrap();
    let vault = Vault::memory();
    let tls = |host: &str, tls: TlsSettings| {
        RedisEngine::new(RedisSettings::default().url(format!("rediss://{host}:{port}")).tls(tls)).unwrap()
    };
    let ways = [
        tls("127.0.0.1", TlsSettings::default().roots(&ca)),
        tls("localhost", TlsSettings::default().roots(&ca).trust(Trust::Issuer)),
        tls("127.0.0.1", TlsSettings::default().trust(Trust::Nobody)),
        RedisEngine::new(RedisSettings::default().url(format!("unix://{}", server.socket().display()))).unwrap(),
    ];
    for engine in &ways {
        assert_eq!(fact(&vault.backup(engine).await, facts::KEYS), "1", "{engine}");
    }
    let stranger = scratch.path().join("other.pem");
    let other = require_or_skip!(Redis::builder(RedisVersion::Redis72).tls().start().await);
    std::fs::write(&stranger, other.tls_ca().unwrap()).unwrap();
    let refused = vault.try_backup(&tls("127.0.0.1", TlsSettings::default().roots(&stranger))).await.unwrap_err();
    assert!(refused.to_string().contains("tls with 127.0.0.1"), "{refused}");
    let plain =
        RedisEngine::new(RedisSettings::default().url(format!("rediss://127.0.0.1:{}", server.port()))).unwrap();
    assert!(vault.try_backup(&plain).await.is_err(), "no tls there");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_may_replicate_the_file_is_read() {
    for version in redis_versions_under_test() {
        let rules = "backup on >pass ~* +@all -psync -sync";
        let server =
            require_or_skip!(Redis::builder(version).user(rules).setting("dbfilename", "my.rdb").start().await);
        every_type(&server).await.unwrap();
        let url = format!("redis://backup:pass@127.0.0.1:{}", server.port());
        let remote = RedisEngine::new(RedisSettings::default().url(&url)).unwrap();
        let vault = Vault::memory();
        let refused = vault.try_backup(&remote).await.unwrap_err().to_string();
        assert!(refused.contains("psync"), "{version}: {refused}");

        let settings = RedisSettings::default().url(&url).data_dir(server.data_dir()).method(Method::File);
        let backup = vault.backup(&RedisEngine::new(settings).unwrap()).await;
        assert_eq!(backup.snapshot.method, "file");
        let (_home, restored) = vault.server(&backup, &server).await;
        assert_eq!(contents(&restored).await.unwrap(), contents(&server).await.unwrap(), "{version}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn data_of_modules_come_back_and_the_module_is_named() {
    let server = require_or_skip!(Redis::builder(RedisVersion::Redis74).module().start().await);
    let mut client = server.connect().await.unwrap();
    for n in 0..50 {
        client.run(&format!("BF.ADD filter item{n}")).await.unwrap();
    }
    let vault = Vault::memory();
    let backup = vault.backup(&engine(&server)).await;
    assert_eq!(fact(&backup, facts::COUNTED), "all");
    assert_eq!(finding(&backup.snapshot.findings, "module").unwrap().subject, "bf");
    assert!(vault.record(&backup, facts::MODULES).await.contains("\"name\":\"bf\""));
    let (home, _) = vault.file(&backup).await;
    let builder = Redis::builder(RedisVersion::Redis74).module().data_dir(home.path().join("data"));
    let restored = builder.start().await.unwrap();
    assert_eq!(contents(&restored).await.unwrap(), contents(&server).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_a_cluster_are_backed_up_one_by_one() {
    let cluster = require_or_skip!(RedisCluster::start(RedisVersion::Redis82, 3).await);
    cluster.owner(12_182).unwrap().connect().await.unwrap().run("SET foo bar").await.unwrap();
    let mut slots = Vec::new();
    for node in cluster.nodes() {
        let vault = Vault::memory();
        let backup = vault.backup(&engine(node)).await;
        slots.push(fact(&backup, facts::SLOTS).to_owned());
        let text = vault.record(&backup, facts::CLUSTER).await;
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.contains(fact(&backup, facts::NODE)));
        let has = std::ptr::eq(node, cluster.owner(12_182).unwrap());
        assert_eq!(fact(&backup, facts::KEYS), if has { "1" } else { "0" });
    }
    assert_eq!(slots, ["0-5460", "5461-10921", "10922-16383"]);

    let (one, two) = (&cluster.nodes()[0], &cluster.nodes()[1]);
    let name = two.connect().await.unwrap().run("CLUSTER MYID").await.unwrap().text();
    one.connect().await.unwrap().run(&format!("CLUSTER SETSLOT 7 MIGRATING {name}")).await.unwrap();
    let refused = Vault::memory().try_backup(&engine(one)).await.unwrap_err();
    assert!(refused.to_string().contains("1 slots are moving"), "{refused}");
}
