//! One record of the log, and what it consists of.
//!
//! Source: `src/include/access/xlogrecord.h`, `DecodeXLogRecord` in `xlogreader.c`. A record is a header of 24 bytes, the
//! headers of its parts, and the parts: for each block that it touches maybe an image of the whole page and maybe data, at
//! the end the data that belongs to no block. The flags of images differ up to version 14.

use std::fmt;

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::lsn::Lsn;
use crate::page::{Fork, PAGE_SIZE};

/// The length of a record's header in bytes, and so that of the shortest record.
pub(super) const HEADER: usize = 24;

const SHORT_DATA: u8 = 255;
const LONG_DATA: u8 = 254;
const ORIGIN: u8 = 253;
const TOP_XID: u8 = 252;
/// `XLR_MAX_BLOCK_ID`.
const MAX_BLOCK_ID: u8 = 32;

/// A resource manager: the part of the server that wrote a record and can replay it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rmgr(pub u8);

/// In the order of `rmgrlist.h`, the same for 13 to 18, with the names that `pg_waldump` prints.
const NAMES: [&str; 22] = [
    "XLOG",
    "Transaction",
    "Storage",
    "CLOG",
    "Database",
    "Tablespace",
    "MultiXact",
    "RelMap",
    "Standby",
    "Heap2",
    "Heap",
    "Btree",
    "Hash",
    "Gin",
    "Gist",
    "Sequence",
    "SPGist",
    "BRIN",
    "CommitTs",
    "ReplicationOrigin",
    "Generic",
    "LogicalMessage",
];

impl Rmgr {
    /// The log itself: checkpoints, switches, full-page images.
    pub const XLOG: Self = Self(0);
    /// Ends of transactions.
    pub const TRANSACTION: Self = Self(1);
    /// Creating and truncating files of relations.
    pub const STORAGE: Self = Self(2);
    /// Commit states.
    pub const CLOG: Self = Self(3);
    /// Creating and dropping databases.
    pub const DATABASE: Self = Self(4);
    /// Creating and dropping tablespaces.
    pub const TABLESPACE: Self = Self(5);
    /// Locks shared by transactions.
    pub const MULTIXACT: Self = Self(6);
    /// Which file is which system catalog.
    pub const RELMAP: Self = Self(7);
    /// Locks and running transactions, for standbys.
    pub const STANDBY: Self = Self(8);
    /// Tables.
    pub const HEAP2: Self = Self(9);
    /// Tables.
    pub const HEAP: Self = Self(10);
    /// The last of those that the server has itself.
    pub const LAST_BUILTIN: Self = Self(21);

    /// Whether an extension of the server brought it.
    #[must_use]
    pub fn is_custom(self) -> bool {
        self.0 >= 128
    }

    /// Whether a server of major version `major` could have written a record of it: extensions can since 15.
    #[must_use]
    pub fn is_known(self, major: u32) -> bool {
        self <= Self::LAST_BUILTIN || self.is_custom() && major >= 15
    }
}

impl fmt::Display for Rmgr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.get(usize::from(self.0)) {
            Some(name) => f.write_str(name),
            None => write!(f, "custom{:03}", self.0),
        }
    }
}

impl fmt::Debug for Rmgr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The header that a record begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub(super) length: u32,
    pub(super) xid: u32,
    pub(super) prev: Lsn,
    pub(super) info: u8,
    pub(super) rmgr: Rmgr,
    pub(super) crc: u32,
}

impl RecordHeader {
    pub(super) fn parse(bytes: &[u8; HEADER]) -> Self {
        let [l0, l1, l2, l3, x0, x1, x2, x3, p0, p1, p2, p3, p4, p5, p6, p7, info, rmgr, _, _, c0, c1, c2, c3] = *bytes;
        Self {
            length: u32::from_le_bytes([l0, l1, l2, l3]),
            xid: u32::from_le_bytes([x0, x1, x2, x3]),
            prev: Lsn(u64::from_le_bytes([p0, p1, p2, p3, p4, p5, p6, p7])),
            info,
            rmgr: Rmgr(rmgr),
            crc: u32::from_le_bytes([c0, c1, c2, c3]),
        }
    }

    /// The longest record that a server of major version `major` writes: `XLogRecordMaxSize` since 16, before that what it
    /// could read again (`MaxAllocSize`).
    pub(super) fn longest(major: u32) -> u32 {
        if major >= 16 { 1020 << 20 } else { (1 << 30) - 1 }
    }

    /// The checksum of a whole record's body, or of what has come of it.
    pub(super) fn body_sum(record: &[u8]) -> u32 {
        crc32c::crc32c(&record[HEADER..])
    }

    /// The checksum of a record whose body has the checksum `body`: goes on with its header, up to where the checksum stands.
    pub(super) fn checksum(body: u32, record: &[u8]) -> u32 {
        crc32c::crc32c_append(body, &record[..HEADER - 4])
    }
}

/// One record. Cloning shares its bytes.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// Where it begins. Behind the header of its page if it is the first on it.
    pub start: Lsn,
    /// Where the next one begins: aligned to 8 bytes, the boundary and not behind the header where that is the start of a
    /// page. Of a switch, the end of the segment.
    pub end: Lsn,
    /// Where the record before begins.
    pub prev: Lsn,
    /// The transaction, or subtransaction, that wrote it; 0 for none.
    pub xid: u32,
    /// Whose record it is.
    pub rmgr: Rmgr,
    /// What it says, to its resource manager (the upper four bits) and to everyone (the lower four).
    pub info: u8,
    pub(super) major: u32,
    pub(super) bytes: Bytes,
    /// How many bytes of blocks were left out behind the headers of the parts.
    pub(super) left_out: u32,
}

impl Record {
    pub(super) fn new(start: Lsn, end: Lsn, header: &RecordHeader, major: u32, bytes: Bytes) -> Self {
        let RecordHeader { xid, prev, info, rmgr, .. } = *header;
        Self { start, end, prev, xid, rmgr, info, major, bytes, left_out: 0 }
    }

    /// Says that so many bytes of blocks are not in its bytes.
    pub(super) fn without(mut self, left_out: u32) -> Self {
        self.left_out = left_out;
        self
    }

    /// What it says to its resource manager.
    #[must_use]
    pub fn opcode(&self) -> u8 {
        self.info & 0xf0
    }

    /// Whether it changes files of relations beyond the blocks that it names (`XLR_SPECIAL_REL_UPDATE`).
    #[must_use]
    pub fn changes_more_than_blocks(&self) -> bool {
        self.info & 0x01 != 0
    }

    /// The record as it stands in the log, without the headers of the pages that it crosses, and where it was
    /// [skimmed](super::WalReader::skimming) without what belongs to blocks.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The major version of the server that wrote it.
    #[must_use]
    pub fn major(&self) -> u32 {
        self.major
    }

    /// Takes the record apart. Never panics, and holds no more than the record's length allows.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the parts contradict each other or are not exactly as long as the record. The checksum does
    /// not exclude that: it is the server's bug, or an extension's.
    pub fn decode(&self) -> Result<Decoded<'_>> {
        Decoded::parse(self.bytes.get(HEADER..).unwrap_or_default(), self.major, self.left_out as usize)
            .map_err(|reason| Error::malformed("wal record", format!("{}: {reason}", self.start)))
    }

    /// The data that belongs to no block, without looking at the blocks more than necessary.
    ///
    /// # Errors
    /// As [`Record::decode`].
    pub fn main_data(&self) -> Result<&[u8]> {
        // Most records that concern nobody's blocks are nothing else.
        if let Some([SHORT_DATA, length, data @ ..]) = self.bytes.get(HEADER..)
            && data.len() == usize::from(*length)
        {
            return Ok(data);
        }
        Ok(self.decode()?.main)
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("start", &self.start)
            .field("end", &self.end)
            .field("prev", &self.prev)
            .field("xid", &self.xid)
            .field("rmgr", &self.rmgr)
            .field("info", &format_args!("{:#04x}", self.info))
            .field("length", &self.bytes.len())
            .finish()
    }
}

/// Where a relation's files lie (`RelFileLocator`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelationId {
    /// The object identifier of the tablespace; 1663 is `base`, 1664 is `global`.
    pub tablespace: u32,
    /// The object identifier of the database; 0 for shared relations.
    pub database: u32,
    /// The number in the files' names.
    pub number: u32,
}

impl RelationId {
    pub(crate) const LENGTH: usize = 12;

    pub(crate) fn parse(bytes: [u8; Self::LENGTH]) -> Self {
        let [t0, t1, t2, t3, d0, d1, d2, d3, n0, n1, n2, n3] = bytes;
        Self {
            tablespace: u32::from_le_bytes([t0, t1, t2, t3]),
            database: u32::from_le_bytes([d0, d1, d2, d3]),
            number: u32::from_le_bytes([n0, n1, n2, n3]),
        }
    }
}

/// How the image of a page is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// The server's own method, the only one up to 14.
    Pglz,
    /// LZ4, as a block without frame.
    Lz4,
    /// Zstandard.
    Zstd,
}

/// The image of a whole page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlockImage<'a> {
    /// The page without its hole, maybe compressed. Empty in a record that was skimmed.
    pub bytes: &'a [u8],
    /// Where in the page the hole begins.
    pub hole_offset: u16,
    /// How many zeros were left out.
    pub hole_length: u16,
    /// How `bytes` are compressed.
    pub compression: Option<Compression>,
    /// Whether it is to be restored when the record is replayed; otherwise it serves only for comparison.
    pub apply: bool,
}

/// A block that a record touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlockRef<'a> {
    /// The number by which the resource manager knows it: 0 to 32.
    pub id: u8,
    /// The relation.
    pub relation: RelationId,
    /// Its fork.
    pub fork: Fork,
    /// The number of the block within the fork.
    pub block: u32,
    /// Whether the page is made anew when the record is replayed, whatever it was.
    pub will_init: bool,
    /// The image, if the record has one.
    pub image: Option<BlockImage<'a>>,
    /// What the resource manager notes for this block. Empty in a record that was skimmed.
    pub data: &'a [u8],
}

/// The parts of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decoded<'a> {
    /// The blocks, by increasing `id`.
    pub blocks: Vec<BlockRef<'a>>,
    /// The replication origin of the change.
    pub origin: Option<u16>,
    /// The top-level transaction, where the first record of a subtransaction tells it (since 14).
    pub top_xid: Option<u32>,
    /// The data that belongs to no block.
    pub main: &'a [u8],
}

const TOO_SHORT: &str = "is too short for what it holds";

/// The bytes of a record that are not taken yet.
pub(crate) struct Cursor<'a>(pub(crate) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(crate) fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (head, rest) = self.0.split_first_chunk().ok_or_else(|| TOO_SHORT.to_owned())?;
        self.0 = rest;
        Ok(*head)
    }

    pub(crate) fn slice(&mut self, length: usize) -> Result<&'a [u8], String> {
        let (head, rest) = self.0.split_at_checked(length).ok_or_else(|| TOO_SHORT.to_owned())?;
        self.0 = rest;
        Ok(head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, String> {
        self.take().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, String> {
        self.take().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, String> {
        self.take().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, String> {
        self.take().map(u64::from_le_bytes)
    }
}

/// The header of a block's image.
struct ImageHeader {
    length: u16,
    hole_offset: u16,
    hole_length: u16,
    compression: Option<Compression>,
    apply: bool,
}

impl ImageHeader {
    const HAS_HOLE: u8 = 0x01;

    fn parse(cursor: &mut Cursor<'_>, major: u32) -> Result<Self, String> {
        const PAGE: u16 = PAGE_SIZE as u16;
        let (length, hole_offset, info) = (cursor.u16()?, cursor.u16()?, cursor.u8()?);
        let (apply, methods) =
            if major >= 15 { (info & 0x02 != 0, info & !0x03) } else { (info & 0x04 != 0, info & !0x05) };
        let compression = match (methods, major >= 15) {
            (0, _) => None,
            (0x02, false) | (0x04, true) => Some(Compression::Pglz),
            (0x08, true) => Some(Compression::Lz4),
            (0x10, true) => Some(Compression::Zstd),
            _ => return Err(format!("an image of a page has flags {info:#04x}")),
        };
        let hole = info & Self::HAS_HOLE != 0;
        let hole_length = match compression {
            Some(_) if hole => cursor.u16()?,
            Some(_) => 0,
            None => PAGE.checked_sub(length).ok_or_else(|| format!("an image of a page has {length} bytes"))?,
        };
        let contradicts = if hole {
            hole_offset == 0 || hole_length == 0 || length >= PAGE || hole_offset.checked_add(hole_length) > Some(PAGE)
        } else {
            hole_offset != 0 || hole_length != 0
        };
        if contradicts || compression.is_some() && length >= PAGE {
            return Err(format!(
                "an image of {length} bytes has flags {info:#04x} and a hole of {hole_length} at {hole_offset}"
            ));
        }
        Ok(Self { length, hole_offset, hole_length, compression, apply })
    }
}

/// The headers of a record's parts, and how long these are. Blocks have as many bytes as they will have, of zeros.
struct Parts<'a> {
    blocks: Vec<BlockRef<'a>>,
    origin: Option<u16>,
    top_xid: Option<u32>,
    /// Bytes of main data, the last part.
    main: usize,
    /// Bytes of all parts.
    announced: usize,
}

/// What stands for the bytes of parts of which only the headers are read.
static ANNOUNCED: [u8; u16::MAX as usize] = [0; u16::MAX as usize];

/// Where the parts of a record begin and how many bytes of main data it ends with, when `record` is the beginning of one of `length` bytes
/// and has all headers of parts. None when it has not, or is no record.
pub(super) fn skim(record: &[u8], length: usize, major: u32) -> Option<(usize, usize)> {
    let mut cursor = Cursor(record.get(HEADER..)?);
    let parts = Parts::parse(&mut cursor, major, length.checked_sub(record.len())?).ok()?;
    Some((record.len() - cursor.0.len(), parts.main))
}

impl<'a> Parts<'a> {
    /// Takes the headers from `cursor`, behind which `missing` bytes more belong to the record.
    fn parse(cursor: &mut Cursor<'a>, major: u32, missing: usize) -> Result<Self, String> {
        const HAS_IMAGE: u8 = 0x10;
        const HAS_DATA: u8 = 0x20;
        const WILL_INIT: u8 = 0x40;
        const SAME_RELATION: u8 = 0x80;
        let mut blocks: Vec<BlockRef<'a>> = Vec::new();
        let announce = |length: u16| &ANNOUNCED[..usize::from(length)];
        let (mut origin, mut top_xid, mut main_length) = (None, None, 0);
        let mut announced = 0_usize;
        while cursor.0.len() + missing > announced {
            match cursor.u8()? {
                // By convention the main data is the last part.
                SHORT_DATA => {
                    main_length = usize::from(cursor.u8()?);
                    announced += main_length;
                    break;
                }
                LONG_DATA => {
                    main_length = cursor.u32()? as usize;
                    announced = announced.saturating_add(main_length);
                    break;
                }
                ORIGIN => origin = Some(cursor.u16()?),
                TOP_XID if major >= 14 => top_xid = Some(cursor.u32()?),
                id @ 0..=MAX_BLOCK_ID => {
                    let last = blocks.last();
                    if last.is_some_and(|last| last.id >= id) {
                        return Err(format!("block {id} is out of order"));
                    }
                    let flags = cursor.u8()?;
                    let data_length = cursor.u16()?;
                    if (flags & HAS_DATA != 0) != (data_length > 0) {
                        return Err(format!("block {id} has flags {flags:#04x} and {data_length} bytes of data"));
                    }
                    let image = if flags & HAS_IMAGE != 0 {
                        let image = ImageHeader::parse(cursor, major)?;
                        announced += usize::from(image.length);
                        Some(BlockImage {
                            bytes: announce(image.length),
                            hole_offset: image.hole_offset,
                            hole_length: image.hole_length,
                            compression: image.compression,
                            apply: image.apply,
                        })
                    } else {
                        None
                    };
                    let relation = match last {
                        Some(last) if flags & SAME_RELATION != 0 => last.relation,
                        None if flags & SAME_RELATION != 0 => return Err(format!("block {id} names no relation")),
                        _ => RelationId::parse(cursor.take()?),
                    };
                    let fork = match flags & 0x0f {
                        0 => Fork::Main,
                        1 => Fork::FreeSpace,
                        2 => Fork::Visibility,
                        3 => Fork::Init,
                        fork => return Err(format!("block {id} is of fork {fork}")),
                    };
                    let block = cursor.u32()?;
                    announced += usize::from(data_length);
                    let (data, will_init) = (announce(data_length), flags & WILL_INIT != 0);
                    blocks.push(BlockRef { id, relation, fork, block, will_init, image, data });
                }
                id => return Err(format!("a part has the identifier {id}")),
            }
        }
        let left = cursor.0.len() + missing;
        if left != announced {
            return Err(format!("has {left} bytes of data where {announced} are announced"));
        }
        Ok(Self { blocks, origin, top_xid, main: main_length, announced })
    }
}

impl<'a> Decoded<'a> {
    /// Takes `body` apart, in which `left_out` bytes of blocks are missing: all of them or none.
    fn parse(body: &'a [u8], major: u32, left_out: usize) -> Result<Self, String> {
        let mut cursor = Cursor(body);
        let Parts { mut blocks, origin, top_xid, main, announced } = Parts::parse(&mut cursor, major, left_out)?;
        if left_out > 0 && left_out + main != announced {
            return Err(format!("lacks {left_out} bytes of {announced}"));
        }
        let mut part = |length: usize| if left_out > 0 { Ok(&body[..0]) } else { cursor.slice(length) };
        for block in &mut blocks {
            if let Some(image) = &mut block.image {
                image.bytes = part(image.bytes.len())?;
            }
            block.data = part(block.data.len())?;
        }
        Ok(Self { blocks, origin, top_xid, main: cursor.slice(main)? })
    }
}
