//! Files of incremental base backups: never panics, and pieces do not matter. Half of the inputs get a sound beginning.

#![no_main]

use backup_postgres::basebackup::{IncrementHeader, IncrementReader};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

fn read(file: &Bytes, piece: usize) -> Option<(IncrementHeader, Vec<u8>)> {
    let (mut reader, mut found, mut content) = (IncrementReader::new(131_072), None, Vec::new());
    let mut rest = file.clone();
    while !rest.is_empty() {
        let (header, bytes) = reader.push(rest.split_to(piece.min(rest.len()))).ok()?;
        assert!(header.is_none() || found.is_none());
        found = found.or(header);
        content.extend_from_slice(&bytes);
    }
    reader.finish().ok()?;
    found.map(|header| (header, content))
}

fuzz_target!(|data: &[u8]| {
    let mut file = data.to_vec();
    if let [flag, count, rest @ ..] = data
        && flag % 2 == 0
    {
        // A list of `count` blocks out of the input, padded, with as many blocks behind it as it says.
        let blocks = rest.len().min(4 * usize::from(*count)) / 4;
        file = 0xd3ae_1f0d_u32.to_le_bytes().to_vec();
        file.extend((blocks as u32).to_le_bytes());
        file.extend(rest.iter().copied().chain([0; 4]).take(4));
        file.extend(&rest[..4 * blocks]);
        if blocks > 0 {
            file.resize(file.len().next_multiple_of(8192) + 8192 * blocks, 0);
        }
    }
    let file = Bytes::from(file);
    let whole = read(&file, file.len().max(1));
    assert_eq!(whole, read(&file, 7));
    if let Some((header, content)) = whole {
        assert_eq!(content.len(), header.blocks.len() * 8192);
        assert!(header.blocks.is_sorted_by(|a, b| a < b));
        assert!(header.blocks.iter().chain([&header.truncation]).all(|block| *block <= 131_072));
    }
});
