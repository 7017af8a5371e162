//! The identity of an object and the key schedule that binds it.

use std::fmt;

use zeroize::{Zeroize, Zeroizing};

use crate::epoch::{EpochId, EpochKey};
use crate::error::{Error, Result};
use crate::kdf;
use crate::repository::RepositoryId;
use crate::suite::{KEY_LEN, NONCE_LEN, Suite};

/// Longest object name that can be bound, in bytes: the longest key that the common object stores allow.
pub const MAX_NAME: usize = 1024;

/// What an object is, as its number is written in the header. Bound into the key, so that an object of one kind can
/// never be taken for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum ObjectKind {
    /// Data and manifest parts of a backup.
    Pack = 1,
    /// One numbered commit.
    Journal = 2,
    /// A folded state of the journal.
    Checkpoint = 3,
    /// A piece of a change stream.
    Log = 4,
    /// The sealed description of a repository.
    Repository = 5,
    /// A manifest part outside a pack.
    Manifest = 6,
    /// What a session tells others: signs of life, pins.
    Session = 7,
}

impl ObjectKind {
    /// Every kind.
    pub const ALL: [Self; 7] =
        [Self::Pack, Self::Journal, Self::Checkpoint, Self::Log, Self::Repository, Self::Manifest, Self::Session];
}

impl TryFrom<u8> for ObjectKind {
    type Error = Error;

    fn try_from(number: u8) -> Result<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number).ok_or(Error::Unsupported {
            what: "the object header",
            field: "kind",
            found: number.into(),
        })
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pack => "pack",
            Self::Journal => "journal entry",
            Self::Checkpoint => "checkpoint",
            Self::Log => "log object",
            Self::Repository => "repository description",
            Self::Manifest => "manifest part",
            Self::Session => "session object",
        })
    }
}

/// Everything that identifies an object. All of it goes into the object's key.
///
/// # Key schedule
/// ```text
/// HKDF-SHA256(
///     ikm  = epoch key (32),
///     salt = the header's salt (32),
///     info = parts, each preceded by its length as u32 LE:
///            "backup-crypto v1 object", version ‖ suite ‖ kind ‖ flags (4), repository id (16), epoch (u32 LE), name,
///     len  = 76)
///   = key (32) ‖ base nonce (12) ‖ commitment (32)
/// ```
/// The shape (one expansion of key, base nonce and a stored commitment from a fresh salt and the context) is that of C2SP's
/// chunked encryption and of FLOE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectContext<'a> {
    /// The repository that the object belongs to.
    pub repository: RepositoryId,
    /// The epoch whose key seals it.
    pub epoch: EpochId,
    /// What it is.
    pub kind: ObjectKind,
    /// Its name inside the repository, exactly as it is stored, without the repository's own prefix: 1 to [`MAX_NAME`]
    /// bytes. The prefix stays out so that a repository can be moved and replicated as it is.
    pub name: &'a str,
}

impl ObjectContext<'_> {
    pub(super) fn derive(&self, prefix: [u8; 4], key: &EpochKey, salt: &[u8; 32]) -> Result<ObjectKeys> {
        if self.name.is_empty() || self.name.len() > MAX_NAME {
            return Err(Error::InvalidName { len: self.name.len() });
        }
        let mut output = Zeroizing::new([0; KEY_LEN + NONCE_LEN + 32]);
        let epoch = self.epoch.0.to_le_bytes();
        let parts = [&prefix[..], &self.repository.as_bytes()[..], &epoch, self.name.as_bytes()];
        kdf::derive(key.expose(), salt, kdf::OBJECT, &parts, &mut output[..]);
        let mut keys = ObjectKeys { key: [0; KEY_LEN], nonce: [0; NONCE_LEN], commitment: [0; 32] };
        keys.key.copy_from_slice(&output[..KEY_LEN]);
        keys.nonce.copy_from_slice(&output[KEY_LEN..KEY_LEN + NONCE_LEN]);
        keys.commitment.copy_from_slice(&output[KEY_LEN + NONCE_LEN..]);
        Ok(keys)
    }
}

/// What one object is sealed with.
pub(super) struct ObjectKeys {
    pub(super) key: [u8; KEY_LEN],
    pub(super) nonce: [u8; NONCE_LEN],
    pub(super) commitment: [u8; 32],
}

impl Drop for ObjectKeys {
    fn drop(&mut self) {
        self.key.zeroize();
        self.nonce.zeroize();
    }
}

/// The part of the header that the key schedule covers besides the context.
pub(super) fn bound_prefix(version: u8, suite: Suite, kind: ObjectKind) -> [u8; 4] {
    [version, suite as u8, kind as u8, 0]
}
