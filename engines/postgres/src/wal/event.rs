//! What a record means to those who keep the log and look for moments in it: ends of transactions, named points,
//! checkpoints, timelines.
//!
//! Source: `src/include/access/xact.h`, `src/include/catalog/pg_control.h`, `xlog_internal.h`. Times are microseconds since
//! 2000-01-01 (`TimestampTz`), but the one of a checkpoint is in seconds since 1970 (`pg_time_t`).

use jiff::{SignedDuration, Timestamp};

use super::record::{Cursor, Record, RelationId, Rmgr};
use crate::error::{Error, Result};
use crate::lsn::{Lsn, TimelineId};

/// Seconds from 1970-01-01 to 2000-01-01 (`POSTGRES_EPOCH_JDATE`).
const EPOCH: i64 = 946_684_800;

pub(super) const SWITCH: u8 = 0x40;
const CHECKPOINT_SHUTDOWN: u8 = 0x00;
const CHECKPOINT_ONLINE: u8 = 0x10;
const NEXT_OID: u8 = 0x30;
const BACKUP_END: u8 = 0x50;
const PARAMETER_CHANGE: u8 = 0x60;
const RESTORE_POINT: u8 = 0x70;
const FULL_PAGE_WRITES: u8 = 0x80;
const END_OF_RECOVERY: u8 = 0x90;
const OVERWRITE_CONTRECORD: u8 = 0xd0;
const CHECKPOINT_REDO: u8 = 0xe0;

/// How much a server logs (`WalLevel` in `src/include/access/xlog.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum WalLevel {
    /// Not enough for anything but a restart: changes of relations are missing from the log.
    Minimal,
    /// Enough for backups and standbys.
    Replica,
    /// With what logical replication needs.
    Logical,
}

impl WalLevel {
    fn parse(value: u32) -> Result<Self, String> {
        match value {
            0 => Ok(Self::Minimal),
            1 => Ok(Self::Replica),
            2 => Ok(Self::Logical),
            _ => Err(format!("has wal_level {value}")),
        }
    }
}

/// What a record means.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A transaction is committed.
    Commit(TransactionEnd),
    /// A prepared transaction is committed.
    CommitPrepared(TransactionEnd),
    /// A transaction is rolled back. Not every one that is leaves a record.
    Abort(TransactionEnd),
    /// A prepared transaction is rolled back.
    AbortPrepared(TransactionEnd),
    /// `pg_create_restore_point`. Recovery stops behind it.
    RestorePoint {
        /// Its name; bytes that are not UTF-8 are replaced.
        name: String,
        /// When.
        time: Timestamp,
    },
    /// A checkpoint.
    Checkpoint(Checkpoint),
    /// Where an online checkpoint's replay will begin (since 17).
    CheckpointRedo {
        /// How much is logged from here on.
        wal_level: WalLevel,
    },
    /// A server has become a primary on a timeline of its own without a checkpoint.
    EndOfRecovery {
        /// The timeline that begins here.
        timeline: TimelineId,
        /// The one that it came from.
        previous: TimelineId,
        /// When.
        time: Timestamp,
        /// How much is logged from here on (since 17).
        wal_level: Option<WalLevel>,
    },
    /// The rest of the segment is unused.
    Switch,
    /// A server was started with other settings than before.
    ParameterChange {
        /// How much is logged from here on.
        wal_level: WalLevel,
        /// Whether pages are logged when only hints on them change.
        wal_log_hints: bool,
    },
    /// `full_page_writes` was changed.
    FullPageWrites(bool),
    /// No object identifier at or above this one has been given out yet.
    NextOid(u32),
    /// A backup has ended.
    BackupEnd {
        /// Where it began.
        start: Lsn,
    },
    /// A record before was given up in its middle.
    OverwriteContrecord {
        /// Where that one begins.
        start: Lsn,
        /// When this was noticed.
        time: Timestamp,
    },
}

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransactionEnd {
    /// The top-level transaction, the one that `recovery_target_xid` means. Of a prepared one, the one that was prepared.
    pub xid: u32,
    /// When, by the clock of the server: not monotone.
    pub time: Timestamp,
    /// How many subtransactions ended with it.
    pub subtransactions: u32,
}

/// A checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Checkpoint {
    /// Whether it was the last thing that a server did before it stopped, or ended a recovery.
    pub shutdown: bool,
    /// Where replay from it begins.
    pub redo: Lsn,
    /// The timeline of what follows.
    pub timeline: TimelineId,
    /// The timeline before, if it begins one; otherwise the same.
    pub previous: TimelineId,
    /// When it began.
    pub time: Timestamp,
    /// How much was being logged (since 17).
    pub wal_level: Option<WalLevel>,
}

impl Record {
    /// What the record means. None for everything that only changes data.
    ///
    /// Does not look at blocks.
    ///
    /// # Errors
    /// [`Error::Malformed`] when it is shorter than it must be or has impossible values.
    #[inline]
    pub fn event(&self) -> Result<Option<Event>> {
        match self.rmgr {
            Rmgr::XLOG | Rmgr::TRANSACTION => self.parsed(),
            _ => Ok(None),
        }
    }

    fn parsed(&self) -> Result<Option<Event>> {
        let wrong = |reason: String| {
            let (start, rmgr, opcode) = (self.start, self.rmgr, self.opcode());
            Error::malformed("wal record", format!("{start}: {rmgr} {opcode:#04x} {reason}"))
        };
        if self.rmgr == Rmgr::XLOG {
            xlog(self.opcode(), self.major, || self.main_data().map_err(|error| error.to_string())).map_err(wrong)
        } else {
            let Some(kind) = TransactionKind::of(self.opcode()) else { return Ok(None) };
            let end = TransactionRecord::parse(kind, self.info, self.major, self.main_data()?).map_err(wrong)?;
            let xid = end.prepared.unwrap_or(self.xid);
            let end = TransactionEnd { xid, time: end.time, subtransactions: end.subtransactions };
            Ok(Some(match kind {
                TransactionKind::Commit => Event::Commit(end),
                TransactionKind::CommitPrepared => Event::CommitPrepared(end),
                TransactionKind::Abort => Event::Abort(end),
                TransactionKind::AbortPrepared => Event::AbortPrepared(end),
            }))
        }
    }
}

/// The relations whose files are removed because of `record`: those that the transaction dropped, or made and rolled back.
///
/// None when it is of the transaction manager but of a kind that is unknown.
pub(crate) fn dropped(record: &Record) -> Result<Option<Vec<RelationId>>, String> {
    // Of the other kinds, `PREPARE` says what will be dropped later; assignments and invalidations touch no file.
    const HARMLESS: [u8; 3] = [0x10, 0x50, 0x60];
    let opcode = record.opcode() & 0x70;
    let Some(kind) = TransactionKind::of(opcode) else { return Ok(HARMLESS.contains(&opcode).then(Vec::new)) };
    let main = record.main_data().map_err(|error| error.to_string())?;
    let end = TransactionRecord::parse(kind, record.info, record.major, main)?;
    let (relations, _) = end.dropped.as_chunks();
    Ok(Some(relations.iter().map(|bytes| RelationId::parse(*bytes)).collect()))
}

/// Which record was given up, if that is what `record` says.
pub(super) fn overwritten(record: &Record) -> Result<Option<Lsn>> {
    Ok(match (record.rmgr, record.opcode()) {
        (Rmgr::XLOG, OVERWRITE_CONTRECORD) => match record.event()? {
            Some(Event::OverwriteContrecord { start, .. }) => Some(start),
            _ => None,
        },
        _ => None,
    })
}

fn xlog<'a>(opcode: u8, major: u32, main: impl FnOnce() -> Result<&'a [u8], String>) -> Result<Option<Event>, String> {
    Ok(Some(match opcode {
        CHECKPOINT_SHUTDOWN | CHECKPOINT_ONLINE => {
            let mut data = Cursor(main()?);
            let redo = Lsn(data.u64()?);
            let (timeline, previous) = (timeline(&mut data)?, timeline(&mut data)?);
            // full_page_writes with its padding, and up to 16 only more padding.
            let (_, level) = (data.u32()?, data.u32()?);
            // Next and oldest transactions and multixacts, and padding.
            data.slice(40)?;
            let time = Timestamp::from_second(data.u64()?.cast_signed()).map_err(|error| error.to_string())?;
            let wal_level = if major >= 17 { Some(WalLevel::parse(level)?) } else { None };
            let shutdown = opcode == CHECKPOINT_SHUTDOWN;
            Event::Checkpoint(Checkpoint { shutdown, redo, timeline, previous, time, wal_level })
        }
        CHECKPOINT_REDO if major >= 17 => Event::CheckpointRedo { wal_level: WalLevel::parse(Cursor(main()?).u32()?)? },
        NEXT_OID => Event::NextOid(Cursor(main()?).u32()?),
        SWITCH => Event::Switch,
        BACKUP_END => Event::BackupEnd { start: Lsn(Cursor(main()?).u64()?) },
        PARAMETER_CHANGE => {
            let mut data = Cursor(main()?);
            // Connections, workers, senders, prepared transactions, locks.
            data.slice(20)?;
            let (level, hints) = (data.u32()?, data.u8()?);
            Event::ParameterChange { wal_level: WalLevel::parse(level)?, wal_log_hints: hints != 0 }
        }
        RESTORE_POINT => {
            let mut data = Cursor(main()?);
            let time = time(&mut data)?;
            let name = data.0.split(|byte| *byte == 0).next().unwrap_or_default();
            Event::RestorePoint { name: String::from_utf8_lossy(name).into_owned(), time }
        }
        FULL_PAGE_WRITES => Event::FullPageWrites(Cursor(main()?).u8()? != 0),
        END_OF_RECOVERY => {
            let mut data = Cursor(main()?);
            let time = time(&mut data)?;
            let (timeline, previous) = (timeline(&mut data)?, timeline(&mut data)?);
            let wal_level = if major >= 17 { Some(WalLevel::parse(data.u32()?)?) } else { None };
            Event::EndOfRecovery { timeline, previous, time, wal_level }
        }
        OVERWRITE_CONTRECORD => {
            let mut data = Cursor(main()?);
            Event::OverwriteContrecord { start: Lsn(data.u64()?), time: time(&mut data)? }
        }
        _ => return Ok(None),
    }))
}

fn timeline(data: &mut Cursor<'_>) -> Result<TimelineId, String> {
    TimelineId::new(data.u32()?).ok_or_else(|| "is of timeline 0".to_owned())
}

fn time(data: &mut Cursor<'_>) -> Result<Timestamp, String> {
    let micros = data.u64()?.cast_signed();
    Timestamp::from_second(EPOCH)
        .and_then(|epoch| epoch.checked_add(SignedDuration::from_micros(micros)))
        .map_err(|error| error.to_string())
}

/// Which kind of end a record of the transaction manager tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TransactionKind {
    Commit,
    Abort,
    CommitPrepared,
    AbortPrepared,
}

impl TransactionKind {
    /// By the record's opcode, of which one bit is a flag.
    fn of(opcode: u8) -> Option<Self> {
        match opcode & 0x70 {
            0x00 => Some(Self::Commit),
            0x20 => Some(Self::Abort),
            0x30 => Some(Self::CommitPrepared),
            0x40 => Some(Self::AbortPrepared),
            _ => None,
        }
    }
}

/// The main data of a record that ends a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
struct TransactionRecord<'a> {
    time: Timestamp,
    subtransactions: u32,
    /// The relations whose files are removed, twelve bytes each.
    dropped: &'a [u8],
    /// The transaction that was prepared.
    prepared: Option<u32>,
}

impl<'a> TransactionRecord<'a> {
    fn parse(kind: TransactionKind, info: u8, major: u32, main: &'a [u8]) -> Result<Self, String> {
        const HAS_INFO: u8 = 0x80;
        const DATABASE: u32 = 1 << 0;
        const SUBTRANSACTIONS: u32 = 1 << 1;
        const RELATIONS: u32 = 1 << 2;
        const INVALIDATIONS: u32 = 1 << 3;
        const PREPARED: u32 = 1 << 4;
        const STATISTICS: u32 = 1 << 8;
        let mut data = Cursor(main);
        let mut end = Self { time: time(&mut data)?, subtransactions: 0, dropped: &[], prepared: None };
        let parts = if info & HAS_INFO != 0 { data.u32()? } else { 0 };
        if parts & DATABASE != 0 {
            data.slice(8)?;
        }
        if parts & SUBTRANSACTIONS != 0 {
            end.subtransactions = (list(&mut data, 4)?.len() / 4) as u32;
        }
        if parts & RELATIONS != 0 {
            end.dropped = list(&mut data, RelationId::LENGTH)?;
        }
        if parts & STATISTICS != 0 {
            // Since 18 the identifiers of objects have 64 bits.
            list(&mut data, if major >= 18 { 16 } else { 12 })?;
        }
        if parts & INVALIDATIONS != 0 {
            list(&mut data, 16)?;
        }
        if parts & PREPARED != 0 {
            end.prepared = Some(data.u32()?);
        }
        let of_prepared = matches!(kind, TransactionKind::CommitPrepared | TransactionKind::AbortPrepared);
        if of_prepared != end.prepared.is_some() {
            return Err("contradicts itself about a prepared transaction".to_owned());
        }
        Ok(end)
    }
}

/// The items, of `size` bytes each, of a list that begins with their number.
fn list<'a>(data: &mut Cursor<'a>, size: usize) -> Result<&'a [u8], String> {
    let count = data.u32()? as usize;
    data.slice(count.checked_mul(size).ok_or_else(|| format!("has a list of {count} items"))?)
}
