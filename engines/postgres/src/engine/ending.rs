//! Where the last record of a backup's log begins.
//!
//! A recovery that is to stop at the end of a backup needs a target that it can see. `recovery_target = 'immediate'` is looked
//! at when the *next* record is there, or when the last one ends a transaction (`recoveryStopsBefore` and
//! `recoveryStopsAfter`, `xlogrecovery.c`): where the log of a backup ends exactly at its stop, as that of an idle standby
//! does, the server waits for ever. `recovery_target_lsn` is looked at after every record, but is compared with where that
//! record *begins*, and a server tells only where it ends. So the records are walked here.
//!
//! Source: `xlog_internal.h` and `xlogrecord.h`. A page has a header of 24 bytes, the first of a segment one of 40. A record
//! begins with its length (u32), is aligned to 8 bytes, and goes on behind the header of the next page, which then says how
//! much is left of it. The record that switches to the next segment (RM_XLOG_ID, XLOG_SWITCH) ends with the segment.

use backup_core::Result;
use backup_core::engine::BackupSource;
use backup_core::entry::EntryPath;
use futures::stream::StreamExt;

use super::facts::Facts;
use crate::lsn::Lsn;
use crate::wal::SegmentSize;

const PAGE: u64 = 8192;
/// A record is rarely larger than some pages; one that is larger than this is not looked for.
const MOST: u64 = 64 << 20;

/// Where the record begins that ends at the backup's stop. None when the log of `source` shows no such record.
pub(super) async fn last_record(source: &dyn BackupSource, facts: &Facts) -> Result<Option<Lsn>> {
    let end = facts.stop.0.div_ceil(PAGE) * PAGE;
    let first = facts.wal_segment_size.floor(facts.start).0;
    let mut window = 4 * PAGE;
    loop {
        let base = end.saturating_sub(window).max(first);
        let Some(bytes) = read(source, facts, base, end).await? else { return Ok(None) };
        match (Log { bytes: &bytes, base, size: facts.wal_segment_size }).find(facts.stop.0) {
            Found::At(position) => return Ok(Some(Lsn(position))),
            Found::Nothing => return Ok(None),
            Found::Earlier if base == first || window >= MOST => return Ok(None),
            Found::Earlier => window *= 8,
        }
    }
}

/// The log from `base` to `end`, if all of it is stored.
async fn read(source: &dyn BackupSource, facts: &Facts, base: u64, end: u64) -> Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let mut at = base;
    while at < end {
        let segment = facts.wal_segment_size.name(facts.timeline, Lsn(at));
        let path = EntryPath::new(format!("pg_wal/{segment}"))?;
        let from = facts.wal_segment_size.offset(Lsn(at));
        let to = facts.wal_segment_size.bytes().min(from + (end - at));
        if source.entry(&path).await?.is_none_or(|entry| entry.len < to) {
            return Ok(None);
        }
        let mut pieces = source.read(&path, from..to);
        while let Some(piece) = pieces.next().await {
            bytes.extend_from_slice(&piece?);
        }
        at += to - from;
    }
    Ok(Some(bytes))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    At(u64),
    /// It begins before what was looked at.
    Earlier,
    /// What is there is no log, or has no record that ends there.
    Nothing,
}

/// Some whole pages of log.
#[derive(Debug, Clone, Copy)]
struct Log<'a> {
    bytes: &'a [u8],
    base: u64,
    size: SegmentSize,
}

impl Log<'_> {
    fn slice<const N: usize>(&self, at: u64) -> Option<[u8; N]> {
        let from = usize::try_from(at.checked_sub(self.base)?).ok()?;
        self.bytes.get(from..from.checked_add(N)?)?.try_into().ok()
    }

    fn header(&self, page: u64) -> u64 {
        if self.size.offset(Lsn(page)) == 0 { 40 } else { 24 }
    }

    /// A record that ends with a page is followed by one behind the next header.
    fn behind_header(&self, at: u64) -> u64 {
        if at.is_multiple_of(PAGE) { at + self.header(at) } else { at }
    }

    /// How much of the record before goes on in this page; 0 when none does. None when this is no page of the log.
    fn left_of_record(&self, page: u64) -> Option<u64> {
        const CONTINUED: u16 = 1;
        if u64::from_le_bytes(self.slice(page + 8)?) != page {
            return None;
        }
        let continued = u16::from_le_bytes(self.slice(page + 2)?) & CONTINUED != 0;
        Some(if continued { u64::from(u32::from_le_bytes(self.slice(page + 16)?)) } else { 0 })
    }

    /// Where the first record begins, at the end of what is there if none does.
    fn first(&self) -> Option<u64> {
        let mut page = self.base;
        let end = self.base + self.bytes.len() as u64;
        while page < end {
            let start = self.header(page) + self.left_of_record(page)?.next_multiple_of(8);
            if start < PAGE {
                return Some(page + start);
            }
            page += PAGE;
        }
        Some(end)
    }

    /// The position `count` bytes of record behind `at`. The bool is false when the record is not continued where it would be:
    /// the server was stopped while it wrote it, and the position is where the next one begins.
    fn advance(&self, at: u64, mut count: u64) -> Option<(u64, bool)> {
        let mut at = at;
        loop {
            let room = PAGE - at % PAGE;
            if count <= room {
                return Some((at + count, true));
            }
            count -= room;
            let page = at + room;
            if self.left_of_record(page)? != count {
                return Some((page, false));
            }
            at = page + self.header(page);
        }
    }

    /// Where the record behind the one at `at` begins, or would, at the end of a page before its header.
    fn next(&self, at: u64) -> Option<u64> {
        const HEADER: u64 = 24;
        const SWITCH: u8 = 0x40;
        let len = u64::from(u32::from_le_bytes(self.slice(at)?));
        if len < HEADER {
            return None;
        }
        let (end, whole) = self.advance(at, len)?;
        if whole && len == HEADER {
            let [info] = self.slice(self.behind_header(self.advance(at, 16)?.0))?;
            let [manager] = self.slice(self.behind_header(self.advance(at, 17)?.0))?;
            if manager == 0 && info & 0xf0 == SWITCH {
                return Some((at / self.size.bytes() + 1) * self.size.bytes());
            }
        }
        Some(end.next_multiple_of(8))
    }

    fn find(&self, stop: u64) -> Found {
        let stop = self.behind_header(stop);
        let Some(mut at) = self.first() else { return Found::Nothing };
        if at >= stop {
            return Found::Earlier;
        }
        while at < stop {
            let Some(next) = self.next(at) else { return Found::Nothing };
            let next = self.behind_header(next);
            if next == stop {
                return Found::At(at);
            }
            at = next;
        }
        Found::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIZE: u32 = 1 << 20;

    /// Writes records of the given lengths from the first byte of a segment on; where each begins, and where the last ends.
    fn log(base: u64, lengths: &[u32]) -> (Vec<u8>, Vec<u64>, u64) {
        let size = SegmentSize::new(SIZE).unwrap();
        let mut bytes: Vec<u8> = Vec::new();
        let begin_page = |bytes: &mut Vec<u8>, left: u32| {
            let page = base + bytes.len() as u64;
            let header = if size.offset(Lsn(page)) == 0 { 40 } else { 24 };
            let mut head = vec![0; header];
            head[2..4].copy_from_slice(&u16::from(left > 0).to_le_bytes());
            head[8..16].copy_from_slice(&page.to_le_bytes());
            head[16..20].copy_from_slice(&left.to_le_bytes());
            bytes.extend_from_slice(&head);
        };
        let mut starts = Vec::new();
        let mut end = base;
        for len in lengths {
            if (bytes.len() as u64).is_multiple_of(PAGE) {
                begin_page(&mut bytes, 0);
            }
            starts.push(base + bytes.len() as u64);
            let mut record = vec![0xee; *len as usize];
            record[..4].copy_from_slice(&len.to_le_bytes());
            for (index, byte) in record.iter().enumerate() {
                if index > 0 && (bytes.len() as u64).is_multiple_of(PAGE) {
                    begin_page(&mut bytes, len - index as u32);
                }
                bytes.push(*byte);
            }
            bytes.resize(bytes.len().next_multiple_of(8), 0);
            end = base + bytes.len() as u64;
        }
        bytes.resize(bytes.len().next_multiple_of(PAGE as usize), 0);
        (bytes, starts, end)
    }

    proptest! {
        #[test]
        fn the_last_record_is_found_from_any_page_before(
            lengths in prop::collection::vec(24_u32..30_000, 1..40),
            from in 0_u64..60,
        ) {
            let base = 5 * u64::from(SIZE);
            let (bytes, starts, end) = log(base, &lengths);
            let last = *starts.last().unwrap();
            let skipped = (from * PAGE).min(bytes.len() as u64 - PAGE);
            let part = Log { bytes: &bytes[skipped as usize..], base: base + skipped, size: SegmentSize::new(SIZE).unwrap() };
            let expected = if part.first() <= Some(last) { Found::At(last) } else { Found::Earlier };
            prop_assert_eq!(part.find(end), expected);
            // No record ends in the middle of one.
            if expected == Found::At(last) {
                prop_assert_ne!(part.find(end - 8), Found::At(last));
            }
        }

        #[test]
        fn any_bytes_are_looked_through(bytes in prop::collection::vec(any::<u8>(), 0..20_000), base in 0_u64..9, stop: u64) {
            let log = Log { bytes: &bytes, base: base * PAGE, size: SegmentSize::DEFAULT };
            let _ = log.find(stop % (1 << 40));
        }
    }
}
