//! The keys of one repository, opened: what seals new objects and opens old ones.
//!
//! What lies among the wrapped keys may have been put there by anyone who can write to the store and knows a public recipient. So a key
//! is only a candidate until something that counts vouches for it: the journal, which says the fingerprint of each epoch's key, or the
//! [succession](crate::keys::succession), or that nobody without the secret could have wrapped it. With a candidate nothing is opened.
//!
//! What a host that only writes has deposited is sealed in no epoch but with a key of its session. The journal says it, sealed in an epoch, and it is
//! opened when something of that session is.

use std::collections::BTreeMap;
use std::sync::Arc;

use backup_core::SessionId;
use backup_core::catalog::PackId;
use backup_core::env::Env;
use backup_crypto::{
    EpochFingerprint, EpochId, EpochKey, HashKey, ObjectContext, ObjectHeader, ObjectKind, ObjectOpener, ObjectSealer,
    RepositoryId, Suite,
};
use parking_lot::RwLock;

use crate::deposit::key::SessionKey;
use crate::error::{Error, ErrorKind, Result};
use crate::keys::Unlocker;
use crate::layout::{self, SessionObject};

/// In the place of an epoch: the object is sealed with the key of the session in whose folder it lies. No epoch has this number.
pub(crate) const DEPOSITS: EpochId = EpochId(u32::MAX);

/// Every epoch key that this host may use. Clones share them: what one learns all know.
#[derive(Debug, Clone)]
pub(crate) struct Keyring {
    repository: RepositoryId,
    suite: Suite,
    ring: Arc<RwLock<Ring>>,
    /// The epoch of new objects, whichever the present one is.
    pinned: Option<EpochId>,
    unlocker: Option<Arc<Unlocker>>,
    env: Env,
}

#[derive(Debug)]
struct Ring {
    epochs: BTreeMap<EpochId, Slot>,
    current: EpochId,
    /// The highest epoch in which an object was found.
    met: EpochId,
    /// The keys of sessions of hosts that only write.
    sessions: BTreeMap<SessionId, Session>,
}

/// The key of a session.
#[derive(Debug, Clone)]
enum Session {
    /// As the journal has it.
    Sealed(Arc<[u8]>),
    Open(Arc<Epoch>),
}

/// The keys that may be the one of an epoch.
#[derive(Debug, Default)]
struct Slot {
    keys: Vec<Arc<Epoch>>,
    trusted: bool,
}

#[derive(Debug)]
struct Epoch {
    key: EpochKey,
    hash: HashKey,
    fingerprint: EpochFingerprint,
}

impl Epoch {
    fn of_session(key: SessionKey, repository: RepositoryId) -> Self {
        let hash = HashKey::from_secret(&key.hash_root, repository.as_bytes());
        let fingerprint = key.key.fingerprint(repository, DEPOSITS);
        Self { key: key.key, hash, fingerprint }
    }
}

impl Keyring {
    /// A keyring without a key.
    pub(crate) fn locked(repository: RepositoryId, suite: Suite, env: Env) -> Self {
        let (epochs, sessions) = (BTreeMap::new(), BTreeMap::new());
        let ring = Ring { epochs, current: EpochId(0), met: EpochId(0), sessions };
        Self { repository, suite, ring: Arc::new(RwLock::new(ring)), pinned: None, unlocker: None, env }
    }

    /// A keyring of at least one epoch, all of whose keys are trusted. The last one is the present one.
    pub(crate) fn new(
        repository: RepositoryId,
        suite: Suite,
        keys: impl IntoIterator<Item = (EpochId, EpochKey)>,
        env: Env,
    ) -> Result<Self> {
        let keyring = Self::locked(repository, suite, env);
        for (epoch, key) in keys {
            keyring.offer(epoch, [key]);
        }
        keyring.begin(true)?;
        keyring.trusted().last().into_iter().for_each(|(epoch, _)| keyring.set_current(*epoch));
        Ok(keyring)
    }

    /// The keyring of a host that only writes, during one session: it has the key of that session and no other.
    pub(crate) fn of_session(
        repository: RepositoryId,
        suite: Suite,
        (session, key): (SessionId, SessionKey),
        env: Env,
    ) -> Self {
        let keyring = Self { pinned: Some(DEPOSITS), ..Self::locked(repository, suite, env) };
        keyring.add_session(session, key);
        keyring
    }

    /// Adds the key of a session, which something that counts vouches for.
    pub(crate) fn add_session(&self, session: SessionId, key: SessionKey) {
        let open = Session::Open(Arc::new(Epoch::of_session(key, self.repository)));
        self.ring.write().sessions.insert(session, open);
    }

    /// Adds the key of a session as the journal has it: sealed in an epoch.
    pub(crate) fn add_sealed_session(&self, session: SessionId, sealed: &[u8]) {
        self.ring.write().sessions.entry(session).or_insert_with(|| Session::Sealed(sealed.into()));
    }

    /// The key of `session`.
    fn session(&self, session: SessionId) -> Result<Arc<Epoch>> {
        let known = self.ring.read().sessions.get(&session).cloned();
        match known {
            Some(Session::Open(key)) => Ok(key),
            Some(Session::Sealed(sealed)) => {
                let key = SessionKey::open(self, session, &sealed)?;
                let key = Arc::new(Epoch::of_session(key, self.repository));
                self.ring.write().sessions.insert(session, Session::Open(Arc::clone(&key)));
                Ok(key)
            }
            None => {
                let text = format!("the key of session {session} is not known: nobody has adopted what was deposited");
                Err(Error::environment(text))
            }
        }
    }

    /// Trusts the keys that there are, or those of the first epoch alone: a repository has to begin with something. Until the catalog was
    /// read the first epoch is the present one.
    pub(crate) fn begin(&self, all: bool) -> Result<()> {
        let mut ring = self.ring.write();
        let first = ring.epochs.keys().next().copied();
        let first = first.ok_or_else(|| Error::internal("a keyring needs at least one epoch key"))?;
        ring.current = first;
        let trusted = ring.epochs.iter_mut().filter(|(epoch, _)| all || **epoch == first);
        trusted.for_each(|(_, slot)| slot.trusted = true);
        Ok(())
    }

    /// The same keyring, which learns new keys by `unlocker`.
    pub(crate) fn with_unlocker(mut self, unlocker: Arc<Unlocker>) -> Self {
        self.unlocker = Some(unlocker);
        self
    }

    /// The same keys, and what is learned or made the present epoch from here on is known to this one alone.
    pub(crate) fn apart(&self) -> Self {
        let ring = self.ring.read();
        let epochs = ring.epochs.iter().map(|(epoch, slot)| {
            let slot = Slot { keys: slot.keys.clone(), trusted: slot.trusted };
            (*epoch, slot)
        });
        let sessions = ring.sessions.clone();
        let ring = Ring { epochs: epochs.collect(), current: ring.current, met: ring.met, sessions };
        Self { ring: Arc::new(RwLock::new(ring)), ..self.clone() }
    }

    /// By which new keys are learned.
    pub(crate) fn unlocker(&self) -> Option<&Arc<Unlocker>> {
        self.unlocker.as_ref()
    }

    /// Whose keys these are.
    pub(crate) fn repository(&self) -> RepositoryId {
        self.repository
    }

    /// The suite of new objects.
    pub(crate) fn suite(&self) -> Suite {
        self.suite
    }

    /// The epoch of new objects.
    pub(crate) fn current(&self) -> EpochId {
        self.pinned.unwrap_or_else(|| self.ring.read().current)
    }

    /// Makes `epoch` the one of new objects.
    pub(crate) fn set_current(&self, epoch: EpochId) {
        self.ring.write().current = epoch;
    }

    /// The same keys, with the epoch of new objects staying what it is.
    pub(crate) fn pinned(&self) -> Self {
        self.pinned_to(self.current())
    }

    /// The same keys, with `epoch` the one of new objects.
    pub(crate) fn pinned_to(&self, epoch: EpochId) -> Self {
        Self { pinned: Some(epoch), ..self.clone() }
    }

    /// The highest epoch in which an object was opened.
    pub(crate) fn met(&self) -> EpochId {
        self.ring.read().met
    }

    /// Adds keys that may be the one of `epoch`.
    pub(crate) fn offer(&self, epoch: EpochId, keys: impl IntoIterator<Item = EpochKey>) {
        let mut ring = self.ring.write();
        let slot = ring.epochs.entry(epoch).or_default();
        for key in keys {
            if !slot.trusted && !slot.keys.iter().any(|known| known.key == key) {
                let hash = HashKey::derive(&key, self.repository);
                let fingerprint = key.fingerprint(self.repository, epoch);
                slot.keys.push(Arc::new(Epoch { key, hash, fingerprint }));
            }
        }
    }

    /// Keeps the key of `epoch` that has this fingerprint, and no other. Whether there is one.
    pub(crate) fn confirm(&self, epoch: EpochId, fingerprint: EpochFingerprint) -> bool {
        let is_known = |slot: &Slot| slot.trusted && slot.keys.len() == 1 && slot.keys[0].fingerprint == fingerprint;
        if self.ring.read().epochs.get(&epoch).is_some_and(is_known) {
            return true;
        }
        let mut ring = self.ring.write();
        let Some(slot) = ring.epochs.get_mut(&epoch) else { return false };
        slot.keys.retain(|known| known.fingerprint == fingerprint);
        slot.trusted = !slot.keys.is_empty();
        if !slot.trusted {
            ring.epochs.remove(&epoch);
        }
        ring.epochs.contains_key(&epoch)
    }

    /// Makes sure that the key of `epoch` with this fingerprint is there, by asking the store for it if it must be.
    ///
    /// # Errors
    /// InvalidInput when it is not wrapped for this recipient. Those of the store.
    pub(crate) async fn learn(&self, epoch: EpochId, fingerprint: EpochFingerprint) -> Result<()> {
        if self.confirm(epoch, fingerprint) {
            return Ok(());
        }
        let unlocker = self.unlocker().ok_or_else(|| {
            let opened = "the repository must be opened by one of its recipients";
            Error::environment(format!("epoch {epoch} of the repository's keys has begun: {opened}"))
        })?;
        self.offer(epoch, unlocker.keys_of(self.repository, epoch).await?);
        if self.confirm(epoch, fingerprint) {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "epoch {epoch} of the repository's keys has begun and is not wrapped for this {}: it is not among the recipients any more",
            unlocker.kind()
        )))
    }

    /// The epochs whose keys are trusted, with their fingerprints.
    pub(crate) fn trusted(&self) -> Vec<(EpochId, EpochFingerprint)> {
        let ring = self.ring.read();
        let trusted = ring.epochs.iter().filter(|(_, slot)| slot.trusted);
        trusted.filter_map(|(epoch, slot)| Some((*epoch, slot.keys.first()?.fingerprint))).collect()
    }

    /// The key of `epoch`, to wrap it.
    pub(crate) fn key(&self, epoch: EpochId) -> Result<EpochKey> {
        Ok(self.epoch(epoch)?.key.clone())
    }

    fn candidates(&self, id: EpochId) -> Result<Vec<Arc<Epoch>>> {
        let ring = self.ring.read();
        match ring.epochs.get(&id) {
            Some(slot) if slot.trusted => Ok(slot.keys.clone()),
            Some(_) => Err(Error::environment(format!("nothing that counts vouches for the key of epoch {id}"))),
            None => Err(Error::environment(format!("the key of epoch {id} is not available to this recipient"))),
        }
    }

    /// The keys with which the object `name` may be sealed, that says that it is sealed in `epoch`.
    fn keys_for(&self, epoch: EpochId, name: &str) -> Result<Vec<Arc<Epoch>>> {
        if epoch != DEPOSITS {
            return self.candidates(epoch);
        }
        // The host knows the key: nothing else may be sealed with it, or it could write what only somebody with the keys may.
        match layout::session_object(name) {
            Some(SessionObject::Pack(PackId { session, .. }) | SessionObject::Alive(session)) => {
                Ok(vec![self.session(session)?])
            }
            _ => {
                Err(Error::damaged(format!("object {name} is sealed with the key of a session, and is no part of one")))
            }
        }
    }

    fn epoch(&self, id: EpochId) -> Result<Arc<Epoch>> {
        Self::only(id, self.candidates(id)?)
    }

    fn only(id: EpochId, mut keys: Vec<Arc<Epoch>>) -> Result<Arc<Epoch>> {
        match keys.pop() {
            Some(key) if keys.is_empty() => Ok(key),
            _ => Err(Error::damaged(format!("there are several keys of epoch {id}, and the catalog was not read yet"))),
        }
    }

    /// What hashes blocks in `epoch`. Hashes of different epochs cannot be compared.
    pub(crate) fn hash_key(&self, epoch: EpochId) -> Result<HashKey> {
        Ok(self.epoch(epoch)?.hash.clone())
    }

    /// What hashes blocks of the object `name`, that is sealed in `epoch`.
    pub(crate) fn hash_key_of(&self, epoch: EpochId, name: &str) -> Result<HashKey> {
        Ok(Self::only(epoch, self.keys_for(epoch, name)?)?.hash.clone())
    }

    /// What hashes blocks of a session that seals in `epoch`.
    pub(crate) fn hash_key_in(&self, epoch: EpochId, session: SessionId) -> Result<HashKey> {
        match epoch {
            DEPOSITS => Ok(self.session(session)?.hash.clone()),
            epoch => self.hash_key(epoch),
        }
    }

    /// Seals the segments of a new object.
    pub(crate) fn sealer(&self, kind: ObjectKind, name: &str) -> Result<ObjectSealer> {
        let epoch = self.current();
        let context = ObjectContext { repository: self.repository, epoch, kind, name };
        let key = Self::only(epoch, self.keys_for(epoch, name)?)?;
        Ok(ObjectSealer::new(self.suite, &key.key, &context, self.env.random())?)
    }

    /// Opens the segments of an object that begins with `header`.
    pub(crate) fn opener(&self, kind: ObjectKind, name: &str, header: &ObjectHeader) -> Result<ObjectOpener> {
        let context = ObjectContext { repository: self.repository, epoch: header.epoch, kind, name };
        let keys = self.keys_for(header.epoch, name)?;
        let mut refused = None;
        for epoch in &keys {
            match ObjectOpener::new(&epoch.key, &context, header) {
                Ok(opener) => {
                    if keys.len() > 1 {
                        self.confirm(header.epoch, epoch.fingerprint);
                    }
                    if header.epoch != DEPOSITS && self.met() < header.epoch {
                        self.ring.write().met = header.epoch;
                    }
                    return Ok(opener);
                }
                Err(error) => refused = Some(error),
            }
        }
        Err(refused.map_or_else(|| Error::internal("an epoch has no key"), Error::from))
    }
}

impl From<backup_crypto::Error> for Error {
    fn from(error: backup_crypto::Error) -> Self {
        use backup_crypto::ErrorKind as Crypto;
        let kind = match error.kind() {
            Crypto::Unavailable => ErrorKind::Unavailable,
            Crypto::InvalidInput => ErrorKind::InvalidInput,
            Crypto::Environment => ErrorKind::Environment,
            Crypto::Damaged => ErrorKind::Damaged,
            _ => ErrorKind::Internal,
        };
        Self::new(kind, error.to_string()).with_source(error)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A keyring of one epoch, made from `seed`.
    pub(crate) fn keyring(seed: u64) -> Keyring {
        let env = Env::seeded(seed);
        let key = EpochKey::take(&mut env.random());
        let repository = RepositoryId::from_bytes(env.random());
        Keyring::new(repository, Suite::ChaCha20Poly1305, [(EpochId(1), key)], env).unwrap()
    }

    #[test]
    fn with_a_key_that_nobody_vouches_for_nothing_is_opened() {
        let keys = keyring(1);
        let (planted, genuine) = (EpochKey::take(&mut [7; 32]), EpochKey::take(&mut [8; 32]));
        let forger =
            Keyring::new(keys.repository(), keys.suite(), [(EpochId(2), planted.clone())], Env::seeded(5)).unwrap();
        let header = *forger.sealer(ObjectKind::Pack, "packs/x/000001").unwrap().header();
        keys.offer(EpochId(2), [planted, genuine.clone()]);
        let open = || keys.opener(ObjectKind::Pack, "packs/x/000001", &header).map(drop);
        assert_eq!(open().unwrap_err().kind(), ErrorKind::Environment);
        assert!(keys.confirm(EpochId(2), genuine.fingerprint(keys.repository(), EpochId(2))));
        assert_eq!(open().unwrap_err().kind(), ErrorKind::Damaged, "it is of another key");
        assert_eq!(keys.current(), EpochId(1), "a key that is known is not for that the present one");
        let pinned = keys.pinned();
        keys.set_current(EpochId(2));
        assert_eq!((pinned.current(), keys.current()), (EpochId(1), EpochId(2)));
        assert!(!keys.confirm(EpochId(2), EpochFingerprint::from_bytes([0; 16])));
        assert!(keys.hash_key(EpochId(2)).is_err());
    }
}
