//! Fetching the log that a backup needs, by physical replication.

use std::ops::Range;
use std::pin::pin;
use std::time::Duration;

use backup_core::Result;
use backup_core::engine::{BackupContext, BackupSinkExt};
use backup_core::entry::{EntryMeta, EntryPath};
use bytes::{Buf, Bytes, BytesMut};

use super::local;
use super::probe::Server;
use super::waldir::Seen;
use crate::error::Error;
use crate::lsn::{Lsn, TimelineId};
use crate::wal::{LongPageHeader, SegmentName, TimelineHistory};
use crate::wire::Session;

/// SQLSTATE of a segment or history file that the server does not have any more.
const UNDEFINED_FILE: &str = "58P01";
/// Well below the default of `wal_sender_timeout`, a minute.
const ALIVE_EVERY: Duration = Duration::from_secs(10);
/// How long the server may take to show log that it has.
const PATIENCE: Duration = Duration::from_secs(30);

/// Has the server keep its log from here on, until the session ends. False when it has no slot free.
pub(super) async fn keep(session: &mut Session, slot: &str) -> Result<bool> {
    let create = format!("CREATE_REPLICATION_SLOT \"{slot}\" TEMPORARY PHYSICAL RESERVE_WAL");
    match session.query(&create).await {
        Ok(_) => Ok(true),
        Err(error) if error.sqlstate().is_some() => {
            tracing::warn!(%error, "no temporary replication slot: the log may be removed while the backup runs");
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// Stores the segments from the one that holds `start` to the one that ends at or holds `stop`, and the timeline's history.
pub(super) async fn store(
    cx: &BackupContext,
    mut session: Session,
    slot: Option<&str>,
    server: &Server,
    timeline: TimelineId,
    start: Lsn,
    stop: Lsn,
) -> Result<()> {
    // A walsender of version 13 on a standby knows its timeline only after it was asked.
    let identity = session.identify_system().await?;
    if identity.system_id != server.system_id {
        let text = format!("another cluster answers, with system identifier {}", identity.system_id);
        return Err(backup_core::Error::conflict(text));
    }
    let mut slot = slot;
    if timeline.get() > 1 {
        match session.timeline_history(timeline).await {
            Ok((_, content)) => {
                let path = format!("pg_wal/{}", TimelineHistory::file_name(timeline));
                local::put(cx.sink(), &path, content.to_vec()).await?;
            }
            // A cluster that was promoted long ago may have lost it; recovery inside one timeline does not need it.
            Err(error) if error.sqlstate() == Some(UNDEFINED_FILE) => {
                tracing::debug!(%error, "the timeline's history is not known to the server");
                // What a server refuses to a session costs it its temporary slots.
                slot = None;
            }
            Err(error) => return Err(error.into()),
        }
    }
    let size = server.wal_segment_size;
    let from = size.floor(start);
    let slot = slot.map(|name| format!("SLOT \"{name}\" ")).unwrap_or_default();
    let command = format!("START_REPLICATION {slot}PHYSICAL {from} TIMELINE {timeline}");
    let gone = |error: Error, at| match error.sqlstate() {
        Some(UNDEFINED_FILE) => local::removed(size.name(timeline, at)).with_source(error),
        _ => error.into(),
    };
    let mut stream = session.copy_both(&command).await.map_err(|e| gone(e, from))?;
    let mut at = from;
    let mut segment = BytesMut::new();
    while at < stop {
        cx.work().checkpoint()?;
        let Some(message) = stream.receive().await.map_err(|e| gone(e, at))? else {
            let text = format!("the server left timeline {timeline} at {at}, before {stop}");
            return Err(backup_core::Error::conflict(text));
        };
        let mut wal = match Sent::parse(message, at)? {
            Sent::Wal(wal) => wal,
            Sent::Alive { reply } => {
                if reply {
                    stream.send(&alive(at)).await?;
                }
                continue;
            }
        };
        while !wal.is_empty() && at < stop {
            let room = size.bytes() - size.offset(at);
            let len = usize::try_from(room).map_or(wal.len(), |room| room.min(wal.len()));
            segment.extend_from_slice(&wal.split_to(len));
            at = Lsn(at.0 + len as u64);
            if size.offset(at) == 0 {
                let name = size.name(timeline, Lsn(at.0 - 1));
                let mut storing = pin!(put(cx, server, name, segment.split().freeze()));
                // A slow store must not look like a dead client, which the server cuts off after wal_sender_timeout.
                loop {
                    match tokio::time::timeout(ALIVE_EVERY, &mut storing).await {
                        Ok(stored) => break stored?,
                        Err(_elapsed) => stream.send(&alive(at)).await?,
                    }
                }
            }
        }
    }
    if !segment.is_empty() {
        // The rest of a segment that is still being written. Zeros after the last record are what a new one has, too.
        let name = size.name(timeline, Lsn(at.0 - 1));
        segment.resize(
            usize::try_from(size.bytes()).map_err(|_| backup_core::Error::internal("a wal segment is too large"))?,
            0,
        );
        put(cx, server, name, segment.freeze()).await?;
    }
    // The server would go on sending; the session is dropped here, which ends that, and the slot.
    Ok(())
}

/// What the server's log of `timeline` has in `range`, as far as it can be recognised. None when it is not there any more.
///
/// # Errors
/// What the server says against it, as that it never had such log.
pub(super) async fn seen(session: &mut Session, timeline: TimelineId, range: Range<u64>) -> Result<Option<String>> {
    let gone = |error: &Error| error.sqlstate() == Some(UNDEFINED_FILE);
    let (mut at, mut seen) = (Lsn(range.start), Seen::default());
    let command = format!("START_REPLICATION PHYSICAL {at} TIMELINE {timeline}");
    let mut stream = match session.copy_both(&command).await {
        Err(error) if gone(&error) => return Ok(None),
        stream => stream?,
    };
    while at.0 < range.end {
        let message = match tokio::time::timeout(PATIENCE, stream.receive()).await {
            Ok(Err(error)) if gone(&error) => return Ok(None),
            Ok(message) => message?,
            Err(_elapsed) => {
                stream.finish().await?;
                return Err(backup_core::Error::unavailable(format!("the server shows no log at {at}")));
            }
        };
        let Some(message) = message else {
            stream.finish().await?;
            return Err(backup_core::Error::environment(format!("the server left timeline {timeline} at {at}")));
        };
        match Sent::parse(message, at)? {
            Sent::Wal(mut wal) => {
                wal.truncate(usize::try_from(range.end - at.0).unwrap_or(usize::MAX));
                seen.add(&wal);
                at = Lsn(at.0 + wal.len() as u64);
            }
            Sent::Alive { reply: true } => stream.send(&alive(at)).await?,
            Sent::Alive { reply: false } => {}
        }
    }
    stream.finish().await?;
    Ok(Some(seen.finish()))
}

/// What the server sends during replication ("Streaming Replication Protocol" in the manual).
#[derive(Debug)]
enum Sent {
    /// `w`: i64 start, i64 end of the server's log, i64 time, data.
    Wal(Bytes),
    /// `k`: i64 end, i64 time, u8 reply requested.
    Alive { reply: bool },
}

impl Sent {
    /// Takes a message apart; log must continue at `at`.
    fn parse(mut message: Bytes, at: Lsn) -> Result<Self> {
        let damaged = |text: String| backup_core::Error::damaged(text);
        if message.is_empty() {
            return Err(damaged("an empty message in a replication stream".to_owned()));
        }
        match message.get_u8() {
            b'w' if message.len() >= 24 => {
                let start = Lsn(message.get_u64());
                if start != at {
                    return Err(damaged(format!("the server sent wal from {start} where {at} was expected")));
                }
                message.advance(16);
                Ok(Self::Wal(message))
            }
            b'k' if message.len() >= 17 => Ok(Self::Alive { reply: message[16] != 0 }),
            other => Err(damaged(format!("an unknown message {:?} in a replication stream", char::from(other)))),
        }
    }
}

/// A standby status update. Flushed and applied stay 0, so that we never count as a synchronous standby and the slot stays
/// where it is until the backup is done.
fn alive(written: Lsn) -> Vec<u8> {
    let mut message = vec![b'r'];
    for number in [written.0, 0, 0, 0] {
        message.extend_from_slice(&number.to_be_bytes());
    }
    message.push(0);
    message
}

async fn put(cx: &BackupContext, server: &Server, name: SegmentName, bytes: Bytes) -> Result<()> {
    let header = LongPageHeader::parse(&bytes)?;
    header.check_name(name)?;
    if header.system_id != server.system_id {
        let text = format!("wal segment {name} belongs to the cluster with system identifier {}", header.system_id);
        return Err(backup_core::Error::damaged(text));
    }
    let meta = EntryMeta::file(EntryPath::new(format!("pg_wal/{name}"))?);
    cx.sink().put_bytes(meta, bytes).await.map(drop)
}
