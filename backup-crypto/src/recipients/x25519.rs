//! X25519 key pairs as recipients, by HPKE (RFC 9180).
//!
//! Base mode: anyone who knows the public key can make a wrap, that is what lets a host write without being able to read. So a
//! wrap that opens does not prove who made it; what proves it is the [`EpochFingerprint`](crate::EpochFingerprint) in a commit
//! that is sealed under an already trusted key.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use bech32::{Bech32, Hrp};
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::rand_core::{TryCryptoRng, TryRng};
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use zeroize::{Zeroize, Zeroizing};

use super::raw::decode_32;
use super::{RecipientId, RecipientKind, WrappedKey};
use crate::entropy::{Entropy, draw};
use crate::epoch::{EpochId, EpochKey};
use crate::error::{Error, Result};
use crate::kdf;
use crate::repository::RepositoryId;
use crate::suite::TAG_LEN;

const ENCAPSULATED_LEN: usize = 32;
pub(super) const SEALED_LEN: usize = ENCAPSULATED_LEN + EpochKey::LEN + TAG_LEN;

const PUBLIC_HRP: Hrp = Hrp::parse_unchecked("backup");
const SECRET_HRP: Hrp = Hrp::parse_unchecked("backup-secret-");

type PublicKey = <X25519HkdfSha256 as Kem>::PublicKey;
type PrivateKey = <X25519HkdfSha256 as Kem>::PrivateKey;
type Encapsulated = <X25519HkdfSha256 as Kem>::EncappedKey;

/// The public half of a key pair: it wraps, and it is no secret. Written as `backup1…` (bech32).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct X25519PublicKey([u8; 32]);

impl X25519PublicKey {
    /// The key with these bytes (RFC 7748). Bytes that no key pair can have are refused when wrapping.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes (RFC 7748).
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Its short public name: a digest of the key.
    pub fn id(&self) -> RecipientId {
        let mut digest = [0; 8];
        kdf::derive(&self.0, &[], kdf::X25519_ID, &[], &mut digest);
        RecipientId::from_digest("x25519", &digest)
    }
}

impl fmt::Display for X25519PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        bech32::encode_lower_to_fmt::<Bech32, _>(f, PUBLIC_HRP, &self.0).map_err(|_| fmt::Error)
    }
}

impl fmt::Debug for X25519PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "X25519PublicKey({self})")
    }
}

impl FromStr for X25519PublicKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut key = [0; 32];
        decode_32(PUBLIC_HRP, text.trim(), &mut key)
            .ok_or(Error::InvalidText { what: "x25519 public key", expected: "backup1…" })?;
        Ok(Self(key))
    }
}

/// The secret half of a key pair: it unwraps. Written as `BACKUP-SECRET-1…` (bech32), never printed, wiped when dropped.
#[derive(Clone)]
pub struct X25519SecretKey(Box<[u8; 32]>);

impl X25519SecretKey {
    /// Draws a new key pair.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        let mut bytes = Box::new([0; 32]);
        entropy.fill(&mut bytes[..]);
        Self(bytes)
    }

    /// Takes over existing key bytes (RFC 7748) and wipes the caller's copy.
    pub fn take(bytes: &mut [u8; 32]) -> Self {
        let key = Self(Box::new(*bytes));
        bytes.zeroize();
        key
    }

    /// The public half.
    pub fn public_key(&self) -> X25519PublicKey {
        let public = X25519HkdfSha256::sk_to_pk(&self.private_key());
        X25519PublicKey(public.to_bytes().into())
    }

    /// The secret text form, for a key file.
    pub fn to_secret_text(&self) -> Zeroizing<String> {
        Zeroizing::new(bech32::encode_upper::<Bech32>(SECRET_HRP, &self.0[..]).expect("32 bytes fit into bech32"))
    }

    fn private_key(&self) -> PrivateKey {
        PrivateKey::from_bytes(&self.0[..]).expect("any 32 bytes are an x25519 secret")
    }
}

impl fmt::Debug for X25519SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("X25519SecretKey(…)")
    }
}

impl FromStr for X25519SecretKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut key = Zeroizing::new([0; 32]);
        decode_32(SECRET_HRP, text.trim(), &mut key)
            .ok_or(Error::InvalidText { what: "x25519 secret key", expected: "BACKUP-SECRET-1…" })?;
        Ok(Self::take(&mut key))
    }
}

impl Drop for X25519SecretKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// Our randomness, as HPKE wants it.
struct Rng<'a>(&'a dyn Entropy);

impl TryRng for Rng<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::from_le_bytes(draw(self.0)))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from_le_bytes(draw(self.0)))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill(out);
        Ok(())
    }
}

impl TryCryptoRng for Rng<'_> {}

pub(super) fn wrap(
    public: &X25519PublicKey,
    key: &EpochKey,
    repository: RepositoryId,
    epoch: EpochId,
    entropy: &dyn Entropy,
) -> Result<WrappedKey> {
    // The only failure is a public key of low order, for which no secret would exist.
    let invalid = |_| Error::InvalidText { what: "x25519 public key", expected: "the public half of a key pair" };
    let kind = RecipientKind::X25519;
    WrappedKey::build(kind, public.id(), repository, epoch, Vec::new(), SEALED_LEN, |context| {
        let recipient = PublicKey::from_bytes(&public.0).map_err(invalid)?;
        let (encapsulated, sealed_key) =
            hpke::single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
                &OpModeS::Base,
                &recipient,
                kdf::WRAP,
                key.expose(),
                context,
                &mut Rng(entropy),
            )
            .map_err(invalid)?;
        let mut sealed = Vec::with_capacity(SEALED_LEN);
        sealed.extend_from_slice(&encapsulated.to_bytes());
        sealed.extend_from_slice(&sealed_key);
        Ok(sealed)
    })
}

pub(super) fn unwrap(secret: &X25519SecretKey, wrap: &WrappedKey) -> Result<EpochKey> {
    let damaged = |_| Error::Malformed { what: "the wrapped key", reason: "its sealed key does not authenticate" };
    let context = wrap.context(wrap.sealed().len())?;
    let (encapsulated, sealed_key) = wrap
        .sealed()
        .split_at_checked(ENCAPSULATED_LEN)
        .ok_or(Error::Malformed { what: "the wrapped key", reason: "its sealed key is too short" })?;
    let opened = hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
        &OpModeR::Base,
        &secret.private_key(),
        &Encapsulated::from_bytes(encapsulated).map_err(damaged)?,
        kdf::WRAP,
        sealed_key,
        &context,
    );
    let opened = Zeroizing::new(opened.map_err(damaged)?);
    let mut key = Zeroizing::new([0; EpochKey::LEN]);
    if opened.len() != key.len() {
        return Err(Error::Malformed { what: "the wrapped key", reason: "its sealed key is not 32 bytes" });
    }
    key.copy_from_slice(&opened);
    Ok(EpochKey::take(&mut key))
}
