//! Fetching the log that a backup needs, by physical replication.

use backup_core::engine::{BackupContext, BackupSinkExt};
use backup_core::entry::{EntryMeta, EntryPath};
use backup_core::{Error, Result};
use bytes::{Buf, Bytes, BytesMut};

use super::local;
use super::probe::Server;
use crate::lsn::{Lsn, TimelineId};
use crate::wal::{LongPageHeader, SegmentName, TimelineHistory};
use crate::wire::Session;

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
    if timeline.get() > 1 {
        let (_, content) = session.timeline_history(timeline).await?;
        local::put(cx.sink(), &format!("pg_wal/{}", TimelineHistory::file_name(timeline)), content.to_vec()).await?;
    }
    let size = server.wal_segment_size;
    let from = size.floor(start);
    let slot = slot.map(|name| format!("SLOT \"{name}\" ")).unwrap_or_default();
    let command = format!("START_REPLICATION {slot}PHYSICAL {from} TIMELINE {timeline}");
    let mut stream = session.copy_both(&command).await?;
    let mut at = from;
    let mut segment = BytesMut::new();
    while at < stop {
        cx.work().checkpoint()?;
        let Some(message) = stream.receive().await? else {
            return Err(Error::conflict(format!("the server left timeline {timeline} at {at}, before {stop}")));
        };
        let Some(wal) = data(message, at)? else { continue };
        let mut wal = wal;
        while !wal.is_empty() && at < stop {
            let room = size.bytes() - size.offset(at);
            let len = usize::try_from(room).map_or(wal.len(), |room| room.min(wal.len()));
            segment.extend_from_slice(&wal.split_to(len));
            at = Lsn(at.0 + len as u64);
            if size.offset(at) == 0 {
                let name = size.name(timeline, Lsn(at.0 - 1));
                put(cx, server, name, segment.split().freeze()).await?;
            }
        }
    }
    if !segment.is_empty() {
        // The rest of a segment that is still being written. Zeros after the last record are what a new one has, too.
        let name = size.name(timeline, Lsn(at.0 - 1));
        segment.resize(usize::try_from(size.bytes()).map_err(|_| Error::internal("a wal segment is too large"))?, 0);
        put(cx, server, name, segment.freeze()).await?;
    }
    // The server would go on sending; the session is dropped here, which ends that, and the slot.
    Ok(())
}

/// The log in a message, which must continue at `at`. None for a keep-alive.
///
/// `w`: i64 start, i64 end of the server's log, i64 time, data; `k`: i64 end, i64 time, u8 reply requested ("Streaming
/// Replication Protocol" of the manual).
fn data(mut message: Bytes, at: Lsn) -> Result<Option<Bytes>> {
    if message.is_empty() {
        return Err(Error::damaged("an empty message in a replication stream"));
    }
    match message.get_u8() {
        b'w' if message.len() >= 24 => {
            let start = message.get_u64();
            if Lsn(start) != at {
                return Err(Error::damaged(format!("the server sent wal from {} where {at} was expected", Lsn(start))));
            }
            message.advance(16);
            Ok(Some(message))
        }
        b'k' => Ok(None),
        other => Err(Error::damaged(format!("an unknown message {:?} in a replication stream", char::from(other)))),
    }
}

async fn put(cx: &BackupContext, server: &Server, name: SegmentName, bytes: Bytes) -> Result<()> {
    let header = LongPageHeader::parse(&bytes)?;
    header.check_name(name)?;
    if header.system_id != server.system_id {
        let text = format!("wal segment {name} belongs to the cluster with system identifier {}", header.system_id);
        return Err(Error::damaged(text));
    }
    let meta = EntryMeta::file(EntryPath::new(format!("pg_wal/{name}"))?);
    cx.sink().put_bytes(meta, bytes).await.map(drop)
}
