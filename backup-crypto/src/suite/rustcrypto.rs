//! The portable backend. Its cipher states are wiped when dropped (feature `zeroize` of both crates).

use aes_gcm::Aes256Gcm;
use chacha20poly1305::ChaCha20Poly1305;
use chacha20poly1305::aead::inout::InOutBuf;
use chacha20poly1305::aead::{AeadInOut, KeyInit};

use super::{Cipher, KEY_LEN, NONCE_LEN, Refused, Suite, TAG_LEN};

pub(super) fn cipher(suite: Suite, key: &[u8; KEY_LEN]) -> Box<dyn Cipher> {
    match suite {
        Suite::ChaCha20Poly1305 => Box::new(Aead(ChaCha20Poly1305::new(key.into()))),
        Suite::Aes256Gcm => Box::new(Aead(Aes256Gcm::new(key.into()))),
    }
}

struct Aead<A>(A);

macro_rules! in_place {
    ($aead:ty) => {
        impl Cipher for Aead<$aead> {
            fn seal(&self, nonce: [u8; NONCE_LEN], aad: &[u8], in_out: &mut [u8]) -> Result<[u8; TAG_LEN], Refused> {
                let tag = self.0.encrypt_inout_detached(&nonce.into(), aad, InOutBuf::from(in_out));
                tag.map(Into::into).map_err(|_| Refused)
            }

            fn open(
                &self,
                nonce: [u8; NONCE_LEN],
                aad: &[u8],
                in_out: &mut [u8],
                tag: [u8; TAG_LEN],
            ) -> Result<(), Refused> {
                let opened = self.0.decrypt_inout_detached(&nonce.into(), aad, InOutBuf::from(in_out), &tag.into());
                opened.map_err(|_| Refused)
            }
        }
    };
}

in_place!(ChaCha20Poly1305);
in_place!(Aes256Gcm);
