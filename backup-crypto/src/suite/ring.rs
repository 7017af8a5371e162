//! The fast backend. `ring` does not wipe its key schedules.

use ring::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use super::{Cipher, KEY_LEN, NONCE_LEN, Refused, Suite, TAG_LEN};
use crate::error::{Error, Result};

pub(super) fn cipher(suite: Suite, key: &[u8; KEY_LEN]) -> Result<Box<dyn Cipher>> {
    let algorithm = match suite {
        Suite::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        Suite::Aes256Gcm => &AES_256_GCM,
    };
    // "Less safe" because nonces are the caller's affair: here they come from the object's ledger of indices.
    let key = UnboundKey::new(algorithm, key).map_err(|_| Error::Internal { what: "ring" })?;
    Ok(Box::new(Ring(LessSafeKey::new(key))))
}

struct Ring(LessSafeKey);

impl Cipher for Ring {
    fn seal(&self, nonce: [u8; NONCE_LEN], aad: &[u8], in_out: &mut [u8]) -> Result<[u8; TAG_LEN], Refused> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let sealed = self.0.seal_in_place_separate_tag(nonce, Aad::from(aad), in_out).map_err(|_| Refused)?;
        let mut tag = [0; TAG_LEN];
        tag.copy_from_slice(sealed.as_ref());
        Ok(tag)
    }

    fn open(&self, nonce: [u8; NONCE_LEN], aad: &[u8], in_out: &mut [u8], tag: [u8; TAG_LEN]) -> Result<(), Refused> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened = self.0.open_in_place_separate_tag(nonce, Aad::from(aad), tag.into(), in_out, 0..);
        opened.map(drop).map_err(|_| Refused)
    }
}
