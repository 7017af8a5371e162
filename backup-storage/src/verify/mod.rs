//! Verification of what is stored.
//!
//! Damage is what this looks for, so nothing here gives up at the first one: the journal is read entry by entry, also behind
//! a break; a backup whose manifest cannot be read does not hide the others. Damage is reported by object, with the backups
//! that it harms and no others: a damaged segment harms those backups whose content lies in it.
//!
//! What is damaged is told the catalog, so that nothing builds on it; so is what was damaged and is whole again, and what was read.
//!
//! Nothing is taken from caches of the open repository: what they hold was read before whatever happened.
//!
//! Memory grows with the number of packs (and, at the deeper levels, of their segments), not with the number of entries.

mod choice;
mod deposits;
mod findings;
mod history;
mod listing;
mod manifests;
mod packs;
mod plain;
mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use backup_core::BackupId;
use backup_core::catalog::{Catalog, PackDamage, PackId, VerifyPlace};
use backup_core::engine::Work;
use backup_core::observe::{Phase, Unit};
use backup_core::repository::{VerifyLevel, VerifyReport};
use futures::stream::{self, StreamExt};

use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::fetch::{PackCache, Places};
use crate::journal::Journal;
use crate::witness::{self, Witness};
use crate::{envelope, layout};
pub(crate) use choice::Choice;
use findings::Findings;
pub(crate) use findings::describe;
use history::History;
pub(crate) use listing::Listing;
use manifests::Manifests;
pub(crate) use manifests::opens;
use packs::Packs;
pub(crate) use told::whole;

/// What was seen of everything but the log.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) report: VerifyReport,
    /// The packs that are damaged for everyone.
    pub(crate) damaged: Vec<PackDamage>,
    /// Packs that were known to be damaged and were found as they were written.
    pub(crate) mended: Vec<PackId>,
    /// The backups that were looked at.
    pub(crate) examined: BTreeSet<BackupId>,
    /// Whether the catalog can be read from the first entry to the last.
    pub(crate) catalog: bool,
}

/// Checks everything but the log. What is read of it, `choice` says.
///
/// # Errors
/// When checking itself was not possible: the store cannot be reached, the work was cancelled, or something was written by
/// a newer version.
async fn stored(
    context: &Arc<Context>,
    journal: &Journal<Catalog>,
    (level, choice): (VerifyLevel, &mut Choice),
    work: &Work,
) -> Result<Seen> {
    let verification = run(context, journal, (level, choice), work);
    work.cancel().run_until_cancelled(verification).await.unwrap_or_else(|| Err(Error::cancelled()))
}

async fn run(
    context: &Arc<Context>,
    journal: &Journal<Catalog>,
    (level, choice): (VerifyLevel, &mut Choice),
    work: &Work,
) -> Result<Seen> {
    let (mut report, mut findings) = (VerifyReport::default(), Findings::default());
    // Listed before the journal is read: what a witness speaks of must then be in it.
    let listing = Listing::read(&context.store).await?;
    let mut history = History::read(context, journal, &mut report).await?;
    let places = Places::State(Arc::clone(&history.catalog));
    let cache = Arc::new(PackCache::new(Arc::clone(context), places));
    let witnesses = witnesses(context, &listing, &mut report, &mut findings).await?;
    for witness in &witnesses {
        history.confirm(witness.backup, witness.place);
    }
    history.report(&mut findings)?;
    let mut all: Vec<_> = history.records.keys().copied().collect();
    report.backups = all.len() as u64;
    all.extend(witnesses.iter().map(|witness| witness.backup));
    all.sort_unstable();
    all.dedup();
    plain::check(context, &listing, &history, &all, (&mut report, &mut findings)).await?;

    let mut manifests = Manifests { context: Arc::clone(context), cache: Arc::clone(&cache), needed: BTreeMap::new() };
    // Sessions that are not known to be without use.
    let mut held = history.open.clone();
    held.extend(listing.deposits.iter().filter(|session| history.catalog.session(**session).is_none()));
    deposits::check(context, &history, (&mut report, &mut findings)).await?;
    for record in history.records.values() {
        if !manifests.learn(record, &mut findings).await? {
            held.insert(record.session);
            held.extend(&record.reused);
        }
    }
    let mut packs = Packs::default();
    if level != VerifyLevel::Catalog {
        report.objects += manifests.needed.len() as u64;
        exist(context, &listing, &manifests.needed, &mut packs, &mut findings).await?;
    }
    let items = manifests.needed.iter().map(|(id, len)| (VerifyPlace::Pack(*id), (*len).max(listing.len(*id)), *id));
    let mut chosen: BTreeSet<_> = choice.take(items.collect()).into_iter().collect();
    // What is known to be damaged is looked at each time: it may have been mended.
    let marked: Vec<_> = history.catalog.damaged_packs().filter(|(id, _)| manifests.needed.contains_key(id)).collect();
    if level.reads() {
        chosen.extend(marked.iter().map(|(id, _)| *id));
    }
    chosen.retain(|id| !packs.lost.contains_key(id));
    let bytes = chosen.iter().filter_map(|id| listing.packs.get(id)).sum();
    let by_backup = chosen.is_empty();
    if by_backup {
        work.started(Phase::Verify, Some(report.backups), Unit::Items);
    } else {
        work.started(Phase::Verify, Some(bytes), Unit::Bytes);
        packs.read(context, &cache, chosen.iter().copied().collect(), work, (&mut report, &mut findings)).await?;
    }
    for record in history.records.values() {
        manifests.check(record, &packs, &mut findings).await?;
        if by_backup {
            work.advanced(Phase::Verify, 1);
        }
    }
    work.ended(Phase::Verify);
    let mut mended = Vec::new();
    for (id, harm) in marked {
        let name = layout::pack(id)?;
        if chosen.contains(&id) && !findings.has(name.as_str()) {
            mended.push(id);
        } else if !findings.has(name.as_str()) {
            // What was found before is still wrong, as far as is known.
            let backups = harm.backups.iter().filter(|backup| history.records.contains_key(backup));
            findings.add(name.as_str(), harm.problem.clone(), backups.copied());
        }
    }
    report.read_bytes += cache.fetched();
    count_garbage(&listing, &manifests.needed, &held, &mut report);
    let damaged = findings.packs();
    report.damages = findings.into_damages();
    let examined = history.records.keys().copied().collect();
    Ok(Seen { report, damaged, mended, examined, catalog: history.is_whole() })
}

/// Opens all witnesses. One that is damaged harms nothing by itself.
async fn witnesses(
    context: &Arc<Context>,
    listing: &Listing,
    report: &mut VerifyReport,
    findings: &mut Findings,
) -> Result<Vec<Witness>> {
    let sessions: Vec<_> = listing.witnesses.iter().copied().collect();
    let mut objects = stream::iter(sessions)
        .map(|session| async move {
            let name = layout::witness(session)?;
            Ok::<_, Error>((session, context.store.get(&name).await, name))
        })
        .buffered(context.shape.transfers * 2)
        .boxed();
    let mut witnesses = Vec::new();
    while let Some(next) = objects.next().await {
        let (session, object, name) = next?;
        report.objects += 1;
        let object = match object {
            Ok(object) => object,
            Err(e) if e.kind() == ErrorKind::Damaged => {
                findings.add(name.as_str(), describe(e), []);
                continue;
            }
            Err(e) => return Err(e),
        };
        report.read_bytes += object.len() as u64;
        match envelope::open(&context.keyring, backup_crypto::ObjectKind::Session, &name, &object) {
            Ok(_) => witnesses.push(witness::open(&context.keyring, session, &object)?),
            Err(e) => findings.add(name.as_str(), describe(e), []),
        }
    }
    Ok(witnesses)
}

/// Whether every needed pack is there in its length.
async fn exist(
    context: &Context,
    listing: &Listing,
    needed: &BTreeMap<PackId, u64>,
    packs: &mut Packs,
    findings: &mut Findings,
) -> Result<()> {
    for (id, len) in needed {
        let found = match listing.packs.get(id) {
            Some(found) => Some(*found),
            // It may be younger than the listing.
            None => context.store.head(&layout::pack(*id)?).await?.map(|meta| meta.size),
        };
        match found {
            None => packs.lose(*id, "it is missing".to_owned(), findings)?,
            Some(found) if *len > 0 && found != *len => {
                packs.lose(*id, format!("it has {found} bytes instead of {len}"), findings)?;
            }
            Some(_) => {}
        }
    }
    Ok(())
}

fn count_garbage(
    listing: &Listing,
    needed: &BTreeMap<PackId, u64>,
    held: &BTreeSet<backup_core::SessionId>,
    report: &mut VerifyReport,
) {
    report.garbage_objects += listing.foreign_objects;
    report.garbage_bytes += listing.foreign_bytes;
    for (id, len) in &listing.packs {
        if !needed.contains_key(id) && !held.contains(&id.session) {
            report.garbage_objects += 1;
            report.garbage_bytes += len;
        }
    }
}
