//! The physical yardstick: `zstd -1 -T<cores>` over the same files, without encryption, hashing or durability.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

/// Compresses every file below `dir`, one after the other in one frame, into `out`; returns bytes in and out.
pub(crate) fn compress(dir: &Path, out: &Path) -> io::Result<(u64, u64)> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut encoder = zstd::Encoder::new(File::create(out)?, 1)?;
    encoder.multithread(u32::try_from(threads).unwrap_or(1))?;
    let mut folders = vec![dir.to_owned()];
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                // The log is not part of what the backup reads from the data directory.
                if entry.file_name() != "pg_wal" {
                    folders.push(entry.path());
                }
            } else if kind.is_file() {
                // A running server removes files while they are listed.
                let mut file = match File::open(entry.path()) {
                    Ok(file) => file,
                    Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                    Err(e) => return Err(e),
                };
                loop {
                    match file.read(&mut buffer)? {
                        0 => break,
                        len => {
                            encoder.write_all(&buffer[..len])?;
                            bytes += len as u64;
                        }
                    }
                }
            }
        }
    }
    let mut file = encoder.finish()?;
    file.flush()?;
    Ok((bytes, file.metadata()?.len()))
}
