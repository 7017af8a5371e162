//! Reading a manifest: one entry by its path, or all of them in order.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::entry::{EntryPath, Selector};
use futures::stream::{self, BoxStream, StreamExt};

use super::{ManifestEntry, PartRef};
use crate::error::{Error, Result};

/// Fetches parts of a manifest.
#[async_trait]
pub(crate) trait PartSource: Debug + Send + Sync {
    /// The entries of `part`, in the order in which they stand.
    async fn part(&self, part: &PartRef) -> Result<Arc<Vec<ManifestEntry>>>;
}

/// The entries in the plaintext of `part`.
///
/// # Errors
/// Damaged, when they are not readable, not sorted or not as many as the root says.
pub(crate) fn decode_part(part: &PartRef, plaintext: &[u8]) -> Result<Vec<ManifestEntry>> {
    let damaged = |why: &str| Error::damaged(format!("the manifest part that begins with {} {why}", part.first));
    let mut decoder = minicbor::Decoder::new(plaintext);
    let mut entries: Vec<ManifestEntry> = Vec::new();
    while decoder.position() < plaintext.len() {
        entries.push(decoder.decode().map_err(|e| damaged("is not readable").with_source(e))?);
    }
    if entries.len() != part.entries as usize || entries.first().is_none_or(|e| e.meta.path != part.first) {
        return Err(damaged("does not have the entries that the root lists"));
    }
    if !entries.is_sorted_by(|a, b| a.meta.path < b.meta.path) {
        return Err(damaged("is not sorted"));
    }
    Ok(entries)
}

/// A manifest whose parts come from a [`PartSource`].
#[derive(Debug)]
pub(crate) struct ManifestReader {
    source: Arc<dyn PartSource>,
    /// The parts of each run, in order.
    runs: Vec<Vec<PartRef>>,
}

/// Where the merge stands in one run.
#[derive(Debug)]
struct Cursor {
    run: usize,
    next_part: usize,
    part: Arc<Vec<ManifestEntry>>,
    at: usize,
}

impl ManifestReader {
    /// A reader of `parts`.
    ///
    /// # Errors
    /// Damaged, when the parts of a run are not in order.
    pub(crate) fn new(parts: Vec<PartRef>, source: Arc<dyn PartSource>) -> Result<Self> {
        let mut runs: Vec<Vec<PartRef>> = Vec::new();
        for part in parts {
            let run = part.run as usize;
            if run == runs.len() {
                runs.push(vec![part]);
            } else if run + 1 == runs.len() && runs[run].last().is_some_and(|before| before.first < part.first) {
                runs[run].push(part);
            } else {
                return Err(Error::damaged("the parts of a manifest are not in order"));
            }
        }
        Ok(Self { source, runs })
    }

    /// Every part, runs in order, parts in order.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &PartRef> {
        self.runs.iter().flatten()
    }

    /// Whether there is an entry inside of `folder`.
    pub(crate) async fn has_within(&self, folder: &EntryPath) -> Result<bool> {
        // The first path inside sorts behind every name that merely begins alike.
        let mut least = folder.as_bytes().to_vec();
        least.push(b'/');
        for run in &self.runs {
            // The part that `least` would stand in, and the one behind it.
            let at = run.partition_point(|part| part.first.as_bytes() < &least[..]).saturating_sub(1);
            for part in run.iter().skip(at).take(2) {
                let entries = self.source.part(part).await?;
                let next = entries.partition_point(|e| e.meta.path.as_bytes() < &least[..]);
                if let Some(entry) = entries.get(next) {
                    if entry.meta.path.is_within(folder.as_bytes()) {
                        return Ok(true);
                    }
                    break;
                }
            }
        }
        Ok(false)
    }

    /// The entry at `path`, if there is one.
    pub(crate) async fn get(&self, path: &EntryPath) -> Result<Option<ManifestEntry>> {
        self.look(path, ManifestEntry::clone).await
    }

    /// What `what` sees in the entry at `path`, if there is one.
    pub(crate) async fn look<T>(&self, path: &EntryPath, what: impl Fn(&ManifestEntry) -> T) -> Result<Option<T>> {
        for run in &self.runs {
            let after = run.partition_point(|part| part.first <= *path);
            let Some(part) = after.checked_sub(1).map(|at| &run[at]) else { continue };
            let entries = self.source.part(part).await?;
            if let Ok(at) = entries.binary_search_by(|e| e.meta.path.cmp(path)) {
                return Ok(Some(what(&entries[at])));
            }
        }
        Ok(None)
    }

    /// The entries of `selector`, sorted by path.
    pub(crate) fn entries(&self, selector: Selector) -> BoxStream<'_, Result<ManifestEntry>> {
        let state: Option<Vec<Cursor>> = None;
        stream::try_unfold((state, selector), move |(cursors, selector)| async move {
            let mut cursors = match cursors {
                Some(cursors) => cursors,
                None => self.begin().await?,
            };
            loop {
                let path = |at: &usize| &cursors[*at].part[cursors[*at].at].meta.path;
                let least = (0..cursors.len()).min_by(|a, b| path(a).cmp(path(b)));
                let Some(least) = least else { return Ok(None) };
                let cursor = &mut cursors[least];
                let entry = &cursor.part[cursor.at];
                let chosen = selector.matches(&entry.meta.path).then(|| entry.clone());
                if !self.advance(cursor).await? {
                    cursors.swap_remove(least);
                }
                if let Some(entry) = chosen {
                    return Ok(Some((entry, (Some(cursors), selector))));
                }
            }
        })
        .boxed()
    }

    async fn begin(&self) -> Result<Vec<Cursor>> {
        let mut cursors = Vec::with_capacity(self.runs.len());
        for (run, parts) in self.runs.iter().enumerate() {
            if let Some(first) = parts.first() {
                let part = self.source.part(first).await?;
                cursors.push(Cursor { run, next_part: 1, part, at: 0 });
            }
        }
        Ok(cursors)
    }

    /// Goes to the next entry; false at the end of the run.
    async fn advance(&self, cursor: &mut Cursor) -> Result<bool> {
        cursor.at += 1;
        if cursor.at < cursor.part.len() {
            return Ok(true);
        }
        let Some(next) = self.runs[cursor.run].get(cursor.next_part) else { return Ok(false) };
        cursor.part = self.source.part(next).await?;
        cursor.next_part += 1;
        cursor.at = 0;
        Ok(true)
    }
}
