//! The objects of one disk.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use backup_core::env::Env;
use backup_core::{Error, Result};
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::buffered::BufWriter;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::io::AsyncWriteExt;
use url::Url;

use crate::part::object::ObjectMetadata;

/// So many bytes are asked for at a time: a request that breaks costs no more than that, and is repeated by the client.
const PIECE: u64 = 8 << 20;
/// Requests of one file that are under way.
const AHEAD: usize = 2;
/// Bytes from which on an object is put in parts.
const PART: usize = 8 << 20;

/// A disk's objects: where they are, and by what client they are reached.
#[derive(Clone)]
pub(crate) struct Bucket {
    disk: Arc<str>,
    place: Arc<str>,
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    /// Whether any object was there.
    seen: Arc<AtomicBool>,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket").field("disk", &self.disk).field("place", &self.place).finish_non_exhaustive()
    }
}

/// An object that the metadata names and the store does not have as the metadata says: which, and what is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Missing(pub(crate) String);

impl Bucket {
    pub(super) fn new(disk: &str, url: &Url, store: Arc<dyn ObjectStore>, prefix: Path) -> Self {
        // Whatever a url may hold beside the place is nobody's business.
        let place = format!("{}://{}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path());
        Self { disk: disk.into(), place: place.into(), store, prefix, seen: Arc::default() }
    }

    /// The bytes of a file, in pieces of at most 8 MiB.
    ///
    /// # Errors
    /// Inner: an object is not there, or is shorter than it is to be; the stream ends with that. Outer:
    /// [`Environment`](backup_core::ErrorKind::Environment) where the store lets us not read, or not one object was ever there;
    /// [`Unavailable`](backup_core::ErrorKind::Unavailable) when it does not answer.
    pub(crate) fn read(&self, file: &ObjectMetadata) -> BoxStream<'static, Result<Result<Bytes, Missing>>> {
        if file.objects.is_empty() {
            let inline = Bytes::from(file.inline.clone());
            return stream::once(async { Ok(Ok(inline)) }).boxed();
        }
        let mut pieces = Vec::new();
        for object in &file.objects {
            let key = file.key_of(object, self.prefix.as_ref());
            let mut from = 0;
            while from < object.size {
                let to = object.size.min(from + PIECE);
                pieces.push((key.clone(), from..to));
                from = to;
            }
        }
        let bucket = self.clone();
        let fetch = move |(key, range)| {
            let bucket = bucket.clone();
            async move { bucket.piece(key, range).await }
        };
        stream::iter(pieces).map(fetch).buffered(AHEAD).boxed()
    }

    /// All bytes of a file of at most `limit`.
    ///
    /// # Errors
    /// As [`read`](Self::read); a file that is longer is [`Damaged`](backup_core::ErrorKind::Damaged).
    pub(crate) async fn whole(&self, file: &ObjectMetadata, limit: u64) -> Result<Result<Bytes, Missing>> {
        if file_len(file) > limit {
            let text =
                format!("a file of {} bytes on the disk {}, where {limit} are the most", file_len(file), self.disk);
            return Err(Error::damaged(text));
        }
        let mut all = Vec::new();
        let mut pieces = self.read(file);
        while let Some(piece) = pieces.try_next().await? {
            match piece {
                Ok(piece) => all.extend_from_slice(&piece),
                Err(missing) => return Ok(Err(missing)),
            }
        }
        Ok(Ok(all.into()))
    }

    async fn piece(&self, key: String, range: Range<u64>) -> Result<Result<Bytes, Missing>> {
        // Of a disk whose objects are files a key is an absolute path.
        let path = Path::parse(&key).map_err(|error| self.failed("is no key", &key, error.into()))?;
        let wanted = range.end - range.start;
        match self.store.get_range(&path, range).await {
            Ok(bytes) => {
                self.seen.store(true, Ordering::Relaxed);
                let short = Missing(format!("its object {key} is shorter than it is to be"));
                Ok(if bytes.len() as u64 == wanted { Ok(bytes) } else { Err(short) })
            }
            Err(object_store::Error::NotFound { .. }) if self.seen.load(Ordering::Relaxed) => {
                Ok(Err(Missing(format!("its object {key} is not there"))))
            }
            Err(error @ object_store::Error::NotFound { .. }) => {
                let text = format!(
                    "the object {key}, which the disk {} has, is not in {}: its address may be another one",
                    self.disk, self.place
                );
                Err(Error::environment(text).with_source(error))
            }
            Err(error) => Err(self.failed("cannot be read", &key, error)),
        }
    }

    fn failed(&self, what: &str, key: &str, error: object_store::Error) -> Error {
        use object_store::Error as Store;
        let text = format!("the object {key} of the disk {} {what} in {}: {error}", self.disk, self.place);
        let refused =
            matches!(error, Store::PermissionDenied { .. } | Store::Unauthenticated { .. } | Store::InvalidPath { .. });
        if refused { Error::environment(text) } else { Error::unavailable(text) }.with_source(error)
    }

    /// A key that no object has: as servers make them, behind the prefix of the disk.
    pub(crate) fn new_key(env: &Env) -> String {
        let random: [u8; 32] = env.random();
        let mut letters: String = random.iter().map(|byte| char::from(b'a' + byte % 26)).collect();
        letters.insert(3, '/');
        letters
    }

    /// Puts the bytes of `body`, and returns how many there were.
    ///
    /// # Errors
    /// [`Environment`](backup_core::ErrorKind::Environment) where the store lets us not write, and for errors of `body`;
    /// [`Unavailable`](backup_core::ErrorKind::Unavailable) when it does not answer.
    pub(crate) async fn put(&self, key: &str, mut body: impl tokio::io::AsyncRead + Unpin + Send) -> Result<u64> {
        let path = self.path(key);
        let mut writer = BufWriter::with_capacity(Arc::clone(&self.store), path, PART).with_max_concurrency(AHEAD);
        let outcome = match tokio::io::copy(&mut body, &mut writer).await {
            // What has gone wrong here has given up the upload itself.
            Ok(written) => writer.shutdown().await.map(|()| written),
            Err(error) => {
                if let Err(error) = writer.abort().await {
                    tracing::warn!(key, %error, "an upload that was given up is left to the store's own rules");
                }
                Err(error)
            }
        };
        outcome.map_err(|error| {
            use object_store::Error as Store;
            let text = format!("the object {key} of the disk {} cannot be put in {}: {error}", self.disk, self.place);
            let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<Store>());
            let away = cause.is_some_and(|cause| {
                !matches!(
                    cause,
                    Store::PermissionDenied { .. } | Store::Unauthenticated { .. } | Store::NotFound { .. }
                )
            });
            if away { Error::unavailable(text) } else { Error::environment(text) }.with_source(error)
        })
    }

    /// Deletes an object that [`put`](Self::put) has made and nothing refers to.
    pub(crate) async fn forget(&self, key: &str) {
        match self.store.delete(&self.path(key)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => {
                tracing::warn!(key, disk = %self.disk, %error, "an object of a restore that was given up is left");
            }
        }
    }

    fn path(&self, key: &str) -> Path {
        self.prefix.parts().chain(Path::from(key).parts()).collect()
    }
}

/// How many bytes a file has.
pub(crate) fn file_len(file: &ObjectMetadata) -> u64 {
    if file.objects.is_empty() { file.inline.len() as u64 } else { file.size }
}

#[cfg(test)]
mod tests {
    use backup_core::ErrorKind;
    use object_store::memory::InMemory;

    use super::*;

    fn bucket() -> Bucket {
        let url = Url::parse("memory:///disk/one/").unwrap();
        Bucket::new("s3", &url, Arc::new(InMemory::new()), Path::from("disk/one"))
    }

    fn file(objects: &[(&str, usize)]) -> ObjectMetadata {
        let sum: usize = objects.iter().map(|(_, size)| size).sum();
        let lines: String = objects.iter().map(|(key, size)| format!("{size}\t{key}\n")).collect();
        ObjectMetadata::parse(format!("3\n{}\t{sum}\n{lines}0\n0\n", objects.len()).as_bytes()).unwrap()
    }

    #[tokio::test]
    async fn what_was_put_is_read_over_all_objects_of_a_file() {
        let (bucket, key) = (bucket(), Bucket::new_key(&Env::system()));
        assert_eq!((key.len(), key.find('/')), (33, Some(3)));
        let long: Vec<u8> = (0..PIECE as usize + 7).map(|at| (at % 251) as u8).collect();
        assert_eq!(bucket.put(&key, long.as_slice()).await.unwrap(), long.len() as u64);
        assert_eq!(bucket.put("abc/def", b"short".as_slice()).await.unwrap(), 5);
        let both = file(&[("abc/def", 5), (&key, long.len())]);
        let read = bucket.whole(&both, 64 << 20).await.unwrap().unwrap();
        assert_eq!(read, [b"short".as_slice(), &long].concat());
        assert_eq!(bucket.whole(&both, 10).await.unwrap_err().kind(), ErrorKind::Damaged);
        let full = ObjectMetadata::parse(b"5\n1\t5\n5\tdisk/one/abc/def\n0\n0\n\n").unwrap();
        assert_eq!(bucket.whole(&full, 10).await.unwrap().unwrap(), "short");
        let inline = ObjectMetadata::parse(b"4\n0\t3\n0\n0\nabc\n").unwrap();
        assert_eq!((bucket.whole(&inline, 3).await.unwrap().unwrap(), file_len(&inline)), (Bytes::from("abc"), 3));
    }

    #[tokio::test]
    async fn a_wrong_address_is_told_from_an_object_that_is_lost() {
        let bucket = bucket();
        let lost = file(&[("abc/lost", 5)]);
        let error = bucket.whole(&lost, 9).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Environment);
        assert!(
            error.to_string().contains("disk/one/abc/lost") && error.to_string().contains("memory:///disk/one"),
            "{error}"
        );
        bucket.put("abc/def", b"short".as_slice()).await.unwrap();
        bucket.whole(&file(&[("abc/def", 5)]), 9).await.unwrap().unwrap();
        let Missing(told) = bucket.whole(&lost, 9).await.unwrap().unwrap_err();
        assert!(told.contains("disk/one/abc/lost is not there"), "{told}");
        let Missing(told) = bucket.whole(&file(&[("abc/def", 6)]), 9).await.unwrap().unwrap_err();
        assert!(told.contains("shorter"), "{told}");
        bucket.forget("abc/def").await;
        bucket.whole(&file(&[("abc/def", 5)]), 9).await.unwrap().unwrap_err();
    }
}
