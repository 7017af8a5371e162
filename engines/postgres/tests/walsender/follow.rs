//! A standby that stays one follows the archive as it grows.

use std::time::Duration;

use backup_postgres::walsender::{DirectoryFeed, Progress, WalFeed};
use backup_testkit::{StopMode, require_or_skip, versions_under_test};

use crate::harness::{
    Archive, PATIENCE, Vault, connect, create_ledger, ledger, options, serve, source, value, wait_for, write_ledger,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_follows_as_segments_come() {
    for version in versions_under_test() {
        let shelf = Archive::new();
        backup_testkit::unprivileged().own(shelf.path()).unwrap();
        let dir = shelf.path().display();
        let command = format!("cp %p {dir}/staged && mv {dir}/staged {dir}/%f");
        let builder = source(version).setting("archive_mode", "on").setting("archive_command", command);
        let server = require_or_skip!(builder.initdb_arg("--wal-segsize=1").start().await);
        let client = server.connect("postgres").await.unwrap();
        create_ledger(&client).await;
        let vault = Vault::of(&server).await;
        write_ledger(&client, 300).await;
        client.batch_execute("select pg_switch_wal()").await.unwrap();
        let open = || async { DirectoryFeed::open(shelf.path(), &backup_core::env::Env::system()).await };
        while open().await.is_err() {
            backup_testkit::wait::pause().await;
        }
        let feed = open().await.unwrap().interval(Duration::from_millis(20));
        assert_eq!(feed.identity().system_id, server.system_identifier().await.unwrap());
        // Less is read ahead than a segment has.
        let wal = serve(feed, options().read_ahead(128 << 10, 300_000)).await;
        let restored = vault.restore(version).await;
        restored.follow(&wal.conninfo(), None);
        let copy = restored.open().await;
        let copied = copy.connect("postgres").await.unwrap();
        for rows in (600..=1500).step_by(300) {
            let written = write_ledger(&client, 300).await;
            client.batch_execute("select pg_switch_wal()").await.unwrap();
            copy.wait_replayed(written.0.into(), PATIENCE).await.unwrap_or_else(|e| panic!("{version}: {}", e.full()));
            assert_eq!(ledger(&copied).await, rows, "{version}");
            // The server knows it, too, although a receiver tells by itself every ten seconds only.
            wait_for(&wal, |progress| progress.applied() >= written).await;
        }
        assert_eq!(value(&copied, "pg_is_in_recovery()").await, "true");
        let state = value(&copied, "select status || ' ' || received_tli from pg_stat_wal_receiver").await;
        assert_eq!(state, "streaming 1", "{version}");

        // Somebody else may look on.
        let mut session = connect(&wal).await.unwrap();
        let end = session.identify_system().await.unwrap().position;
        let stream = session.copy_both(&format!("START_REPLICATION {end}")).await.unwrap();
        let both = |progress: &Progress| progress.replicas.iter().filter(|replica| replica.active).count() == 2;
        wait_for(&wal, both).await;
        stream.finish().await.unwrap();
        session.close().await;
        wait_for(&wal, |progress| !both(progress) && progress.is_active()).await;

        // A server that is shut down says so, and the standby comes back to the next one.
        let Some(port) = (match wal.endpoint() {
            backup_postgres::walsender::Endpoint::Tcp(address) => Some(address.port()),
            _ => None,
        }) else {
            panic!("no port")
        };
        wal.shutdown().await;
        assert!(
            backup_testkit::wait::until_async(PATIENCE, || {
                copy.log().contains("terminating connection due to administrator command").then_some(())
            })
            .await
            .is_some()
        );
        assert!(std::net::TcpListener::bind(("127.0.0.1", port)).is_ok(), "the port is free again");
        assert_eq!(value(&copied, "pg_is_in_recovery()").await, "true", "{version}");
    }
}

/// A copy of `pg_wal` of a running server: the newest segment is not full, and is looked at as far as its records go.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_is_where_the_server_has_written_to() {
    for version in versions_under_test() {
        for size in [1, 64] {
            let builder = source(version).initdb_arg(format!("--wal-segsize={size}"));
            let mut server = require_or_skip!(builder.start().await);
            let client = server.connect("postgres").await.unwrap();
            create_ledger(&client).await;
            let archive = Archive::new();
            let mut last = backup_postgres::Lsn::INVALID;
            for round in 0..12 {
                write_ledger(&client, 17 * round).await;
                let flushed = "select pg_current_wal_flush_lsn()";
                // Nobody else writes, once a snapshot of running transactions has been logged.
                let (before, end, after) = loop {
                    let before = value(&client, flushed).await;
                    archive.copy(&server, |_| true);
                    let end = archive.feed().await.end().await.unwrap();
                    let after = value(&client, flushed).await;
                    if before == after {
                        break (before, end, after);
                    }
                };
                assert_eq!((end.position.to_string(), end.position > last), (before, true), "{version} {size} {after}");
                last = end.position;
            }
            server.stop(StopMode::Immediate).await.unwrap();
        }
    }
}
