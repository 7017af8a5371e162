//! The journal: numbered commits by create-only puts, folded into a state.
//!
//! Entry N+1 is written by whoever creates it first. A writer that loses folds what the winner wrote, asks the state again
//! whether its own events still fit, and tries the next number. That one rule makes every commit atomic and every reader's
//! state a prefix of the same history, on any store that has an exclusive create.
//!
//! Entries are never deleted: a number that could be used twice could be committed twice. A journal that is damaged beyond
//! reading is succeeded by a new *generation* that is rebuilt from packs; writers of the old generation find out after
//! their next create and report a conflict.

mod checkpoint;
mod entry;
pub(crate) mod foreign;
pub(crate) mod keys;

pub(crate) use checkpoint::Due;
pub(crate) use entry::{Entry, EpochRecord, FORMAT, Genesis, PlainObject};

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use backup_core::SessionId;
use backup_core::catalog::KeyState;
use backup_core::env::Env;
use backup_crypto::{EpochId, ObjectKind};
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use minicbor::{Decode, Encode};
use tokio::sync::Mutex;

use crate::envelope;
use crate::error::{Error, Result};
use crate::keyring::Keyring;
use crate::layout;
use crate::store::{Created, ObjectName, Store};

/// How many entries are fetched at the same time when a journal is opened.
const FETCH_AHEAD: usize = 16;

/// A state that is the fold of events.
pub(crate) trait Fold: Default + Clone + Debug + Send + Sync + 'static {
    /// What it is folded from.
    type Event: Encode<()> + for<'b> Decode<'b, ()> + Clone + Debug + Send + Sync;

    /// The state after `event`; unchanged when the event is refused.
    fn apply(&mut self, event: &Self::Event) -> std::result::Result<(), backup_core::Error>;

    /// The state before any event of a journal that begins with `genesis`, in `epoch`.
    fn begin(_genesis: &Genesis, _epoch: EpochId) -> Self {
        Self::default()
    }

    /// The key of a session that `event` tells of, sealed.
    fn session_key(_event: &Self::Event) -> Option<(SessionId, &[u8])> {
        None
    }

    /// What it knows of the repository's keys, if it follows them.
    fn keys(&self) -> Option<&KeyState> {
        None
    }
}

impl Fold for backup_core::catalog::Catalog {
    type Event = backup_core::catalog::Event;

    fn apply(&mut self, event: &Self::Event) -> std::result::Result<(), backup_core::Error> {
        Ok(Self::apply(self, event)?)
    }

    fn begin(genesis: &Genesis, epoch: EpochId) -> Self {
        Self::with_keys(keys::begin(genesis, epoch))
    }

    fn session_key(event: &Self::Event) -> Option<(SessionId, &[u8])> {
        use backup_core::catalog::Event;
        match event {
            Event::DepositAdopted { deposit, .. } => Some((deposit.record.session, &deposit.key)),
            Event::DepositRecovered { session, key, .. } => Some((*session, key)),
            _ => None,
        }
    }

    fn keys(&self) -> Option<&KeyState> {
        Some(Self::keys(self))
    }
}

/// The journal of one repository, over the state `F`.
#[derive(Debug)]
pub(crate) struct Journal<F> {
    store: Store,
    keyring: Keyring,
    env: Env,
    head: Mutex<Option<Head<F>>>,
    /// The newest state that was seen, for those who need not know better.
    seen: parking_lot::Mutex<Option<Arc<F>>>,
    /// The last entry of the newest checkpoint that was met, or the last one when it was looked whether one is due; 0 before the first.
    considered: std::sync::atomic::AtomicU64,
    /// That this is no region of another repository was asked and answered.
    own: std::sync::atomic::AtomicBool,
    /// The last generation that somebody has only pretended to begin.
    planted: std::sync::atomic::AtomicU32,
}

/// A prefix of the history, folded.
#[derive(Debug, Clone)]
struct Head<F> {
    generation: u32,
    number: u64,
    digest: [u8; 32],
    state: Arc<F>,
    /// The numbers of what was [passed over](foreign).
    passed: Arc<BTreeSet<u64>>,
}

/// Which entry, and what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Place {
    #[n(0)]
    pub(crate) generation: u32,
    #[n(1)]
    pub(crate) number: u64,
    #[cbor(n(2), with = "minicbor::bytes")]
    pub(crate) digest: [u8; 32],
}

impl<F: Fold> Journal<F> {
    /// A journal whose entries are read at the first use.
    pub(crate) fn new(store: Store, keyring: Keyring, env: Env) -> Self {
        let (head, seen) = (Mutex::new(None), parking_lot::Mutex::new(None));
        let (considered, own) = (std::sync::atomic::AtomicU64::new(0), std::sync::atomic::AtomicBool::new(false));
        let planted = std::sync::atomic::AtomicU32::new(0);
        Self { store, keyring, env, head, seen, considered, own, planted }
    }

    /// The newest state that was seen so far, without asking the store. None before the first time.
    pub(crate) fn seen(&self) -> Option<Arc<F>> {
        self.seen.lock().clone()
    }

    fn see(&self, state: &Arc<F>) {
        *self.seen.lock() = Some(Arc::clone(state));
    }

    /// Begins `generation` by its first entry.
    ///
    /// # Errors
    /// Conflict when somebody else has begun it.
    pub(crate) async fn begin(&self, generation: u32, genesis: Genesis, events: Vec<F::Event>) -> Result<()> {
        let keyring = self.keyring.pinned();
        let mut state = F::begin(&genesis, keyring.current());
        events.iter().try_for_each(|event| state.apply(event)).map_err(Error::from)?;
        keys::note_sessions::<F>(&self.keyring, &events);
        let (name, object) = self.entry(&keyring, (generation, 1), [0; 32], Some(genesis), events)?;
        let digest = *blake3::hash(&object).as_bytes();
        match self.store.create(&name, object).await? {
            Created::New | Created::AlreadyOurs => {
                let passed = Arc::default();
                let head = Head { generation, number: 1, digest, state: Arc::new(state), passed };
                self.see(&head.state);
                *self.head.lock().await = Some(head);
                Ok(())
            }
            Created::Conflict => Err(Error::conflict(format!("object {name} already exists"))),
        }
    }

    fn entry(
        &self,
        keyring: &Keyring,
        (generation, number): (u32, u64),
        previous: [u8; 32],
        genesis: Option<Genesis>,
        events: Vec<F::Event>,
    ) -> Result<(ObjectName, Bytes)> {
        let entry = Entry { number, previous, nonce: self.env.random(), at: self.env.now(), genesis, events };
        let name = layout::entry(generation, number)?;
        let plaintext =
            minicbor::to_vec(&entry).map_err(|e| Error::internal("an entry cannot be encoded").with_source(e))?;
        let object = envelope::seal(keyring, ObjectKind::Journal, &name, &plaintext)?;
        Ok((name, object.into()))
    }

    /// The state as of now.
    ///
    /// # Errors
    /// Damaged when the history is not whole.
    pub(crate) async fn refresh(&self) -> Result<Arc<F>> {
        Ok(self.refresh_placed().await?.1)
    }

    /// The state as of now, and the generation that tells it.
    ///
    /// # Errors
    /// As [`refresh`](Self::refresh).
    pub(crate) async fn refresh_placed(&self) -> Result<(u32, Arc<F>)> {
        let mut head = self.head.lock().await;
        let head = self.catch_up(&mut head).await?;
        self.see(&head.state);
        Ok((head.generation, Arc::clone(&head.state)))
    }

    /// The last entry, and which it is.
    ///
    /// # Errors
    /// As [`refresh`](Self::refresh).
    pub(crate) async fn place(&self) -> Result<Place> {
        let mut head = self.head.lock().await;
        let Head { generation, number, digest, .. } = *self.catch_up(&mut head).await?;
        Ok(Place { generation, number, digest })
    }

    /// Commits `events`, all or none.
    ///
    /// # Cancel safety
    /// When dropped, the events are committed or not; a refresh tells.
    ///
    /// # Errors
    /// The state's refusal, when the events do not fit what others have committed. Unavailable when the store did not say
    /// whether the entry landed.
    pub(crate) async fn commit(&self, events: Vec<F::Event>) -> Result<Place> {
        Ok(self.commit_by(|_, _| Ok(events.clone())).await?.0)
    }

    /// Commits what `decide` makes of the state that it is told, and of the generation that tells it; nothing when it makes nothing.
    /// It is asked again whenever somebody else was faster. Returns the state afterwards, too.
    ///
    /// # Cancel safety
    /// As [`commit`](Self::commit).
    ///
    /// # Errors
    /// As [`commit`](Self::commit), and those of `decide`.
    pub(crate) async fn commit_by(
        &self,
        mut decide: impl FnMut(u32, &F) -> Result<Vec<F::Event>> + Send,
    ) -> Result<(Place, Arc<F>)> {
        if self.is_region().await? {
            return Err(Error::invalid(format!(
                "{} is a region of a repository in another vault: it has to be promoted before anything is written to it",
                self.store
            )));
        }
        let mut guard = self.head.lock().await;
        loop {
            let head = self.catch_up(&mut guard).await?;
            let events = decide(head.generation, &head.state)?;
            if events.is_empty() {
                let Head { generation, number, digest, state, .. } = head.clone();
                return Ok((Place { generation, number, digest }, state));
            }
            let mut state = F::clone(&head.state);
            events.iter().try_for_each(|event| state.apply(event)).map_err(Error::from)?;
            let number = head.number + 1;
            let keyring = keys::sealing(&self.keyring, head.state.keys());
            let (name, object) = self.entry(&keyring, (head.generation, number), head.digest, None, events.clone())?;
            let digest = *blake3::hash(&object).as_bytes();
            match self.store.create(&name, object).await? {
                Created::Conflict => continue,
                Created::New | Created::AlreadyOurs => keys::note_sessions::<F>(&self.keyring, &events),
            }
            let generation = head.generation;
            head.number = number;
            head.digest = digest;
            head.state = Arc::new(state);
            let state = Arc::clone(&head.state);
            self.see(&state);
            // Somebody who found this generation damaged may have begun the next one before our entry landed. Then nobody
            // will read our entry, and it must not be reported as a commit.
            if self.is_succeeded(generation).await? {
                self.forget(&mut guard);
                return Err(Error::conflict(format!("the catalog was rebuilt: generation {generation} is over")));
            }
            return Ok((Place { generation, number, digest }, state));
        }
    }

    /// Whether this is a region of a repository in another vault, which nobody writes to. Asked once where it is none.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn is_region(&self) -> Result<bool> {
        if self.own.load(std::sync::atomic::Ordering::Relaxed) {
            return Ok(false);
        }
        let region = is_region(&self.store).await?;
        self.own.store(!region, std::sync::atomic::Ordering::Relaxed);
        Ok(region)
    }

    /// Forgets a generation that is over; the next one counts its entries anew.
    fn forget(&self, head: &mut Option<Head<F>>) {
        *head = None;
        self.considered.store(0, std::sync::atomic::Ordering::Relaxed);
    }

    async fn catch_up<'a>(&self, head: &'a mut Option<Head<F>>) -> Result<&'a mut Head<F>> {
        // Both questions at once: a log writer asks them before each of its acknowledgements.
        let mut asked = None;
        if let Some(known) = head.as_ref() {
            let next = layout::entry(known.generation, known.number + 1)?;
            let (succeeded, next) = futures::join!(self.is_succeeded(known.generation), self.store.get(&next));
            if succeeded? {
                self.forget(head);
            } else {
                asked = Some(next);
            }
        }
        let head = match head {
            Some(known) => known,
            empty => empty.insert(self.load().await?),
        };
        loop {
            // Also before nothing more is found: what is committed next must be sealed in the present epoch.
            keys::follow(&self.keyring, head.state.keys()).await?;
            let name = layout::entry(head.generation, head.number + 1)?;
            let object = match asked.take() {
                Some(object) => object,
                None => self.store.get(&name).await,
            };
            match object {
                Ok(object) => self.fold(head, &name, &object)?,
                Err(e) if e.is_not_found() => return Ok(head),
                Err(e) => return Err(e),
            }
        }
    }

    /// Reads the newest generation, from its newest checkpoint or its first entry.
    async fn load(&self) -> Result<Head<F>> {
        if let Some(mut head) = self.read_checkpoint().await? {
            let last = layout::entry(head.generation, head.number)?;
            let names = self.store.names_after(&layout::generation(head.generation), &last).await?;
            let numbers = names.iter().filter_map(|name| Some(layout::entry_place(name.as_str())?.1)).collect();
            let numbers = self.without_islands(head.generation, head.number.saturating_add(1), numbers).await?;
            self.read_on(head.generation, numbers, Some(&mut head)).await?;
            return Ok(head);
        }
        let Some((generation, numbers)) = self.listing().await?.pop_last() else {
            return Err(Error::damaged("the repository has no catalog"));
        };
        let head = self.read_on(generation, numbers, None).await?;
        head.ok_or_else(|| Error::damaged(format!("generation {generation} of the catalog is empty")))
    }

    /// Folds the entries with these numbers, which were listed, onto `head`; with none, from the first one on. Returns the head of the latter.
    async fn read_on(&self, generation: u32, numbers: Vec<u64>, head: Option<&mut Head<F>>) -> Result<Option<Head<F>>> {
        // Probing would take a missing entry in the middle for the end of history, and write a second one: list instead.
        let next = head.as_ref().map_or(1, |head| head.number + 1);
        let last = numbers.last().copied().unwrap_or(0);
        if let Some(missing) = (next..=last).zip(&numbers).find_map(|(n, found)| (n != *found).then_some(n)) {
            return Err(Error::damaged(format!("object {} is missing", layout::entry(generation, missing)?)));
        }
        let mut entries = stream::iter(numbers)
            .map(|number| async move {
                let name = layout::entry(generation, number)?;
                let object = self.store.get(&name).await?;
                Ok::<_, Error>((name, object))
            })
            .buffered(FETCH_AHEAD);
        let (mut own, mut given) = (None, head);
        while let Some((name, object)) = entries.try_next().await? {
            match given.as_deref_mut().or(own.as_mut()) {
                None => own = Some(self.first(generation, &name, &object)?),
                Some(head) => {
                    keys::learn(&self.keyring, head.state.keys()).await?;
                    self.fold(head, &name, &object)?;
                }
            }
        }
        Ok(own)
    }

    /// Of the entries of the present generation up to now, the numbers of those that are none and were passed over.
    ///
    /// # Errors
    /// As [`refresh`](Self::refresh).
    pub(crate) async fn passed(&self) -> Result<(u32, Arc<BTreeSet<u64>>)> {
        let mut head = self.head.lock().await;
        let head = self.catch_up(&mut head).await?;
        Ok((head.generation, Arc::clone(&head.passed)))
    }

    /// The numbers of the entries of every generation, in order, as far as anybody with a key has begun it.
    pub(crate) async fn listing(&self) -> Result<BTreeMap<u32, Vec<u64>>> {
        let mut listing: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        let mut names = self.store.list(layout::CATALOG);
        while let Some(object) = names.try_next().await? {
            if let Some((generation, number)) = layout::entry_place(object.name.as_str()) {
                listing.entry(generation).or_default().push(number);
            }
        }
        listing.values_mut().for_each(|numbers| numbers.sort_unstable());
        self.believed(listing).await
    }

    /// Opens one entry without looking at its predecessor.
    pub(crate) fn open(&self, name: &ObjectName, object: &[u8]) -> Result<Entry<F::Event>> {
        let plaintext = envelope::open(&self.keyring, ObjectKind::Journal, name, object)?;
        let entry: Entry<F::Event> = minicbor::decode(&plaintext).map_err(|e| {
            // Authentic but not understood: damage is ruled out, so it was written by a newer version.
            let newer = format!("object {name} was written by a newer version of this library");
            Error::environment(newer).with_source(e)
        })?;
        if layout::entry_place(name.as_str()).is_none_or(|(_, number)| number != entry.number) {
            return Err(Error::damaged(format!("object {name} calls itself entry {}", entry.number)));
        }
        Ok(entry)
    }

    fn first(&self, generation: u32, name: &ObjectName, object: &[u8]) -> Result<Head<F>> {
        let entry = self.open(name, object)?;
        let Some(genesis) = entry.genesis else {
            return Err(Error::damaged(format!("object {name} does not begin a catalog")));
        };
        if genesis.format > FORMAT {
            return Err(Error::environment(format!(
                "the repository has format {}, this library reads up to {FORMAT}",
                genesis.format
            )));
        }
        if &genesis.repository != self.keyring.repository().as_bytes() {
            return Err(Error::damaged(format!("object {name} belongs to another repository")));
        }
        let mut state = F::begin(&genesis, keys::epoch_of(name, object)?);
        keys::recognise(&self.keyring, state.keys());
        entry.events.iter().try_for_each(|event| state.apply(event)).map_err(|e| unfit(name, e))?;
        keys::note_sessions::<F>(&self.keyring, &entry.events);
        let (digest, state) = (*blake3::hash(object).as_bytes(), Arc::new(state));
        Ok(Head { generation, number: entry.number, digest, state, passed: Arc::default() })
    }

    fn fold(&self, head: &mut Head<F>, name: &ObjectName, object: &[u8]) -> Result<()> {
        if foreign::is_foreign(&self.keyring, head.state.keys(), name, object) {
            tracing::warn!(%name, "somebody has put something where an entry of the catalog belongs; it is passed over");
            head.number += 1;
            head.digest = *blake3::hash(object).as_bytes();
            Arc::make_mut(&mut head.passed).insert(head.number);
            return Ok(());
        }
        let entry = self.open(name, object)?;
        if entry.previous != head.digest {
            return Err(Error::damaged(format!("object {name} does not follow entry {} as it is stored", head.number)));
        }
        let state = Arc::make_mut(&mut head.state);
        entry.events.iter().try_for_each(|event| state.apply(event)).map_err(|e| unfit(name, e))?;
        keys::note_sessions::<F>(&self.keyring, &entry.events);
        head.number = entry.number;
        head.digest = *blake3::hash(object).as_bytes();
        Ok(())
    }
}

/// Whether what lies in `store` is a region of a repository in another vault.
///
/// # Errors
/// Those of the store.
pub(crate) async fn is_region(store: &Store) -> Result<bool> {
    Ok(match store.head(&ObjectName::new(layout::REGION)?).await? {
        None => false,
        // A region is marked before anything else is put there. Later anybody might do so who may add objects.
        Some(mark) => {
            let described = store.head(&layout::repository()?).await?;
            described.is_none_or(|described| mark.last_modified <= described.last_modified)
        }
    })
}

fn unfit(name: &ObjectName, error: backup_core::Error) -> Error {
    Error::damaged(format!("object {name} does not fit what was committed before it")).with_source(error)
}

#[cfg(test)]
mod tests;
