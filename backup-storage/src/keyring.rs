//! The keys of one repository, opened: what seals new objects and opens old ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use backup_core::env::Env;
use backup_crypto::{
    EpochId, EpochKey, HashKey, ObjectContext, ObjectHeader, ObjectKind, ObjectOpener, ObjectSealer, RepositoryId,
    Suite,
};

use crate::error::{Error, ErrorKind, Result};

/// Every epoch key that this host may use. New objects are sealed in the newest epoch.
#[derive(Debug, Clone)]
pub(crate) struct Keyring {
    repository: RepositoryId,
    suite: Suite,
    epochs: Arc<BTreeMap<EpochId, Epoch>>,
    env: Env,
}

#[derive(Debug)]
struct Epoch {
    key: EpochKey,
    hash: HashKey,
}

impl Keyring {
    /// A keyring of at least one epoch.
    pub(crate) fn new(
        repository: RepositoryId,
        suite: Suite,
        keys: impl IntoIterator<Item = (EpochId, EpochKey)>,
        env: Env,
    ) -> Result<Self> {
        let epochs: BTreeMap<_, _> = keys
            .into_iter()
            .map(|(id, key)| {
                let hash = HashKey::derive(&key, repository);
                (id, Epoch { key, hash })
            })
            .collect();
        if epochs.is_empty() {
            return Err(Error::internal("a keyring needs at least one epoch key"));
        }
        Ok(Self { repository, suite, epochs: Arc::new(epochs), env })
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
        self.epochs.keys().next_back().copied().unwrap_or(EpochId(0))
    }

    fn epoch(&self, id: EpochId) -> Result<&Epoch> {
        self.epochs
            .get(&id)
            .ok_or_else(|| Error::environment(format!("the key of epoch {id} is not available to this recipient")))
    }

    /// What hashes blocks in `epoch`. Hashes of different epochs cannot be compared.
    pub(crate) fn hash_key(&self, epoch: EpochId) -> Result<&HashKey> {
        Ok(&self.epoch(epoch)?.hash)
    }

    /// Seals the segments of a new object.
    pub(crate) fn sealer(&self, kind: ObjectKind, name: &str) -> Result<ObjectSealer> {
        let epoch = self.current();
        let context = ObjectContext { repository: self.repository, epoch, kind, name };
        Ok(ObjectSealer::new(self.suite, &self.epoch(epoch)?.key, &context, self.env.random())?)
    }

    /// Opens the segments of an object that begins with `header`.
    pub(crate) fn opener(&self, kind: ObjectKind, name: &str, header: &ObjectHeader) -> Result<ObjectOpener> {
        let context = ObjectContext { repository: self.repository, epoch: header.epoch, kind, name };
        Ok(ObjectOpener::new(&self.epoch(header.epoch)?.key, &context, header)?)
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
}
