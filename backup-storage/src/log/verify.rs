//! Verification of stored log.
//!
//! Which pieces there are is told by their names, so a missing one needs no verification to be noticed: it is a hole. What a
//! piece holds is read here. One that is not what it must be is written down in the journal: from then on it does not count, and
//! what it held is a hole like any other.

use std::sync::Arc;

use backup_core::catalog::{Catalog, Event};
use backup_core::engine::Work;
use backup_core::log::{BackupPoint, Ledger, LogRange};
use backup_core::observe::Phase;
use backup_core::repository::VerifyLevel;
use backup_core::{BackupId, Lineage};
use futures::stream::{self, StreamExt, TryStreamExt};

use super::stored::{Listed, Stored};
use super::{LogCache, object};
use crate::error::{Error, ErrorKind, Result};
use crate::fetch::blocking;
use crate::journal::Journal;

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
}

/// Checks the log at `level`, and commits what is damaged.
///
/// # Errors
/// When checking itself was not possible.
pub(crate) async fn verify(
    cache: &Arc<LogCache>,
    journal: &Journal<Catalog>,
    level: VerifyLevel,
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
    let share = match level {
        VerifyLevel::Full => 100,
        VerifyLevel::Sample(percent) => u64::from(percent.clamp(1, 100)),
        _ => return Ok(seen),
    };
    let seed: [u8; 32] = context.env.random();
    let drawn = |listed: &&(Lineage, Listed)| {
        let mut hasher = blake3::Hasher::new_keyed(&seed);
        hasher.update(&listed.1.piece.epoch.0.to_le_bytes()).update(&listed.1.piece.sequence.to_le_bytes());
        u64::from(u16::from_le_bytes([hasher.finalize().as_bytes()[0], hasher.finalize().as_bytes()[1]])) % 100 < share
    };
    let all: Vec<(Lineage, Listed)> = stored.counting().map(|(lineage, listed)| (lineage.clone(), *listed)).collect();
    let chosen: Vec<_> = all.iter().filter(drawn).cloned().collect();
    let whole = whole(&stored);
    let mut read = stream::iter(chosen)
        .map(|(lineage, listed)| async move {
            let outcome = inspect(cache, &lineage, &listed).await?;
            work.advanced(Phase::Verify, listed.size);
            Ok::<_, Error>((lineage, listed, outcome))
        })
        .buffer_unordered(context.shape.transfers)
        .boxed();
    let mut events = Vec::new();
    while let Some((lineage, listed, outcome)) = read.try_next().await? {
        seen.read_bytes += listed.size;
        let Some(Problem { text: problem, certain }) = outcome else { continue };
        let object = listed.piece.name(&lineage)?.as_str().to_owned();
        let backups = harmed(&stored, &whole, &listed.piece.range(&lineage));
        if certain {
            events.push(Event::LogDamaged {
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
    if !events.is_empty() {
        journal.commit(events).await?;
    }
    // What was found before is still wrong.
    for damage in stored.state().damages().values() {
        let listed = stored.pieces.get(&damage.range.lineage).into_iter().flatten();
        if listed.into_iter().any(|l| l.piece.name(&damage.range.lineage).is_ok_and(|n| n.as_str() == damage.object)) {
            let backups = harmed(&stored, &whole, &damage.range);
            seen.damages.push(Damaged { object: damage.object.clone(), problem: damage.problem.clone(), backups });
        }
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

/// What is wrong with a piece, if anything is.
async fn inspect(cache: &Arc<LogCache>, lineage: &Lineage, listed: &Listed) -> Result<Option<Problem>> {
    let damaged = |text: String| Some(Problem { text, certain: true });
    let name = listed.piece.name(lineage)?;
    let context = Arc::clone(cache.context());
    let bytes = match context.store.get(&name).await {
        Ok(bytes) => bytes,
        // Compacted in the meantime, or lost: then it is a hole.
        Err(e) if e.is_not_found() => return Ok(None),
        Err(e) if e.kind() == ErrorKind::Damaged => return Ok(damaged(e.to_string())),
        Err(e) => return Err(e),
    };
    let (scratches, piece) = (Arc::clone(cache.scratches()), listed.piece);
    blocking(move || {
        let opened = match object::open_whole(&context.keyring, &name, &bytes, &scratches) {
            Ok(opened) => opened,
            Err(e) if e.kind() == ErrorKind::Damaged => return Ok(damaged(e.to_string())),
            Err(e) if e.kind() == ErrorKind::Environment => {
                return Ok(Some(Problem { text: e.to_string(), certain: false }));
            }
            Err(e) => return Err(e),
        };
        let len: u64 = opened.content.iter().map(|part| part.len() as u64).sum();
        let sheet = opened.object.sheet();
        let fits = (sheet.start, sheet.end) == (piece.start, piece.end) && len == piece.end - piece.start;
        let text = || format!("it holds {len} bytes from {} to {}", sheet.start, sheet.end);
        Ok(if fits { None } else { damaged(text()) })
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
