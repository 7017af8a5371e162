//! What an earlier writer has acknowledged and not sent.
//!
//! 1. Before anybody takes a number: pieces whose writer was given no end yet are put under the names that they were sealed for. Then
//!    whoever gives it an end, this process or another, finds them.
//! 2. Afterwards, what counts is removed here. The rest lies beyond an end that was given in the meantime, or behind a piece that is
//!    lost: it is opened, compared with what is stored of its range, and stored again, whole, by a writer that imports. Its bytes keep
//!    their offsets, moments and names.
//!
//! Bytes that are stored otherwise are a conflict, and nothing is removed: two histories have one name, and only a person can tell which
//! one is true. A file that is not authentic is set aside under another name with a warning, for a person too; the log has a hole there,
//! which shows. The word of a source that nothing happened is not worth storing again.
//!
//! One piece at a time is in memory while it is compared, and as many as are put at a time.

use std::sync::Arc;

use backup_core::catalog::Catalog;
use backup_core::engine::{LogOptions, LogSink, LogSource};
use backup_core::log::{LineageRecord, LogIndex, LogPurpose, LogRange, Mark};
use backup_core::{ErrorKind, Lineage};
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::folder::Folder;
use super::name::SpoolName;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::fetch::{Scratches, blocking};
use crate::journal::Journal;
use crate::log::object::{Opened, open_whole};
use crate::log::writer::LogWriter;
use crate::log::writer::open::{Enrolled, MAX_PIECE, abreast, room};
use crate::log::{LogCache, LogReader, Stored};
use crate::store::Created;

/// No piece that a writer has sealed is larger, in bytes. A larger file is not read.
const LARGEST: u64 = 2 * MAX_PIECE;

/// The pieces that lie in a folder.
pub(in crate::log::writer) struct Leftovers {
    folder: Arc<Folder>,
    scratches: Arc<Scratches>,
    pieces: Vec<Leftover>,
}

struct Leftover {
    name: SpoolName,
    file: String,
    len: u64,
    /// It is in the vault under its own name.
    sent: bool,
}

impl Leftovers {
    /// Sends what lies in `folder` and belongs to writers that have no end yet.
    ///
    /// # Errors
    /// Those of the store and of the journal; Environment for the folder.
    pub(in crate::log::writer) async fn send(
        context: &Context,
        journal: &Journal<Catalog>,
        folder: &Arc<Folder>,
    ) -> Result<Self> {
        let mut left = Self { folder: Arc::clone(folder), scratches: Arc::default(), pieces: Vec::new() };
        let found = find(folder).await?;
        if found.is_empty() {
            return Ok(left);
        }
        let (generation, catalog) = journal.refresh_placed().await?;
        let goes_on = |name: &SpoolName| {
            let writer = catalog.log().writer(name.piece.epoch);
            name.generation == generation && writer.is_some_and(|writer| writer.ends.is_none())
        };
        let largest = found.iter().map(|left| left.len).max().unwrap_or(0).clamp(1, LARGEST);
        let abreast = abreast(context).min(usize::try_from(room(context) / largest).unwrap_or(1)).max(1);
        let this = &left;
        let sending = stream::iter(found).map(|piece| {
            let goes_on = goes_on(&piece.name);
            async move { if goes_on { this.send_one(context, piece).await } else { Ok(Some(piece)) } }
        });
        // In order, and no more at a time than a writer may have on their way.
        let pieces: Vec<_> =
            sending.buffered(abreast).try_filter_map(|sent| std::future::ready(Ok(sent))).try_collect().await?;
        left.pieces = pieces;
        Ok(left)
    }

    /// Puts a piece, unless it is damaged.
    async fn send_one(&self, context: &Context, mut left: Leftover) -> Result<Option<Leftover>> {
        let Some((bytes, _)) = self.open(context, &left).await? else { return Ok(None) };
        let name = left.name.piece.name(&left.name.lineage)?;
        left.sent = match context.store.create(&name, bytes).await? {
            Created::New | Created::AlreadyOurs => true,
            // Whatever has taken the name; the bytes are compared later.
            Created::Conflict => false,
        };
        Ok(Some(left))
    }

    /// Makes everything count that was acknowledged. `stored` is what counts, with the writers before at their ends. Whether something
    /// was stored that it does not know of.
    ///
    /// # Errors
    /// Conflict, when the bytes of a range are stored otherwise; those of the store and of the journal; Environment for the folder.
    pub(in crate::log::writer) async fn settle(
        self,
        cache: &Arc<LogCache>,
        journal: &Arc<Journal<Catalog>>,
        stored: &Stored,
    ) -> Result<bool> {
        let reader = LogReader::new(Arc::clone(cache), Arc::clone(journal), stored);
        let (mut import, mut again) = (None, Vec::new());
        for left in &self.pieces {
            let SpoolName { lineage, piece, .. } = &left.name;
            if left.sent && stored.counts(lineage, piece) {
                self.remove(&left.file).await?;
                continue;
            }
            let Some((_, opened)) = self.open(cache.context(), left).await? else { continue };
            let content = Bytes::from(opened.content.concat());
            if self.is_stored(stored, &reader, left, &content).await? {
                self.remove(&left.file).await?;
                continue;
            }
            let import = match &import {
                Some(import) => import,
                None => import.insert(importer(cache, journal).await?),
            };
            if self.store_again(cache, stored, import, left, &opened, content).await? {
                again.push(&left.file);
            }
        }
        let Some(import) = import else { return Ok(false) };
        import.close().await?;
        for file in &again {
            self.remove(file).await?;
        }
        tracing::info!(dir = %self.folder.dir().display(), pieces = again.len(), "what an earlier writer left was stored again");
        Ok(true)
    }

    /// Whether everything in `left` is stored, or need not be.
    async fn is_stored(&self, stored: &Stored, reader: &LogReader, left: &Leftover, content: &Bytes) -> Result<bool> {
        let SpoolName { lineage, piece, .. } = &left.name;
        if piece.is_empty() || piece.end <= stored.state().expired_before(lineage) {
            return Ok(true);
        }
        let ledger = reader.ledger();
        let covered = ledger.covered(lineage);
        let (mut at, mut whole) = (piece.start, true);
        while at < piece.end {
            let known = covered.containing(at).map(|known| known.end.min(piece.end));
            let Some(end) = known else {
                whole = false;
                at = covered.next_from(at).map_or(piece.end, |next| next.start.min(piece.end));
                continue;
            };
            let own = content.slice((at - piece.start) as usize..(end - piece.start) as usize);
            let range = LogRange::new(lineage.clone(), at..end);
            match is_same(reader, range, &own).await {
                Ok(true) => {}
                Ok(false) => {
                    let (from, to) = (ledger.position(lineage, at), ledger.position(lineage, end));
                    let file = self.folder.dir().join(&left.file);
                    return Err(Error::conflict(format!(
                        "the log of lineage {lineage} between {from} and {to} is stored with other bytes than file {} has: \
                         two histories have one name",
                        file.display()
                    )));
                }
                Err(error) if error.kind() == ErrorKind::Damaged => {
                    tracing::warn!(%error, "log that cannot be read is stored again from the spool");
                    whole = false;
                }
                Err(error) => return Err(error),
            }
            at = end;
        }
        Ok(whole)
    }

    /// Hands a piece to `import`. False when nobody knows its lineage.
    async fn store_again(
        &self,
        cache: &LogCache,
        stored: &Stored,
        import: &LogWriter,
        left: &Leftover,
        opened: &Opened,
        content: Bytes,
    ) -> Result<bool> {
        let SpoolName { lineage, piece, .. } = &left.name;
        let sheet = opened.object.sheet();
        if import.ledger().lineage(lineage).is_none() {
            let record = match sheet.record.clone() {
                Some(record) => Some(record),
                None => described(cache, stored, lineage).await?,
            };
            let Some(record) = record else {
                let (range, file) = (piece.range(lineage), self.folder.dir().join(&left.file));
                tracing::warn!(%range, file = %file.display(), "nobody knows the lineage of a piece of log: it stays in the spool");
                return Ok(false);
            };
            import.declare(record).await?;
        }
        import.append(piece.range(lineage), content, &marks(&sheet.index, piece.end)).await?;
        Ok(true)
    }

    /// Reads and decodes a piece. None when it is not what was written: then it was set aside.
    async fn open(&self, context: &Context, left: &Leftover) -> Result<Option<(Bytes, Opened)>> {
        let (folder, file, len) = (Arc::clone(&self.folder), left.file.clone(), left.len);
        let (keyring, scratches) = (context.keyring.clone(), Arc::clone(&self.scratches));
        let (name, range) = (left.name.piece.name(&left.name.lineage)?, left.name.piece.range(&left.name.lineage));
        blocking(move || {
            let opened = if len > LARGEST {
                Err(Error::damaged(format!("it has {len} bytes")))
            } else {
                let bytes = Bytes::from(folder.read(&file).map_err(|e| folder.failed("read", e))?);
                open_whole(&keyring, &name, &bytes, &scratches).map(|opened| (bytes, opened))
            };
            match opened {
                Err(error) if error.kind() == ErrorKind::Damaged => {
                    let aside = folder.set_aside(&file).map_err(|e| folder.failed("move a file of", e))?;
                    tracing::warn!(%error, %range, file = %aside.display(), "a piece of log in the spool is damaged and was set aside");
                    Ok(None)
                }
                outcome => outcome.map(Some),
            }
        })
        .await
    }

    async fn remove(&self, file: &str) -> Result<()> {
        let (folder, file) = (Arc::clone(&self.folder), file.to_owned());
        blocking(move || folder.remove(&file).map_err(|e| folder.failed("remove from", e))).await
    }
}

/// The pieces in `folder`, in the order in which they were written. A warning names what else is there.
async fn find(folder: &Arc<Folder>) -> Result<Vec<Leftover>> {
    let folder = Arc::clone(folder);
    blocking(move || {
        let warn = |path: &std::path::Path| {
            tracing::warn!(path = %path.display(), "something in the spool is no piece of log: it is left alone");
        };
        let found = folder.list(warn).map_err(|e| folder.failed("list", e))?;
        let left = found.into_iter().map(|(name, len)| Ok(Leftover { file: name.file()?, name, len, sent: false }));
        left.collect()
    })
    .await
}

async fn importer(cache: &Arc<LogCache>, journal: &Arc<Journal<Catalog>>) -> Result<LogWriter> {
    let options = LogOptions::of(LogPurpose::Import);
    let enrolled = Enrolled::enroll(cache.context(), journal, options.purpose).await?;
    enrolled.start(Arc::clone(cache), Arc::clone(journal), &options, None)
}

/// Whether `range` is stored as `own`.
async fn is_same(reader: &LogReader, range: LogRange, own: &[u8]) -> Result<bool> {
    let (mut stored, mut rest) = (reader.read(range), own);
    while let Some(bytes) = stored.try_next().await? {
        let Some(behind) = rest.strip_prefix(&*bytes) else { return Ok(false) };
        rest = behind;
    }
    Ok(rest.is_empty())
}

/// What the first stored object of some writer in `lineage` says of it.
async fn described(cache: &LogCache, stored: &Stored, lineage: &Lineage) -> Result<Option<LineageRecord>> {
    let mut known = None;
    for listed in stored.pieces.get(lineage).into_iter().flatten() {
        if known.replace(listed.piece.epoch) == Some(listed.piece.epoch) {
            continue;
        }
        match cache.object(&cache.context().store, lineage, listed).await {
            Ok(object) if object.sheet().record.is_some() => return Ok(object.sheet().record.clone()),
            Err(error) if error.kind() != ErrorKind::Damaged => return Err(error),
            _ => {}
        }
    }
    Ok(None)
}

/// What was noticed in a piece that ends at `end`.
fn marks(index: &LogIndex, end: u64) -> Vec<Mark> {
    let commits = index.samples.iter().map(|sample| Mark::Commit { offset: sample.offset, at: sample.at });
    let names = index.names.iter();
    let names = names.map(|point| Mark::Name { offset: point.offset, name: point.name.clone(), at: point.at });
    let notes = index.notes.iter().map(|note| Mark::Note { offset: note.offset, bytes: note.bytes.clone().into() });
    let word = index.as_of.map(|as_of| Mark::AsOf { offset: end, at: as_of.0 });
    commits.chain(names).chain(notes).chain(word).collect()
}
