//! Into a running server, as a whole.

use std::time::Duration;

use backup_core::{ErrorKind, Goal, RecoveryTarget};
use backup_redis::RestoreSettings;
use backup_redis::rdb::sample::SampleFile;
use backup_redis::rdb::{ExpiryRule, KeyFilter, RdbVersion, Rules};
use backup_redis::restore::{LinkTls, LiveSettings, Way, released};
use backup_testkit::redis::{RedisPersistence, contents, every_type};
use backup_testkit::{Redis, RedisVersion, redis_versions_under_test, require_or_skip};

use crate::harness::{Vault, big, client, digest, offset, run};

#[tokio::test(flavor = "multi_thread")]
async fn every_type_comes_back_into_a_running_server() {
    for version in redis_versions_under_test() {
        let source = require_or_skip!(Redis::builder(version).start().await);
        every_type(&source).await.unwrap();
        let mut there = source.connect().await.unwrap();
        if version == RedisVersion::Valkey91 {
            big(&mut there, "big", 65 << 20).await;
        }
        run(&mut there, "ACL SETUSER carol on >secret ~many:* +get").await;
        let vault = Vault::memory();
        let backup = vault.backup(&source).await;

        let target = Redis::builder(version).password("theirs").start().await.unwrap();
        let mut here = target.connect().await.unwrap();
        run(&mut here, "SET old data").await;
        let settings = ["masterauth", "masteruser", "repl-diskless-load"];
        let mut before = Vec::new();
        for name in settings {
            before.push(run(&mut here, &format!("CONFIG GET {name}")).await);
        }
        let way = RestoreSettings::live(client(&target)).users(version != RedisVersion::Redis62);
        vault.restore(&backup, way).await.unwrap();

        // The connection is the old one: the server has never been restarted.
        assert_eq!(run(&mut here, "EXISTS old").await, "0", "{version}");
        assert_eq!(digest(&target).await, digest(&source).await, "{version}");
        assert_eq!(contents(&target).await.unwrap(), contents(&source).await.unwrap(), "{version}");
        assert_eq!(target.info("replication", "role").await.unwrap().as_deref(), Some("master"));
        assert_eq!(run(&mut here, "SET more data").await, "OK");
        for (name, before) in settings.iter().zip(before) {
            assert_eq!(run(&mut here, &format!("CONFIG GET {name}")).await, before, "{version}");
        }
        if version != RedisVersion::Redis62 {
            assert_eq!(run(&mut here, "AUTH carol secret").await, "OK");
            assert_eq!(run(&mut here, "GET many:7").await, "value 7");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_snapshot_is_refused_before_the_server_is_touched() {
    let target = require_or_skip!(Redis::builder(RedisVersion::Redis72).start().await);
    let mut here = target.connect().await.unwrap();
    run(&mut here, "SET old data").await;
    let whole = SampleFile::new(RdbVersion::redis(11)).database(0).string("a", &[b'x'; 5000]).finish();
    let vault = Vault::memory();
    let mut flipped = whole.clone();
    flipped[3000] ^= 1;
    let longer = [whole.as_slice(), b"more"].concat();
    for broken in [flipped, whole[..4000].to_vec(), longer] {
        let backup = vault.keep(broken).await;
        let error = vault.restore(&backup, RestoreSettings::live(client(&target))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error:?}");
        assert!(!target.log().contains("REPLICAOF"), "{}", target.log());
        assert_eq!(run(&mut here, "GET old").await, "data");
    }
    // The same way with the whole one.
    let backup = vault.keep(whole).await;
    vault.restore(&backup, RestoreSettings::live(client(&target))).await.unwrap();
    assert_eq!(run(&mut here, "STRLEN a").await, "5000");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_dies_leaves_the_old_or_the_new() {
    let version = RedisVersion::Redis72;
    let source = require_or_skip!(Redis::builder(version).start().await);
    let mut there = source.connect().await.unwrap();
    for number in 0..20 {
        big(&mut there, &format!("big:{number}"), 1 << 20).await;
    }
    let vault = Vault::memory();
    let backup = vault.backup(&source).await;
    let target = Redis::builder(version).start().await.unwrap();
    let mut here = target.connect().await.unwrap();
    run(&mut here, "SET old data").await;
    let (old, new) = (digest(&target).await, digest(&source).await);
    for after in [0, 20, 60, 100, 150, 200, 300, 500, 800, 1500] {
        let way = RestoreSettings::live(client(&target));
        let dying = tokio::time::timeout(Duration::from_millis(after), vault.restore(&backup, way)).await;
        // Nobody is left to wait for, and still the server is let go.
        released().await;
        let is = digest(&target).await;
        assert!(is == old || is == new, "{after}: {dying:?}");
        assert_eq!(target.info("replication", "role").await.unwrap().as_deref(), Some("master"), "{after}");
        assert_eq!(run(&mut here, "CONFIG GET masterauth").await, "masterauth\n", "{after}");
        if dying.is_ok() {
            break;
        }
    }
    // Whatever was left behind is no obstacle.
    vault.restore(&backup, RestoreSettings::live(client(&target))).await.unwrap();
    assert_eq!(digest(&target).await, new);
    assert_eq!(target.info("replication", "role").await.unwrap().as_deref(), Some("master"));
    assert_eq!(run(&mut here, "CONFIG GET masterauth").await, "masterauth\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_speaks_tls_with_its_primary_does_so_with_us() {
    let builder = Redis::builder(RedisVersion::Redis72).tls();
    let target = require_or_skip!(builder.clone().setting("tls-replication", "yes").start().await);
    let source = builder.clone().start().await.unwrap();
    run(&mut source.connect().await.unwrap(), "SET new data").await;
    let vault = Vault::memory();
    let backup = vault.backup(&source).await;
    let mut here = target.connect().await.unwrap();
    run(&mut here, "SET old data").await;
    let live = || LiveSettings::new(client(&target)).patience(Duration::from_secs(3));
    let by = |live: LiveSettings| RestoreSettings::new(Way::Live(live));
    let certificate_of = |server: &Redis| LinkTls::Certificate {
        certificate: server.home().join("server.crt"),
        key: server.home().join("server.key"),
    };
    const LINK: &str = "CONFIG GET tls-replication";

    let error = vault.restore(&backup, by(live())).await.unwrap_err();
    assert!(error.to_string().contains("there is no certificate to show it"), "{error}");
    // A certificate that its authority has not signed.
    let error = vault.restore(&backup, by(live().link(certificate_of(&source)))).await.unwrap_err();
    assert!(error.to_string().contains("did not agree on TLS"), "{error:?}");
    let error = vault
        .restore(
            &backup,
            by(live().link(LinkTls::Certificate {
                certificate: target.home().join("server.crt"),
                key: target.home().join("nothing"),
            })),
        )
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
    assert_eq!(run(&mut here, "GET old").await, "data");
    assert_eq!(run(&mut here, LINK).await, "tls-replication\nyes");

    for (link, server) in [
        (certificate_of(&target), &target),
        (LinkTls::Plain, &target),
        // Nothing else asks for TLS here.
        (certificate_of(&source), &source),
    ] {
        let mut there = server.connect().await.unwrap();
        run(&mut there, "SET old data").await;
        let before = run(&mut there, LINK).await;
        let live = LiveSettings::new(client(server)).link(link);
        vault.restore(&backup, by(live)).await.unwrap();
        assert_eq!(run(&mut there, "GET new").await, "data");
        assert_eq!(run(&mut there, "EXISTS old").await, "0");
        assert_eq!(run(&mut there, LINK).await, before, "it is set back");
        assert_eq!(server.info("replication", "role").await.unwrap().as_deref(), Some("master"));
    }
    // Who is dropped sets it back as well.
    let way = by(LiveSettings::new(client(&target)).link(LinkTls::Plain));
    let dying = tokio::time::timeout(Duration::from_millis(30), vault.restore(&backup, way)).await;
    released().await;
    assert_eq!(run(&mut here, LINK).await, "tls-replication\nyes", "{dying:?}");
    let plain = Redis::builder(RedisVersion::Redis62).start().await.unwrap();
    let old = SampleFile::new(RdbVersion::redis(9)).database(0).string("a", b"1").finish();
    let old = vault.keep(old).await;
    let live = LiveSettings::new(client(&plain)).link(certificate_of(&target));
    let error = vault.restore(&old, by(live)).await.unwrap_err();
    assert!(error.to_string().contains("was built without it"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_on_loading_is_left_in_time() {
    let version = RedisVersion::Redis72;
    let source = require_or_skip!(Redis::builder(version).start().await);
    let mut there = source.connect().await.unwrap();
    for number in 0..150 {
        big(&mut there, &format!("key:{number}"), 2048).await;
    }
    let vault = Vault::memory();
    let backup = vault.backup(&source).await;
    // Three seconds for the keys, and it answers between them, but gives a sign of life only once in a second.
    let target = Redis::builder(version)
        .setting("key-load-delay", "20000")
        .setting("loading-process-events-interval-bytes", "1024")
        .start()
        .await
        .unwrap();
    run(&mut target.connect().await.unwrap(), "SET old data").await;
    let impatient = client(&target).silence(Duration::from_millis(500));
    let Way::Live(live) = RestoreSettings::live(impatient).way else { unreachable!() };
    let way = RestoreSettings::new(Way::Live(live.release(Duration::from_millis(200))));
    let error = vault.restore(&backup, way).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    let text = error.to_string();
    for part in ["still says", "LOADING", "REPLICAOF NO ONE", "not set back there: masterauth"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // What it says is so.
    target.wait_info("persistence", "loading", |loading| loading == "0").await.unwrap();
    assert_eq!(target.info("replication", "role").await.unwrap().as_deref(), Some("slave"));
    assert_eq!(digest(&target).await, digest(&source).await);
    let mut here = target.connect().await.unwrap();
    run(&mut here, "CONFIG SET key-load-delay 0").await;
    vault.restore(&backup, RestoreSettings::live(client(&target))).await.unwrap();
    assert_eq!(run(&mut here, "SET more data").await, "OK");
    assert_eq!(run(&mut here, "CONFIG GET masterauth").await, "masterauth\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_server_goes_to_any_place_of_the_log() {
    for version in redis_versions_under_test() {
        let source = require_or_skip!(Redis::builder(version).start().await);
        let mut there = source.connect().await.unwrap();
        run(&mut there, "SELECT 3").await;
        run(&mut there, "SET number 0").await;
        let vault = Vault::memory();
        vault.backup(&source).await;
        let mut steps = Vec::new();
        let writing = async {
            for number in 1..=6 {
                let lines = format!("MULTI\nSET number {number}\nSELECT 5\nSADD numbers {number}\nSELECT 3\nEXEC");
                let commands: Vec<Vec<&str>> = lines.lines().map(|line| line.split(' ').collect()).collect();
                there.send(&commands).await.unwrap();
                steps.push(offset(&source).await);
            }
        };
        vault.capture(&source, writing).await;
        let target = Redis::builder(version).start().await.unwrap();
        let mut here = target.connect().await.unwrap();
        let way = RestoreSettings::live(client(&target));
        for (number, offset) in [(2, steps[1]), (4, steps[4] - 1)] {
            let goal = RecoveryTarget::new(Goal::Position(offset.to_string()));
            vault.recover(goal, way.clone()).await.unwrap();
            run(&mut here, "SELECT 3").await;
            assert_eq!(run(&mut here, "GET number").await, number.to_string(), "{version}");
            run(&mut here, "SELECT 5").await;
            assert_eq!(run(&mut here, "SCARD numbers").await, number.to_string(), "{version}");
        }
        vault.recover(RecoveryTarget::latest(), way.clone()).await.unwrap();
        assert_eq!(digest(&target).await, digest(&source).await, "{version}");
        let changed = way.rules(Rules::default().expiry(ExpiryRule::Never));
        let refused = vault.recover(RecoveryTarget::latest(), changed).await.unwrap_err();
        assert!(refused.to_string().contains("cannot be changed on its way"), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_back_survives_a_restart() {
    for persistence in [RedisPersistence::AppendOnly, RedisPersistence::Snapshots(3600)] {
        let source = require_or_skip!(Redis::builder(RedisVersion::Redis72).start().await);
        every_type(&source).await.unwrap();
        let vault = Vault::memory();
        let backup = vault.backup(&source).await;
        let mut target = Redis::builder(RedisVersion::Redis72).persistence(persistence).start().await.unwrap();
        run(&mut target.connect().await.unwrap(), "SET old data").await;
        vault.restore(&backup, RestoreSettings::live(client(&target))).await.unwrap();
        target.wait_info("persistence", "aof_rewrite_in_progress", |running| running == "0").await.unwrap();
        target.restart().await.unwrap();
        assert_eq!(digest(&target).await, digest(&source).await, "{persistence:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_are_kept_on_the_way() {
    let version = RedisVersion::Redis74;
    let source = require_or_skip!(Redis::builder(version).start().await);
    let mut there = source.connect().await.unwrap();
    for line in [
        "SET user:1 a",
        "EXPIREAT user:1 4102444800",
        "SET user:2 b",
        "SET other c",
        "HSET user:h f v",
        "HEXPIREAT user:h 4102444800 FIELDS 1 f",
    ] {
        run(&mut there, line).await;
    }
    let vault = Vault::memory();
    let backup = vault.backup(&source).await;
    let target = Redis::builder(version).start().await.unwrap();
    let mut here = target.connect().await.unwrap();
    let rules = Rules::default()
        .filter(KeyFilter::all().prefix("user:"))
        .rename("user:", "customer:")
        .into_database(5)
        .expiry(ExpiryRule::Shift(60_000));
    vault.restore(&backup, RestoreSettings::live(client(&target)).rules(rules)).await.unwrap();
    run(&mut here, "SELECT 5").await;
    assert_eq!(run(&mut here, "DBSIZE").await, "3");
    assert_eq!(run(&mut here, "GET customer:2").await, "b");
    assert_eq!(run(&mut here, "PEXPIRETIME customer:1").await, "4102444860000");
    assert_eq!(run(&mut here, "HPEXPIRETIME customer:h FIELDS 1 f").await, "4102444860000");

    // What has expired by then is loaded, and gone when the server is a primary again.
    let long_ago = Rules::default().expiry(ExpiryRule::Shift(-4_000_000_000_000));
    vault.restore(&backup, RestoreSettings::live(client(&target)).rules(long_ago)).await.unwrap();
    run(&mut here, "SELECT 0").await;
    assert_eq!(run(&mut here, "EXISTS user:1").await, "0");
    assert_eq!(run(&mut here, "EXISTS user:2").await, "1");

    let never = Rules::default().expiry(ExpiryRule::Never);
    vault.restore(&backup, RestoreSettings::live(client(&target)).rules(never)).await.unwrap();
    run(&mut here, "SELECT 0").await;
    assert_eq!(run(&mut here, "TTL user:1").await, "-1");
    assert_eq!(run(&mut here, "HPEXPIRETIME user:h FIELDS 1 f").await, "-1");
    assert_eq!(run(&mut here, "HGET user:h f").await, "v");
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_are_kept_in_what_happened_behind_the_snapshot() {
    for version in redis_versions_under_test() {
        let source = require_or_skip!(Redis::builder(version).start().await);
        let mut there = source.connect().await.unwrap();
        for line in ["RPUSH a:list 1 2 3", "SET b:text x", "SET a:brief x", "SADD a:set 1 2 3 4 5"] {
            run(&mut there, line).await;
        }
        let vault = Vault::memory();
        vault.backup(&source).await;
        let writing = async {
            for line in [
                "SET a:text 1",
                "APPEND b:text y",
                "LMOVE a:list a:other LEFT RIGHT",
                "SPOP a:set 2",
                "PEXPIRE a:brief 1",
                "EVAL redis.call('INCR',KEYS[1]);redis.call('INCR',KEYS[2]) 2 a:count b:count",
                "SELECT 3",
                "MSET a:1 x b:1 y a:2 z",
                "DEL a:1 b:1",
                "XADD a:stream * f v",
                "XGROUP CREATE a:stream group 0",
                "ZADD a:z 1 m 2 n",
                "ZUNIONSTORE a:sum 2 a:z a:z",
                "SET a:far 1 EXAT 4102444800",
                "SELECT 5",
                "SET b:only 1",
            ] {
                run(&mut there, line).await;
            }
            // It expires on its own, and the log says when.
            while run(&mut there, "SELECT 0").await != "OK" || run(&mut there, "EXISTS a:brief").await == "1" {}
        };
        vault.capture(&source, writing).await;
        let target = Redis::builder(version).start().await.unwrap();
        let rules = Rules::default().filter(KeyFilter::all().prefix("a:")).rename("a:", "restored:");
        let way = RestoreSettings::live(client(&target)).rules(rules.clone());
        vault.recover(RecoveryTarget::latest(), way).await.unwrap();
        let wanted = |held: backup_testkit::redis::Contents| -> Vec<_> {
            let mine = held.keys.into_iter().filter(|((_, key), _)| key.starts_with(b"a:"));
            mine.map(|((database, key), item)| ((database, [b"restored:", &key[2..]].concat()), item)).collect()
        };
        let wanted = wanted(contents(&source).await.unwrap());
        assert!(wanted.len() > 8);
        assert_eq!(contents(&target).await.unwrap().keys.into_iter().collect::<Vec<_>>(), wanted, "{version}");
        assert_eq!(target.info("replication", "role").await.unwrap().as_deref(), Some("master"));

        if version.since_7() {
            let home = backup_testkit::scratch_dir().unwrap();
            let dir = home.path().join("data");
            vault.recover(RecoveryTarget::latest(), RestoreSettings::files(&dir).rules(rules)).await.unwrap();
            let builder = Redis::builder(version).persistence(RedisPersistence::AppendOnly);
            let server = builder.data_dir(&dir).start().await.unwrap();
            assert_eq!(contents(&server).await.unwrap().keys.into_iter().collect::<Vec<_>>(), wanted, "{version}");
        }
        // Where a command brings together what is to be parted, nothing is touched.
        run(&mut there, "RENAME b:text a:text").await;
        vault.capture(&source, async {}).await;
        let way = RestoreSettings::live(client(&target)).rules(Rules::default().filter(KeyFilter::all().prefix("a:")));
        let error = vault.recover(RecoveryTarget::latest(), way).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
        assert!(error.to_string().contains("the command RENAME"), "{error}");
        assert_eq!(contents(&target).await.unwrap().keys.into_iter().collect::<Vec<_>>(), wanted, "{version}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_cannot_take_it_are_left_alone() {
    let few = Redis::builder(RedisVersion::Redis72).setting("databases", "4").start().await;
    let few = require_or_skip!(few);
    let follower = Redis::replica_of(&few).await.unwrap();
    let vault = Vault::memory();
    let newer = vault.keep(SampleFile::new(RdbVersion::redis(12)).database(0).string("a", b"1").finish()).await;
    let higher = vault.keep(SampleFile::new(RdbVersion::redis(11)).database(4).string("a", b"1").finish()).await;
    let refused = async |backup, server: &Redis| {
        let outcome = vault.restore(backup, RestoreSettings::live(client(server))).await;
        outcome.expect_err("it must be refused").to_string()
    };
    let text = refused(&newer, &few).await;
    assert!(text.contains("does not read redis rdb 12"), "{text}");
    let text = refused(&higher, &few).await;
    assert!(text.contains("has a database 4"), "{text}");
    let text = refused(&higher, &follower).await;
    assert!(text.contains("follows 127.0.0.1"), "{text}");
    // What it does not read as it is can be rewritten for it.
    let rewritten = RestoreSettings::live(client(&few)).version(RdbVersion::redis(11));
    vault.restore(&newer, rewritten).await.unwrap();
    assert_eq!(run(&mut few.connect().await.unwrap(), "GET a").await, "1");

    let member = Redis::builder(RedisVersion::Redis72).cluster_mode().start().await.unwrap();
    let text = refused(&higher, &member).await;
    assert!(text.contains("a node of a cluster"), "{text}");
}
