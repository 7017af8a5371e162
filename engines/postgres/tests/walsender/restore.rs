//! Restored servers stream their log from the WAL server up to their target.

use backup_postgres::Lsn;
use backup_postgres::walsender::{Listen, WalFeed};
use backup_testkit::pgbench::Bank;
use backup_testkit::{StopMode, require_or_skip, unprivileged, versions_under_test};

use crate::harness::{
    Archive, PATIENCE, Vault, create_ledger, ledger, options, serve, source, timeline, value, wait_for, write_ledger,
};

#[tokio::test(flavor = "multi_thread")]
async fn it_stops_exactly_at_its_target_and_becomes_a_primary() {
    for version in versions_under_test() {
        let mut server = require_or_skip!(source(version).start().await);
        let client = server.connect("postgres").await.unwrap();
        create_ledger(&client).await;
        let bank = Bank::create(&client, 10_000).await.unwrap();
        let load = bank.run(&server, "postgres", 2).await.unwrap();
        assert!(load.wait_committed(20, PATIENCE).await);
        let vault = Vault::of(&server).await;
        let target = {
            write_ledger(&client, 300).await;
            client.batch_execute("select pg_switch_wal()").await.unwrap();
            write_ledger(&client, 150).await
        };
        assert!(load.wait_committed(20, PATIENCE).await);
        write_ledger(&client, 20).await;
        load.stop().await;
        server.stop(StopMode::Fast).await.unwrap();

        // The last segment is not full, and there may be recycled ones.
        let archive = Archive::new();
        archive.copy(&server, |_| true);
        let feed = archive.feed().await;
        let end = feed.end().await.unwrap().position;
        assert!(end > target, "{end}");
        let control = std::fs::read(server.data_dir().join("global/pg_control")).unwrap();
        let checkpoint = backup_postgres::control::ControlFile::parse(&control).unwrap().checkpoint;
        // The record of the shutdown checkpoint, some hundred bytes, is the last one.
        assert!(checkpoint < end && end.0 <= checkpoint.0 + 200, "{version}: {checkpoint} {end}");

        let own = unprivileged();
        for listen in [
            Listen::Loopback { port: 0 },
            Listen::Unix { parent: archive.path().to_owned(), owner: own.drops_root().then_some((own.uid, own.gid)) },
        ] {
            let wal = serve(archive.feed().await, options().listen(listen)).await;
            let restored = vault.restore(version).await;
            restored.follow(&wal.conninfo(), Some(target));
            let copy = restored.open().await;
            copy.wait_writable(PATIENCE).await.unwrap_or_else(|e| panic!("{version}: {}", e.full()));
            let copied = copy.connect("postgres").await.unwrap();
            assert_eq!(ledger(&copied).await, 450, "{version}");
            Bank::check(&copied).await.unwrap_or_else(|e| panic!("{version}: {}", e.full()));
            assert_eq!(timeline(&copied).await, 2);
            copied.batch_execute("create table own as select 1").await.unwrap();
            let progress = wait_for(&wal, |progress| !progress.is_active()).await;
            assert_eq!(progress.replicas[0].name, "walreceiver");
            assert!(progress.replicas[0].flushed > Lsn(0), "{progress:?}");
            assert!(wal.failure().is_none(), "{version}: {:?}", wal.failure());
        }
    }
}

/// Where a log ends is not where a recovery ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_beyond_the_end_is_waited_for() {
    for version in versions_under_test() {
        let mut server = require_or_skip!(source(version).start().await);
        let client = server.connect("postgres").await.unwrap();
        create_ledger(&client).await;
        let vault = Vault::of(&server).await;
        let near = write_ledger(&client, 50).await;
        client.batch_execute("select pg_switch_wal()").await.unwrap();
        // The first segment that is not there at first.
        let split = format!("{:08X}{:08X}{:08X}", 1, 0, (near.0 >> 24) + 1);
        let far = write_ledger(&client, 50).await;
        write_ledger(&client, 5).await;
        server.stop(StopMode::Fast).await.unwrap();

        let archive = Archive::new();
        archive.copy(&server, |name| name < split.as_str());
        let wal = archive.serve().await;
        let restored = vault.restore(version).await;
        restored.follow(&wal.conninfo(), Some(far));
        let copy = restored.open().await;
        let end = archive.feed().await.end().await.unwrap().position;
        let progress = wait_for(&wal, |progress| {
            progress.replicas.iter().any(|r| r.active && r.applied >= near && r.flushed == end)
        })
        .await;
        assert!(progress.applied() <= end);
        let waiting = copy.connect("postgres").await.unwrap();
        assert_eq!(value(&waiting, "pg_is_in_recovery()").await, "true", "{version}");
        assert_eq!(ledger(&waiting).await, 50, "{version}");

        archive.copy(&server, |name| name >= split.as_str());
        copy.wait_writable(PATIENCE).await.unwrap_or_else(|e| panic!("{version}: {}", e.full()));
        assert_eq!(ledger(&copy.connect("postgres").await.unwrap()).await, 100, "{version}");
        assert!(wal.failure().is_none(), "{version}: {:?}", wal.failure());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_token_nothing_is_replayed() {
    for version in versions_under_test() {
        let mut server = require_or_skip!(source(version).start().await);
        let client = server.connect("postgres").await.unwrap();
        create_ledger(&client).await;
        let vault = Vault::of(&server).await;
        let target = write_ledger(&client, 10).await;
        write_ledger(&client, 1).await;
        server.stop(StopMode::Fast).await.unwrap();
        let archive = Archive::new();
        archive.copy(&server, |_| true);
        let wal = archive.serve().await;
        let restored = vault.restore(version).await;
        restored.follow(&wal.conninfo().replace(wal.token().reveal(), &"0".repeat(64)), Some(target));
        let mut copy = restored.open().await;
        let refused = backup_testkit::wait::until_async(PATIENCE, || {
            copy.log().contains("password authentication failed for user \"walreceiver\"").then_some(())
        });
        assert!(refused.await.is_some(), "{version}: {}", copy.log());
        let waiting = copy.connect("postgres").await.unwrap();
        assert_eq!((ledger(&waiting).await, value(&waiting, "pg_is_in_recovery()").await.as_str()), (0, "true"));
        assert!(!wal.progress().borrow().is_active());

        copy.stop(StopMode::Fast).await.unwrap();
        restored.follow(&wal.conninfo(), Some(target));
        let copy = restored.open().await;
        copy.wait_writable(PATIENCE).await.unwrap_or_else(|e| panic!("{version}: {}", e.full()));
        assert_eq!(ledger(&copy.connect("postgres").await.unwrap()).await, 10, "{version}");
    }
}
