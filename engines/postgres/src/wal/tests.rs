use bytes::Bytes;
use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::lsn::{Lsn, TimelineId};
use crate::page::Fork;

const SEGMENT: u64 = 1 << 20;
const PAGE: u64 = 1024;

/// Small pages, so that little is written to cross many.
fn format(major: u32) -> WalFormat {
    let size = SegmentSize::new(SEGMENT as u32).unwrap();
    WalFormat::new(major, size, 42, TimelineId::new(3).unwrap()).unwrap().with_page_size(PAGE as u32).unwrap()
}

fn relation(number: u32) -> RelationId {
    RelationId { tablespace: 1663, database: 5, number }
}

/// A record whose body has about `length` bytes.
fn filled(length: usize) -> SampleRecord {
    SampleRecord::new(Rmgr::HEAP, 0x20).xid(700).main(vec![0xab; length])
}

/// All that comes out of `reader`, which is fed in pieces of the given sizes, over and over.
fn read_in_pieces(mut reader: WalReader, log: &Bytes, pieces: &[usize]) -> (Vec<Record>, crate::Result<WalReader>) {
    let mut log = log.clone();
    let mut records = Vec::new();
    let mut sizes = pieces.iter().cycle();
    loop {
        match reader.next() {
            Ok(Some(record)) => records.push(record),
            Ok(None) if log.is_empty() => return (records, Ok(reader)),
            Ok(None) => {
                let size = sizes.next().copied().unwrap_or(usize::MAX).clamp(1, log.len());
                reader.push(log.split_to(size));
            }
            Err(error) => return (records, Err(error)),
        }
    }
}

fn read(log: &Bytes, start: Lsn, format: &WalFormat) -> (Vec<Record>, crate::Result<WalReader>) {
    read_in_pieces(WalReader::new(*format, start).unwrap(), log, &[])
}

fn ranges(records: &[Record]) -> Vec<(Lsn, Lsn)> {
    records.iter().map(|record| (record.start, record.end)).collect()
}

/// Some records of many lengths, beginning shortly before the end of a segment.
fn some_log(lengths: &[usize]) -> (SampleLog, Lsn) {
    let start = Lsn(7 * SEGMENT - 3 * PAGE);
    let mut log = SampleLog::new(&format(17), start);
    for length in lengths {
        log.append(&filled(*length));
    }
    (log, start)
}

fn lengths() -> impl Strategy<Value = Vec<usize>> {
    let length = prop_oneof![4 => 0_usize..300, 2 => 900_usize..1100, 1 => 1100_usize..9000];
    prop::collection::vec(length, 1..30)
}

proptest! {
    #[test]
    fn records_come_out_as_they_were_written(lengths in lengths(), pieces in prop::collection::vec(1_usize..3000, 1..8)) {
        let (log, start) = some_log(&lengths);
        let (whole, reader) = read(&log.pages(), start, &format(17));
        let reader = reader.unwrap();
        prop_assert_eq!(ranges(&whole), log.records());
        prop_assert_eq!(reader.position(), log.end());
        prop_assert_eq!(reader.last_record(), log.records().last().map(|record| record.0));
        for (record, length) in whole.iter().zip(&lengths) {
            prop_assert_eq!(record.main_data().unwrap(), &vec![0xab; *length]);
            prop_assert_eq!((record.xid, record.rmgr, record.opcode()), (700, Rmgr::HEAP, 0x20));
        }
        // How the bytes are cut does not matter.
        let (cut, _) = read_in_pieces(WalReader::new(format(17), start).unwrap(), &log.pages(), &pieces);
        prop_assert_eq!(&cut, &whole);
        let (bytewise, _) = read_in_pieces(WalReader::new(format(17), start).unwrap(), &log.pages(), &[1]);
        prop_assert_eq!(bytewise, whole);
    }

    #[test]
    fn from_any_page_on_the_records_that_begin_there(lengths in lengths(), page in 0_u64..40) {
        let (log, start) = some_log(&lengths);
        let page = (page * PAGE).min(log.pages().len() as u64 - PAGE);
        let from = Lsn(start.0 + page);
        let (records, reader) = read(&log.pages().slice(page as usize..), from, &format(17));
        prop_assert_eq!(reader.unwrap().position(), log.end());
        let expected: Vec<_> = log.records().iter().copied().filter(|record| record.0 >= from).collect();
        prop_assert_eq!(ranges(&records), expected);
    }

    #[test]
    fn from_the_start_of_any_record_on_and_where_another_reader_stopped(lengths in lengths(), which: prop::sample::Index) {
        let (log, start) = some_log(&lengths);
        let (at, end) = log.records()[which.index(log.records().len())];
        let pages = log.pages();
        let from = |at: Lsn| pages.slice((at.0 - start.0) as usize..);
        let (records, _) = read(&from(at), at, &format(17));
        prop_assert_eq!(ranges(&records), &log.records()[which.index(log.records().len())..]);

        let (records, reader) = read_in_pieces(WalReader::resume(format(17), end, at).unwrap(), &from(end), &[]);
        prop_assert!(reader.is_ok());
        prop_assert_eq!(ranges(&records), &log.records()[which.index(log.records().len()) + 1..]);
        if end < log.end() {
            let (records, reader) = read_in_pieces(WalReader::resume(format(17), end, Lsn(at.0 - 8)).unwrap(), &from(end), &[]);
            prop_assert!(records.is_empty());
            prop_assert!(reader.unwrap_err().to_string().contains("follows one at"));
        }
    }

    #[test]
    fn every_flipped_bit_of_a_header_or_record_is_noticed(lengths in lengths(), at: prop::sample::Index, bit in 0_u8..8) {
        let (log, start) = some_log(&lengths);
        let mut bytes = log.pages().to_vec();
        let at = at.index(bytes.len());
        let position = Lsn(start.0 + at as u64);
        let in_page = position.0 % PAGE;
        let header = in_page < format(17).header_length(position.0 - in_page) as u64;
        let in_record = log.records().iter().zip(&lengths).any(|(record, length)| {
            // Padding between records is nobody's.
            let parts = if *length == 0 { 0 } else if *length < 256 { 2 } else { 5 };
            let padding = (24 + parts + length).next_multiple_of(8) - (24 + parts + length);
            position >= record.0 && position.0 < record.1.0 - padding as u64
        });
        // "Full-page images are optional here" is a bit that changes at the server's whim.
        let whim = header && in_page == 2 && bit == 2;
        bytes[at] ^= 1 << bit;
        let (records, reader) = read(&bytes.into(), start, &format(17));
        if (header || in_record) && !whim {
            let noticed = reader.map_or(true, |reader| reader.position() < log.end());
            prop_assert!(noticed, "{position}");
        }
        // What was given out before is as it was written.
        prop_assert_eq!(ranges(&records), &log.records()[..records.len()]);
    }

    #[test]
    fn what_is_skimmed_says_the_same_but_for_the_bytes_of_blocks(
        records in prop::collection::vec(
            (prop::collection::vec((any::<bool>(), 1_usize..8192, 0_usize..20_000), 0..34), 0_usize..9_000), 1..6),
        pieces in prop::collection::vec(1_usize..9_000, 1..8),
        flip: Option<prop::sample::Index>,
    ) {
        let start = Lsn(7 * SEGMENT - 3 * PAGE);
        let mut log = SampleLog::new(&format(17), start);
        for (blocks, main) in &records {
            let sample = blocks.iter().zip(0..).fold(SampleRecord::new(Rmgr::HEAP, 0), |sample, ((image, length, data), n)| {
                let sample = sample.block(relation(n % 3), Fork::Main, n).data(vec![7; *data]);
                if *image { sample.image(vec![8; *length], None) } else { sample }
            });
            log.append(&sample.main(vec![9; *main]));
        }
        let mut bytes = log.pages().to_vec();
        if let Some(flip) = flip {
            let at = flip.index(bytes.len());
            bytes[at] ^= 0x10;
        }
        let bytes = Bytes::from(bytes);
        let (whole, reader) = read(&bytes, start, &format(17));
        let skimmer = WalReader::new(format(17), start).unwrap().skimming();
        let (skimmed, skimmer) = read_in_pieces(skimmer, &bytes, &pieces);
        prop_assert_eq!(reader.err().map(|e| e.to_string()), skimmer.err().map(|e| e.to_string()));
        prop_assert_eq!(whole.len(), skimmed.len());
        for (one, other) in whole.iter().zip(&skimmed) {
            let same = |record: &Record| (record.start, record.end, record.prev, record.xid, record.rmgr, record.info);
            prop_assert_eq!(same(one), same(other));
            let (one, mut expected) = (one.bytes().len(), one.decode().unwrap());
            prop_assert_eq!(one, other.bytes().len() + other.left_out as usize);
            if other.left_out > 0 {
                for block in &mut expected.blocks {
                    block.data = &[];
                    block.image = block.image.map(|image| BlockImage { bytes: &[], ..image });
                }
            }
            prop_assert_eq!(other.decode().unwrap(), expected);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>, start in 0_u64..8, pieces in prop::collection::vec(1_usize..99, 1..3)) {
        let start = Lsn(SEGMENT - 4 * PAGE + start * PAGE / 2);
        let Ok(reader) = WalReader::new(format(17), start) else { return Ok(()) };
        let (records, _) = read_in_pieces(reader, &bytes.into(), &pieces);
        prop_assert!(records.is_empty());
    }

    #[test]
    fn any_body_is_taken_apart_or_refused(body in prop::collection::vec(any::<u8>(), 0..200), info: u8, rmgr in 0_u8..3) {
        for major in 13..=18 {
            let mut bytes = vec![0; 24];
            bytes.extend(&body);
            let record = Record {
                start: Lsn(8), end: Lsn(16), prev: Lsn(0), xid: 1, rmgr: Rmgr(rmgr), info, major, bytes: bytes.into(), left_out: 0,
            };
            let _ = record.event();
            if let Ok(decoded) = record.decode() {
                let parts = decoded.blocks.iter().map(|block| block.data.len() + block.image.map_or(0, |i| i.bytes.len()));
                prop_assert!(parts.sum::<usize>() + decoded.main.len() <= body.len());
                prop_assert_eq!(record.main_data().unwrap(), decoded.main);
            }
        }
    }

    #[test]
    fn a_record_is_taken_apart_as_it_was_put_together(
        blocks in prop::collection::vec(
            (0_u32..3, 0_usize..3, any::<u32>(), prop::option::of((0_usize..4, 1_usize..8192)), 0_usize..600), 0..33),
        main in 0_usize..600,
        origin: Option<u16>,
        top_xid: Option<u32>,
        major in 13_u32..=18,
    ) {
        let forks = [Fork::Main, Fork::FreeSpace, Fork::Visibility];
        let methods = [None, Some(Compression::Pglz), Some(Compression::Lz4), Some(Compression::Zstd)];
        let top_xid = top_xid.filter(|_| major >= 14);
        let mut sample = SampleRecord::new(Rmgr::HEAP, 0).main(vec![9; main]);
        for (number, fork, block, image, data) in &blocks {
            sample = sample.block(relation(*number), forks[*fork], *block).data(vec![7; *data]);
            if let Some((method, length)) = image {
                let method = if major < 15 { methods[method % 2] } else { methods[*method] };
                sample = sample.image(vec![8; *length], method);
            }
        }
        sample = origin.into_iter().fold(sample, SampleRecord::origin);
        sample = top_xid.into_iter().fold(sample, SampleRecord::top_xid);
        let mut log = SampleLog::new(&format(major), Lsn(SEGMENT));
        log.append(&sample);
        let (records, _) = read(&log.pages(), Lsn(SEGMENT), &format(major));
        let decoded = records[0].decode().unwrap();
        prop_assert_eq!((decoded.origin, decoded.top_xid), (origin, top_xid));
        prop_assert_eq!(decoded.main, vec![9; main]);
        prop_assert_eq!(decoded.blocks.len(), blocks.len());
        for (found, (number, fork, block, image, data)) in decoded.blocks.iter().zip(&blocks) {
            prop_assert_eq!((found.relation, found.fork, found.block), (relation(*number), forks[*fork], *block));
            prop_assert_eq!(found.data, vec![7; *data]);
            prop_assert_eq!(found.image.map(|image| image.bytes.len()), image.map(|image| image.1));
            let Some(image) = found.image else { continue };
            prop_assert!(image.apply);
            if image.compression.is_none() {
                prop_assert_eq!(usize::from(image.hole_length) + image.bytes.len(), 8192);
            }
        }
    }
}

#[test]
fn a_log_ends_where_zeros_are() {
    let mut log = SampleLog::new(&format(17), Lsn(SEGMENT));
    log.append(&filled(100));
    let mut bytes = log.pages().to_vec();
    bytes.resize(bytes.len() + 4 * PAGE as usize, 0);
    let (records, reader) = read(&bytes.clone().into(), Lsn(SEGMENT), &format(17));
    assert_eq!(records.len(), 1);
    let mut reader = reader.unwrap();
    let end = WalEnd { at: log.end(), kind: EndKind::Zeros };
    assert_eq!(reader.end(), Some(end));
    // What comes behind it is nobody's.
    reader.push(Bytes::from_static(&[1; 5000]));
    assert_eq!(reader.next().unwrap(), None);
    assert_eq!(reader.end(), Some(end));

    // A page that is zeros only in front is no end, it is damaged.
    bytes[PAGE as usize - 1] = 1;
    let (_, reader) = read(&bytes.into(), Lsn(SEGMENT), &format(17));
    assert!(reader.unwrap_err().to_string().contains("not up to the page's end"));
}

#[test]
fn a_log_ends_with_a_page_too() {
    // The last record ends with its page; behind it there is nothing, a blank page, or one of the segment's earlier life.
    let length = PAGE as usize - 40 - 24 - 5;
    for (follows, kind) in [
        (vec![], None),
        (vec![0; PAGE as usize], Some(EndKind::Zeros)),
        (PageHeader::write(&format(17), 2 * SEGMENT + PAGE, 1, Joint::Clean), Some(EndKind::Recycled)),
    ] {
        let mut log = SampleLog::new(&format(17), Lsn(5 * SEGMENT));
        log.append(&filled(length));
        assert_eq!(log.end(), Lsn(5 * SEGMENT + PAGE));
        let bytes = [log.pages().to_vec(), follows].concat();
        let (records, reader) = read(&bytes.into(), Lsn(5 * SEGMENT), &format(17));
        let reader = reader.unwrap();
        assert_eq!((records.len(), reader.position()), (1, log.end()));
        assert_eq!(reader.end().map(|end| end.kind), kind);
        assert_eq!(reader.end().map(|end| end.at), kind.map(|_| log.end()));
    }
}

#[test]
fn a_record_in_the_middle_of_which_the_log_ends_is_pending() {
    let mut log = SampleLog::new(&format(17), Lsn(SEGMENT));
    log.append(&filled(10));
    let start = log.append(&filled(5000));
    let part = log.pages().slice(..3 * PAGE as usize);
    let (records, reader) = read(&part, Lsn(SEGMENT), &format(17));
    let mut reader = reader.unwrap();
    assert_eq!((records.len(), reader.position(), reader.pending()), (1, log.records()[0].1, Some(start)));
    assert_eq!(reader.received(), Lsn(SEGMENT + 3 * PAGE));
    assert_eq!(reader.end(), None);
    reader.push(vec![0; PAGE as usize].into());
    assert_eq!(reader.next().unwrap(), None);
    assert_eq!(reader.end(), Some(WalEnd { at: log.records()[0].1, kind: EndKind::Zeros }));
    assert_eq!(reader.pending(), Some(start));
}

#[test]
fn a_switch_leads_to_the_next_segment() {
    let mut log = SampleLog::new(&format(17), Lsn(SEGMENT));
    log.append(&filled(10));
    let switch = log.switch();
    log.append(&SampleRecord::commit(77, 0));
    let (records, reader) = read(&log.pages(), Lsn(SEGMENT), &format(17));
    assert!(reader.is_ok());
    assert_eq!((records[1].start, records[1].end), (switch, Lsn(2 * SEGMENT)));
    assert_eq!(records[1].event().unwrap(), Some(Event::Switch));
    assert!(matches!(records[2].event().unwrap(), Some(Event::Commit(end)) if end.xid == 77));

    // The rest of the segment is skipped whatever it is, but only there.
    let mut bytes = log.pages().to_vec();
    bytes[10 * PAGE as usize..20 * PAGE as usize].fill(0xee);
    assert_eq!(read(&bytes.into(), Lsn(SEGMENT), &format(17)).0, records);
    let from = Lsn(SEGMENT + 10 * PAGE);
    let (none, reader) = read(&log.pages().slice(10 * PAGE as usize..), from, &format(17));
    assert!(none.is_empty());
    assert_eq!(reader.unwrap().end(), Some(WalEnd { at: from, kind: EndKind::Zeros }));
}

#[test]
fn a_record_that_was_given_up_is_no_damage() {
    let mut log = SampleLog::new(&format(17), Lsn(SEGMENT));
    log.append(&filled(100));
    let aborted = log.end();
    log.give_up(&filled(3000));
    log.append(&filled(100));
    let (records, reader) = read(&log.pages(), Lsn(SEGMENT), &format(17));
    assert!(reader.is_ok());
    assert_eq!(ranges(&records), log.records());
    assert!(matches!(records[1].event().unwrap(), Some(Event::OverwriteContrecord { start, .. }) if start == aborted));

    // From the page on that it should have continued on, too.
    let from = PAGE as usize;
    let (records, _) = read(&log.pages().slice(from..), Lsn(SEGMENT + PAGE), &format(17));
    assert_eq!(ranges(&records), &log.records()[1..]);

    // The page's flag alone, without the record that explains it, is damage.
    let mut other = SampleLog::new(&format(17), Lsn(SEGMENT));
    other.append(&filled(2000));
    let mut bytes = other.pages().to_vec();
    bytes[from..from + 24].copy_from_slice(&PageHeader::write(&format(17), SEGMENT + PAGE, 3, Joint::Overwrites));
    assert!(read(&bytes.into(), Lsn(SEGMENT), &format(17)).1.is_err());
}

#[test]
fn pages_of_an_ancestor_come_first_and_never_again() {
    let mut log = SampleLog::new(&format(17), Lsn(SEGMENT));
    for timeline in [1, 3] {
        log.set_timeline(timeline);
        log.append(&filled(1500));
    }
    assert_eq!(read(&log.pages(), Lsn(SEGMENT), &format(17)).0.len(), 2);
    log.set_timeline(2);
    log.append(&filled(1500));
    let (records, reader) = read(&log.pages(), Lsn(SEGMENT), &format(17));
    assert_eq!(records.len(), 2);
    assert!(reader.unwrap_err().to_string().contains("timeline 2 after timeline 3"));
}

#[test]
fn another_clusters_log_is_refused() {
    let (log, start) = (SampleLog::new(&format(17), Lsn(SEGMENT)), Lsn(SEGMENT));
    let written = |log: &SampleLog| {
        let mut log = log.clone();
        log.append(&filled(1));
        log.pages()
    };
    let size = SegmentSize::new(1 << 20).unwrap();
    let other = WalFormat::new(17, size, 43, format(17).timeline()).unwrap().with_page_size(PAGE as u32).unwrap();
    let (_, reader) = read(&written(&log), start, &other);
    assert!(reader.unwrap_err().to_string().starts_with("wal: 0/100000: the log of cluster 42, not 43"));
    let (_, reader) = read(&written(&log), start, &format(16));
    assert!(reader.unwrap_err().to_string().contains("magic number 0xd116, not 0xd113"));
}

#[test]
fn a_damaged_log_stays_damaged() {
    let (log, start) = some_log(&[10, 10, 10]);
    let mut bytes = log.pages().to_vec();
    let second = (log.records()[1].0.0 - start.0) as usize;
    bytes[second + 30] ^= 1;
    let mut reader = WalReader::new(format(17), start).unwrap();
    reader.push(bytes.clone().into());
    assert!(reader.next().unwrap().is_some());
    let position = reader.position();
    for _ in 0..2 {
        let error = reader.next().unwrap_err().to_string();
        assert_eq!(error, format!("wal: {}: the checksum of a record is wrong", log.records()[1].0));
        reader.push(Bytes::from_static(&[0; 64]));
    }
    assert_eq!((reader.position(), reader.end()), (position, None));
    // Unless nobody asks.
    let reader = WalReader::new(format(17), start).unwrap().without_checksums();
    assert_eq!(read_in_pieces(reader, &bytes.into(), &[]).0.len(), 3);
}

#[test]
fn no_record_begins_in_a_header_or_unaligned() {
    for (at, possible) in [(0, true), (8, false), (24, false), (32, false), (40, true), (41, false), (1024 + 24, true)]
    {
        assert_eq!(WalReader::new(format(17), Lsn(SEGMENT + at)).is_ok(), possible, "{at}");
    }
    assert!(WalReader::new(format(17), Lsn(u64::MAX - u64::MAX % SEGMENT)).is_err());
}

#[test]
fn what_a_record_claims_to_be_is_not_made_ready() {
    // A length of a gigabyte, of which one page is there.
    let mut log = SampleLog::new(&format(17), Lsn(SEGMENT));
    log.append(&filled(900));
    let mut bytes = log.pages().to_vec();
    bytes[40..44].copy_from_slice(&(1_000_000_000_u32).to_le_bytes());
    let (records, reader) = read(&bytes.into(), Lsn(SEGMENT), &format(17));
    assert!(records.is_empty());
    assert!(reader.unwrap().held() < 1 << 20);
    let mut bytes = log.pages().to_vec();
    bytes[40..44].copy_from_slice(&(1_100_000_000_u32).to_le_bytes());
    assert!(read(&bytes.into(), Lsn(SEGMENT), &format(17)).1.unwrap_err().to_string().contains("1100000000 bytes"));
}

/// The event of a record with this main data.
fn event(major: u32, rmgr: Rmgr, info: u8, main: &[u8]) -> crate::Result<Option<Event>> {
    let mut log = SampleLog::new(&format(major), Lsn(SEGMENT));
    log.append(&SampleRecord::new(rmgr, info).xid(9).main(main));
    read(&log.pages(), Lsn(SEGMENT), &format(major)).0[0].event()
}

#[test]
fn ends_of_transactions_in_every_version() {
    let time: Timestamp = "2026-11-24T12:34:56.789012Z".parse().unwrap();
    let micros = (time.as_microsecond() - 946_684_800_000_000).to_le_bytes();
    let plain = event(13, Rmgr::TRANSACTION, 0x00, &micros).unwrap();
    let Some(Event::Commit(end)) = plain else { panic!("{plain:?}") };
    assert_eq!((end.xid, end.time, end.subtransactions), (9, time, 0));

    for major in 13..=18 {
        // A database, two subtransactions, one dropped relation, since 15 one statistics item, one invalidation, prepared.
        let mut main = micros.to_vec();
        let parts = 0b1_1111_u32 | if major >= 15 { 1 << 8 } else { 0 };
        main.extend(parts.to_le_bytes());
        main.extend([1; 8]);
        main.extend(2_u32.to_le_bytes());
        main.extend([2; 8]);
        main.extend(1_u32.to_le_bytes());
        main.extend([3; 12]);
        if major >= 15 {
            main.extend(1_u32.to_le_bytes());
            main.extend(vec![4; if major >= 18 { 16 } else { 12 }]);
        }
        main.extend(1_u32.to_le_bytes());
        main.extend([5; 16]);
        main.extend(1234_u32.to_le_bytes());
        main.extend(b"gid\0");
        let found = event(major, Rmgr::TRANSACTION, 0x80 | 0x30, &main).unwrap();
        let Some(Event::CommitPrepared(end)) = found else { panic!("{found:?}") };
        assert_eq!((end.xid, end.time, end.subtransactions), (1234, time, 2), "{major}");
        // Said to be no prepared one, or cut off anywhere before.
        assert!(event(major, Rmgr::TRANSACTION, 0x80, &main).is_err());
        for length in 0..main.len() - 4 {
            assert!(event(major, Rmgr::TRANSACTION, 0x80 | 0x30, &main[..length]).is_err(), "{length}");
        }
    }
    assert!(matches!(event(17, Rmgr::TRANSACTION, 0x20, &micros).unwrap(), Some(Event::Abort(_))));
    assert_eq!(event(17, Rmgr::TRANSACTION, 0x50, &[]).unwrap(), None);
    assert!(event(17, Rmgr::TRANSACTION, 0x00, &i64::MAX.to_le_bytes()).is_err());
}

#[test]
fn a_restore_point_has_its_name_and_time() {
    let mut log = SampleLog::new(&format(14), Lsn(SEGMENT));
    log.append(&SampleRecord::restore_point("before the migration", 1));
    let found = read(&log.pages(), Lsn(SEGMENT), &format(14)).0[0].event().unwrap();
    let time = "2000-01-01T00:00:00.000001Z".parse().unwrap();
    assert_eq!(found, Some(Event::RestorePoint { name: "before the migration".to_owned(), time }));
}

#[test]
fn settings_and_timelines() {
    let mut parameters = vec![0; 20];
    parameters.extend([0, 0, 0, 0, 1, 0, 0, 0]);
    let found = event(16, Rmgr::XLOG, 0x60, &parameters).unwrap();
    assert_eq!(found, Some(Event::ParameterChange { wal_level: WalLevel::Minimal, wal_log_hints: true }));
    parameters[20] = 3;
    assert!(event(16, Rmgr::XLOG, 0x60, &parameters).is_err());

    let mut recovery = vec![0; 8];
    recovery.extend([2, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0]);
    for (major, level) in [(16, None), (17, Some(WalLevel::Logical))] {
        let found = event(major, Rmgr::XLOG, 0x90, &recovery).unwrap();
        let Some(Event::EndOfRecovery { timeline, previous, wal_level, .. }) = found else { panic!("{found:?}") };
        assert_eq!((timeline.get(), previous.get(), wal_level), (2, 1, level));
    }
    assert_eq!(event(16, Rmgr::XLOG, 0xe0, &[1, 0, 0, 0]).unwrap(), None);
    let redo = event(17, Rmgr::XLOG, 0xe0, &[1, 0, 0, 0]).unwrap();
    assert_eq!(redo, Some(Event::CheckpointRedo { wal_level: WalLevel::Replica }));
    assert_eq!(event(17, Rmgr::XLOG, 0x30, &[1, 1, 0, 0]).unwrap(), Some(Event::NextOid(257)));
    assert_eq!(event(17, Rmgr::XLOG, 0x80, &[1]).unwrap(), Some(Event::FullPageWrites(true)));
    assert_eq!(
        event(17, Rmgr::XLOG, 0x50, &[1, 0, 0, 0, 2, 0, 0, 0]).unwrap(),
        Some(Event::BackupEnd { start: Lsn(0x2_0000_0001) })
    );
    assert_eq!(event(17, Rmgr::XLOG, 0xb0, &[]).unwrap(), None);
}

#[test]
fn resource_managers_have_the_names_that_people_know() {
    assert_eq!(Rmgr::HEAP2.to_string(), "Heap2");
    assert_eq!(Rmgr(21).to_string(), "LogicalMessage");
    assert_eq!(Rmgr(128).to_string(), "custom128");
    assert!(Rmgr(128).is_known(15) && !Rmgr(128).is_known(14) && !Rmgr(22).is_known(18));
}
