//! The scanner over files of every type and encoding, cut and broken in every way.

use std::ops::Range;

use proptest::prelude::*;

use super::sample::{SampleFile, arbitrary_file, small_file, types};
use super::*;
use crate::{Error, Result};

const VERSIONS: [RdbVersion; 6] = [
    RdbVersion::redis(6),
    RdbVersion::redis(9),
    RdbVersion::redis(11),
    RdbVersion::redis(12),
    RdbVersion::redis(16),
    RdbVersion::valkey(80),
];

/// Everything that a visitor is told, with pieces put together.
#[derive(Debug, Default, PartialEq)]
struct Told(Vec<String>, Vec<(Part, Vec<u8>)>);

impl Visitor for Told {
    fn aux(&mut self, name: &Name, value: &Name) -> Result<()> {
        self.0.push(format!("aux {} {}", name.text(), value.text()));
        Ok(())
    }

    fn sizes(&mut self, keys: u64, expires: u64) -> Result<()> {
        self.0.push(format!("sizes {keys} {expires}"));
        Ok(())
    }

    fn slot(&mut self, slot: u64, keys: u64, expires: u64) -> Result<()> {
        self.0.push(format!("slot {slot} {keys} {expires}"));
        Ok(())
    }

    fn function(&mut self, code: &Name) -> Result<()> {
        self.0.push(format!("function {}", code.text()));
        Ok(())
    }

    fn module_aux(&mut self, module: u64) -> Result<()> {
        self.0.push(format!("module {module}"));
        Ok(())
    }

    fn key(&mut self, head: &KeyHead<'_>) -> Result<()> {
        self.0.push(format!("{head:?}"));
        self.1.push((Part::Value, Vec::new()));
        Ok(())
    }

    fn piece(&mut self, part: Part, bytes: &[u8]) -> Result<()> {
        match self.1.last_mut() {
            Some((last, all)) if *last == part => all.extend_from_slice(bytes),
            _ => self.1.push((part, bytes.to_vec())),
        }
        Ok(())
    }

    fn value_end(&mut self, range: Range<u64>) -> Result<()> {
        self.0.push(format!("value at {range:?}"));
        Ok(())
    }

    fn unknown(&mut self, offset: u64, what: u8) -> Result<()> {
        self.0.push(format!("unknown {what} at {offset}"));
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        self.0.push("end".into());
        Ok(())
    }
}

fn scan(file: &[u8], piece: usize) -> Result<(Told, ChecksumState)> {
    let (mut scanner, mut told) = (Scanner::new(), Told::default());
    for chunk in file.chunks(piece) {
        scanner.push(chunk, &mut told)?;
    }
    let state = scanner.finish()?;
    Ok((told, state))
}

fn count(file: &[u8]) -> Result<Summary> {
    let mut counter = Counter::new();
    let taken = counter.push(file)?;
    if taken < file.len() {
        return Err(Error::Corrupt { offset: taken as u64, reason: "more bytes".into() });
    }
    counter.finish()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn pieces_do_not_matter(version in 0..VERSIONS.len(), seed: u64, keys in 0..12_u64, piece in 1..400_usize) {
        let (file, expected) = arbitrary_file(VERSIONS[version], seed, keys);
        let whole = scan(&file, file.len()).unwrap();
        prop_assert_eq!(whole.1, ChecksumState::Verified);
        prop_assert_eq!(&scan(&file, piece).unwrap(), &whole);
        let summary = count(&file).unwrap();
        prop_assert_eq!((summary.keys(), summary.expires()), (expected.keys, expected.expires));
        prop_assert_eq!(summary.len, file.len() as u64);
        let by_kind: u64 = Kind::ALL.iter().map(|kind| summary.kind(*kind).keys).sum();
        prop_assert_eq!(by_kind, expected.keys);
    }

    #[test]
    fn what_is_cut_off_or_changed_is_noticed(version in 0..VERSIONS.len(), seed: u64, at: usize, bit in 0..8) {
        let (mut file, _) = arbitrary_file(VERSIONS[version], seed, 6);
        let at = at % file.len();
        let cut = count(&file[..at]);
        prop_assert!(matches!(cut, Err(Error::Corrupt { .. })), "{:?}", cut);
        file[at] ^= 1_u8 << bit;
        let changed = count(&file);
        prop_assert!(matches!(changed, Err(Error::Corrupt { offset, .. }) if offset <= file.len() as u64), "{:?}", changed);
    }

    #[test]
    fn any_bytes_are_read_or_refused(start in 0..3, bytes in proptest::collection::vec(any::<u8>(), 0..600), piece in 1..50_usize) {
        let magic: &[u8] = [b"".as_slice(), b"REDIS0012", b"VALKEY080"][start as usize];
        let file = [magic, &bytes].concat();
        let whole = scan(&file, file.len().max(1)).map_err(|error| error.to_string());
        // What has an end ends at the same place, whatever comes behind it.
        prop_assert_eq!(scan(&file, piece).map_err(|error| error.to_string()), whole);
    }
}

#[test]
fn every_byte_of_a_small_file_counts() {
    let file = small_file();
    for at in 0..file.len() {
        assert!(count(&file[..at]).is_err(), "cut at {at}");
        for bit in 0..8 {
            let mut changed = file.clone();
            changed[at] ^= 1 << bit;
            assert!(count(&changed).is_err(), "bit {bit} of {at}");
        }
    }
}

#[test]
fn the_file_ends_where_its_structure_says() {
    let mut file = small_file();
    let len = file.len();
    file.extend_from_slice(b"*1\r\n$4\r\nPING\r\n");
    for piece in [1, 3, len - 1, len, file.len()] {
        let mut counter = Counter::new();
        let mut taken = 0;
        for chunk in file.chunks(piece) {
            taken += counter.push(chunk).unwrap();
        }
        assert_eq!((taken, counter.is_complete(), counter.position()), (len, true, len as u64), "{piece}");
    }
}

#[test]
fn what_is_counted() {
    let file = SampleFile::new(RdbVersion::redis(12))
        .aux("redis-ver", "7.4.1")
        .aux("repl-stream-db", "3")
        .aux("repl-id", "0123456789abcdef0123456789abcdef01234567")
        .aux("repl-offset", "4711")
        .function("#!lua name=mylib\n")
        .database(0)
        .sizes(3, 1)
        .slot(7, 3, 1)
        .string("a", b"1")
        .expires(5000)
        .string("b", &[b'x'; 500])
        .string("c", b"3")
        .database(9)
        .sizes(2, 0)
        .key(24, b"h", &[1, 0, 0, 0, 0, 0, 0, 0, 1, 2, 1, b'f', 1, b'v'])
        .finish();
    let summary = count(&file).unwrap();
    assert_eq!((summary.keys(), summary.expires(), summary.slots, summary.field_expiry), (4, 1, 1, 1));
    assert_eq!(summary.replication(), Some(("0123456789abcdef0123456789abcdef01234567", 4711)));
    assert_eq!(summary.stream_database(), Some(3));
    assert_eq!(summary.functions, ["mylib"]);
    assert_eq!(summary.kind(Kind::String), summary.kind(Kind::String));
    assert_eq!((summary.kind(Kind::String).keys, summary.kind(Kind::Hash).keys), (3, 1));
    assert_eq!(summary.kind(Kind::Hash).bytes, 14);
    let differing: Vec<u64> = summary.differing().map(|database| database.number).collect();
    assert_eq!(differing, [9]);
    assert_eq!((summary.largest[0].key.text().as_str(), summary.largest[0].bytes), ("b", 502));
}

#[test]
fn the_largest_keys_are_kept() {
    let mut file = SampleFile::new(RdbVersion::redis(9)).database(0);
    for number in 0..200_usize {
        // In an order that is neither rising nor falling.
        let size = number * 37 % 200;
        file = file.string(&format!("k{size}"), &vec![0; size]);
    }
    let summary = count(&file.finish()).unwrap();
    let names: Vec<String> = summary.largest.iter().map(|large| large.key.text()).collect();
    let expected: Vec<String> = (184..200).rev().map(|size| format!("k{size}")).collect();
    assert_eq!(names, expected);
}

#[test]
fn what_is_unknown_is_not_counted_but_summed_up() {
    let known = SampleFile::new(RdbVersion::redis(16)).database(0).string("a", b"1");
    let file = known.key(27, b"s", b"whatever stands here").string("b", b"2").finish();
    for piece in [1, 5, 9, file.len()] {
        let mut counter = Counter::new();
        for chunk in file.chunks(piece) {
            assert_eq!(counter.push(chunk).unwrap(), chunk.len());
        }
        assert!(counter.is_blind() && !counter.is_complete());
        let summary = counter.finish().unwrap();
        assert_eq!(summary.counted, Counted::Until { offset: 16, what: 27 });
        assert_eq!((summary.keys(), summary.checksum), (1, ChecksumState::Verified));
    }
    for at in 9..file.len() {
        let mut changed = file.clone();
        changed[at] ^= 1;
        assert!(count(&changed).is_err(), "{at}");
        assert!(count(&file[..at]).is_err(), "{at}");
    }
    // What is too short to have an end is refused at the same place, whatever its pieces are.
    let place = |piece| scan(b"REDIS0009/12345", piece).map_err(|error| error.to_string());
    assert!(place(15).is_err());
    assert_eq!(place(15), place(7));
    let later = SampleFile::new(RdbVersion::redis(17)).string("a", b"1").finish();
    assert_eq!(count(&later).unwrap().counted, Counted::Until { offset: 9, what: 0 });
}

#[test]
fn a_checksum_that_is_off_is_said() {
    let file = SampleFile::new(RdbVersion::redis(11)).string("a", b"1").finish_without_checksum();
    assert_eq!(count(&file).unwrap().checksum, ChecksumState::Off);
    let blind = SampleFile::new(RdbVersion::redis(16)).key(200, b"a", b"1").finish_without_checksum();
    assert_eq!(count(&blind).unwrap().checksum, ChecksumState::Off);
}

#[test]
fn errors_name_the_place() {
    let place = |file: &[u8]| match count(file) {
        Err(Error::Corrupt { offset, reason }) => (offset, reason),
        other => panic!("{other:?}"),
    };
    assert_eq!(place(b"").0, 0);
    assert_eq!(place(b"ROBIS0011").0, 0);
    assert_eq!(place(b"REDIS0004\xff").0, 5);
    // A length that is none, behind the magic, the type and the key.
    assert_eq!(place(b"REDIS0011\x00\x01k\x82").0, 12);
    // A string where a number must stand.
    assert_eq!(place(b"REDIS0011\x01\x01k\xc0").0, 13);
    let (offset, reason) = place(b"REDIS0011\x00\x01k\x05abc");
    assert_eq!((offset, reason.as_str()), (16, "the file ends in a value of type 0"));
}

#[test]
fn claims_cost_no_memory() {
    // A key that says it has 2^63 bytes, and one that says it unpacks to as many.
    for start in [
        b"\x00\x81\x7f\xff\xff\xff\xff\xff\xff\xff".as_slice(),
        b"\xfa\xc3\x05\x81\x7f\xff\xff\xff\xff\xff\xff\xffabcde\x01x",
    ] {
        let mut scanner = Scanner::new();
        scanner.push(b"REDIS0011", &mut ()).unwrap();
        scanner.push(start, &mut Told::default()).unwrap();
        let block = vec![0; 4 << 20];
        scanner.push(&block, &mut ()).unwrap();
        assert!(scanner.kept_bytes() <= 2 * Name::LIMIT);
    }
}

#[test]
fn every_version_has_its_types() {
    let known = |version| types(version).collect::<Vec<u8>>();
    let common: Vec<u8> = (0..=5).chain([7]).chain(9..=21).collect();
    let with = |more: &[u8]| [common.as_slice(), more].concat();
    assert_eq!(known(RdbVersion::redis(12)), with(&[22, 23, 24, 25]));
    assert_eq!(known(RdbVersion::valkey(80)), with(&[22]));
}
