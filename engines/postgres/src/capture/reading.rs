//! Reading the log as it passes: what is noticed in it becomes marks.

use backup_core::log::Mark;
use bytes::Bytes;

use crate::error::Result;
use crate::lsn::Lsn;
use crate::wal::{Event, WalFormat, WalReader};

/// Follows the log record by record.
#[derive(Debug)]
pub(super) struct Reading {
    reader: WalReader,
}

impl Reading {
    /// Reads from `start`: the start of a page or of a record.
    pub(super) fn new(format: WalFormat, start: Lsn) -> Result<Self> {
        Ok(Self { reader: WalReader::new(format, start)? })
    }

    /// Reads on. What is noticed in records that end behind `from` is added to `marks`.
    ///
    /// # Errors
    /// Malformed, when this is no log.
    pub(super) fn push(&mut self, bytes: Bytes, from: Lsn, marks: &mut Vec<Mark>) -> Result<()> {
        self.reader.push(bytes);
        while let Some(record) = self.reader.next()? {
            if record.end <= from {
                continue;
            }
            let offset = record.end.0;
            match record.event()? {
                Some(Event::Commit(end) | Event::CommitPrepared(end)) => {
                    marks.push(Mark::Commit { offset, at: end.time });
                }
                Some(Event::RestorePoint { name, time }) => marks.push(Mark::Name { offset, name, at: time }),
                _ => {}
            }
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
