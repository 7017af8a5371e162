//! The checksums that a manifest can hold.
//!
//! CRC-32C stands there as the four bytes of the server's memory, least significant first on every supported platform;
//! the SHA-2 digests as usual.

use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};

/// The algorithm of a file's checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[expect(missing_docs, reason = "names of algorithms")]
pub enum ChecksumAlgorithm {
    Crc32c,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

impl ChecksumAlgorithm {
    /// The algorithm by its name in a manifest, in any case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [
            ("CRC32C", Self::Crc32c),
            ("SHA224", Self::Sha224),
            ("SHA256", Self::Sha256),
            ("SHA384", Self::Sha384),
            ("SHA512", Self::Sha512),
        ]
        .into_iter()
        .find_map(|(known, algorithm)| known.eq_ignore_ascii_case(name).then_some(algorithm))
    }

    /// Its name in a manifest.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Crc32c => "CRC32C",
            Self::Sha224 => "SHA224",
            Self::Sha256 => "SHA256",
            Self::Sha384 => "SHA384",
            Self::Sha512 => "SHA512",
        }
    }

    /// The length of its value in bytes.
    #[must_use]
    pub fn length(self) -> usize {
        match self {
            Self::Crc32c => 4,
            Self::Sha224 => 28,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

/// A file's checksum as a manifest states it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Checksum {
    /// How it was computed.
    pub algorithm: ChecksumAlgorithm,
    /// Its bytes in the manifest's order.
    pub value: Box<[u8]>,
}

impl Checksum {
    pub(super) fn new(algorithm: ChecksumAlgorithm, value: Vec<u8>) -> Option<Self> {
        (value.len() == algorithm.length()).then(|| Self { algorithm, value: value.into() })
    }
}

/// Computes a checksum as the server does, for comparison with a manifest's.
#[derive(Debug, Clone)]
pub struct FileHasher(Inner);

#[derive(Debug, Clone)]
enum Inner {
    Crc32c(u32),
    Sha224(Sha224),
    Sha256(Sha256),
    Sha384(Sha384),
    Sha512(Sha512),
}

impl FileHasher {
    /// A hasher at the start of a file.
    #[must_use]
    pub fn new(algorithm: ChecksumAlgorithm) -> Self {
        Self(match algorithm {
            ChecksumAlgorithm::Crc32c => Inner::Crc32c(0),
            ChecksumAlgorithm::Sha224 => Inner::Sha224(Sha224::new()),
            ChecksumAlgorithm::Sha256 => Inner::Sha256(Sha256::new()),
            ChecksumAlgorithm::Sha384 => Inner::Sha384(Sha384::new()),
            ChecksumAlgorithm::Sha512 => Inner::Sha512(Sha512::new()),
        })
    }

    /// Takes the file's next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Inner::Crc32c(crc) => *crc = crc32c::crc32c_append(*crc, bytes),
            Inner::Sha224(hash) => hash.update(bytes),
            Inner::Sha256(hash) => hash.update(bytes),
            Inner::Sha384(hash) => hash.update(bytes),
            Inner::Sha512(hash) => hash.update(bytes),
        }
    }

    /// The checksum of everything taken.
    #[must_use]
    pub fn finish(self) -> Checksum {
        let (algorithm, value): (_, Box<[u8]>) = match self.0 {
            Inner::Crc32c(crc) => (ChecksumAlgorithm::Crc32c, crc.to_le_bytes().into()),
            Inner::Sha224(hash) => (ChecksumAlgorithm::Sha224, hash.finalize().as_slice().into()),
            Inner::Sha256(hash) => (ChecksumAlgorithm::Sha256, hash.finalize().as_slice().into()),
            Inner::Sha384(hash) => (ChecksumAlgorithm::Sha384, hash.finalize().as_slice().into()),
            Inner::Sha512(hash) => (ChecksumAlgorithm::Sha512, hash.finalize().as_slice().into()),
        };
        Checksum { algorithm, value }
    }
}
