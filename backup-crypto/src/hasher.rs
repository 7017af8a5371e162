//! Keyed identities of content. Never used for authentication, never derived from the keys that encrypt.

use std::fmt;

use zeroize::Zeroize;

use crate::entropy::Entropy;
use crate::epoch::EpochKey;
use crate::kdf;
use crate::repository::RepositoryId;

/// Key of a repository's block identities and content digests.
///
/// Identities decide whether a block is equal to the parent backup's, so they must outlive epochs: derive the key once from the
/// repository's first epoch key, or draw it and keep it sealed. Being keyed, identities tell an outsider nothing about known
/// content, even if they leaked.
///
/// Sizes: a block identity is BLAKE3 keyed, cut to 16 bytes; among 2^40 blocks (128 PiB at 128 KiB) two unequal ones share it with
/// probability 2^-49. Both keys are wiped when the value is dropped.
#[derive(Clone)]
pub struct HashKey(Box<HashKeys>);

#[derive(Clone)]
struct HashKeys {
    block: [u8; 32],
    content: [u8; 32],
}

impl HashKey {
    /// Derives the key that belongs to `repository` and `key`.
    pub fn derive(key: &EpochKey, repository: RepositoryId) -> Self {
        Self::from_secret(key.expose(), repository.as_bytes())
    }

    /// Draws a key that depends on no epoch; the caller must keep [`HashKey::SECRET_LEN`] bytes of it sealed, see
    /// [`HashKey::from_secret`].
    pub fn generate(entropy: &dyn Entropy) -> (Self, zeroize::Zeroizing<[u8; Self::SECRET_LEN]>) {
        let mut secret = zeroize::Zeroizing::new([0; Self::SECRET_LEN]);
        entropy.fill(&mut secret[..]);
        (Self::from_secret(&secret, &[]), secret)
    }

    /// Length of the secret that [`HashKey::generate`] hands out.
    pub const SECRET_LEN: usize = 32;

    /// Makes the key again from a secret and a public context.
    pub fn from_secret(secret: &[u8; Self::SECRET_LEN], context: &[u8]) -> Self {
        let mut keys = Box::new(HashKeys { block: [0; 32], content: [0; 32] });
        kdf::derive(secret, &[], kdf::BLOCK_HASH, &[context], &mut keys.block);
        kdf::derive(secret, &[], kdf::CONTENT_HASH, &[context], &mut keys.content);
        Self(keys)
    }

    /// Identity of one block. Does not allocate and does not spawn threads.
    pub fn block(&self, block: &[u8]) -> [u8; 16] {
        let digest = blake3::keyed_hash(&self.0.block, block);
        let mut id = [0; 16];
        id.copy_from_slice(&digest.as_bytes()[..16]);
        id
    }

    /// Digest of a whole content given at once: what [`HashKey::content_hasher`] gives for the same bytes.
    pub fn content(&self, content: &[u8]) -> [u8; 32] {
        *blake3::keyed_hash(&self.0.content, content).as_bytes()
    }

    /// Starts the digest of a whole content that arrives in pieces.
    pub fn content_hasher(&self) -> ContentHasher {
        ContentHasher(Box::new(blake3::Hasher::new_keyed(&self.0.content)))
    }
}

impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashKey(…)")
    }
}

impl Drop for HashKeys {
    fn drop(&mut self) {
        self.block.zeroize();
        self.content.zeroize();
    }
}

/// Keyed digest of a content that arrives in pieces; how it is cut does not matter.
#[derive(Clone)]
pub struct ContentHasher(Box<blake3::Hasher>);

impl ContentHasher {
    /// Adds the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// Number of bytes added so far.
    pub fn count(&self) -> u64 {
        self.0.count()
    }

    /// The digest of everything added.
    pub fn finish(self) -> [u8; 32] {
        *self.0.finalize().as_bytes()
    }
}

impl fmt::Debug for ContentHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentHasher({} bytes)", self.count())
    }
}

impl Drop for ContentHasher {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SeededEntropy;

    #[test]
    fn identities_depend_on_key_repository_and_purpose() {
        let entropy = SeededEntropy::new(3);
        let (key, other) = (EpochKey::generate(&entropy), EpochKey::generate(&entropy));
        let (here, there) = (RepositoryId::generate(&entropy), RepositoryId::generate(&entropy));
        let hash = HashKey::derive(&key, here);
        let id = hash.block(b"page");
        assert_eq!(id, HashKey::derive(&key, here).block(b"page"));
        assert_ne!(id, hash.block(b"Page"));
        assert_ne!(id, HashKey::derive(&key, there).block(b"page"));
        assert_ne!(id, HashKey::derive(&other, here).block(b"page"));
        assert_ne!(id, hash.content(b"page")[..16]);
    }

    #[test]
    fn cutting_does_not_change_a_content_digest() {
        let (hash, secret) = HashKey::generate(&SeededEntropy::new(4));
        let content: Vec<u8> = (0..100_000_u32).map(|i| i as u8).collect();
        let mut pieces = hash.content_hasher();
        content.chunks(977).for_each(|piece| pieces.update(piece));
        assert_eq!(pieces.count(), 100_000);
        assert_eq!(pieces.finish(), hash.content(&content));
        assert_eq!(HashKey::from_secret(&secret, &[]).block(&content), hash.block(&content));
    }
}
