//! Hosts that only write: what such a host has in place of the keys.
//!
//! A host holds a secret that follows from an epoch key and opens nothing, and the public half of a key pair that follows from the same
//! epoch key. With the secret it says that what it stored is its own, and hashes blocks; for the public key it wraps the key of each session, and
//! forgets that. Whoever has the epoch key has both again, so nobody has to keep them.

use std::fmt;
use std::str::FromStr;

use bech32::{Bech32, Hrp};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use crate::epoch::{EpochId, EpochKey};
use crate::error::{Error, Result};
use crate::hasher::HashKey;
use crate::kdf;
use crate::recipients::{X25519SecretKey, decode_32};
use crate::repository::RepositoryId;

const HRP: Hrp = Hrp::parse_unchecked("backup-host-");

/// The secret of a host that only writes: 32 bytes that follow from the key of an epoch and the host's id.
///
/// Nothing is sealed with it or with what follows from it. Written as `BACKUP-HOST-1…` (bech32), never printed, wiped when dropped.
#[derive(Clone)]
pub struct HostSecret(Box<[u8; 32]>);

impl HostSecret {
    /// Length in bytes.
    pub const LEN: usize = 32;

    /// The secret of the host with the id `host`, under the key of `epoch` in `repository`.
    pub fn derive(key: &EpochKey, repository: RepositoryId, epoch: EpochId, host: &[u8; 16]) -> Self {
        let mut secret = Box::new([0; Self::LEN]);
        let place = [&repository.as_bytes()[..], &epoch.0.to_le_bytes(), host];
        kdf::derive(key.expose(), &[], kdf::HOST, &place, &mut secret[..]);
        Self(secret)
    }

    /// Takes over existing bytes and wipes the caller's copy.
    pub fn take(bytes: &mut [u8; Self::LEN]) -> Self {
        let secret = Self(Box::new(*bytes));
        bytes.zeroize();
        secret
    }

    /// The secret text form, for the file that the host is given.
    pub fn to_secret_text(&self) -> Zeroizing<String> {
        Zeroizing::new(bech32::encode_upper::<Bech32>(HRP, &self.0[..]).expect("32 bytes fit into bech32"))
    }

    /// What shows that the host, or somebody with the epoch key, has written `body` as the object `name`.
    ///
    /// Keyed BLAKE3 over the length of the name (u32 LE), the name and the body.
    pub fn tag(&self, name: &str, body: &[u8]) -> [u8; 32] {
        let mut key = Zeroizing::new([0; 32]);
        kdf::derive(&self.0[..], &[], kdf::HOST_TAG, &[], &mut key[..]);
        let len = u32::try_from(name.len()).unwrap_or(u32::MAX);
        let mut hasher = blake3::Hasher::new_keyed(&key);
        hasher.update(&len.to_le_bytes()).update(name.as_bytes()).update(body);
        let tag = *hasher.finalize().as_bytes();
        hasher.zeroize();
        tag
    }

    /// Whether `tag` is that of `body` as the object `name`. Takes the same time whatever differs.
    pub fn verify(&self, name: &str, body: &[u8], tag: &[u8; 32]) -> bool {
        self.tag(name, body)[..].ct_eq(&tag[..]).into()
    }

    /// The root of the host's [`HashKey`]: for whoever checks content by its hashes, and cannot know this secret.
    pub fn hash_root(&self) -> Zeroizing<[u8; HashKey::SECRET_LEN]> {
        let mut root = Zeroizing::new([0; HashKey::SECRET_LEN]);
        kdf::derive(&self.0[..], &[], kdf::HOST_HASH, &[], &mut root[..]);
        root
    }
}

impl PartialEq for HostSecret {
    fn eq(&self, other: &Self) -> bool {
        self.0[..].ct_eq(&other.0[..]).into()
    }
}

impl Eq for HostSecret {}

impl fmt::Debug for HostSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HostSecret(…)")
    }
}

impl FromStr for HostSecret {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut secret = Zeroizing::new([0; Self::LEN]);
        decode_32(HRP, text.trim(), &mut secret)
            .ok_or(Error::InvalidText { what: "secret of a host", expected: "BACKUP-HOST-1…" })?;
        Ok(Self::take(&mut secret))
    }
}

impl Drop for HostSecret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl EpochKey {
    /// The key pair for whose public half hosts that only write wrap the keys of their sessions.
    ///
    /// Whoever has the epoch key has it: those who open by a passphrase or a key service, and those who become recipients later.
    pub fn deposit_key(&self, repository: RepositoryId, epoch: EpochId) -> X25519SecretKey {
        let mut secret = Zeroizing::new([0; 32]);
        let place = [&repository.as_bytes()[..], &epoch.0.to_le_bytes()];
        kdf::derive(self.expose(), &[], kdf::DEPOSIT_KEY, &place, &mut secret[..]);
        X25519SecretKey::take(&mut secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SeededEntropy;

    #[test]
    fn a_secret_belongs_to_key_place_and_host() {
        let entropy = SeededEntropy::new(7);
        let (a, b) = (EpochKey::generate(&entropy), EpochKey::generate(&entropy));
        let (here, there) = (RepositoryId::generate(&entropy), RepositoryId::generate(&entropy));
        let secret = HostSecret::derive(&a, here, EpochId(1), &[1; 16]);
        assert_eq!(secret, HostSecret::derive(&a.clone(), here, EpochId(1), &[1; 16]));
        for other in [
            HostSecret::derive(&b, here, EpochId(1), &[1; 16]),
            HostSecret::derive(&a, there, EpochId(1), &[1; 16]),
            HostSecret::derive(&a, here, EpochId(2), &[1; 16]),
            HostSecret::derive(&a, here, EpochId(1), &[2; 16]),
        ] {
            assert_ne!(secret, other);
            assert_ne!(secret.hash_root(), other.hash_root());
        }
        let pair = |key: &EpochKey, place, epoch| key.deposit_key(place, EpochId(epoch)).public_key();
        assert_eq!(pair(&a, here, 1), pair(&a, here, 1));
        for other in [pair(&b, here, 1), pair(&a, there, 1), pair(&a, here, 2)] {
            assert_ne!(pair(&a, here, 1), other);
        }
    }

    #[test]
    fn a_tag_belongs_to_name_and_body() {
        let secret = HostSecret::take(&mut [3; 32]);
        let tag = secret.tag("packs/x/deposit", b"body");
        assert!(secret.verify("packs/x/deposit", b"body", &tag));
        assert!(!secret.verify("packs/y/deposit", b"body", &tag));
        assert!(!secret.verify("packs/x/deposit", b"Body", &tag));
        assert!(!secret.verify("packs/x/deposi", b"tbody", &tag), "where the name ends is part of it");
        assert!(!HostSecret::take(&mut [4; 32]).verify("packs/x/deposit", b"body", &tag));
    }

    #[test]
    fn the_text_form_comes_back_and_nothing_else_is_printed() {
        let secret = HostSecret::take(&mut [9; 32]);
        let text = secret.to_secret_text();
        assert!(text.starts_with("BACKUP-HOST-1"));
        assert_eq!(text.parse::<HostSecret>().unwrap(), secret);
        let mut wrong = text.to_string();
        wrong.replace_range(20..21, if &wrong[20..21] == "Q" { "P" } else { "Q" });
        assert!(wrong.parse::<HostSecret>().is_err());
        assert_eq!(format!("{secret:?}"), "HostSecret(…)");
    }
}
