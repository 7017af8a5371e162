//! Opening the segments of one object.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use super::context::bound_prefix;
use super::{MAX_SEGMENT, ObjectContext, ObjectHeader, SegmentHeader};
use crate::epoch::EpochKey;
use crate::error::{Error, Result};
use crate::suite::{Backend, Cipher, NONCE_LEN, TAG_LEN, cipher};

/// Opens the segments of one object, in any order and from any number of threads.
///
/// What opens is what was sealed under this name at this index with this segment header. That *all* of the object is there is
/// known once the segment with [`SegmentHeader::last`] and every one before it have been opened.
pub struct ObjectOpener {
    name: Box<str>,
    cipher: Box<dyn Cipher>,
    base_nonce: [u8; NONCE_LEN],
}

impl ObjectOpener {
    /// Prepares to open the object `context` whose stored header is `header`.
    ///
    /// # Errors
    /// [`Error::ContextMismatch`] when the header is of another kind or epoch, [`Error::Commitment`] when it does not commit to this
    /// key, repository and name (compared in constant time, before anything is decrypted), [`Error::InvalidName`]
    /// for an empty or too long name.
    pub fn new(key: &EpochKey, context: &ObjectContext<'_>, header: &ObjectHeader) -> Result<Self> {
        Self::with_backend(Backend::default(), key, context, header)
    }

    /// As [`ObjectOpener::new`] with a chosen implementation.
    ///
    /// # Errors
    /// As [`ObjectOpener::new`].
    pub fn with_backend(
        backend: Backend,
        key: &EpochKey,
        context: &ObjectContext<'_>,
        header: &ObjectHeader,
    ) -> Result<Self> {
        let mismatch = |field, expected, found| Error::ContextMismatch { what: "the object", field, expected, found };
        if header.kind != context.kind {
            return Err(mismatch("kind", context.kind.to_string(), header.kind.to_string()));
        }
        if header.epoch != context.epoch {
            return Err(mismatch("epoch", context.epoch.to_string(), header.epoch.to_string()));
        }
        let keys = context.derive(bound_prefix(header.version, header.suite, header.kind), key, &header.salt)?;
        if !bool::from(keys.commitment.ct_eq(&header.commitment)) {
            return Err(Error::Commitment { kind: context.kind, name: context.name.into(), epoch: context.epoch });
        }
        let cipher = cipher(header.suite, backend, &keys.key)?;
        Ok(Self { name: context.name.into(), cipher, base_nonce: keys.nonce })
    }

    /// Replaces `out` with the bytes that were sealed as `segment`.
    ///
    /// The bytes are as they were handed to the sealer, so still compressed if they were. A buffer that is used again costs
    /// neither allocation nor clearing.
    ///
    /// # Errors
    /// [`Error::Segment`] when `sealed` is anything else than the sealed form of exactly this segment. `out` is then empty.
    pub fn open(&self, segment: SegmentHeader, sealed: &[u8], out: &mut Vec<u8>) -> Result<()> {
        out.clear();
        // Longer than anything a sealer makes: not worth a copy to find out that its tag is wrong.
        if sealed.len() > MAX_SEGMENT + TAG_LEN {
            return Err(self.refused(&segment));
        }
        out.extend_from_slice(sealed);
        self.open_in_place(segment, out)
    }

    /// Replaces the sealed segment in `buffer` with the bytes that were sealed.
    ///
    /// # Errors
    /// As [`ObjectOpener::open`]; `buffer` is then empty and wiped.
    pub fn open_in_place(&self, segment: SegmentHeader, buffer: &mut Vec<u8>) -> Result<()> {
        let opened = self.try_open(&segment, buffer);
        match &opened {
            Ok(len) => buffer.truncate(*len),
            // A backend may decrypt while it authenticates: what it left behind must not be seen.
            Err(_) => buffer.zeroize(),
        }
        opened.map(drop)
    }

    fn try_open(&self, segment: &SegmentHeader, in_out: &mut [u8]) -> Result<usize> {
        if segment.check().is_err() || in_out.len() > MAX_SEGMENT + TAG_LEN {
            return Err(self.refused(segment));
        }
        let (bytes, tag) = in_out.split_last_chunk_mut::<TAG_LEN>().ok_or_else(|| self.refused(segment))?;
        let opened = self.cipher.open(segment.nonce(self.base_nonce), &segment.aad(), bytes, *tag);
        opened.map(|()| bytes.len()).map_err(|_| self.refused(segment))
    }

    fn refused(&self, segment: &SegmentHeader) -> Error {
        Error::Segment { name: self.name.clone(), index: segment.index }
    }
}

impl fmt::Debug for ObjectOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectOpener").field("name", &self.name).finish_non_exhaustive()
    }
}
