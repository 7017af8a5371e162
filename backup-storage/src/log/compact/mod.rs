//! Compaction: many small pieces of log become few large ones.
//!
//! A day of capture at a piece per second is 86 400 objects, each of which costs a request when it is listed or read. Coverage is a
//! union, so a larger piece with the same bytes replaces them without an event of its own:
//!
//! ```text
//! list ─▶ LogOpened ─▶ read, merge, store, read back … ─▶ LogSealed ─▶ delete what was replaced
//! ```
//! Nothing is deleted before a commit that follows the piece which replaces it, so a listing during which nothing was committed has seen
//! one or the other. Killed anywhere, this leaves log that is stored twice. The next run finds it by its names.
//!
//! Pieces are merged where no way through the log begins or ends: not across a hole, a cut, or the place where another lineage was
//! forked. The index of the new piece tells what theirs told.

mod merge;
mod plan;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use backup_core::catalog::{Catalog, Event};
use backup_core::engine::Work;
use backup_core::log::{LogEpoch, LogPurpose};
use backup_core::observe::{Phase, Unit};
use backup_core::{Finding, Lineage, Severity};
use futures::StreamExt;
use futures::stream;
use jiff::{SignedDuration, Timestamp};

use super::name::Piece;
use super::stored::{Listed, Stored};
use super::{LogCache, object};
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::fetch::blocking;
use crate::journal::Journal;
use crate::verify::describe;
use merge::{Merged, Merger};
use plan::{Merge, Plan, Rules, Spare};

/// Bytes of sources after which what was merged is sealed and deleted: so much is stored twice meanwhile, at most.
const BATCH: u64 = 1 << 30;
/// The largest piece, in bytes of log: an object has room for it whatever it compresses to.
const LARGEST: u64 = 128 << 20;
/// So many pieces that cannot be read are named.
const MOST_FINDINGS: usize = 20;

/// What is compacted. Data, not components.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct CompactLog {
    /// Bytes of log of a new object, at most; objects of half of it and more stay as they are. 64 MiB: a request costs little
    /// beside that much. Less when the memory budget asks for it, of which an object takes a quarter.
    pub target: u64,
    /// Objects that were stored less than this ago, by the clocks of the store and of this host, stay as they are. Ten minutes: those
    /// who follow the newest log are not sent looking for it again. Nothing depends on the clocks being right.
    pub least_age: Duration,
    /// Bytes of stored objects that are read at most. Unlimited when not set. What is left over is for the next time.
    pub most_bytes: Option<u64>,
}

impl Default for CompactLog {
    fn default() -> Self {
        Self { target: 64 << 20, least_age: Duration::from_secs(600), most_bytes: None }
    }
}

impl CompactLog {
    /// Sets the bytes of log of a new object.
    #[must_use]
    pub fn target(mut self, bytes: u64) -> Self {
        self.target = bytes;
        self
    }

    /// Sets how old objects have to be.
    #[must_use]
    pub fn least_age(mut self, age: Duration) -> Self {
        self.least_age = age;
        self
    }

    /// Sets how many bytes are read at most.
    #[must_use]
    pub fn most_bytes(mut self, bytes: u64) -> Self {
        self.most_bytes = Some(bytes);
        self
    }
}

/// What a compaction did.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct CompactedLog {
    /// Objects of the log before.
    pub objects_before: u64,
    /// Objects of the log afterwards.
    pub objects_after: u64,
    /// Their bytes before.
    pub bytes_before: u64,
    /// Their bytes afterwards.
    pub bytes_after: u64,
    /// Objects that were written.
    pub written: u64,
    /// Bytes that were written.
    pub written_bytes: u64,
    /// Objects that were deleted.
    pub deleted: u64,
    /// Merges that are left for the next time, because enough was read or because somebody else was at the same objects.
    pub left: u64,
    /// What was noticed: objects that cannot be read, deletions that were refused.
    pub findings: Vec<Finding>,
}

/// Merges small pieces.
///
/// # Errors
/// Conflict, when the catalog was rebuilt meanwhile. Those of the store and of the journal.
pub(crate) async fn compact(
    cache: &Arc<LogCache>,
    journal: &Journal<Catalog>,
    options: &CompactLog,
    work: &Work,
) -> Result<CompactedLog> {
    let compacting = run(cache, journal, options, work);
    work.cancel().run_until_cancelled(compacting).await.unwrap_or_else(|| Err(Error::cancelled()))
}

async fn run(
    cache: &Arc<LogCache>,
    journal: &Journal<Catalog>,
    options: &CompactLog,
    work: &Work,
) -> Result<CompactedLog> {
    let context = Arc::clone(cache.context());
    let stored = Stored::survey(&context.store, journal, None).await?;
    let age = SignedDuration::try_from(options.least_age).unwrap_or(SignedDuration::MAX);
    let rules = Rules {
        target: options.target.clamp(1, LARGEST.min((context.shape.memory_budget / 4).max(1 << 20))),
        before: match age.is_zero() {
            true => Timestamp::MAX,
            false => context.env.now().checked_sub(age).unwrap_or(Timestamp::MIN),
        },
    };
    let Plan { merges, spares } = plan::plan(&stored, rules);
    let mut outcome = CompactedLog::default();
    for (_, listed) in stored.counting() {
        outcome.objects_before += 1;
        outcome.bytes_before += listed.size;
    }
    (outcome.objects_after, outcome.bytes_after) = (outcome.objects_before, outcome.bytes_before);
    work.started(Phase::Read, Some(merges.iter().map(Merge::weight).sum()), Unit::Bytes);
    let sizes = stored.pieces.iter().flat_map(|(lineage, all)| all.iter().map(move |l| ((lineage, l.piece), l.size)));
    let sizes = sizes.collect();
    let mut run = Run { context, cache, journal, stored: &stored, sizes, work, outcome, refused: false };
    run.clear(spares).await?;
    run.merge_all(merges.into(), options.most_bytes.unwrap_or(u64::MAX)).await?;
    work.ended(Phase::Read);
    let outcome = run.outcome;
    tracing::info!(before = outcome.objects_before, after = outcome.objects_after, "the log was compacted");
    Ok(outcome)
}

/// A compaction under way.
struct Run<'a> {
    context: Arc<Context>,
    cache: &'a LogCache,
    journal: &'a Journal<Catalog>,
    stored: &'a Stored,
    sizes: BTreeMap<(&'a Lineage, Piece), u64>,
    work: &'a Work,
    outcome: CompactedLog,
    /// Whether these credentials may not delete.
    refused: bool,
}

/// What was merged since a writer was opened.
struct Batch {
    epoch: LogEpoch,
    generation: u32,
    ends: BTreeMap<Lineage, u64>,
    replaced: Vec<(Lineage, Piece)>,
}

impl Batch {
    fn reach(&mut self, lineage: &Lineage, piece: &Piece) {
        let end = self.ends.entry(lineage.clone()).or_insert(piece.end);
        *end = (*end).max(piece.end);
    }
}

impl Run<'_> {
    /// Deletes what others hold, where that is certain.
    async fn clear(&mut self, spares: Vec<Spare>) -> Result<()> {
        let mut spares = spares.into_iter().peekable();
        let mut committed = false;
        while let Some(first) = spares.next() {
            let (lineage, by) = (first.lineage.clone(), first.by);
            let mut group = vec![first];
            while let Some(next) = spares.next_if(|next| next.lineage == lineage && next.by == by) {
                group.push(next);
            }
            if self.refused || !self.holds(&lineage, &by).await? {
                continue;
            }
            let mut names = Vec::new();
            for spare in group {
                if self.is_told(&spare).await? {
                    names.push((spare.lineage, spare.listed.piece));
                }
            }
            if !names.is_empty() && !committed && !self.is_sealed(&by) {
                // What somebody else has not sealed was followed by no commit yet.
                let batch = self.open().await?;
                self.seal(&batch).await?;
                committed = true;
            }
            self.delete(names).await?;
        }
        Ok(())
    }

    /// Whether the writer of a piece has committed its end, and with it a commit has followed the piece.
    fn is_sealed(&self, by: &Listed) -> bool {
        let writer = self.stored.state().writer(by.piece.epoch);
        writer.is_some_and(|writer| writer.ends.is_some())
    }

    /// Whether what `by` holds can be relied on.
    async fn holds(&mut self, lineage: &Lineage, by: &Listed) -> Result<bool> {
        // A later word says that an earlier one is out of date, whatever it says else.
        if by.piece.is_empty() {
            return Ok(true);
        }
        let name = by.piece.name(lineage)?;
        let read = match self.context.store.get(&name).await {
            Ok(bytes) => {
                let (context, scratches) = (Arc::clone(&self.context), Arc::clone(self.cache.scratches()));
                blocking(move || object::open_whole(&context.keyring, &name, &bytes, &scratches).map(drop)).await
            }
            Err(error) => Err(error),
        };
        match read {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Environment) => {
                if !error.is_not_found() {
                    self.unreadable(&by.piece, lineage, error)?;
                }
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether the piece that holds the bytes of a spare one tells what that tells. A later word needs not.
    async fn is_told(&self, spare: &Spare) -> Result<bool> {
        let Spare { lineage, listed, by } = spare;
        if !listed.piece.is_empty() || by.piece.is_empty() {
            return Ok(true);
        }
        let store = &self.context.store;
        let sheets = async {
            let word = self.cache.object(store, lineage, listed).await?.sheet().index.clone();
            Ok::<_, Error>((word, self.cache.object(store, lineage, by).await?.sheet().index.clone()))
        };
        match sheets.await {
            Ok((word, index)) => Ok(word.known_until() <= index.known_until()
                && word.as_of <= index.as_of
                && word.names.iter().all(|name| index.names.contains(name))),
            Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Environment) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn merge_all(&mut self, mut merges: VecDeque<Merge>, most: u64) -> Result<()> {
        let mut room = most;
        let mut next = take(&mut merges, room);
        while next.is_some() {
            let mut batch = self.open().await?;
            let mut merger = Merger::new(Arc::clone(&self.context), batch.epoch)?;
            let mut read = 0;
            while let Some(merge) = next.take_if(|_| read < BATCH) {
                read += merge.weight();
                room = room.saturating_sub(merge.weight());
                let rest = self.merge(&mut merger, &merge, &mut batch).await?;
                rest.into_iter().rev().for_each(|part| merges.push_front(part));
                self.work.advanced(Phase::Read, merge.weight());
                next = take(&mut merges, room);
            }
            self.seal(&batch).await?;
            self.delete(batch.replaced).await?;
        }
        self.outcome.left += merges.len() as u64;
        Ok(())
    }

    /// Merges one run of pieces; returns what is to be tried instead when it cannot be done as a whole.
    async fn merge(&mut self, merger: &mut Merger, merge: &Merge, batch: &mut Batch) -> Result<Vec<Merge>> {
        let lineage = &merge.lineage;
        match merger.merge(merge, self.stored.state().lineage(lineage).cloned()).await {
            Ok(Merged::Stored { piece, size }) => {
                batch.reach(lineage, &piece);
                batch.replaced.extend(merge.replaced.iter().map(|piece| (lineage.clone(), *piece)));
                self.outcome.written += 1;
                self.outcome.written_bytes += size;
                self.outcome.objects_after += 1;
                self.outcome.bytes_after += size;
                Ok(Vec::new())
            }
            Ok(Merged::Gone { piece }) => {
                batch.reach(lineage, &piece);
                self.outcome.left += 1;
                Ok(Vec::new())
            }
            // Somebody else has compacted it. What is around it is theirs, too.
            Ok(Merged::Unreadable { error, .. }) if error.is_not_found() => {
                self.outcome.left += 1;
                Ok(Vec::new())
            }
            Ok(Merged::Unreadable { number, error }) => {
                self.unreadable(&merge.sources[number].piece, lineage, error)?;
                Ok(merge.without(number))
            }
            Ok(Merged::Full { number }) => Ok(merge.cut(number)),
            // What was stored and does not read back counts like any damaged piece: others hold the same, and stay.
            Err(error) => Err(error),
        }
    }

    fn unreadable(&mut self, piece: &Piece, lineage: &Lineage, error: Error) -> Result<()> {
        let name = piece.name(lineage)?;
        tracing::warn!(%name, %error, "a piece of log cannot be read, and stays as it is");
        if self.outcome.findings.len() < MOST_FINDINGS {
            let finding = Finding::new(Severity::Warning, "log-object-unreadable", describe(error));
            self.outcome.findings.push(finding.about(name.as_str()));
        }
        Ok(())
    }

    /// Opens a writer.
    async fn open(&self) -> Result<Batch> {
        let (mut epoch, at) = (LogEpoch(0), self.context.env.now());
        let (place, _) = self
            .journal
            .commit_by(|_, catalog| {
                epoch = catalog.log().next_epoch();
                Ok(vec![Event::LogOpened { epoch, purpose: LogPurpose::Compact, at }])
            })
            .await?;
        let generation = place.generation;
        if generation != self.stored.generation {
            return Err(rebuilt());
        }
        Ok(Batch { epoch, generation, ends: BTreeMap::new(), replaced: Vec::new() })
    }

    /// Commits that all of the batch is stored.
    async fn seal(&self, batch: &Batch) -> Result<()> {
        let (epoch, at) = (batch.epoch, self.context.env.now());
        let committed = self.journal.commit_by(|generation, _| {
            // The next generation counts what it has found, and knows nothing of what it has not.
            if generation != batch.generation {
                return Err(rebuilt());
            }
            Ok(vec![Event::LogSealed { epoch, ends: batch.ends.clone(), at }])
        });
        committed.await.map(drop)
    }

    /// Deletes pieces that are not needed, unless that is refused.
    async fn delete(&mut self, pieces: Vec<(Lineage, Piece)>) -> Result<()> {
        let mut names = Vec::with_capacity(pieces.len());
        for (lineage, piece) in pieces {
            let size = self.sizes.get(&(&lineage, piece)).copied().unwrap_or(0);
            names.push((piece.name(&lineage)?, size));
        }
        // One by itself: where none may be deleted, thousands of refusals would say the same.
        let rest = names.split_off(names.len().min(1));
        let Some((first, size)) = names.pop().filter(|_| !self.refused) else { return Ok(()) };
        let outcome = self.context.store.delete(&first).await;
        self.deleted(first.as_str(), size, outcome)?;
        let sizes: BTreeMap<_, _> = rest.iter().cloned().collect();
        let names: Vec<_> = rest.into_iter().map(|(name, _)| name).filter(|_| !self.refused).collect();
        let mut outcomes = self.context.store.delete_many(stream::iter(names));
        while let Some((name, outcome)) = outcomes.next().await {
            let size = sizes.get(&name).copied().unwrap_or(0);
            self.deleted(name.as_str(), size, outcome)?;
            if self.refused {
                break;
            }
        }
        Ok(())
    }

    fn deleted(&mut self, name: &str, size: u64, outcome: Result<()>) -> Result<()> {
        match outcome {
            Ok(()) => {
                self.outcome.deleted += 1;
                self.outcome.objects_after = self.outcome.objects_after.saturating_sub(1);
                self.outcome.bytes_after = self.outcome.bytes_after.saturating_sub(size);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Environment => {
                self.refused = true;
                let message = format!("what was replaced is kept, because it cannot be deleted: {error}");
                let finding = Finding::new(Severity::Warning, "log-delete-refused", message);
                self.outcome.findings.push(finding.about(name).in_surroundings());
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// The next of `merges`, or as much of it as has at most `room` bytes.
fn take(merges: &mut VecDeque<Merge>, room: u64) -> Option<Merge> {
    let merge = merges.pop_front()?;
    if merge.weight() <= room {
        return Some(merge);
    }
    let (head, rest) = merge.head(room);
    rest.into_iter().rev().for_each(|part| merges.push_front(part));
    head
}

fn rebuilt() -> Error {
    Error::conflict("the catalog was rebuilt while the log was compacted")
}
