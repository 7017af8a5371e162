//! Finding complete manifests in packs.

use std::collections::BTreeMap;
use std::sync::Arc;

use backup_core::SessionId;
use backup_core::catalog::{BackupRecord, ManifestRef, PackId, PackMove};
use backup_core::engine::Work;
use backup_core::observe::Phase;
use bytes::Bytes;
use futures::stream::{self, StreamExt};

use super::deposits::{self, FoundDeposit};
use super::{RecoveredBackup, Skipped};
use crate::collect::moves;
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::fetch::{PackCache, Places};
use crate::layout;
use crate::manifest::Root;
use crate::pack::Role;
use crate::reader::BackupReader;
use crate::verify::Listing;
use crate::witness::{self, Witness};

/// What was found in packs.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) backups: Vec<RecoveredBackup>,
    pub(super) skipped: Vec<Skipped>,
    /// Packs that are gone, and what was copied of them.
    pub(super) moves: BTreeMap<PackId, PackMove>,
    /// The keys of what hosts that only write have deposited.
    pub(super) deposits: BTreeMap<SessionId, FoundDeposit>,
    /// The newest generation of the journal that a witness tells of; 1 when none does.
    pub(super) generation: u32,
}

/// A root, and where it stands.
#[derive(Debug)]
struct Candidate {
    root: Root,
    place: ManifestRef,
}

/// An object that is left out because of `error`, unless that says nothing about the object.
///
/// # Errors
/// `error` itself, when it is about the surroundings.
pub(super) fn skipped(object: &str, error: Error) -> Result<Skipped> {
    match error.kind() {
        // The key of another epoch, or a newer version: somebody else may be able to read it.
        ErrorKind::Damaged | ErrorKind::Environment => {
            let error = backup_core::Error::from(error);
            let reason = std::iter::once(error.message().to_owned()).chain(error.causes()).collect::<Vec<_>>();
            Ok(Skipped { object: object.to_owned(), reason: reason.join(": ") })
        }
        _ => Err(error),
    }
}

/// What the footer of a pack leads to.
#[derive(Debug, Default)]
struct Looked {
    /// Roots, with the pack and the segment where manifests say that they are.
    roots: Vec<(PackId, u32, Bytes)>,
    moves: Vec<PackMove>,
}

/// Reads the footers of all packs, and the manifests that they lead to.
pub(super) async fn find(context: &Arc<Context>, listing: &Listing, work: &Work) -> Result<Found> {
    let mut found = Found { generation: 1, ..Found::default() };
    let mut witnesses = BTreeMap::new();
    for session in &listing.witnesses {
        if let Some(witness) = witness_of(context, *session).await? {
            found.generation = found.generation.max(witness.place.generation);
            witnesses.insert(*session, witness.backup);
        }
    }
    let witnessed = witnesses.keys().copied().collect();
    found.deposits = deposits::find(context, listing, &witnessed, &mut found.skipped).await?;
    // Packs as they lie there; what the open repository remembers may be older than whatever happened.
    let cache = Arc::new(PackCache::new(Arc::clone(context), Places::Found(Arc::default())));
    let mut roots: BTreeMap<SessionId, Candidate> = BTreeMap::new();
    // Of what nobody has adopted nothing is looked at.
    let waits = |id: &PackId| found.deposits.get(&id.session).is_some_and(|deposit| !deposit.adopted);
    let ids: Vec<_> = listing.packs.keys().filter(|id| !waits(id)).copied().collect();
    let mut looks = stream::iter(ids)
        .map(|id| {
            let cache = &cache;
            let deposited = found.deposits.contains_key(&id.session);
            async move { (id, look(cache, id, deposited).await) }
        })
        .buffered(context.shape.transfers * 4)
        .boxed();
    while let Some((id, looked)) = looks.next().await {
        work.advanced(Phase::Inspect, 1);
        let object = layout::pack(id)?;
        let looked = match looked {
            Ok(looked) => looked,
            Err(error) => {
                found.skipped.push(skipped(object.as_str(), error)?);
                continue;
            }
        };
        // Where both are there, the original has all of it.
        let gone = looked.moves.into_iter().filter(|moved| !listing.packs.contains_key(&moved.from));
        found.moves.extend(gone.map(|moved| (moved.from, moved)));
        for (pack, segment, bytes) in looked.roots {
            let root = match Root::decode(&bytes) {
                Ok(root) => root,
                Err(error) => {
                    found.skipped.push(skipped(object.as_str(), error)?);
                    continue;
                }
            };
            if root.service != context.service || root.session != pack.session {
                let error =
                    Error::damaged(format!("its manifest is one of {}, session {}", root.service, root.session));
                found.skipped.push(skipped(object.as_str(), error)?);
                continue;
            }
            let place = ManifestRef { pack, segment, digest: *blake3::hash(&bytes).as_bytes() };
            // Its host may have added another since.
            if found.deposits.get(&pack.session).is_some_and(|deposit| deposit.root != place) {
                continue;
            }
            // A session writes one root. Of several the last one would be the one that it went on with.
            roots.insert(pack.session, Candidate { root, place });
        }
    }
    drop(looks);
    let moves = Arc::new(found.moves.clone());
    let cache = Arc::new(PackCache::new(Arc::clone(context), Places::Found(moves)));
    for candidate in roots.into_values() {
        let object = layout::pack(candidate.place.pack)?;
        match recover(context, &cache, listing, candidate).await {
            Ok(record) => {
                let witnessed = witnesses.get(&record.session) == Some(&record.id);
                found.backups.push(RecoveredBackup { record, witnessed });
            }
            Err(error) => found.skipped.push(skipped(object.as_str(), error)?),
        }
    }
    Ok(found)
}

/// The roots in a pack, and what was copied into it. Into a pack that was `deposited` nothing was copied, whatever it says.
async fn look(cache: &PackCache, id: PackId, deposited: bool) -> Result<Looked> {
    let index = cache.index(id).await?;
    let mut looked = Looked::default();
    let mut roots = Vec::new();
    for (segment, info) in (0..).zip(index.segments()) {
        match info.role {
            Role::ManifestRoot => roots.push((segment, cache.segment_once(id, segment).await?)),
            Role::Moves if !deposited => {
                looked.moves.extend(moves::decode(id, &cache.segment_once(id, segment).await?)?);
            }
            _ => {}
        }
    }
    for (segment, bytes) in roots {
        // A copy is read by the names of what was copied.
        let from =
            looked.moves.iter().find(|moved| (moved.base..moved.base.saturating_add(moved.count)).contains(&segment));
        let (pack, segment) = from.map_or((id, segment), |moved| (moved.from, segment - moved.base));
        looked.roots.push((pack, segment, bytes));
    }
    Ok(looked)
}

/// The record of a backup all of whose manifest can be read and all of whose packs are there.
async fn recover(
    context: &Arc<Context>,
    cache: &Arc<PackCache>,
    listing: &Listing,
    candidate: Candidate,
) -> Result<BackupRecord> {
    let Candidate { root, place } = candidate;
    let own = listing.packs.range(PackId { session: root.session, number: 0 }..);
    let own = own.take_while(|(id, _)| id.session == root.session);
    let record = root.record(place, root.ended_at, own.map(|(_, len)| *len).sum());
    let reader = BackupReader::of_root(Arc::clone(context), Arc::clone(cache), record.clone(), root).await?;
    for used in reader.packs().iter().filter(|pack| pack.live > 0) {
        if let Some(moved) = cache.places().seen(used.pack) {
            if !listing.packs.contains_key(&moved.to) {
                return Err(Error::damaged(format!("pack {}, the copy of pack {}, is missing", moved.to, used.pack)));
            }
            continue;
        }
        match listing.packs.get(&used.pack) {
            Some(len) if *len == used.stored_len => {}
            Some(len) => {
                let (pack, need) = (used.pack, used.stored_len);
                return Err(Error::damaged(format!("pack {pack} has {len} bytes where the backup needs {need}")));
            }
            None => return Err(Error::damaged(format!("pack {} is missing", used.pack))),
        }
    }
    for part in reader.manifest().parts() {
        reader.part(part).await?;
    }
    Ok(record)
}

/// The witness of `session`, if it can be read. What it says only adds to what packs say.
async fn witness_of(context: &Context, session: SessionId) -> Result<Option<Witness>> {
    match context.store.get(&layout::witness(session)?).await {
        Ok(object) => Ok(witness::open(&context.keyring, session, &object).ok()),
        Err(e) if e.kind() == ErrorKind::Damaged => Ok(None),
        Err(e) => Err(e),
    }
}
