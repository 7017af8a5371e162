//! What clients saw happen is what the log says: which transactions were committed, where, and when; where named points are.

use std::collections::BTreeMap;
use std::time::Duration;

use backup_postgres::Lsn;
use backup_postgres::wal::{Event, Record, TransactionEnd, WalLevel};
use backup_testkit::tokio_postgres::Client;
use backup_testkit::wait::Deadline;
use backup_testkit::{PgVersion, StopMode, versions_under_test};

use super::load;
use super::server_log::{ServerLog, lsn};

/// One transaction as its client saw it.
#[derive(Debug)]
struct Seen {
    xid: u32,
    /// The end of the log before the end of the transaction, and after it.
    between: (Lsn, Lsn),
    /// By the server's clock, in microseconds since 1970.
    clock: (i64, i64),
    committed: bool,
}

const CLOCK: &str = "select (extract(epoch from clock_timestamp()) * 1000000)::bigint";
const END: &str = "select pg_current_wal_insert_lsn()";

async fn number(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// Ends a transaction with `end`, in which `work` was done.
async fn transaction(client: &Client, work: &str, end: &str) -> Seen {
    client.batch_execute(&format!("begin; {work}")).await.unwrap();
    let xid = number(client, "select txid_current()").await;
    let (before, clock) = (lsn(client, END).await, number(client, CLOCK).await);
    client.batch_execute(end).await.unwrap();
    let (clock, after) = ((clock, number(client, CLOCK).await), lsn(client, END).await);
    Seen { xid: xid as u32, between: (before, after), clock, committed: !end.contains("rollback") }
}

fn transaction_end(record: &Record) -> Option<(TransactionEnd, bool)> {
    match record.event().unwrap()? {
        Event::Commit(end) | Event::CommitPrepared(end) => Some((end, true)),
        Event::Abort(end) | Event::AbortPrepared(end) => Some((end, false)),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_transaction_is_found_where_and_when_its_client_saw_it_end() {
    for version in versions_under_test() {
        let server = load::builder(version, 1).start().await.unwrap_or_else(|e| panic!("{}", e.full()));
        let client = server.connect("postgres").await.unwrap();
        load::run(&client, &["create table t (i int, s text)"]).await;
        let mut seen = Vec::new();
        let mut points = BTreeMap::new();
        for round in 0..20 {
            let insert = format!("insert into t values ({round}, repeat('a', 3000))");
            seen.push(transaction(&client, &insert, "commit").await);
            let parts = format!("{insert}; savepoint a; {insert}; savepoint b; {insert}");
            seen.push(transaction(&client, &parts, "commit").await);
            seen.push(transaction(&client, &insert, "rollback").await);
            let relations = format!("create table x{round} as select 1; drop table if exists x{}", (round + 19) % 20);
            seen.push(transaction(&client, &relations, "commit").await);
            for end in ["commit", "rollback"] {
                let prepare = format!("prepare transaction 'p'; {end} prepared 'p'");
                client.batch_execute(&format!("begin; {insert}")).await.unwrap();
                let xid = number(&client, "select txid_current()").await as u32;
                let (before, clock) = (lsn(&client, END).await, number(&client, CLOCK).await);
                for statement in prepare.split("; ") {
                    client.batch_execute(statement).await.unwrap();
                }
                let clock = (clock, number(&client, CLOCK).await);
                let committed = end == "commit";
                seen.push(Seen { xid, between: (before, lsn(&client, END).await), clock, committed });
            }
            let name = format!("point {round}");
            let at = lsn(&client, &format!("select pg_create_restore_point('{name}')")).await;
            points.insert(name, at);
            if round % 7 == 3 {
                load::run(&client, &["select pg_switch_wal()"]).await;
            }
        }
        let log = ServerLog::of(&server, &client).await;
        let (records, _) = log.records();

        for seen in &seen {
            let found: Vec<_> = records
                .iter()
                .filter_map(|record| Some((record, transaction_end(record)?)))
                .filter(|(_, (end, _))| end.xid == seen.xid)
                .collect();
            let [(record, (end, committed))] = found[..] else { panic!("{version}: {seen:?}: {found:?}") };
            assert_eq!(committed, seen.committed, "{version}: {seen:?}");
            assert!(record.start >= seen.between.0 && record.end <= seen.between.1, "{version}: {seen:?}: {record:?}");
            let time = end.time.as_microsecond();
            assert!(time >= seen.clock.0 && time <= seen.clock.1, "{version}: {seen:?}: {}", end.time);
        }
        let with_parts = records.iter().filter_map(transaction_end).filter(|(end, _)| end.subtransactions == 2).count();
        assert_eq!(with_parts, 20, "{version}");
        let named: BTreeMap<String, Lsn> = records
            .iter()
            .filter_map(|record| match record.event().unwrap()? {
                Event::RestorePoint { name, .. } => Some((name, record.end)),
                _ => None,
            })
            .collect();
        assert_eq!(named, points, "{version}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_recovery_depends_on_are_seen_to_change() {
    for version in versions_under_test() {
        let mut server = load::builder(version, 1).start().await.unwrap_or_else(|e| panic!("{}", e.full()));
        let client = server.connect("postgres").await.unwrap();
        let sql = ["alter system set wal_level = minimal", "alter system set max_wal_senders = 0"];
        load::run(&client, &sql).await;
        load::run(&client, &["alter system set full_page_writes = off", "select pg_reload_conf()"]).await;
        // The server takes the setting over when it gets to it.
        let deadline = Deadline::after(Duration::from_secs(60));
        loop {
            let (records, _) = ServerLog::of(&server, &client).await.records();
            let mut events = records.iter().filter_map(|record| record.event().unwrap());
            if events.any(|event| event == Event::FullPageWrites(false)) {
                break;
            }
            assert!(!deadline.passed(), "{version}");
        }
        server.restart().await.unwrap();
        let client = server.connect("postgres").await.unwrap();
        let log = ServerLog::of(&server, &client).await;
        let (records, _) = log.records();
        let events: Vec<_> = records.iter().filter_map(|record| record.event().unwrap()).collect();
        let levels: Vec<_> = events
            .iter()
            .filter_map(|event| match event {
                Event::ParameterChange { wal_level, .. } => Some(*wal_level),
                _ => None,
            })
            .collect();
        assert_eq!(levels.last(), Some(&WalLevel::Minimal), "{version}: {levels:?}");
        if version >= PgVersion::V17 {
            let mut of_checkpoints = events.iter().filter_map(|event| match event {
                Event::Checkpoint(checkpoint) => checkpoint.wal_level,
                _ => None,
            });
            assert_eq!(of_checkpoints.next_back(), Some(WalLevel::Minimal), "{version}");
        }
        server.stop(StopMode::Fast).await.unwrap();
        // The last record of a server that was stopped; behind it there are zeros, or an old page.
        let (records, reader) = ServerLog::files(server.data_dir(), 1).records();
        let last = records.last().unwrap();
        assert_eq!(reader.end().map(|end| end.at), Some(last.end), "{version}");
        let event = last.event().unwrap();
        let Some(Event::Checkpoint(checkpoint)) = event else { panic!("{version}: {event:?}") };
        assert!(checkpoint.shutdown && checkpoint.redo == last.start && checkpoint.timeline == checkpoint.previous);
    }
}
