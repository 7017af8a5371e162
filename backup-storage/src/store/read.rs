//! Reads. A read returns exactly the bytes that were asked for, or an error.

use std::ops::Range;

use bytes::Bytes;
use futures::StreamExt;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, GetResult, GetResultPayload};

use crate::error::{Error, Result};

use super::list::{ObjectMeta, timestamp};
use super::metrics::Op;
use super::request::{Failure, within};
use super::{ObjectName, Store};

/// How much is allocated on the word of a store alone.
const TRUSTED_LEN: u64 = 64 << 20;
/// Reads below this size are left to the allocator.
const LARGE: u64 = 1 << 20;
/// So many buffers are kept for further reads: what a restore has in flight with the usual settings.
pub(super) const BUFFERS: usize = 6;
/// Larger buffers are not kept.
pub(super) const LARGEST: usize = 40 << 20;

impl Store {
    /// The whole object.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Damaged`](crate::error::ErrorKind::Damaged) for an object above `max_object_len`;
    /// [`Unavailable`](crate::error::ErrorKind::Unavailable) when the retries are used up.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect, as for all reads here.
    pub async fn get(&self, name: &ObjectName) -> Result<Bytes> {
        let path = self.path(name.as_str())?;
        self.retrying(Op::Get, path.as_ref(), || async { Ok(self.fetch(&path, None).await?.0) }).await
    }

    /// The bytes of `range`, all of them. An empty range is answered without a request.
    ///
    /// # Errors
    /// As [`Store::get`]; [`Error::Truncated`] when the object ends before the range does.
    pub async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes> {
        let path = self.path(name.as_str())?;
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        self.retrying(Op::Get, path.as_ref(), || async {
            match self.fetch(&path, Some(GetRange::Bounded(range.clone()))).await {
                Ok((bytes, total)) if range.end <= total => Ok(bytes),
                Ok((_, total)) => Err(truncated(&path, &range, total)),
                Err(failure) => Err(self.explain(&path, failure, &range).await),
            }
        })
        .await
    }

    /// The bytes of every range, in the order of `ranges`. Close ranges are fetched together and far ones in parallel.
    ///
    /// # Errors
    /// As [`Store::get_range`].
    pub async fn get_ranges(&self, name: &ObjectName, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let path = self.path(name.as_str())?;
        let wanted: Vec<Range<u64>> = ranges.iter().filter(|range| !range.is_empty()).cloned().collect();
        let bytes: u64 = wanted.iter().map(|range| range.end - range.start).fold(0, u64::saturating_add);
        let Some(widest) = wanted.iter().max_by_key(|range| range.end).cloned() else {
            return Ok(vec![Bytes::new(); ranges.len()]);
        };
        let requests = separate(&wanted);
        let call = || async {
            let shared = &self.shared;
            self.pay_download(bytes).await;
            shared.counters.of(Op::Get).also(requests - 1);
            let get = shared.inner.get_ranges(&path, &wanted);
            let parts = match within(shared.settings.deadline(bytes), get).await? {
                Ok(parts) => parts,
                Err(error) => return Err(self.explain(&path, error.into(), &widest).await),
            };
            let got: u64 = parts.iter().map(|part| part.len() as u64).sum();
            shared.counters.of(Op::Get).bytes(got);
            if parts.len() != wanted.len() || parts.iter().zip(&wanted).any(|(p, r)| p.len() as u64 != r.end - r.start)
            {
                let short = Failure::Short { got, promised: bytes };
                return Err(self.explain(&path, short, &widest).await);
            }
            Ok(parts)
        };
        let mut parts = self.retrying(Op::Get, path.as_ref(), call).await?.into_iter();
        Ok(ranges.iter().map(|range| if range.is_empty() { None } else { parts.next() }.unwrap_or_default()).collect())
    }

    /// The last `len` bytes, fewer if the object is shorter, and the length of the whole object.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub async fn get_suffix(&self, name: &ObjectName, len: u64) -> Result<(Bytes, u64)> {
        let path = self.path(name.as_str())?;
        self.retrying(Op::Get, path.as_ref(), || async {
            if len > 0 {
                match self.fetch(&path, Some(GetRange::Suffix(len))).await {
                    Ok((bytes, total)) if bytes.len() as u64 == len.min(total) => return Ok((bytes, total)),
                    Ok((bytes, total)) => {
                        return Err(Failure::Short { got: bytes.len() as u64, promised: len.min(total) });
                    }
                    Err(failure) if failure.is_not_found() => return Err(failure),
                    // Azure has no suffix ranges, and S3 answers 416 for an empty object: both are settled by the size.
                    Err(failure) => tracing::debug!(%path, ?failure, "suffix read failed, asking for the size"),
                }
            }
            let total = self.size(&path).await?;
            let start = total.saturating_sub(len);
            if start == total {
                return Ok((Bytes::new(), total));
            }
            let (bytes, _) = self.fetch(&path, Some(GetRange::Bounded(start..total))).await?;
            Ok((bytes, total))
        })
        .await
    }

    /// Size and age of an object; `None` when there is none.
    ///
    /// # Errors
    /// [`Unavailable`](crate::error::ErrorKind::Unavailable) when the retries are used up,
    /// [`Environment`](crate::error::ErrorKind::Environment) without permission.
    pub async fn head(&self, name: &ObjectName) -> Result<Option<ObjectMeta>> {
        let path = self.path(name.as_str())?;
        self.retrying(Op::Head, path.as_ref(), || async {
            match self.meta(&path).await {
                Ok(meta) => {
                    let last_modified = timestamp(&meta);
                    Ok(Some(ObjectMeta { name: name.clone(), size: meta.size, last_modified }))
                }
                Err(failure) if failure.is_not_found() => match failure.into_error(Op::Head, path.as_ref()) {
                    Error::NotFound { .. } => Ok(None),
                    error => Err(Failure::Final(error)),
                },
                Err(failure) => Err(failure),
            }
        })
        .await
    }

    async fn meta(&self, path: &Path) -> Result<object_store::ObjectMeta, Failure> {
        let options = GetOptions { head: true, ..GetOptions::default() };
        let get = self.shared.inner.get_opts(path, options);
        Ok(within(self.shared.settings.stall_timeout, get).await??.meta)
    }

    /// The size, asked for within another request.
    async fn size(&self, path: &Path) -> Result<u64, Failure> {
        self.shared.counters.of(Op::Head).also(1);
        Ok(self.meta(path).await?.size)
    }

    /// The object if it has exactly `len` bytes; the body of any other is not even read.
    pub(super) async fn fetch_if_len(&self, path: &Path, len: u64) -> Result<Option<Bytes>, Failure> {
        let get = self.shared.inner.get_opts(path, GetOptions::default());
        let result = within(self.shared.settings.stall_timeout, get).await??;
        if result.meta.size != len {
            return Ok(None);
        }
        self.pay_download(len).await;
        self.body(result).await.map(Some)
    }

    /// A range or everything, and the size of the whole object.
    async fn fetch(&self, path: &Path, range: Option<GetRange>) -> Result<(Bytes, u64), Failure> {
        if let Some(GetRange::Bounded(range)) = &range {
            self.pay_download(range.end - range.start).await;
        }
        let bounded = matches!(range, Some(GetRange::Bounded(_)));
        let options = GetOptions { range, ..GetOptions::default() };
        let result = within(self.shared.settings.stall_timeout, self.shared.inner.get_opts(path, options)).await??;
        let total = result.meta.size;
        let len = result.range.end.saturating_sub(result.range.start);
        let limit = self.shared.settings.max_object_len;
        if len > limit {
            return Err(Failure::Final(Error::damaged(format!(
                "get {path}: {len} bytes are above the limit of {limit}"
            ))));
        }
        if !bounded {
            self.pay_download(len).await;
        }
        Ok((self.body(result).await?, total))
    }

    /// Reads the announced body, each piece within the stall timeout and all of it within the deadline.
    async fn body(&self, result: GetResult) -> Result<Bytes, Failure> {
        let settings = &self.shared.settings;
        let promised = result.range.end.saturating_sub(result.range.start);
        let bytes = within(settings.deadline(promised), async {
            match result.payload {
                GetResultPayload::Stream(mut stream) => {
                    let mut first = Bytes::new();
                    let mut all = Vec::new();
                    while let Some(chunk) = within(settings.stall_timeout, stream.next()).await? {
                        let chunk = chunk?;
                        if first.is_empty() && all.is_empty() {
                            // One chunk is the usual case in memory and for small ranges: it is passed on without a copy.
                            first = chunk;
                            continue;
                        }
                        if all.is_empty() {
                            all = self.buffer(promised);
                            all.extend_from_slice(&std::mem::take(&mut first));
                        }
                        all.extend_from_slice(&chunk);
                        if all.len() as u64 > promised {
                            break;
                        }
                    }
                    Ok::<Bytes, Failure>(if all.is_empty() { first } else { self.lend(all) })
                }
                // A file is read in one piece on a blocking thread; as a stream it would come in pieces of 8 KiB.
                #[cfg(feature = "fs")]
                GetResultPayload::File(file, _) => {
                    let (mut buffer, start) = (self.buffer(promised), result.range.start);
                    let read = tokio::task::spawn_blocking(move || {
                        use std::io::{Read, Seek, SeekFrom};
                        let mut file = file;
                        file.seek(SeekFrom::Start(start))?;
                        file.take(promised).read_to_end(&mut buffer)?;
                        Ok::<_, std::io::Error>(buffer)
                    });
                    let read = read
                        .await
                        .map_err(|e| Failure::Final(Error::internal("reading a file panicked").with_source(e)))?;
                    // Told as the store itself would.
                    let failed = |e| object_store::Error::Generic { store: "LocalFileSystem", source: Box::new(e) };
                    Ok(self.lend(read.map_err(failed)?))
                }
            }
        })
        .await??;
        self.shared.counters.of(Op::Get).bytes(bytes.len() as u64);
        if bytes.len() as u64 != promised {
            return Err(Failure::Short { got: bytes.len() as u64, promised });
        }
        Ok(bytes)
    }

    /// An empty buffer for an object that is said to have `promised` bytes.
    fn buffer(&self, promised: u64) -> Vec<u8> {
        let len = usize::try_from(promised.min(TRUSTED_LEN)).unwrap_or(0);
        if promised < LARGE { Vec::with_capacity(len) } else { self.shared.pool.take(len) }
    }

    fn lend(&self, buffer: Vec<u8>) -> Bytes {
        if (buffer.len() as u64) < LARGE { buffer.into() } else { self.shared.pool.lend(buffer) }
    }

    /// Why a range could not be read: stores have no common error for a range past the end, so the size decides.
    async fn explain(&self, path: &Path, failure: Failure, range: &Range<u64>) -> Failure {
        if !failure.is_transient() {
            return failure;
        }
        match self.size(path).await {
            Ok(total) if range.end > total => truncated(path, range, total),
            Err(missing) if missing.is_not_found() => missing,
            _ => failure,
        }
    }

    async fn pay_download(&self, bytes: u64) {
        if let Some(limit) = &self.shared.download {
            limit.pay(bytes, &**self.shared.env.clock()).await;
        }
    }
}

/// How many requests the client makes of some ranges, none of them empty: those that are close come together.
fn separate(ranges: &[Range<u64>]) -> u64 {
    let mut sorted: Vec<&Range<u64>> = ranges.iter().collect();
    sorted.sort_unstable_by_key(|range| range.start);
    let (mut requests, mut end) = (0, None);
    for range in sorted {
        if end.is_none_or(|end: u64| range.start.saturating_sub(end) > object_store::OBJECT_STORE_COALESCE_DEFAULT) {
            requests += 1;
        }
        end = Some(end.map_or(range.end, |end| end.max(range.end)));
    }
    requests
}

fn truncated(path: &Path, range: &Range<u64>, len: u64) -> Failure {
    Failure::Final(Error::Truncated { name: path.to_string(), start: range.start, end: range.end, len })
}
