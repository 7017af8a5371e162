//! Writing the log that a restored server replays into its `pg_wal`.

use std::path::Path;

use backup_core::Result;
use backup_core::engine::Work;

use super::supply::Supply;
use crate::archive::SegmentFolder;
use crate::disk::write;
use crate::wal::TimelineHistory;

/// Writes the histories of all known timelines into the data directory. Blocking.
pub(super) fn histories(supply: &Supply, dir: &Path, mode: u32) -> Result<()> {
    for (timeline, content) in supply.histories() {
        write(&dir.join("pg_wal"), &TimelineHistory::file_name(timeline), &content, mode)?;
    }
    Ok(())
}

/// Writes the segments from the backup's end to the stop, durably. The one that the backup brought is replaced. Returns their bytes.
pub(super) async fn segments(supply: &Supply, dir: &Path, mode: u32, work: &Work) -> Result<u64> {
    let segments = supply.segments()?;
    let (Some(first), Some(last)) = (segments.first(), segments.last()) else { return Ok(0) };
    let bytes = supply.read(first.start, last.end);
    SegmentFolder { dir: dir.join("pg_wal"), size: supply.segment_size(), mode }.write(segments, bytes, work).await
}
