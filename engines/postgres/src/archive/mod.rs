//! Stored log as the files that an archive command would have left: for servers that are recovered by hand, by other tools, or without
//! the restoring process.

mod files;
mod plan;

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use backup_core::engine::{LogSource, Work};
use backup_core::{Error, Finding, Result, Severity};
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};

use crate::capture::{HISTORY, timeline_of};
use crate::disk::{at, blocking, write};
use crate::lsn::Lsn;
use crate::wal::TimelineHistory;
pub(crate) use files::{Segment, SegmentFolder};

/// Permissions of exported files: what a log holds is nobody else's business.
const MODE: u32 = 0o600;

/// Which part of the stored log is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogExport {
    /// Not before the segment that holds this position.
    pub from: Option<Lsn>,
    /// Not behind the segment that holds the byte before this position.
    pub until: Option<Lsn>,
}

impl LogExport {
    /// Begins with the segment that holds `position`.
    #[must_use]
    pub fn from(mut self, position: Lsn) -> Self {
        self.from = Some(position);
        self
    }

    /// Ends with the segment that holds the byte before `position`.
    #[must_use]
    pub fn until(mut self, position: Lsn) -> Self {
        self.until = Some(position);
        self
    }
}

/// What was exported.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExportedLog {
    /// Whole segments.
    pub segments: u64,
    /// Segments whose end is not stored, as `….partial`.
    pub partial: u64,
    /// Histories of timelines.
    pub histories: u64,
    /// Bytes of log in the segments, without the zeros behind them.
    pub bytes: u64,
    /// What is not as one would expect.
    pub findings: Vec<Finding>,
}

/// Writes what is stored of the log into `dir`, as segments and histories of all its timelines: `restore_command = 'cp DIR/%f %p'` reads
/// them. Each file bears its name once it is whole and durable. As servers do, a segment in which a timeline was left, or in which the
/// stored log ends, is named `….partial`; it has the size of a segment, with zeros behind its log.
///
/// A segment whose first bytes are not stored is none, and is told as the finding `log-begins-inside`; a hole shows as segments that are
/// not there.
///
/// # Cancel safety
/// Dropping the future leaves a part of the files.
///
/// # Errors
/// InvalidInput when `dir` exists and is not empty, when nothing is stored of what is wanted, or when the stored log is not one of PostgreSQL. Damaged when a stored piece cannot be read. Environment
/// from the disk.
pub async fn export_log(source: &dyn LogSource, wanted: &LogExport, dir: &Path, work: &Work) -> Result<ExportedLog> {
    let ledger = source.ledger();
    let plan = plan::plan(&ledger, wanted)?;
    if plan.runs.is_empty() {
        return Err(Error::invalid("of the log that is wanted no segment is stored"));
    }
    let folder = dir.to_owned();
    blocking(move || empty(&folder)).await?;
    let mut exported = ExportedLog::default();
    for record in ledger.lineages() {
        let history = record.fact(HISTORY).filter(|content| !content.is_empty());
        if let (Some(timeline), Some(content)) = (timeline_of(&record.lineage), history) {
            let (folder, content) = (dir.to_owned(), content.as_bytes().to_vec());
            let name = TimelineHistory::file_name(timeline);
            blocking(move || write(&folder, &name, &content, MODE)).await?;
            exported.histories += 1;
        }
    }
    if plan.headless > 0 {
        let text = format!("{} segments are not exported, because what they begin with is not stored", plan.headless);
        exported.findings.push(Finding::new(Severity::Note, "log-begins-inside", text));
    }
    for run in plan.runs {
        let folder = SegmentFolder { dir: dir.to_owned(), size: run.size, mode: MODE };
        let partial = run.segments.iter().filter(|segment| segment.partial).count() as u64;
        exported.segments += run.segments.len() as u64 - partial;
        exported.partial += partial;
        exported.bytes += run.ranges.iter().map(backup_core::log::LogRange::len).sum::<u64>();
        let parts: Vec<BoxStream<'_, Result<Bytes>>> = run.ranges.into_iter().map(|range| source.read(range)).collect();
        folder.write(run.segments, stream::iter(parts).flatten(), work).await?;
    }
    Ok(exported)
}

/// Makes the folder, or sees that there is nothing in it. Blocking.
fn empty(dir: &Path) -> Result<()> {
    at(dir, fs::DirBuilder::new().recursive(true).mode(0o700).create(dir))?;
    match at(dir, fs::read_dir(dir))?.next() {
        None => Ok(()),
        Some(_) => Err(Error::invalid(format!("{} is not empty", dir.display()))),
    }
}
