//! Garbage collection: taking away what nobody needs, safely by the order of what is done and not by any clock.
//!
//! ```text
//! list ─▶ fence who is silent ─▶ work out what is needed ─▶ copy the rest of what is mostly dead, and what is to be sealed anew ─▶ Condemned
//!                                                                  … readers' grace … ─▶ SweepBegun ─▶ delete ─▶ Swept
//! ```
//! What is needed is what backups that have not expired need, what sessions under way have stored or build on, and what the next backup may
//! build on of one that was interrupted. It is worked out from a listing and then a state of the catalog: whatever was listed belongs to a session that this
//! state knows. The entry that condemns is refused when something was pinned since, and then everything is worked out again; that rule and the others are
//! part of the [fold](backup_core::catalog), so that no writer of any age can build on what is condemned.
//!
//! Clocks decide when a silent session is fenced, which costs that session its commit, and how long those may go on who read a backup that has
//! expired meanwhile. Neither costs what somebody keeps.
//!
//! Killed anywhere, this leaves garbage, or a collection that the next run goes on with. Where deletion is refused, as to credentials that may only
//! add, what was condemned stays condemned until somebody comes who may. Memory grows with the number of packs, not of entries.

pub(crate) mod moves;
mod need;
mod plan;
mod protect;
mod repack;
mod survey;
pub(crate) mod sweep;
mod witnessed;

use std::collections::BTreeSet;
use std::sync::Arc;

use backup_core::catalog::{Catalog, CloseReason, Condemned, Event, PackMove};
use backup_core::engine::Work;
use backup_core::observe::{Phase, Unit};
use backup_core::repository::{CollectOptions, Collected, CollectionPlan};
use backup_core::{Finding, SessionId, Severity};

use crate::context::Context;
use crate::deposit;
use crate::error::{Error, Result};
use crate::journal::{Due, Journal};
use crate::store::ObjectName;
use need::Stays;
use plan::{Garbage, signed};
use protect::Protected;
use repack::Sparse;
use survey::Survey;

/// How often everything is worked out again because somebody has begun a backup meanwhile.
const TRIES: u32 = 16;

/// A checkpoint of the catalog is made when so many of its entries are behind the last one.
const CHECKPOINT: u64 = 64;

/// What was worked out.
struct Worked {
    catalog: Arc<Catalog>,
    garbage: Garbage,
    sparse: Vec<Sparse>,
    plan: CollectionPlan,
}

/// Says what [`collect`] would do.
///
/// # Errors
/// Those of the store and of the journal.
pub(crate) async fn plan(
    context: &Arc<Context>,
    journal: &Journal<Catalog>,
    options: &CollectOptions,
    work: &Work,
) -> Result<CollectionPlan> {
    let planning = async {
        let (_, protected) = look(context, journal, options).await?;
        let survey = Survey::read(&context.store).await?;
        let (generation, mut catalog) = journal.refresh_placed().await?;
        let witnessed = witnessed::find(context, (generation, &catalog), &survey).await?;
        let fenced = plan::silent(&catalog, &survey, (options, &witnessed), context.env.now());
        let at = context.env.now();
        let then = Arc::make_mut(&mut catalog);
        for session in &fenced {
            then.apply(&fence(*session, at)).map_err(backup_core::Error::from)?;
        }
        let deposited = deposits(context, &catalog, &survey).await?;
        let stays = Stays { protected, witnessed, deposited };
        let mut plan = work_out(context, catalog, (&survey, &stays), options, work).await?.plan;
        plan.fenced = fenced;
        Ok(plan)
    };
    work.cancel().run_until_cancelled(planning).await.unwrap_or_else(|| Err(Error::cancelled()))
}

/// Takes away what nobody needs.
///
/// # Errors
/// Conflict, when others begin backups faster than it can be worked out what is needed. Those of the store and of the journal.
pub(crate) async fn collect(
    context: &Arc<Context>,
    journal: &Journal<Catalog>,
    options: &CollectOptions,
    work: &Work,
) -> Result<Collected> {
    let collecting = async {
        let mut outcome = Collected::default();
        adopt(context, journal, work, &mut outcome).await?;
        let (survey, protected) = look(context, journal, options).await?;
        sweep_due(context, journal, (&survey, protected.as_ref()), options, &mut outcome).await?;
        let mut stays = Stays { protected, ..Stays::default() };
        condemn(context, journal, &mut stays, options, work, &mut outcome).await?;
        if options.grace.is_zero() && outcome.findings.iter().all(|finding| finding.code != "delete-refused") {
            sweep_due(context, journal, (&survey, stays.protected.as_ref()), options, &mut outcome).await?;
        }
        // Reading the catalog is what everything begins with.
        if let Err(error) = journal.checkpoint(Due::After(CHECKPOINT)).await {
            tracing::warn!(%error, "a checkpoint of the catalog could not be made");
        }
        for (backup, why) in &outcome.plan.unreadable {
            let text = format!("what it might need stays: {why}");
            outcome.findings.push(Finding::new(Severity::Warning, "backup-unreadable", text).about(backup.to_string()));
        }
        Ok(outcome)
    };
    work.cancel().run_until_cancelled(collecting).await.unwrap_or_else(|| Err(Error::cancelled()))
}

/// What is protected, and the listing that says since when. Nothing is listed where nothing is protected.
async fn look(
    context: &Arc<Context>,
    journal: &Journal<Catalog>,
    options: &CollectOptions,
) -> Result<(Survey, Option<Protected>)> {
    if options.protect.is_zero() {
        return Ok((Survey::default(), None));
    }
    let (generation, before) = journal.refresh_placed().await?;
    let survey = Survey::read(&context.store).await?;
    let protected = Protected::find(context, journal, (generation, &before), &survey, options).await?;
    Ok((survey, Some(protected)))
}

/// Makes backups of what hosts that only write have deposited: what these build on is needed then.
async fn adopt(context: &Arc<Context>, journal: &Journal<Catalog>, work: &Work, outcome: &mut Collected) -> Result<()> {
    let adoption = deposit::adopt::adopt(context, journal, work).await?;
    for refused in adoption.refused {
        let text = format!("what host {} has deposited is no backup: {}", refused.host, refused.text);
        let finding = Finding::new(Severity::Warning, "deposit-refused", text);
        outcome.findings.push(finding.about(format!("session {}", refused.session)));
    }
    Ok(())
}

/// The sessions that end with a deposit of which `catalog`, which is younger than `survey`, knows nothing.
async fn deposits(context: &Context, catalog: &Catalog, survey: &Survey) -> Result<BTreeSet<SessionId>> {
    let deposited = survey.folders.iter().filter(|(_, folder)| folder.deposited);
    let deposited = deposited.map(|(session, _)| *session).collect();
    deposit::adopt::unadopted(context, catalog, deposited).await
}

fn fence(session: SessionId, at: jiff::Timestamp) -> Event {
    Event::SessionClosed { session, at, reason: CloseReason::Fenced }
}

/// Sweeps the collections whose grace has passed, and those whose sweep has begun.
async fn sweep_due(
    context: &Arc<Context>,
    journal: &Journal<Catalog>,
    (survey, protected): (&Survey, Option<&Protected>),
    options: &CollectOptions,
    outcome: &mut Collected,
) -> Result<()> {
    let catalog = journal.refresh().await?;
    let now = context.env.now();
    let grace = signed(options.grace);
    for collection in catalog.collections() {
        let number = collection.condemned.number;
        // What entries say of times may be forged, and that a sweep has begun as well.
        let early = protected.is_some_and(|protected| protected.condemned_for(number, survey) < grace);
        if early {
            continue;
        }
        let due = now.duration_since(collection.at) >= grace;
        if collection.sweeping.is_none() {
            if !due {
                continue;
            }
            // Somebody may have withdrawn or begun it meanwhile.
            let begun = journal.commit_by(|_, catalog| {
                let pending = catalog.collections().find(|other| other.condemned.number == number);
                let begin = pending.is_some_and(|pending| pending.sweeping.is_none());
                Ok(begin.then_some(Event::SweepBegun { collection: number, at: now }).into_iter().collect())
            });
            let (_, catalog) = begun.await?;
            if catalog.collections().all(|other| other.condemned.number != number) {
                continue;
            }
        }
        let stays = |name: &ObjectName, at: Option<jiff::Timestamp>| {
            protected.is_some_and(|protected| protected.has(name, at.unwrap_or(jiff::Timestamp::MAX)))
        };
        let swept = sweep::sweep(context, &catalog, &collection.condemned, &stays).await?;
        outcome.deleted += swept.deleted;
        if let Some(finding) = swept.refused {
            outcome.findings.push(finding);
            return Ok(());
        }
        if swept.kept > 0 {
            let text = format!(
                "{} objects that it names are younger than is protected, or needed by a backup that is, and stay",
                swept.kept
            );
            let finding = Finding::new(Severity::Warning, "collection-protected", text);
            outcome.findings.push(finding.about(format!("collection {number}")));
            continue;
        }
        let at = context.env.now();
        journal
            .commit_by(|_, catalog| {
                let pending = catalog.collections().any(|other| other.condemned.number == number);
                Ok(pending.then_some(Event::Swept { collection: number, at }).into_iter().collect())
            })
            .await?;
        outcome.swept.push(number);
    }
    Ok(())
}

/// Fences who is silent, works out what nobody needs, and condemns it.
async fn condemn(
    context: &Arc<Context>,
    journal: &Journal<Catalog>,
    stays: &mut Stays,
    options: &CollectOptions,
    work: &Work,
    outcome: &mut Collected,
) -> Result<()> {
    // Listed before the catalog is read: what was listed belongs to a session that is known then.
    let survey = &Survey::read(&context.store).await?;
    let now = context.env.now();
    let (generation, catalog) = journal.refresh_placed().await?;
    stays.witnessed = witnessed::find(context, (generation, &catalog), survey).await?;
    stays.deposited = deposits(context, &catalog, survey).await?;
    let mut fenced = Vec::new();
    journal
        .commit_by(|_, catalog| {
            fenced = plan::silent(catalog, survey, (options, &stays.witnessed), now);
            Ok(fenced.iter().map(|session| fence(*session, now)).collect())
        })
        .await?;
    for _ in 0..TRIES {
        work.checkpoint()?;
        let catalog = journal.refresh().await?;
        let Worked { catalog, mut garbage, sparse, plan } =
            work_out(context, catalog, (survey, stays), options, work).await?;
        outcome.plan = plan;
        outcome.plan.fenced = fenced.clone();
        let (pins, session, moves) = match sparse.is_empty() {
            true => (catalog.pins(), None, Vec::new()),
            false => match copy(context, journal, &catalog, sparse, work).await? {
                Some(copied) => copied,
                None => continue,
            },
        };
        for moved in &moves {
            garbage.packs.entry(moved.from.session).or_default().0.insert(moved.from.number);
        }
        if garbage.is_empty() {
            return give_up(context, journal, session).await;
        }
        let mut condemned = Condemned::default();
        condemned.pins = pins;
        condemned.packs = garbage.session_packs();
        condemned.log = garbage.log;
        condemned.session = session;
        condemned.moves = moves;
        let copied = outcome.plan.repacked_bytes.saturating_sub(outcome.plan.copied_bytes);
        condemned.bytes = garbage.bytes + garbage.log_bytes + copied;
        let mut stale = false;
        let committed = journal.commit_by(|_, catalog| {
            stale = catalog.pins() != pins;
            if stale {
                return Ok(Vec::new());
            }
            condemned.number = catalog.next_collection();
            Ok(vec![Event::Condemned { collection: Box::new(condemned.clone()), at: context.env.now() }])
        });
        match committed.await {
            Ok(_) if stale => {
                give_up(context, journal, session).await?;
                continue;
            }
            Ok(_) => {}
            // Somebody else has condemned some of it, or our session was taken for dead.
            Err(error) if error.kind() == crate::error::ErrorKind::Conflict => {
                tracing::debug!(%error, "a collection does not fit any more");
                continue;
            }
            Err(error) => return Err(error),
        }
        tracing::info!(number = condemned.number, bytes = condemned.bytes, "what nobody needs was condemned");
        outcome.condemned = Some(condemned.number);
        return Ok(());
    }
    Err(Error::conflict("backups are begun faster than it can be worked out what is needed"))
}

/// Says that a session of copies that came to nothing has ended. Who is killed before is fenced one day.
async fn give_up(context: &Context, journal: &Journal<Catalog>, session: Option<SessionId>) -> Result<()> {
    let Some(session) = session else { return Ok(()) };
    // Not as abandoned: nobody can build on it.
    journal.commit(vec![fence(session, context.env.now())]).await.map(drop)
}

/// Copies what is needed of `sparse`, in a session of its own. None when something was pinned since `catalog`.
async fn copy(
    context: &Arc<Context>,
    journal: &Journal<Catalog>,
    catalog: &Catalog,
    sparse: Vec<Sparse>,
    work: &Work,
) -> Result<Option<(u64, Option<SessionId>, Vec<PackMove>)>> {
    let session = SessionId::mint(&context.env);
    let before = catalog.pins();
    let mut stale = false;
    let opened = journal.commit_by(|_, catalog| {
        stale = catalog.pins() != before;
        let opened = Event::SessionOpened { session, at: context.env.now(), parent: None, adopted: Vec::new() };
        Ok(if stale { Vec::new() } else { vec![opened] })
    });
    let (_, after) = opened.await?;
    if stale {
        return Ok(None);
    }
    match repack::copy(context, session, sparse, work).await {
        Ok(moves) => Ok(Some((after.pins(), Some(session), moves))),
        Err(error) => {
            if let Err(second) = give_up(context, journal, Some(session)).await {
                tracing::debug!(%second, "a session of copies could not be ended");
            }
            Err(error)
        }
    }
}

async fn work_out(
    context: &Arc<Context>,
    catalog: Arc<Catalog>,
    (survey, stays): (&Survey, &Stays),
    options: &CollectOptions,
    work: &Work,
) -> Result<Worked> {
    work.started(Phase::Inspect, None, Unit::Items);
    let need = need::find(context, &catalog, (survey, options), stays).await?;
    let garbage = plan::garbage(&catalog, survey, (&need, stays.protected.as_ref()), options);
    let mut plan = CollectionPlan::default();
    // Which segments a backup needs that cannot be read is not known: then nothing is copied.
    let readable = need.unreadable.is_empty();
    let mut candidates = BTreeSet::new();
    if readable && options.dead_percent <= 100 {
        candidates = plan::partly_dead(&catalog, survey, &need);
    }
    let mut reseal = BTreeSet::new();
    if readable && options.reseal > 0 {
        let mut room = options.reseal;
        for (pack, len) in repack::outdated(context, plan::movable(survey, &need), work).await? {
            // One pack at least, however large.
            if len <= room || reseal.is_empty() {
                room = room.saturating_sub(len);
                reseal.insert(pack);
            } else {
                room = 0;
                plan.outdated += 1;
            }
        }
    }
    let sparse = match candidates.is_empty() && reseal.is_empty() {
        true => Vec::new(),
        false => {
            let records = plan::kept(&catalog).into_iter().cloned().collect();
            repack::choose(context, &catalog, records, (candidates, &reseal), options, work).await?
        }
    };
    plan.resealed = sparse.iter().filter(|sparse| sparse.resealed).count() as u64;
    work.ended(Phase::Inspect);
    let (now, mut due, mut waiting) = (context.env.now(), Vec::new(), Vec::new());
    for collection in catalog.collections() {
        let passed = now.duration_since(collection.at) >= signed(options.grace);
        let list = if collection.sweeping.is_some() || passed { &mut due } else { &mut waiting };
        list.push(collection.condemned.number);
    }
    (plan.packs, plan.bytes) = (garbage.objects, garbage.bytes);
    plan.repacked = sparse.len() as u64;
    plan.repacked_bytes = sparse.iter().map(Sparse::len).sum();
    plan.copied_bytes = sparse.iter().map(|sparse| sparse.live).sum();
    (plan.log_objects, plan.log_bytes) = (garbage.log_objects, garbage.log_bytes);
    (plan.due, plan.waiting) = (due, waiting);
    plan.unreadable = need.unreadable;
    Ok(Worked { catalog, garbage, sparse, plan })
}
