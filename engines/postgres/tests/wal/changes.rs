//! The map of changes: it covers what the server's own summaries do (17 and 18), and every page that differs (all).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use backup_postgres::changes::{ChangeMap, Changed};
use backup_postgres::control::ControlFile;
use backup_postgres::page::{Fork, PAGE_SIZE, RelationFile};
use backup_postgres::wal::Record;
use backup_postgres::{Lsn, TimelineId};
use backup_testkit::pgbench::Bank;
use backup_testkit::tokio_postgres::Client;
use backup_testkit::tokio_postgres::types::{Oid, PgLsn};
use backup_testkit::wait::Deadline;
use backup_testkit::{PgVersion, Postgres, StopMode, versions_under_test};

use super::load;
use super::server_log::{ServerLog, lsn};

const PATIENCE: Duration = Duration::from_secs(60);

/// The map of `records` that begin from `start` on, as far as they begin before `end`.
fn map_of(records: &[Record], start: Lsn, end: Lsn) -> ChangeMap {
    let mut map = ChangeMap::new(start);
    records.iter().filter(|record| record.start < end).for_each(|record| map.add(record));
    assert_eq!(map.doubt(), None);
    map
}

/// Whether `block` of a file, counted from its start, is in what changed.
fn covers(changed: &Changed, block: u64) -> bool {
    match changed {
        Changed::Whole => true,
        Changed::Unchanged => false,
        Changed::Blocks(ranges) => ranges.iter().any(|r| (u64::from(r.start)..u64::from(r.end)).contains(&block)),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_own_summaries_have_nothing_that_the_map_lacks() {
    for version in versions_under_test() {
        if version < PgVersion::V17 {
            continue;
        }
        let server = load::builder(version, 1)
            .setting("summarize_wal", "on")
            .setting("wal_level", "replica")
            .start()
            .await
            .unwrap_or_else(|e| panic!("{}", e.full()));
        let client = server.connect("postgres").await.unwrap();
        load::everything(&server, &client).await;
        load::run(&client, &["checkpoint"]).await;
        let redo = lsn(&client, "select redo_lsn from pg_control_checkpoint()").await;
        let summaries = summaries(&client, redo).await;
        let log = ServerLog::of(&server, &client).await;
        let (records, _) = log.records();
        assert!(summaries.len() > 4, "{version}: {summaries:?}");

        let mut rows = 0;
        for (start, end) in summaries {
            let map = map_of(&records, start, end);
            assert_eq!(map.end(), end, "{version}: {start}");
            rows += compare(&client, &map, &format!("{version} {start}")).await;
        }
        assert!(rows > 1000, "{version}: {rows}");
    }
}

/// The ranges that the server has summarised, when it has come to `end`.
async fn summaries(client: &Client, end: Lsn) -> Vec<(Lsn, Lsn)> {
    let deadline = Deadline::after(PATIENCE);
    let sql = "select start_lsn, end_lsn from pg_available_wal_summaries() order by start_lsn";
    loop {
        let rows = client.query(sql, &[]).await.unwrap();
        let position = |lsn: PgLsn| Lsn(lsn.into());
        let ranges: Vec<_> = rows.iter().map(|row| (position(row.get(0)), position(row.get(1)))).collect();
        if ranges.last().is_some_and(|range| range.1 >= end) {
            return ranges;
        }
        assert!(!deadline.passed(), "not summarised up to {end}: {ranges:?}");
    }
}

/// Compares with what the server says for the same range; how much that is.
async fn compare(client: &Client, map: &ChangeMap, what: &str) -> usize {
    let sql = "select reltablespace, reldatabase, relfilenode, relforknumber, relblocknumber, is_limit_block
               from pg_wal_summary_contents(1, $1, $2)";
    let range: (PgLsn, PgLsn) = (map.start().0.into(), map.end().0.into());
    let rows = client.query(sql, &[&range.0, &range.1]).await.unwrap();
    // By file, which blocks the server names.
    let mut named: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    for row in &rows {
        let (tablespace, database, number): (Oid, Oid, Oid) = (row.get(0), row.get(1), row.get(2));
        let (fork, block, limit): (i16, i64, bool) = (row.get(3), row.get(4), row.get(5));
        let directory = match tablespace {
            1663 => format!("base/{database}"),
            1664 => "global".to_owned(),
            _ => format!("pg_tblspc/{tablespace}/PG_1/{database}"),
        };
        if number == 0 {
            assert_eq!(map.file(format!("{directory}/1").as_bytes()), Changed::Whole, "{what}: {directory}");
            continue;
        }
        let suffix = ["", "_fsm", "_vm", "_init"][fork as usize];
        let file = format!("{directory}/{number}{suffix}");
        let changed = map.file(file.as_bytes());
        if limit {
            for block in [block as u64, 131_071] {
                assert!(covers(&changed, block), "{what}: {file} from {block}: {changed:?}");
            }
            named.entry(file).or_default().extend(block as u64..131_072);
        } else {
            assert!(covers(&changed, block as u64), "{what}: {file} {block}: {changed:?}");
            named.entry(file).or_default().insert(block as u64);
        }
    }
    // And the other way round, where the server knows all: not of visibility maps.
    for (file, blocks) in named.iter().filter(|(file, _)| !file.ends_with("_vm")) {
        if let Changed::Blocks(ranges) = map.file(file.as_bytes()) {
            let ours: BTreeSet<u64> = ranges.into_iter().flatten().map(u64::from).collect();
            assert_eq!(&ours, blocks, "{what}: {file}");
        }
    }
    rows.len()
}

/// The files of relations by path, with their content.
type Files = BTreeMap<String, Vec<u8>>;

fn files(data: &Path) -> Files {
    fn walk(dir: &Path, path: &str, depth: usize, files: &mut Files) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let (place, path) = (dir.join(&name), format!("{path}/{name}"));
            if place.is_dir() && depth > 0 {
                walk(&place, &path, depth - 1, files);
            } else if RelationFile::parse_path(path.as_bytes()).is_some() {
                files.insert(path, std::fs::read(place).unwrap());
            }
        }
    }
    let mut files = Files::new();
    for (name, depth) in [("base", 1), ("global", 0), ("pg_tblspc", 3)] {
        walk(&data.join(name), name, depth, &mut files);
    }
    files
}

/// Stops the server, which leaves nothing unwritten, and tells where replay would begin.
async fn stop(server: &mut Postgres) -> (Files, Lsn) {
    server.stop(StopMode::Fast).await.unwrap();
    let control: PathBuf = server.data_dir().join("global/pg_control");
    let control = ControlFile::parse(&std::fs::read(control).unwrap()).unwrap();
    (files(server.data_dir()), control.redo)
}

/// What a comparison has found.
#[derive(Debug, Default)]
struct Found {
    /// Pages that differ and are in the map.
    differing: usize,
    /// Pages that differ in nothing but hints and are not in the map.
    hints: usize,
    /// Pages that are in the map.
    mapped: usize,
    pages: usize,
    /// Visibility maps that differ.
    visibility: usize,
}

fn compare_files(before: &Files, after: &Files, map: &ChangeMap, hints_are_logged: bool) -> Found {
    let mut found = Found::default();
    for (path, content) in after {
        let file = RelationFile::parse_path(path.as_bytes()).unwrap();
        // An unlogged relation is in no backup.
        let initial = path.split('.').next().unwrap().trim_end_matches("_vm").to_owned() + "_init";
        if file.fork == Fork::FreeSpace || file.fork != Fork::Init && after.contains_key(&initial) {
            continue;
        }
        let changed = map.file(path.as_bytes());
        let old = before.get(path);
        for (block, page) in content.chunks(PAGE_SIZE).enumerate() {
            found.pages += 1;
            let mapped = covers(&changed, block as u64);
            found.mapped += usize::from(mapped);
            let was = old.and_then(|old| old.chunks(PAGE_SIZE).nth(block));
            let differs = match was {
                Some(was) => was != page,
                // A file grows by zeros without a record.
                None => page.iter().any(|byte| *byte != 0),
            };
            if differs && mapped {
                found.differing += 1;
                found.visibility += usize::from(file.fork == Fork::Visibility && was.is_some());
            } else if differs {
                // A hint leaves the page's position as it is.
                let same_position = was.is_some_and(|was| was[..8] == page[..8]);
                assert!(!hints_are_logged && same_position, "{path} {block} is not in the map: {changed:?}");
                found.hints += 1;
            }
        }
    }
    found
}

/// A server with some tables, some changes to them, and what the map makes of it.
async fn change(version: PgVersion, checksums: bool) -> Found {
    let mut server = load::builder(version, 1)
        .data_checksums(checksums)
        .setting("autovacuum", "off")
        .start()
        .await
        .unwrap_or_else(|e| panic!("{}", e.full()));
    let client = server.connect("postgres").await.unwrap();
    load::run(&client, load::TABLES).await;
    load::run(
        &client,
        &[
            "create table quiet as select i, md5(i::text) from generate_series(1, 50000) i",
            "create table seen as select i, md5(i::text) from generate_series(1, 50000) i",
            "vacuum quiet",
            "vacuum emptied",
            "vacuum shrunk",
        ],
    )
    .await;
    let bank = Bank::create(&client, 3000).await.unwrap();
    load::run(&client, &["vacuum bank.accounts"]).await;
    let quiet: String = client.query_one("select pg_relation_filepath('quiet')", &[]).await.unwrap().get(0);
    let (before, start) = stop(&mut server).await;

    server.start().await.unwrap_or_else(|e| panic!("{}", e.full()));
    let client = server.connect("postgres").await.unwrap();
    // Whoever reads a row first leaves a hint on it.
    load::run(&client, &["select count(*) from seen", "select count(*) from quiet"]).await;
    load::run(&client, load::CHANGES).await;
    let work = bank.run(&server, "postgres", 3).await.unwrap();
    assert!(work.wait_committed(300, PATIENCE).await);
    load::run(&client, &["checkpoint"]).await;
    assert!(work.wait_committed(300, PATIENCE).await);
    let report = work.stop().await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    load::prepared(&client).await;
    load::databases(&server, &client).await;
    load::tablespaces(&server, &client).await;
    let (after, end) = stop(&mut server).await;

    let log = ServerLog::files(server.data_dir(), TimelineId::FIRST.get());
    let (records, _) = log.records();
    let map = map_of(&records, start, end);
    assert!(map.end() <= end, "{version}: {} {end}", map.end());
    assert_eq!(map.file(quiet.as_bytes()), Changed::Unchanged, "{version}");
    let stored = map.to_bytes().unwrap();
    assert_eq!(ChangeMap::from_bytes(&stored).unwrap(), map);
    let found = compare_files(&before, &after, &map, checksums);
    // What does not differ is read in vain: changed back, or a block of a visibility map.
    assert!(found.differing > 1000 && found.mapped < found.pages, "{version}: {found:?}");
    assert!(found.mapped - found.differing < found.differing / 5, "{version}: {found:?}");
    assert!(stored.len() < 64 << 10, "{version}: {} bytes", stored.len());
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_that_differs_is_in_the_map() {
    for version in versions_under_test() {
        let found = change(version, true).await;
        // Bits of visibility maps are cleared without a record of their own.
        assert!(found.visibility > 0, "{version}: {found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_checksums_only_hints_are_missing() {
    for version in versions_under_test() {
        let found = change(version, false).await;
        assert!(found.hints > 100, "{version}: {found:?}");
    }
}
