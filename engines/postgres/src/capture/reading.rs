//! Reading the log as it passes: what is noticed in it becomes marks.

use backup_core::log::Mark;
use bytes::Bytes;

use crate::changes::ChangeMap;
use crate::error::Result;
use crate::lsn::Lsn;
use crate::wal::{Event, WalFormat, WalReader};

/// A note is made of so much log: one for every commit would be as long as the commit. Less than what is read again after a new
/// start, so that what nobody noted before is in the first note then.
const NOTE_EVERY: u64 = 32 << 10;

/// Follows the log record by record.
#[derive(Debug)]
pub(super) struct Reading {
    reader: WalReader,
    /// What the records since the last note change.
    changes: Option<ChangeMap>,
}

impl Reading {
    /// Reads from `start`: the start of a page or of a record.
    pub(super) fn new(format: WalFormat, start: Lsn) -> Result<Self> {
        Ok(Self { reader: WalReader::new(format, start)?.skimming(), changes: None })
    }

    /// Reads on. What is noticed in records that end behind `from` is added to `marks`, and now and then which blocks all of them
    /// changed.
    ///
    /// # Errors
    /// Malformed, when this is no log.
    pub(super) fn push(&mut self, bytes: Bytes, from: Lsn, marks: &mut Vec<Mark>) -> Result<()> {
        self.reader.push(bytes);
        let mut fresh = false;
        while let Some(record) = self.reader.next()? {
            self.changes.get_or_insert_with(|| ChangeMap::new(record.start)).add(&record);
            if record.end <= from {
                continue;
            }
            fresh = true;
            let offset = record.end.0;
            match record.event()? {
                Some(Event::Commit(end) | Event::CommitPrepared(end)) => {
                    marks.push(Mark::Commit { offset, at: end.time });
                }
                Some(Event::RestorePoint { name, time }) => marks.push(Mark::Name { offset, name, at: time }),
                _ => {}
            }
        }
        let due = |changes: &ChangeMap| changes.end().0 - changes.start().0 >= NOTE_EVERY;
        if fresh && self.changes.as_ref().is_some_and(due) {
            self.note(marks)?;
        }
        Ok(())
    }

    /// Makes a note of what was read since the last one. For a reader that stands behind a record that it has just read.
    ///
    /// # Errors
    /// None in practice.
    pub(super) fn note(&mut self, marks: &mut Vec<Mark>) -> Result<()> {
        let Some(changes) = &mut self.changes else { return Ok(()) };
        if changes.end() > changes.start() {
            // A switch ends with its segment, of which the rest has not come yet.
            let offset = changes.end().min(self.reader.received()).0;
            marks.push(Mark::Note { offset, bytes: changes.to_bytes()?.into() });
            *changes = ChangeMap::new(changes.end());
        }
        Ok(())
    }

    /// Where the log ends, if it does in what was read.
    pub(super) fn ended(&self) -> Option<Lsn> {
        self.reader.end().map(|end| end.at)
    }

    /// The end of the last whole record.
    pub(super) fn position(&self) -> Lsn {
        self.reader.position()
    }
}
