//! What a pack says about itself, and opening its segments.

use std::ops::Range;

use backup_core::catalog::PackId;
use backup_crypto::{EpochId, HashKey, ObjectHeader, ObjectKind, ObjectOpener, SegmentHeader, TAG_LEN};

use super::builder::MIN_PACK;
use super::{Codec, Decompressor, MAX_PACK, Role, SEGMENT, TRAILER, TRAILER_MAGIC, is_of};
use crate::error::{Error, Result};
use crate::keyring::Keyring;
use crate::layout;
use crate::store::ObjectName;

/// One segment, as the footer describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentInfo {
    pub(crate) stored_len: u32,
    pub(crate) plain_len: u32,
    pub(crate) codec: Codec,
    pub(crate) role: Role,
    pub(crate) id: [u8; 16],
}

/// A run of content that shares its segment with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) segment: u32,
    pub(crate) offset: u32,
    pub(crate) len: u32,
    pub(crate) id: [u8; 16],
}

fn u32_at(bytes: &[u8; 28], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn id_at_end(bytes: &[u8; 28]) -> [u8; 16] {
    let mut id = [0; 16];
    id.copy_from_slice(&bytes[12..]);
    id
}

impl SegmentInfo {
    pub(super) const LEN: usize = 28;
    /// A place without a segment: nobody needed it when its pack was copied.
    pub(super) const EMPTY: Self =
        Self { stored_len: 0, plain_len: 0, codec: Codec::Raw, role: Role::Data, id: [0; 16] };

    /// Whether there is no segment in this place.
    pub(crate) fn is_empty(&self) -> bool {
        self.stored_len == 0
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.stored_len.to_le_bytes());
        out.extend_from_slice(&self.plain_len.to_le_bytes());
        out.extend_from_slice(&[self.codec as u8, self.role as u8, 0, 0]);
        out.extend_from_slice(&self.id);
    }

    fn decode(bytes: &[u8; Self::LEN]) -> Result<Self> {
        Ok(Self {
            stored_len: u32_at(bytes, 0),
            plain_len: u32_at(bytes, 4),
            codec: Codec::try_from(bytes[8])?,
            role: Role::try_from(bytes[9])?,
            id: id_at_end(bytes),
        })
    }
}

impl Piece {
    pub(super) const LEN: usize = 28;

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.segment.to_le_bytes());
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.len.to_le_bytes());
        out.extend_from_slice(&self.id);
    }

    fn decode(bytes: &[u8; Self::LEN]) -> Self {
        Self { segment: u32_at(bytes, 0), offset: u32_at(bytes, 4), len: u32_at(bytes, 8), id: id_at_end(bytes) }
    }
}

/// The trailer: where the footer is. Not authenticated; what it points at is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trailer {
    /// Sealed length of the footer in bytes.
    pub(crate) footer_len: u32,
    /// Number of segments before the footer.
    pub(crate) segments: u32,
}

impl Trailer {
    /// Reads the last [`TRAILER`] bytes of an object of `object_len` bytes.
    ///
    /// # Errors
    /// Damaged, when there is no trailer or it points outside of the object.
    pub(crate) fn parse(tail: &[u8], object_len: u64) -> Result<Self> {
        let trailer: &[u8; TRAILER] = tail
            .last_chunk()
            .filter(|t| &t[8..] == TRAILER_MAGIC)
            .ok_or_else(|| Error::damaged("it has no trailer"))?;
        let word = |at: usize| u32::from_le_bytes([trailer[at], trailer[at + 1], trailer[at + 2], trailer[at + 3]]);
        let parsed = Self { footer_len: word(0), segments: word(4) };
        let room = object_len.checked_sub((ObjectHeader::LEN + TRAILER) as u64);
        let smallest = 8 + TAG_LEN as u64 + u64::from(parsed.segments) * SegmentInfo::LEN as u64;
        if object_len > MAX_PACK || room.is_none_or(|room| u64::from(parsed.footer_len) > room) {
            return Err(Error::damaged("its trailer points outside of it"));
        }
        if u64::from(parsed.footer_len) < smallest {
            return Err(Error::damaged("its footer is too short for its segments"));
        }
        Ok(parsed)
    }
}

/// Reads a footer's plaintext. Pure; allocation is bounded by the input.
///
/// # Errors
/// Damaged.
pub(crate) fn parse_footer(footer: &[u8]) -> Result<(Vec<SegmentInfo>, Vec<Piece>)> {
    let damaged = || Error::damaged("its footer does not have the length that it says");
    let (counts, rest) = footer.split_first_chunk::<8>().ok_or_else(damaged)?;
    let segments = u32::from_le_bytes([counts[0], counts[1], counts[2], counts[3]]) as usize;
    let pieces = u32::from_le_bytes([counts[4], counts[5], counts[6], counts[7]]) as usize;
    let (rows, odd) = rest.as_chunks::<28>();
    if !odd.is_empty() || segments.checked_add(pieces) != Some(rows.len()) {
        return Err(damaged());
    }
    let segments = rows[..segments].iter().map(SegmentInfo::decode).collect::<Result<Vec<_>>>()?;
    let pieces: Vec<_> = rows[segments.len()..].iter().map(Piece::decode).collect();
    for piece in &pieces {
        let segment = segments.get(piece.segment as usize);
        let end = piece.offset.checked_add(piece.len);
        if segment.is_none_or(|s| end.is_none_or(|end| end > s.plain_len)) {
            return Err(Error::damaged("a piece lies outside of its segment"));
        }
    }
    Ok((segments, pieces))
}

/// What is needed to read the segments of one pack.
#[derive(Debug)]
pub(crate) struct PackIndex {
    name: ObjectName,
    opener: ObjectOpener,
    hash: HashKey,
    epoch: EpochId,
    segments: Vec<SegmentInfo>,
    pieces: Vec<Piece>,
    /// Where each segment begins in the object, and where the last one ends.
    offsets: Vec<u32>,
    object_len: u64,
    /// The number that the first segment has in the object: 0, unless only some of it is looked at.
    base: u32,
}

impl PackIndex {
    /// How many bytes from the end of a pack usually hold the whole footer.
    pub(crate) const USUAL_TAIL: u64 = 16 << 10;

    /// Reads the index of the pack `id` of a session, as [`parse_named`](Self::parse_named).
    ///
    /// # Errors
    /// Damaged.
    pub(crate) fn parse(
        keyring: &Keyring,
        id: PackId,
        header: &[u8],
        tail: &[u8],
        object_len: u64,
    ) -> Result<std::result::Result<Self, u64>> {
        Self::parse_named(keyring, (ObjectKind::Pack, layout::pack(id)?), header, tail, object_len)
    }

    /// Reads the index of a pack of this kind and name, whose first [`ObjectHeader::LEN`] bytes are `header` and whose end is
    /// `tail`.
    ///
    /// Returns how many bytes of the end are needed when `tail` is too short.
    ///
    /// # Errors
    /// Damaged.
    pub(crate) fn parse_named(
        keyring: &Keyring,
        (kind, name): (ObjectKind, ObjectName),
        header: &[u8],
        tail: &[u8],
        object_len: u64,
    ) -> Result<std::result::Result<Self, u64>> {
        let damaged = |e: Error| e.context(format!("object {name} is damaged"));
        if object_len < MIN_PACK as u64 {
            return Err(damaged(Error::damaged("it is too short")));
        }
        let trailer = Trailer::parse(tail, object_len).map_err(damaged)?;
        let needed = trailer.footer_len as usize + TRAILER;
        if tail.len() < needed {
            return Ok(Err(needed as u64));
        }
        let header = ObjectHeader::parse(header).map_err(|e| damaged(e.into()))?;
        let opener = keyring.opener(kind, name.as_str(), &header).map_err(damaged)?;
        let sealed = &tail[tail.len() - needed..tail.len() - TRAILER];
        let plain_len = trailer.footer_len - TAG_LEN as u32;
        let footer_header = SegmentHeader {
            index: trailer.segments,
            last: true,
            plain_len,
            codec: Codec::Raw as u8,
            role: Role::Footer as u8,
        };
        let mut footer = Vec::new();
        opener.open(footer_header, sealed, &mut footer).map_err(|e| damaged(e.into()))?;
        let (segments, pieces) = parse_footer(&footer).map_err(damaged)?;
        let mut offsets = Vec::with_capacity(segments.len() + 1);
        let mut next = ObjectHeader::LEN as u64;
        for segment in &segments {
            offsets.push(next as u32);
            next += u64::from(segment.stored_len);
            if segment.plain_len as usize > SEGMENT || next > object_len {
                return Err(damaged(Error::damaged("its segments are larger than it can hold")));
            }
        }
        offsets.push(next as u32);
        if next + needed as u64 != object_len || segments.len() != trailer.segments as usize {
            return Err(damaged(Error::damaged("its segments do not add up to its length")));
        }
        let hash = keyring.hash_key_of(header.epoch, name.as_str())?;
        let epoch = header.epoch;
        Ok(Ok(Self { name, opener, hash, epoch, segments, pieces, offsets, object_len, base: 0 }))
    }

    /// Reads the index from the whole object.
    ///
    /// # Errors
    /// Damaged.
    pub(crate) fn of_object(keyring: &Keyring, id: PackId, object: &[u8]) -> Result<Self> {
        Self::of_named(keyring, (ObjectKind::Pack, layout::pack(id)?), object)
    }

    /// As [`of_object`](Self::of_object), of a pack of this kind and name.
    ///
    /// # Errors
    /// Damaged.
    pub(crate) fn of_named(keyring: &Keyring, (kind, name): (ObjectKind, ObjectName), object: &[u8]) -> Result<Self> {
        let header = object.get(..ObjectHeader::LEN).unwrap_or(object);
        match Self::parse_named(keyring, (kind, name.clone()), header, object, object.len() as u64)? {
            Ok(index) => Ok(index),
            Err(_) => Err(Error::damaged(format!("object {name} is damaged: it is too short"))),
        }
    }

    /// Only the `count` segments from `base` on: those of a pack that was copied into this one.
    ///
    /// # Errors
    /// Damaged, when there are not as many.
    pub(crate) fn narrow(mut self, base: u32, count: u32) -> Result<Self> {
        let (first, count) = (base as usize, count as usize);
        if first.checked_add(count).is_none_or(|end| end > self.segments.len()) {
            let text = format!("object {} does not have the {count} segments from {base} on", self.name);
            return Err(Error::damaged(text));
        }
        self.segments = self.segments[first..first + count].to_vec();
        self.offsets = self.offsets[first..=first + count].to_vec();
        // Small runs that could be found again are those of packs that were not copied.
        self.pieces = Vec::new();
        self.base = base;
        Ok(self)
    }

    pub(crate) fn name(&self) -> &ObjectName {
        &self.name
    }

    /// The epoch that it is sealed in; [`DEPOSITS`](crate::keyring::DEPOSITS) for what a host has deposited.
    pub(crate) fn epoch(&self) -> EpochId {
        self.epoch
    }

    pub(crate) fn segments(&self) -> &[SegmentInfo] {
        &self.segments
    }

    pub(crate) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Length of the whole object in bytes.
    pub(crate) fn object_len(&self) -> u64 {
        self.object_len
    }

    fn segment(&self, index: u32) -> Result<&SegmentInfo> {
        self.segments
            .get(index as usize)
            .ok_or_else(|| Error::damaged(format!("object {} has no segment {index}", self.name)))
    }

    /// Where segment `index` stands in the object.
    ///
    /// # Errors
    /// Damaged, when there is no such segment, or it was not needed when the pack was copied.
    pub(crate) fn range(&self, index: u32) -> Result<Range<u64>> {
        if self.segment(index)?.is_empty() {
            return Err(Error::damaged(format!("object {} was left without segment {}", self.name, self.base + index)));
        }
        let at = index as usize;
        Ok(u64::from(self.offsets[at])..u64::from(self.offsets[at + 1]))
    }

    /// Opens segment `index`, whose stored bytes are `sealed`, and checks the plaintext against its content id or checksum.
    ///
    /// # Errors
    /// Damaged. `out` is then empty.
    pub(crate) fn open(&self, index: u32, sealed: &[u8], scratch: &mut Scratch, out: &mut Vec<u8>) -> Result<()> {
        let info = self.segment(index)?;
        let index = self.base + index;
        let header = SegmentHeader {
            index,
            last: false,
            plain_len: info.plain_len,
            codec: info.codec as u8,
            role: info.role as u8,
        };
        out.clear();
        let damaged = |e: Error| e.context(format!("object {} is damaged in segment {index}", self.name));
        self.opener.open(header, sealed, &mut scratch.packed).map_err(|e| damaged(e.into()))?;
        scratch
            .decompressor
            .decompress(info.codec, &scratch.packed, info.plain_len as usize, out)
            .and_then(|()| {
                // The tag says that these bytes were sealed; this says that they are what was read from the source.
                if is_of(&self.hash, &info.id, out) {
                    return Ok(());
                }
                Err(Error::damaged("its content is not what it was when it was written"))
            })
            .map_err(|e| {
                out.clear();
                damaged(e)
            })
    }
}

impl Scratch {
    /// The segment that was opened last, as its codec left it.
    pub(crate) fn packed(&self) -> &[u8] {
        &self.packed
    }
}

/// Buffers for opening segments, reused from one to the next.
#[derive(Debug)]
pub(crate) struct Scratch {
    packed: Vec<u8>,
    decompressor: Decompressor,
}

impl Scratch {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self { packed: Vec::new(), decompressor: Decompressor::new()? })
    }
}
