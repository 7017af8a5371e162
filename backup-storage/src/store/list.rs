//! Listings, sorted by name whatever the store does.

use std::collections::VecDeque;

use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use object_store::path::Path;

use crate::error::{Error, Result};

use super::metrics::Op;
use super::name;
use super::request::{Backoff, Failure, within};
use super::{ObjectName, Store};

/// What a store knows of an object besides its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObjectMeta {
    /// The name, relative to the store that was asked.
    pub name: ObjectName,
    /// Length in bytes.
    pub size: u64,
    /// When the store took the object, by the store's clock, which may be wrong.
    pub last_modified: Timestamp,
}

pub(super) fn timestamp(meta: &object_store::ObjectMeta) -> Timestamp {
    let (seconds, nanos) = (meta.last_modified.timestamp(), meta.last_modified.timestamp_subsec_nanos());
    // A leap second counts more than 10^9 nanoseconds in chrono.
    let nanos = i32::try_from(nanos.min(999_999_999)).unwrap_or(0);
    Timestamp::new(seconds, nanos).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// How a listing proceeds.
struct Cursor {
    store: Store,
    folder: Option<Path>,
    /// The last object seen: a broken listing goes on behind it.
    last: Option<Path>,
    pages: Option<BoxStream<'static, object_store::Result<object_store::ObjectMeta>>>,
    backoff: Backoff,
}

impl Store {
    /// All objects in the folder `folder` (in whole components; empty for everything), sorted by name.
    ///
    /// Objects whose names are not [`ObjectName`]s are not ours and are left out. On stores that list in order the stream is
    /// lazy; on others (local disk) all names are gathered and sorted first.
    ///
    /// # Errors
    /// The stream ends after its first error: [`InvalidInput`](crate::error::ErrorKind::InvalidInput) for a bad folder,
    /// otherwise those of the store after its retries.
    pub fn list(&self, folder: &str) -> BoxStream<'static, Result<ObjectMeta>> {
        self.list_from(folder, None)
    }

    /// As [`Store::list`], but only names greater than `after`.
    pub fn list_after(&self, folder: &str, after: &ObjectName) -> BoxStream<'static, Result<ObjectMeta>> {
        self.list_from(folder, Some(after))
    }

    fn list_from(&self, folder: &str, after: Option<&ObjectName>) -> BoxStream<'static, Result<ObjectMeta>> {
        let cursor = match self.cursor(folder, after) {
            Ok(cursor) => cursor,
            Err(error) => return stream::once(async { Err(error) }).boxed(),
        };
        if self.shared.traits.sorted_listing {
            return stream::try_unfold(cursor, |mut cursor| async {
                Ok(cursor.next().await?.map(|meta| (meta, cursor)))
            })
            .boxed();
        }
        stream::once(cursor.gather()).map_ok(|all| stream::iter(all).map(Ok)).try_flatten().boxed()
    }

    fn cursor(&self, folder: &str, after: Option<&ObjectName>) -> Result<Cursor> {
        Ok(Cursor {
            folder: self.folder(folder)?,
            last: after.map(|name| self.path(name.as_str())).transpose()?,
            store: self.clone(),
            pages: None,
            backoff: Backoff::new(),
        })
    }

    fn folder(&self, folder: &str) -> Result<Option<Path>> {
        if !folder.is_empty() {
            name::check(folder)?;
        }
        let path = self.path(folder)?;
        Ok(if path.as_ref().is_empty() { None } else { Some(path) })
    }

    /// The names of the folders directly inside `folder`, sorted. All in memory: some hundred bytes each.
    ///
    /// # Errors
    /// As [`Store::list`].
    pub async fn list_dirs(&self, folder: &str) -> Result<Vec<String>> {
        let path = self.folder(folder)?;
        let full = self.full(folder);
        let call = || async {
            let list = self.shared.inner.list_with_delimiter(path.as_ref());
            // Large folders come in many pages, and only the whole listing returns: one more stall is granted per million names
            // by the deadline of a body of 1 GiB.
            Ok(within(self.shared.settings.deadline(1 << 30), list).await??)
        };
        let found = self.retrying(Op::List, &full, call).await?;
        let names = found.common_prefixes.iter().filter_map(Path::filename);
        let mut names: Vec<String> = names.filter(|part| name::check(part).is_ok()).map(str::to_owned).collect();
        self.shared.counters.of(Op::List).bytes(names.len() as u64);
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// The names of the objects directly inside `folder` that are greater than `after`, sorted. All in memory: some hundred bytes each.
    ///
    /// On local disk this reads the directory and nothing of the files, so it is fast also where the folder has very many.
    ///
    /// # Errors
    /// As [`Store::list`].
    pub(crate) async fn names_after(&self, folder: &str, after: &ObjectName) -> Result<Vec<ObjectName>> {
        #[cfg(feature = "fs")]
        if let Some(names) = self.local_names(folder).await? {
            let mut names: Vec<_> = names.into_iter().filter(|name| name > after).collect();
            names.sort_unstable();
            return Ok(names);
        }
        self.list_after(folder, after).map_ok(|object| object.name).try_collect().await
    }

    /// The name relative to this store; `None` for objects that are not ours.
    fn relative(&self, path: &Path) -> Option<ObjectName> {
        let full = path.as_ref();
        let rest = if self.prefix.is_empty() { full } else { full.strip_prefix(&*self.prefix)?.strip_prefix('/')? };
        ObjectName::new(rest).ok()
    }
}

impl Cursor {
    /// The next object of ours in the store's own order, across retries.
    async fn next(&mut self) -> Result<Option<ObjectMeta>> {
        loop {
            let Some(meta) = self.next_any().await? else { return Ok(None) };
            if self.last.as_ref().is_some_and(|last| meta.location <= *last) {
                let message = format!("list {}: {} came out of order", self.place(), meta.location);
                return Err(Error::internal(message));
            }
            self.last = Some(meta.location.clone());
            if let Some(meta) = self.ours(&meta) {
                return Ok(Some(meta));
            }
        }
    }

    async fn next_any(&mut self) -> Result<Option<object_store::ObjectMeta>> {
        loop {
            let failure = match self.poll().await {
                Ok(meta) => return Ok(meta),
                Err(failure) => failure,
            };
            self.pages = None;
            if !failure.is_transient() || !self.backoff.wait(&self.store.shared, Op::List).await {
                return Err(failure.into_error(Op::List, &self.place()));
            }
        }
    }

    /// One step of the listing, opening it first. Takes no request slot: a consumer may need one between two steps.
    async fn poll(&mut self) -> Result<Option<object_store::ObjectMeta>, Failure> {
        let shared = &self.store.shared;
        let opened = self.pages.is_none();
        let pages = self.pages.get_or_insert_with(|| match &self.last {
            Some(last) => shared.inner.list_with_offset(self.folder.as_ref(), last),
            None => shared.inner.list(self.folder.as_ref()),
        });
        let start = shared.env.clock().monotonic();
        let step = within(shared.settings.stall_timeout, pages.next()).await;
        let counters = shared.counters.of(Op::List);
        if opened {
            let failed = !matches!(step, Ok(None | Some(Ok(_))));
            counters.request(shared.env.clock().monotonic().saturating_sub(start), failed);
        }
        match step? {
            None => Ok(None),
            Some(meta) => {
                let meta = meta?;
                counters.bytes(1);
                // Progress gives a long listing its full patience back.
                self.backoff = Backoff::new();
                Ok(Some(meta))
            }
        }
    }

    /// Everything, sorted. A broken listing starts over, since an unsorted one has no place to go on from.
    async fn gather(mut self) -> Result<VecDeque<ObjectMeta>> {
        let mut attempts = Backoff::new();
        'whole: loop {
            let mut all = Vec::new();
            loop {
                match self.poll().await {
                    Ok(Some(meta)) => all.extend(self.ours(&meta)),
                    Ok(None) => {
                        all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
                        return Ok(all.into());
                    }
                    Err(failure) => {
                        self.pages = None;
                        if !failure.is_transient() || !attempts.wait(&self.store.shared, Op::List).await {
                            return Err(failure.into_error(Op::List, &self.place()));
                        }
                        continue 'whole;
                    }
                }
            }
        }
    }

    fn ours(&self, meta: &object_store::ObjectMeta) -> Option<ObjectMeta> {
        let Some(name) = self.store.relative(&meta.location) else {
            tracing::debug!(path = %meta.location, "an object that is not ours lies in the store");
            return None;
        };
        Some(ObjectMeta { name, size: meta.size, last_modified: timestamp(meta) })
    }

    fn place(&self) -> String {
        self.folder.as_ref().map_or_else(|| "/".to_owned(), Path::to_string)
    }
}
