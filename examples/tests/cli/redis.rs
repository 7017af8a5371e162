//! Redis with the real program: what a restorer that is killed leaves to the clients of its target.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use backup_testkit::redis::{RedisClient, Reply};
use backup_testkit::{Error, Redis, RedisVersion, require_or_skip};
use serde_json::json;

use crate::harness::Vault;
use crate::process::{backupctl, ended, send};
use rustix::process::Signal;

const KEYS: usize = 150;

/// Gives every key a value that begins with `age`, in one step.
async fn fill(client: &mut RedisClient, age: &str) {
    let mut words = vec!["MSET".to_owned()];
    for number in 0..KEYS {
        // Long enough that a server which loads them answers in between.
        words.extend([format!("key:{number}"), format!("{age} {number} {}", "x".repeat(8)) + &noise(2048)]);
    }
    client.call(&words).await.unwrap();
}

/// Text that does not compress.
pub(crate) fn noise(len: usize) -> String {
    let mut state = 88_172_645_463_325_252_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'!' + (state >> 33) as u8 % 90)
    };
    (0..len).map(|_| next()).collect()
}

fn every_key() -> Vec<String> {
    std::iter::once("MGET".to_owned()).chain((0..KEYS).map(|number| format!("key:{number}"))).collect()
}

/// The age of all values; none when the server answers nothing at the moment. Panics when they are of different ages.
fn age(answer: Result<Reply, Error>) -> Option<String> {
    let reply = match answer {
        Ok(reply) => reply,
        Err(Error::Redis { said, .. }) if said.starts_with("LOADING") => return None,
        Err(error) => panic!("{error:?}"),
    };
    let age_of = |value: &Reply| value.text().split(' ').next().unwrap().to_owned();
    let ages: Vec<_> = reply.items().iter().map(age_of).collect();
    assert_eq!(ages.len(), KEYS);
    assert!(ages.iter().all(|age| *age == ages[0] && !age.is_empty()), "a mixture: {ages:?}");
    Some(ages[0].clone())
}

/// Clients of the target that never stop, on connections that are never made anew.
struct Clients {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicI64>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Clients {
    async fn of(target: &Redis) -> Self {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(0)));
        let mut reader = target.connect().await.unwrap();
        let stopped = Arc::clone(&stop);
        let reading = tokio::spawn(async move {
            let keys = every_key();
            while !stopped.load(Ordering::SeqCst) {
                age(reader.call(&keys).await);
            }
        });
        let mut writer = target.connect().await.unwrap();
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&written));
        let writing = tokio::spawn(async move {
            while !stopped.load(Ordering::SeqCst) {
                match writer.run("INCR written").await {
                    Ok(reply) => counted.store(reply.number().unwrap(), Ordering::SeqCst),
                    Err(Error::Redis { said, .. }) if said.starts_with("LOADING") || said.starts_with("READONLY") => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
        });
        Self { stop, written, tasks: vec![reading, writing] }
    }

    /// Ends them, and says what was written last.
    async fn end(self) -> i64 {
        self.stop.store(true, Ordering::SeqCst);
        for task in self.tasks {
            task.await.unwrap();
        }
        self.written.load(Ordering::SeqCst)
    }
}

/// When the restorer is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// As soon as it runs.
    Begun,
    /// When the target follows it.
    Follows,
    /// When the target loads what it got.
    Loads,
    /// When the target has loaded it.
    Loaded,
}

impl Moment {
    async fn wait(self, target: &Redis) {
        let wait = async |section, field, wanted: &'static str| {
            target.wait_info(section, field, |value| value == wanted).await.unwrap();
        };
        match self {
            Self::Begun => {}
            Self::Follows => wait("replication", "role", "slave").await,
            Self::Loads => wait("persistence", "loading", "1").await,
            Self::Loaded => {
                wait("persistence", "loading", "1").await;
                wait("persistence", "loading", "0").await;
            }
        }
    }
}

/// A server of which loading takes a moment that can be met.
async fn slow(version: RedisVersion) -> Redis {
    let server = Redis::builder(version).setting("key-load-delay", "2000");
    server.setting("loading-process-events-interval-bytes", "1024").start().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_see_the_old_or_the_new_when_a_restorer_is_killed() {
    let version = RedisVersion::Redis72;
    let source = require_or_skip!(Redis::builder(version).start().await);
    fill(&mut source.connect().await.unwrap(), "new").await;
    let vault = Vault::created().await;
    let backup = vault.json(&["backup", "redis", "--url", &source.url()]).await;
    let target = slow(version).await;
    let mut here = target.connect().await.unwrap();
    let url = target.url();
    let mut seen = Vec::new();
    for moment in [Moment::Begun, Moment::Follows, Moment::Loads, Moment::Loaded] {
        here.run("DEL written").await.unwrap();
        fill(&mut here, "old").await;
        let clients = Clients::of(&target).await;
        let mut restorer = backupctl(&vault, &["restore", "redis", "--into", &url]).spawn().unwrap();
        moment.wait(&target).await;
        restorer.kill().unwrap();
        ended(restorer);
        target.wait_info("persistence", "loading", |loading| loading == "0").await.unwrap();
        let written = clients.end().await;
        let is = age(here.call(&every_key()).await).unwrap();
        let kept = here.run("GET written").await.unwrap().number().unwrap_or(0);
        let primary = target.info("replication", "role").await.unwrap().as_deref() == Some("master");
        match is.as_str() {
            "old" => assert!(kept >= written, "{moment:?}: {written} were acknowledged, {kept} are there"),
            // What is written into a replica is refused, so only a primary has any.
            "new" => assert!(primary || kept == 0, "{moment:?}: {kept}"),
            other => panic!("{moment:?}: {other}"),
        }
        seen.push(is);

        // Whatever was left behind: the next restore leads out of it.
        let restored = vault.json(&["restore", "redis", "--into", &url]).await;
        assert_eq!(restored["backup"]["id"], backup["id"]);
        assert_eq!(age(here.call(&every_key()).await).as_deref(), Some("new"), "{moment:?}");
        assert_eq!(here.run("DBSIZE").await.unwrap().number(), Some(KEYS as i64), "{moment:?}");
        assert_eq!(here.run("INCR written").await.unwrap().number(), Some(1), "it takes writes");
        assert_eq!(here.run("CONFIG GET masterauth").await.unwrap().items()[1].text(), "");
    }
    assert_eq!((seen[0].as_str(), seen[3].as_str()), ("old", "new"));
    assert_eq!(vault.json(&["list"]).await, json!([backup]));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_seen_inside_backups_without_a_server() {
    let source = require_or_skip!(Redis::builder(RedisVersion::Redis72).start().await);
    let mut there = source.connect().await.unwrap();
    for line in ["SET shop:cart:1 abc", "SET shop:cart:2 defg", "RPUSH list a b", "SELECT 3", "SET plain x"] {
        there.run(line).await.unwrap();
    }
    there.call(&[b"SET".as_slice(), b"odd\n\xff", b"x", b"PXAT", b"4102444800000"]).await.unwrap();
    let vault = Vault::created().await;
    let url = source.url();
    let first = vault.json(&["backup", "redis", "--url", &url]).await;
    let (first, second) = {
        for line in ["DEL plain", "SET more y", "SELECT 0", "SET shop:cart:1 xyz"] {
            there.run(line).await.unwrap();
        }
        let second = vault.json(&["backup", "redis", "--url", &url]).await;
        (first["id"].as_str().unwrap().to_owned(), second["id"].as_str().unwrap().to_owned())
    };
    drop(source);

    let listed = vault.json(&["look", "redis", "list", &first, "--database", "3"]).await;
    let mut keys = listed["keys"].as_array().unwrap().clone();
    keys.sort_by_key(|key| key["key"].to_string());
    let odd = json!({"database": 3, "key": "odd\\n\\xff", "whole": true, "kind": "string", "bytes": 2,
        "expires": "2100-01-01T00:00:00Z"});
    let plain = json!({"database": 3, "key": "plain", "whole": true, "kind": "string", "bytes": 2, "expires": null});
    assert_eq!(keys, [odd, plain]);
    let few = vault.json(&["look", "redis", "list", &first, "--limit", "1"]).await;
    assert_eq!((few["keys"].as_array().unwrap().len(), &few["more"]), (1, &json!(true)));
    let lists = vault.run(&["look", "redis", "list", &first, "--type", "list", "--match", "li*"]).await;
    assert!(lists.code == 0 && lists.out.starts_with("0\tlist\tlist\t"), "{lists:?}");

    let sums = vault.json(&["look", "redis", "histogram", &first]).await;
    assert_eq!(sums["all"]["keys"], 5);
    assert_eq!(sums["types"]["string"], json!({"keys": 4, "bytes": 4 + 5 + 2 + 2, "expiring": 1}));
    let prefix = json!({"database": 0, "prefix": "shop:cart:", "keys": 2, "bytes": 9, "missed": 0});
    assert!(sums["prefixes"].as_array().unwrap().contains(&prefix), "{sums}");
    assert_eq!(sums["unprefixed"]["keys"], 3);
    assert_eq!(vault.run(&["look", "redis", "histogram"]).await.code, 0);

    let found = vault.json(&["look", "redis", "diff", &first, &second]).await;
    let mut changes: Vec<_> = found["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| format!("{} {}", change["change"].as_str().unwrap(), change["key"].as_str().unwrap()))
        .collect();
    changes.sort();
    assert_eq!(changes, ["added more", "changed shop:cart:1", "removed plain"]);
    assert_eq!((&found["same"], &found["more"]), (&json!(3), &json!(false)));
    let text = vault.run(&["look", "redis", "diff", &first, "--prefix", "shop:"]).await;
    assert!(text.code == 0 && text.out.contains("changed\t0\tshop:cart:1\tstring\t4"), "{text:?}");
    vault.run(&["look", "redis", "list", "nonsense"]).await.failed(10);
}

#[tokio::test(flavor = "multi_thread")]
async fn some_keys_come_back_beside_others() {
    let source = require_or_skip!(Redis::builder(RedisVersion::Redis72).start().await);
    let mut there = source.connect().await.unwrap();
    for line in ["SET a:1 x", "SET b:1 y", "RPUSH a:list 1", "SET a:brief x PXAT 4102444800000"] {
        there.run(line).await.unwrap();
    }
    let vault = Vault::created().await;
    vault.json(&["backup", "redis", "--url", &source.url(), "--method", "scan"]).await;
    let target = Redis::builder(RedisVersion::Redis72).start().await.unwrap();
    let mut here = target.connect().await.unwrap();
    here.run("SET a:1 theirs").await.unwrap();
    let url = target.url();
    let way = ["restore", "redis", "--into", &url, "--key-by-key", "--prefix", "a:"];
    let error = vault.run(&way).await;
    assert!(error.failed(14).contains("\"a:1\" exists in the target"), "{error:?}");
    let more =
        ["--rename", "a:=c:", "--type", "string", "--into-database", "4", "--expiry", "shift", "--shift-by", "1m"];
    vault.json(&[&way[..], &more].concat()).await;
    assert_eq!(here.run("GET a:1").await.unwrap().text(), "theirs");
    here.run("SELECT 4").await.unwrap();
    assert_eq!(here.run("DBSIZE").await.unwrap().number(), Some(2));
    assert_eq!(here.run("GET c:1").await.unwrap().text(), "x");
    assert_eq!(here.run("PEXPIRETIME c:brief").await.unwrap().number(), Some(4_102_444_860_000));
    vault.json(&[&way[..], &["--replace"]].concat()).await;
    here.run("SELECT 0").await.unwrap();
    assert_eq!(here.run("GET a:1").await.unwrap().text(), "x");
    // As a whole, into a file for an older server.
    let folder = vault.dir.path().join("data");
    let args = ["restore", "redis", "--into", folder.to_str().unwrap(), "--rdb-version", "9", "--expiry", "drop"];
    let error = vault.run(&args).await;
    assert!(error.failed(10).contains("has no values of the type 18"), "{error:?}");
    vault.json(&[&args[..], &["--type", "string"]].concat()).await;
    assert!(std::fs::read(folder.join("dump.rdb")).unwrap().starts_with(b"REDIS0009"));
    vault.run(&[&way[..], &["--rename", "nonsense"]].concat()).await.failed(10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_leaves_the_target_a_primary() {
    let version = RedisVersion::Redis72;
    let source = require_or_skip!(Redis::builder(version).start().await);
    fill(&mut source.connect().await.unwrap(), "new").await;
    let vault = Vault::created().await;
    vault.json(&["backup", "redis", "--url", &source.url()]).await;
    let target = slow(version).await;
    let mut here = target.connect().await.unwrap();
    for moment in [Moment::Follows, Moment::Loads] {
        fill(&mut here, "old").await;
        let restorer = backupctl(&vault, &["restore", "redis", "--into", &target.url()]).spawn().unwrap();
        moment.wait(&target).await;
        send(&restorer, Signal::INT);
        let output = ended(restorer);
        assert_eq!(output.status.code(), Some(15), "{output:?}");
        assert_eq!(target.info("replication", "role").await.unwrap().as_deref(), Some("master"), "{moment:?}");
        assert_eq!(here.run("CONFIG GET masterauth").await.unwrap().items()[1].text(), "");
        assert!(age(here.call(&every_key()).await).is_some());
        here.run("SET more data").await.unwrap();
        here.run("DEL more").await.unwrap();
    }
}
