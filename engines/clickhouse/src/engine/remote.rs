//! Parts on object disks: the snapshot has files that say in which objects the bytes are, and the objects stay as long as it does.
//!
//! What is said of the files of a part holds for the bytes in the objects, and they are stored as if they had been files of this machine.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use backup_core::{Error, Result};
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use parking_lot::Mutex;

use super::frozen::{COUNT, Content, DEEPEST, FrozenPart, PartFile, UNLISTED, listed, missing};
use crate::files::blocking;
use crate::objects::{Bucket, Missing, file_len};
use crate::part::checksums::{MAX_LIST, NAME};
use crate::part::hash::FileHasher;
use crate::part::object::ObjectMetadata;
use crate::part::{Checksums, Hash128};

/// A file that leads to objects has at most so many bytes.
const MAX_METADATA: u64 = 16 << 20;
/// The number of rows has at most so many digits.
const MAX_COUNT: u64 = 64;

/// The files of a part, or of a projection in it.
#[derive(Debug, Default)]
struct Level {
    files: BTreeMap<String, (PathBuf, Arc<ObjectMetadata>)>,
    /// Everything that is there, also what cannot be read.
    seen: BTreeSet<String>,
}

/// Lists a part and reads its list, and the files that are in none.
///
/// # Errors
/// Those of the disk and of the store.
pub(super) async fn read(part: &FrozenPart, bucket: &Bucket) -> Result<Content> {
    let mut content = Content::of(part);
    let dir = part.dir.clone();
    let (levels, wrong) = blocking(move || {
        let (mut levels, mut wrong) = (BTreeMap::new(), Vec::new());
        walk(&dir, "", 0, &mut levels, &mut wrong)?;
        Ok((levels, wrong))
    })
    .await?;
    content.wrong.extend(wrong);
    for (below, level) in levels {
        let own = level.files.get(NAME).map(|(_, objects)| objects);
        let bytes = match own {
            Some(objects) if file_len(objects) <= MAX_LIST as u64 => {
                bucket.whole(objects, MAX_LIST as u64).await?.map_err(|Missing(why)| why)
            }
            Some(objects) => Err(format!("{} bytes are more than any list has", file_len(objects))),
            None => Err("it is not there".to_owned()),
        };
        let list = bytes.clone().and_then(|bytes| Checksums::parse(&bytes).map_err(|error| error.to_string()));
        if let Err(why) = &list {
            content.wrong.push(format!("{below}{NAME}: {why}"));
        }
        let list = list.ok();
        if let (Some(list), true) = (&list, below.is_empty()) {
            content.record.hash = list.hash_of_all_files().to_string();
        }
        if let (Some((_, objects)), true) = (level.files.get(COUNT), below.is_empty())
            && file_len(objects) <= MAX_COUNT
            && let Ok(text) = bucket.whole(objects, MAX_COUNT).await?
        {
            content.record.rows = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok());
        }
        content.wrong.extend(list.iter().flat_map(|list| missing(list, &below, &level.seen)));
        for (name, (path, objects)) in level.files {
            let (len, listed) = (file_len(&objects), listed(list.as_ref(), &name));
            let known = match (&listed, name == NAME) {
                (_, true) => bytes.clone().ok(),
                (None, false) if len <= UNLISTED => match bucket.whole(&objects, UNLISTED).await? {
                    Ok(bytes) => Some(bytes),
                    Err(Missing(why)) => {
                        content.wrong.push(format!("{below}{name}: {why}"));
                        continue;
                    }
                },
                _ => None,
            };
            let name = format!("{below}{name}");
            content.files.push(PartFile { name, path, objects: Some(objects), len, listed, content: known });
        }
    }
    Ok(content.counted())
}

/// Reads what leads to the objects of a folder, and of the folders in it. Blocking.
fn walk(
    dir: &Path,
    below: &str,
    depth: usize,
    levels: &mut BTreeMap<String, Level>,
    wrong: &mut Vec<String>,
) -> Result<()> {
    if depth >= DEEPEST {
        return Err(Error::damaged(format!("{} lies deeper than anything in a part", dir.display())));
    }
    let failed = |error| Error::io(dir.display(), error);
    let mut level = Level::default();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let text = |name: std::ffi::OsString| Error::damaged(format!("{}: a file is called {name:?}", dir.display()));
        let name = entry.file_name().into_string().map_err(text)?;
        level.seen.insert(name.clone());
        if entry.file_type().map_err(failed)?.is_dir() {
            walk(&entry.path(), &format!("{below}{name}/"), depth + 1, levels, wrong)?;
            continue;
        }
        match metadata(&entry.path())? {
            Ok(objects) => {
                level.files.insert(name, (entry.path(), Arc::new(objects)));
            }
            Err(why) => wrong.push(format!("{below}{name}: {why}")),
        }
    }
    levels.insert(below.to_owned(), level);
    Ok(())
}

/// Reads a file that leads to objects; says what is wrong with it. Blocking.
pub(super) fn metadata(path: &Path) -> Result<Result<ObjectMetadata, String>> {
    let failed = |error| Error::io(path.display(), error);
    let facts = std::fs::symlink_metadata(path).map_err(failed)?;
    if !facts.is_file() || facts.len() > MAX_METADATA {
        return Ok(Err(format!("leads to no objects: it has {} bytes, or is no file", facts.len())));
    }
    let bytes = std::fs::read(path).map_err(failed)?;
    Ok(ObjectMetadata::parse(&bytes).map_err(|error| error.to_string()))
}

/// What was found out about the bytes of a file while they were read.
#[derive(Debug, Clone, Default)]
pub(super) struct Verdict {
    other: Arc<AtomicBool>,
    missing: Arc<Mutex<Option<String>>>,
}

impl Verdict {
    /// Whether its bytes are other ones than the list says.
    pub(super) fn is_other(&self) -> bool {
        self.other.load(Ordering::Relaxed)
    }

    /// What of it is not there.
    pub(super) fn missing(&self) -> Option<String> {
        self.missing.lock().clone()
    }
}

/// The bytes of a file's objects. Where they are not what `expected` says, or not there, the stream ends with an error and the verdict tells.
pub(super) fn body(
    bucket: &Bucket,
    objects: &ObjectMetadata,
    expected: Option<(u64, Hash128)>,
) -> (BoxStream<'static, Result<Bytes>>, Verdict) {
    let verdict = Verdict::default();
    let (found, end) = (verdict.clone(), verdict.clone());
    let hasher = Arc::new(Mutex::new((0_u64, FileHasher::new())));
    let seen = Arc::clone(&hasher);
    let pieces = bucket.read(objects).map(move |piece| match piece? {
        Ok(bytes) => {
            if expected.is_some() {
                let (len, hasher) = &mut *seen.lock();
                *len += bytes.len() as u64;
                hasher.update(&bytes);
            }
            Ok(bytes)
        }
        Err(Missing(why)) => {
            *found.missing.lock() = Some(why.clone());
            Err(Error::damaged(why))
        }
    });
    let last = stream::once(async move {
        let (len, hasher) = std::mem::take(&mut *hasher.lock());
        if expected.is_some_and(|expected| expected != (len, hasher.finish())) {
            end.other.store(true, Ordering::Relaxed);
            return Err(Error::damaged("its objects are not what its list says"));
        }
        Ok(Bytes::new())
    });
    (pieces.chain(last).boxed(), verdict)
}
