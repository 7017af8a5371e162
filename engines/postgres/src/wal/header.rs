//! The header at the start of every segment.
//!
//! Source: `XLogLongPageHeaderData` in `src/include/access/xlog_internal.h`; little-endian as on every platform that
//! PostgreSQL is packaged for.

use super::segment::{SegmentName, SegmentSize};
use crate::error::{Error, Result};
use crate::lsn::{Lsn, TimelineId};

const LONG_HEADER: u16 = 0x0002;

/// The long header of a segment's first page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LongPageHeader {
    /// The number that identifies the version of the log's format.
    pub magic: u16,
    /// The timeline of the first record that begins on the page.
    pub timeline: TimelineId,
    /// The position of the page: the start of the segment.
    pub address: Lsn,
    /// How many bytes of a record that began before the page remain.
    pub remaining: u32,
    /// The cluster's system identifier.
    pub system_id: u64,
    /// The size of segments.
    pub segment_size: SegmentSize,
    /// The size of pages of the log.
    pub page_size: u32,
}

/// The magic number that a server of major version `major` writes, for 13 to 18 (`XLOG_PAGE_MAGIC`).
#[must_use]
pub fn page_magic(major: u32) -> Option<u16> {
    Some(match major {
        13 => 0xD106,
        14 => 0xD10D,
        15 => 0xD110,
        16 => 0xD113,
        17 => 0xD116,
        18 => 0xD118,
        _ => return None,
    })
}

impl LongPageHeader {
    /// The length of the header in bytes.
    pub const LENGTH: usize = 40;

    /// Reads the header from the first bytes of a segment. Never panics.
    ///
    /// # Errors
    /// [`Error::Malformed`] when it is not such a header of a supported version.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let wrong = |reason: String| Error::malformed("wal page header", reason);
        let Some(header) = bytes.first_chunk::<{ Self::LENGTH }>() else {
            return Err(wrong(format!("only {} bytes", bytes.len())));
        };
        let u32_at = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        let magic = u32_at(0) as u16;
        if !(13..=18).any(|major| page_magic(major) == Some(magic)) {
            return Err(wrong(format!("magic number {magic:#06x}")));
        }
        let info = (u32_at(0) >> 16) as u16;
        // XLP_ALL_FLAGS is 0x000F.
        if info & LONG_HEADER == 0 || info & !0x000f != 0 {
            return Err(wrong(format!("flags {info:#06x}")));
        }
        let segment_size = SegmentSize::new(u32_at(32))?;
        let address = Lsn(u64_at(8));
        if segment_size.offset(address) != 0 {
            return Err(wrong(format!("address {address} is not the start of a segment")));
        }
        let page_size = u32_at(36);
        if !page_size.is_power_of_two() || !(1 << 10..=1 << 16).contains(&page_size) {
            return Err(wrong(format!("pages of {page_size} bytes")));
        }
        Ok(Self {
            magic,
            timeline: TimelineId::new(u32_at(4)).ok_or_else(|| wrong("timeline 0".to_owned()))?,
            address,
            remaining: u32_at(16),
            system_id: u64_at(24),
            segment_size,
            page_size,
        })
    }

    /// Whether the segment is what its name says. A recycled segment has a future name and an old address; a segment of
    /// a new timeline may begin with pages of an older one, never the other way round.
    ///
    /// # Errors
    /// [`Error::Malformed`] with both.
    pub fn check_name(&self, name: SegmentName) -> Result<()> {
        let start = name.start(self.segment_size)?;
        if start != self.address || self.timeline > name.timeline {
            let (address, timeline) = (self.address, self.timeline);
            return Err(Error::malformed(
                "wal segment",
                format!("{name} holds position {address} of timeline {timeline}"),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn golden() -> Vec<u8> {
        let mut bytes = vec![0x10, 0xd1, 0x02, 0x00, 1, 0, 0, 0];
        bytes.extend(0x0300_0000_u64.to_le_bytes());
        bytes.extend([0; 8]);
        bytes.extend(7_512_345_678_901_234_567_u64.to_le_bytes());
        bytes.extend((16_u32 << 20).to_le_bytes());
        bytes.extend(8192_u32.to_le_bytes());
        bytes
    }

    #[test]
    fn a_segment_of_version_15() {
        let header = LongPageHeader::parse(&golden()).unwrap();
        assert_eq!((header.magic, header.address), (0xD110, Lsn(0x0300_0000)));
        assert_eq!(header.system_id, 7_512_345_678_901_234_567);
        assert!(header.check_name("000000010000000000000003".parse().unwrap()).is_ok());
        assert!(header.check_name("000000020000000000000003".parse().unwrap()).is_ok());
        assert!(header.check_name("000000010000000000000007".parse().unwrap()).is_err());
    }

    #[test]
    fn damage_is_found() {
        for (at, value) in [(0, 0), (2, 0), (2, 0x12), (4, 0), (8, 1), (32, 1), (36, 1)] {
            let mut bytes = golden();
            bytes[at] = value;
            assert!(LongPageHeader::parse(&bytes).is_err(), "byte {at}");
        }
        assert!(LongPageHeader::parse(&golden()[..39]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = LongPageHeader::parse(&bytes);
        }
    }
}
