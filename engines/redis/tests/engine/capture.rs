//! The stream captured: nothing missing, nothing twice, nothing half done, whatever happens to who captures.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use backup_core::run;
use backup_redis::engine::facts;
use backup_redis::node::Prefer;
use backup_redis::stream::{Framer, StreamNote, Tracker};
use backup_testkit::redis::{contents, every_type};
use backup_testkit::{Redis, RedisVersion, redis_versions_under_test, require_or_skip};
use futures::TryStreamExt as _;

use crate::harness::{Capture, Vault, engine, fact, position, replay, settings, work};

/// Writes of every kind that behaves in a special way in the stream, until it is told to stop.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Load {
    pub(crate) async fn start(server: &Redis) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut client = server.connect().await.unwrap();
        let rounds = Arc::new(AtomicU64::new(0));
        let (end, done) = (Arc::clone(&stop), Arc::clone(&rounds));
        let task = tokio::spawn(async move {
            let mut round = 0_u64;
            while !end.load(Ordering::Relaxed) {
                round += 1;
                let database = round % 3;
                let commands = [
                    format!("SELECT {database}"),
                    format!("SET key:{} value{round}", round % 500),
                    format!("INCRBY sum {round}"),
                    "MULTI".to_owned(),
                    format!("RPUSH list {round}"),
                    "LTRIM list -100 -1".to_owned(),
                    "EXEC".to_owned(),
                    format!("SET brief:{round} x EX 100000"),
                    format!(
                        "EVAL redis.call('HSET',KEYS[1],ARGV[1],ARGV[1]);redis.call('SADD',KEYS[2],ARGV[1]) 2 h:{} s {round}",
                        round % 50
                    ),
                    "SPOP s".to_owned(),
                    "XADD stream MAXLEN 50 * round 1".to_owned(),
                    format!("SET big {}", "x".repeat(2000)),
                ];
                let commands: Vec<Vec<_>> = commands.iter().map(|line| line.split(' ').collect()).collect();
                if client.send(&commands).await.is_err() {
                    break;
                }
                done.store(round, Ordering::Relaxed);
            }
        });
        Self { stop, rounds, task }
    }

    /// Waits until some more rounds are done.
    pub(crate) async fn more(&self) {
        let wanted = self.rounds.load(Ordering::Relaxed) + 5;
        while self.rounds.load(Ordering::Relaxed) < wanted {
            assert!(!self.task.is_finished(), "the load has ended");
            backup_testkit::wait::pause().await;
        }
    }

    pub(crate) async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
    }
}

/// What is stored behind the backup makes the snapshot into what `server` holds.
pub(crate) async fn assert_complete(vault: &Vault, backup: &backup_core::catalog::BackupRecord, server: &Redis) {
    let end = position(server).await;
    let (_home, restored) = vault.server(backup, server).await;
    let database = fact(backup, facts::STREAM_DATABASE).parse().unwrap();
    replay(&restored, database, &vault.stream(backup, end.offset).await).await;
    assert_eq!(contents(&restored).await.unwrap(), contents(server).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_goes_on_from_the_backup_and_over_every_end_of_the_capture() {
    for version in redis_versions_under_test() {
        let server = require_or_skip!(Redis::builder(version).raw("repl-backlog-size", "64mb").start().await);
        every_type(&server).await.unwrap();
        let vault = Vault::memory();
        let backup = vault.backup(&engine(&server)).await;
        let load = Load::start(&server).await;
        let mut found = Vec::new();
        for _ in 0..4 {
            let capture = Capture::start(&vault, settings(&server));
            load.more().await;
            capture.reaches(&position(&server).await).await;
            found.push(Arc::clone(&capture.found));
            capture.abort().await;
        }
        let capture = Capture::start(&vault, settings(&server));
        load.more().await;
        load.end().await;
        capture.reaches(&position(&server).await).await;
        found.push(Arc::clone(&capture.found));
        capture.stop().await;
        assert!(found.iter().all(|found| !found.has("log-hole") && !found.has("log-begins")), "{version}: {found:?}");
        assert_complete(&vault, &backup, &server).await;
        let restorable = run::windows(vault.0.as_ref(), None, &work()).await.unwrap();
        assert!(restorable.holes.is_empty());
        assert_eq!(restorable.windows.len(), 1);
        // The moment of a snapshot is told to the next second.
        assert!(restorable.windows[0].to_time >= restorable.windows[0].from_time);
        assert_notes(&vault, &backup).await;
    }
}

/// Every note stands where a command begins, outside of transactions, and tells the database there; moments never go back.
async fn assert_notes(vault: &Vault, backup: &backup_core::catalog::BackupRecord) {
    let log = vault.log().await;
    let path = vault.path(backup).await;
    let mut bytes = vault.stream(backup, u64::MAX).await;
    let start = path.from.offset;
    let mut notes = Vec::new();
    for range in &path.ranges {
        let pieces: Vec<_> = log.index(range.clone()).try_collect().await.unwrap();
        let found = pieces.iter().flat_map(|(_, index)| &index.notes);
        notes.extend(found.map(|note| (note.offset, StreamNote::decode(note.offset, &note.bytes).unwrap())));
    }
    assert!(!notes.is_empty());
    let mut places = std::collections::BTreeMap::new();
    let mut tracker = Tracker::new(None);
    Framer::new(start)
        .push(&std::mem::take(&mut bytes), |command| {
            tracker.take(command);
            if !tracker.in_transaction() {
                places.insert(command.end, tracker.database());
            }
            Ok(())
        })
        .unwrap();
    let mut last = None;
    for (offset, note) in notes {
        if offset == start {
            continue;
        }
        let database = places.get(&offset).unwrap_or_else(|| panic!("a note at {offset} in the middle of something"));
        assert!(note.database.is_none() || note.database == *database, "at {offset}");
        for moment in note.moments {
            assert!(last.is_none_or(|last| last <= moment.at));
            assert!(places.contains_key(&moment.offset) && moment.offset <= offset);
            last = Some(moment.at);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_is_larger_than_a_piece_is_captured_over_an_abort_in_its_middle() {
    let server =
        require_or_skip!(Redis::builder(RedisVersion::Redis72).raw("repl-backlog-size", "256mb").start().await);
    let vault = Vault::memory();
    let backup = vault.backup(&engine(&server)).await;
    let capture = Capture::start(&vault, settings(&server));
    capture.reaches(&position(&server).await).await;
    let here = position(&server).await;
    let stored = async || {
        let ledger = vault.log().await.ledger();
        ledger.covered(&here.lineage).end().unwrap_or(here.offset)
    };
    let before = stored().await;
    let mut client = server.connect().await.unwrap();
    let big: Vec<u8> = (0..40_000_000_u32).map(|n| (n % 251) as u8).collect();
    client.call(&[b"SET".as_slice(), b"big", &big]).await.unwrap();
    while stored().await < before + 1_000_000 {
        backup_testkit::wait::pause().await;
    }
    capture.abort().await;
    let capture = Capture::start(&vault, settings(&server));
    client.run("SET after 1").await.unwrap();
    capture.reaches(&position(&server).await).await;
    capture.stop().await;
    assert_complete(&vault, &backup, &server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_without_a_backup_begins_where_the_server_is() {
    for version in [RedisVersion::Redis62, RedisVersion::Valkey91] {
        let server = require_or_skip!(Redis::builder(version).start().await);
        every_type(&server).await.unwrap();
        let vault = Vault::memory();
        let capture = Capture::start(&vault, settings(&server));
        capture.finds("log-begins").await;
        server.connect().await.unwrap().run("SET a 1").await.unwrap();
        let backup = vault.try_backup(&engine(&server)).await.unwrap_or_else(|e| panic!("{e}: {}", server.log()));
        server.connect().await.unwrap().run("SET a 2").await.unwrap();
        capture.reaches(&position(&server).await).await;
        assert_eq!(capture.found.has("log-relative-expiry"), version == RedisVersion::Redis62);
        capture.stop().await;
        assert_complete(&vault, &backup, &server).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_stored_is_acknowledged() {
    let server = require_or_skip!(Redis::builder(RedisVersion::Valkey81).start().await);
    let vault = Vault::memory();
    vault.backup(&engine(&server)).await;
    let capture = Capture::start(&vault, settings(&server));
    capture.reaches(&position(&server).await).await;
    let mut client = server.connect().await.unwrap();
    for n in 0..20 {
        client.run(&format!("SET a {n}")).await.unwrap();
        // One replica, which is us, has it: so the vault has it.
        assert_eq!(client.run("WAIT 1 30000").await.unwrap().number(), Some(1));
        let stored = vault.log().await.ledger();
        let here = position(&server).await;
        let end = stored.covered(&here.lineage).as_slice().last().unwrap().end;
        let gap = here.offset - end;
        // The server asked for the word by a command of its own.
        assert!(gap < 200, "{gap} bytes are acknowledged and not stored");
        let stream = vault.log().await;
        let range = backup_core::log::LogRange::new(here.lineage, end.saturating_sub(200).max(1)..end);
        let range = backup_core::log::LogRange {
            start: stream.ledger().covered(&range.lineage).as_slice()[0].start.max(range.start),
            ..range
        };
        let bytes: Vec<_> = stream.read(range).try_collect().await.unwrap();
        let text = String::from_utf8_lossy(&bytes.concat()).into_owned();
        assert!(text.contains(&format!("\r\n{n}\r\n")), "{text}");
    }
    capture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_of_a_replica_is_that_of_its_primary() {
    let primary = require_or_skip!(Redis::builder(RedisVersion::Redis74).start().await);
    let replica = Redis::replica_of(&primary).await.unwrap();
    let vault = Vault::memory();
    let wish = settings(&primary).prefer(Prefer::Replica);
    let backup = vault.backup(&backup_redis::RedisEngine::new(wish.clone()).unwrap()).await;
    let capture = Capture::start(&vault, wish);
    let load = Load::start(&primary).await;
    load.more().await;
    capture.reaches(&position(&primary).await).await;
    load.end().await;
    capture.reaches(&position(&primary).await).await;
    let followers = primary.info("replication", "connected_slaves").await.unwrap().unwrap();
    assert_eq!(followers, "1", "nobody but its replica follows the primary");
    capture.stop().await;
    assert_complete(&vault, &backup, &primary).await;
    drop(replica);
}
