//! Which packs somebody needs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use backup_core::catalog::{BackupRecord, Catalog, CloseReason, PackId, SessionState};
use backup_core::repository::CollectOptions;
use backup_core::{BackupId, SessionId};
use futures::TryStreamExt;
use futures::stream::{self, StreamExt};

use super::plan::signed;
use super::protect::Protected;
use super::survey::Survey;
use crate::context::Context;
use crate::error::{ErrorKind, Result};
use crate::fetch::{PackCache, Places};
use crate::manifest::{Content, Extent};
use crate::reader::BackupReader;
use crate::verify::describe;

/// What must stay.
#[derive(Debug, Default)]
pub(super) struct Need {
    /// Objects that backups need, wherever their manifests say that it is.
    pub(super) live: BTreeSet<PackId>,
    /// Those of them that backups under way build on: they may not be copied either.
    pub(super) pinned: BTreeSet<PackId>,
    /// Sessions of which everything stays.
    pub(super) held: BTreeSet<SessionId>,
    /// Backups whose manifests cannot be read, and why. Everything that they might need stays.
    pub(super) unreadable: Vec<(BackupId, String)>,
}

/// What stays for other reasons than that the catalog says so.
#[derive(Debug, Default)]
pub(super) struct Stays {
    /// What is protected, if anything is.
    pub(super) protected: Option<Protected>,
    /// Sessions that have become backups of which the catalog does not know.
    pub(super) witnessed: BTreeMap<SessionId, BackupId>,
    /// Sessions of hosts that only write that nobody has adopted yet.
    pub(super) deposited: BTreeSet<SessionId>,
}

/// Opens manifests as `catalog` says where they are.
#[derive(Debug, Clone)]
pub(super) struct Manifests {
    context: Arc<Context>,
    cache: Arc<PackCache>,
}

impl Manifests {
    pub(super) fn new(context: &Arc<Context>, catalog: &Arc<Catalog>) -> Self {
        Self::at(context, Places::State(Arc::clone(catalog)))
    }

    /// Opens them as `places` say where they are.
    pub(super) fn at(context: &Arc<Context>, places: Places) -> Self {
        let cache = PackCache::new(Arc::clone(context), places);
        Self { context: Arc::clone(context), cache: Arc::new(cache) }
    }

    async fn open(&self, record: &BackupRecord) -> Result<BackupReader> {
        BackupReader::open(Arc::clone(&self.context), Arc::clone(&self.cache), record.clone()).await
    }

    /// The objects that the backup of `record` needs.
    pub(super) async fn objects(&self, record: &BackupRecord) -> Result<BTreeSet<PackId>> {
        let reader = self.open(record).await?;
        let places = self.cache.places();
        let content = reader.packs().iter().filter(|pack| pack.live > 0).map(|pack| pack.pack);
        let own = reader.manifest_segments().map(|(pack, _)| pack);
        Ok(content.chain(own).map(|pack| places.of(pack, 0).0).collect())
    }

    /// Marks the segments of `objects` that the backup of `record` needs. Memory: a bit for each segment of these.
    pub(super) async fn mark(&self, record: &BackupRecord, objects: &mut BTreeMap<PackId, Vec<bool>>) -> Result<()> {
        let reader = self.open(record).await?;
        let places = self.cache.places();
        let mut mark = |pack: PackId, segment: u32| {
            let (pack, segment) = places.of(pack, segment);
            if let Some(used) = objects.get_mut(&pack).and_then(|used| used.get_mut(segment as usize)) {
                *used = true;
            }
        };
        for (pack, segment) in reader.manifest_segments() {
            mark(pack, segment);
        }
        let parts: Vec<_> = reader.manifest().parts().cloned().collect();
        for part in parts {
            for entry in reader.part(&part).await?.iter() {
                let mut all = |extents: &mut dyn Iterator<Item = &Extent>| -> Result<()> {
                    for extent in extents {
                        let Some(index) = extent.pack_index() else { continue };
                        let pack = reader.pack(index)?;
                        extent.segments(0).for_each(|part| mark(pack, part.segment));
                    }
                    Ok(())
                };
                all(&mut entry.direct_extents())?;
                if let Content::Stored(_) = &entry.content {
                    all(&mut reader.content(entry).await?.iter())?;
                }
            }
        }
        Ok(())
    }
}

/// What must stay by what `catalog` says.
pub(super) async fn find(
    context: &Arc<Context>,
    catalog: &Arc<Catalog>,
    (survey, options): (&Survey, &CollectOptions),
    stays: &Stays,
) -> Result<Need> {
    let manifests = Manifests::new(context, catalog);
    let mut need = Need::default();
    hold(&mut need, catalog, survey, options);
    let pinned: BTreeSet<_> = catalog.pinned().collect();
    let kept = catalog.backups().map(|record| (record, pinned.contains(&record.id)));
    // What has expired and is built on stays until the session that does so has ended.
    let expired = catalog.expired().filter(|(id, _)| pinned.contains(id));
    let expired = expired.filter_map(|(_, expired)| expired.record.as_deref()).map(|record| (record, true));
    let records: Vec<_> = kept.chain(expired).map(|(record, pinned)| (record.clone(), pinned)).collect();
    let mut found = stream::iter(records)
        .map(|(record, pinned)| {
            let manifests = manifests.clone();
            async move {
                let objects = manifests.objects(&record).await;
                (record, pinned, objects)
            }
        })
        .buffer_unordered(context.shape.transfers * 2)
        .boxed();
    while let Some((record, pinned, objects)) = found.next().await {
        match objects {
            Ok(objects) => {
                if pinned {
                    need.pinned.extend(&objects);
                }
                need.live.extend(objects);
            }
            Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Environment) => {
                need.held.insert(record.session);
                need.held.extend(&record.reused);
                need.unreadable.push((record.id, format!("its manifest cannot be read: {}", describe(error))));
            }
            Err(error) => return Err(error),
        }
    }
    for (session, backup) in &stays.witnessed {
        need.held.insert(*session);
        let why = "a witness tells of its commit, and the catalog does not; verify, and build the catalog again";
        need.unreadable.push((*backup, why.to_owned()));
    }
    need.held.extend(&stays.deposited);
    if let Some(protected) = &stays.protected {
        let (packs, sessions) = protected.needed();
        need.live.extend(packs);
        need.pinned.extend(packs);
        need.held.extend(sessions);
    }
    let copies = catalog.moves().filter(|moved| need.held.contains(&moved.from.session));
    let copies: Vec<_> = copies.filter_map(|moved| catalog.locate(moved.from)).map(|moved| moved.to).collect();
    need.live.extend(&copies);
    need.pinned.extend(copies);
    Ok(need)
}

/// Sessions of which everything stays: those that may still become a backup, those they build on, and those that the next backup
/// may build on.
fn hold(need: &mut Need, catalog: &Catalog, survey: &Survey, options: &CollectOptions) {
    let newest = catalog.backups().map(|backup| backup.session).max();
    for (session, state) in catalog.sessions() {
        match state {
            SessionState::Open { adopted, .. } => {
                need.held.insert(session);
                need.held.extend(adopted);
            }
            SessionState::Closed(CloseReason::Abandoned)
                if newest.is_none_or(|newest| session > newest) && !catalog.is_collected(session) =>
            {
                let last = survey.folders.get(&session).and_then(|folder| folder.last);
                if last.is_some_and(|last| survey.since(last) < signed(options.interrupted)) {
                    need.held.insert(session);
                }
            }
            _ => {}
        }
    }
}

/// The records that need `objects` at all, with those marked that they need of each.
pub(super) async fn mark_all(
    manifests: &Manifests,
    records: impl IntoIterator<Item = BackupRecord>,
    objects: &mut BTreeMap<PackId, Vec<bool>>,
) -> Result<()> {
    let records = stream::iter(records.into_iter().map(Ok::<_, crate::error::Error>));
    let all = records.try_fold(objects, |objects, record| async move {
        let needs = manifests.objects(&record).await?;
        if needs.iter().any(|pack| objects.contains_key(pack)) {
            manifests.mark(&record, objects).await?;
        }
        Ok(objects)
    });
    all.await.map(drop)
}
