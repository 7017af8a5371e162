use proptest::prelude::*;

use super::*;
use crate::lsn::{Lsn, TimelineId};
use crate::page::Fork;
use crate::wal::{Record, RelationId, Rmgr, SampleLog, SampleRecord, SegmentSize, WalFormat, WalReader};

const START: Lsn = Lsn(5 << 20);

fn relation(number: u32) -> RelationId {
    RelationId { tablespace: 1663, database: 5, number }
}

fn records(major: u32, samples: &[SampleRecord]) -> Vec<Record> {
    let size = SegmentSize::new(1 << 20).unwrap();
    let format = WalFormat::new(major, size, 1, TimelineId::FIRST).unwrap();
    let mut log = SampleLog::new(&format, START);
    for sample in samples {
        log.append(sample);
    }
    let mut reader = WalReader::new(format, START).unwrap();
    reader.push(log.pages());
    std::iter::from_fn(|| reader.next().unwrap()).collect()
}

fn map_of(major: u32, samples: &[SampleRecord]) -> ChangeMap {
    let mut map = ChangeMap::new(START);
    records(major, samples).iter().for_each(|record| map.add(record));
    map
}

/// From the first of each pair up to the second.
fn blocks(ranges: &[(u32, u32)]) -> Changed {
    Changed::Blocks(ranges.iter().map(|(start, end)| *start..*end).collect())
}

fn touch(number: u32, fork: Fork, block: u32) -> SampleRecord {
    SampleRecord::new(Rmgr(11), 0).block(relation(number), fork, block)
}

fn numbers(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

#[test]
fn blocks_are_told_by_file() {
    let map = map_of(
        17,
        &[
            touch(7, Fork::Main, 3),
            touch(7, Fork::Main, 4),
            touch(7, Fork::Main, 131_072),
            touch(7, Fork::Main, 262_143),
            touch(7, Fork::FreeSpace, 1),
            touch(8, Fork::Visibility, 0),
        ],
    );
    assert_eq!(map.doubt(), None);
    assert_eq!(map.file(b"base/5/7"), blocks(&[(3, 5)]));
    assert_eq!(map.file(b"base/5/7.1"), blocks(&[(0, 1), (131_071, 131_072)]));
    assert_eq!(map.file(b"base/5/7.2"), Changed::Unchanged);
    assert_eq!(map.file(b"base/5/7_vm"), Changed::Unchanged);
    assert_eq!(map.file(b"base/5/8"), Changed::Unchanged);
    assert_eq!(map.file(b"base/5/8_vm"), blocks(&[(0, 1)]));
    assert_eq!(map.file(b"base/6/7"), Changed::Unchanged);
    assert_eq!(map.file(b"pg_tblspc/1663/PG_17_1/5/7"), blocks(&[(3, 5)]));
    // What is not logged, or no relation.
    for path in ["base/5/9_fsm", "base/5/PG_VERSION", "global/pg_control", "pg_xact/0000", "base/5/t1_9"] {
        assert_eq!(map.file(path.as_bytes()), Changed::Whole, "{path}");
    }
}

#[test]
fn a_table_takes_its_visibility_map_along() {
    let heap = |block| SampleRecord::new(Rmgr::HEAP, 0x10).block(relation(7), Fork::Main, block);
    let map = map_of(14, &[heap(32_671), heap(3 * 32_672)]);
    assert_eq!(map.file(b"base/5/7"), blocks(&[(32_671, 32_672), (98_016, 98_017)]));
    assert_eq!(map.file(b"base/5/7_vm"), blocks(&[(0, 1), (3, 4)]));
}

#[test]
fn new_files_are_new_and_shortened_ones_are_new_behind() {
    let create =
        |number: u32, fork: u32| SampleRecord::new(Rmgr::STORAGE, 0x11).main(numbers(&[1663, 5, number, fork]));
    let truncate = |number: u32, block: u32, forks: u32| {
        SampleRecord::new(Rmgr::STORAGE, 0x21).main(numbers(&[block, 1663, 5, number, forks]))
    };
    let map = map_of(
        15,
        &[
            touch(7, Fork::Main, 10),
            touch(7, Fork::Main, 200_000),
            truncate(7, 150_000, 7),
            touch(7, Fork::Main, 150_001),
            create(8, 0),
            create(8, 1),
            create(9, 3),
            truncate(10, 40_000, 2),
        ],
    );
    assert_eq!(map.doubt(), None);
    assert_eq!(map.file(b"base/5/7"), blocks(&[(10, 11)]));
    assert_eq!(map.file(b"base/5/7.1"), blocks(&[(18_928, 131_072)]));
    assert_eq!(map.file(b"base/5/7.2"), Changed::Whole);
    // The bits of what was cut off are cleared in the last block that stays.
    assert_eq!(map.file(b"base/5/7_vm"), blocks(&[(4, 131_072)]));
    assert_eq!(map.file(b"base/5/8.3"), Changed::Whole);
    assert_eq!(map.file(b"base/5/8_init"), Changed::Unchanged);
    assert_eq!(map.file(b"base/5/9_init"), Changed::Whole);
    assert_eq!(map.file(b"base/5/10"), Changed::Unchanged);
    assert_eq!(map.file(b"base/5/10_vm"), blocks(&[(1, 131_072)]));
}

#[test]
fn dropped_relations_and_databases_may_come_back() {
    // A commit with a list of dropped relations.
    let drop = |info: u8, number: u32| {
        let mut main = 0_u64.to_le_bytes().to_vec();
        main.extend(numbers(&[0b100, 1, 1663, 5, number]));
        SampleRecord::new(Rmgr::TRANSACTION, 0x80 | info).main(main)
    };
    let map = map_of(18, &[drop(0x00, 7), drop(0x20, 8)]);
    assert_eq!(map.doubt(), None);
    for path in ["base/5/7", "base/5/7_vm", "base/5/8.1"] {
        assert_eq!(map.file(path.as_bytes()), Changed::Whole, "{path}");
    }
    let database = |info, content: &[u32]| SampleRecord::new(Rmgr::DATABASE, info).main(numbers(content));
    let cases: [(u32, u8, &[u32], bool); 6] = [
        (14, 0x01, &[5, 1663, 1, 1663], true),
        (14, 0x11, &[5, 2, 99, 1663], true),
        (15, 0x01, &[5, 1663, 1, 1663], true),
        (15, 0x10, &[5, 1663], true),
        (15, 0x21, &[5, 1, 1663], true),
        (15, 0x21, &[5, 1, 99], false),
    ];
    for (major, info, content, here) in cases {
        let map = map_of(major, &[database(info, content)]);
        assert_eq!(map.doubt(), None);
        assert_eq!(map.file(b"base/5/7") == Changed::Whole, here, "{major} {info:#x}");
        assert_eq!(map.file(b"base/6/7"), Changed::Unchanged);
    }
}

#[test]
fn what_is_not_understood_puts_the_map_in_doubt() {
    let parameters = |level: u8| {
        let mut main = vec![0; 20];
        main.extend([level, 0, 0, 0, 0, 0]);
        SampleRecord::new(Rmgr::XLOG, 0x60).main(main)
    };
    let plain = |rmgr: u8, info: u8| SampleRecord::new(Rmgr(rmgr), info);
    let unknown = |rmgr: u8, info: u8| Some(Doubt::Unknown { at: Lsn(START.0 + 40), rmgr: Rmgr(rmgr), info });
    let cases = [
        (17, parameters(0), Some(Doubt::Minimal { at: Lsn(START.0 + 40) })),
        (17, parameters(1), None),
        (17, plain(0, 0xc0), unknown(0, 0xc0)),
        (16, plain(0, 0xe0), unknown(0, 0xe0)),
        (17, plain(0, 0xe0).main([0; 4]), Some(Doubt::Minimal { at: Lsn(START.0 + 40) })),
        (17, plain(0, 0xe0).main([2, 0, 0, 0]), None),
        (17, plain(1, 0x70), unknown(1, 0x70)),
        (17, plain(1, 0x50), None),
        (17, plain(2, 0x30).main([0; 20]), unknown(2, 0x30)),
        (17, plain(4, 0x30).main([0; 20]), unknown(4, 0x30)),
        (14, plain(4, 0x20).main([0; 20]), unknown(4, 0x20)),
        (17, plain(2, 0x10), Some(Doubt::Unreadable { at: Lsn(START.0 + 40) })),
        (17, plain(5, 0x20), unknown(5, 0x20)),
        (17, plain(130, 0x00), unknown(130, 0x00)),
        // Says that it changes more than the blocks that it names.
        (17, plain(10, 0x01), unknown(10, 0x01)),
        (17, plain(10, 0x02), None),
    ];
    for (major, sample, doubt) in cases {
        let map = map_of(major, std::slice::from_ref(&sample));
        assert_eq!(map.doubt(), doubt, "{sample:?}");
        let expected = if doubt.is_some() { Changed::Whole } else { Changed::Unchanged };
        assert_eq!(map.file(b"base/5/7"), expected);
    }
}

#[test]
fn a_missing_record_is_noticed() {
    let records = records(17, &[touch(7, Fork::Main, 1), touch(7, Fork::Main, 2), touch(7, Fork::Main, 3)]);
    let mut map = ChangeMap::new(START);
    map.add(&records[0]);
    map.add(&records[2]);
    assert_eq!(map.doubt(), Some(Doubt::Gap { from: records[0].end, to: records[2].start }));
    let mut late = ChangeMap::new(START);
    late.add(&records[1]);
    assert_eq!(late.doubt(), Some(Doubt::Gap { from: START, to: records[1].start }));
    // From the middle on it knows what it must.
    let mut second = ChangeMap::new(records[1].start);
    records.iter().for_each(|record| second.add(record));
    assert_eq!((second.doubt(), second.end()), (None, records[2].end));
    assert_eq!(second.file(b"base/5/7"), blocks(&[(2, 4)]));
}

#[test]
fn what_overlaps_is_merged_and_a_claim_can_be_given_up() {
    let records = records(17, &[touch(7, Fork::Main, 1), touch(7, Fork::Main, 2), touch(7, Fork::Main, 3)]);
    let from = |range: std::ops::Range<usize>| {
        let mut map = ChangeMap::new(records[range.start].start);
        records[range].iter().for_each(|record| map.add(record));
        map
    };
    let mut map = from(0..2);
    map.merge(&from(1..3));
    assert_eq!((map.doubt(), map.end()), (None, records[2].end));
    assert_eq!(map.file(b"base/5/7"), blocks(&[(1, 4)]));
    // What was given up has to be seen again, and what was known of it stays.
    let mut forked = from(0..3);
    forked.claim_until(records[1].start);
    assert!(forked.meets(records[1].start) && !forked.meets(records[2].start));
    forked.merge(&from(1..2));
    assert_eq!((forked.doubt(), forked.end()), (None, records[1].end));
    assert_eq!(forked.file(b"base/5/7"), blocks(&[(1, 4)]));
}

#[test]
fn only_neighbours_are_merged_without_doubt() {
    let records = records(17, &[touch(7, Fork::Main, 1), touch(7, Fork::Main, 2), touch(7, Fork::Main, 3)]);
    let from = |first: usize| {
        let mut map = ChangeMap::new(records[first].start);
        map.add(&records[first]);
        map
    };
    let mut map = from(0);
    map.merge(&from(1));
    assert_eq!(map.file(b"base/5/7"), blocks(&[(1, 3)]));
    map.merge(&ChangeMap::new(records[1].end));
    assert_eq!((map.doubt(), map.end()), (None, records[1].end));
    let mut again = map.clone();
    again.merge(&from(1));
    assert_eq!(again, map);
    let mut gap = from(0);
    gap.merge(&from(2));
    assert_eq!(gap.doubt(), Some(Doubt::Gap { from: records[0].end, to: records[2].start }));
    assert_eq!(gap.file(b"base/5/8"), Changed::Whole);
    let mut backwards = from(1);
    backwards.merge(&from(0));
    assert!(backwards.doubt().is_some());
}

/// Any records that change something.
fn samples() -> impl Strategy<Value = Vec<SampleRecord>> {
    let numbered = |content: &[u32]| numbers(content);
    let fork = prop_oneof![Just(Fork::Main), Just(Fork::Visibility), Just(Fork::Init), Just(Fork::FreeSpace)];
    let block = prop_oneof![0_u32..20, 131_060_u32..131_090, any::<u32>()];
    let sample = prop_oneof![
        8 => (6_u32..9, fork, block.clone()).prop_map(|(number, fork, block)| touch(number, fork, block)),
        4 => (6_u32..9, block.clone()).prop_map(|(number, block)| {
            SampleRecord::new(Rmgr::HEAP, 0).block(relation(number), Fork::Main, block)
        }),
        1 => (6_u32..9, block, 0_u32..8).prop_map(move |(number, block, forks)| {
            SampleRecord::new(Rmgr::STORAGE, 0x20).main(numbered(&[block, 1663, 5, number, forks]))
        }),
        1 => (4_u32..7).prop_map(move |database| {
            SampleRecord::new(Rmgr::DATABASE, 0x10).main(numbered(&[database, 1663]))
        }),
    ];
    prop::collection::vec(sample, 0..60)
}

proptest! {
    #[test]
    fn pieces_make_the_same_map(samples in samples(), cut: prop::sample::Index) {
        let whole = map_of(17, &samples);
        let records = records(17, &samples);
        let cut = cut.index(records.len() + 1);
        let mut map = ChangeMap::new(START);
        records[..cut].iter().for_each(|record| map.add(record));
        let mut later = ChangeMap::new(map.end());
        records[cut..].iter().for_each(|record| later.add(record));
        map.merge(&later);
        prop_assert_eq!(&map, &whole);
        // And goes on being one.
        prop_assert_eq!(ChangeMap::from_bytes(&map.to_bytes().unwrap()).unwrap(), whole);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>, samples in samples(), at: prop::sample::Index, value: u8) {
        let _ = ChangeMap::from_bytes(&bytes);
        let mut bytes = map_of(17, &samples).to_bytes().unwrap();
        let at = at.index(bytes.len());
        bytes[at] = value;
        if let Ok(map) = ChangeMap::from_bytes(&bytes) {
            let again = map.to_bytes().unwrap();
            prop_assert_eq!(ChangeMap::from_bytes(&again).unwrap(), map);
        }
    }
}

/// The stored form, which must never change: maps outlive the program.
#[test]
fn golden() {
    let truncate = SampleRecord::new(Rmgr::STORAGE, 0x20).main(numbers(&[300_000, 1663, 5, 8, 1]));
    let database = SampleRecord::new(Rmgr::DATABASE, 0x10).main(numbers(&[16_400, 1663]));
    let samples = [
        touch(7, Fork::Main, 1),
        touch(7, Fork::Main, 2),
        touch(7, Fork::Main, 300),
        touch(7, Fork::Main, 70_000),
        touch(7, Fork::Init, 0),
        truncate,
        database,
        SampleRecord::new(Rmgr(200), 0x10),
    ];
    let map = map_of(17, &samples);
    let hex: String = map.to_bytes().unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, GOLDEN);
    assert_eq!(ChangeMap::from_bytes(&map.to_bytes().unwrap()).unwrap(), map);
    let later = hex.replacen("8701", "8702", 1);
    let bytes: Vec<u8> =
        (0..later.len()).step_by(2).map(|at| u8::from_str_radix(&later[at..at + 2], 16).unwrap()).collect();
    assert_eq!(ChangeMap::from_bytes(&bytes).unwrap_err().to_string(), "change map: version 2");
}

const GOLDEN: &str = concat!(
    "87011a005000001a005001881a00500170",
    // In doubt about the record of manager 200.
    "8201831a0050017018c810",
    "818219067f194010",
    // Blocks 1, 2, 300 and 70000 of relation 7, one of its initial fork, and relation 8 from 300000 on.
    "838619067f050700f64c00020101a902000001f02200",
    "8619067f050703f64400010000",
    "8619067f0508001a000493e040",
);
