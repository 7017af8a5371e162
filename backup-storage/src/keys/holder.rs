//! Wrapping: those for whom the keys of epochs are wrapped.

use std::fmt;
use std::sync::Arc;

use backup_core::env::Env;
use backup_crypto::{
    EpochId, EpochKey, KeyWrapper, Recipient, RecipientId, RecipientKind, RepositoryId, WrappedKey, X25519PublicKey,
};

use super::Unlock;
use crate::error::{Error, Result};

/// One for whom keys are wrapped.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum KeyHolder {
    /// Whoever has a secret.
    Recipient(Recipient),
    /// A key management service.
    Service(Arc<dyn KeyWrapper>),
}

impl KeyHolder {
    /// A key management service.
    pub fn service(service: impl KeyWrapper) -> Self {
        Self::Service(Arc::new(service))
    }

    /// What kind it is.
    #[must_use]
    pub fn kind(&self) -> RecipientKind {
        match self {
            Self::Recipient(recipient) => recipient.kind(),
            Self::Service(_) => RecipientKind::Service,
        }
    }

    /// Its public name, where it follows from the key alone: a passphrase has none.
    #[must_use]
    pub fn stable_id(&self) -> Option<RecipientId> {
        match self {
            Self::Recipient(recipient) => recipient.stable_id(),
            Self::Service(service) => Some(service.recipient_id()),
        }
    }

    /// As whom it opens, where the same secret does both.
    pub(crate) fn to_unlock(&self) -> Option<Unlock> {
        match self {
            Self::Recipient(recipient) => recipient.to_identity().map(Unlock::from),
            Self::Service(service) => Some(Unlock::Service(Arc::clone(service))),
        }
    }

    /// Its public key, where it has one.
    pub(crate) fn public(&self) -> Option<[u8; 32]> {
        match self {
            Self::Recipient(Recipient::X25519(public)) => Some(*public.as_bytes()),
            _ => None,
        }
    }
}

impl<R: Into<Recipient>> From<R> for KeyHolder {
    fn from(recipient: R) -> Self {
        Self::Recipient(recipient.into())
    }
}

impl fmt::Display for KeyHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.stable_id(), self) {
            (_, Self::Service(service)) => service.fmt(f),
            (Some(id), _) => id.fmt(f),
            (None, _) => self.kind().fmt(f),
        }
    }
}

/// The recipient with this public key, when `name` is its name.
pub(crate) fn public_holder(name: &str, public: Option<[u8; 32]>) -> Option<KeyHolder> {
    let public = X25519PublicKey::from_bytes(public?);
    (public.id().as_str() == name).then(|| KeyHolder::from(public))
}

/// Wraps each of `keys` for `holder`, who is known as `name`, or gets a name by the first wrap.
///
/// # Errors
/// Those of a service; InvalidInput for a public key that none can be.
pub(crate) async fn wrap(
    holder: &KeyHolder,
    name: Option<RecipientId>,
    keys: Vec<(EpochId, EpochKey)>,
    repository: RepositoryId,
    env: &Env,
) -> Result<Vec<WrappedKey>> {
    match holder {
        KeyHolder::Recipient(recipient) => {
            let (recipient, entropy) = (recipient.clone(), CryptoEntropy(env.clone()));
            // A passphrase costs a deliberately slow hash.
            tokio::task::spawn_blocking(move || wrap_for(&recipient, name, &keys, repository, &entropy))
                .await
                .map_err(|e| Error::internal("wrapping a key panicked").with_source(e))?
        }
        KeyHolder::Service(service) => {
            let mut wraps = Vec::new();
            for (epoch, key) in keys {
                wraps.push(WrappedKey::wrap_by(&**service, &key, repository, epoch).await?);
            }
            Ok(wraps)
        }
    }
}

/// Blocking.
fn wrap_for(
    recipient: &Recipient,
    mut name: Option<RecipientId>,
    keys: &[(EpochId, EpochKey)],
    repository: RepositoryId,
    entropy: &CryptoEntropy,
) -> Result<Vec<WrappedKey>> {
    let mut wraps = Vec::new();
    for (epoch, key) in keys {
        let wrap = match &name {
            Some(name) => recipient.wrap_as(name, key, repository, *epoch, entropy)?,
            None => recipient.wrap(key, repository, *epoch, entropy)?,
        };
        name = Some(wrap.recipient().clone());
        wraps.push(wrap);
    }
    Ok(wraps)
}

/// The injected randomness, as the crypto crate takes it.
#[derive(Debug)]
struct CryptoEntropy(Env);

impl backup_crypto::Entropy for CryptoEntropy {
    fn fill(&self, out: &mut [u8]) {
        self.0.entropy().fill(out);
    }
}
