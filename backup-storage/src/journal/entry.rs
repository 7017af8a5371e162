//! One entry of the journal.
//!
//! CBOR (RFC 8949), sealed as a [small object](crate::envelope). A map with integer keys; a reader skips keys that it does
//! not know. `previous` is the BLAKE3 digest of the predecessor's *stored* bytes, 32 zeros in the first entry: a store that
//! rolls back, drops or reorders entries is noticed by whoever folds them.

use backup_core::ServiceId;
use jiff::Timestamp;
use minicbor::{Decode, Encode};

/// The newest repository format that this code reads and the one that it writes.
pub(crate) const FORMAT: u32 = 1;

/// What the first entry of a generation says about the repository: the authenticated copy of the plain description.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Genesis {
    /// Format version.
    #[n(0)]
    pub(crate) format: u32,
    /// Repository id.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub(crate) repository: [u8; 16],
    /// Whose backups these are.
    #[n(2)]
    pub(crate) service: ServiceId,
    /// Cipher suite number.
    #[n(3)]
    pub(crate) suite: u8,
    /// When the generation was begun.
    #[cbor(n(4), with = "backup_core::cbor::timestamp")]
    pub(crate) created_at: Timestamp,
    /// Names and BLAKE3 digests of the plain objects that were written with it: the description and the wrapped keys.
    #[n(5)]
    pub(crate) objects: Vec<PlainObject>,
    /// The epochs that were begun, with the fingerprints of their keys. Absent in older repositories.
    #[n(6)]
    pub(crate) epochs: Option<Vec<EpochRecord>>,
}

/// Which key is the one of an epoch.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct EpochRecord {
    /// Its number.
    #[n(0)]
    pub(crate) epoch: u32,
    /// The fingerprint of its key.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub(crate) fingerprint: [u8; 16],
}

/// The digest of an object that is not sealed under an epoch key.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct PlainObject {
    /// Its name.
    #[n(0)]
    pub(crate) name: String,
    /// BLAKE3 of its stored bytes.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub(crate) digest: [u8; 32],
}

impl PlainObject {
    pub(crate) fn of(name: &str, bytes: &[u8]) -> Self {
        Self { name: name.to_owned(), digest: *blake3::hash(bytes).as_bytes() }
    }
}

/// One entry, over the events `E`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Entry<E> {
    /// Its number; equal to the one in its name.
    #[n(0)]
    pub(crate) number: u64,
    /// Digest of the predecessor.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub(crate) previous: [u8; 32],
    /// Made anew for every attempt, so that no two writers ever write the same bytes.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub(crate) nonce: [u8; 16],
    /// When it was written, by the writer's clock.
    #[cbor(n(3), with = "backup_core::cbor::timestamp")]
    pub(crate) at: Timestamp,
    /// Only in the first entry of a generation.
    #[n(4)]
    pub(crate) genesis: Option<Genesis>,
    /// What happened. All of them or none.
    #[n(5)]
    pub(crate) events: Vec<E>,
}
