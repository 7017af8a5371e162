//! How far the log in a segment goes: a segment that is being written, or was cut off, has its full size long before it is
//! full.
//!
//! Source: `xlog_internal.h` and `xlogrecord.h`. A page has a header of 24 bytes, the first of a segment one of 40. A record
//! begins with its length and is aligned to 8 bytes; what does not fit goes on behind the header of the next page, which
//! says how much is left. The checksum covers what follows the record's header, then the header up to the checksum itself.

use crate::lsn::{Lsn, TimelineId};
use crate::wal::SegmentSize;

/// `XLOG_BLCKSZ`, which is checked in the header of the first page.
pub(super) const PAGE: usize = 8192;
const SHORT_HEADER: usize = 24;
const LONG_HEADER: usize = 40;
const RECORD_HEADER: usize = 24;
/// `XLogRecordMaxSize` is 1020 MiB; before version 16 a record may have almost 1 GiB.
const MAX_RECORD: u32 = 1 << 30;

/// What the pages of a segment must say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    pub(super) magic: u16,
    pub(super) timeline: TimelineId,
    pub(super) size: SegmentSize,
    /// Where the segment begins.
    pub(super) start: Lsn,
}

/// Takes the pages of one segment in their order.
#[derive(Debug)]
pub(super) struct Tail {
    expected: Expected,
    /// Where the next page begins.
    at: Lsn,
    /// The end of the last whole record.
    end: Lsn,
    state: State,
    /// Where the last record began, if that is known.
    last: Option<Lsn>,
}

#[derive(Debug)]
enum State {
    /// Looking at the first page.
    Fresh,
    /// The next record begins where one can.
    Between,
    /// In a record that began in an earlier segment; its checksum cannot be known.
    Foreign { left: u32 },
    /// In a record.
    Record(Box<Begun>),
    /// No log follows.
    Over,
}

#[derive(Debug)]
struct Begun {
    start: Lsn,
    length: u32,
    taken: u32,
    header: [u8; RECORD_HEADER],
    crc: u32,
}

impl Tail {
    pub(super) fn new(expected: Expected) -> Self {
        Self { expected, at: expected.start, end: expected.start, state: State::Fresh, last: None }
    }

    /// Takes the next page. Whether there may be log in the one after it.
    pub(super) fn page(&mut self, page: &[u8; PAGE]) -> bool {
        if self.enter(page).is_none() {
            self.state = State::Over;
        }
        self.at = Lsn(self.at.0 + PAGE as u64);
        !matches!(self.state, State::Over)
    }

    /// The end of the log, when no page follows. `whole` says that the segment is: then a record that goes on in the
    /// next one belongs to the log as far as it is here.
    pub(super) fn end(&self, whole: bool) -> Lsn {
        match self.state {
            State::Over | State::Fresh => self.end,
            _ if whole => self.at,
            _ => self.end,
        }
    }

    fn enter(&mut self, page: &[u8; PAGE]) -> Option<()> {
        const CONTINUED: u16 = 0x0001;
        const LONG: u16 = 0x0002;
        const OVERWRITTEN: u16 = 0x0008;
        let first = self.at == self.expected.start;
        let info = u16::from_le_bytes([page[2], page[3]]);
        let timeline = TimelineId::new(word(page, 4)?)?;
        let fits = u16::from_le_bytes([page[0], page[1]]) == self.expected.magic
            && info & !0x000f == 0
            && (info & LONG != 0) == first
            && timeline <= self.expected.timeline
            && u64::from(word(page, 8)?) | u64::from(word(page, 12)?) << 32 == self.at.0;
        if !fits {
            return None;
        }
        let owed = if info & CONTINUED != 0 { word(page, 16)? } else { 0 };
        let mut from = if first { LONG_HEADER } else { SHORT_HEADER };
        let state = std::mem::replace(&mut self.state, State::Over);
        self.state = match state {
            State::Over => return None,
            State::Fresh | State::Between if owed > 0 && !first => return None,
            State::Fresh | State::Between => State::Foreign { left: owed },
            // The server was stopped inside the record and has written on from here: what there is of it is no record.
            State::Foreign { .. } | State::Record(_) if info & OVERWRITTEN != 0 && owed == 0 => {
                self.last = None;
                State::Foreign { left: 0 }
            }
            State::Foreign { left } if left == owed => State::Foreign { left },
            State::Record(begun) if begun.length - begun.taken == owed => State::Record(begun),
            _ => return None,
        };
        while from < PAGE {
            from = self.step(page, from)?;
        }
        Some(())
    }

    /// Takes what is at `from`, and says where the next thing is.
    fn step(&mut self, page: &[u8; PAGE], from: usize) -> Option<usize> {
        let room = u32::try_from(PAGE - from).ok()?;
        match &mut self.state {
            State::Foreign { left } => {
                let taken = (*left).min(room);
                *left -= taken;
                if *left > 0 {
                    return Some(PAGE);
                }
                let next = (from + taken as usize).next_multiple_of(8);
                if taken > 0 {
                    self.end = Lsn(self.at.0 + next as u64);
                }
                self.state = State::Between;
                Some(next)
            }
            State::Between => {
                let length = word(page, from)?;
                if !(RECORD_HEADER as u32..=MAX_RECORD).contains(&length) {
                    return None;
                }
                let start = Lsn(self.at.0 + from as u64);
                let begun = Begun { start, length, taken: 0, header: [0; RECORD_HEADER], crc: 0 };
                self.state = State::Record(Box::new(begun));
                Some(from)
            }
            State::Record(begun) => {
                let taken = (begun.length - begun.taken).min(room);
                begun.take(page.get(from..from + taken as usize)?);
                if begun.taken < begun.length {
                    return Some(PAGE);
                }
                if !begun.is_valid(self.last) {
                    return None;
                }
                let next = (from + taken as usize).next_multiple_of(8);
                self.last = Some(begun.start);
                self.end = Lsn(self.at.0 + next as u64);
                if begun.is_switch() {
                    // The rest of the segment belongs to it.
                    self.end = Lsn(self.expected.start.0 + self.expected.size.bytes());
                    return None;
                }
                self.state = State::Between;
                Some(next)
            }
            State::Fresh | State::Over => None,
        }
    }
}

impl Begun {
    fn take(&mut self, bytes: &[u8]) {
        let at = self.taken as usize;
        let header = bytes.len().min(RECORD_HEADER.saturating_sub(at));
        if header > 0 {
            self.header[at..at + header].copy_from_slice(&bytes[..header]);
        }
        self.crc = crc32c::crc32c_append(self.crc, &bytes[header..]);
        // A record has at most 1 GiB.
        self.taken += u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    }

    fn is_valid(&self, last: Option<Lsn>) -> bool {
        let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| self.header[at + i]));
        let previous = u64::from(word(8)) | u64::from(word(12)) << 32;
        let chained = last.map_or(previous < self.start.0, |last| last.0 == previous);
        chained && crc32c::crc32c_append(self.crc, &self.header[..20]) == word(20)
    }

    /// RM_XLOG_ID, XLOG_SWITCH.
    fn is_switch(&self) -> bool {
        self.header[17] == 0 && self.header[16] & 0xf0 == 0x40
    }
}

fn word(page: &[u8], at: usize) -> Option<u32> {
    page.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIZE: u32 = 1 << 20;
    const START: u64 = 3 << 20;

    fn expected() -> Expected {
        Expected {
            magic: 0xD116,
            timeline: TimelineId::FIRST,
            size: SegmentSize::new(SIZE).unwrap(),
            start: Lsn(START),
        }
    }

    /// A segment as a server writes one, and where its records end.
    struct Log {
        bytes: Vec<u8>,
        at: usize,
        last: u64,
        ends: Vec<u64>,
    }

    impl Log {
        /// With `owed` bytes of a record of the segment before.
        fn new(owed: u32) -> Self {
            let mut log = Self { bytes: vec![0; SIZE as usize], at: 0, last: START - 64, ends: Vec::new() };
            log.put(&vec![0xee; owed as usize], owed);
            log
        }

        /// Writes `bytes` of a record, of which `left` are left, with page headers where they belong.
        fn put(&mut self, bytes: &[u8], left: u32) -> bool {
            let mut left = left;
            let mut rest = bytes;
            loop {
                if self.at.is_multiple_of(PAGE) {
                    if self.at + PAGE > self.bytes.len() {
                        return false;
                    }
                    let first = self.at == 0;
                    let continued = u16::from(left > 0 && (first || left < u32::MAX));
                    let header = &mut self.bytes[self.at..self.at + LONG_HEADER];
                    header[..2].copy_from_slice(&0xD116_u16.to_le_bytes());
                    header[2..4].copy_from_slice(&(continued | u16::from(first) << 1).to_le_bytes());
                    header[4..8].copy_from_slice(&1_u32.to_le_bytes());
                    header[8..16].copy_from_slice(&(START + self.at as u64).to_le_bytes());
                    header[16..20].copy_from_slice(&(if continued == 1 { left } else { 0 }).to_le_bytes());
                    self.at += if first { LONG_HEADER } else { SHORT_HEADER };
                }
                if rest.is_empty() {
                    return true;
                }
                let part = rest.len().min(PAGE - self.at % PAGE);
                self.bytes[self.at..self.at + part].copy_from_slice(&rest[..part]);
                self.at += part;
                left -= part as u32;
                rest = &rest[part..];
            }
        }

        fn record(&mut self, content: &[u8], info: u8) -> bool {
            self.at = self.at.next_multiple_of(8);
            // A header where a page begins belongs to it before the record does.
            if !self.put(&[], 0) {
                return false;
            }
            let start = START + self.at as u64;
            let mut header = [0; RECORD_HEADER];
            header[..4].copy_from_slice(&((RECORD_HEADER + content.len()) as u32).to_le_bytes());
            header[8..16].copy_from_slice(&self.last.to_le_bytes());
            header[16] = info;
            header[17] = if info == 0x40 { 0 } else { 10 };
            let crc = crc32c::crc32c_append(crc32c::crc32c(content), &header[..20]);
            header[20..].copy_from_slice(&crc.to_le_bytes());
            let record = [&header[..], content].concat();
            self.last = start;
            let whole = self.put(&record, record.len() as u32);
            if whole {
                self.ends.push((START + self.at as u64).next_multiple_of(8));
            }
            whole
        }

        fn end(&self, length: usize) -> u64 {
            let mut tail = Tail::new(expected());
            let mut more = true;
            for page in self.bytes[..length].chunks_exact(PAGE) {
                more = tail.page(page.try_into().unwrap());
                if !more {
                    break;
                }
            }
            tail.end(more && length == self.bytes.len()).0
        }
    }

    #[test]
    fn a_segment_in_the_middle_of_its_life() {
        let mut log = Log::new(0);
        assert_eq!(log.end(SIZE as usize), START, "nothing yet");
        assert_eq!(log.end(0), START);
        for length in [0, 100, 8000, 3, 20_000, 8128] {
            assert!(log.record(&vec![0x5a; length], 0));
            assert_eq!(log.end(SIZE as usize), *log.ends.last().unwrap());
        }
        log.record(&[], 0x40);
        assert_eq!(log.end(SIZE as usize), START + u64::from(SIZE), "a switch fills the segment");
    }

    #[test]
    fn a_full_segment_ends_where_the_next_begins() {
        let mut log = Log::new(5000);
        while log.record(&[7; 3000], 0) {}
        assert_eq!(log.end(SIZE as usize), START + u64::from(SIZE));
        // Cut off, only its whole records count.
        let cut = SIZE as usize / 2;
        let last = *log.ends.iter().rfind(|end| **end <= START + cut as u64).unwrap();
        assert_eq!(log.end(cut), last);
    }

    #[test]
    fn a_record_may_be_longer_than_a_segment() {
        let mut log = Log::new(0);
        assert!(!log.record(&vec![1; 3 << 20], 0));
        assert_eq!(log.end(SIZE as usize), START + u64::from(SIZE));
        let mut log = Log { bytes: vec![0; SIZE as usize], at: 0, last: 0, ends: Vec::new() };
        assert!(!log.put(&vec![1; 2 << 20], 2 << 20));
        assert_eq!(log.end(SIZE as usize), START + u64::from(SIZE));
    }

    #[test]
    fn damage_is_no_log() {
        let mut log = Log::new(100);
        for length in [10, 9000, 500, 20_000, 40] {
            log.record(&vec![0x33; length], 0);
        }
        let whole = log.end(SIZE as usize);
        for at in 200..(whole - START) as usize {
            // What fills the gap behind a page's header or between records is not looked at.
            let before = log.ends.iter().rfind(|end| **end <= START + at as u64).copied();
            log.bytes[at] ^= 0x10;
            let end = log.end(SIZE as usize);
            log.bytes[at] ^= 0x10;
            let padding = (1..8).any(|pad| log.ends.contains(&(START + at as u64 + pad)));
            if !padding && !(20..24).contains(&(at % PAGE)) {
                assert!(end <= before.unwrap_or(START + 144).max(START), "byte {at}: {end:x} {before:x?}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_pages_have_an_end(pages in prop::collection::vec(prop::collection::vec(any::<u8>(), PAGE), 0..3)) {
            let mut tail = Tail::new(expected());
            for page in &pages {
                tail.page(page[..].try_into().unwrap());
            }
            prop_assert_eq!(tail.end(true), Lsn(START));
        }

        #[test]
        fn the_end_is_the_end_of_the_last_record(owed in 0_u32..20_000, lengths in prop::collection::vec(0_usize..12_000, 0..40)) {
            let mut log = Log::new(owed);
            for length in lengths {
                log.record(&vec![0x5a; length], 0);
            }
            let begun = if owed > 0 { Some(log.ends.first().copied().unwrap_or(log.end(SIZE as usize))) } else { None };
            let end = log.ends.last().copied().or(begun).unwrap_or(START);
            prop_assert_eq!(log.end(SIZE as usize), end);
        }
    }
}
