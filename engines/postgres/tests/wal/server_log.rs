//! The log as it lies in a server's `pg_wal`.

use std::path::Path;

use backup_postgres::wal::{BlockRef, LongPageHeader, Record, SegmentName, WalFormat, WalReader};
use backup_postgres::{Lsn, TimelineId};
use backup_testkit::Postgres;
use backup_testkit::tokio_postgres::Client;
use backup_testkit::tokio_postgres::types::PgLsn;

/// The log of one timeline, from the oldest segment that is there on.
#[derive(Debug)]
pub(crate) struct ServerLog {
    pub(crate) format: WalFormat,
    pub(crate) start: Lsn,
    pub(crate) bytes: bytes::Bytes,
}

impl ServerLog {
    /// The files of `timeline` below `data`, with whatever stands in the last one behind the end of the log.
    pub(crate) fn files(data: &Path, timeline: u32) -> Self {
        let timeline = TimelineId::new(timeline).unwrap();
        let mut names: Vec<SegmentName> = std::fs::read_dir(data.join("pg_wal"))
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().into_string().unwrap().parse().ok())
            .filter(|name: &SegmentName| name.timeline == timeline)
            .collect();
        names.sort_unstable();
        let mut bytes = Vec::new();
        for name in &names {
            bytes.extend(std::fs::read(data.join("pg_wal").join(name.to_string())).unwrap());
        }
        let header = LongPageHeader::parse(&bytes).unwrap();
        let format = WalFormat::of(&header, timeline).unwrap();
        Self { format, start: names[0].start(format.segment_size()).unwrap(), bytes: bytes.into() }
    }

    /// What a running server has made durable.
    pub(crate) async fn of(server: &Postgres, client: &Client) -> Self {
        // Everything up to here is on disk: a checkpoint waits for its own record.
        client.batch_execute("checkpoint").await.unwrap();
        let end = lsn(client, "select pg_current_wal_flush_lsn()").await;
        let timeline: i32 =
            client.query_one("select timeline_id from pg_control_checkpoint()", &[]).await.unwrap().get(0);
        let mut log = Self::files(server.data_dir(), timeline.cast_unsigned());
        log.bytes.truncate((end.0 - log.start.0) as usize);
        log
    }

    pub(crate) fn end(&self) -> Lsn {
        Lsn(self.start.0 + self.bytes.len() as u64)
    }

    /// All records; the pieces in which they are handed over have odd sizes.
    pub(crate) fn records(&self) -> (Vec<Record>, WalReader) {
        let (records, reader) = self.read(WalReader::new(self.format, self.start).unwrap());
        let (skimmed, _) = self.read(WalReader::new(self.format, self.start).unwrap().skimming());
        assert!(skimmed.iter().map(|record| record.bytes().len()).sum::<usize>() < self.bytes.len());
        assert_eq!(skimmed.len(), records.len());
        for (one, other) in records.iter().zip(&skimmed) {
            let (one, other) = (one.decode().unwrap(), other.decode().unwrap());
            assert_eq!((one.main, one.blocks.len()), (other.main, other.blocks.len()));
            let name = |block: &BlockRef<'_>| (block.relation, block.fork, block.block, block.will_init);
            assert!(one.blocks.iter().map(name).eq(other.blocks.iter().map(name)));
        }
        (records, reader)
    }

    fn read(&self, mut reader: WalReader) -> (Vec<Record>, WalReader) {
        let (mut bytes, mut records) = (self.bytes.clone(), Vec::new());
        loop {
            match reader.next().unwrap() {
                Some(record) => records.push(record),
                None if bytes.is_empty() => return (records, reader),
                None => reader.push(bytes.split_to(bytes.len().min(128 * 1024 - 7))),
            }
        }
    }
}

/// A position that the server tells.
pub(crate) async fn lsn(client: &Client, sql: &str) -> Lsn {
    let lsn: PgLsn = client.query_one(sql, &[]).await.unwrap().get(0);
    Lsn(lsn.into())
}
