//! Building one pack in memory: segments are sealed straight into the buffer that is uploaded.

use backup_core::catalog::PackId;
use backup_crypto::{ObjectHeader, ObjectKind, ObjectSealer, SegmentHeader, TAG_LEN};

use super::codec::Compressor;
use super::{Codec, MAX_PACK, Piece, Role, SEGMENT, SegmentInfo, TRAILER, TRAILER_MAGIC};
use crate::error::{Error, Result};
use crate::keyring::Keyring;
use crate::layout;
use crate::store::ObjectName;

/// A pack that is being filled. Dropping it loses nothing but itself.
#[derive(Debug)]
pub(crate) struct PackBuilder {
    name: ObjectName,
    sealer: ObjectSealer,
    buffer: Vec<u8>,
    segments: Vec<SegmentInfo>,
    pieces: Vec<Piece>,
}

/// A pack that is ready to be stored.
#[derive(Debug)]
pub(crate) struct FinishedPack {
    pub(crate) name: ObjectName,
    pub(crate) object: Vec<u8>,
}

impl PackBuilder {
    /// An empty pack of a session that uses `buffer`, whose allocation is kept.
    pub(crate) fn new(id: PackId, keyring: &Keyring, buffer: Vec<u8>) -> Result<Self> {
        Self::named(ObjectKind::Pack, layout::pack(id)?, keyring, buffer)
    }

    /// An empty pack, the object `name` of kind `kind`, that uses `buffer`, whose allocation is kept.
    pub(crate) fn named(kind: ObjectKind, name: ObjectName, keyring: &Keyring, mut buffer: Vec<u8>) -> Result<Self> {
        let sealer = keyring.sealer(kind, name.as_str())?;
        buffer.clear();
        buffer.extend_from_slice(&sealer.header().encode());
        Ok(Self { name, sealer, buffer, segments: Vec::new(), pieces: Vec::new() })
    }

    /// Bytes that the object would have if it were finished as it is.
    pub(crate) fn len(&self) -> usize {
        let footer = 8 + self.segments.len() * SegmentInfo::LEN + self.pieces.len() * Piece::LEN;
        self.buffer.len() + footer + TAG_LEN + TRAILER
    }

    /// Seals one more segment that was compressed before; returns its number. `packed` is `plain_len` bytes of plaintext, as `codec` left them.
    pub(crate) fn push(
        &mut self,
        role: Role,
        codec: Codec,
        packed: &[u8],
        plain_len: usize,
        id: [u8; 16],
    ) -> Result<u32> {
        let (index, plain_len) = self.next(plain_len, packed.len())?;
        let header = SegmentHeader { index, last: false, plain_len, codec: codec as u8, role: role as u8 };
        let before = self.buffer.len();
        self.sealer.seal(header, packed, &mut self.buffer)?;
        self.note_segment(before, SegmentInfo { stored_len: 0, plain_len, codec, role, id })?;
        Ok(index)
    }

    /// Leaves the place of one more segment empty.
    pub(crate) fn skip(&mut self) -> Result<()> {
        self.next(0, 0)?;
        self.segments.push(SegmentInfo::EMPTY);
        Ok(())
    }

    /// How many places of segments there are.
    pub(crate) fn segments(&self) -> u32 {
        u32::try_from(self.segments.len()).unwrap_or(u32::MAX)
    }

    /// Compresses `plaintext` into one more segment; returns its number.
    pub(crate) fn add(
        &mut self,
        role: Role,
        compressor: &mut Compressor,
        plaintext: &[u8],
        id: [u8; 16],
    ) -> Result<u32> {
        let (index, plain_len) = self.next(plaintext.len(), plaintext.len())?;
        let before = self.buffer.len();
        let codec = match compressor.append(plaintext, &mut self.buffer) {
            Ok(codec) => codec,
            Err(error) => {
                // What is not sealed does not stay among what will be stored.
                self.buffer.truncate(before);
                return Err(error);
            }
        };
        let header = SegmentHeader { index, last: false, plain_len, codec: codec as u8, role: role as u8 };
        self.sealer.seal_tail(header, &mut self.buffer, before)?;
        self.note_segment(before, SegmentInfo { stored_len: 0, plain_len, codec, role, id })?;
        Ok(index)
    }

    /// The number of the next segment, of `stored` bytes at most, if there is room for it.
    fn next(&self, plain_len: usize, stored: usize) -> Result<(u32, u32)> {
        let index = u32::try_from(self.segments.len()).map_err(|_| too_large())?;
        if plain_len > SEGMENT || self.len() + stored > MAX_PACK as usize {
            return Err(too_large());
        }
        Ok((index, u32::try_from(plain_len).map_err(|_| too_large())?))
    }

    fn note_segment(&mut self, before: usize, segment: SegmentInfo) -> Result<()> {
        let stored_len = u32::try_from(self.buffer.len() - before).map_err(|_| too_large())?;
        self.segments.push(SegmentInfo { stored_len, ..segment });
        Ok(())
    }

    /// Notes that `len` bytes at `offset` of a segment are a piece of their own.
    pub(crate) fn note(&mut self, piece: Piece) {
        self.pieces.push(piece);
    }

    /// Seals the footer.
    pub(crate) fn finish(mut self) -> Result<FinishedPack> {
        let too_large = |_| too_large();
        let count = u32::try_from(self.segments.len()).map_err(too_large)?;
        let pieces = u32::try_from(self.pieces.len()).map_err(too_large)?;
        let mut footer = Vec::with_capacity(self.len());
        footer.extend_from_slice(&count.to_le_bytes());
        footer.extend_from_slice(&pieces.to_le_bytes());
        self.segments.iter().for_each(|s| s.encode(&mut footer));
        self.pieces.iter().for_each(|p| p.encode(&mut footer));
        let plain_len = u32::try_from(footer.len()).map_err(too_large)?;
        let header =
            SegmentHeader { index: count, last: true, plain_len, codec: Codec::Raw as u8, role: Role::Footer as u8 };
        let before = self.buffer.len();
        self.sealer.seal(header, &footer, &mut self.buffer)?;
        let sealed = u32::try_from(self.buffer.len() - before).map_err(too_large)?;
        self.buffer.extend_from_slice(&sealed.to_le_bytes());
        self.buffer.extend_from_slice(&count.to_le_bytes());
        self.buffer.extend_from_slice(TRAILER_MAGIC);
        Ok(FinishedPack { name: self.name, object: self.buffer })
    }
}

fn too_large() -> Error {
    Error::internal("a pack was filled beyond its limits")
}

/// Bytes of the smallest pack: header, an empty footer and the trailer.
pub(crate) const MIN_PACK: usize = ObjectHeader::LEN + 8 + TAG_LEN + TRAILER;
