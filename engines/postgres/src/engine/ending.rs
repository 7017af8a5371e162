//! Where the last record of a backup's log begins.
//!
//! A recovery that is to stop at the end of a backup needs a target that it can see. `recovery_target = 'immediate'` is looked
//! at when the *next* record is there, or when the last one ends a transaction (`recoveryStopsBefore` and
//! `recoveryStopsAfter`, `xlogrecovery.c`): where the log of a backup ends exactly at its stop, as that of an idle standby
//! does, the server waits for ever. `recovery_target_lsn` is looked at after every record, but is compared with where that
//! record *begins*, and a server tells only where it ends. So the records are walked here.

use backup_core::Result;
use backup_core::engine::BackupSource;
use backup_core::entry::EntryPath;
use futures::stream::StreamExt;

use super::facts::Facts;
use crate::lsn::Lsn;
use crate::wal::{WalFormat, WalReader};

const PAGE: u64 = WalFormat::PAGE_SIZE as u64;
/// A record is rarely larger than some pages; one that is larger than this is not looked for.
const MOST: u64 = 64 << 20;

/// Where the record begins that ends at the backup's stop. None when the log of `source` shows no such record.
pub(super) async fn last_record(source: &dyn BackupSource, facts: &Facts) -> Result<Option<Lsn>> {
    let format = WalFormat::new(facts.major, facts.wal_segment_size, facts.system_id, facts.timeline)?;
    // An end at the start of a page is the same as one behind its header.
    let header = if facts.wal_segment_size.offset(facts.stop) < PAGE { 40 } else { 24 };
    let stop = if facts.stop.0 % PAGE == header { Lsn(facts.stop.0 - header) } else { facts.stop };
    let end = stop.0.next_multiple_of(PAGE);
    let first = facts.wal_segment_size.floor(facts.start).0;
    let mut window = 4 * PAGE;
    loop {
        let base = end.saturating_sub(window).max(first);
        let Some(bytes) = read(source, facts, base, end).await? else { return Ok(None) };
        let mut reader = WalReader::new(format, Lsn(base))?;
        reader.push(bytes.into());
        match find(reader, stop) {
            Found::At(position) => return Ok(Some(position)),
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
    At(Lsn),
    /// It begins before what was looked at.
    Earlier,
    /// What is there is no log, or has no record that ends there.
    Nothing,
}

/// Looks for the record that ends at `stop` among those that `reader` has.
fn find(mut reader: WalReader, stop: Lsn) -> Found {
    let mut found = Found::Earlier;
    while reader.position() < stop {
        match reader.next() {
            Ok(Some(record)) if record.end == stop => return Found::At(record.start),
            Ok(Some(record)) if record.start < stop => found = Found::Nothing,
            Ok(Some(_) | None) => return found,
            // Whoever needs the log will say what is wrong with it.
            Err(_) => return Found::Nothing,
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsn::TimelineId;
    use crate::wal::{Rmgr, SampleLog, SampleRecord, SegmentSize};
    use proptest::prelude::*;

    const SIZE: u32 = 1 << 20;

    fn format() -> WalFormat {
        WalFormat::new(16, SegmentSize::new(SIZE).unwrap(), 7, TimelineId::FIRST).unwrap()
    }

    /// What is found in the pages of `log` behind the first `skipped` ones.
    fn find_in(log: &SampleLog, skipped: u64, stop: Lsn) -> Found {
        let base = 5 * u64::from(SIZE) + skipped * PAGE;
        let mut reader = WalReader::new(format(), Lsn(base)).unwrap();
        reader.push(log.pages().slice((skipped * PAGE) as usize..));
        find(reader, stop)
    }

    proptest! {
        #[test]
        fn the_last_record_is_found_from_any_page_before(
            lengths in prop::collection::vec(0_usize..30_000, 1..40),
            skipped in 0_u64..60,
        ) {
            let mut log = SampleLog::new(&format(), Lsn(5 * u64::from(SIZE)));
            for length in lengths {
                log.append(&SampleRecord::new(Rmgr::HEAP, 0).main(vec![0xee; length]));
            }
            let skipped = skipped.min(log.pages().len() as u64 / PAGE - 1);
            let (last, end) = *log.records().last().unwrap();
            let expected =
                if last.0 >= 5 * u64::from(SIZE) + skipped * PAGE { Found::At(last) } else { Found::Earlier };
            prop_assert_eq!(find_in(&log, skipped, end), expected);
            // No record ends in the middle of one.
            prop_assert!(!matches!(find_in(&log, skipped, Lsn(end.0 - 8)), Found::At(at) if at == last));
        }
    }

    #[test]
    fn a_backup_that_ends_with_a_segment_ends_with_its_switch() {
        let mut log = SampleLog::new(&format(), Lsn(5 * u64::from(SIZE)));
        log.append(&SampleRecord::new(Rmgr::HEAP, 0));
        let switch = log.switch();
        assert_eq!(find_in(&log, 0, Lsn(6 * u64::from(SIZE))), Found::At(switch));
        assert_eq!(find_in(&log, 0, Lsn(6 * u64::from(SIZE) - 8)), Found::Nothing);
        // From the zeros behind the switch on there is none.
        assert_eq!(find_in(&log, 3, Lsn(6 * u64::from(SIZE))), Found::Earlier);
    }

    #[test]
    fn a_damaged_log_has_no_last_record() {
        let mut log = SampleLog::new(&format(), Lsn(5 * u64::from(SIZE)));
        log.append(&SampleRecord::new(Rmgr::HEAP, 0).main([1; 100]));
        let mut bytes = log.pages().to_vec();
        bytes[100] ^= 1;
        let mut reader = WalReader::new(format(), Lsn(5 * u64::from(SIZE))).unwrap();
        reader.push(bytes.into());
        assert_eq!(find(reader, log.end()), Found::Nothing);
    }
}
