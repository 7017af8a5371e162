//! Writing the log that a restored server replays into its `pg_wal`.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use backup_core::engine::Work;
use backup_core::observe::{Phase, Unit};
use backup_core::{Error, Result};
use futures::stream::TryStreamExt;

use super::restore::{at, blocking, sync_dir, write};
use super::supply::{Segment, Supply};
use crate::wal::TimelineHistory;

/// Writes the histories of all known timelines into the data directory. Blocking.
pub(super) fn histories(supply: &Supply, dir: &Path, mode: u32) -> Result<()> {
    for (timeline, content) in supply.histories() {
        write(&dir.join("pg_wal"), &TimelineHistory::file_name(timeline), &content, mode)?;
    }
    Ok(())
}

/// Writes the segments from the backup's end to the stop, durably.
pub(super) async fn segments(supply: &Supply, dir: &Path, mode: u32, work: &Work) -> Result<u64> {
    let segments = supply.segments()?;
    let size = supply.segment_size().bytes();
    work.started(Phase::Write, Some(segments.len() as u64 * size), Unit::Bytes);
    for segment in &segments {
        work.checkpoint()?;
        self::segment(supply, segment, dir, mode).await?;
        work.advanced(Phase::Write, size);
    }
    let folder = dir.join("pg_wal");
    blocking(move || sync_dir(&folder)).await?;
    work.ended(Phase::Write);
    Ok(segments.len() as u64 * size)
}

async fn segment(supply: &Supply, segment: &Segment, dir: &Path, mode: u32) -> Result<()> {
    // Staged, so that a segment that bears its name is whole. The one that the backup brought is replaced.
    let folder = dir.join("pg_wal");
    let path = folder.join(segment.name.to_string());
    let staged = folder.join(format!("{}.restore", segment.name));
    let (open, size) = (staged.clone(), supply.segment_size().bytes());
    let file = blocking(move || {
        match fs::remove_file(&open) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::io(open.display(), e)),
            _ => {}
        }
        let file = at(&open, OpenOptions::new().write(true).create_new(true).mode(mode).open(&open))?;
        at(&open, file.set_len(size))?;
        Ok(std::sync::Arc::new(file))
    })
    .await?;
    let mut offset = 0;
    let mut bytes = supply.read(segment.start, segment.end);
    while let Some(piece) = bytes.try_next().await? {
        let (file, path, len) = (std::sync::Arc::clone(&file), staged.clone(), piece.len() as u64);
        blocking(move || at(&path, file.write_all_at(&piece, offset))).await?;
        offset += len;
    }
    if offset != segment.end.0 - segment.start.0 {
        return Err(Error::damaged(format!("wal segment {} is stored only in part", segment.name)));
    }
    blocking(move || {
        at(&staged, file.sync_all())?;
        at(&path, fs::rename(&staged, &path))
    })
    .await
}
