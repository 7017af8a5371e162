//! Unwrapping: from wrapped keys in the store to the keys of epochs, as far as one recipient can open them.

use std::collections::BTreeMap;
use std::sync::Arc;

use backup_crypto::{EpochId, EpochKey, Identity, KeyWrapper, RecipientId, RecipientKind, RepositoryId, WrappedKey};
use futures::stream::{self, StreamExt, TryStreamExt};

use super::KeyHolder;
use crate::error::{Error, ErrorKind, Result};
use crate::layout;
use crate::repository::parse_key;
use crate::store::{ObjectName, Store};

/// How many wraps are fetched at the same time.
const AHEAD: usize = 8;

/// As whom a repository is opened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Unlock {
    /// As one who has a secret.
    Identity(Arc<Identity>),
    /// By a key management service, which sees nothing but the keys of epochs.
    Service(Arc<dyn KeyWrapper>),
}

impl Unlock {
    /// By a key management service.
    pub fn service(service: impl KeyWrapper) -> Self {
        Self::Service(Arc::new(service))
    }

    /// The same one, as one for whom keys are wrapped.
    pub(crate) fn holder(&self) -> KeyHolder {
        match self {
            Self::Identity(identity) => KeyHolder::Recipient(identity.to_recipient()),
            Self::Service(service) => KeyHolder::Service(Arc::clone(service)),
        }
    }
}

impl From<Identity> for Unlock {
    fn from(identity: Identity) -> Self {
        Self::Identity(Arc::new(identity))
    }
}

impl From<Arc<Identity>> for Unlock {
    fn from(identity: Arc<Identity>) -> Self {
        Self::Identity(identity)
    }
}

impl From<Arc<dyn KeyWrapper>> for Unlock {
    fn from(service: Arc<dyn KeyWrapper>) -> Self {
        Self::Service(service)
    }
}

/// The keys that one recipient can open in one repository.
#[derive(Debug)]
pub(crate) struct Unlocker {
    store: Store,
    unlock: Unlock,
}

/// Keys that may be those of their epochs.
type Candidates = BTreeMap<EpochId, Vec<EpochKey>>;

impl Unlocker {
    /// Of the repository at `store`, as `unlock`.
    pub(crate) fn new(store: Store, unlock: Unlock) -> Self {
        Self { store, unlock }
    }

    /// As whom.
    pub(crate) fn unlock(&self) -> &Unlock {
        &self.unlock
    }

    /// What kind of recipient it is.
    pub(crate) fn kind(&self) -> RecipientKind {
        match &self.unlock {
            Unlock::Identity(identity) => identity.kind(),
            Unlock::Service(_) => RecipientKind::Service,
        }
    }

    /// Whether nobody else can have made what it unwraps.
    pub(crate) fn vouches(&self) -> bool {
        matches!(&self.unlock, Unlock::Identity(identity) if identity.is_secret_both_ways())
    }

    /// All keys.
    ///
    /// # Errors
    /// InvalidInput when there is none for this recipient, Damaged when its wraps may be among those that are not readable.
    pub(crate) async fn all(&self, repository: RepositoryId) -> Result<Candidates> {
        let (wraps, unreadable) = self.fetch(layout::KEYS).await?;
        if wraps.is_empty() && unreadable.is_none() {
            return Err(Error::damaged("the repository has no wrapped keys"));
        }
        let (keys, refusal) = self.unwrap(wraps, repository).await?;
        if !keys.is_empty() {
            return Ok(keys);
        }
        // A key that is damaged might have been the one that this recipient opens.
        Err(unreadable
            .or(refusal)
            .unwrap_or_else(|| Error::invalid(format!("no key of the repository is wrapped for this {}", self.kind()))))
    }

    /// Every key that may be the one of `epoch`.
    ///
    /// # Errors
    /// Those of the store, and of a service that cannot be asked.
    pub(crate) async fn keys_of(&self, repository: RepositoryId, epoch: EpochId) -> Result<Vec<EpochKey>> {
        let (mut wraps, _) = self.fetch(&layout::keys_of(epoch)).await?;
        wraps.retain(|(_, wrap)| wrap.epoch() == epoch);
        Ok(self.unwrap(wraps, repository).await?.0.remove(&epoch).unwrap_or_default())
    }

    /// The wraps in `folder`, and what is wrong with one that is not readable.
    async fn fetch(&self, folder: &str) -> Result<(Vec<(ObjectName, WrappedKey)>, Option<Error>)> {
        let names: Vec<_> = self.store.list(folder).try_collect().await?;
        let mut objects = stream::iter(names)
            .map(|object| async move { (self.store.get(&object.name).await, object.name) })
            .buffered(AHEAD)
            .boxed();
        let (mut wraps, mut unreadable) = (Vec::new(), None);
        while let Some((object, name)) = objects.next().await {
            let object = match object {
                Ok(object) => object,
                // Its recipient was removed a moment ago.
                Err(e) if e.is_not_found() => continue,
                Err(e) => return Err(e),
            };
            match parse_key(name.as_str(), &object) {
                Ok(wrap) => wraps.push((name, wrap)),
                Err(error) => {
                    tracing::warn!(%error, "a wrapped key is not readable");
                    unreadable = Some(error);
                }
            }
        }
        Ok((wraps, unreadable))
    }

    async fn unwrap(
        &self,
        wraps: Vec<(ObjectName, WrappedKey)>,
        repository: RepositoryId,
    ) -> Result<(Candidates, Option<Error>)> {
        match &self.unlock {
            Unlock::Identity(identity) => {
                let identity = Arc::clone(identity);
                // A passphrase costs a deliberately slow hash.
                tokio::task::spawn_blocking(move || unwrap_as(&identity, wraps, repository))
                    .await
                    .map_err(|e| Error::internal("unwrapping a key panicked").with_source(e))
            }
            Unlock::Service(service) => unwrap_by(&**service, wraps, repository).await,
        }
    }
}

/// Blocking.
fn unwrap_as(
    identity: &Identity,
    mut wraps: Vec<(ObjectName, WrappedKey)>,
    repository: RepositoryId,
) -> (Candidates, Option<Error>) {
    let (mut keys, mut refusal) = (Candidates::new(), None);
    wraps.retain(|(_, wrap)| identity.matches(wrap));
    // Which of several passphrases it is shows in one epoch; trying the others again in each would take long.
    let mut own: Option<RecipientId> = None;
    while !wraps.is_empty() {
        let next = wraps.iter().position(|(_, wrap)| own.as_ref() == Some(wrap.recipient())).unwrap_or(0);
        let (name, wrap) = wraps.swap_remove(next);
        let epoch = wrap.epoch();
        match identity.unwrap(&wrap, repository, epoch) {
            Ok(key) => {
                own = Some(wrap.recipient().clone());
                keys.entry(epoch).or_default().push(key);
                if identity.is_secret_both_ways() {
                    wraps.retain(|(_, other)| other.epoch() != epoch);
                }
            }
            Err(error) => refusal = Some(Error::from(error).context(format!("object {name} cannot be opened"))),
        }
    }
    (keys, refusal)
}

async fn unwrap_by(
    service: &dyn KeyWrapper,
    wraps: Vec<(ObjectName, WrappedKey)>,
    repository: RepositoryId,
) -> Result<(Candidates, Option<Error>)> {
    let (mut keys, mut refusal) = (Candidates::new(), None);
    let own = service.recipient_id();
    for (name, wrap) in wraps {
        if wrap.kind() != RecipientKind::Service || *wrap.recipient() != own {
            continue;
        }
        match wrap.unwrap_by(service, repository, wrap.epoch()).await {
            Ok(key) => keys.entry(wrap.epoch()).or_default().push(key),
            Err(error) => {
                let error = Error::from(error).context(format!("object {name} cannot be opened"));
                // A service that does not answer says nothing about the wrap.
                if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Environment) {
                    return Err(error);
                }
                refusal = Some(error);
            }
        }
    }
    Ok((keys, refusal))
}
