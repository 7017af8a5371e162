//! The one key derivation function, and the table of everything that is derived with it.
//!
//! HKDF-SHA256 (RFC 5869). The context is an unambiguous list: every part is preceded by its length, so no two contexts
//! encode to the same bytes. HKDF is used rather than BLAKE3's key derivation because HPKE brings HMAC-SHA256 anyway, the
//! extraction step takes a salt by definition, and reviewers and FIPS-minded users know it; at one derivation per object its
//! cost (under 2 µs with the cipher set-up) does not show.

use hkdf::Hkdf;
use sha2::Sha256;

/// Epoch key → key, base nonce and commitment of one object.
pub(crate) const OBJECT: &[u8] = b"backup-crypto v1 object";
/// Epoch key → the public name of the epoch key.
pub(crate) const EPOCH_FINGERPRINT: &[u8] = b"backup-crypto v1 epoch fingerprint";
/// Epoch key → the key of block identities.
pub(crate) const BLOCK_HASH: &[u8] = b"backup-crypto v1 block hash";
/// Epoch key → the key of content digests.
pub(crate) const CONTENT_HASH: &[u8] = b"backup-crypto v1 content hash";
/// Key-encryption key of a recipient → key and commitment of one wrap.
pub(crate) const WRAP: &[u8] = b"backup-crypto v1 wrap";
/// Raw key → its public recipient id.
pub(crate) const RAW_KEY_ID: &[u8] = b"backup-crypto v1 raw key id";
/// Epoch key → the secret of a host that only writes.
pub(crate) const HOST: &[u8] = b"backup-crypto v1 host";
/// Secret of a host → the key of its tags.
pub(crate) const HOST_TAG: &[u8] = b"backup-crypto v1 host tag";
/// Secret of a host → the root of its hash key.
pub(crate) const HOST_HASH: &[u8] = b"backup-crypto v1 host hash";
/// Epoch key → the key pair for which hosts wrap the keys of their sessions.
pub(crate) const DEPOSIT_KEY: &[u8] = b"backup-crypto v1 deposit key pair";
/// X25519 public key → its recipient id.
pub(crate) const X25519_ID: &[u8] = b"backup-crypto v1 x25519 id";

/// Fills `out` from `secret` and `salt` for the purpose `domain` in the context `parts`.
///
/// # Panics
/// When more than 255 × 32 bytes are asked for, which no caller here does.
pub(crate) fn derive(secret: &[u8], salt: &[u8], domain: &[u8], parts: &[&[u8]], out: &mut [u8]) {
    let mut info = Vec::with_capacity(128);
    for part in std::iter::once(&domain).chain(parts) {
        let len = u32::try_from(part.len()).expect("a context part is far below 4 GiB");
        info.extend_from_slice(&len.to_le_bytes());
        info.extend_from_slice(part);
    }
    Hkdf::<Sha256>::new(Some(salt), secret).expand(&info, out).expect("at most 255 blocks are asked for");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moving_a_byte_between_parts_changes_the_output() {
        let run = |parts: &[&[u8]]| {
            let mut out = [0; 32];
            derive(&[1; 32], &[2; 32], OBJECT, parts, &mut out);
            out
        };
        let outputs = [run(&[b"ab", b"c"]), run(&[b"a", b"bc"]), run(&[b"abc"]), run(&[b"abc", b""])];
        for (i, a) in outputs.iter().enumerate() {
            assert!(outputs[i + 1..].iter().all(|b| a != b));
        }
    }
}
