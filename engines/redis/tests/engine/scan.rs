//! Key by key, where a server allows nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use backup_core::{Consistency, ErrorKind};
use backup_redis::engine::facts;
use backup_redis::{Method, RedisEngine, RedisSettings};
use backup_testkit::redis::{contents, every_type};
use backup_testkit::{Redis, RedisVersion, redis_versions_under_test, require_or_skip};

use crate::harness::{Vault, fact, finding};

/// A user that may do what a scan needs, and nothing else.
fn scanner(version: RedisVersion) -> String {
    let more = if version.since_7() { "+pexpiretime +function|dump" } else { "+pttl +time" };
    format!("scanner on >pass ~* +info +select +scan +randomkey +dump +multi +exec {more}")
}

fn settings(server: &Redis) -> RedisSettings {
    let url = format!("redis://scanner:pass@127.0.0.1:{}", server.port());
    RedisSettings::default().url(url).identity("the test").method(Method::Scan)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_version_comes_back_for_a_user_who_may_only_read() {
    for version in redis_versions_under_test() {
        let server = require_or_skip!(Redis::builder(version).user(scanner(version)).start().await);
        every_type(&server).await.unwrap();
        let before = contents(&server).await.unwrap();
        let vault = Vault::memory();
        let engine = RedisEngine::new(settings(&server)).unwrap();
        let backup = vault.backup(&engine).await;
        let snapshot = &backup.snapshot;
        assert_eq!((snapshot.consistency, snapshot.method.as_str()), (Consistency::Fuzzy, "scan"), "{version}");
        assert!(finding(&snapshot.findings, "not-point-in-time").is_some());
        assert!(snapshot.lossy.iter().any(|item| item.item == "one moment for all keys"), "{:?}", snapshot.lossy);
        assert!(snapshot.lossy.iter().any(|item| item.item.starts_with("users")), "it may not ask for users");
        assert!(snapshot.stop.is_none(), "no stream leads on from it");
        assert_eq!(fact(&backup, facts::KEYS), before.keys.len().to_string());
        assert_eq!(fact(&backup, facts::CHECKSUM), "verified");
        assert!(vault.check(&engine, &backup).await.is_sound());
        let (_home, restored) = vault.server(&backup, &server).await;
        assert_eq!(contents(&restored).await.unwrap(), before, "{version}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stays_is_in_it_once_while_everything_else_comes_and_goes() {
    for version in [RedisVersion::Redis62, RedisVersion::Redis82, RedisVersion::Valkey91] {
        let server = require_or_skip!(Redis::builder(version).user(scanner(version)).start().await);
        let mut client = server.connect().await.unwrap();
        let stay: Vec<_> = (0..3000).map(|n| ["SET".to_owned(), format!("stay:{n}"), n.to_string()]).collect();
        client.send(&stay).await.unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, mut writer) = (Arc::clone(&stop), server.connect().await.unwrap());
        // The table of keys grows and shrinks, so names are told again.
        let writing = tokio::spawn(async move {
            let mut round = 0;
            while !stopped.load(Ordering::SeqCst) {
                let word = if round % 2 == 0 { "SET" } else { "DEL" };
                let words = |n: u32| match word {
                    "SET" => vec![word.to_owned(), format!("go:{n}"), "x".to_owned()],
                    _ => vec![word.to_owned(), format!("go:{n}")],
                };
                writer.send(&(0..6000).map(words).collect::<Vec<_>>()).await.unwrap();
                writer.run("SELECT 3").await.unwrap();
                writer.run(&format!("SET round {round}")).await.unwrap();
                writer.run("SELECT 0").await.unwrap();
                round += 1;
            }
        });
        let vault = Vault::memory();
        // Room for some thousand names: several passes.
        for memory in [256 << 20, 64 * 8000] {
            let engine = RedisEngine::new(settings(&server).scan_memory(memory)).unwrap();
            let backup = vault.backup(&engine).await;
            // A server ends itself when it finds a key twice.
            let (_home, restored) = vault.server(&backup, &server).await;
            let keys = contents(&restored).await.unwrap().keys;
            let stayed = keys.keys().filter(|(database, key)| *database == 0 && key.starts_with(b"stay:")).count();
            assert_eq!(stayed, 3000, "{version} {memory}");
        }
        stop.store(true, Ordering::SeqCst);
        writing.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_had_is_said() {
    let version = RedisVersion::Redis72;
    let builder = Redis::builder(version).user("blind on >pass ~* +info +select +scan +multi +exec +command +acl");
    let server = require_or_skip!(builder.user("narrow on >pass ~a:* +@all").start().await);
    server.connect().await.unwrap().run("SET a:1 1").await.unwrap();
    server.connect().await.unwrap().run("SET b:1 1").await.unwrap();
    let vault = Vault::memory();
    let url = |user: &str| format!("redis://{user}:pass@127.0.0.1:{}", server.port());
    let way = |user: &str| RedisSettings::default().url(url(user)).method(Method::Scan);
    let error = vault.try_backup(&RedisEngine::new(way("blind")).unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Environment, "{error}");
    assert!(error.to_string().contains("dump"), "{error}");
    // Whoever may not read every key gets no backup that looks whole.
    let error = vault.try_backup(&RedisEngine::new(way("narrow")).unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Environment, "{error}");
    assert!(error.to_string().contains("no permissions"), "{error}");
    // It is never taken by itself.
    let error = vault.try_backup(&RedisEngine::new(RedisSettings::default().url(url("blind"))).unwrap()).await;
    assert!(error.unwrap_err().to_string().contains("with the method scan"));
    assert_eq!(vault.0.catalog().await.unwrap().backups().count(), 0);
}
