//! Further regions: another vault that holds the same repository, object for object.
//!
//! Every object is written once and bears its name in its key, so a copy is as good as the original, and whoever copies needs not open it. What matters
//! is the order: content first, then the entries of the journal that make it count, one after the other, then the witnesses. So at any moment the region
//! holds a prefix of the history, and content for all of it but for what was swept since. Killed anywhere, the next run goes on.
//!
//! What a sweep took away here goes there when its last entry is copied, and nothing else is ever deleted there but old checkpoints of the
//! journal: objects that are merely missing here are what a second region is for.
//!
//! A region is opened like any repository, and read. A mark keeps everybody from writing to it, who would make it a repository of its own: that is
//! [promoted](promote) on purpose, and from its first entry on a run is refused, because the two have gone different ways.

mod quorum;

pub(crate) use quorum::reach;
pub use quorum::{Quorum, QuorumHeld};

use std::collections::BTreeMap;
use std::sync::Arc;

use backup_core::catalog::{Catalog, CloseReason, Condemned, Event, SessionState};
use backup_core::engine::Work;
use backup_core::observe::{Phase, Unit};
use backup_core::{BackupId, Finding, Lineage, SessionId, Severity};
use futures::TryStreamExt;
use futures::stream::{self, StreamExt};
use jiff::Timestamp;

use crate::collect::sweep;
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::Journal;
use crate::keys;
use crate::layout::{self, SessionObject};
use crate::log::stored::Stored;
use crate::store::{Created, ObjectName, Store};

/// How often a run begins again because something was swept under its hands.
const TRIES: u32 = 4;

/// How far a region is.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct RegionState {
    /// Entries of the journal that are here and not there.
    pub entries_behind: u64,
    /// Backups that are kept here and not known there: lost if only the region is left.
    pub missing: Vec<BackupId>,
    /// The newest backup that is known there.
    pub newest: Option<BackupId>,
    /// When the last entry there was written: what happened since is not there.
    pub until: Option<Timestamp>,
    /// For each lineage of log, up to where it is stored here and there.
    pub log: BTreeMap<Lineage, LogLag>,
}

/// Up to where the log of a lineage is stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct LogLag {
    /// The offset behind the last one that is stored here.
    pub here: u64,
    /// The offset behind the last one that is stored there.
    pub there: u64,
}

/// What a run copied.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Replicated {
    /// Objects that were copied.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Entries of the journal among them.
    pub entries: u64,
    /// Objects that were deleted there because they had been swept here.
    pub deleted: u64,
    /// What was noticed: deletions that were refused there.
    pub findings: Vec<Finding>,
    /// How far the region is afterwards.
    pub region: RegionState,
}

/// Copies what `there` lacks.
///
/// # Errors
/// Conflict, when what lies there is not a part of the same history. Those of both stores.
pub(crate) async fn replicate(
    context: &Arc<Context>,
    journal: &Journal<Catalog>,
    there: &Store,
    work: &Work,
) -> Result<Replicated> {
    let replicating = async {
        let mut done = Replicated::default();
        let mut tries = 0;
        loop {
            tries += 1;
            match once(context, journal, there, work, &mut done).await {
                // It was swept after it had been listed.
                Err(error) if error.is_not_found() && tries < TRIES => {}
                outcome => break outcome?,
            }
        }
        done.region = region(context, journal, there).await?;
        Ok(done)
    };
    work.cancel().run_until_cancelled(replicating).await.unwrap_or_else(|| Err(Error::cancelled()))
}

async fn once(
    context: &Arc<Context>,
    journal: &Journal<Catalog>,
    there: &Store,
    work: &Work,
    done: &mut Replicated,
) -> Result<()> {
    // The entries before the state and the objects: whatever these entries need is known to it, and listed after them.
    let entries = journal.listing().await?;
    let catalog = journal.refresh().await?;
    let here = names(&context.store).await?;
    let mut copied = names(there).await?;
    let copy = Copy { context, there, work };
    let description = layout::repository()?;
    copy.same(&description, &copied).await?;
    copied.insert(description, 0);

    let wanted = here.iter().filter(|(name, _)| !copied.contains_key(*name) && counts(&catalog, name));
    let wanted: Vec<_> = wanted.map(|(name, size)| (name.clone(), *size)).collect();
    work.started(Phase::Upload, Some(wanted.iter().map(|(_, size)| size).sum()), Unit::Bytes);
    copy.all(wanted, done).await?;
    copy.entries(journal, &entries, (&here, &copied), &catalog, done).await?;
    // Whoever was removed here opens nothing there either.
    let tidied = keys::tidy(&copy.region(), catalog.keys()).await?;
    done.deleted += tidied.deleted;
    done.findings.extend(tidied.left.into_iter().map(|left| {
        let finding = Finding::new(Severity::Warning, "delete-refused", left.reason);
        finding.about(left.object).in_surroundings()
    }));
    let witnesses = here.iter().filter(|(name, _)| !copied.contains_key(*name) && is_witness(&catalog, name));
    copy.all(witnesses.map(|(name, size)| (name.clone(), *size)).collect(), done).await?;
    // Of the entries that are there.
    let known = |name: &&ObjectName| {
        let place = layout::checkpoint_place(name.as_str());
        place.is_some_and(|(generation, number)| entries.get(&generation).and_then(|all| all.last()) >= Some(&number))
    };
    let checkpoints = here.iter().filter(|(name, _)| known(name) && !copied.contains_key(*name));
    copy.all(checkpoints.map(|(name, size)| (name.clone(), *size)).collect(), done).await?;
    let spare = |name: &&ObjectName| layout::checkpoint_place(name.as_str()).is_some() && !here.contains_key(*name);
    for name in copied.keys().filter(spare) {
        match there.delete(name).await {
            Ok(()) => {}
            // They do no harm where they are.
            Err(error) if error.kind() == ErrorKind::Environment => break,
            Err(error) => return Err(error),
        }
    }
    work.ended(Phase::Upload);
    Ok(())
}

async fn names(store: &Store) -> Result<BTreeMap<ObjectName, u64>> {
    store.list("").map_ok(|object| (object.name, object.size)).try_collect().await
}

/// Whether an object is copied before the entries are: keys, log, and packs that an entry may need.
fn counts(catalog: &Catalog, name: &ObjectName) -> bool {
    let text = name.as_str();
    match layout::session_object(text) {
        Some(SessionObject::Pack(id)) => is_needed(catalog, id.session),
        Some(_) => false,
        None => {
            let wrap = layout::key_place(text).is_some() && catalog.keys().gone().all(|gone| gone.name != text);
            wrap || layout::epoch_place(text).is_some() || crate::log::name::parse(text).is_some()
        }
    }
}

/// Whether an object is a part of a repository.
fn is_ours(name: &ObjectName) -> bool {
    let text = name.as_str();
    layout::session_object(text).is_some()
        || layout::entry_place(text).is_some()
        || layout::key_place(text).is_some()
        || crate::log::name::parse(text).is_some()
}

/// Whether packs of `session` belong to a backup. What is under way comes when it is committed.
fn is_needed(catalog: &Catalog, session: SessionId) -> bool {
    match catalog.session(session) {
        Some(SessionState::Committed(_) | SessionState::Closed(CloseReason::Repacked)) => true,
        Some(SessionState::Closed(_)) => {
            let expired = catalog.expired().filter_map(|(_, expired)| expired.record.as_deref());
            catalog.backups().chain(expired).any(|backup| backup.reused.contains(&session))
        }
        _ => false,
    }
}

fn is_witness(catalog: &Catalog, name: &ObjectName) -> bool {
    match layout::session_object(name.as_str()) {
        Some(SessionObject::Witness(session) | SessionObject::Deposit(session) | SessionObject::Answer(session)) => {
            is_needed(catalog, session)
        }
        _ => false,
    }
}

struct Copy<'a> {
    context: &'a Arc<Context>,
    there: &'a Store,
    work: &'a Work,
}

impl Copy<'_> {
    /// Makes sure that an object is there with the same bytes.
    async fn same(&self, name: &ObjectName, copied: &BTreeMap<ObjectName, u64>) -> Result<()> {
        let own = self.context.store.get(name).await?;
        if copied.contains_key(name) {
            return match self.there.get(name).await? == own {
                true => Ok(()),
                false => Err(another(name)),
            };
        }
        // The description is the first that is copied. What a probe has left behind is nothing.
        if copied.keys().any(is_ours) {
            return Err(Error::conflict("something that is no region of this repository lies there"));
        }
        self.there.probe_exclusive_create().await?;
        // The mark is there before anything that somebody could go on with. It is set once: a region that was promoted stays so.
        let mark = ObjectName::new(layout::REGION)?;
        let text = format!("a region of repository {}\n", self.context.keyring.repository());
        let (Created::New | Created::AlreadyOurs | Created::Conflict) =
            self.there.create(&mark, text.into_bytes()).await?;
        self.put(name, own).await
    }

    async fn put(&self, name: &ObjectName, object: bytes::Bytes) -> Result<()> {
        match self.there.create(name, object).await? {
            Created::New | Created::AlreadyOurs => Ok(()),
            Created::Conflict => Err(another(name)),
        }
    }

    /// Copies objects, several at a time.
    async fn all(&self, objects: Vec<(ObjectName, u64)>, done: &mut Replicated) -> Result<()> {
        let mut copies = stream::iter(objects)
            .map(|(name, _)| async move {
                self.work.checkpoint()?;
                let object = self.context.store.get(&name).await?;
                let len = object.len() as u64;
                self.put(&name, object).await?;
                Ok::<_, Error>(len)
            })
            .buffer_unordered(self.context.shape.transfers)
            .boxed();
        while let Some(len) = copies.try_next().await? {
            self.work.advanced(Phase::Upload, len);
            done.objects += 1;
            done.bytes += len;
        }
        Ok(())
    }

    /// Copies the entries of the journal in their order. What they say has been swept is deleted before.
    async fn entries(
        &self,
        journal: &Journal<Catalog>,
        entries: &BTreeMap<u32, Vec<u64>>,
        (here, copied): (&BTreeMap<ObjectName, u64>, &BTreeMap<ObjectName, u64>),
        catalog: &Catalog,
        done: &mut Replicated,
    ) -> Result<()> {
        let known = copied.keys().filter_map(|name| layout::entry_place(name.as_str())).max();
        let mut condemned: BTreeMap<u64, Condemned> = BTreeMap::new();
        if let Some(last) = known {
            self.agree(last).await?;
            let other = other(self.context, self.there).refresh().await?;
            let pending = other.collections().map(|pending| (pending.condemned.number, pending.condemned.clone()));
            condemned.extend(pending);
        }
        let (newest, passed) = journal.passed().await?;
        let all = entries.iter().flat_map(|(generation, numbers)| numbers.iter().map(move |n| (*generation, *n)));
        for (generation, number) in all.filter(|place| known.is_none_or(|known| *place > known)) {
            self.work.checkpoint()?;
            // Numbers of collections begin anew with each generation.
            if number == 1 {
                condemned.clear();
            }
            let name = layout::entry(generation, number)?;
            let object = self.context.store.get(&name).await?;
            // What is no entry has its place in the chain, and says nothing.
            let says_nothing = if generation == newest {
                passed.contains(&number)
            } else {
                !journal.is_vouched(&name, &object).await?
            };
            let events = if says_nothing { Vec::new() } else { journal.open(&name, &object)?.events };
            for event in events {
                match event {
                    Event::Condemned { collection, .. } => {
                        condemned.insert(collection.number, *collection);
                    }
                    Event::CollectionWithdrawn { collection, .. } => {
                        condemned.remove(&collection);
                    }
                    Event::Swept { collection, .. } => {
                        if let Some(condemned) = condemned.remove(&collection) {
                            // What was swept is gone here. Of the rest somebody may only have said so.
                            let stays = |name: &ObjectName, _: Option<Timestamp>| here.contains_key(name);
                            let swept = sweep::sweep(&self.region(), catalog, &condemned, &stays).await?;
                            done.deleted += swept.deleted;
                            done.findings.extend(swept.refused);
                        }
                    }
                    _ => {}
                }
            }
            done.objects += 1;
            done.entries += 1;
            done.bytes += object.len() as u64;
            self.put(&name, object).await?;
        }
        Ok(())
    }

    fn region(&self) -> Context {
        let Context { service, keyring, env, shape, .. } = &**self.context;
        Context {
            service: service.clone(),
            store: self.there.clone(),
            keyring: keyring.clone(),
            env: env.clone(),
            shape: *shape,
        }
    }

    /// Makes sure that the last entry there is the same here. Each has the digest of the one before, so it speaks for all.
    async fn agree(&self, (generation, number): (u32, u64)) -> Result<()> {
        let name = layout::entry(generation, number)?;
        let own = match self.context.store.get(&name).await {
            Ok(own) => own,
            Err(error) if error.is_not_found() => return Err(another(&name)),
            Err(error) => return Err(error),
        };
        if self.there.get(&name).await? == own { Ok(()) } else { Err(another(&name)) }
    }
}

/// Makes a region a repository of its own. Does nothing to one that is.
///
/// # Errors
/// Those of the store.
pub(crate) async fn promote(store: &Store) -> Result<()> {
    store.delete(&ObjectName::new(layout::REGION)?).await
}

/// The journal of a region.
fn other(context: &Context, there: &Store) -> Journal<Catalog> {
    // The epoch that is the present one there need not be the one that is here.
    Journal::new(there.clone(), context.keyring.apart(), context.env.clone())
}

fn another(name: &ObjectName) -> Error {
    Error::conflict(format!("object {name} is another one there: the two have gone different ways, or were never one"))
}

/// How far the region in `there` is.
///
/// # Errors
/// Those of both stores and journals.
pub(crate) async fn region(context: &Arc<Context>, journal: &Journal<Catalog>, there: &Store) -> Result<RegionState> {
    let here = journal.refresh().await?;
    let count = |listing: &BTreeMap<u32, Vec<u64>>| listing.values().map(|numbers| numbers.len() as u64).sum::<u64>();
    let entries = count(&journal.listing().await?);
    let other = other(context, there);
    let copied = other.listing().await?;
    let mut state = RegionState { entries_behind: entries.saturating_sub(count(&copied)), ..RegionState::default() };
    let Some((generation, numbers)) = copied.last_key_value().filter(|(_, numbers)| !numbers.is_empty()) else {
        state.missing = here.backups().map(|backup| backup.id).collect();
        return Ok(state);
    };
    let (_, passed) = other.passed().await?;
    if let Some(last) = numbers.iter().rev().find(|number| !passed.contains(number)) {
        let name = layout::entry(*generation, *last)?;
        state.until = Some(other.open(&name, &there.get(&name).await?)?.at);
    }
    let known = other.refresh().await?;
    state.missing = here.backups().map(|backup| backup.id).filter(|id| known.backup(*id).is_none()).collect();
    state.newest = known.latest().map(|backup| backup.id);
    let ends = async |store: &Store, journal: &Journal<Catalog>| {
        let covered = Stored::survey(store, journal, None).await?.covered();
        let ends = covered.into_iter().filter_map(|(lineage, ranges)| Some((lineage, ranges.last()?.end)));
        Ok::<BTreeMap<_, _>, Error>(ends.collect())
    };
    let there = ends(there, &other).await?;
    for (lineage, end) in ends(&context.store, journal).await? {
        let there = there.get(&lineage).copied().unwrap_or(0);
        state.log.insert(lineage, LogLag { here: end, there });
    }
    Ok(state)
}
