//! Sealing the segments of one object.

use std::fmt;

use zeroize::Zeroize;

use super::context::bound_prefix;
use super::header::VERSION;
use super::ledger::Ledger;
use super::segment::within;
use super::{MAX_SEGMENT, ObjectContext, ObjectHeader, SegmentHeader};
use crate::entropy::{Entropy, draw};
use crate::epoch::EpochKey;
use crate::error::{Error, Result};
use crate::suite::{Backend, Cipher, NONCE_LEN, Suite, TAG_LEN, cipher};

/// Seals the segments of one object, from any number of threads.
///
/// # Nonces
/// An index is sealed at most once: the sealer keeps account of the indices it has used and refuses a repeated one with
/// [`Error::SegmentRepeated`]. To try again, with other bytes or after a failure, make another sealer with another salt.
/// Two sealers must never have the same key, context *and* salt; [`ObjectSealer::generate`] draws the salt.
pub struct ObjectSealer {
    header: ObjectHeader,
    name: Box<str>,
    cipher: Box<dyn Cipher>,
    base_nonce: [u8; NONCE_LEN],
    ledger: Ledger,
}

impl ObjectSealer {
    /// Prepares to seal the object `context` under a fresh random salt.
    ///
    /// # Errors
    /// [`Error::InvalidName`] for an empty or too long name.
    pub fn generate(suite: Suite, key: &EpochKey, context: &ObjectContext<'_>, entropy: &dyn Entropy) -> Result<Self> {
        Self::new(suite, key, context, draw(entropy))
    }

    /// Prepares to seal the object `context` under `salt`, which must be random and never have been used before.
    ///
    /// # Errors
    /// [`Error::InvalidName`] for an empty or too long name.
    pub fn new(suite: Suite, key: &EpochKey, context: &ObjectContext<'_>, salt: [u8; 32]) -> Result<Self> {
        Self::with_backend(Backend::default(), suite, key, context, salt)
    }

    /// As [`ObjectSealer::new`] with a chosen implementation. The sealed bytes are the same with any.
    ///
    /// # Errors
    /// [`Error::InvalidName`] for an empty or too long name.
    pub fn with_backend(
        backend: Backend,
        suite: Suite,
        key: &EpochKey,
        context: &ObjectContext<'_>,
        salt: [u8; 32],
    ) -> Result<Self> {
        let keys = context.derive(bound_prefix(VERSION, suite, context.kind), key, &salt)?;
        let header = ObjectHeader {
            version: VERSION,
            suite,
            kind: context.kind,
            epoch: context.epoch,
            salt,
            commitment: keys.commitment,
        };
        Ok(Self {
            header,
            name: context.name.into(),
            cipher: cipher(suite, backend, &keys.key)?,
            base_nonce: keys.nonce,
            ledger: Ledger::default(),
        })
    }

    /// The header that goes in front of the object.
    pub fn header(&self) -> &ObjectHeader {
        &self.header
    }

    /// Appends the sealed form of `plaintext` to `out`: as many bytes and a tag of [`TAG_LEN`] bytes.
    ///
    /// `plaintext` are the bytes to store, compressed or not; [`SegmentHeader::plain_len`] is their length before compression.
    ///
    /// # Errors
    /// [`Error::LimitExceeded`] for a segment beyond [`MAX_SEGMENT`] or an index beyond
    /// [`MAX_SEGMENTS`](crate::MAX_SEGMENTS), [`Error::SegmentRepeated`] for an index that was used before,
    /// [`Error::SegmentOrder`] for a segment after the last one. `out` is then as it was.
    pub fn seal(&self, segment: SegmentHeader, plaintext: &[u8], out: &mut Vec<u8>) -> Result<()> {
        within("a segment", plaintext.len(), MAX_SEGMENT)?;
        let start = out.len();
        out.reserve(plaintext.len() + TAG_LEN);
        out.extend_from_slice(plaintext);
        self.seal_tail(segment, out, start)
    }

    /// Seals in place what `buffer` holds from `start` on, and appends the tag: for those who compress straight into the buffer
    /// of the object.
    ///
    /// # Errors
    /// As [`ObjectSealer::seal`]. `buffer` is then cut back to `start`, so no plaintext stays in it.
    ///
    /// # Panics
    /// When `start` lies beyond the end of `buffer`.
    pub fn seal_tail(&self, segment: SegmentHeader, buffer: &mut Vec<u8>, start: usize) -> Result<()> {
        let sealed = self.try_seal(&segment, &mut buffer[start..]);
        match &sealed {
            Ok(tag) => buffer.extend_from_slice(tag),
            Err(_) => {
                buffer[start..].zeroize();
                buffer.truncate(start);
            }
        }
        sealed.map(drop)
    }

    fn try_seal(&self, segment: &SegmentHeader, in_out: &mut [u8]) -> Result<[u8; TAG_LEN]> {
        segment.check()?;
        within("a segment", in_out.len(), MAX_SEGMENT)?;
        self.ledger.claim(segment, &self.name)?;
        let sealed = self.cipher.seal(segment.nonce(self.base_nonce), &segment.aad(), in_out);
        sealed.map_err(|_| Error::Internal { what: "the cipher" })
    }
}

impl fmt::Debug for ObjectSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectSealer")
            .field("name", &self.name)
            .field("suite", &self.header.suite)
            .finish_non_exhaustive()
    }
}
