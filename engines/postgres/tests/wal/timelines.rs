//! Logs of servers that were not the first, or not always well.

use std::time::Duration;

use backup_postgres::wal::{EndKind, Event};
use backup_testkit::{Postgres, StopMode, versions_under_test};

use super::load;
use super::server_log::{ServerLog, lsn};

#[tokio::test(flavor = "multi_thread")]
async fn a_promoted_standby_goes_on_with_what_it_has() {
    for version in versions_under_test() {
        let server = load::builder(version, 1).start().await.unwrap_or_else(|e| panic!("{}", e.full()));
        let client = server.connect("postgres").await.unwrap();
        load::run(&client, &["create table t as select generate_series(1, 20000) as i"]).await;
        let standby = Postgres::builder(version).standby_of(&server).await.unwrap_or_else(|e| panic!("{}", e.full()));
        load::run(&client, &["insert into t select generate_series(1, 20000)"]).await;
        let end = lsn(&client, "select pg_current_wal_insert_lsn()").await;
        standby.wait_replayed(end.0.into(), Duration::from_secs(60)).await.unwrap();
        standby.promote().await.unwrap();
        let client = standby.connect("postgres").await.unwrap();
        load::run(&client, &["insert into t select generate_series(1, 20000)"]).await;

        let log = ServerLog::of(&standby, &client).await;
        assert_eq!(log.format.timeline().get(), 2, "{version}");
        // The first segment begins as the primary wrote it.
        let (records, reader) = log.records();
        assert_eq!(reader.position(), log.end(), "{version}");
        assert!(records[0].start < end, "{version}");
        let ends = records.iter().filter_map(|record| match record.event().unwrap()? {
            Event::EndOfRecovery { timeline, previous, .. } => Some((timeline.get(), previous.get(), record.start)),
            _ => None,
        });
        let ends: Vec<_> = ends.collect();
        assert!(matches!(ends[..], [(2, 1, at)] if at >= end), "{version}: {ends:?}");
        // The other half of the story is the primary's.
        let (_, reader) = ServerLog::files(server.data_dir(), 1).records();
        assert!(reader.end().is_some(), "{version}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_a_crash_cut_off_is_passed_over() {
    for version in versions_under_test() {
        let mut server = load::builder(version, 1)
            .setting("autovacuum", "off")
            .setting("checkpoint_timeout", "1h")
            .setting("wal_level", "replica")
            .start()
            .await
            .unwrap_or_else(|e| panic!("{}", e.full()));
        let client = server.connect("postgres").await.unwrap();
        // A record that begins in one segment and ends in another, which is then lost with the machine's power.
        load::run(
            &client,
            &[
                "select pg_switch_wal()",
                "checkpoint",
                "select pg_logical_emit_message(false, 'a', repeat('x', 800000))",
                "select pg_logical_emit_message(false, 'b', repeat('y', 800000))",
                "create table flushed ()",
            ],
        )
        .await;
        let before = lsn(&client, "select pg_current_wal_insert_lsn()").await;
        server.stop(StopMode::Immediate).await.unwrap();
        let log = ServerLog::files(server.data_dir(), 1);
        let last = log.format.segment_size().name(log.format.timeline(), before);
        std::fs::remove_file(server.data_dir().join("pg_wal").join(last.to_string())).unwrap();
        let cut = ServerLog::files(server.data_dir(), 1);
        let (_, reader) = cut.records();
        let aborted = reader.pending();
        assert!(aborted.is_some() && reader.position() == aborted.unwrap(), "{version}: {reader:?}");

        server.start().await.unwrap_or_else(|e| panic!("{}", e.full()));
        let client = server.connect("postgres").await.unwrap();
        let log = ServerLog::of(&server, &client).await;
        let (records, reader) = log.records();
        assert_eq!(reader.position(), log.end(), "{version}");
        let given_up: Vec<_> = records
            .iter()
            .filter_map(|record| match record.event().unwrap()? {
                Event::OverwriteContrecord { start, .. } => Some(start),
                _ => None,
            })
            .collect();
        assert_eq!(given_up, [aborted.unwrap()], "{version}");
        // Segments that were renamed to be used again are no part of the log.
        let (_, reader) = ServerLog::files(server.data_dir(), 1).records();
        let kind = reader.end().map(|end| end.kind);
        assert!(matches!(kind, Some(EndKind::Zeros | EndKind::Recycled)), "{version}: {kind:?}");
    }
}
