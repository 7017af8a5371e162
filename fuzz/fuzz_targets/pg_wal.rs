//! The write-ahead log: never panics, what is not what was written is noticed, and pieces do not matter.

#![no_main]

use backup_postgres::page::Fork;
use backup_postgres::wal::{Record, RelationId, Rmgr, SampleLog, SampleRecord, SegmentSize, WalFormat, WalReader};
use backup_postgres::{Lsn, TimelineId};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

/// Shortly before the end of a segment.
const START: Lsn = Lsn((3 << 20) - 2048);

/// All records, and whether the log is damaged behind them.
fn read(format: &WalFormat, log: &Bytes, piece: usize, checksums: bool) -> (Vec<Record>, bool) {
    let mut reader = WalReader::new(*format, START).unwrap();
    if !checksums {
        reader = reader.without_checksums();
    }
    let (mut log, mut records) = (log.clone(), Vec::new());
    loop {
        match reader.next() {
            Ok(Some(record)) => {
                // Whatever the record holds is read or refused.
                let _ = record.event();
                if let Ok(decoded) = record.decode() {
                    assert_eq!(record.main_data().unwrap(), decoded.main);
                }
                assert!(record.start < record.end && record.end == reader.position());
                records.push(record);
            }
            Ok(None) if log.is_empty() => return (records, false),
            Ok(None) => reader.push(log.split_to(piece.min(log.len()))),
            Err(_) => return (records, true),
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let [version, mode, piece, rest @ ..] = data else { return };
    let format = WalFormat::new(13 + u32::from(*version % 6), SegmentSize::new(1 << 20).unwrap(), 7, TimelineId::FIRST)
        .and_then(|format| format.with_page_size(1024))
        .unwrap();
    let piece = 1 + usize::from(*piece) * 5;
    if mode & 1 == 0 {
        // Any bytes at all, and any bytes where the headers of pages are right.
        let mut bytes = rest.to_vec();
        if mode & 2 == 0 {
            let mut empty = SampleLog::new(&format, START);
            empty.append(&SampleRecord::new(Rmgr::HEAP, 0).main(vec![0; rest.len()]));
            let frame = empty.pages();
            let mut framed = frame.to_vec();
            for (page, part) in framed.chunks_exact_mut(1024).zip(bytes.chunks(980)) {
                page[1024 - part.len()..].copy_from_slice(part);
            }
            bytes = framed;
        }
        let bytes = Bytes::from(bytes);
        let whole = read(&format, &bytes, bytes.len().max(1), mode & 4 == 0);
        assert_eq!(read(&format, &bytes, piece, mode & 4 == 0), whole);
        return;
    }
    // A log that is right: each byte is a record. Then some of its bytes are changed.
    let (plan, changes) = rest.split_at(rest.len().min(40));
    let mut log = SampleLog::new(&format, START);
    for byte in plan {
        let relation = RelationId { tablespace: 1663, database: 5, number: u32::from(*byte) };
        match byte % 8 {
            0 => drop(log.append(&SampleRecord::commit(u32::from(*byte), 1))),
            1 => drop(log.append(&SampleRecord::restore_point("a", 1))),
            // Only where little of the segment is left: a megabyte of padding teaches nothing.
            2 if log.end().0 < 3 << 20 => drop(log.switch()),
            3 => log.give_up(&SampleRecord::new(Rmgr::HEAP, 0).main(vec![1; usize::from(*byte) * 9])),
            _ => {
                let record = SampleRecord::new(Rmgr::HEAP, 0).main(vec![*byte; usize::from(*byte) * 9]);
                log.append(&record.block(relation, Fork::Main, 1).data([*byte; 9]));
            }
        }
    }
    let good = read(&format, &log.pages(), piece, true);
    assert!(!good.1);
    assert_eq!(good.0.iter().map(|record| (record.start, record.end)).collect::<Vec<_>>(), log.records());
    let mut bytes = log.pages().to_vec();
    for change in changes.chunks_exact(4) {
        let at = usize::from(change[0]) << 16 | usize::from(change[1]) << 8 | usize::from(change[2]);
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= change[3];
        }
    }
    let bytes = Bytes::from(bytes);
    let changed = read(&format, &bytes, piece, true);
    assert_eq!(read(&format, &bytes, bytes.len().max(1), true), changed);
    // What is given out was written like that.
    assert_eq!(changed.0, good.0[..changed.0.len()]);
});
