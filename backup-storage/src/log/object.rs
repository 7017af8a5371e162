//! Log objects: packs of kind log, whose last segment says what they hold.
//!
//! ```text
//! object header (kind log) | content, at most 1 MiB per segment | log index | footer | trailer
//! ```

use std::sync::Arc;

use backup_core::Lineage;
use backup_core::log::{LineageRecord, LogIndex, LogPurpose};
use backup_crypto::{ObjectHeader, ObjectKind};
use bytes::Bytes;
use minicbor::{Decode, Encode};

use super::name::{self, Piece};
use crate::error::{Error, Result};
use crate::fetch::Scratches;
use crate::keyring::Keyring;
use crate::pack::{Compressor, PackBuilder, PackIndex, Role, SEGMENT, Scratch, checksum};
use crate::store::ObjectName;

/// What an object says about itself: the CBOR of its last segment.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct LogSheet {
    /// The lineage that it is a piece of.
    #[n(0)]
    pub(crate) lineage: Lineage,
    /// Its first offset.
    #[n(1)]
    pub(crate) start: u64,
    /// The offset behind its last one.
    #[n(2)]
    pub(crate) end: u64,
    /// BLAKE3 of the stored bytes of the object that its writer wrote before it.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub(crate) previous: Option<[u8; 32]>,
    /// Moments and names in it.
    #[n(4)]
    pub(crate) index: LogIndex,
    /// What its writer does.
    #[n(5)]
    pub(crate) purpose: LogPurpose,
    /// In the first object of its writer in this lineage: what is known of the lineage.
    #[n(6)]
    pub(crate) record: Option<LineageRecord>,
}

impl LogSheet {
    /// Reads what an object says about itself.
    ///
    /// # Errors
    /// Damaged when it does not say what `name` says; Environment when a newer version wrote it.
    pub(crate) fn decode(bytes: &[u8], name: &ObjectName) -> Result<Self> {
        let sheet: Self = minicbor::decode(bytes).map_err(|e| {
            // Authentic but not understood: damage is ruled out.
            let newer = format!("object {name} was written by a newer version of this library");
            Error::environment(newer).with_source(e)
        })?;
        let said = name::parse(name.as_str());
        if said.is_none_or(|(lineage, piece)| lineage != sheet.lineage || piece.offsets() != (sheet.start..sheet.end)) {
            let Self { lineage, start, end, .. } = sheet;
            return Err(Error::damaged(format!("object {name} calls itself {start}..{end} of lineage {lineage}")));
        }
        Ok(sheet)
    }
}

/// An object that is ready to be stored.
#[derive(Debug, Clone)]
pub(crate) struct Sealed {
    pub(crate) name: ObjectName,
    pub(crate) bytes: Bytes,
    /// BLAKE3 of `bytes`.
    pub(crate) digest: [u8; 32],
}

/// An object in the making: what was added is sealed, but for less than a segment.
#[derive(Debug)]
pub(crate) struct Draft {
    builder: PackBuilder,
    gathered: Vec<u8>,
}

/// Makes log objects, one at a time. Blocking.
#[derive(Debug)]
pub(crate) struct Sealer {
    keyring: Keyring,
    compressor: Compressor,
    segment: Vec<u8>,
    /// Chunks of at least so many bytes are segments of their own.
    whole: usize,
}

/// While there is haste, chunks of at least so many bytes are not put together.
const SCATTERED: usize = 64 << 10;

impl Sealer {
    pub(crate) fn new(keyring: &Keyring, level: i32) -> Result<Self> {
        Ok(Self { keyring: keyring.clone(), compressor: Compressor::new(level)?, segment: Vec::new(), whole: SEGMENT })
    }

    /// Goes on with another zstd level. With `haste` large chunks become segments as they are: that saves to copy them, and costs a little
    /// of what compression gains.
    pub(crate) fn set_level(&mut self, level: i32, haste: bool) -> Result<()> {
        self.whole = if haste { SCATTERED } else { SEGMENT };
        self.compressor.set_level(level)
    }

    /// Seals `content` as that of the object `name`, into the memory of `buffer`. Content that is not whole segments is put together.
    pub(crate) fn draft(&mut self, name: ObjectName, content: &[Bytes], buffer: Vec<u8>) -> Result<Draft> {
        let len: usize = content.iter().map(Bytes::len).sum();
        // What compresses as text or log does leaves half of it; what does not makes the buffer grow once.
        let mut draft = self.begin_in(name, if self.whole < SEGMENT { len } else { len / 2 }, buffer)?;
        content.iter().try_for_each(|chunk| self.add(&mut draft, chunk))?;
        Ok(draft)
    }

    /// Begins the object `name`, which will have about `len` bytes.
    pub(crate) fn begin(&mut self, name: ObjectName, len: usize) -> Result<Draft> {
        self.begin_in(name, len, Vec::new())
    }

    fn begin_in(&mut self, name: ObjectName, len: usize, mut buffer: Vec<u8>) -> Result<Draft> {
        buffer.clear();
        buffer.reserve(len + (8 << 10));
        // Each object is of the epoch that is the present one when it is begun, as a whole.
        let keyring = self.keyring.pinned();
        let builder = PackBuilder::named(ObjectKind::Log, name, &keyring, buffer)?;
        self.segment.clear();
        Ok(Draft { builder, gathered: std::mem::take(&mut self.segment) })
    }

    /// Adds content to `draft`.
    pub(crate) fn add(&mut self, draft: &mut Draft, mut content: &[u8]) -> Result<()> {
        let Draft { builder, gathered } = draft;
        while !content.is_empty() {
            if content.len() >= self.whole && (gathered.is_empty() || self.whole < SEGMENT) {
                if !gathered.is_empty() {
                    self.push(builder, Role::Data, gathered)?;
                    gathered.clear();
                }
                let (whole, behind) = content.split_at(content.len().min(SEGMENT));
                self.push(builder, Role::Data, whole)?;
                content = behind;
                continue;
            }
            let (part, behind) = content.split_at(content.len().min(SEGMENT - gathered.len()));
            gathered.extend_from_slice(part);
            content = behind;
            if gathered.len() == SEGMENT {
                self.push(builder, Role::Data, gathered)?;
                gathered.clear();
            }
        }
        Ok(())
    }

    /// Ends `draft`, which says `sheet` about itself.
    pub(crate) fn finish(&mut self, draft: Draft, sheet: &LogSheet) -> Result<Sealed> {
        let Draft { mut builder, gathered } = draft;
        if !gathered.is_empty() {
            self.push(&mut builder, Role::Data, &gathered)?;
        }
        self.segment = gathered;
        let sheet =
            minicbor::to_vec(sheet).map_err(|e| Error::internal("a log index cannot be encoded").with_source(e))?;
        if sheet.len() > SEGMENT {
            return Err(Error::internal(format!("a log index has {} bytes", sheet.len())));
        }
        self.push(&mut builder, Role::LogIndex, &sheet)?;
        let pack = builder.finish()?;
        let digest = *blake3::hash(&pack.object).as_bytes();
        Ok(Sealed { name: pack.name, bytes: pack.object.into(), digest })
    }

    fn push(&mut self, builder: &mut PackBuilder, role: Role, plaintext: &[u8]) -> Result<u32> {
        builder.add(role, &mut self.compressor, plaintext, checksum(plaintext))
    }
}

/// A log object that is being read: where its segments are, and what it says about itself.
#[derive(Debug)]
pub(crate) struct LogObject {
    pack: PackIndex,
    sheet: LogSheet,
    /// Where the content of each segment begins, and where all of it ends, counted from the start of the object's range.
    bounds: Vec<u64>,
}

impl LogObject {
    /// How many bytes from the end of an object usually hold its footer and its index.
    pub(crate) const USUAL_TAIL: u64 = 16 << 10;

    /// Reads what the object `name` of `len` bytes says about itself from its header and its end.
    ///
    /// Returns how many bytes of the end are needed when `tail` is too short.
    ///
    /// # Errors
    /// Damaged.
    pub(crate) fn parse(
        keyring: &Keyring,
        name: &ObjectName,
        (header, tail, len): (&[u8], &[u8], u64),
        scratch: &mut Scratch,
    ) -> Result<std::result::Result<Self, u64>> {
        let pack = match PackIndex::parse_named(keyring, (ObjectKind::Log, name.clone()), header, tail, len)? {
            Ok(pack) => pack,
            Err(needed) => return Ok(Err(needed)),
        };
        let damaged = |why: &str| Error::damaged(format!("object {name} is damaged: {why}"));
        let Some(((last, content), number)) = pack.segments().split_last().zip(pack.segments().len().checked_sub(1))
        else {
            return Err(damaged("it has no index"));
        };
        if last.role != Role::LogIndex || content.iter().any(|segment| segment.role != Role::Data) {
            return Err(damaged("its segments are not those of a log object"));
        }
        let number = u32::try_from(number).map_err(|_| damaged("it has too many segments"))?;
        let range = pack.range(number)?;
        let before = len.saturating_sub(tail.len() as u64);
        let Some(at) = range.start.checked_sub(before) else { return Ok(Err(len - range.start)) };
        // The tail holds what lies between the segment and the end of the object, which was checked to add up.
        let sealed = tail.get(at as usize..(range.end - before) as usize).ok_or_else(|| damaged("it is cut off"))?;
        let mut plain = Vec::new();
        pack.open(number, sealed, scratch, &mut plain)?;
        let sheet = LogSheet::decode(&plain, name)?;
        let mut bounds = vec![0];
        for segment in content {
            bounds.push(bounds[bounds.len() - 1] + u64::from(segment.plain_len));
        }
        if bounds.last() != Some(&(sheet.end - sheet.start)) {
            return Err(damaged("its content is not as long as its range"));
        }
        Ok(Ok(Self { pack, sheet, bounds }))
    }

    /// As [`parse`](Self::parse), from the whole object.
    ///
    /// # Errors
    /// Damaged.
    pub(crate) fn of_object(
        keyring: &Keyring,
        name: &ObjectName,
        object: &[u8],
        scratch: &mut Scratch,
    ) -> Result<Self> {
        let header = object.get(..ObjectHeader::LEN).unwrap_or(object);
        match Self::parse(keyring, name, (header, object, object.len() as u64), scratch)? {
            Ok(parsed) => Ok(parsed),
            Err(_) => Err(Error::damaged(format!("object {name} is damaged: it is too short"))),
        }
    }

    pub(crate) fn sheet(&self) -> &LogSheet {
        &self.sheet
    }

    pub(crate) fn name(&self) -> &ObjectName {
        self.pack.name()
    }

    /// The segments that hold `offsets`, which must lie in the object's range.
    pub(crate) fn segments(&self, offsets: &std::ops::Range<u64>) -> std::ops::Range<u32> {
        let (from, to) = (offsets.start - self.sheet.start, offsets.end - self.sheet.start);
        // Both are less than the number of segments, which fits.
        let first = self.bounds.partition_point(|bound| *bound <= from).saturating_sub(1);
        let last = self.bounds.partition_point(|bound| *bound < to);
        first as u32..last as u32
    }

    /// The offsets of the log that segment `number` holds.
    pub(crate) fn offsets(&self, number: u32) -> std::ops::Range<u64> {
        let number = number as usize;
        self.sheet.start + self.bounds[number]..self.sheet.start + self.bounds[number + 1]
    }

    /// Where segment `number` stands in the object.
    ///
    /// # Errors
    /// Damaged, when there is no such segment.
    pub(crate) fn stored(&self, number: u32) -> Result<std::ops::Range<u64>> {
        self.pack.range(number)
    }

    /// Opens segment `number`, whose stored bytes are `sealed`.
    ///
    /// # Errors
    /// Damaged.
    pub(crate) fn open(&self, number: u32, sealed: &[u8], scratch: &mut Scratch) -> Result<Bytes> {
        let mut content = Vec::new();
        self.pack.open(number, sealed, scratch, &mut content)?;
        Ok(content.into())
    }
}

/// All of a log object, decoded.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) object: LogObject,
    /// In segments.
    pub(crate) content: Vec<Bytes>,
}

/// Decodes the whole object `name`. Blocking.
///
/// # Errors
/// Damaged.
pub(crate) fn open_whole(
    keyring: &Keyring,
    name: &ObjectName,
    bytes: &[u8],
    scratches: &Arc<Scratches>,
) -> Result<Opened> {
    let mut scratch = scratches.take()?;
    let object = LogObject::of_object(keyring, name, bytes, &mut scratch)?;
    let count = object.bounds.len().saturating_sub(1) as u32;
    let content = (0..count)
        .map(|number| {
            let range = object.stored(number)?;
            object.open(number, &bytes[range.start as usize..range.end as usize], &mut scratch)
        })
        .collect::<Result<Vec<_>>>()?;
    scratches.give(scratch);
    Ok(Opened { object, content })
}

/// What `piece` of `lineage` says about itself, without content.
pub(crate) fn sheet(
    lineage: &Lineage,
    piece: &Piece,
    (purpose, record): (LogPurpose, Option<LineageRecord>),
    previous: Option<[u8; 32]>,
    index: LogIndex,
) -> LogSheet {
    LogSheet { lineage: lineage.clone(), start: piece.start, end: piece.end, previous, index, purpose, record }
}

#[cfg(test)]
mod tests;
