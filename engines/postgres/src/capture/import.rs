//! Segments that an archive command has left in a folder.
//!
//! Everything that passes through `archive_command` is understood: segments, `.partial` segments, histories; `.backup` files say
//! nothing that a backup does not say itself. The same folder may be given again and again: what is stored already is compared, not
//! stored twice. A segment whose log ends early, because its server was still writing it, is taken up to its last whole record.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup_core::engine::{Imported, LogContext};
use backup_core::log::{LineageRecord, LogRange, Mark, Notation};
use backup_core::{Error, Finding, Result, Severity};
use bytes::Bytes;

use super::lineage::{HISTORY, SEGMENT_SIZE, VERSION_NUM, lineage_of};
use super::overlap::Overlap;
use super::pieces::{PIECE, Pieces};
use super::reading::Reading;
use crate::lsn::{Lsn, TimelineId};
use crate::wal::{LongPageHeader, SegmentName, TimelineHistory, WalFormat};

/// Segments up to this size stay in memory between the look at them and their being stored; larger ones are read twice.
const KEPT: u64 = 64 << 20;
/// A folder with more is somebody's whole archive; its names alone would take hundreds of megabytes.
const MOST_FILES: usize = 4 << 20;

/// Stores what `dir` has.
pub(crate) async fn import(cx: &LogContext, dir: &Path) -> Result<Imported> {
    let listed = dir.to_owned();
    let folder = blocking(move || Folder::read(&listed)).await?;
    let (pieces, outcome) = (Arc::default(), Imported::default());
    let mut import = Import { cx, folder, pieces, kept: Vec::new(), outcome, reading: None, source: None };
    for file in import.folder.segments.clone() {
        cx.work().checkpoint()?;
        import.segment(&file).await?;
    }
    let unknown = std::mem::take(&mut import.folder.unknown);
    if unknown > 0 {
        let text = format!("{unknown} files are no part of a log and were passed over");
        import.outcome.findings.push(Finding::new(Severity::Note, "other-files", text));
    }
    Ok(import.outcome)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::internal("reading a segment panicked").with_source(e))?
}

/// A segment in the folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct SegmentFile {
    name: SegmentName,
    /// Whether it is the last of its timeline, cut off.
    partial: bool,
    path: PathBuf,
}

/// What the folder has.
#[derive(Debug, Default)]
struct Folder {
    segments: Vec<SegmentFile>,
    histories: BTreeMap<TimelineId, Vec<u8>>,
    unknown: u64,
}

impl Folder {
    fn read(dir: &Path) -> Result<Self> {
        let failed = |e| Error::io(dir.display(), e);
        let mut folder = Self::default();
        for entry in std::fs::read_dir(dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = entry.path();
            let name = entry.file_name();
            let name = name.to_str().unwrap_or_default();
            if !entry.file_type().map_err(failed)?.is_file() {
                continue;
            }
            if folder.segments.len() >= MOST_FILES {
                return Err(Error::invalid(format!("{} has more than {MOST_FILES} segments", dir.display())));
            }
            if let Some(timeline) = name.strip_suffix(".history").filter(|t| t.len() == 8) {
                let number = u32::from_str_radix(timeline, 16).ok().and_then(TimelineId::new);
                let number = number.ok_or_else(|| Error::invalid(format!("{name} is no history of a timeline")))?;
                let content = std::fs::read(&path).map_err(|e| Error::io(path.display(), e))?;
                TimelineHistory::parse(number, &content)?;
                folder.histories.insert(number, content);
            } else if let Ok(segment) = name.parse() {
                folder.segments.push(SegmentFile { name: segment, partial: false, path });
            } else if let Some(Ok(segment)) = name.strip_suffix(".partial").map(str::parse) {
                folder.segments.push(SegmentFile { name: segment, partial: true, path });
            } else if !name.ends_with(".backup") {
                folder.unknown += 1;
            }
        }
        folder.segments.sort_unstable();
        Ok(folder)
    }
}

/// Where reading has come, so that a record that crosses from one segment into the next is seen.
struct Position {
    timeline: TimelineId,
    next: Lsn,
    reading: Reading,
}

struct Import<'a> {
    cx: &'a LogContext,
    folder: Folder,
    pieces: Arc<Pieces>,
    /// The pieces of the segment that was looked at last, in order, if it is small enough.
    kept: Vec<Bytes>,
    outcome: Imported,
    reading: Option<Position>,
    /// The cluster that everything must belong to.
    source: Option<u64>,
}

impl Import<'_> {
    async fn segment(&mut self, file: &SegmentFile) -> Result<()> {
        let header = self.header(file).await?;
        let size = header.segment_size;
        let start = file.name.start(size)?;
        let lineage = self.declare(file.name.timeline, &header).await?;
        let (marks, end) = self.look(file, &header, start).await?;
        // What comes before a fork was written by the timeline before, and copied.
        let ledger = self.cx.sink().ledger();
        let mut stored = 0;
        for part in ledger.ancestry(&lineage.lineage).into_iter().rev() {
            let range = LogRange::new(part.lineage, part.start.max(start.0)..part.end.min(end.0));
            if range.is_empty() || range.end <= start.0 {
                continue;
            }
            stored += self.part(file, start, range, &marks).await?;
        }
        self.outcome.bytes += stored;
        if stored == 0 {
            self.outcome.known += 1;
        } else {
            self.outcome.stored += 1;
        }
        Ok(())
    }

    async fn header(&mut self, file: &SegmentFile) -> Result<LongPageHeader> {
        let first = self.read(&file.path, 0, LongPageHeader::LENGTH as u64).await?;
        let named = |e: Error| e.context(format!("{} cannot be stored", file.path.display()));
        let header = LongPageHeader::parse(&first).map_err(|e| named(e.into()))?;
        header.check_name(file.name).map_err(|e| named(e.into()))?;
        let known = self.cx.sink().ledger().lineages().next().map(|record| record.source.clone());
        let known = known.and_then(|source| source.parse().ok()).or(self.source);
        if let Some(known) = known
            && known != header.system_id
        {
            let (path, other) = (file.path.display(), header.system_id);
            return Err(Error::conflict(format!(
                "{path} belongs to the cluster with system identifier {other}, the stored log to {known}"
            )));
        }
        self.source = Some(header.system_id);
        Ok(header)
    }

    /// Makes the timeline of a segment known.
    async fn declare(&self, timeline: TimelineId, header: &LongPageHeader) -> Result<LineageRecord> {
        let lineage = lineage_of(timeline);
        if let Some(known) = self.cx.sink().ledger().lineage(&lineage) {
            return Ok(known.clone());
        }
        let major = (13..=18).find(|major| crate::wal::page_magic(*major) == Some(header.magic)).unwrap_or(0);
        let content = self.folder.histories.get(&timeline);
        if content.is_none() && timeline != TimelineId::FIRST {
            let name = TimelineHistory::file_name(timeline);
            return Err(Error::invalid(format!(
                "segments of timeline {timeline} cannot be stored without its history {name}"
            )));
        }
        let history = TimelineHistory::parse(timeline, content.map_or(b"", |content| content))?;
        let mut before: Option<(TimelineId, Lsn)> = None;
        let mut record = None;
        let line = history.ancestors.iter().map(|a| (a.timeline, Some(a.end)));
        for (number, end) in line.chain([(timeline, None)]) {
            let at = self.cx.work().env().now();
            let mut next =
                LineageRecord::new(lineage_of(number), header.system_id.to_string(), Notation::HexHalves, at)
                    .with_fact(SEGMENT_SIZE, header.segment_size.bytes().to_string())
                    .with_fact(VERSION_NUM, (major * 10_000).to_string());
            if let Some((parent, fork)) = before {
                next = next.with_fork(lineage_of(parent), fork.0);
            }
            if let Some(content) = self.folder.histories.get(&number) {
                next = next.with_fact(HISTORY, String::from_utf8_lossy(content));
            }
            self.cx.sink().declare(next.clone()).await?;
            before = end.map(|end| (number, end));
            record = Some(next);
        }
        record.ok_or_else(|| Error::internal("a timeline without a record"))
    }

    /// Reads the segment record by record: what is noticed, and where its log ends.
    async fn look(&mut self, file: &SegmentFile, header: &LongPageHeader, start: Lsn) -> Result<(Vec<Mark>, Lsn)> {
        let (timeline, size) = (file.name.timeline, header.segment_size);
        let named = |e: Error| e.context(format!("{} is no whole segment of a log", file.path.display()));
        let fresh = || -> Result<Position> {
            let format = WalFormat::of(header, timeline)?;
            Ok(Position { timeline, next: start, reading: Reading::new(format, start)? })
        };
        let mut position = match self.reading.take() {
            Some(position) if position.timeline == timeline && position.next == start => position,
            _ => fresh()?,
        };
        let mut marks = Vec::new();
        let len = file_len(&file.path).await?.min(size.bytes());
        let mut offset = 0;
        self.kept.clear();
        while offset < len {
            let piece = self.read(&file.path, offset, len - offset).await?;
            offset += piece.len() as u64;
            if len <= KEPT {
                self.kept.push(piece.clone());
            }
            position.reading.push(piece, Lsn(0), &mut marks).map_err(|e| named(e.into()))?;
        }
        position.reading.note(&mut marks).map_err(|e| named(e.into()))?;
        let whole = Lsn(start.0 + size.bytes());
        match position.reading.ended() {
            None if len == size.bytes() && !file.partial => {
                position.next = whole;
                self.reading = Some(position);
                Ok((marks, whole))
            }
            ended => Ok((marks, ended.unwrap_or_else(|| position.reading.position()))),
        }
    }

    /// Stores of `range` what is not stored, after what is stored was found to be the same. Returns how much.
    async fn part(&self, file: &SegmentFile, start: Lsn, range: LogRange, marks: &[Mark]) -> Result<u64> {
        let ledger = self.cx.sink().ledger();
        let covered = ledger.covered(&range.lineage).clone();
        let timeline = super::timeline_of(&range.lineage).unwrap_or(file.name.timeline);
        // Pieces of the range that are stored, and that are not.
        let (mut known, mut missing) = (Vec::new(), Vec::new());
        let mut at = range.start;
        while at < range.end {
            match covered.containing(at) {
                Some(piece) => {
                    let end = piece.end.min(range.end);
                    known.push(at..end);
                    at = end;
                }
                None => {
                    let end = covered.next_from(at).map_or(range.end, |next| next.start.min(range.end));
                    missing.push(at..end);
                    at = end;
                }
            }
        }
        let source = self.cx.sink().source();
        for piece in known {
            let mut overlap = Overlap::new(&*source, timeline, Lsn(piece.start), Lsn(piece.end));
            let mut at = piece.start;
            while at < piece.end {
                let bytes = self.bytes(file, at - start.0, piece.end - at).await?;
                let compared = overlap.compare(Lsn(at), &bytes).await;
                compared.map_err(|e| e.context(format!("{} cannot be stored", file.path.display())))?;
                at += bytes.len() as u64;
            }
        }
        let mut stored = 0;
        for piece in missing {
            let mut at = piece.start;
            while at < piece.end {
                let bytes = self.bytes(file, at - start.0, piece.end - at).await?;
                let end = at + bytes.len() as u64;
                let here: Vec<_> =
                    marks.iter().filter(|mark| at < mark.offset() && mark.offset() <= end).cloned().collect();
                let part = LogRange::new(range.lineage.clone(), at..end);
                self.cx.sink().append(part, bytes, &here).await?;
                stored += end - at;
                at = end;
            }
        }
        if stored > 0 {
            self.cx.sink().flush();
        }
        Ok(stored)
    }

    /// At most `most` bytes at `offset` of the segment that was looked at last, at least one.
    async fn bytes(&self, file: &SegmentFile, offset: u64, most: u64) -> Result<Bytes> {
        let (number, skip) = (offset / PIECE as u64, (offset % PIECE as u64) as usize);
        let piece = usize::try_from(number).ok().and_then(|number| self.kept.get(number));
        let rest = piece.and_then(|piece| piece.get(skip..).filter(|rest| !rest.is_empty()));
        match (piece, rest) {
            (Some(piece), Some(rest)) => {
                let len = rest.len().min(usize::try_from(most).unwrap_or(usize::MAX));
                Ok(piece.slice_ref(&rest[..len]))
            }
            _ => self.read(&file.path, offset, most).await,
        }
    }

    /// `most` bytes at `offset` of a file, or as many as a piece has.
    async fn read(&self, path: &Path, offset: u64, most: u64) -> Result<Bytes> {
        let (path, pieces) = (path.to_owned(), Arc::clone(&self.pieces));
        let len = usize::try_from(most).unwrap_or(usize::MAX).min(PIECE);
        blocking(move || {
            pieces.read(&path, offset, len).map_err(|e| match e.kind() {
                std::io::ErrorKind::UnexpectedEof => {
                    Error::damaged(format!("{} is cut off", path.display())).with_source(e)
                }
                _ => Error::io(path.display(), e),
            })
        })
        .await
    }
}

async fn file_len(path: &Path) -> Result<u64> {
    let path = path.to_owned();
    blocking(move || std::fs::metadata(&path).map(|found| found.len()).map_err(|e| Error::io(path.display(), e))).await
}
