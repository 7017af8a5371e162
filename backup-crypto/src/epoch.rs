//! Epochs: the generations of a repository's key.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use crate::entropy::Entropy;
use crate::kdf;
use crate::repository::RepositoryId;

/// Number of a key generation of one repository, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EpochId(pub u32);

impl EpochId {
    /// The epoch that follows, or `None` after the last representable one.
    pub const fn next(self) -> Option<Self> {
        match self.0.checked_add(1) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }
}

impl fmt::Display for EpochId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The root secret of one epoch: 32 random bytes from which the keys of its objects are derived.
///
/// It lives on the heap, so moving the value leaves no copy behind, and is wiped when dropped. `Debug` shows nothing of
/// it and there is no `Display`. Comparison takes constant time.
#[derive(Clone)]
pub struct EpochKey(Box<[u8; 32]>);

impl EpochKey {
    /// Length in bytes.
    pub const LEN: usize = 32;

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

    /// The key itself, for those who wrap it. Never print, log or store it.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// A public name of this very key in this very place.
    ///
    /// A commit that carries it pins the key: a wrap that yields another key, which anyone who knows a public recipient can make,
    /// is then recognised. It reveals nothing about the key.
    pub fn fingerprint(&self, repository: RepositoryId, epoch: EpochId) -> EpochFingerprint {
        let mut out = [0; 16];
        let place = [&repository.as_bytes()[..], &epoch.0.to_le_bytes()];
        kdf::derive(&self.0[..], &[], kdf::EPOCH_FINGERPRINT, &place, &mut out);
        EpochFingerprint(out)
    }
}

impl PartialEq for EpochKey {
    fn eq(&self, other: &Self) -> bool {
        self.0[..].ct_eq(&other.0[..]).into()
    }
}

impl Eq for EpochKey {}

impl fmt::Debug for EpochKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EpochKey(…)")
    }
}

impl Drop for EpochKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// Public name of an [`EpochKey`], see [`EpochKey::fingerprint`]: 16 bytes, written as hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EpochFingerprint([u8; 16]);

impl EpochFingerprint {
    /// The fingerprint with these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes as they are stored.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for EpochFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for EpochFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EpochFingerprint({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SeededEntropy;

    #[test]
    fn nothing_of_the_key_is_printed() {
        assert_eq!(format!("{:?}", EpochKey::take(&mut [0xab; 32])), "EpochKey(…)");
    }

    #[test]
    fn taking_a_key_wipes_the_source() {
        let mut bytes = [7; 32];
        let key = EpochKey::take(&mut bytes);
        assert_eq!((bytes, key.expose()), ([0; 32], &[7; 32]));
    }

    #[test]
    fn a_fingerprint_belongs_to_key_and_place() {
        let entropy = SeededEntropy::new(1);
        let (a, b) = (EpochKey::generate(&entropy), EpochKey::generate(&entropy));
        let (here, there) = (RepositoryId::generate(&entropy), RepositoryId::generate(&entropy));
        let name = a.fingerprint(here, EpochId(1));
        assert_eq!(name, a.clone().fingerprint(here, EpochId(1)));
        assert_ne!(name, a.fingerprint(there, EpochId(1)));
        assert_ne!(name, a.fingerprint(here, EpochId(2)));
        assert_ne!(name, b.fingerprint(here, EpochId(1)));
    }
}
