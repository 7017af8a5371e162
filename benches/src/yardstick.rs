//! The physical yardstick: `zstd -1 -T<cores>` over the same files, without encryption, hashing or durability.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

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

/// Bytes of all files below `dir`.
pub(crate) fn size(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        // A running server removes files while they are listed.
        bytes += match entry.metadata() {
            Ok(found) if found.is_dir() => size(&entry.path())?,
            Ok(found) => found.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
    }
    Ok(bytes)
}

/// As [`size`], and 0 where there is nothing.
pub(crate) fn size_if_there(dir: &Path) -> io::Result<u64> {
    if dir.exists() { size(dir) } else { Ok(0) }
}

/// How many files there are below `dir`.
pub(crate) fn count(dir: &Path) -> io::Result<u64> {
    let mut files = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        files += if entry.file_type()?.is_dir() { count(&entry.path())? } else { 1 };
    }
    Ok(files)
}

/// Has `program` receive the log up to `end` and compresses each complete segment meanwhile, as an archive script does; bytes in and out.
pub(crate) fn receive(program: &Path, dir: &Path, url: &str, slot: &str, end: &str) -> io::Result<(u64, u64)> {
    let mut child = Command::new(program)
        .args(["--no-loop", "--no-password", "-S", slot, "--endpos", end, "-d", url, "-D"])
        .arg(dir)
        .spawn()?;
    let (mut bytes, mut stored) = (0, 0);
    loop {
        let status = child.try_wait()?;
        let complete: Vec<PathBuf> = std::fs::read_dir(dir)?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.extension().is_none())
            .collect();
        let idle = complete.is_empty();
        for path in complete {
            let out = path.with_extension("zst");
            let mut file = File::create(&out)?;
            zstd::stream::copy_encode(File::open(&path)?, &mut file, 1)?;
            file.sync_all()?;
            bytes += path.metadata()?.len();
            stored += file.metadata()?.len();
            std::fs::remove_file(&path)?;
        }
        match status {
            Some(status) if status.success() && idle => return Ok((bytes, stored)),
            Some(status) if !status.success() => return Err(io::Error::other(format!("pg_receivewal: {status}"))),
            Some(_) => {}
            // Nothing is complete yet.
            None if idle => std::thread::park_timeout(Duration::from_millis(10)),
            None => {}
        }
    }
}
