//! Reading the log as it passes: what is noticed in it becomes marks.

use backup_core::log::Mark;
use bytes::Bytes;

use crate::changes::ChangeMap;
use crate::error::Result;
use crate::lsn::Lsn;
use crate::wal::{Event, WalFormat, WalReader};

/// Follows the log record by record.
#[derive(Debug)]
pub(super) struct Reading {
    reader: WalReader,
    /// The end of the last record whose changes were noted.
    noted: Option<Lsn>,
}

impl Reading {
    /// Reads from `start`: the start of a page or of a record.
    pub(super) fn new(format: WalFormat, start: Lsn) -> Result<Self> {
        Ok(Self { reader: WalReader::new(format, start)?, noted: None })
    }

    /// Reads on. What is noticed in records that end behind `from` is added to `marks`, and which blocks they change.
    ///
    /// # Errors
    /// Malformed, when this is no log.
    pub(super) fn push(&mut self, bytes: Bytes, from: Lsn, marks: &mut Vec<Mark>) -> Result<()> {
        self.reader.push(bytes);
        let mut changes: Option<ChangeMap> = None;
        while let Some(record) = self.reader.next()? {
            if record.end <= from {
                continue;
            }
            let offset = record.end.0;
            changes.get_or_insert_with(|| ChangeMap::new(self.noted.unwrap_or(record.start))).add(&record);
            match record.event()? {
                Some(Event::Commit(end) | Event::CommitPrepared(end)) => {
                    marks.push(Mark::Commit { offset, at: end.time });
                }
                Some(Event::RestorePoint { name, time }) => marks.push(Mark::Name { offset, name, at: time }),
                _ => {}
            }
        }
        if let Some(changes) = changes {
            self.noted = Some(changes.end());
            // A switch ends with its segment, of which the rest has not come yet.
            let offset = changes.end().min(self.reader.received()).0;
            marks.push(Mark::Note { offset, bytes: changes.to_bytes()?.into() });
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
