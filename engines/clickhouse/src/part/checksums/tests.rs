use proptest::prelude::*;

use super::{Checksum, Checksums, Codec, FileName, Uncompressed, block};
use crate::part::golden::{self, GoldenPart};
use crate::part::hash::{FileHasher, city_hash128};
use crate::part::{Error, Hash128};

fn list_of(part: &GoldenPart) -> Checksums {
    Checksums::parse(part.file("checksums.txt")).unwrap()
}

fn list(names: &[&str]) -> Checksums {
    let mut list = Checksums::new();
    for (at, name) in names.iter().enumerate() {
        let at = at as u64;
        let uncompressed = at.is_multiple_of(2).then(|| Uncompressed { size: at << 40, hash: Hash128::new(!at, at) });
        list.insert(FileName::new(name).unwrap(), Checksum { size: at, hash: Hash128::new(at, !at), uncompressed });
    }
    list
}

#[test]
fn lists_of_real_parts_say_what_is_there() {
    for part in golden::all() {
        let list = list_of(&part);
        for (name, checksum) in list.iter().filter(|(name, _)| name.projection().is_none()) {
            let bytes = part.file(name.as_str());
            let mut hasher = FileHasher::new();
            hasher.update(bytes);
            assert_eq!((checksum.size, checksum.hash), (bytes.len() as u64, hasher.finish()), "{name}");
        }
    }
}

#[test]
fn the_digests_are_those_of_system_parts() {
    for part in [golden::compact_26(), golden::hashed_26(), golden::wide_26()] {
        let list = list_of(&part);
        let digests =
            [list.hash_of_all_files(), list.hash_of_uncompressed_files(), list.uncompressed_hash_of_compressed_files()];
        assert_eq!(digests, *part.hashes);
    }
}

#[test]
fn a_projection_is_an_entry_of_its_own_list() {
    let part = golden::wide_26();
    let inner = Checksums::parse(part.file("p1.proj/checksums.txt")).unwrap();
    let list = list_of(&part);
    let entry = list.get("p1.proj").unwrap();
    assert_eq!((entry.size, entry.hash), (inner.total_size(), inner.hash_of_all_files()));
}

#[test]
fn what_an_old_server_wrote_is_written_again_to_the_byte_that_matters() {
    // LZ4 has many ways to say the same, so the lists are compared, and the plain bytes behind them.
    for part in golden::all() {
        let list = list_of(&part);
        for codec in [Codec::None, Codec::Lz4, Codec::Zstd] {
            assert_eq!(Checksums::parse(&list.to_bytes(codec).unwrap()).unwrap(), list);
        }
        let body = |bytes: &[u8]| block::decompress_all(&bytes[super::HEADER.len() + 2..], 0).unwrap();
        assert_eq!(body(&list.to_bytes(Codec::Lz4).unwrap()), body(part.file("checksums.txt")));
    }
}

#[test]
fn older_versions_are_read() {
    let text = b"checksums format version: 2\n2 files:\na.bin\n\tsize: 27\n\thash: 1 18446744073709551615\n\tcompressed: 1\n\t\
        uncompressed size: 9\n\tuncompressed hash: 3 4\nb.mrk\n\tsize: 16\n\thash: 5 6\n\tcompressed: 0\n";
    let list = Checksums::parse(text).unwrap();
    let inside = Uncompressed { size: 9, hash: Hash128::new(3, 4) };
    let checksum = Checksum { size: 27, hash: Hash128::new(1, u64::MAX), uncompressed: Some(inside) };
    assert_eq!(list.get("a.bin"), Some(&checksum));
    assert_eq!(list.get("b.mrk").map(|checksum| checksum.size), Some(16));

    let binary = [b"checksums format version: 3\n".as_slice(), &super::binary::write(&list)].concat();
    assert_eq!(Checksums::parse(&binary).unwrap(), list);
    for end in 0..binary.len() {
        Checksums::parse(&binary[..end]).expect_err("cut off");
    }
    for end in 0..text.len() {
        Checksums::parse(&text[..end]).expect_err("cut off");
    }
}

#[test]
fn lists_that_no_part_has_are_refused_with_a_reason() {
    let versioned =
        |version: &str, body: &[u8]| [format!("checksums format version: {version}\n").as_bytes(), body].concat();
    for version in ["1", "5", "6", "18446744073709551615"] {
        let error = Checksums::parse(&versioned(version, b"")).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    }
    for bytes in [b"".to_vec(), b"checksums".to_vec(), versioned("", b""), versioned("4x", b""), versioned("-4", b"")] {
        let error = Checksums::parse(&bytes).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    }
    // A count that nothing could hold, in a few bytes.
    let error = Checksums::parse(&versioned("3", &[255, 255, 255, 255, 255, 255, 255, 255, 255, 1])).unwrap_err();
    assert!(error.to_string().contains("cannot have"), "{error}");
    Checksums::parse(&versioned("2", b"18446744073709551615 files:\n")).unwrap_err();
    for name in ["", ".", "..", "../columns.txt", "/etc/passwd", "a\\b", "a\0", &"a".repeat(256)] {
        let error = FileName::new(name).unwrap_err();
        assert!(matches!(error, Error::FileName { .. }), "{error}");
    }
    let entry = |name: &str| [&[1, name.len() as u8], name.as_bytes(), &[0; 18]].concat();
    Checksums::parse(&versioned("3", &entry("a/b"))).unwrap_err();
    Checksums::parse(&versioned("3", &entry("ab"))).unwrap();
    let twice = [&[2], &entry("ab")[1..], &entry("ab")[1..]].concat();
    let error = Checksums::parse(&versioned("3", &twice)).unwrap_err();
    assert!(error.to_string().contains("twice"), "{error}");
}

/// A block with a checksum that fits: what a program wrote, not what a disk broke.
fn block(method: u8, size: u32, data: &[u8]) -> Vec<u8> {
    let body = [&[method], (data.len() as u32 + 9).to_le_bytes().as_slice(), &size.to_le_bytes(), data].concat();
    [b"checksums format version: 4\n".as_slice(), &city_hash128(&body).to_bytes(), &body].concat()
}

#[test]
fn blocks_are_bounded_before_they_are_opened() {
    let bomb = zstd::bulk::compress(&vec![0; 32 << 20], 1).unwrap();
    let error = Checksums::parse(&block(0x90, u32::MAX, &bomb)).unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    // It says less than it has.
    let error = Checksums::parse(&block(0x90, 1000, &bomb)).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    let lz4 = lz4_flex::block::compress(&[0; 100]);
    for size in [0, 99, 101] {
        let error = Checksums::parse(&block(0x82, size, &lz4)).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{size}: {error}");
    }
    assert!(Checksums::parse(&block(0x02, 1, &[0])).unwrap().is_empty());
    Checksums::parse(&block(0x02, 2, &[0])).unwrap_err();
    let error = Checksums::parse(&block(0x94, 1, &[0])).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
}

#[test]
fn any_flipped_bit_of_a_list_is_found() {
    for part in [golden::one_18(), golden::wide_26()] {
        let bytes = part.file("checksums.txt");
        for at in 0..bytes.len() {
            let mut broken = bytes.to_vec();
            broken[at] ^= 1 << (at % 8);
            Checksums::parse(&broken).expect_err("a flipped bit");
        }
        Checksums::parse(&[bytes, b"\0"].concat()).expect_err("something follows");
    }
}

proptest! {
    #[test]
    fn lists_come_back(names in prop::collection::btree_set("[a-z%.]{1,12}x", 0..200), codec in 0..3) {
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let list = list(&names);
        let codec = [Codec::None, Codec::Lz4, Codec::Zstd][codec as usize];
        prop_assert_eq!(Checksums::parse(&list.to_bytes(codec).unwrap()).unwrap(), list);
    }

    #[test]
    fn no_bytes_are_too_strange(version in 2u8..5, body in prop::collection::vec(any::<u8>(), 0..200)) {
        let head = format!("checksums format version: {version}\n");
        let _ = Checksums::parse(&[head.as_bytes(), &body].concat());
        if let Ok(list) = super::binary::read(&body, 0) {
            prop_assert_eq!(super::binary::read(&super::binary::write(&list), 0), Ok(list));
        }
    }
}

#[test]
fn a_list_of_many_files_takes_many_blocks() {
    let names: Vec<_> = (0..5000).map(|at| format!("column_{at:05}.bin")).collect();
    let list = list(&names.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(super::binary::write(&list).len() > 3 << 16);
    assert_eq!(Checksums::parse(&list.to_bytes(Codec::Lz4).unwrap()).unwrap(), list);
}
