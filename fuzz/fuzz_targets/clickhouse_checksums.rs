//! What a part of ClickHouse says of itself: lists, names, columns, metadata of object disks. Never panics, pieces do not
//! matter, and what was read is written and read again.

#![no_main]

use backup_clickhouse::part::checksums::{Checksums, Codec};
use backup_clickhouse::part::hash::{FileHasher, city_hash128};
use backup_clickhouse::part::{DetachedName, ObjectMetadata, PartFacts, PartName, Syntax, Verifier};
use libfuzzer_sys::fuzz_target;

/// A list that a program wrote: its blocks fit their checksums, so that the way behind them is gone, too.
fn sealed(version: u8, method: u8, size: u8, data: &[u8]) -> Vec<u8> {
    let head = format!("checksums format version: {version}\n").into_bytes();
    if version != 4 {
        return [head, data.to_vec()].concat();
    }
    let method = [0x02, 0x82, 0x90, method][usize::from(method & 3)];
    let size = if method == 0x02 { data.len() as u32 } else { u32::from(size) * 16 };
    let block = [&[method], (data.len() as u32 + 9).to_le_bytes().as_slice(), &size.to_le_bytes(), data].concat();
    [head, city_hash128(&block).to_bytes().to_vec(), block].concat()
}

/// A part of two files and two projections, one of them in a single file.
fn verify(list: &[u8], columns: &[u8], piece: usize) -> PartFacts {
    let mut verifier = Verifier::new();
    let files = [
        ("columns.txt", columns),
        ("checksums.txt", list),
        ("p.proj/checksums.txt", list),
        ("q.proj/data.packed", columns),
    ];
    for (path, bytes) in files {
        verifier.file(path, bytes.len() as u64);
        bytes.chunks(piece).for_each(|piece| verifier.bytes(piece));
    }
    verifier.file(&String::from_utf8_lossy(columns), 1);
    verifier.finish()
}

fuzz_target!(|data: &[u8]| {
    let [version, method, size, piece, bytes @ ..] = data else { return };
    let (version, piece) = (version % 6, 1 + usize::from(*piece));
    let list = sealed(version, *method, *size, bytes);
    if let Ok(read) = Checksums::parse(&list) {
        let codec = [Codec::None, Codec::Lz4, Codec::Zstd][usize::from(method % 3)];
        let again = read.to_bytes(codec).expect("what was read can be written");
        assert_eq!(Checksums::parse(&again).as_ref(), Ok(&read));
        assert!(read.iter().all(|(name, _)| !name.as_str().contains('/') && name.as_str() != ".."));
    }
    assert_eq!(verify(&list, bytes, piece), verify(&list, bytes, data.len()));

    let mut hasher = FileHasher::new();
    bytes.chunks(piece).for_each(|piece| hasher.update(piece));
    let mut whole = FileHasher::new();
    whole.update(bytes);
    assert_eq!(hasher.finish(), whole.finish());

    if let Ok(metadata) = ObjectMetadata::parse(bytes) {
        assert!(metadata.objects.iter().all(|object| !object.key.contains("/../")));
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for syntax in [Syntax::Custom, Syntax::Monthly] {
        if let Ok(name) = PartName::parse(text, syntax) {
            assert_eq!(name.to_string(), text);
            assert!(name.covers(&name));
        }
        if let Ok(name) = DetachedName::parse(text, syntax) {
            assert_eq!(name.to_string(), text);
        }
    }
});
