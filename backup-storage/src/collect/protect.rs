//! What stays whatever the catalog says.
//!
//! Whoever holds the keys can write any entry: that backups have expired, long ago, that what they need is condemned, that this is being
//! swept, and where packs were copied to. With credentials that may not delete that does nothing by itself; the loss would be the deed of
//! whoever collects next. So who collects can be told a time within which nothing is taken away
//! ([`CollectOptions::protect`]), and looks for himself: at the entries that the *store* took within that time, in all generations, one by one, without
//! folding them. Each backup that was committed by one of them keeps all objects that its manifest names, and the original rather than a copy
//! while both are there. When a collection was condemned is then told by the store as well, and that its sweep has begun is nobody's word to take.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use backup_core::SessionId;
use backup_core::catalog::{BackupRecord, Catalog, Event, PackId, PackMove};
use backup_core::repository::CollectOptions;
use futures::stream::{self, StreamExt, TryStreamExt};
use jiff::{SignedDuration, Timestamp};

use super::need::Manifests;
use super::plan::signed;
use super::survey::Survey;
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::fetch::Places;
use crate::journal::Journal;
use crate::layout::{self, SessionObject};
use crate::log::name;
use crate::store::ObjectName;

/// How many entries are read at the same time.
const AHEAD: usize = 16;

/// What stays.
#[derive(Debug, Default)]
pub(super) struct Protected {
    packs: BTreeSet<PackId>,
    /// Everything of these stays.
    sessions: BTreeSet<SessionId>,
    /// Log that was stored later than this stays.
    log_after: Option<Timestamp>,
    /// When collections were condemned, by the store's clock, as far as that is not longer ago than anybody asks.
    condemned: BTreeMap<u64, Timestamp>,
    /// The first collection that was not known when everything was listed.
    unknown: u64,
}

/// What the young entries of the journal say.
#[derive(Debug, Default)]
struct Told {
    records: Vec<BackupRecord>,
    condemned: BTreeMap<u64, Timestamp>,
}

impl Protected {
    /// What `options` protect; nothing more than `catalog` knows, which is older than `survey`.
    ///
    /// # Errors
    /// Those of the store. Environment, when a young entry was written by a newer version.
    pub(super) async fn find(
        context: &Arc<Context>,
        journal: &Journal<Catalog>,
        (generation, catalog): (u32, &Catalog),
        survey: &Survey,
        options: &CollectOptions,
    ) -> Result<Self> {
        let Told { records, condemned } = tell(context, journal, survey, generation, options).await?;
        let log_after = survey.newest.and_then(|newest| newest.checked_sub(signed(options.protect)).ok());
        let mut protected = Self { log_after, condemned, unknown: catalog.next_collection(), ..Self::default() };
        // Where both are there, the original is what was written first.
        let gone = |pack: &PackId| {
            let folder = survey.folders.get(&pack.session);
            folder.is_none_or(|folder| !folder.packs.contains_key(&pack.number))
        };
        let moves: BTreeMap<PackId, PackMove> =
            catalog.moves().filter(|moved| gone(&moved.from)).map(|moved| (moved.from, *moved)).collect();
        let manifests = Manifests::at(context, Places::Found(Arc::new(moves)));
        let mut found = stream::iter(records)
            .map(|record| {
                let manifests = manifests.clone();
                async move {
                    let objects = manifests.objects(&record).await;
                    (record, objects)
                }
            })
            .buffer_unordered(context.shape.transfers * 2)
            .boxed();
        while let Some((record, objects)) = found.next().await {
            match objects {
                Ok(objects) => protected.packs.extend(objects),
                Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Environment) => {
                    protected.sessions.insert(record.session);
                    protected.sessions.extend(&record.reused);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(protected)
    }

    /// The objects that stay, and the sessions of which everything does.
    pub(super) fn needed(&self) -> (&BTreeSet<PackId>, &BTreeSet<SessionId>) {
        (&self.packs, &self.sessions)
    }

    /// Whether a piece of log that was stored at `at` stays.
    pub(super) fn has_log(&self, at: Timestamp) -> bool {
        self.log_after.is_none_or(|after| at > after)
    }

    /// Whether the object stays.
    pub(super) fn has(&self, object: &ObjectName, at: Timestamp) -> bool {
        match layout::session_object(object.as_str()) {
            Some(SessionObject::Pack(id)) => self.packs.contains(&id) || self.sessions.contains(&id.session),
            // What tells of a backup stays as long as anything of it does.
            Some(
                SessionObject::Witness(session)
                | SessionObject::Alive(session)
                | SessionObject::Deposit(session)
                | SessionObject::Answer(session),
            ) => {
                let all = PackId { session, number: 0 }..=PackId { session, number: u32::MAX };
                self.sessions.contains(&session) || self.packs.range(all).next().is_some()
            }
            None => name::parse(object.as_str()).is_some() && self.has_log(at),
        }
    }

    /// How long ago a collection was condemned, by the store's clock.
    pub(super) fn condemned_for(&self, number: u64, survey: &Survey) -> SignedDuration {
        let long_ago = if number < self.unknown { SignedDuration::MAX } else { SignedDuration::ZERO };
        self.condemned.get(&number).map_or(long_ago, |at| survey.since(*at))
    }
}

/// Reads the entries that the store took within the time that is protected, or within the grace.
async fn tell(
    context: &Arc<Context>,
    journal: &Journal<Catalog>,
    survey: &Survey,
    present: u32,
    options: &CollectOptions,
) -> Result<Told> {
    let within = signed(options.protect.max(options.grace));
    let young = survey.entries.iter().filter(|(.., at)| survey.since(*at) < within).copied();
    let mut entries = stream::iter(young)
        .map(|(generation, number, at)| async move {
            let name = layout::entry(generation, number)?;
            let object = context.store.get(&name).await?;
            let events = match journal.open(&name, &object) {
                Ok(entry) => entry.events,
                Err(error) if error.kind() == ErrorKind::Damaged => Vec::new(),
                Err(_) if !journal.is_vouched(&name, &object).await? => Vec::new(),
                Err(error) => return Err(error),
            };
            Ok::<_, Error>((generation, at, events))
        })
        .buffered(AHEAD)
        .boxed();
    let mut told = Told::default();
    while let Some((generation, at, events)) = entries.try_next().await? {
        let protects = survey.since(at) < signed(options.protect);
        for event in events {
            match event {
                Event::BackupCommitted { record } | Event::BackupRecovered { record } if protects => {
                    told.records.push(*record);
                }
                Event::DepositAdopted { deposit, .. } if protects => told.records.push(deposit.record),
                Event::Condemned { collection, .. } if generation == present => {
                    told.condemned.insert(collection.number, at);
                }
                _ => {}
            }
        }
    }
    Ok(told)
}
