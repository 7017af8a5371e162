//! What may have changed since the parent backup: learned from the stored log, and for its newest end from the server's own.
//!
//! Capture notes which blocks its records change, and the notes stand in the indices of the stored pieces, so the log itself need
//! not be read. What was written since the last stored piece lies in `pg_wal`. Why that is enough, and what has to be looked after
//! besides, is said in [`crate::changes`].

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use backup_core::engine::{BackupContext, Changes, LogSource, Unchanged};
use backup_core::entry::EntryPath;
use backup_core::log::LogRange;
use backup_core::{Error, Finding, Result, Severity, Snapshot};
use futures::stream::TryStreamExt;

use super::facts::{self, Facts};
use super::notes::Notes;
use super::probe::Server;
use super::settings::ChangeTracking;
use super::summaries::{self, Wanted};
use super::waldir::{self, Seen, WalDir};
use crate::capture::{lineage_of, timeline_of};
use crate::changes::{ChangeMap, Changed, Doubt};
use crate::lsn::{Lsn, TimelineId};
use crate::page::PAGE_SIZE;
use crate::wal::TimelineHistory;
use crate::wire::Session;

/// So much log is read where no note tells what it changed, or a quarter of the databases if that is more: reading log costs what
/// reading data costs.
const MOST_TAIL: u64 = 256 << 20;
/// Blocks in a segment file that the map counts by, as in every packaged server.
const BLOCKS_PER_SEGMENT: u32 = 131_072;

/// What is known of the changes since the parent.
#[derive(Debug)]
pub(super) enum Known {
    /// There is no parent, or nobody asked.
    Nothing,
    /// They cannot be told: why.
    Unclear(String),
    /// These. With a proof when they are from the server's summaries and not from the log itself.
    Changes { map: Box<ChangeMap>, verified: bool, proof: Option<Proof> },
    /// The server sends them.
    Told { verified: bool, proof: Proof },
}

/// Why the server's history is taken for the parent's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// The log at the end of the parent is the same, byte by byte.
    Recognised,
    /// Cluster, timeline and position have the same names. The log itself is not there any more.
    Named,
}

impl Proof {
    fn name(self) -> &'static str {
        match self {
            Self::Recognised => "recognised",
            Self::Named => "named",
        }
    }
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing is known"),
            Self::Unclear(why) => f.write_str(why),
            Self::Changes { map, .. } => write!(f, "the log from {} to {}", map.start(), map.end()),
            Self::Told { .. } => f.write_str("the server's summaries"),
        }
    }
}

impl Known {
    /// When the file at `path` need not be read, if `otherwise` is what holds without a map.
    pub(super) fn rule(&self, path: &EntryPath, otherwise: &Unchanged) -> Unchanged {
        let Self::Changes { map, verified, .. } = self else { return otherwise.clone() };
        let changes = match map.file(path.as_bytes()) {
            Changed::Whole => return otherwise.clone(),
            Changed::Unchanged => Changes::default(),
            Changed::Blocks(ranges) => {
                let page = PAGE_SIZE as u64;
                Changes::new(ranges.into_iter().map(|r| u64::from(r.start) * page..u64::from(r.end) * page))
            }
        };
        Unchanged::Outside(if *verified { changes.verified() } else { changes })
    }

    /// What the snapshot says about it.
    pub(super) fn describe(&self, snapshot: Snapshot) -> Snapshot {
        match self {
            Self::Nothing => snapshot,
            Self::Unclear(why) => {
                let text = format!("every block was read and compared: {why}");
                let note = Finding::new(Severity::Note, "changes-unknown", text);
                snapshot.with_fact(facts::CHANGES, "compared").with_findings([note])
            }
            Self::Changes { verified: false, proof: None, .. } => snapshot.with_fact(facts::CHANGES, "log"),
            Self::Changes { verified: true, proof: None, .. } => snapshot.with_fact(facts::CHANGES, "verified"),
            Self::Changes { verified, proof: Some(proof), .. } | Self::Told { verified, proof } => {
                let how = if *verified { "verified" } else { "summaries" };
                snapshot.with_fact(facts::CHANGES, how).with_fact(facts::HISTORY, proof.name())
            }
        }
    }
}

/// Finds out what may have changed between the parent's start and the checkpoint that the server has just made.
///
/// # Errors
/// Cancelled. Everything else is a reason to read every block.
pub(super) async fn since_parent(
    cx: &BackupContext,
    session: &mut Session,
    server: &Server,
    root: &Path,
    tracking: ChangeTracking,
) -> Result<Known> {
    let Some(parent) = cx.parent().filter(|_| tracking != ChangeTracking::Never) else { return Ok(Known::Nothing) };
    let verified = tracking == ChangeTracking::Verify;
    let told = search(cx, session, server, root, &parent.snapshot).await.map(|map| (map, None));
    let known = understood(cx, told, verified)?;
    if tracking != ChangeTracking::Summaries || matches!(known, Known::Changes { .. }) {
        return Ok(known);
    }
    let told = summarized(cx, session, server, root, &parent.snapshot).await;
    understood(cx, told.map(|(map, proof)| (map, Some(proof))), verified)
}

fn understood(cx: &BackupContext, told: Result<(ChangeMap, Option<Proof>)>, verified: bool) -> Result<Known> {
    match told {
        Ok((map, proof)) => match map.doubt() {
            None => Ok(Known::Changes { map: Box::new(map), verified, proof }),
            Some(doubt) => Ok(Known::Unclear(doubt.to_string())),
        },
        Err(error) => {
            cx.work().checkpoint()?;
            Ok(Known::Unclear(error.to_string()))
        }
    }
}

/// What the server's own summaries say, for who believes names.
async fn summarized(
    cx: &BackupContext,
    session: &mut Session,
    server: &Server,
    root: &Path,
    parent: &Snapshot,
) -> Result<(ChangeMap, Proof)> {
    let unclear = |text: String| Err(Error::environment(text));
    if server.version.major() < 17 {
        return unclear(format!("postgresql {} writes no summaries of its log", server.version));
    }
    let before = unchanged(server, parent)?;
    let (timeline, redo) = checkpoint(session).await?;
    let history = if timeline == before.timeline {
        None
    } else {
        let path = root.join("pg_wal").join(TimelineHistory::file_name(timeline));
        let content = std::fs::read(&path).map_err(|e| Error::io(path.display(), e))?;
        Some(TimelineHistory::parse(timeline, &content)?)
    };
    let line = summaries::line(&before, history.as_ref(), timeline, redo)?;
    let own = WalDir { root: root.to_owned(), server: server.clone(), timeline };
    let proof = recognised(cx, &before, &own).await?;
    let mut map = summaries::read(cx.work(), session, &line, Wanted::Blocks).await?;
    if map.end() < redo {
        // The server summarizes from checkpoint to checkpoint, some time after each.
        let tail = redo.0 - map.end().0;
        if tail > MOST_TAIL {
            return unclear(format!("no summary tells of the log from {} on, {tail} bytes before", map.end()));
        }
        map.merge(&own.changes(cx.work(), map.end(), redo).await?);
    }
    Ok((map, proof))
}

/// Whether the server's log at the end of the parent is the parent's, where the server still has it.
async fn recognised(cx: &BackupContext, before: &Facts, own: &WalDir) -> Result<Proof> {
    let there = WalDir { timeline: before.timeline, ..own.clone() };
    let range = waldir::witnesses(before.start, before.stop);
    let (Some(source), Ok(seen)) = (cx.parent_source(), there.seen(range).await) else { return Ok(Proof::Named) };
    if waldir::stored(&**source, before).await? == seen {
        return Ok(Proof::Recognised);
    }
    Err(Error::environment("the log is not the one that the parent was taken with"))
}

/// The facts of the parent, if the cluster is set up as it was then.
fn unchanged(server: &Server, parent: &Snapshot) -> Result<Facts> {
    let before = Facts::of(parent)?;
    let checksums = if server.data_checksums { "on" } else { "off" };
    if parent.fact(facts::DATA_CHECKSUMS) != Some(checksums) {
        return Err(Error::environment(format!("page checksums are {checksums} now")));
    }
    if server.blocks_per_segment != BLOCKS_PER_SEGMENT || server.wal_segment_size != before.wal_segment_size {
        return Err(Error::environment("the server was built or set up in another way"));
    }
    Ok(before)
}

/// The checkpoint with which the backup begins, or a later one: the timeline and the position from which it is replayed.
async fn checkpoint(session: &mut Session) -> Result<(TimelineId, Lsn)> {
    let row = session.query_one("SELECT timeline_id, redo_lsn FROM pg_control_checkpoint()").await?;
    let timeline = TimelineId::new(row.parse("timeline_id")?);
    let timeline = timeline.ok_or_else(|| Error::damaged("the server is on timeline 0"))?;
    Ok((timeline, row.required("redo_lsn")?.parse()?))
}

async fn search(
    cx: &BackupContext,
    session: &mut Session,
    server: &Server,
    root: &Path,
    parent: &Snapshot,
) -> Result<ChangeMap> {
    let unclear = |text: String| Err(Error::environment(text));
    let before = unchanged(server, parent)?;
    let (timeline, redo) = checkpoint(session).await?;
    let ranges = line(cx.log(), &before, timeline, redo)?;
    let own = WalDir { root: root.to_owned(), server: server.clone(), timeline };
    // Two histories may bear the same names: of the same cluster, restored twice.
    let Some(seen) = parent.fact(facts::WITNESS) else {
        return unclear("the parent does not say by what its log can be recognised".to_owned());
    };
    let witness = LogRange::new(lineage_of(before.timeline), waldir::witnesses(before.start, before.stop));
    if recognise(cx.log(), &witness, &own).await? != seen {
        return unclear("the log is not the one that the parent was taken with".to_owned());
    }
    let most = server.bytes.map_or(MOST_TAIL, |bytes| MOST_TAIL.max(bytes / 4));
    let mut map = ChangeMap::new(before.start);
    if let (Some(log), Some(last)) = (cx.log(), ranges.last()) {
        let mut notes = Notes::new(&**log, server, map, most);
        for range in &ranges {
            cx.work().run(notes.follow(range, range == last)).await?;
        }
        map = notes.finish();
        let end = log.ledger().covered(&last.lineage).containing(last.start).map_or(last.start, |found| found.end);
        let witness = waldir::witnesses(Lsn(last.start), Lsn(end.min(redo.0)));
        let witness = LogRange::new(last.lineage.clone(), witness);
        if witness.is_empty() && ranges.len() > 1 {
            return unclear(format!("nothing of timeline {timeline} is stored"));
        }
        if !witness.is_empty() && own.seen(witness.offsets()).await? != stored(&**log, &witness).await? {
            return unclear("the log that was captured is not the server's".to_owned());
        }
    }
    if map.end() < redo && map.doubt().is_none() {
        let first = ranges.last().map_or(redo, |range| Lsn(range.start));
        if map.end() < first {
            return unclear(Doubt::Gap { from: map.end(), to: first }.to_string());
        }
        let tail = redo.0 - map.end().0;
        if tail > most {
            return unclear(format!("no log was captured from {} on, {tail} bytes before", map.end()));
        }
        map.merge(&own.changes(cx.work(), map.end(), redo).await?);
    }
    Ok(map)
}

/// What is seen of `range` in the stored log, or where it is not stored, in the server's own.
async fn recognise(log: Option<&Arc<dyn LogSource>>, range: &LogRange, own: &WalDir) -> Result<String> {
    match log {
        Some(log) if log.ledger().first_hole(range).is_none() => stored(&**log, range).await,
        _ => {
            let timeline = timeline_of(&range.lineage).unwrap_or(own.timeline);
            WalDir { timeline, ..own.clone() }.seen(range.offsets()).await
        }
    }
}

async fn stored(log: &dyn LogSource, range: &LogRange) -> Result<String> {
    let mut seen = Seen::default();
    let mut bytes = log.read(range.clone());
    while let Some(piece) = bytes.try_next().await? {
        seen.add(&piece);
    }
    Ok(seen.finish())
}

/// The log from the parent's start to `redo` on `timeline`, by timelines.
fn line(log: Option<&Arc<dyn LogSource>>, before: &Facts, timeline: TimelineId, redo: Lsn) -> Result<Vec<LogRange>> {
    let lineage = lineage_of(timeline);
    let whole = LogRange::new(lineage.clone(), before.start.0..redo.0);
    if timeline == before.timeline {
        return if before.stop <= redo {
            Ok(vec![whole])
        } else {
            Err(Error::environment("the parent ends behind the server's last checkpoint"))
        };
    }
    let ledger = log.map(|log| log.ledger()).unwrap_or_default();
    let mut line = ledger.ancestry(&lineage);
    let parent = lineage_of(before.timeline);
    let number = line.iter().position(|range| range.lineage == parent);
    // The pages of the parent may hold what was written up to its end.
    let number = number.filter(|number| {
        let range = &line[*number];
        range.start <= before.start.0 && before.stop.0 <= range.end
    });
    let Some(number) = number else {
        let text = format!("the parent is not known to lie in the history of timeline {timeline}");
        return Err(Error::environment(text));
    };
    let mut line = line.split_off(number);
    if let Some(first) = line.first_mut() {
        first.start = before.start.0;
    }
    if let Some(last) = line.last_mut() {
        last.end = redo.0;
    }
    Ok(line)
}
