//! Sealing an epoch key under a symmetric key-encryption key.
//!
//! HKDF-SHA256 over (key-encryption key, the wrap's random salt, the wrap's context) gives a key and a commitment. The key is
//! used for one message only, so the nonce is zero. The commitment says at once whether the secret is right, and prevents a
//! crafted wrap that opens under many passphrases (a partitioning oracle).

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::WrappedKey;
use crate::epoch::EpochKey;
use crate::error::{Error, Result};
use crate::kdf;
use crate::suite::{Backend, KEY_LEN, NONCE_LEN, Suite, TAG_LEN, cipher};

pub(super) const SALT_LEN: usize = 32;
const COMMITMENT_LEN: usize = 32;
pub(super) const SEALED_LEN: usize = COMMITMENT_LEN + EpochKey::LEN + TAG_LEN;

fn derive(kek: &[u8; 32], salt: &[u8], context: &[u8]) -> Zeroizing<[u8; KEY_LEN + COMMITMENT_LEN]> {
    let mut output = Zeroizing::new([0; KEY_LEN + COMMITMENT_LEN]);
    kdf::derive(kek, salt, kdf::WRAP, &[context], &mut output[..]);
    output
}

fn split(output: &[u8; KEY_LEN + COMMITMENT_LEN]) -> (Zeroizing<[u8; KEY_LEN]>, &[u8]) {
    let mut key = Zeroizing::new([0; KEY_LEN]);
    key.copy_from_slice(&output[..KEY_LEN]);
    (key, &output[KEY_LEN..])
}

pub(super) fn seal(kek: &[u8; 32], salt: &[u8], context: &[u8], key: &EpochKey) -> Result<Vec<u8>> {
    let output = derive(kek, salt, context);
    let (wrapping, commitment) = split(&output);
    let mut sealed = Vec::with_capacity(SEALED_LEN);
    sealed.extend_from_slice(commitment);
    sealed.extend_from_slice(key.expose());
    let cipher = cipher(Suite::ChaCha20Poly1305, Backend::RustCrypto, &wrapping)?;
    let tag = cipher.seal([0; NONCE_LEN], context, &mut sealed[COMMITMENT_LEN..]);
    sealed.extend_from_slice(&tag.map_err(|_| Error::Internal { what: "the cipher" })?);
    Ok(sealed)
}

pub(super) fn open(kek: &[u8; 32], salt: &[u8], wrap: &WrappedKey) -> Result<EpochKey> {
    let damaged = || Error::Malformed { what: "the wrapped key", reason: "its sealed key does not authenticate" };
    let context = wrap.context(wrap.sealed().len())?;
    let output = derive(kek, salt, &context);
    let (wrapping, commitment) = split(&output);
    let sealed: &[u8; SEALED_LEN] = wrap.sealed().try_into().map_err(|_| damaged())?;
    if !bool::from(commitment.ct_eq(&sealed[..COMMITMENT_LEN])) {
        return Err(wrap.wrong_secret());
    }
    let mut key = Zeroizing::new([0; EpochKey::LEN]);
    key.copy_from_slice(&sealed[COMMITMENT_LEN..SEALED_LEN - TAG_LEN]);
    let tag: &[u8; TAG_LEN] = sealed.last_chunk().ok_or_else(damaged)?;
    let cipher = cipher(Suite::ChaCha20Poly1305, Backend::RustCrypto, &wrapping)?;
    cipher.open([0; NONCE_LEN], &context, &mut key[..], *tag).map_err(|_| damaged())?;
    Ok(EpochKey::take(&mut key))
}
