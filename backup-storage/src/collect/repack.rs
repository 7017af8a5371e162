//! Copying what is needed of packs of which most is not, and of packs that are sealed in an earlier epoch.
//!
//! Segments keep their numbers behind a base, so that no manifest has to change: the catalog says where a pack's segments are. Each
//! segment is opened and sealed anew, since its key belongs to the object that it is in; it is not compressed again. A copy says in a segment of its own what was
//! copied into it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use backup_core::SessionId;
use backup_core::catalog::{BackupRecord, Catalog, PackId, PackMove};
use backup_core::engine::Work;
use backup_core::repository::CollectOptions;
use backup_crypto::EpochId;

use super::moves;
use super::need::{self, Manifests};
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::fetch::{PackCache, Places, blocking};
use crate::pack::{Compressor, FinishedPack, PackBuilder, PackIndex, Role, content_id_of};
use crate::store::Created;

/// A pack, and which of its segments are needed.
#[derive(Debug)]
pub(super) struct Sparse {
    pub(super) pack: PackId,
    index: Arc<PackIndex>,
    used: Vec<bool>,
    /// Bytes of the segments that are needed.
    pub(super) live: u64,
    /// Whether it is copied whatever is dead in it.
    pub(super) resealed: bool,
}

impl Sparse {
    /// Bytes of its object.
    pub(super) fn len(&self) -> u64 {
        self.index.object_len()
    }
}

/// The packs among `movable` that are sealed in an earlier epoch, those of the oldest first, and of one epoch the oldest.
///
/// One pack of each session is looked at: a session stays in its epoch. What hosts that only write have deposited is sealed in none.
pub(super) async fn outdated(
    context: &Arc<Context>,
    movable: impl Iterator<Item = (PackId, u64)>,
    work: &Work,
) -> Result<Vec<(PackId, u64)>> {
    let cache = PackCache::new(Arc::clone(context), Places::Found(Arc::default()));
    let current = context.keyring.current();
    let mut epochs: BTreeMap<SessionId, Option<EpochId>> = BTreeMap::new();
    let mut found = Vec::new();
    for (pack, len) in movable {
        work.checkpoint()?;
        let epoch = match epochs.get(&pack.session) {
            Some(known) => *known,
            None => {
                let epoch = match cache.index(pack).await {
                    Ok(index) => Some(index.epoch()),
                    Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Environment) => None,
                    Err(error) => return Err(error),
                };
                // Another pack of the session may be readable.
                if epoch.is_some() {
                    epochs.insert(pack.session, epoch);
                }
                epoch
            }
        };
        if let Some(epoch) = epoch.filter(|epoch| *epoch < current) {
            found.push((epoch, pack, len));
        }
    }
    found.sort_unstable();
    Ok(found.into_iter().map(|(_, pack, len)| (pack, len)).collect())
}

/// The packs among `candidates` of which enough is dead, and those among `reseal` of which anything is needed.
pub(super) async fn choose(
    context: &Arc<Context>,
    catalog: &Arc<Catalog>,
    records: Vec<BackupRecord>,
    (candidates, reseal): (BTreeSet<PackId>, &BTreeSet<PackId>),
    options: &CollectOptions,
    work: &Work,
) -> Result<Vec<Sparse>> {
    // Objects as they lie there, by their own names.
    let cache = PackCache::new(Arc::clone(context), Places::Found(Arc::default()));
    let mut indices = BTreeMap::new();
    let mut used = BTreeMap::new();
    for pack in candidates.into_iter().chain(reseal.iter().copied()).collect::<BTreeSet<_>>() {
        work.checkpoint()?;
        match cache.index(pack).await {
            Ok(index) => {
                used.insert(pack, vec![false; index.segments().len()]);
                indices.insert(pack, index);
            }
            // What is wrong with it is for verification to say; it stays as it is.
            Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Environment) => {
                tracing::warn!(%error, %pack, "a pack is not looked at for what is dead in it");
            }
            Err(error) => return Err(error),
        }
    }
    need::mark_all(&Manifests::new(context, catalog), records, &mut used).await?;
    let mut chosen = Vec::new();
    for (pack, used) in used {
        let Some(index) = indices.remove(&pack) else { continue };
        let len = |wanted: bool| {
            let rows = index.segments().iter().zip(&used).filter(|(_, used)| **used == wanted);
            rows.map(|(segment, _)| u64::from(segment.stored_len)).sum::<u64>()
        };
        let (live, dead) = (len(true), len(false));
        // One that nobody uses at all was told to be used, so something is not understood: it stays.
        let resealed = reseal.contains(&pack);
        let sparse = dead.saturating_mul(100) >= u64::from(options.dead_percent).saturating_mul(live + dead);
        if live > 0 && (sparse || resealed) {
            chosen.push(Sparse { pack, index, used, live, resealed });
        }
    }
    Ok(chosen)
}

/// Copies what is needed of `packs` into packs of `session`.
///
/// A pack that cannot be read as it should is left out.
pub(super) async fn copy(
    context: &Arc<Context>,
    session: SessionId,
    packs: Vec<Sparse>,
    work: &Work,
) -> Result<Vec<PackMove>> {
    // A new epoch that begins meanwhile is for others.
    let context = &context.pinned();
    let mut all = Vec::new();
    let mut filling: Option<Filling> = None;
    let mut number = 0;
    for sparse in packs {
        work.checkpoint()?;
        let segments = match fetch(context, &sparse).await {
            Ok(segments) => segments,
            Err(error) if error.kind() == ErrorKind::Damaged => {
                tracing::warn!(%error, pack = %sparse.pack, "a pack cannot be copied");
                continue;
            }
            Err(error) => return Err(error),
        };
        let mut current = match filling.take() {
            Some(filling) => filling,
            None => {
                let id = PackId { session, number };
                number += 1;
                Filling { id, builder: PackBuilder::new(id, &context.keyring, Vec::new())?, moves: Vec::new() }
            }
        };
        let keyring = context.keyring.clone();
        let full = context.shape.pack_size;
        current = blocking(move || {
            current.add(&sparse, segments, &keyring.hash_key(keyring.current())?)?;
            Ok(current)
        })
        .await?;
        if current.builder.len() >= full {
            all.extend(finish(context, current).await?);
        } else {
            filling = Some(current);
        }
    }
    if let Some(last) = filling {
        all.extend(finish(context, last).await?);
    }
    Ok(all)
}

/// A segment on its way from one pack into another.
struct Segment {
    /// As its codec left it.
    packed: Vec<u8>,
    plain: Vec<u8>,
}

/// Reads and opens what is needed of a pack.
async fn fetch(context: &Arc<Context>, sparse: &Sparse) -> Result<BTreeMap<u32, Segment>> {
    let wanted: Vec<u32> = (0..).zip(&sparse.used).filter(|(_, used)| **used).map(|(number, _)| number).collect();
    let ranges = wanted.iter().map(|segment| sparse.index.range(*segment)).collect::<Result<Vec<_>>>()?;
    let sealed = context.store.get_ranges(sparse.index.name(), &ranges).await?;
    let index = Arc::clone(&sparse.index);
    blocking(move || {
        let mut scratch = crate::pack::Scratch::new()?;
        let mut segments = BTreeMap::new();
        for (segment, sealed) in wanted.into_iter().zip(sealed) {
            let mut plain = Vec::new();
            index.open(segment, &sealed, &mut scratch, &mut plain)?;
            segments.insert(segment, Segment { packed: scratch.packed().to_vec(), plain });
        }
        Ok(segments)
    })
    .await
}

/// A copy that is being filled.
struct Filling {
    id: PackId,
    builder: PackBuilder,
    moves: Vec<PackMove>,
}

impl Filling {
    fn add(
        &mut self,
        sparse: &Sparse,
        mut segments: BTreeMap<u32, Segment>,
        hash: &backup_crypto::HashKey,
    ) -> Result<()> {
        let base = self.builder.segments();
        for (number, info) in (0..).zip(sparse.index.segments()) {
            match segments.remove(&number) {
                Some(Segment { packed, plain }) => {
                    // The hash key is that of the copy's epoch, which need not be the original's.
                    let id = content_id_of(hash, &plain);
                    self.builder.push(info.role, info.codec, &packed, plain.len(), id)?;
                }
                None => self.builder.skip()?,
            }
        }
        let count = self.builder.segments() - base;
        self.moves.push(PackMove { from: sparse.pack, to: self.id, base, count });
        Ok(())
    }
}

async fn finish(context: &Arc<Context>, filling: Filling) -> Result<Vec<PackMove>> {
    let keyring = context.keyring.clone();
    let level = context.shape.level;
    let (moves, pack) = blocking(move || {
        let Filling { mut builder, moves, .. } = filling;
        let list = moves::encode(&moves)?;
        let id = content_id_of(&keyring.hash_key(keyring.current())?, &list);
        builder.add(Role::Moves, &mut Compressor::new(level)?, &list, id)?;
        Ok((moves, builder.finish()?))
    })
    .await?;
    let FinishedPack { name, object } = pack;
    match context.store.create(&name, object).await? {
        Created::New | Created::AlreadyOurs => Ok(moves),
        Created::Conflict => Err(Error::conflict(format!("object {name} was written by somebody else"))),
    }
}
