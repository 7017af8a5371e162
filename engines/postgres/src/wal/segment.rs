//! Names and sizes of segments.
//!
//! Source: `src/include/access/xlog_internal.h`. A name is the timeline and the segment's number in base
//! 2³² / segment size, all in eight hexadecimal digits. The position at a segment's end belongs to the next segment:
//! names are always computed here, because the server's own function for it answers differently at that boundary
//! depending on its version.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::lsn::{Lsn, TimelineId};

/// The size of a cluster's segments: a power of two from 1 MiB to 1 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentSize(u32);

impl SegmentSize {
    /// 16 MiB, what `initdb` chooses unless told otherwise.
    pub const DEFAULT: Self = Self(16 << 20);

    /// The size of so many bytes.
    ///
    /// # Errors
    /// [`Error::Malformed`] when no server could have it.
    pub fn new(bytes: u32) -> Result<Self> {
        if bytes.is_power_of_two() && (1 << 20..=1 << 30).contains(&bytes) {
            Ok(Self(bytes))
        } else {
            Err(Error::malformed("wal segment size", format!("{bytes} is not a power of two from 1 MiB to 1 GiB")))
        }
    }

    /// In bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        u64::from(self.0)
    }

    /// How many segments share the middle part of their name.
    #[must_use]
    pub fn per_log(self) -> u64 {
        (1 << 32) / self.bytes()
    }

    /// The number of the segment that holds the byte at `position`.
    #[must_use]
    pub fn number(self, position: Lsn) -> u64 {
        position.0 / self.bytes()
    }

    /// The offset of `position` inside its segment.
    #[must_use]
    pub fn offset(self, position: Lsn) -> u64 {
        position.0 % self.bytes()
    }

    /// The start of the segment that holds the byte at `position`.
    #[must_use]
    pub fn floor(self, position: Lsn) -> Lsn {
        Lsn(position.0 - self.offset(position))
    }

    /// The name of the segment that holds the byte at `position`.
    #[must_use]
    pub fn name(self, timeline: TimelineId, position: Lsn) -> SegmentName {
        let number = self.number(position);
        SegmentName { timeline, log: (number / self.per_log()) as u32, segment: (number % self.per_log()) as u32 }
    }
}

impl FromStr for SegmentSize {
    type Err = Error;

    /// Reads what `SHOW wal_segment_size` prints: a number with `B`, `kB`, `MB` or `GB`, or without for bytes.
    fn from_str(text: &str) -> Result<Self> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let unit = match text[digits..].trim() {
            "" | "B" => 1_u32,
            "kB" => 1 << 10,
            "MB" => 1 << 20,
            "GB" => 1 << 30,
            _ => 0,
        };
        text[..digits]
            .parse::<u32>()
            .ok()
            .and_then(|number| number.checked_mul(unit))
            .map_or_else(|| Err(Error::malformed("wal segment size", format!("{text:?}"))), Self::new)
    }
}

/// The name of a segment: 24 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    /// The timeline whose bytes it holds.
    pub timeline: TimelineId,
    /// The middle part.
    log: u32,
    /// The last part.
    segment: u32,
}

impl SegmentName {
    /// Where the segment begins.
    ///
    /// # Errors
    /// [`Error::Malformed`] when no segment of this size has such a name.
    pub fn start(self, size: SegmentSize) -> Result<Lsn> {
        if u64::from(self.segment) >= size.per_log() {
            return Err(Error::malformed(
                "wal segment name",
                format!("{self} with segments of {} bytes", size.bytes()),
            ));
        }
        Ok(Lsn((u64::from(self.log) << 32) + u64::from(self.segment) * size.bytes()))
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}{:08X}{:08X}", self.timeline.get(), self.log, self.segment)
    }
}

impl FromStr for SegmentName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::malformed("wal segment name", format!("{text:?}"));
        // The server takes upper case only (`IsXLogFileName`).
        if text.len() != 24 || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F')) {
            return Err(wrong());
        }
        let part = |range: std::ops::Range<usize>| u32::from_str_radix(&text[range], 16).map_err(|_| wrong());
        let timeline = TimelineId::new(part(0..8)?).ok_or_else(wrong)?;
        Ok(Self { timeline, log: part(8..16)?, segment: part(16..24)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_of_the_manual() {
        let name = |size: u32, lsn: &str| {
            SegmentSize::new(size).unwrap().name(TimelineId::FIRST, lsn.parse().unwrap()).to_string()
        };
        assert_eq!(name(16 << 20, "0/3A4B5C6D"), "00000001000000000000003A");
        assert_eq!(name(16 << 20, "0/3B000000"), "00000001000000000000003B");
        assert_eq!(name(16 << 20, "A/FF000001"), "000000010000000A000000FF");
        assert_eq!(name(4 << 20, "0/30455E8"), "00000001000000000000000C");
        assert_eq!(name(1 << 30, "1/C0000000"), "000000010000000100000003");
    }

    #[test]
    fn sizes_as_shown() {
        for (text, bytes) in [("16MB", 16 << 20), ("1GB", 1 << 30), ("1048576", 1 << 20), ("65536kB", 64 << 20)] {
            assert_eq!(text.parse::<SegmentSize>().unwrap().bytes(), bytes);
        }
        for text in ["", "MB", "3MB", "2GB", "512kB", "16TB", "99999999999MB", "16 M"] {
            assert!(text.parse::<SegmentSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn other_names_are_refused() {
        for text in ["", "00000001000000000000003a", "00000000000000000000003A", "00000001000000000000003A.partial"] {
            assert!(text.parse::<SegmentName>().is_err(), "{text}");
        }
        let name: SegmentName = "0000000100000000000000FF".parse().unwrap();
        assert!(name.start(SegmentSize::DEFAULT).is_ok());
        assert!(name.start(SegmentSize::new(32 << 20).unwrap()).is_err());
    }

    proptest! {
        #[test]
        fn a_name_leads_back(position: u64, power in 20_u32..=30, timeline in 1_u32..) {
            let size = SegmentSize::new(1 << power).unwrap();
            let timeline = TimelineId::new(timeline).unwrap();
            let name = size.name(timeline, Lsn(position));
            let read: SegmentName = name.to_string().parse().unwrap();
            prop_assert_eq!(read, name);
            prop_assert_eq!(read.start(size).unwrap(), size.floor(Lsn(position)));
        }
    }
}
