//! Verification of stored log.
//!
//! Which pieces there are is told by their names, so a missing one needs no verification to be noticed: it is a hole. What a
//! piece holds is read here. One that is not what it must be is written down in the journal: from then on it does not count, and
//! what it held is a hole like any other.
//!
//! Every object names the digest of the one that its writer wrote before it. Where both are read they are compared: an object that was
//! exchanged for another one of the same name would be found by it. Where the one before was compacted there is nothing to compare.

use std::collections::BTreeMap;
use std::sync::Arc;

use backup_core::catalog::{Catalog, Event, VerifyPlace};
use backup_core::engine::Work;
use backup_core::log::{BackupPoint, Ledger, LogEpoch, LogRange};
use backup_core::observe::Phase;
use backup_core::repository::VerifyLevel;
use backup_core::{BackupId, Lineage};
use futures::stream::{self, StreamExt, TryStreamExt};

use super::stored::{Listed, Stored};
use super::{LogCache, object};
use crate::error::{Error, ErrorKind, Result};
use crate::fetch::blocking;
use crate::journal::Journal;
use crate::verify::{Choice, describe};

/// What is wrong with a piece.
#[derive(Debug)]
pub(crate) struct Damaged {
    pub(crate) object: String,
    pub(crate) problem: String,
    /// The backups whose windows lose something by it.
    pub(crate) backups: Vec<BackupId>,
}

/// What was seen of the log.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) objects: u64,
    pub(crate) read_bytes: u64,
    pub(crate) damages: Vec<Damaged>,
    /// Pieces that do not count: beyond the end of their writer, expired, or known to be damaged.
    pub(crate) garbage_objects: u64,
    pub(crate) garbage_bytes: u64,
    /// What the catalog is to be told.
    pub(crate) events: Vec<Event>,
    /// Objects that were known to be damaged and were found as they were written.
    pub(crate) mended: Vec<String>,
}

/// Checks the log. What is read of it, `choice` says.
///
/// # Errors
/// When checking itself was not possible.
pub(crate) async fn verify(
    cache: &Arc<LogCache>,
    journal: &Journal<Catalog>,
    (level, choice): (VerifyLevel, &mut Choice),
    work: &Work,
) -> Result<Seen> {
    let context = Arc::clone(cache.context());
    let stored = Stored::survey(&context.store, journal, None).await?;
    let mut seen = Seen::default();
    for (lineage, listed) in stored.pieces.iter().flat_map(|(lineage, all)| all.iter().map(move |l| (lineage, l))) {
        seen.objects += 1;
        if !stored.counts(lineage, &listed.piece) {
            seen.garbage_objects += 1;
            seen.garbage_bytes += listed.size;
        }
    }
    let place = |listed: &Listed| VerifyPlace::Log { epoch: listed.piece.epoch, sequence: listed.piece.sequence };
    let counting = stored.counting().map(|(lineage, listed)| (place(listed), listed.size, (lineage.clone(), *listed)));
    let mut counting: Vec<_> = counting.collect();
    counting.sort_unstable_by_key(|(place, ..)| *place);
    let chosen = choice.take(counting);
    let whole = whole(&stored);
    let mut read = stream::iter(chosen)
        .map(|(lineage, listed)| async move {
            let outcome = inspect(cache, &lineage, &listed).await?;
            work.advanced(Phase::Verify, listed.size);
            Ok::<_, Error>((lineage, listed, outcome))
        })
        .buffer_unordered(context.shape.transfers)
        .boxed();
    let mut chain = Chain::default();
    while let Some((lineage, listed, outcome)) = read.try_next().await? {
        seen.read_bytes += listed.size;
        let Problem { text: problem, certain } = match outcome {
            Inspected::Gone => continue,
            Inspected::Sound(link) => {
                chain.add(lineage, listed, link);
                continue;
            }
            Inspected::Bad(problem) => problem,
        };
        let object = listed.piece.name(&lineage)?.as_str().to_owned();
        let backups = harmed(&stored, &whole, &listed.piece.range(&lineage));
        if certain {
            seen.events.push(Event::LogDamaged {
                object: object.clone(),
                lineage,
                start: listed.piece.start,
                end: listed.piece.end,
                problem: problem.clone(),
                at: context.env.now(),
            });
        }
        seen.damages.push(Damaged { object, problem, backups });
    }
    for (lineage, listed, problem) in chain.breaks() {
        // Nobody can tell which of the two is not what its writer wrote, so both count.
        let backups = harmed(&stored, &whole, &listed.piece.range(lineage));
        seen.damages.push(Damaged { object: listed.piece.name(lineage)?.as_str().to_owned(), problem, backups });
    }
    drop(read);
    for damage in stored.state().damages().values() {
        let listed = stored.pieces.get(&damage.range.lineage).into_iter().flatten();
        let named = |l: &&Listed| l.piece.name(&damage.range.lineage).is_ok_and(|n| n.as_str() == damage.object);
        let Some(listed) = listed.copied().find(|l| named(&l)) else { continue };
        // It may have been mended.
        if level.reads()
            && let Inspected::Sound(_) = inspect(cache, &damage.range.lineage, &listed).await?
        {
            seen.read_bytes += listed.size;
            seen.mended.push(damage.object.clone());
            continue;
        }
        // What was found before is still wrong.
        let backups = harmed(&stored, &whole, &damage.range);
        seen.damages.push(Damaged { object: damage.object.clone(), problem: damage.problem.clone(), backups });
    }
    Ok(seen)
}

/// What is wrong with a piece.
#[derive(Debug)]
struct Problem {
    text: String,
    /// Whether it is so for everyone. One that this recipient has no key for may be sound for others.
    certain: bool,
}

/// What a piece turned out to be.
#[derive(Debug)]
enum Inspected {
    /// Compacted since it was listed, or lost: then it is a hole.
    Gone,
    Sound(Link),
    Bad(Problem),
}

/// A piece's place in what its writer wrote.
#[derive(Debug)]
struct Link {
    /// BLAKE3 of its stored bytes.
    digest: [u8; 32],
    /// That of the piece before it, as it says.
    previous: Option<[u8; 32]>,
}

/// The sound pieces of all writers.
#[derive(Debug, Default)]
struct Chain(BTreeMap<(LogEpoch, u64), (Lineage, Listed, Link)>);

impl Chain {
    fn add(&mut self, lineage: Lineage, listed: Listed, link: Link) {
        self.0.insert((listed.piece.epoch, listed.piece.sequence), (lineage, listed, link));
    }

    /// The pieces that do not follow those before them, where these were read, too.
    fn breaks(&self) -> impl Iterator<Item = (&Lineage, &Listed, String)> {
        self.0.iter().filter_map(|((epoch, sequence), (lineage, listed, link))| {
            let before = sequence.checked_sub(1)?;
            let (_, _, previous) = self.0.get(&(*epoch, before))?;
            let problem = format!("it does not follow object {before} of writer {epoch} as that is stored");
            (link.previous != Some(previous.digest)).then_some((lineage, listed, problem))
        })
    }
}

/// What the piece of `listed` is.
async fn inspect(cache: &Arc<LogCache>, lineage: &Lineage, listed: &Listed) -> Result<Inspected> {
    let bad = |text: String, certain: bool| Inspected::Bad(Problem { text, certain });
    let name = listed.piece.name(lineage)?;
    let context = Arc::clone(cache.context());
    let bytes = match context.store.get(&name).await {
        Ok(bytes) => bytes,
        Err(e) if e.is_not_found() => return Ok(Inspected::Gone),
        Err(e) if e.kind() == ErrorKind::Damaged => return Ok(bad(describe(e), true)),
        Err(e) => return Err(e),
    };
    let (scratches, piece) = (Arc::clone(cache.scratches()), listed.piece);
    blocking(move || {
        let opened = match object::open_whole(&context.keyring, &name, &bytes, &scratches) {
            Ok(opened) => opened,
            Err(e) if e.kind() == ErrorKind::Damaged => return Ok(bad(describe(e), true)),
            Err(e) if e.kind() == ErrorKind::Environment => return Ok(bad(describe(e), false)),
            Err(e) => return Err(e),
        };
        let len: u64 = opened.content.iter().map(|part| part.len() as u64).sum();
        let sheet = opened.object.sheet();
        if (sheet.start, sheet.end) != (piece.start, piece.end) || len != piece.end - piece.start {
            return Ok(bad(format!("it holds {len} bytes from {} to {}", sheet.start, sheet.end), true));
        }
        Ok(Inspected::Sound(Link { digest: *blake3::hash(&bytes).as_bytes(), previous: sheet.previous }))
    })
    .await
}

/// What would be stored if nothing were damaged: a backup is harmed by what its log lacks, also when that was found before.
fn whole(stored: &Stored) -> Ledger {
    let counting = stored.counting().map(|(lineage, listed)| listed.piece.range(lineage));
    let damaged = stored.state().damages().values().map(|damage| damage.range.clone());
    Ledger::new(stored.state(), counting.chain(damaged))
}

/// The backups from which the log goes on over `range`.
fn harmed(stored: &Stored, whole: &Ledger, range: &LogRange) -> Vec<BackupId> {
    let over = |point: &BackupPoint| {
        let touches = |r: &LogRange| r.lineage == range.lineage && r.start < range.end && range.start < r.end;
        whole.paths(&point.stop).iter().any(|path| path.ranges.iter().any(touches))
    };
    stored.catalog.backups().filter_map(BackupPoint::of).filter(over).map(|point| point.id).collect()
}
