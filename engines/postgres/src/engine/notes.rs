//! The notes that capture has left with the log, put together to one map.

use backup_core::engine::LogSource;
use backup_core::log::LogRange;
use backup_core::{Error, Result};
use futures::stream::TryStreamExt;

use super::probe::Server;
use super::scan;
use crate::changes::{ChangeMap, Doubt};
use crate::lsn::Lsn;
use crate::wal::{WalFormat, WalReader};

/// Follows the notes along the stored log, and reads the log itself where there is none: behind the last note of a capture that
/// ended, before a timeline was left.
#[derive(Debug)]
pub(super) struct Notes<'a> {
    log: &'a dyn LogSource,
    server: &'a Server,
    map: ChangeMap,
    /// How much log may still be read.
    room: u64,
}

impl<'a> Notes<'a> {
    /// Goes on where `map` ends.
    pub(super) fn new(log: &'a dyn LogSource, server: &'a Server, map: ChangeMap, room: u64) -> Self {
        Self { log, server, map, room }
    }

    /// Adds the changes in `range`; in the `last` one as far as there are notes.
    ///
    /// # Errors
    /// Environment, when more log would have to be read than there is room for; those of reading it.
    pub(super) async fn follow(&mut self, range: &LogRange, last: bool) -> Result<()> {
        let mut pieces = self.log.index(range.clone());
        while let Some((_, index)) = pieces.try_next().await? {
            for note in index.notes {
                let next = ChangeMap::from_bytes(&note.bytes)?;
                if next.end() <= self.map.end() || next.start().0 >= range.end {
                    continue;
                }
                if !self.map.meets(next.start()) {
                    self.read(range, next.start()).await?;
                }
                if self.map.end() == self.map.start() && next.start() < self.map.start() {
                    self.map = next;
                } else {
                    self.map.merge(&next);
                }
            }
        }
        if !last && !self.map.meets(Lsn(range.end)) {
            self.read(range, Lsn(range.end)).await?;
        }
        // What a failed primary had besides is not in the history that goes on.
        self.map.claim_until(Lsn(range.end));
        Ok(())
    }

    /// The map.
    pub(super) fn finish(self) -> ChangeMap {
        self.map
    }

    /// Adds the records up to `end` from the log itself.
    async fn read(&mut self, range: &LogRange, end: Lsn) -> Result<()> {
        let start = self.map.end();
        let Some(room) = self.room.checked_sub(end.0 - start.0) else {
            return Err(Error::environment(Doubt::Gap { from: start, to: end }.to_string()));
        };
        self.room = room;
        let Server { version, wal_segment_size, system_id, .. } = self.server;
        let format = WalFormat::new(version.major(), *wal_segment_size, *system_id, scan::timeline(&range.lineage)?)?;
        let (mut reader, mut part) = (WalReader::new(format, start)?.skimming(), ChangeMap::new(start));
        let mut bytes = self.log.read(LogRange::new(range.lineage.clone(), start.0..end.0));
        while let Some(piece) = bytes.try_next().await? {
            reader.push(piece);
            while let Some(record) = reader.next()? {
                part.add(&record);
            }
        }
        if !part.meets(end) {
            return Err(Error::environment(Doubt::Gap { from: part.end(), to: end }.to_string()));
        }
        self.map.merge(&part);
        Ok(())
    }
}
