//! The stored form of a wrapped epoch key.

use std::fmt;

use sha2::{Digest, Sha256};

use super::{RecipientId, RecipientKind};
use crate::epoch::EpochId;
use crate::error::{Error, Result};
use crate::repository::RepositoryId;

const MAGIC: [u8; 8] = *b"\x89BKKEY\r\n";
const VERSION: u8 = 1;
const FIXED_LEN: usize = 36;
const CHECKSUM_LEN: usize = 16;
const MAX_PARAMS: usize = 256;
const WHAT: &str = "the wrapped key";

/// Longest sealed key that a wrap can carry, in bytes: room for what any key service makes of 32 bytes.
pub const MAX_SEALED_KEY: usize = 16 << 10;

/// An epoch key, sealed for one recipient: the content of one small object.
///
/// # Layout
/// | offset | bytes | field |
/// |---|---|---|
/// | 0 | 8 | magic `89 42 4b 4b 45 59 0d 0a` |
/// | 8 | 1 | version, 1 |
/// | 9 | 1 | [`RecipientKind`] |
/// | 10 | 1 | flags, none defined: anything but 0 is refused |
/// | 11 | 1 | length `i` of the recipient id |
/// | 12 | 2 | length `p` of the parameters, u16 LE, at most 256 |
/// | 14 | 2 | length `s` of the sealed key, u16 LE, at most 16384 |
/// | 16 | 4 | epoch, u32 LE |
/// | 20 | 16 | repository id |
/// | 36 | i | [`RecipientId`], ASCII |
/// | | p | parameters |
/// | | s | sealed key |
/// | | 16 | first half of SHA-256 over everything before |
///
/// All bytes before the sealed key are its context: they are authenticated with it.
///
/// | kind | parameters | sealed key |
/// |---|---|---|
/// | passphrase | salt (32), memory in KiB, passes, lanes (u32 LE each) | commitment (32), ciphertext (32), tag (16) |
/// | raw key | salt (32) | commitment (32), ciphertext (32), tag (16) |
/// | x25519 | none | encapsulated key (32), ciphertext (32), tag (16): HPKE (RFC 9180), base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305 |
/// | service | none | whatever the service gave |
///
/// The trailing digest is not a protection against anyone: it tells a damaged wrap from a wrong passphrase.
#[derive(Clone, PartialEq, Eq)]
pub struct WrappedKey {
    kind: RecipientKind,
    recipient: RecipientId,
    repository: RepositoryId,
    epoch: EpochId,
    params: Vec<u8>,
    sealed: Vec<u8>,
}

impl WrappedKey {
    /// Makes the wrap whose sealed key `seal` makes of the context.
    pub(super) fn build(
        kind: RecipientKind,
        recipient: RecipientId,
        repository: RepositoryId,
        epoch: EpochId,
        params: Vec<u8>,
        sealed_len: usize,
        seal: impl FnOnce(&[u8]) -> Result<Vec<u8>>,
    ) -> Result<Self> {
        let mut wrap = Self { kind, recipient, repository, epoch, params, sealed: Vec::new() };
        wrap.sealed = seal(&wrap.context(sealed_len)?)?;
        debug_assert_eq!(wrap.sealed.len(), sealed_len);
        Ok(wrap)
    }

    /// What kind of recipient it is for.
    pub fn kind(&self) -> RecipientKind {
        self.kind
    }

    /// The recipient it is for.
    pub fn recipient(&self) -> &RecipientId {
        &self.recipient
    }

    /// The repository whose key it holds.
    pub fn repository(&self) -> RepositoryId {
        self.repository
    }

    /// The epoch whose key it holds.
    pub fn epoch(&self) -> EpochId {
        self.epoch
    }

    pub(super) fn params(&self) -> &[u8] {
        &self.params
    }

    pub(super) fn sealed(&self) -> &[u8] {
        &self.sealed
    }

    /// Everything that is stored before the sealed key.
    pub(super) fn context(&self, sealed_len: usize) -> Result<Vec<u8>> {
        if sealed_len > MAX_SEALED_KEY {
            let (found, limit) = (sealed_len as u64, MAX_SEALED_KEY as u64);
            return Err(Error::LimitExceeded { what: "the sealed key", found, limit });
        }
        debug_assert!(self.params.len() <= MAX_PARAMS);
        let id = self.recipient.as_str().as_bytes();
        let mut bytes = Vec::with_capacity(FIXED_LEN + id.len() + self.params.len() + sealed_len + CHECKSUM_LEN);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[VERSION, self.kind as u8, 0, id.len() as u8]);
        bytes.extend_from_slice(&(self.params.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&(sealed_len as u16).to_le_bytes());
        bytes.extend_from_slice(&self.epoch.0.to_le_bytes());
        bytes.extend_from_slice(self.repository.as_bytes());
        bytes.extend_from_slice(id);
        bytes.extend_from_slice(&self.params);
        Ok(bytes)
    }

    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.context(self.sealed.len()).expect("the lengths were checked when it was made");
        bytes.extend_from_slice(&self.sealed);
        let digest = checksum(&bytes);
        bytes.extend_from_slice(&digest);
        bytes
    }

    /// Reads the stored form, which must be the whole of `bytes`.
    ///
    /// Allocates no more than `bytes` is long. Nothing is derived or decrypted, so a success says nothing about authenticity.
    ///
    /// # Errors
    /// [`Damaged`](crate::ErrorKind::Damaged) for anything that [`WrappedKey::encode`] does not make, among it passphrase
    /// parameters beyond the bounds of [`PassphraseParams`](crate::PassphraseParams).
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let truncated = |needed| Error::Truncated { what: WHAT, needed, found: bytes.len() };
        let malformed = |reason| Error::Malformed { what: WHAT, reason };
        let fixed: &[u8; FIXED_LEN] = bytes.first_chunk().ok_or(truncated(FIXED_LEN))?;
        if fixed[..8] != MAGIC {
            return Err(Error::BadMagic { what: "a wrapped key" });
        }
        let [version, kind, flags, id_len] = [fixed[8], fixed[9], fixed[10], fixed[11]];
        if version != VERSION {
            return Err(Error::Unsupported { what: WHAT, field: "version", found: version.into() });
        }
        let id_len = usize::from(id_len);
        let params_len = usize::from(u16::from_le_bytes([fixed[12], fixed[13]]));
        let sealed_len = usize::from(u16::from_le_bytes([fixed[14], fixed[15]]));
        if params_len > MAX_PARAMS || sealed_len > MAX_SEALED_KEY {
            return Err(malformed("a length is out of bounds"));
        }
        let len = FIXED_LEN + id_len + params_len + sealed_len + CHECKSUM_LEN;
        if bytes.len() < len {
            return Err(truncated(len));
        }
        if bytes.len() > len {
            return Err(malformed("something follows it"));
        }
        let (content, digest) = bytes.split_at(len - CHECKSUM_LEN);
        if checksum(content) != digest {
            return Err(malformed("its bytes have changed"));
        }
        // Only behind the digest, so that a flipped bit is told as damage and not as a later format.
        if flags != 0 {
            return Err(Error::Unsupported { what: WHAT, field: "flags", found: flags.into() });
        }
        let kind = RecipientKind::try_from(kind)?;
        let (id, rest) = content[FIXED_LEN..].split_at(id_len);
        let (params, sealed) = rest.split_at(params_len);
        let id = std::str::from_utf8(id).ok().and_then(|id| id.parse().ok());
        let mut repository = [0; RepositoryId::LEN];
        repository.copy_from_slice(&fixed[20..]);
        let wrap = Self {
            kind,
            recipient: id.ok_or(malformed("its recipient id is not one"))?,
            repository: RepositoryId::from_bytes(repository),
            epoch: EpochId(u32::from_le_bytes([fixed[16], fixed[17], fixed[18], fixed[19]])),
            params: params.to_vec(),
            sealed: sealed.to_vec(),
        };
        wrap.check_shape()?;
        Ok(wrap)
    }

    /// Checks that parameters and sealed key have the form of this kind.
    fn check_shape(&self) -> Result<()> {
        let expected = match self.kind {
            RecipientKind::Passphrase => {
                super::passphrase::Stretch::parse(&self.params)?;
                super::symmetric::SEALED_LEN
            }
            RecipientKind::RawKey if self.params.len() == super::symmetric::SALT_LEN => super::symmetric::SEALED_LEN,
            RecipientKind::X25519 if self.params.is_empty() => super::x25519::SEALED_LEN,
            RecipientKind::Service if self.params.is_empty() && !self.sealed.is_empty() => self.sealed.len(),
            _ => return Err(Error::Malformed { what: WHAT, reason: "its parameters do not fit its kind" }),
        };
        if self.sealed.len() != expected {
            return Err(Error::Malformed { what: WHAT, reason: "its sealed key does not fit its kind" });
        }
        Ok(())
    }

    /// That it is for this repository and epoch. An early, clear answer: the sealed key is bound to both anyway.
    pub(super) fn check_context(&self, repository: RepositoryId, epoch: EpochId) -> Result<()> {
        let mismatch = |field, expected, found| Error::ContextMismatch { what: WHAT, field, expected, found };
        if self.repository != repository {
            return Err(mismatch("repository", repository.to_string(), self.repository.to_string()));
        }
        if self.epoch != epoch {
            return Err(mismatch("epoch", epoch.to_string(), self.epoch.to_string()));
        }
        Ok(())
    }

    pub(super) fn wrong_secret(&self) -> Error {
        Error::WrongSecret { secret: self.kind, recipient: self.recipient.clone() }
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_LEN] {
    let digest = Sha256::digest(bytes);
    std::array::from_fn(|i| digest[i])
}

impl fmt::Debug for WrappedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WrappedKey")
            .field("recipient", &self.recipient)
            .field("repository", &self.repository)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}
