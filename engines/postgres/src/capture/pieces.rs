//! Pieces of files, in memory that is used again.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use backup_core::pool::Pool;
use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::io::Errno;

/// The largest piece, in bytes.
pub(super) const PIECE: usize = 1 << 20;
/// Pieces below this size are left to the allocator.
const SMALL: usize = 64 << 10;
/// So much memory is kept for later, at most: what a log writer holds on to, and some.
const KEPT: usize = 96;

/// Memory that nobody uses at the moment.
#[derive(Debug)]
pub(super) struct Pieces(Arc<Pool>);

impl Default for Pieces {
    fn default() -> Self {
        Self(Arc::new(Pool::new(KEPT, PIECE)))
    }
}

impl Pieces {
    /// The `len` bytes at `offset` of the file at `path`, at most [`PIECE`]. Blocking.
    ///
    /// # Errors
    /// `UnexpectedEof` when the file ends before.
    pub(super) fn read(&self, path: &Path, offset: u64, len: usize) -> io::Result<Bytes> {
        let file = File::open(path)?;
        let mut memory = if len < SMALL { Vec::with_capacity(len) } else { self.0.take(PIECE) };
        while memory.len() < len.min(PIECE) {
            let at = offset + memory.len() as u64;
            match rustix::io::pread(&file, spare_capacity(&mut memory), at) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        memory.truncate(len);
        Ok(if len < SMALL { memory.into() } else { self.0.lend(memory) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_what_the_file_has_and_their_memory_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let content: Vec<u8> = (0..3 * PIECE as u32 / 2).map(|n| (n % 251) as u8).collect();
        std::fs::write(&path, &content).unwrap();
        let pieces = Pieces::default();
        let first = pieces.read(&path, 7, PIECE).unwrap();
        assert_eq!(first, content[7..7 + PIECE]);
        let place = first.as_ptr();
        let part = first.slice(5..9);
        drop(first);
        let second = pieces.read(&path, 0, SMALL).unwrap();
        assert!(second.as_ptr() != place && second == content[..SMALL], "what is still read stays as it is");
        assert_eq!(part, content[12..16]);
        drop(part);
        let again = pieces.read(&path, PIECE as u64 / 2, PIECE).unwrap();
        assert!(again.as_ptr() == place && again == content[PIECE / 2..]);
        assert_eq!(pieces.read(&path, 3, 40).unwrap(), content[3..43]);
        for (offset, len) in [(content.len() as u64 - 10, 11), (1 << 40, 1), (PIECE as u64, PIECE)] {
            let error = pieces.read(&path, offset, len).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
        assert!(pieces.read(&dir.path().join("other"), 0, 1).is_err());
    }
}
