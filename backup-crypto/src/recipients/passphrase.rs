//! Passphrases as recipients, stretched by argon2id (RFC 9106, version 0x13).

use std::fmt;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use zeroize::Zeroizing;

use super::symmetric::{self, SALT_LEN, SEALED_LEN};
use super::{RecipientId, RecipientKind, WrappedKey};
use crate::entropy::{Entropy, draw};
use crate::epoch::{EpochId, EpochKey};
use crate::error::{Error, Result};
use crate::repository::RepositoryId;

/// A passphrase, used as the very bytes given: no trimming, no Unicode normalisation. Never printed, wiped when dropped.
#[derive(Clone)]
pub struct Passphrase(Zeroizing<Box<str>>);

impl Passphrase {
    /// Longest passphrase in bytes.
    pub const MAX_LEN: usize = 4096;

    /// Takes over a passphrase.
    ///
    /// # Errors
    /// [`Error::InvalidText`] for an empty one or one beyond [`Passphrase::MAX_LEN`]. How hard it is to guess is not
    /// judged here.
    pub fn new(passphrase: impl Into<String>) -> Result<Self> {
        let mut passphrase = Zeroizing::new(passphrase.into());
        if passphrase.is_empty() || passphrase.len() > Self::MAX_LEN {
            return Err(Error::InvalidText { what: "passphrase", expected: "1 to 4096 bytes" });
        }
        // Exactly as long as it is, so that boxing it does not move it and leave a copy behind.
        let exact = if passphrase.capacity() == passphrase.len() {
            std::mem::take(&mut *passphrase)
        } else {
            let mut exact = String::with_capacity(passphrase.len());
            exact.push_str(&passphrase);
            exact
        };
        Ok(Self(Zeroizing::new(exact.into_boxed_str())))
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(…)")
    }
}

/// The cost of checking one passphrase, for the owner as for whoever guesses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PassphraseParams {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl PassphraseParams {
    /// Most memory, in KiB (1 GiB). The bounds hold for wraps that are read too: a hostile one cannot demand more.
    pub const MAX_MEMORY_KIB: u32 = 1 << 20;
    /// Most passes over the memory.
    pub const MAX_PASSES: u32 = 32;
    /// Most lanes.
    pub const MAX_LANES: u32 = 16;
    /// Most memory times passes, in KiB (4 GiB): about 4 s of one core.
    pub const MAX_WORK_KIB: u64 = 4 << 20;

    /// Chooses the cost: `memory_kib` KiB of memory, at least 8 for each lane, gone over `passes` times, in `lanes` lanes
    /// (which are computed one after the other here).
    ///
    /// # Errors
    /// [`Error::LimitExceeded`] for what is beyond the bounds of this type, [`Error::InvalidText`] for less than argon2's own.
    pub fn new(memory_kib: u32, passes: u32, lanes: u32) -> Result<Self> {
        let within = |what, found: u64, limit: u64| match found <= limit {
            true => Ok(()),
            false => Err(Error::LimitExceeded { what, found, limit }),
        };
        within("the argon2 memory in KiB", memory_kib.into(), Self::MAX_MEMORY_KIB.into())?;
        within("the number of argon2 passes", passes.into(), Self::MAX_PASSES.into())?;
        within("the number of argon2 lanes", lanes.into(), Self::MAX_LANES.into())?;
        within("the argon2 memory times passes in KiB", u64::from(memory_kib) * u64::from(passes), Self::MAX_WORK_KIB)?;
        if passes == 0 || lanes == 0 || memory_kib < 8 * lanes {
            let expected = "at least one pass, one lane and 8 KiB of memory for each lane";
            return Err(Error::InvalidText { what: "argon2 cost", expected });
        }
        Ok(Self { memory_kib, passes, lanes })
    }

    /// Memory in KiB.
    pub fn memory_kib(&self) -> u32 {
        self.memory_kib
    }

    /// Passes over the memory.
    pub fn passes(&self) -> u32 {
        self.passes
    }

    /// Lanes.
    pub fn lanes(&self) -> u32 {
        self.lanes
    }
}

impl Default for PassphraseParams {
    /// 64 MiB, three passes, one lane: the memory-constrained recommendation of RFC 9106 §4 (backups run on database hosts
    /// whose memory belongs to the database), with one lane because lanes are not computed in parallel here.
    fn default() -> Self {
        Self { memory_kib: 64 << 10, passes: 3, lanes: 1 }
    }
}

/// Parameters and salt as they are stored in a wrap.
pub(super) struct Stretch {
    salt: [u8; SALT_LEN],
    params: PassphraseParams,
}

impl Stretch {
    const LEN: usize = SALT_LEN + 12;

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::LEN);
        bytes.extend_from_slice(&self.salt);
        for number in [self.params.memory_kib, self.params.passes, self.params.lanes] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        let malformed = |reason| Error::Malformed { what: "the wrapped key", reason };
        let bytes: &[u8; Self::LEN] =
            bytes.try_into().map_err(|_| malformed("its passphrase parameters are not 44 bytes"))?;
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let params = PassphraseParams::new(number(SALT_LEN), number(SALT_LEN + 4), number(SALT_LEN + 8))
            .map_err(|_| malformed("its passphrase parameters are out of bounds"))?;
        Ok(Self { salt: std::array::from_fn(|i| bytes[i]), params })
    }

    fn key(&self, passphrase: &Passphrase) -> Result<Zeroizing<[u8; 32]>> {
        let refused = |_| Error::Internal { what: "argon2" };
        let PassphraseParams { memory_kib, passes, lanes } = self.params;
        let params = Params::new(memory_kib, passes, lanes, Some(32)).map_err(refused)?;
        let blocks = params.block_count();
        let mut memory: Zeroizing<Vec<Block>> = Zeroizing::new(Vec::new());
        memory.try_reserve_exact(blocks).map_err(|_| Error::OutOfMemory { bytes: (blocks * Block::SIZE) as u64 })?;
        memory.resize(blocks, Block::new());
        let mut key = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into_with_memory(passphrase.0.as_bytes(), &self.salt, &mut key[..], &mut memory[..])
            .map_err(refused)?;
        Ok(key)
    }
}

pub(super) fn wrap(
    passphrase: &Passphrase,
    params: PassphraseParams,
    name: Option<&RecipientId>,
    key: &EpochKey,
    (repository, epoch): (RepositoryId, EpochId),
    entropy: &dyn Entropy,
) -> Result<WrappedKey> {
    let stretch = Stretch { salt: draw(entropy), params };
    let kek = stretch.key(passphrase)?;
    // A new name comes from the salt alone, so it says nothing about the passphrase.
    let new = || RecipientId::from_digest("pass", &std::array::from_fn(|i| stretch.salt[i]));
    let id = name.cloned().unwrap_or_else(new);
    let kind = RecipientKind::Passphrase;
    WrappedKey::build(kind, id, repository, epoch, stretch.encode(), SEALED_LEN, |context| {
        symmetric::seal(&kek, &stretch.salt, context, key)
    })
}

pub(super) fn unwrap(passphrase: &Passphrase, wrap: &WrappedKey) -> Result<EpochKey> {
    let stretch = Stretch::parse(wrap.params())?;
    let kek = stretch.key(passphrase)?;
    symmetric::open(&kek, &stretch.salt, wrap)
}
