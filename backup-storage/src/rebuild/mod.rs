//! Building the catalog again from packs and keys alone.
//!
//! Packs describe themselves, and every manifest's root repeats what the catalog knew of its backup. So when the journal is
//! damaged beyond reading, a new generation of it is begun with every backup whose manifest is found complete and whose
//! packs are all there.
//!
//! A session can have written its whole manifest and have died before its commit. Without the journal, such a backup can
//! be told from a committed one only by the [witness](crate::witness) that follows a commit — and a witness may be missing
//! too, because the writer died between the two. Both are therefore recovered, since an uncommitted backup that is complete
//! harms nobody while a committed one that is left out is lost; [`RecoveredBackup::witnessed`] tells them apart.
//!
//! Of what hosts that only write have deposited, those are recovered that a witness speaks of: only who has the keys writes one, after an adoption. The
//! others wait; hosts are forgotten, and nobody can tell one that may deposit from one that was removed.
//!
//! The log is found by its pieces. It is listed only after the new generation was begun: from then on no log writer of the old one
//! acknowledges, and no compaction of the old one deletes, so what is listed is all that was ever promised.

mod deposits;
mod find;
mod log;

use std::collections::BTreeMap;
use std::sync::Arc;

use backup_core::SessionId;
use backup_core::catalog::{BackupRecord, Catalog, Event, PackId, PackMove};
use backup_core::engine::Work;
use backup_core::log::LineageRecord;
use backup_core::observe::{Phase, Unit};
use backup_crypto::{EpochFingerprint, EpochId, ObjectKind};
use bytes::Bytes;

use crate::context::Context;
use crate::envelope;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{EpochRecord, FORMAT, Genesis, Journal, PlainObject};
use crate::layout;
use crate::log::{LogCache, stored};
use crate::repository::{Description, parse_key};
use crate::verify::Listing;
use deposits::FoundDeposit;
use find::Found;
use log::FoundLog;

/// How many generations are begun at most because somebody opened a log writer in the one before the log was known to it.
const TRIES: u32 = 3;
/// How many of the last entries of the old journal are looked at for the epoch in which they are sealed.
const ENTRIES: usize = 64;
/// Encoded events per journal entry, in bytes; an entry has room for one more of any size.
const ENTRY: usize = 64 << 10;
/// Copies of packs that one event tells of.
const MOVES: usize = 500;

/// What a rebuild of the catalog has found.
#[derive(Debug, Clone, serde::Serialize)]
#[non_exhaustive]
pub struct Rebuilt {
    /// Number of the generation of the journal that was begun.
    pub generation: u32,
    /// The backups that the catalog has again, oldest first.
    pub backups: Vec<RecoveredBackup>,
    /// The lineages of the log that the catalog has again, in the order in which they were met.
    pub lineages: Vec<LineageRecord>,
    /// How many log writers it knows again.
    pub log_writers: u64,
    /// What could not be recovered, and why.
    pub skipped: Vec<Skipped>,
}

/// A backup that was found again.
#[derive(Debug, Clone, serde::Serialize)]
#[non_exhaustive]
pub struct RecoveredBackup {
    /// The backup.
    pub record: BackupRecord,
    /// Whether a witness says that it had been committed. Without one it may have been complete but never committed.
    pub witnessed: bool,
}

/// Something that was not recovered.
#[derive(Debug, Clone, serde::Serialize)]
#[non_exhaustive]
pub struct Skipped {
    /// The object's name inside the repository.
    pub object: String,
    /// Why.
    pub reason: String,
}

/// Begins a new generation of the journal with what packs and keys say. The old ones are left as they are.
///
/// Content is not decoded; a verification afterwards does that.
///
/// # Cancel safety
/// When dropped, a new generation has been begun or not; repeated, it begins a further one from the same packs.
///
/// # Errors
/// Conflict, when somebody else began a generation at the same time. Those of the store.
pub(crate) async fn rebuild(context: &Arc<Context>, journal: &Journal<Catalog>, work: &Work) -> Result<Rebuilt> {
    let rebuilding = run(context, journal, work);
    work.cancel().run_until_cancelled(rebuilding).await.unwrap_or_else(|| Err(Error::cancelled()))
}

async fn run(context: &Arc<Context>, journal: &Journal<Catalog>, work: &Work) -> Result<Rebuilt> {
    let listing = Listing::read(&context.store).await?;
    work.started(Phase::Inspect, Some(listing.packs.len() as u64), Unit::Items);
    let found = find::find(context, &listing, work).await?;
    let Found { mut backups, mut skipped, moves, deposits, generation: witnessed } = found;
    work.ended(Phase::Inspect);
    // What others reuse comes first, and what was begun earlier has the smaller id.
    backups.sort_by_key(|backup| (backup.record.ended_at, backup.record.id));
    let log_cache = LogCache::new(Arc::clone(context));
    let mut log = FoundLog::default();
    // Most is learned before the new generation is begun, so that it knows of the log soon afterwards.
    log.look(&log_cache, &stored::list_vault(&context.store).await?).await?;
    context.keyring.set_current(present_epoch(context, journal).await?);
    let objects = plain_objects(context, &listing, &mut skipped).await?;
    let genesis = Genesis {
        format: FORMAT,
        repository: *context.keyring.repository().as_bytes(),
        service: context.service.clone(),
        suite: context.keyring.suite() as u8,
        created_at: context.env.now(),
        objects,
        epochs: Some(epochs(context)),
    };
    // Numbers are never used twice, also not those of generations that are gone without a trace but what witnesses tell:
    // writers may still remember them.
    let listed = journal.listing().await?.last_key_value().map_or(1, |(generation, _)| *generation);
    let mut generation = listed.max(witnessed);
    let mut entries = entries(context, (&moves, &backups), &deposits)?.into_iter();
    let first = entries.next().unwrap_or_default();
    let mut tries = 0;
    let parts = loop {
        generation = journal.next_generation(generation).await?;
        tries += 1;
        journal.begin(generation, genesis.clone(), first.clone()).await?;
        let parts = log.look(&log_cache, &stored::list_vault(&context.store).await?).await?;
        if log.commit(journal, generation, &parts, context.env.now()).await? {
            break parts;
        }
        if tries == TRIES {
            return Err(Error::conflict("log writers are opened while the catalog is rebuilt"));
        }
    };
    for events in entries {
        journal.commit(events).await?;
    }
    let (lineages, log_writers) = (log.lineages(), log.writers());
    skipped.extend(log.skipped(&parts));
    tracing::info!(generation, backups = backups.len(), skipped = skipped.len(), "the catalog was rebuilt");
    Ok(Rebuilt { generation, backups, lineages, log_writers, skipped })
}

/// The events of the new generation, as they go into its entries.
fn entries(
    context: &Context,
    (moves, backups): (&BTreeMap<PackId, PackMove>, &[RecoveredBackup]),
    deposits: &BTreeMap<SessionId, FoundDeposit>,
) -> Result<Vec<Vec<Event>>> {
    let mut entries: Vec<Vec<Event>> = Vec::new();
    let mut room = 0;
    let mut by_session: BTreeMap<_, Vec<PackMove>> = BTreeMap::new();
    for moved in moves.values() {
        by_session.entry(moved.to.session).or_default().push(*moved);
    }
    let moved = by_session.into_iter().flat_map(|(session, moves)| {
        let chunks: Vec<_> = moves.chunks(MOVES).map(<[PackMove]>::to_vec).collect();
        chunks.into_iter().map(move |moves| Event::PacksRecovered { session, moves })
    });
    let mut keys = Vec::new();
    // All of them: a backup may need packs of one that is gone.
    for (session, FoundDeposit { host, key, .. }) in deposits.iter().filter(|(_, deposit)| deposit.adopted) {
        let key = key.seal(&context.keyring, *session)?;
        keys.push(Event::DepositRecovered { session: *session, host: *host, key });
    }
    let backups = backups.iter().map(|backup| Event::BackupRecovered { record: Box::new(backup.record.clone()) });
    for event in moved.chain(keys).chain(backups) {
        let len =
            minicbor::to_vec(&event).map_err(|e| Error::internal("an event cannot be encoded").with_source(e))?.len();
        match entries.last_mut() {
            Some(entry) if len <= room => {
                entry.push(event);
                room -= len;
            }
            _ => {
                room = ENTRY.saturating_sub(len);
                entries.push(vec![event]);
            }
        }
    }
    Ok(entries)
}

/// The epochs whose keys something that counts vouches for.
fn epochs(context: &Context) -> Vec<EpochRecord> {
    let record = |(epoch, fingerprint): (EpochId, EpochFingerprint)| EpochRecord {
        epoch: epoch.0,
        fingerprint: *fingerprint.as_bytes(),
    };
    context.keyring.trusted().into_iter().map(record).collect()
}

/// The highest epoch in which anything is sealed. One in which nothing is may have been prepared and never begun.
async fn present_epoch(context: &Context, journal: &Journal<Catalog>) -> Result<EpochId> {
    let newest = journal.listing().await?.pop_last();
    let (generation, numbers) = newest.unwrap_or_default();
    for number in numbers.into_iter().rev().take(ENTRIES) {
        let name = layout::entry(generation, number)?;
        match context.store.get(&name).await {
            Ok(object) if envelope::open(&context.keyring, ObjectKind::Journal, &name, &object).is_ok() => break,
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::Damaged => {}
            Err(e) => return Err(e),
        }
    }
    Ok(context.keyring.met().max(context.keyring.current()))
}

/// The description and the wrapped keys as they are, where they are readable.
async fn plain_objects(context: &Context, listing: &Listing, skipped: &mut Vec<Skipped>) -> Result<Vec<PlainObject>> {
    let description = layout::repository()?;
    let mut objects = Vec::new();
    for name in std::iter::once(&description).chain(&listing.keys) {
        let read = match context.store.get(name).await {
            Ok(object) if *name == description => Description::parse(&object).map(|_| object),
            Ok(object) => parse_key(name.as_str(), &object).and_then(|wrap| vouched(context, wrap.epoch(), object)),
            Err(e) => Err(e),
        };
        match read {
            Ok(object) => objects.push(PlainObject::of(name.as_str(), &object)),
            Err(e) => skipped.push(find::skipped(name.as_str(), e)?),
        }
    }
    Ok(objects)
}

/// Nothing is said of the keys of an epoch for which nothing vouches: anybody may have made them.
fn vouched(context: &Context, epoch: EpochId, object: Bytes) -> Result<Bytes> {
    if context.keyring.trusted().iter().any(|(trusted, _)| *trusted == epoch) {
        return Ok(object);
    }
    Err(Error::damaged(format!("nothing that counts vouches for the key of epoch {epoch}")))
}
