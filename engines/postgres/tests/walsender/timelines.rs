//! Timelines: a restored server is led over the promotions of its source.

use backup_postgres::TimelineId;
use backup_postgres::walsender::WalFeed;
use backup_testkit::{Postgres, StopMode, require_or_skip, versions_under_test};

use crate::harness::{
    Archive, PATIENCE, Vault, create_ledger, ledger, log_files, options, serve, source, timeline, write_ledger,
};

/// A source that was promoted twice, what was kept of it, and targets with the number of rows there.
struct Twice {
    archive: Archive,
    vault: Vault,
    targets: Vec<(backup_postgres::Lsn, usize, u32)>,
}

async fn promoted_twice(first: Postgres) -> Twice {
    let version = first.version();
    let client = first.connect("postgres").await.unwrap();
    create_ledger(&client).await;
    let vault = Vault::of(&first).await;
    let mut targets = vec![(write_ledger(&client, 40).await, 40, 1)];
    let mut servers = vec![first];
    for number in 2..=3 {
        let before = servers.last().unwrap();
        let standby = source(version).standby_of(before).await.unwrap_or_else(|e| panic!("{}", e.full()));
        let client = before.connect("postgres").await.unwrap();
        let reached = write_ledger(&client, 10).await;
        standby.wait_replayed(reached.0.into(), PATIENCE).await.unwrap();
        standby.promote().await.unwrap();
        // What the old primary writes now is nobody's past.
        write_ledger(&client, 400).await;
        let client = standby.connect("postgres").await.unwrap();
        assert_eq!(timeline(&client).await, number);
        let rows = targets.last().unwrap().1 + 50;
        targets.push((write_ledger(&client, 40).await, rows, number));
        servers.push(standby);
    }
    let last = servers.last().unwrap().connect("postgres").await.unwrap();
    write_ledger(&last, 3).await;
    let archive = Archive::new();
    for server in &mut servers {
        server.stop(StopMode::Fast).await.unwrap();
        // The newest server's files win: what an older one holds beyond its successor's beginning is another past.
        archive.copy(server, |_| true);
    }
    Twice { archive, vault, targets }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_follows_through_promotions() {
    for version in versions_under_test() {
        let first = require_or_skip!(source(version).start().await);
        let twice = promoted_twice(first).await;
        let wal = twice.archive.serve().await;
        for (target, rows, on) in &twice.targets {
            let restored = twice.vault.restore(version).await;
            restored.follow(&wal.conninfo(), Some(*target));
            let copy = restored.open().await;
            copy.wait_writable(PATIENCE).await.unwrap_or_else(|e| panic!("{version} {on}: {}", e.full()));
            let copied = copy.connect("postgres").await.unwrap();
            assert_eq!(ledger(&copied).await, *rows, "{version}: timeline {on}");
            assert_eq!(timeline(&copied).await, 4, "{version}: its own one, behind all that there are");
        }
        assert!(wal.failure().is_none(), "{version}: {:?}", wal.failure());
        let progress = wal.progress().borrow().clone();
        for number in 1..=3 {
            assert!(progress.replicas.iter().any(|r| r.timeline.get() == number), "{version}: {progress:?}");
        }
    }
}

/// The segment in which a timeline was left may only exist as the beginning of its successor's.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_segment_of_a_timeline_is_found_in_the_next() {
    for version in versions_under_test() {
        let first = require_or_skip!(source(version).start().await);
        let twice = promoted_twice(first).await;
        let dir = twice.archive.path();
        let feed = twice.archive.feed().await;
        for number in 1..=2 {
            let content = feed.history(TimelineId::new(number + 1).unwrap()).await.unwrap().unwrap();
            let fork = String::from_utf8(content.to_vec()).unwrap();
            let fork: backup_postgres::Lsn = fork.lines().last().unwrap().split('\t').nth(1).unwrap().parse().unwrap();
            let size = feed.identity().segment_size;
            std::fs::remove_file(dir.join(size.name(TimelineId::new(number).unwrap(), fork).to_string())).unwrap();
        }
        let wal = serve(feed, options()).await;
        let (target, rows, _) = twice.targets[2];
        let restored = twice.vault.restore(version).await;
        restored.follow(&wal.conninfo(), Some(target));
        let copy = restored.open().await;
        copy.wait_writable(PATIENCE).await.unwrap_or_else(|e| panic!("{version}: {}", e.full()));
        assert_eq!(ledger(&copy.connect("postgres").await.unwrap()).await, rows, "{version}");
    }
}

/// The source is promoted while somebody follows: the stream ends and goes on on the next timeline.
#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_is_followed_when_it_happens() {
    for version in versions_under_test() {
        let first = require_or_skip!(source(version).start().await);
        let client = first.connect("postgres").await.unwrap();
        create_ledger(&client).await;
        let vault = Vault::of(&first).await;
        let standby = source(version).standby_of(&first).await.unwrap_or_else(|e| panic!("{}", e.full()));
        let reached = write_ledger(&client, 30).await;
        standby.wait_replayed(reached.0.into(), PATIENCE).await.unwrap();
        let archive = Archive::new();
        archive.copy(&first, |_| true);
        let wal = archive.serve().await;
        let restored = vault.restore(version).await;
        restored.follow(&wal.conninfo(), None);
        let copy = restored.open().await;
        copy.wait_replayed(reached.0.into(), PATIENCE).await.unwrap_or_else(|e| panic!("{version}: {}", e.full()));

        standby.promote().await.unwrap();
        let promoted = standby.connect("postgres").await.unwrap();
        let written = write_ledger(&promoted, 30).await;
        // The history first, as a server archives it.
        archive.copy(&standby, |name| name.ends_with(".history"));
        archive.copy(&standby, |name| name.starts_with("00000002") && name.len() == 24);
        copy.wait_replayed(written.0.into(), PATIENCE).await.unwrap_or_else(|e| panic!("{version}: {}", e.full()));
        assert_eq!(ledger(&copy.connect("postgres").await.unwrap()).await, 60, "{version}");
        assert!(log_files(&copy).iter().any(|name| name == "00000002.history"), "{version}");
        assert!(wal.failure().is_none(), "{version}: {:?}", wal.failure());
    }
}
