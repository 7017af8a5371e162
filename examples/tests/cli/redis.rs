//! Redis with the real program: what a restorer that is killed leaves to the clients of its target.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use backup_testkit::redis::{RedisClient, Reply};
use backup_testkit::{Error, Redis, RedisVersion, require_or_skip};
use serde_json::json;

use crate::harness::Vault;
use crate::process::{backupctl, ended};

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
fn noise(len: usize) -> String {
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

#[tokio::test(flavor = "multi_thread")]
async fn clients_see_the_old_or_the_new_when_a_restorer_is_killed() {
    let version = RedisVersion::Redis72;
    let source = require_or_skip!(Redis::builder(version).start().await);
    fill(&mut source.connect().await.unwrap(), "new").await;
    let vault = Vault::created().await;
    let backup = vault.json(&["backup", "redis", "--url", &source.url()]).await;
    // So loading takes a moment that can be met.
    let target = Redis::builder(version)
        .setting("key-load-delay", "2000")
        .setting("loading-process-events-interval-bytes", "1024")
        .start()
        .await
        .unwrap();
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
