//! Raw 32-byte keys as recipients.

use std::fmt;
use std::str::FromStr;

use bech32::{Bech32, Hrp};
use zeroize::{Zeroize, Zeroizing};

use super::symmetric::{self, SALT_LEN, SEALED_LEN};
use super::{RecipientId, RecipientKind, WrappedKey};
use crate::entropy::{Entropy, draw};
use crate::epoch::{EpochId, EpochKey};
use crate::error::{Error, Result};
use crate::kdf;
use crate::repository::RepositoryId;

const HRP: Hrp = Hrp::parse_unchecked("backup-key-");

/// A symmetric key of 32 random bytes, for example one that a secret manager keeps.
///
/// Its text form is bech32, so that a typing error shows: `BACKUP-KEY-1…`; 64 hexadecimal digits are read too.
/// It has no stretching: a passphrase belongs into [`Passphrase`](super::Passphrase). Wiped when dropped.
#[derive(Clone)]
pub struct RawKey(Box<[u8; 32]>);

impl RawKey {
    /// Draws a new key.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        let mut bytes = Box::new([0; 32]);
        entropy.fill(&mut bytes[..]);
        Self(bytes)
    }

    /// Takes over existing key bytes and wipes the caller's copy.
    pub fn take(bytes: &mut [u8; 32]) -> Self {
        let key = Self(Box::new(*bytes));
        bytes.zeroize();
        key
    }

    /// The secret text form, for a key file.
    pub fn to_secret_text(&self) -> Zeroizing<String> {
        Zeroizing::new(bech32::encode_upper::<Bech32>(HRP, &self.0[..]).expect("32 bytes fit into bech32"))
    }

    /// Its public name: a digest that only a holder of the key can compute.
    pub fn id(&self) -> RecipientId {
        let mut digest = [0; 8];
        kdf::derive(&self.0[..], &[], kdf::RAW_KEY_ID, &[], &mut digest);
        RecipientId::from_digest("key", &digest)
    }
}

impl FromStr for RawKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = || Error::InvalidText { what: "raw key", expected: "BACKUP-KEY-1… or 64 hexadecimal digits" };
        let text = text.trim();
        let mut key = Zeroizing::new([0; 32]);
        if text.len() == 64 && text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            for (byte, pair) in key.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
                let digit = |i: usize| char::from(pair[i]).to_digit(16).map_or(0, |digit| digit as u8);
                *byte = digit(0) << 4 | digit(1);
            }
            return Ok(Self::take(&mut key));
        }
        decode_32(HRP, text, &mut key).ok_or_else(invalid)?;
        Ok(Self::take(&mut key))
    }
}

/// Reads 32 bytes of bech32 under `hrp` into `out`.
pub(crate) fn decode_32(hrp: Hrp, text: &str, out: &mut [u8; 32]) -> Option<()> {
    let checked = bech32::primitives::decode::CheckedHrpstring::new::<Bech32>(text).ok()?;
    if checked.hrp() != hrp {
        return None;
    }
    let mut bytes = checked.byte_iter();
    if bytes.len() != out.len() {
        return None;
    }
    out.iter_mut().zip(&mut bytes).for_each(|(out, byte)| *out = byte);
    Some(())
}

impl fmt::Debug for RawKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawKey({})", self.id())
    }
}

impl Drop for RawKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

pub(super) fn wrap(
    raw: &RawKey,
    key: &EpochKey,
    repository: RepositoryId,
    epoch: EpochId,
    entropy: &dyn Entropy,
) -> Result<WrappedKey> {
    let salt: [u8; SALT_LEN] = draw(entropy);
    let kind = RecipientKind::RawKey;
    WrappedKey::build(kind, raw.id(), repository, epoch, salt.to_vec(), SEALED_LEN, |context| {
        symmetric::seal(&raw.0, &salt, context, key)
    })
}

pub(super) fn unwrap(raw: &RawKey, wrap: &WrappedKey) -> Result<EpochKey> {
    symmetric::open(&raw.0, wrap.params(), wrap)
}
