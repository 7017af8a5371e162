//! Deployments that sentinels watch.

use backup_core::ErrorKind;
use backup_redis::engine::facts;
use backup_redis::node::Prefer;
use backup_redis::{RedisEngine, RedisSettings, RestoreSettings};
use backup_testkit::redis::RedisSentinels;
use backup_testkit::{Redis, RedisVersion, require_or_skip};

use crate::capture::{Load, assert_complete};
use crate::harness::{Capture, Vault, fact, position};

fn settings(sentinels: &RedisSentinels, name: &str) -> RedisSettings {
    let places: Vec<_> = sentinels.ports().iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let url = format!("redis+sentinel://:secret@{}/{name}", places.join(","));
    RedisSettings::default().url(url).identity("the test")
}

#[tokio::test(flavor = "multi_thread")]
async fn backup_and_capture_follow_the_sentinels() {
    let builder = Redis::builder(RedisVersion::Redis72).password("secret").raw("repl-backlog-size", "64mb");
    let mut primary = require_or_skip!(builder.clone().start().await);
    let mut replicas = Vec::new();
    for _ in 0..2 {
        let replica = builder.clone().replica_of(&primary).start().await.unwrap();
        replica.wait_linked().await.unwrap();
        replicas.push(replica);
    }
    let mut sentinels = RedisSentinels::start("shop", &primary, 2, 3).await.unwrap();
    let vault = Vault::memory();
    let engine = RedisEngine::new(settings(&sentinels, "shop")).unwrap();
    assert!(!format!("{engine} {engine:?}").contains("secret"));
    let backup = vault.backup(&engine).await;
    assert_eq!(fact(&backup, facts::ROLE), "primary");
    let wish = RedisEngine::new(settings(&sentinels, "shop").prefer(Prefer::Replica)).unwrap();
    assert_eq!(fact(&vault.backup(&wish).await, facts::ROLE), "replica");
    let unknown = RedisEngine::new(settings(&sentinels, "other")).unwrap();
    let error = vault.try_backup(&unknown).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert!(error.to_string().contains("watches no deployment of the name \"other\""), "{error}");
    // Live they would break it up; that is said before anything is touched.
    let live = RestoreSettings::live(settings(&sentinels, "shop").client().unwrap());
    let error = vault.restore(&backup, live).await.unwrap_err();
    assert!(error.to_string().contains("sentinels watch"), "{error}");

    let capture = Capture::start(&vault, settings(&sentinels, "shop"));
    let load = Load::start(&primary).await;
    load.more().await;
    capture.reaches(&position(&primary).await).await;
    // The first sentinel of the address goes as well.
    let old = primary.port();
    primary.kill9().await;
    load.end().await;
    let new = sentinels.wait_primary(|port| port != old).await.unwrap();
    let new = replicas.iter().find(|replica| replica.port() == new).unwrap();
    new.wait_info("replication", "role", |role| role == "master").await.unwrap();
    sentinels.kill9(0);
    // However long the capture takes to find it, nobody fills the backlog meanwhile.
    new.connect().await.unwrap().run("SET first-of-the-new-primary 1").await.unwrap();
    capture.reaches(&position(new).await).await;
    let load = Load::start(new).await;
    load.more().await;
    capture.reaches(&position(new).await).await;
    load.end().await;
    capture.reaches(&position(new).await).await;
    assert!(!capture.found.has("log-hole"), "{:?}", capture.found);
    capture.stop().await;
    assert_complete(&vault, &backup, new).await;
}
