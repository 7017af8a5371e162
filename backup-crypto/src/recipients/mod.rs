//! Recipients: those who can unwrap the epoch keys of a repository.
//!
//! A [`Recipient`] can wrap an epoch key, an [`Identity`] can unwrap it. For a passphrase or a raw key both are the same secret; for
//! X25519 the recipient is public, so a host that only writes backups holds nothing that reads them. A [`KeyWrapper`] does
//! both in a key management service.
//!
//! Whatever the recipient, the wrap is bound to repository, epoch, recipient and parameters. Advise at least two recipients
//! for every repository, one of them kept offline.

use std::fmt;
use std::str::FromStr;

use crate::entropy::Entropy;
use crate::epoch::{EpochId, EpochKey};
use crate::error::{Error, Result};
use crate::repository::RepositoryId;

mod passphrase;
mod raw;
mod service;
mod symmetric;
mod wrapped;
mod x25519;

pub use passphrase::{Passphrase, PassphraseParams};
pub use raw::RawKey;
pub(crate) use raw::decode_32;
pub use service::{KeyWrapper, WrapContext};
pub use wrapped::{MAX_SEALED_KEY, WrappedKey};
pub use x25519::{X25519PublicKey, X25519SecretKey};

/// A kind of recipient, as its number is written in wraps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum RecipientKind {
    /// Whoever knows a passphrase.
    Passphrase = 1,
    /// Whoever holds 32 random bytes.
    RawKey = 2,
    /// Whoever holds the secret half of an X25519 key pair.
    X25519 = 3,
    /// A service behind a [`KeyWrapper`].
    Service = 4,
}

impl RecipientKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Passphrase, Self::RawKey, Self::X25519, Self::Service];
}

impl TryFrom<u8> for RecipientKind {
    type Error = Error;

    fn try_from(number: u8) -> Result<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number).ok_or(Error::Unsupported {
            what: "the wrapped key",
            field: "recipient kind",
            found: number.into(),
        })
    }
}

impl fmt::Display for RecipientKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passphrase => "passphrase",
            Self::RawKey => "raw key",
            Self::X25519 => "x25519 key",
            Self::Service => "key service",
        })
    }
}

/// Short public name of a recipient, fit for an object name: 1 to 64 of `a-z`, `0-9` and `-`.
///
/// The same raw key or public key always has the same name. A passphrase gets a random one with its first wrap, because one that follows from it would
/// let anyone test guesses without the cost of argon2.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecipientId(Box<str>);

impl RecipientId {
    /// Longest name in bytes.
    pub const MAX_LEN: usize = 64;

    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn from_digest(prefix: &str, digest: &[u8; 8]) -> Self {
        Self(format!("{prefix}-{:016x}", u64::from_be_bytes(*digest)).into())
    }
}

impl FromStr for RecipientId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if text.is_empty() || text.len() > Self::MAX_LEN || !text.bytes().all(allowed) {
            return Err(Error::InvalidText { what: "recipient id", expected: "1 to 64 of a-z, 0-9 and -" });
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for RecipientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One for whom epoch keys are wrapped.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Recipient {
    /// Whoever knows the passphrase, stretched with these parameters.
    Passphrase(Passphrase, PassphraseParams),
    /// Whoever holds the key.
    RawKey(RawKey),
    /// Whoever holds the secret half.
    X25519(X25519PublicKey),
}

impl Recipient {
    /// What kind of recipient it is.
    pub fn kind(&self) -> RecipientKind {
        match self {
            Self::Passphrase(..) => RecipientKind::Passphrase,
            Self::RawKey(_) => RecipientKind::RawKey,
            Self::X25519(_) => RecipientKind::X25519,
        }
    }

    /// Wraps `key`, the key of `epoch` in `repository`.
    ///
    /// For a passphrase this takes the time and memory that its [`PassphraseParams`] ask for (about 0.2 s by default): not for
    /// an async thread.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] when a passphrase's memory cannot be had.
    pub fn wrap(
        &self,
        key: &EpochKey,
        repository: RepositoryId,
        epoch: EpochId,
        entropy: &dyn Entropy,
    ) -> Result<WrappedKey> {
        match self {
            Self::Passphrase(passphrase, params) => {
                passphrase::wrap(passphrase, *params, None, key, (repository, epoch), entropy)
            }
            Self::RawKey(raw) => raw::wrap(raw, key, repository, epoch, entropy),
            Self::X25519(public) => x25519::wrap(public, key, repository, epoch, entropy),
        }
    }

    /// As [`Recipient::wrap`], under the name that this recipient has already: a passphrase keeps the one that its first wrap got.
    ///
    /// # Errors
    /// As [`Recipient::wrap`], and [`Error::InvalidText`] when `name` is the name of another key.
    pub fn wrap_as(
        &self,
        name: &RecipientId,
        key: &EpochKey,
        repository: RepositoryId,
        epoch: EpochId,
        entropy: &dyn Entropy,
    ) -> Result<WrappedKey> {
        match self {
            Self::Passphrase(passphrase, params) => {
                passphrase::wrap(passphrase, *params, Some(name), key, (repository, epoch), entropy)
            }
            _ if self.stable_id().is_some_and(|own| own != *name) => {
                Err(Error::InvalidText { what: "recipient id", expected: "the one of this very key" })
            }
            _ => self.wrap(key, repository, epoch, entropy),
        }
    }

    /// The public name under which wraps for it are kept; none for a passphrase, see [`RecipientId`].
    pub fn stable_id(&self) -> Option<RecipientId> {
        match self {
            Self::Passphrase(..) => None,
            Self::RawKey(raw) => Some(raw.id()),
            Self::X25519(public) => Some(public.id()),
        }
    }

    /// As whom it unwraps, where the same secret does both.
    pub fn to_identity(&self) -> Option<Identity> {
        match self {
            Self::Passphrase(passphrase, _) => Some(Identity::Passphrase(passphrase.clone())),
            Self::RawKey(raw) => Some(Identity::RawKey(raw.clone())),
            Self::X25519(_) => None,
        }
    }
}

impl From<Passphrase> for Recipient {
    fn from(passphrase: Passphrase) -> Self {
        Self::Passphrase(passphrase, PassphraseParams::default())
    }
}

impl From<RawKey> for Recipient {
    fn from(key: RawKey) -> Self {
        Self::RawKey(key)
    }
}

impl From<X25519PublicKey> for Recipient {
    fn from(key: X25519PublicKey) -> Self {
        Self::X25519(key)
    }
}

/// One who can unwrap epoch keys.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Identity {
    /// By knowing a passphrase.
    Passphrase(Passphrase),
    /// By holding a raw key.
    RawKey(RawKey),
    /// By holding the secret half of a key pair.
    X25519(X25519SecretKey),
}

impl Identity {
    /// What kind of recipient it is.
    pub fn kind(&self) -> RecipientKind {
        match self {
            Self::Passphrase(_) => RecipientKind::Passphrase,
            Self::RawKey(_) => RecipientKind::RawKey,
            Self::X25519(_) => RecipientKind::X25519,
        }
    }

    /// Whether it is worth trying to unwrap `wrap`, without the cost of trying: the kind fits, and for keys the name too.
    pub fn matches(&self, wrap: &WrappedKey) -> bool {
        self.kind() == wrap.kind() && self.stable_id().is_none_or(|id| id == *wrap.recipient())
    }

    /// The public name under which wraps for it are kept; none for a passphrase, see [`RecipientId`].
    pub fn stable_id(&self) -> Option<RecipientId> {
        match self {
            Self::Passphrase(_) => None,
            Self::RawKey(raw) => Some(raw.id()),
            Self::X25519(secret) => Some(secret.public_key().id()),
        }
    }

    /// The one for whom keys are wrapped that it unwraps; a passphrase with the default parameters.
    pub fn to_recipient(&self) -> Recipient {
        match self {
            Self::Passphrase(passphrase) => Recipient::from(passphrase.clone()),
            Self::RawKey(raw) => Recipient::RawKey(raw.clone()),
            Self::X25519(secret) => Recipient::X25519(secret.public_key()),
        }
    }

    /// Whether only who holds the secret can have made a wrap that it unwraps. Of a public key anyone can have.
    pub fn is_secret_both_ways(&self) -> bool {
        !matches!(self, Self::X25519(_))
    }

    /// Unwraps the key of `epoch` in `repository`.
    ///
    /// For a passphrase this takes the time and memory that the wrap asks for, within the bounds of [`PassphraseParams`]: not for
    /// an async thread.
    ///
    /// # Errors
    /// [`Error::WrongSecret`] for a wrong passphrase or key, [`Error::WrongRecipientKind`] when the wrap needs another kind of
    /// identity, [`Error::ContextMismatch`] when it is for another repository or epoch, [`Error::OutOfMemory`].
    pub fn unwrap(&self, wrap: &WrappedKey, repository: RepositoryId, epoch: EpochId) -> Result<EpochKey> {
        wrap.check_context(repository, epoch)?;
        if self.kind() != wrap.kind() {
            return Err(Error::WrongRecipientKind {
                recipient: wrap.recipient().clone(),
                needed: wrap.kind(),
                given: self.kind(),
            });
        }
        if !self.matches(wrap) {
            return Err(wrap.wrong_secret());
        }
        match self {
            Self::Passphrase(passphrase) => passphrase::unwrap(passphrase, wrap),
            Self::RawKey(raw) => raw::unwrap(raw, wrap),
            Self::X25519(secret) => x25519::unwrap(secret, wrap),
        }
    }
}

impl From<Passphrase> for Identity {
    fn from(passphrase: Passphrase) -> Self {
        Self::Passphrase(passphrase)
    }
}

impl From<RawKey> for Identity {
    fn from(key: RawKey) -> Self {
        Self::RawKey(key)
    }
}

impl From<X25519SecretKey> for Identity {
    fn from(key: X25519SecretKey) -> Self {
        Self::X25519(key)
    }
}
