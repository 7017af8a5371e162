//! What the pages of a log look like, and the header that each of them begins with.
//!
//! Source: `XLogPageHeaderData` and the `XLP_` flags in `src/include/access/xlog_internal.h`, `XLogReaderValidatePageHeader`
//! in `xlogreader.c`, `AdvanceXLInsertBuffer` in `xlog.c`. Little-endian as on every platform that PostgreSQL is packaged for.

use super::header::{LongPageHeader, page_magic};
use super::segment::SegmentSize;
use crate::error::{Error, Result};
use crate::lsn::{Lsn, TimelineId};
use crate::version::ServerVersion;

/// The page continues a record of the page before.
const CONTINUES: u16 = 0x0001;
/// The header is a long one.
const LONG: u16 = 0x0002;
/// Full-page images on the page were not needed by a backup. Nobody looks at it, so a wrong one cannot be noticed.
const REMOVABLE: u16 = 0x0004;
/// Where the record of the page before would continue another one begins: the server died while it wrote.
const OVERWRITES: u16 = 0x0008;

/// What every page of one lineage's log must say about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalFormat {
    major: u32,
    magic: u16,
    segment_size: SegmentSize,
    page_size: u32,
    system_id: u64,
    timeline: TimelineId,
}

impl WalFormat {
    /// The size of pages in every packaged server; another one is a compile-time option of the server.
    pub const PAGE_SIZE: u32 = 8192;

    /// The log of `timeline` in the cluster `system_id`, written by a server of major version `major`.
    ///
    /// # Errors
    /// [`Error::Version`] outside of [`ServerVersion::OLDEST`]..=[`ServerVersion::NEWEST`].
    pub fn new(major: u32, segment_size: SegmentSize, system_id: u64, timeline: TimelineId) -> Result<Self> {
        let magic = page_magic(major).ok_or(Error::Version {
            found: major.saturating_mul(10_000),
            oldest: ServerVersion::OLDEST,
            newest: ServerVersion::NEWEST,
        })?;
        Ok(Self { major, magic, segment_size, page_size: Self::PAGE_SIZE, system_id, timeline })
    }

    /// What the first page of a segment says: the format of the log that it belongs to, on `timeline`. The header's own
    /// timeline may be that of an ancestor.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the header's timeline is newer than `timeline`.
    pub fn of(header: &LongPageHeader, timeline: TimelineId) -> Result<Self> {
        let major = (ServerVersion::OLDEST..=ServerVersion::NEWEST)
            .find(|major| page_magic(*major) == Some(header.magic))
            .ok_or_else(|| Error::malformed("wal page header", format!("magic number {:#06x}", header.magic)))?;
        if header.timeline > timeline {
            let reason = format!("timeline {} in the log of timeline {timeline}", header.timeline);
            return Err(Error::malformed("wal page header", reason));
        }
        let page_size = header.page_size;
        Ok(Self { page_size, ..Self::new(major, header.segment_size, header.system_id, timeline)? })
    }

    /// Pages of another size: a power of two from 1 KiB to 64 KiB.
    ///
    /// # Errors
    /// [`Error::Malformed`] when no server could have it.
    pub fn with_page_size(self, page_size: u32) -> Result<Self> {
        if !page_size.is_power_of_two() || !(1 << 10..=1 << 16).contains(&page_size) {
            return Err(Error::malformed("wal page size", format!("{page_size} bytes")));
        }
        Ok(Self { page_size, ..self })
    }

    /// The major version of the server that writes it.
    #[must_use]
    pub fn major(&self) -> u32 {
        self.major
    }

    /// The size of segments.
    #[must_use]
    pub fn segment_size(&self) -> SegmentSize {
        self.segment_size
    }

    /// The size of pages in bytes.
    #[must_use]
    pub fn page_size(&self) -> u32 {
        self.page_size
    }

    /// The system identifier of the cluster.
    #[must_use]
    pub fn system_id(&self) -> u64 {
        self.system_id
    }

    /// The timeline of the lineage; pages copied from an ancestor have an older one.
    #[must_use]
    pub fn timeline(&self) -> TimelineId {
        self.timeline
    }

    /// The length of the header of the page at `page`.
    pub(super) fn header_length(&self, page: u64) -> usize {
        if self.segment_size.offset(Lsn(page)) == 0 { LongPageHeader::LENGTH } else { PageHeader::LENGTH }
    }

    /// The offset of `at` inside its page.
    pub(super) fn offset_in_page(&self, at: u64) -> u64 {
        // A power of two: this is asked several times for every record.
        at & u64::from(self.page_size - 1)
    }

    /// How many bytes of the page that holds the byte at `at` are left from there on.
    pub(super) fn left_in_page(&self, at: u64) -> u64 {
        u64::from(self.page_size) - self.offset_in_page(at)
    }
}

/// The part of the header that all pages have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PageHeader {
    magic: u16,
    flags: u16,
    /// The timeline on which the page was begun.
    pub(super) timeline: u32,
    address: u64,
    remaining: u32,
    padding: u32,
}

/// How the bytes behind a page's header go on from the page before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Joint {
    /// A record begins there, or none does.
    Clean,
    /// So many bytes of the record that began before are still to come.
    Continues(u32),
    /// The record that began before was given up; the one that says so begins there.
    Overwrites,
}

impl PageHeader {
    /// The length of a header that is not a segment's first.
    pub(super) const LENGTH: usize = 24;

    pub(super) fn parse(bytes: &[u8; Self::LENGTH]) -> Self {
        let [m0, m1, f0, f1, t0, t1, t2, t3, a0, a1, a2, a3, a4, a5, a6, a7, r0, r1, r2, r3, p0, p1, p2, p3] = *bytes;
        Self {
            magic: u16::from_le_bytes([m0, m1]),
            flags: u16::from_le_bytes([f0, f1]),
            timeline: u32::from_le_bytes([t0, t1, t2, t3]),
            address: u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
            remaining: u32::from_le_bytes([r0, r1, r2, r3]),
            padding: u32::from_le_bytes([p0, p1, p2, p3]),
        }
    }

    /// Whether this is no header but a page that was never written.
    pub(super) fn is_blank(&self) -> bool {
        *self == Self { magic: 0, flags: 0, timeline: 0, address: 0, remaining: 0, padding: 0 }
    }

    /// Whether the page at `page` is left over from an earlier life of its segment file, which was renamed to be used again
    /// and not yet written to.
    pub(super) fn is_recycled(&self, format: &WalFormat, page: u64) -> bool {
        let size = format.segment_size.bytes();
        self.magic == format.magic
            && self.address < page
            && (page - self.address).is_multiple_of(size)
            && (1..=format.timeline.get()).contains(&self.timeline)
    }

    /// Judges the header of the page at `page` whose predecessor was on timeline `previous`.
    ///
    /// The error is the reason without the position.
    pub(super) fn check(&self, format: &WalFormat, page: u64, previous: u32) -> Result<Joint, String> {
        if self.magic != format.magic {
            return Err(format!("magic number {:#06x}, not {:#06x}", self.magic, format.magic));
        }
        if self.address != page {
            return Err(format!("the page says that it is the one at {}", Lsn(self.address)));
        }
        let first = format.segment_size.offset(Lsn(page)) == 0;
        let known = CONTINUES | LONG | REMOVABLE | OVERWRITES;
        if self.flags & !known != 0 || (self.flags & LONG != 0) != first || self.padding != 0 {
            return Err(format!("page flags {:#06x}", self.flags));
        }
        if self.timeline < previous.max(1) || self.timeline > format.timeline.get() {
            let (found, own) = (self.timeline, format.timeline);
            return Err(format!("timeline {found} after timeline {previous} in the log of timeline {own}"));
        }
        match (self.flags & CONTINUES != 0, self.flags & OVERWRITES != 0, self.remaining) {
            (false, false, 0) => Ok(Joint::Clean),
            (true, false, remaining) if remaining > 0 => Ok(Joint::Continues(remaining)),
            (false, true, 0) => Ok(Joint::Overwrites),
            (_, _, remaining) => Err(format!("page flags {:#06x} with {remaining} bytes remaining", self.flags)),
        }
    }

    /// Judges what the first page of a segment says beyond that.
    pub(super) fn check_long(format: &WalFormat, header: &[u8; LongPageHeader::LENGTH]) -> Result<(), String> {
        let header = LongPageHeader::parse(header).map_err(|error| error.to_string())?;
        if header.system_id != format.system_id {
            return Err(format!("the log of cluster {}, not {}", header.system_id, format.system_id));
        }
        if header.segment_size != format.segment_size || header.page_size != format.page_size {
            let (segment, page) = (header.segment_size.bytes(), header.page_size);
            return Err(format!("segments of {segment} bytes with pages of {page}"));
        }
        Ok(())
    }

    /// The header of the page at `page`, for logs that are made up.
    #[cfg(any(test, feature = "test-util"))]
    pub(super) fn write(format: &WalFormat, page: u64, timeline: u32, joint: Joint) -> Vec<u8> {
        let first = format.segment_size.offset(Lsn(page)) == 0;
        let (flags, remaining) = match joint {
            Joint::Clean => (0, 0),
            Joint::Continues(remaining) => (CONTINUES, remaining),
            Joint::Overwrites => (OVERWRITES, 0),
        };
        let mut bytes = format.magic.to_le_bytes().to_vec();
        bytes.extend((flags | if first { LONG } else { 0 }).to_le_bytes());
        bytes.extend(timeline.to_le_bytes());
        bytes.extend(page.to_le_bytes());
        bytes.extend(remaining.to_le_bytes());
        bytes.extend([0; 4]);
        if first {
            bytes.extend(format.system_id.to_le_bytes());
            bytes.extend((format.segment_size.bytes() as u32).to_le_bytes());
            bytes.extend(format.page_size.to_le_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(timeline: u32) -> WalFormat {
        WalFormat::new(17, SegmentSize::DEFAULT, 7, TimelineId::new(timeline).unwrap()).unwrap()
    }

    fn header(format: &WalFormat, page: u64, timeline: u32, joint: Joint) -> PageHeader {
        PageHeader::parse(PageHeader::write(format, page, timeline, joint).first_chunk().unwrap())
    }

    #[test]
    fn a_page_says_how_it_goes_on() {
        let format = format(1);
        for joint in [Joint::Clean, Joint::Continues(8), Joint::Continues(u32::MAX), Joint::Overwrites] {
            for page in [16 << 20, (16 << 20) + 8192] {
                assert_eq!(header(&format, page, 1, joint).check(&format, page, 1), Ok(joint));
            }
        }
    }

    #[test]
    fn a_timeline_only_grows_up_to_the_lineages_own() {
        let format = format(3);
        let check = |timeline, previous| header(&format, 8192, timeline, Joint::Clean).check(&format, 8192, previous);
        assert!(check(2, 0).is_ok());
        assert!(check(3, 2).is_ok());
        assert!(check(2, 3).is_err());
        assert!(check(4, 3).is_err());
        assert!(check(0, 0).is_err());
    }

    #[test]
    fn a_recycled_page_is_told_from_a_damaged_one() {
        let format = format(2);
        let page = 5 * (16 << 20) + 8192;
        let found = |address| header(&format, address, 1, Joint::Clean).is_recycled(&format, page);
        assert!(found(3 * (16 << 20) + 8192));
        assert!(!found(page));
        assert!(!found(3 * (16 << 20)));
        assert!(!found(6 * (16 << 20) + 8192));
    }

    #[test]
    fn the_first_page_of_a_segment_gives_the_format() {
        let format = format(2).with_page_size(16384).unwrap();
        let bytes = PageHeader::write(&format, 32 << 20, 1, Joint::Clean);
        let read = LongPageHeader::parse(&bytes).unwrap();
        assert_eq!(WalFormat::of(&read, TimelineId::new(2).unwrap()).unwrap(), format);
        let later = LongPageHeader::parse(&PageHeader::write(&format, 32 << 20, 2, Joint::Clean)).unwrap();
        assert!(WalFormat::of(&later, TimelineId::FIRST).is_err());
        assert!(WalFormat::new(12, SegmentSize::DEFAULT, 7, TimelineId::FIRST).is_err());
        assert!(format.with_page_size(12_288).is_err());
    }
}
