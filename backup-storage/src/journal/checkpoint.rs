//! Checkpoints: the events of a journal up to an entry, in one object, so that opening a long history reads one object and not each entry.
//!
//! ```text
//! checkpoints/<generation %04d>/<number %020d>    a pack of kind checkpoint:
//!   segments of role data: items [genesis or null, epoch of the genesis, [event …]], one for each entry, whole items in each segment
//!   last segment of role head: map {0 format, 1 repository, 2 generation, 3 number, 4 digest of the entry}
//! ```
//!
//! What is kept are events and not a state: they are folded by the same code as ever, so there is no second form of the state that could
//! leave something out, and none that has to be read for ever.
//!
//! A checkpoint is a copy of what the entries say, and can be lost or refused at any time: then the entries are read. It is believed
//! where it is sealed in the epoch that is the present one for its reader (who has kept the key of an older one could have made
//! another history), and where the entry that it ends with is there and is the one that it names. When that entry is missing, the store has brought
//! back an older state.

use std::sync::atomic::Ordering::Relaxed;

use backup_core::catalog::KeyState;
use backup_crypto::ObjectKind;
use futures::stream::{self, StreamExt, TryStreamExt};
use minicbor::{Decode, Encode};

use super::{Entry, FETCH_AHEAD, FORMAT, Fold, Genesis, Head, Journal, keys, unfit};
use crate::error::{Error, ErrorKind, Result};
use crate::fetch::blocking;
use crate::keyring::Keyring;
use crate::layout;
use crate::pack::{Compressor, FinishedPack, PackBuilder, PackIndex, Role, SEGMENT, Scratch, content_id_of};
use crate::store::{Created, ObjectName, Store};

/// How many checkpoints are kept: a reader may have listed the last but one.
const KEPT: usize = 2;
/// How many are tried: anybody who may add objects may have put something beside them.
const TRIED: usize = 16;
/// A checkpoint is made when this share of the entries is behind the last one, so that all of them together are a small multiple of the
/// history.
const SHARE: u64 = 8;
const LEVEL: i32 = 3;
/// So many entries behind the last checkpoint make a writer do what maintenance should have done.
const FAR: u64 = 1024;

/// When a checkpoint is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// When there is anything new.
    Now,
    /// When at least so many entries, and a good share of all, are behind the last one.
    After(u64),
}

/// What one entry told.
#[derive(Debug, Encode, Decode)]
#[cbor(array)]
struct Told<E> {
    #[n(0)]
    genesis: Option<Genesis>,
    #[n(1)]
    epoch: u32,
    #[n(2)]
    events: Vec<E>,
}

/// What a checkpoint says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct About {
    #[n(0)]
    format: u32,
    #[cbor(n(1), with = "minicbor::bytes")]
    repository: [u8; 16],
    #[n(2)]
    generation: u32,
    #[n(3)]
    number: u64,
    #[cbor(n(4), with = "minicbor::bytes")]
    digest: [u8; 32],
}

/// A checkpoint that was opened.
struct Opened {
    about: About,
    /// Plaintexts of its segments of events.
    parts: Vec<Vec<u8>>,
}

/// The checkpoints that are there, oldest first.
///
/// # Errors
/// Those of the store.
async fn list(store: &Store) -> Result<Vec<(u32, u64)>> {
    let objects: Vec<_> = store.list(layout::CHECKPOINTS).try_collect().await?;
    let mut places: Vec<_> = objects.iter().filter_map(|o| layout::checkpoint_place(o.name.as_str())).collect();
    places.sort_unstable();
    Ok(places)
}

/// Opens the object of a checkpoint. Blocking.
///
/// # Errors
/// Damaged; Environment when it is not for this reader.
fn open(keyring: &Keyring, (generation, number): (u32, u64), object: &[u8]) -> Result<Opened> {
    let name = layout::checkpoint(generation, number)?;
    let damaged = |why: &str| Error::damaged(format!("object {name} is damaged: {why}"));
    if keys::epoch_of(&name, object)? != keyring.current() {
        return Err(Error::environment(format!("object {name} is not of the present epoch")));
    }
    let index = PackIndex::of_named(keyring, (ObjectKind::Checkpoint, name.clone()), object)?;
    let mut scratch = Scratch::new()?;
    let mut parts = Vec::with_capacity(index.segments().len());
    for (segment, _) in (0..).zip(index.segments()) {
        let range = index.range(segment)?;
        let mut plain = Vec::new();
        index.open(segment, &object[range.start as usize..range.end as usize], &mut scratch, &mut plain)?;
        parts.push(plain);
    }
    let last = index.segments().last().filter(|last| last.role == Role::Head);
    let said = last.and_then(|_| parts.pop()).ok_or_else(|| damaged("it does not say what it is"))?;
    let about: About = minicbor::decode(&said).map_err(|e| damaged("it does not say what it is").with_source(e))?;
    let own = (about.generation, about.number) == (generation, number)
        && &about.repository == keyring.repository().as_bytes();
    if !own {
        return Err(damaged("it is another one"));
    }
    if about.format > FORMAT {
        return Err(Error::environment(format!("object {name} was written by a newer version of this library")));
    }
    Ok(Opened { about, parts })
}

/// The state after the events of a checkpoint. Blocking.
///
/// # Errors
/// Damaged; Environment for events of a newer version.
fn fold<F: Fold>(keyring: &Keyring, opened: &Opened) -> Result<Head<F>> {
    let name = layout::checkpoint(opened.about.generation, opened.about.number)?;
    let mut state: Option<F> = None;
    let (mut entries, mut passed) = (0, std::collections::BTreeSet::new());
    for part in &opened.parts {
        let mut decoder = minicbor::Decoder::new(part);
        while decoder.position() < part.len() {
            let told: Told<F::Event> = decoder.decode().map_err(|e| {
                Error::environment(format!("object {name} was written by a newer version of this library"))
                    .with_source(e)
            })?;
            entries += 1;
            // Entries have events, and what was passed over has none.
            if told.genesis.is_none() && told.events.is_empty() {
                passed.insert(entries);
            }
            let state = match (&mut state, told.genesis) {
                (Some(state), None) => state,
                (state @ None, Some(genesis)) => state.insert(F::begin(&genesis, backup_crypto::EpochId(told.epoch))),
                _ => return Err(Error::damaged(format!("object {name} is damaged: it begins twice, or not"))),
            };
            told.events.iter().try_for_each(|event| state.apply(event)).map_err(|e| unfit(&name, e))?;
            keys::note_sessions::<F>(keyring, &told.events);
        }
    }
    let state = state.filter(|_| entries == opened.about.number);
    let state = state.ok_or_else(|| Error::damaged(format!("object {name} is damaged: it has {entries} entries")))?;
    if state.keys().is_some_and(|keys: &KeyState| keys.current() != keyring.current().0) {
        return Err(Error::damaged(format!("object {name} is damaged: it is not sealed in its last epoch")));
    }
    let About { generation, number, digest, .. } = opened.about.clone();
    let (state, passed) = (std::sync::Arc::new(state), std::sync::Arc::new(passed));
    Ok(Head { generation, number, digest, state, passed })
}

impl<F: Fold> Journal<F> {
    /// The state after the newest checkpoint that can be believed.
    ///
    /// # Errors
    /// Damaged when the journal is shorter than a checkpoint says, or another one. Those of the store.
    pub(super) async fn read_checkpoint(&self) -> Result<Option<Head<F>>> {
        for place in list(&self.store).await?.into_iter().rev().take(TRIED) {
            let name = layout::checkpoint(place.0, place.1)?;
            let object = match self.store.get(&name).await {
                Ok(object) => object,
                Err(error) if error.is_not_found() => continue,
                Err(error) if error.kind() == ErrorKind::Damaged => {
                    tracing::warn!(%error, "a checkpoint cannot be read");
                    continue;
                }
                Err(error) => return Err(error),
            };
            let keyring = self.keyring.clone();
            let head = blocking(move || fold::<F>(&keyring, &open(&keyring, place, &object)?)).await;
            let head = match head {
                Ok(head) => head,
                Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Environment) => {
                    tracing::warn!(%error, "a checkpoint is of no use");
                    continue;
                }
                Err(error) => return Err(error),
            };
            // A rebuild has begun anew.
            let entry = layout::entry(place.0, place.1)?;
            let (succeeded, last) = futures::join!(self.is_succeeded(place.0), self.store.get(&entry));
            if succeeded? {
                return Ok(None);
            }
            match last {
                Ok(last) if *blake3::hash(&last).as_bytes() == head.digest => {}
                Ok(_) => {
                    return Err(Error::damaged(format!(
                        "object {entry} is not the one that checkpoint {name} ends with"
                    )));
                }
                Err(error) if error.is_not_found() => {
                    return Err(Error::damaged(format!(
                        "object {entry} is missing, though checkpoint {name} was made of it"
                    )));
                }
                Err(error) => return Err(error),
            }
            keys::recognise(&self.keyring, head.state.keys());
            self.considered.fetch_max(head.number, Relaxed);
            return Ok(Some(head));
        }
        Ok(None)
    }

    /// Makes a checkpoint when very many entries are behind the last one that was met, or behind those at which none was due. Nothing is asked before that, and a failure is nobody's
    /// concern: for those who commit, and would not wait for maintenance for ever.
    pub(crate) async fn checkpoint_when_far(&self) {
        let number = self.head.lock().await.as_ref().map_or(0, |head| head.number);
        if number.saturating_sub(self.considered.load(Relaxed)) < FAR {
            return;
        }
        // Also where none is due yet: whether the last one is still of use takes reading it, and is not asked at each commit.
        self.considered.fetch_max(number, Relaxed);
        if let Err(error) = self.checkpoint(Due::After(FAR)).await {
            tracing::warn!(%error, "a checkpoint of the catalog could not be made");
        }
    }

    /// Makes a checkpoint of the history as it is now if it is due, or the last one is of no use any more. Returns the number of its last
    /// entry.
    ///
    /// # Errors
    /// Those of the store; Damaged when the journal cannot be read.
    ///
    /// # Cancel safety
    /// When dropped, there is one more checkpoint or not.
    pub(crate) async fn checkpoint(&self, due: Due) -> Result<Option<u64>> {
        let head = {
            let mut guard = self.head.lock().await;
            let head = self.catch_up(&mut guard).await?;
            head.clone()
        };
        // Nobody has made one of what is not yet there.
        let place = (head.generation, head.number);
        let places: Vec<_> = list(&self.store).await?.into_iter().filter(|known| *known <= place).collect();
        if let Some((_, number)) = places.last().filter(|(generation, _)| *generation == head.generation) {
            self.considered.fetch_max(*number, Relaxed);
        }
        let last = places.last().copied().filter(|(generation, _)| *generation == head.generation);
        let behind = head.number.saturating_sub(last.map_or(0, |(_, number)| number));
        let due = match due {
            Due::Now => behind > 0,
            Due::After(least) => behind >= least.max(head.number / SHARE),
        };
        let keyring = keys::sealing(&self.keyring, head.state.keys());
        // Looked at only where it makes a difference: an epoch may have begun since.
        let before = match last {
            Some(place) if due || behind > 0 => self.opened(&keyring, place).await?,
            Some(_) => return Ok(None),
            None => None,
        };
        if !due && (before.is_some() || last.is_none()) {
            return Ok(None);
        }
        let (number, mut digest, parts) = match before {
            Some(Opened { about, parts }) => (about.number, about.digest, parts),
            None => (0, [0; 32], Vec::new()),
        };
        let mut growing = Growing::new(&keyring, (head.generation, head.number), parts)?;
        let mut entries = stream::iter(number + 1..=head.number)
            .map(|number| async move {
                let name = layout::entry(head.generation, number)?;
                let object = self.store.get(&name).await?;
                Ok::<_, Error>((name, object))
            })
            .buffered(FETCH_AHEAD)
            .boxed();
        while let Some((name, object)) = entries.try_next().await? {
            if layout::entry_place(name.as_str()).is_some_and(|(_, number)| head.passed.contains(&number)) {
                digest = *blake3::hash(&object).as_bytes();
                let nothing: Vec<F::Event> = Vec::new();
                growing.add(&Told { genesis: None, epoch: keyring.current().0, events: nothing })?;
                continue;
            }
            let Entry { previous, genesis, events, .. } = self.open(&name, &object)?;
            if previous != digest {
                return Err(Error::damaged(format!(
                    "object {name} does not follow the entry before it as it is stored"
                )));
            }
            digest = *blake3::hash(&object).as_bytes();
            growing.add(&Told { genesis, epoch: keys::epoch_of(&name, &object)?.0, events })?;
        }
        drop(entries);
        if digest != head.digest {
            return Err(Error::damaged("the journal changed while it was read again"));
        }
        let about = About {
            format: FORMAT,
            repository: *self.keyring.repository().as_bytes(),
            generation: head.generation,
            number: head.number,
            digest,
        };
        let FinishedPack { name, object } = growing.finish(&about)?;
        match self.store.create(&name, object).await? {
            // Somebody else was faster.
            Created::Conflict | Created::New | Created::AlreadyOurs => {}
        }
        self.considered.fetch_max(head.number, Relaxed);
        let spare = places.len().saturating_sub(KEPT - 1);
        for (generation, number) in places.into_iter().take(spare) {
            match self.store.delete(&layout::checkpoint(generation, number)?).await {
                Ok(()) => {}
                // Who may not delete leaves them.
                Err(error) if error.kind() == ErrorKind::Environment => break,
                Err(error) => return Err(error),
            }
        }
        Ok(Some(head.number))
    }

    /// The checkpoint of `place`, when it is of use.
    async fn opened(&self, keyring: &Keyring, place: (u32, u64)) -> Result<Option<Opened>> {
        let object = match self.store.get(&layout::checkpoint(place.0, place.1)?).await {
            Ok(object) => object,
            Err(error) if error.is_not_found() || error.kind() == ErrorKind::Damaged => return Ok(None),
            Err(error) => return Err(error),
        };
        let keyring = keyring.clone();
        match blocking(move || open(&keyring, place, &object)).await {
            Ok(opened) => Ok(Some(opened)),
            Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Environment) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A checkpoint in the making.
struct Growing {
    builder: PackBuilder,
    compressor: Compressor,
    hash: backup_crypto::HashKey,
    part: Vec<u8>,
}

impl Growing {
    /// One that begins with `parts`.
    fn new(keyring: &Keyring, (generation, number): (u32, u64), mut parts: Vec<Vec<u8>>) -> Result<Self> {
        let name: ObjectName = layout::checkpoint(generation, number)?;
        let builder = PackBuilder::named(ObjectKind::Checkpoint, name, keyring, Vec::new())?;
        // The last one is filled up.
        let part = parts.pop().unwrap_or_default();
        let hash = keyring.hash_key(keyring.current())?;
        let mut growing = Self { builder, compressor: Compressor::new(LEVEL)?, hash, part: Vec::new() };
        for full in parts {
            growing.part = full;
            growing.seal()?;
        }
        growing.part = part;
        Ok(growing)
    }

    fn add<E: Encode<()>>(&mut self, told: &Told<E>) -> Result<()> {
        let bytes = minicbor::to_vec(told).map_err(|e| Error::internal("an entry cannot be encoded").with_source(e))?;
        if self.part.len() + bytes.len() > SEGMENT {
            self.seal()?;
        }
        self.part.extend_from_slice(&bytes);
        Ok(())
    }

    fn seal(&mut self) -> Result<()> {
        if !self.part.is_empty() {
            let id = content_id_of(&self.hash, &self.part);
            self.builder.add(Role::Data, &mut self.compressor, &self.part, id)?;
            self.part.clear();
        }
        Ok(())
    }

    fn finish(mut self, about: &About) -> Result<FinishedPack> {
        self.seal()?;
        let said =
            minicbor::to_vec(about).map_err(|e| Error::internal("a checkpoint cannot be encoded").with_source(e))?;
        let id = content_id_of(&self.hash, &said);
        self.builder.add(Role::Head, &mut self.compressor, &said, id)?;
        self.builder.finish()
    }
}

#[cfg(test)]
mod tests;
