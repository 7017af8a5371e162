//! A part in a snapshot: which files it has, and what its own list says of them.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup_core::entry::ContentIdentity;
use backup_core::{Error, Result};
use bytes::Bytes;

use super::record::PartRecord;
use crate::files::read_list;
use crate::part::checksums::NAME;
use crate::part::hash::FileHasher;
use crate::part::object::ObjectMetadata;
use crate::part::{Checksums, Hash128, PartName};
use crate::server::TableKey;

/// The number of rows.
pub(super) const COUNT: &str = "count.txt";
/// Files up to this length are read once, as a whole: what is hashed is what is stored. Longer ones would make memory grow with the cores.
const WHOLE: u64 = 256 << 10;
/// Of files that are in no list, those up to this length are read together with the list. They are shorter, but for lists of many files.
pub(super) const UNLISTED: u64 = 64 << 10;
/// Folders in parts are projections, which have none inside.
pub(super) const DEEPEST: usize = 2;

/// Where a part is in the snapshot.
#[derive(Debug, Clone)]
pub(super) struct FrozenPart {
    pub(super) table: TableKey,
    pub(super) disk: String,
    pub(super) name: PartName,
    pub(super) dir: PathBuf,
}

/// A file of a part.
#[derive(Debug, Clone)]
pub(super) struct PartFile {
    /// Its path in the part.
    pub(super) name: String,
    /// Where it is on this machine; of one on an object disk, what leads to its objects.
    pub(super) path: PathBuf,
    /// In which objects its bytes are, where they are in no file.
    pub(super) objects: Option<Arc<ObjectMetadata>>,
    pub(super) len: u64,
    /// What the list says of it: bytes and hash. Some files are in no list.
    pub(super) listed: Option<(u64, Hash128)>,
    /// Its bytes, where they were read because no list says what they are.
    pub(super) content: Option<Bytes>,
}

impl PartFile {
    /// By what the same content is known again: its length and hash, as the server has them or would have them. A file whose length is
    /// another one is damaged and is not known by them.
    pub(super) fn identity(&self) -> Result<Option<ContentIdentity>> {
        let (len, hash) = match (&self.content, self.listed) {
            (Some(content), _) => (content.len() as u64, hash_of(content)),
            (None, Some((len, hash))) if len == self.len => (len, hash),
            _ => return Ok(None),
        };
        let mut bytes = b"clickhouse-1".to_vec();
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(&hash.to_bytes());
        ContentIdentity::new(bytes).map(Some)
    }

    /// Whether its content is what the list says, and the content if it is short. Blocking.
    pub(super) fn verified(&self) -> Result<(bool, Option<Bytes>)> {
        let Some((len, hash)) = self.listed else { return Ok((true, None)) };
        if self.len > WHOLE {
            return Ok((len == self.len && hash == hash_of_file(&self.path)?, None));
        }
        let content = whole(&self.path, self.len)?;
        Ok((len == content.len() as u64 && hash == hash_of(&content), Some(content)))
    }
}

fn hash_of(bytes: &[u8]) -> Hash128 {
    let mut hasher = FileHasher::new();
    hasher.update(bytes);
    hasher.finish()
}

/// The hash of a file's content. Blocking.
fn hash_of_file(path: &Path) -> Result<Hash128> {
    let failed = |error| Error::io(path.display(), error);
    let mut file = File::open(path).map_err(failed)?;
    let mut hasher = FileHasher::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => return Ok(hasher.finish()),
            read => hasher.update(buffer.get(..read).unwrap_or_default()),
        }
    }
}

/// A file that had `len` bytes, at most [`WHOLE`], when it was listed. Blocking.
fn whole(path: &Path, len: u64) -> Result<Bytes> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Error::conflict(format!("{} vanished: somebody removed the snapshot", path.display()))
        }
        _ => Error::io(path.display(), error),
    };
    let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or_default() + 1);
    // One more, so that a file that grows is not taken for what it was.
    File::open(path).map_err(failed)?.take(len + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 != len {
        return Err(Error::conflict(format!("{} changed while it was read", path.display())));
    }
    Ok(Bytes::from(bytes))
}

/// The number of rows of the part in `dir`, where it says it. Blocking.
pub(super) fn rows_of(dir: &Path) -> Option<u64> {
    std::fs::read_to_string(dir.join(COUNT)).ok().and_then(|text| text.trim().parse().ok())
}

/// What is in a part.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) record: PartRecord,
    pub(super) files: Vec<PartFile>,
    /// Files that are listed and are not there, and a list that cannot be read.
    pub(super) wrong: Vec<String>,
}

impl FrozenPart {
    /// Lists it and reads its list. Blocking.
    pub(super) fn read(&self) -> Result<Content> {
        let mut content = Content::of(self);
        if let Some(list) = level(&self.dir, "", 0, &mut content)? {
            content.record.hash = list.hash_of_all_files().to_string();
        }
        content.record.rows = rows_of(&self.dir);
        Ok(content.counted())
    }
}

impl Content {
    /// Nothing yet.
    pub(super) fn of(part: &FrozenPart) -> Self {
        Self {
            record: PartRecord { name: part.name.to_string(), disk: part.disk.clone(), ..PartRecord::default() },
            files: Vec::new(),
            wrong: Vec::new(),
        }
    }

    /// With the sums of its files, which are in order then.
    pub(super) fn counted(mut self) -> Self {
        self.files.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        self.record.bytes = self.files.iter().map(|file| file.len).sum();
        self.record.files = self.files.len() as u64;
        self
    }
}

/// What a list says of a file that it has.
pub(super) fn listed(list: Option<&Checksums>, name: &str) -> Option<(u64, Hash128)> {
    let listed = list?.get(name).map(|sum| (sum.size, sum.hash));
    // Inverted indexes of 23.x and 24.x are listed with nought for length and hash.
    listed.filter(|(size, hash)| *size > 0 || *hash != Hash128::new(0, 0) || !name.contains(".gin_"))
}

/// What a list names and is not among the `seen`.
pub(super) fn missing(list: &Checksums, below: &str, seen: &BTreeSet<String>) -> Vec<String> {
    let missing = list.iter().filter(|(name, _)| !seen.contains(name.as_str()));
    missing.map(|(name, _)| format!("{below}{} is listed and missing", name.as_str())).collect()
}

/// Reads a folder of a part: the part itself, or a projection in it.
fn level(dir: &Path, below: &str, depth: usize, content: &mut Content) -> Result<Option<Checksums>> {
    if depth >= DEEPEST {
        return Err(Error::damaged(format!("{} lies deeper than anything in a part", dir.display())));
    }
    let failed = |error| Error::io(dir.display(), error);
    let list = list_of(dir, below, &mut content.wrong)?;
    let mut seen = BTreeSet::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let text = |name: std::ffi::OsString| Error::damaged(format!("{}: a file is called {name:?}", dir.display()));
        let name = entry.file_name().into_string().map_err(text)?;
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() {
            level(&entry.path(), &format!("{below}{name}/"), depth + 1, content)?;
            seen.insert(name);
        } else if kind.is_file() {
            let listed = listed(list.as_ref(), &name);
            let len = entry.metadata().map_err(failed)?.len();
            let path = entry.path();
            let bytes = if listed.is_none() && len <= UNLISTED { Some(whole(&path, len)?) } else { None };
            content.files.push(PartFile {
                name: format!("{below}{name}"),
                path,
                objects: None,
                len,
                listed,
                content: bytes,
            });
            seen.insert(name);
        } else {
            content.wrong.push(format!("{below}{name} is neither a file nor a folder"));
        }
    }
    if let Some(list) = &list {
        content.wrong.extend(missing(list, below, &seen));
    }
    Ok(list)
}

fn list_of(dir: &Path, below: &str, wrong: &mut Vec<String>) -> Result<Option<Checksums>> {
    Ok(match read_list(dir)? {
        Some(Ok(list)) => Some(list),
        Some(Err(error)) => {
            wrong.push(format!("{below}{NAME}: {error}"));
            None
        }
        None => {
            wrong.push(format!("{below}{NAME} is missing"));
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part_file(dir: &Path, content: &[u8]) -> PartFile {
        let path = dir.join("data.bin");
        std::fs::write(&path, content).unwrap();
        let (len, listed) = (content.len() as u64, Some((content.len() as u64, hash_of(content))));
        PartFile { name: "data.bin".to_owned(), path, objects: None, len, listed, content: None }
    }

    #[test]
    fn what_is_hashed_is_what_is_stored() {
        let dir = tempfile::tempdir().unwrap();
        for (len, read) in [(0, true), (5, true), (WHOLE as usize, true), (WHOLE as usize + 1, false)] {
            let mut content = vec![7; len];
            let file = part_file(dir.path(), &content);
            let expected = read.then(|| Bytes::from(content.clone()));
            assert_eq!(file.verified().unwrap(), (true, expected), "{len} bytes");
            let Some(byte) = content.get_mut(len / 2) else { continue };
            *byte ^= 1;
            std::fs::write(&file.path, &content).unwrap();
            let found = read.then(|| Bytes::from(content));
            assert_eq!(file.verified().unwrap(), (false, found), "{len} bytes, one of them another");
        }
    }

    #[test]
    fn a_file_of_another_length_than_it_had_is_not_taken_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = part_file(dir.path(), b"12345");
        for other in ["1234", "123456"] {
            std::fs::write(&file.path, other).unwrap();
            assert_eq!(file.verified().unwrap_err().kind(), backup_core::ErrorKind::Conflict, "{other}");
        }
        std::fs::remove_file(&file.path).unwrap();
        assert_eq!(file.verified().unwrap_err().kind(), backup_core::ErrorKind::Conflict);
    }

    #[test]
    fn what_is_in_no_list_is_known_by_what_it_holds() {
        let dir = tempfile::tempdir().unwrap();
        let listed = part_file(dir.path(), b"12345");
        let unlisted = |content: &'static [u8]| PartFile {
            listed: None,
            content: Some(Bytes::from_static(content)),
            ..listed.clone()
        };
        assert_eq!(unlisted(b"12345").identity().unwrap(), listed.identity().unwrap());
        assert_ne!(unlisted(b"12346").identity().unwrap(), listed.identity().unwrap());
        let unread = PartFile { listed: None, ..listed.clone() };
        assert_eq!(unread.identity().unwrap(), None);
        let damaged = PartFile { len: 4, ..listed };
        assert_eq!(damaged.identity().unwrap(), None);
    }
}
