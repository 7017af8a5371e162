//! Whether a part is what its list says: every file, every byte, as it passes.
//!
//! A part is given file by file, in any order and in pieces of any size. What is kept of a file is its name, length and
//! hash; only the three small files that are read (`checksums.txt`, `columns.txt`, `count.txt`) are kept whole, within
//! limits. The files in a `data.packed` are taken as if they came one by one. So a part of any size is verified in one pass, while it is on its way into a repository or out of it.
//!
//! Sources: `checkDataPart.cpp`, `IMergeTreeDataPart.cpp` (`getFileNamesWithoutChecksums`), `MergeTreeDataPartWide.cpp`.

mod columns;
mod facts;
mod judge;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

pub use columns::Column;
pub use facts::{Finding, PartFacts, PartFormat, Problem};

use super::checksums::{self, FileName};
use super::hash::FileHasher;
use super::packed::{self, Piece, Unpacker};
use super::{Error, Hash128};

/// How much of `columns.txt` is kept; a thousand columns have about 40 KB.
const MAX_COLUMNS: usize = 16 << 20;
/// How much of `count.txt` is kept; it has a number in it.
const MAX_COUNT: usize = 64;

/// Takes a part, file by file.
///
/// ```
/// use backup_clickhouse::part::verify::{Problem, Verifier};
///
/// let mut verifier = Verifier::new();
/// verifier.file("count.txt", 2);
/// verifier.bytes(b"40");
/// let facts = verifier.finish();
/// assert_eq!(facts.rows, Some(40));
/// // Nothing says that this is all, and what it has to be.
/// assert_eq!(facts.findings[0].path, "checksums.txt");
/// assert_eq!(facts.findings[0].problem, Problem::Missing);
/// ```
#[derive(Debug, Default)]
pub struct Verifier {
    part: Folder,
    projections: BTreeMap<FileName, Folder>,
    current: Option<Current>,
    packed: Option<Packed>,
    is_packed: bool,
    findings: Vec<Finding>,
    bytes: u64,
    files: u64,
}

/// The files of a part, or of a projection in it.
#[derive(Debug, Default)]
struct Folder {
    seen: BTreeMap<FileName, Seen>,
    list: Option<Kept>,
    columns: Option<Kept>,
    count: Option<Kept>,
}

/// What is known of a file that has passed.
#[derive(Debug)]
struct Seen {
    announced: u64,
    size: u64,
    hash: Hash128,
}

/// A small file as it is, unless it was too large.
type Kept = Result<Vec<u8>, Error>;

/// The file that is passing.
#[derive(Debug)]
struct Current {
    projection: Option<FileName>,
    name: FileName,
    announced: u64,
    size: u64,
    hasher: Box<FileHasher>,
    kept: Option<(&'static str, usize, Kept)>,
}

/// A file that has files in it, passing.
#[derive(Debug)]
struct Packed {
    projection: Option<FileName>,
    path: String,
    announced: u64,
    size: u64,
    /// `None` from where it could not be read on.
    unpacker: Option<Unpacker>,
}

impl Verifier {
    /// A part of which nothing is known.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins the next file and ends the one before. `path` is relative to the part and has `/` between its names;
    /// `length` is what the file system, or whoever brings the file, says. A path that no part has is a finding.
    pub fn file(&mut self, path: &str, length: u64) {
        self.end_file();
        self.files += 1;
        match place_of(path) {
            Ok((projection, name)) if name.as_str() == packed::NAME => {
                self.is_packed = true;
                let (path, unpacker) = (path.to_owned(), Some(Unpacker::new()));
                self.packed = Some(Packed { projection, path, announced: length, size: 0, unpacker });
            }
            Ok((projection, name)) => self.begin(projection, name, length),
            Err(error) => self.findings.push(Finding::new(path, Problem::Unreadable(error))),
        }
    }

    /// Takes the next bytes of the file that was begun last. Bytes before the first file are no file's, and ignored.
    pub fn bytes(&mut self, bytes: &[u8]) {
        if self.files > 0 {
            self.bytes += bytes.len() as u64;
        }
        let Some(mut packed) = self.packed.take() else { return self.feed(bytes) };
        packed.size += bytes.len() as u64;
        if let Some(unpacker) = &mut packed.unpacker {
            let unpacked = unpacker.push(bytes, &mut |piece| match piece {
                Piece::File(name, size) => self.begin(packed.projection.clone(), name, size),
                Piece::Bytes(bytes) => self.feed(bytes),
            });
            if let Err(error) = unpacked {
                self.findings.push(Finding::new(&packed.path, Problem::Unreadable(error)));
                packed.unpacker = None;
            }
        }
        self.packed = Some(packed);
    }

    /// Ends the part and says what was found.
    #[must_use]
    pub fn finish(mut self) -> PartFacts {
        self.end_file();
        judge::judge(self)
    }

    fn begin(&mut self, projection: Option<FileName>, name: FileName, announced: u64) {
        self.end();
        let kept = match name.as_str() {
            checksums::NAME => Some((checksums::NAME, checksums::MAX_LIST, Ok(Vec::new()))),
            columns::NAME => Some((columns::NAME, MAX_COLUMNS, Ok(Vec::new()))),
            judge::COUNT => Some((judge::COUNT, MAX_COUNT, Ok(Vec::new()))),
            _ => None,
        };
        let hasher = Box::new(FileHasher::new());
        self.current = Some(Current { projection, name, announced, size: 0, hasher, kept });
    }

    fn feed(&mut self, bytes: &[u8]) {
        let Some(current) = &mut self.current else { return };
        current.size += bytes.len() as u64;
        current.hasher.update(bytes);
        let Some((file, limit, kept)) = &mut current.kept else { return };
        match kept {
            Ok(whole) if whole.len() + bytes.len() <= *limit => whole.extend_from_slice(bytes),
            Ok(_) => *kept = Err(Error::TooLarge { file, limit: *limit as u64 }),
            Err(_) => {}
        }
    }

    /// Ends the file, and the one that it is in.
    fn end_file(&mut self) {
        self.end();
        let Some(Packed { path, announced, size, unpacker, .. }) = self.packed.take() else { return };
        if announced != size {
            self.findings.push(Finding::new(&path, Problem::CutOff { announced, found: size }));
        } else if let Some(Err(error)) = unpacker.map(|unpacker| unpacker.finish()) {
            self.findings.push(Finding::new(&path, Problem::Unreadable(error)));
        }
    }

    /// Ends the file.
    fn end(&mut self) {
        let Some(Current { projection, name, announced, size, hasher, kept }) = self.current.take() else { return };
        let path = path_of(projection.as_ref(), &name);
        let folder = match projection {
            Some(projection) => self.projections.entry(projection).or_default(),
            None => &mut self.part,
        };
        match folder.seen.entry(name) {
            Entry::Occupied(_) => self.findings.push(Finding::new(&path, Problem::Twice)),
            Entry::Vacant(place) => {
                place.insert(Seen { announced, size, hash: hasher.finish() });
                match kept {
                    Some((checksums::NAME, _, kept)) => folder.list = Some(kept),
                    Some((columns::NAME, _, kept)) => folder.columns = Some(kept),
                    Some((_, _, kept)) => folder.count = Some(kept),
                    None => {}
                }
            }
        }
    }
}

/// The projection, if the file is in one, and the name of the file.
fn place_of(path: &str) -> Result<(Option<FileName>, FileName), Error> {
    let Some((folder, name)) = path.split_once('/') else { return Ok((None, FileName::new(path)?)) };
    let folder = FileName::new(folder)?;
    if folder.projection().is_none() {
        return Err(Error::file_name(path, "a part has no folders but those of projections"));
    }
    Ok((Some(folder), FileName::new(name)?))
}

fn path_of(projection: Option<&FileName>, name: &FileName) -> String {
    projection.map_or_else(|| name.to_string(), |projection| format!("{projection}/{name}"))
}
