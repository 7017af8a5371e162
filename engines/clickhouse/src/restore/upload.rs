//! Puts what a server attaches onto an object disk: the bytes into objects of their own, and beside the server's metadata the files that lead there.
//!
//! Source: `DiskObjectStorageMetadata.cpp`, whose version 3 every server with such disks reads. Keys are random, so nothing is overwritten, and
//! from the moment at which its files appear the server owns what was put.

use std::path::{Path, PathBuf};

use backup_core::env::Env;
use backup_core::{Error, Result};
use futures::stream::{self, StreamExt, TryStreamExt};

use crate::files::{Owner, blocking, remove};
use crate::objects::Bucket;

/// Files that are put at the same time.
const FILES: usize = 4;
/// A name that no server attaches.
const BESIDE: &str = "tmp_backup_library_";

/// Puts the part in `from` where the server attaches it as `to`. What was put is deleted when the part does not become whole.
///
/// # Errors
/// [`Conflict`](backup_core::ErrorKind::Conflict) when something is there already; those of the disk and of the store.
///
/// # Cancel safety
/// Dropped, it leaves objects that nothing refers to.
pub(super) async fn part(bucket: &Bucket, env: &Env, from: &Path, to: &Path) -> Result<()> {
    let (own, target) = (from.to_owned(), to.to_owned());
    let (folders, files) = blocking(move || {
        if target.symlink_metadata().is_ok() {
            let text = format!("{} is there already: it is to be removed or attached first", target.display());
            return Err(Error::conflict(text));
        }
        let (mut folders, mut files) = (Vec::new(), Vec::new());
        list(&own, Path::new(""), &mut folders, &mut files)?;
        Ok((folders, files))
    })
    .await?;
    let keys = parking_lot::Mutex::new(Vec::new());
    let known = &keys;
    let outcome = async {
        // Futures that nobody polls cost nothing.
        let mut putting = Vec::new();
        for path in files {
            putting.push(async move {
                let key = Bucket::new_key(env);
                known.lock().push(key.clone());
                let text = file(bucket, &key, &from.join(&path)).await?;
                Ok::<_, Error>((path, text))
            });
        }
        let leading: Vec<_> = stream::iter(putting).buffer_unordered(FILES).try_collect().await?;
        let to = to.to_owned();
        blocking(move || appear(&to, &folders, &leading)).await
    };
    let outcome = outcome.await;
    if outcome.is_err() {
        for key in keys.into_inner() {
            bucket.forget(&key).await;
        }
    }
    outcome
}

/// Puts one file as the server's `to`.
///
/// # Errors
/// Those of the disk and of the store.
pub(super) async fn one(bucket: &Bucket, env: &Env, content: &[u8], to: &Path) -> Result<()> {
    let key = Bucket::new_key(env);
    let len = bucket.put(&key, content).await?;
    let (own, text) = (to.to_owned(), leading(&key, len));
    let outcome = blocking(move || {
        let home = own.parent().ok_or_else(|| Error::internal("a file has no folder above it"))?;
        std::fs::write(&own, text).map_err(|error| Error::io(own.display(), error))?;
        Owner::of(home)?.own(&own)
    });
    let outcome = outcome.await;
    if outcome.is_err() {
        bucket.forget(&key).await;
    }
    outcome
}

/// Puts the bytes of a file, if it has any; what leads to them.
async fn file(bucket: &Bucket, key: &str, path: &Path) -> Result<String> {
    let failed = |error| Error::io(path.display(), error);
    let body = tokio::fs::File::open(path).await.map_err(failed)?;
    if body.metadata().await.map_err(failed)?.len() == 0 {
        return Ok("3\n0\t0\n0\n0\n".to_owned());
    }
    Ok(leading(key, bucket.put(key, body).await?))
}

/// What leads to one object.
fn leading(key: &str, len: u64) -> String {
    format!("3\n1\t{len}\n{len}\t{key}\n0\n0\n")
}

/// The folders and files in a folder, by their paths in it. Blocking.
fn list(root: &Path, below: &Path, folders: &mut Vec<PathBuf>, files: &mut Vec<PathBuf>) -> Result<()> {
    let dir = root.join(below);
    let failed = |error| Error::io(dir.display(), error);
    for entry in std::fs::read_dir(&dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = below.join(entry.file_name());
        if entry.file_type().map_err(failed)?.is_dir() {
            folders.push(path.clone());
            list(root, &path, folders, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

/// Makes the folder `to` with files that lead to objects, as one piece. Blocking.
fn appear(to: &Path, folders: &[PathBuf], files: &[(PathBuf, String)]) -> Result<()> {
    let home = to.parent().ok_or_else(|| Error::internal("a part has no folder above it"))?;
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    let beside = home.join(format!("{BESIDE}{name}"));
    let failed = |error| Error::io(beside.display(), error);
    remove(&beside)?;
    std::fs::create_dir_all(&beside).map_err(failed)?;
    for folder in folders {
        std::fs::create_dir_all(beside.join(folder)).map_err(failed)?;
    }
    for (path, text) in files {
        let file = beside.join(path);
        std::fs::write(&file, text)
            .and_then(|()| std::fs::File::open(&file)?.sync_all())
            .map_err(|error| Error::io(file.display(), error))?;
    }
    Owner::of(home)?.own(&beside)?;
    std::fs::rename(&beside, to).map_err(|error| Error::io(to.display(), error))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::objects::{ObjectDisk, Objects};
    use crate::part::ObjectMetadata;
    use crate::server::{Disk, Place};

    fn bucket() -> Bucket {
        let disk = Disk { name: "s3".to_owned(), path: "/s3/".to_owned(), dir: "/s3".into(), place: Place::Objects };
        let objects = Objects::open(&BTreeMap::from([("s3".to_owned(), ObjectDisk::new("memory:///a/b/"))])).unwrap();
        objects.of(&[], &disk).unwrap().clone()
    }

    #[tokio::test]
    async fn what_appears_leads_to_what_was_put() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("staged"), dir.path().join("detached/all_1_1_0"));
        std::fs::create_dir_all(from.join("p.proj")).unwrap();
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        for (name, content) in [("data.bin", "12345"), ("empty", ""), ("p.proj/data.bin", "678")] {
            std::fs::write(from.join(name), content).unwrap();
        }
        let (bucket, env) = (bucket(), Env::system());
        part(&bucket, &env, &from, &to).await.unwrap();
        for (name, content) in [("data.bin", "12345"), ("empty", ""), ("p.proj/data.bin", "678")] {
            let leading = ObjectMetadata::parse(&std::fs::read(to.join(name)).unwrap()).unwrap();
            assert_eq!((leading.version, leading.references), (3, 0));
            assert_eq!(bucket.whole(&leading, 9).await.unwrap().unwrap(), content, "{name}");
        }
        assert_eq!(std::fs::read_dir(to.parent().unwrap()).unwrap().count(), 1);
        let error = part(&bucket, &env, &from, &to).await.unwrap_err();
        assert_eq!(error.kind(), backup_core::ErrorKind::Conflict);
        one(&bucket, &env, b"what", &dir.path().join("mutation_1.txt")).await.unwrap();
        let leading = ObjectMetadata::parse(&std::fs::read(dir.path().join("mutation_1.txt")).unwrap()).unwrap();
        assert_eq!(bucket.whole(&leading, 9).await.unwrap().unwrap(), "what");
    }
}
