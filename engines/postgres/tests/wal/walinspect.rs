//! Record by record and block by block, against the server's own reader (`pg_walinspect`, since 15; its blocks since 16).

use std::collections::BTreeMap;

use backup_postgres::Lsn;
use backup_postgres::page::Fork;
use backup_postgres::wal::{BlockImage, Compression, Event, Record};
use backup_testkit::tokio_postgres::Client;
use backup_testkit::tokio_postgres::types::{Oid, PgLsn};
use backup_testkit::{PgVersion, versions_under_test};

use super::load;
use super::server_log::ServerLog;

#[tokio::test(flavor = "multi_thread")]
async fn records_and_blocks_are_those_that_the_server_sees() {
    for (version, segment) in versions_under_test().into_iter().zip([1, 16, 1, 16, 1, 64]) {
        if version < PgVersion::V15 {
            continue;
        }
        let server = load::builder(version, segment).start().await.unwrap_or_else(|e| panic!("{}", e.full()));
        let client = server.connect("postgres").await.unwrap();
        load::run(&client, &["create extension pg_walinspect"]).await;
        load::everything(&server, &client).await;
        let log = ServerLog::of(&server, &client).await;
        let (records, reader) = log.records();
        assert_eq!((reader.position(), reader.pending(), reader.end()), (log.end(), None, None), "{version}");
        assert!(records.len() > 20_000, "{version}: {}", records.len());

        compare_records(&client, &records).await;
        if version >= PgVersion::V16 {
            compare_blocks(&client, &records).await;
        }
    }
}

/// What the server says of each record.
async fn compare_records(client: &Client, records: &[Record]) {
    let sql = "select start_lsn, end_lsn, prev_lsn, xid::text::bigint, resource_manager, record_type, record_length,
                      main_data_length, fpi_length
               from pg_get_wal_records_info($1, $2) order by start_lsn";
    let (first, end) = (PgLsn::from(records[0].start.0), PgLsn::from(records[records.len() - 1].end.0));
    let rows = client.query(sql, &[&first, &end]).await.unwrap();
    assert_eq!(rows.len(), records.len());
    let mut kinds = BTreeMap::<String, usize>::new();
    for (row, record) in rows.iter().zip(records) {
        let position = |column: usize| Lsn(row.get::<_, PgLsn>(column).into());
        assert_eq!((position(0), position(1), position(2)), (record.start, record.end, record.prev));
        let manager: String = row.get(4);
        assert_eq!((row.get::<_, i64>(3), &manager), (i64::from(record.xid), &record.rmgr.to_string()), "{record:?}");
        let decoded = record.decode().unwrap();
        let images: usize = decoded.blocks.iter().filter_map(|block| block.image).map(|image| image.bytes.len()).sum();
        let lengths = (row.get::<_, i32>(6), row.get::<_, i32>(7), row.get::<_, i32>(8));
        assert_eq!(lengths, (record.bytes().len() as i32, decoded.main.len() as i32, images as i32), "{record:?}");
        let kind = format!("{manager} {}", row.get::<_, Option<String>>(5).unwrap_or_default());
        if let Some(expected) = name(record.event().unwrap()) {
            assert_eq!(kind, expected);
        }
        *kinds.entry(kind).or_default() += 1;
    }
    // Whatever has an event by its name has one.
    let events = records.iter().filter_map(|record| name(record.event().unwrap())).count();
    assert_eq!(
        kinds.iter().filter(|(kind, _)| EVENTS.contains(&kind.as_str())).map(|(_, count)| count).sum::<usize>(),
        events
    );
    for kind in ["Transaction COMMIT_PREPARED", "Transaction ABORT_PREPARED", "XLOG SWITCH", "XLOG RESTORE_POINT"] {
        assert!(kinds.contains_key(kind), "{kind} is missing: {kinds:?}");
    }
}

const EVENTS: [&str; 13] = [
    "Transaction COMMIT",
    "Transaction ABORT",
    "Transaction COMMIT_PREPARED",
    "Transaction ABORT_PREPARED",
    "XLOG CHECKPOINT_SHUTDOWN",
    "XLOG CHECKPOINT_ONLINE",
    "XLOG CHECKPOINT_REDO",
    "XLOG NEXTOID",
    "XLOG SWITCH",
    "XLOG PARAMETER_CHANGE",
    "XLOG RESTORE_POINT",
    "XLOG FPW_CHANGE",
    "XLOG END_OF_RECOVERY",
];

fn name(event: Option<Event>) -> Option<&'static str> {
    let index = match event? {
        Event::Commit(_) => 0,
        Event::Abort(_) => 1,
        Event::CommitPrepared(_) => 2,
        Event::AbortPrepared(_) => 3,
        Event::Checkpoint(checkpoint) if checkpoint.shutdown => 4,
        Event::Checkpoint(_) => 5,
        Event::CheckpointRedo { .. } => 6,
        Event::NextOid(_) => 7,
        Event::Switch => 8,
        Event::ParameterChange { .. } => 9,
        Event::RestorePoint { .. } => 10,
        Event::FullPageWrites(_) => 11,
        Event::EndOfRecovery { .. } => 12,
        other => panic!("{other:?}"),
    };
    Some(EVENTS[index])
}

/// What the server says of each block, its data and its image included.
async fn compare_blocks(client: &Client, records: &[Record]) {
    let sql = "select start_lsn, block_id, reltablespace, reldatabase, relfilenode, relforknumber, relblocknumber,
                      block_data, block_fpi_data, block_fpi_info
               from pg_get_wal_block_info($1, $2, true) order by start_lsn, block_id";
    let mut seen = 0;
    let mut compressed = 0;
    // In pieces: the images are as large as the log.
    for part in records.chunks(5000) {
        let (first, end) = (PgLsn::from(part[0].start.0), PgLsn::from(part[part.len() - 1].end.0));
        let rows = client.query(sql, &[&first, &end]).await.unwrap();
        let mut rows = rows.iter();
        for record in part {
            for block in record.decode().unwrap().blocks {
                let row = rows.next().unwrap();
                let fork = match block.fork {
                    Fork::Main => 0,
                    Fork::FreeSpace => 1,
                    Fork::Visibility => 2,
                    _ => 3,
                };
                assert_eq!(Lsn(row.get::<_, PgLsn>(0).into()), record.start);
                let numbers = (row.get::<_, i16>(1), row.get::<_, Oid>(2), row.get::<_, Oid>(3), row.get::<_, Oid>(4));
                let relation = block.relation;
                let expected = (i16::from(block.id), relation.tablespace, relation.database, relation.number);
                assert_eq!(numbers, expected, "{record:?}");
                assert_eq!((row.get::<_, i16>(5), row.get::<_, i64>(6)), (fork, i64::from(block.block)), "{record:?}");
                assert_eq!(row.get::<_, Option<&[u8]>>(7).unwrap_or_default(), block.data, "{record:?}");
                let page = row.get::<_, Option<&[u8]>>(8);
                let info: Option<Vec<String>> = row.get(9);
                assert_eq!(page.is_some(), block.image.is_some(), "{record:?}");
                if let (Some(image), Some(page)) = (block.image, page) {
                    compressed += usize::from(image.compression.is_some());
                    compare_image(&image, page, &info.unwrap_or_default());
                }
                seen += 1;
            }
        }
        assert!(rows.next().is_none());
    }
    assert!(seen > 20_000 && compressed > 20, "{seen} blocks, {compressed} compressed");
}

fn compare_image(image: &BlockImage<'_>, page: &[u8], info: &[String]) {
    let method = match image.compression {
        None => None,
        Some(Compression::Pglz) => Some("COMPRESS_PGLZ"),
        Some(Compression::Lz4) => Some("COMPRESS_LZ4"),
        Some(_) => Some("COMPRESS_ZSTD"),
    };
    let mut expected: Vec<&str> = method.into_iter().collect();
    expected.extend(image.apply.then_some("APPLY"));
    expected.extend((image.hole_length > 0).then_some("HAS_HOLE"));
    expected.sort_unstable();
    let mut found: Vec<&str> = info.iter().map(String::as_str).collect();
    found.sort_unstable();
    assert_eq!(found, expected);
    let (before, after) = (usize::from(image.hole_offset), usize::from(image.hole_offset + image.hole_length));
    assert!(page[before..after].iter().all(|byte| *byte == 0));
    if image.compression.is_none() {
        assert_eq!([&page[..before], &page[after..]].concat(), image.bytes);
    }
}
