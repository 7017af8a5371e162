//! Servers of the Redis family do what the testkit promises, in every version.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use backup_testkit::redis::{RedisBinaries, RedisCluster, RedisPersistence, Reply, contents, every_type};
use backup_testkit::wait::Stopwatch;
use backup_testkit::{Redis, RedisVersion, redis_versions_under_test, require_or_skip, scratch_dir, unprivileged};

#[tokio::test(flavor = "multi_thread")]
async fn every_version_keeps_every_type_over_a_restart() {
    for version in redis_versions_under_test() {
        let watch = Stopwatch::start();
        let server = Redis::builder(version).persistence(RedisPersistence::Snapshots(3600)).start().await;
        let mut server = require_or_skip!(server);
        println!("{version}: {:?}", watch.elapsed());
        let field = if version.is_valkey() { "valkey_version" } else { "redis_version" };
        let said = server.info("server", field).await.unwrap().unwrap();
        assert!(said.starts_with(&format!("{}.", version.line())), "{version}: {said}");

        every_type(&server).await.unwrap();
        let before = contents(&server).await.unwrap();
        assert!(before.keys.len() > 2_400, "{}", before.keys.len());
        assert!(before.keys.contains_key(&(15, b"\x00\xff\r\n key".to_vec())));
        let port = server.port();
        server.restart().await.unwrap();
        assert_eq!(server.port(), port);
        assert_eq!(contents(&server).await.unwrap(), before, "{version}");

        // The comparison sees what it promises to see.
        let mut client = server.connect().await.unwrap();
        client.run("EXPIREAT string:expires 4102444801").await.unwrap();
        client.run("XACK stream readers 3-1").await.unwrap();
        client.run("LPUSH list:long 1").await.unwrap();
        let after = contents(&server).await.unwrap();
        let changed = before.keys.iter().filter(|(name, item)| after.keys.get(*name) != Some(*item));
        let changed: Vec<_> = changed.map(|((_, name), _)| String::from_utf8_lossy(name).into_owned()).collect();
        let seen =
            if version.since_7() { vec!["list:long", "stream", "string:expires"] } else { vec!["list:long", "stream"] };
        assert_eq!(changed, seen, "{version}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_only_log_survives_kill_and_a_directory_is_opened_by_another() {
    for version in redis_versions_under_test() {
        let scratch = scratch_dir().unwrap();
        let data = scratch.path().join("data");
        let builder = Redis::builder(version).persistence(RedisPersistence::AppendOnly).data_dir(&data);
        let mut server = require_or_skip!(builder.clone().start().await);
        server.connect().await.unwrap().run("SET a 1").await.unwrap();
        server.kill9().await;
        assert!(!server.is_running());
        drop(server);
        let other = builder.start().await.unwrap();
        assert_eq!(other.connect().await.unwrap().run("GET a").await.unwrap(), Reply::Bulk(b"1".to_vec()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_follows_and_the_roles_are_swapped() {
    for version in redis_versions_under_test() {
        let primary = require_or_skip!(Redis::builder(version).password("se\"cret\\").start().await);
        primary.connect().await.unwrap().run("SET a 1").await.unwrap();
        let replica = Redis::replica_of(&primary).await.unwrap();
        primary.connect().await.unwrap().run("SET b 2").await.unwrap();
        primary.wait_for_replica(&replica).await.unwrap();
        assert_eq!(contents(&replica).await.unwrap(), contents(&primary).await.unwrap());
        let denied = replica.connect().await.unwrap().run("SET c 3").await.unwrap_err();
        assert!(denied.to_string().contains("READONLY"), "{denied}");

        primary.failover_to(&replica).await.unwrap();
        replica.connect().await.unwrap().run("SET c 3").await.unwrap();
        replica.wait_for_replica(&primary).await.unwrap();
        assert_eq!(contents(&primary).await.unwrap().keys.len(), 3, "{version}");

        primary.promote().await.unwrap();
        primary.connect().await.unwrap().run("SET d 4").await.unwrap();
        primary.follow(&replica).await.unwrap();
        assert_eq!(contents(&primary).await.unwrap(), contents(&replica).await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_become_a_cluster() {
    for version in redis_versions_under_test() {
        let cluster = require_or_skip!(RedisCluster::start(version, 3).await);
        let owner = cluster.owner(12_182).unwrap();
        // The slot of "foo" (the cluster specification).
        owner.connect().await.unwrap().run("SET foo bar").await.unwrap();
        let moved = cluster.nodes()[0].connect().await.unwrap().run("GET foo").await.unwrap_err();
        assert!(moved.to_string().contains(&format!("MOVED 12182 127.0.0.1:{}", owner.port())), "{moved}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_users_and_modules_are_as_asked_for() {
    let builder = Redis::builder(RedisVersion::Redis74).module().user("guest on >pass ~a* +get");
    let mut server = require_or_skip!(builder.setting("maxmemory-policy", "allkeys-lru").start().await);
    let mut client = server.connect().await.unwrap();
    client.run("BF.ADD filter item").await.unwrap();
    let config = client.run("CONFIG GET maxmemory-policy").await.unwrap();
    assert_eq!(config.items()[1].text(), "allkeys-lru");
    client.run("CONFIG SET maxmemory-policy noeviction").await.unwrap();
    client.run("CONFIG REWRITE").await.unwrap();
    server.restart().await.unwrap();
    let mut client = server.connect().await.unwrap();
    let config = client.run("CONFIG GET maxmemory-policy").await.unwrap();
    assert_eq!(config.items()[1].text(), "noeviction", "what the server wrote stays");
    client.run("AUTH guest pass").await.unwrap();
    client.run("GET a").await.unwrap();
    let denied = client.run("GET b").await.unwrap_err();
    assert!(denied.to_string().contains("NOPERM"), "{denied}");

    let bad = Redis::builder(RedisVersion::Redis74).setting("maxmemory-policy", "none").start().await.unwrap_err();
    assert!(bad.to_string().contains("maxmemory-policy"), "the log is shown: {bad}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_spoken_where_the_build_can() {
    let without = Redis::builder(RedisVersion::Redis62).tls().start().await;
    assert!(without.unwrap_err().is_unavailable());
    let server = require_or_skip!(Redis::builder(RedisVersion::Redis72).tls().start().await);
    assert!(server.tls_ca().unwrap().contains("BEGIN CERTIFICATE"));
    let said = |port: u16| {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(b"PING\r\n").unwrap();
        let mut answer = Vec::new();
        let mut byte = [0];
        while answer.len() < 5 && stream.read(&mut byte).is_ok_and(|n| n == 1) {
            answer.push(byte[0]);
        }
        answer
    };
    assert_eq!(said(server.port()), b"+PONG");
    assert_ne!(said(server.tls_port().unwrap()), b"+PONG");
}

#[test]
fn a_program_of_another_version_is_refused() {
    let right = require_or_skip!(RedisBinaries::get(RedisVersion::Valkey81));
    let program = right.program();
    RedisBinaries::installed(RedisVersion::Valkey81, program).unwrap();
    let wrong = RedisBinaries::installed(RedisVersion::Redis82, program).unwrap_err();
    assert!(wrong.to_string().contains("is wanted as redis-8.2 but says \"Valkey server v=8.1."), "{wrong}");
    assert!(unprivileged().blocked_at(program).is_none());
}
