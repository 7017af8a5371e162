//! Archives of a base backup: never panics, hands out no path that leads outside, and pieces do not matter.

#![no_main]

use backup_postgres::tar::{Event, Reader};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

/// The entries' paths and all data, or nothing when the archive is refused.
fn read(archive: &[u8], piece: usize) -> Option<(Vec<Vec<u8>>, Vec<u8>)> {
    let (mut paths, mut content) = (Vec::new(), Vec::new());
    let mut reader = Reader::new();
    for part in archive.chunks(piece) {
        reader.push(Bytes::copy_from_slice(part));
        while let Some(event) = reader.next().ok()? {
            match event {
                Event::Entry(entry) => {
                    assert!(!entry.path.contains(&0));
                    assert!(entry.path.split(|b| *b == b'/').all(|p| !matches!(p, b"" | b"." | b"..")));
                    paths.push(entry.path);
                }
                Event::Data(data) => content.extend_from_slice(&data),
                _ => {}
            }
        }
    }
    reader.finish().ok()?;
    Some((paths, content))
}

fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else { return };
    // Checksums of headers are put right, or nothing would ever get past them.
    let mut archive = rest.to_vec();
    if first & 1 == 0 {
        for block in archive.chunks_exact_mut(512) {
            if &block[257..262] == b"ustar" {
                block[148..156].fill(b' ');
                let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
                block[148..156].copy_from_slice(format!("{sum:07o} ").as_bytes());
            }
        }
    }
    assert_eq!(read(&archive, 37 + usize::from(*first) * 7), read(&archive, archive.len().max(1)));
});
