//! A toy engine with a log: its deployment is a text that grows line by line, and its log is the very text.
//!
//! A line is `<milliseconds> <kind> <name>`: kind `c` is the commit of transaction `name`, kind `p` a named place. A failover leaves the
//! text at some line and goes on in a new lineage.

use std::fmt;
use std::path::Path;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::TryStreamExt;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::path;
use crate::engine::{
    BackupContext, BackupEngine, BackupSinkExt, BackupSourceExt, CheckContext, CheckReport, Deployment,
    EngineDescriptor, Imported, LogContext, LogEngine, RestoreContext, RestoreLog, Restored, StatedPosition,
};
use crate::entry::EntryMeta;
use crate::error::{Error, Result};
use crate::log::{LineageRecord, LogRange, Mark, Notation};
use crate::position::{Lineage, LogPosition};
use crate::snapshot::{Consistency, Finding, Snapshot};
use crate::target::Goal;

pub(crate) fn lineage(number: u64) -> Lineage {
    Lineage::new(number.to_string())
}

pub(crate) fn millis(at: i64) -> Timestamp {
    Timestamp::from_millisecond(at).unwrap()
}

/// One line and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) at: Timestamp,
    pub(crate) kind: char,
    pub(crate) name: String,
}

/// The lines of `text`, whose first byte has offset `start`.
pub(crate) fn lines(start: u64, text: &[u8]) -> Vec<Line> {
    let mut at = start;
    let text = std::str::from_utf8(text).unwrap();
    let line = |line: &str| {
        let mut words = line.trim_end().split(' ');
        let moment = millis(words.next().unwrap().parse().unwrap());
        let (kind, name) = (words.next().unwrap().chars().next().unwrap(), words.next().unwrap().to_owned());
        let start = at;
        at += line.len() as u64;
        Line { start, end: at, at: moment, kind, name }
    };
    text.split_inclusive('\n').map(line).collect()
}

fn marks(lines: &[Line]) -> Vec<Mark> {
    let mark = |line: &Line| match line.kind {
        'c' => Mark::Commit { offset: line.end, at: line.at },
        _ => Mark::Name { offset: line.end, name: line.name.clone(), at: line.at },
    };
    lines.iter().map(mark).collect()
}

/// What is written of one lineage.
#[derive(Debug, Clone)]
struct Branch {
    fork: Option<(u64, u64)>,
    /// From the fork on.
    text: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Lines {
    descriptor: EngineDescriptor,
    source: &'static str,
    branches: Mutex<Vec<Branch>>,
    grown: Notify,
    /// What the deployment was told to forget: the end of what was durable.
    acknowledged: Mutex<Option<LogPosition>>,
    restored: Mutex<Option<String>>,
}

impl Lines {
    pub(crate) fn of(source: &'static str) -> Self {
        Self {
            descriptor: EngineDescriptor::new("lines", "Lines", Consistency::PointInTime, "nothing"),
            source,
            branches: Mutex::new(vec![Branch { fork: None, text: Vec::new() }]),
            grown: Notify::new(),
            acknowledged: Mutex::default(),
            restored: Mutex::default(),
        }
    }

    /// Writes one line; its end.
    pub(crate) fn write(&self, at: i64, kind: char, name: &str) -> u64 {
        let mut branches = self.branches.lock();
        branches.last_mut().unwrap().text.extend_from_slice(format!("{at} {kind} {name}\n").as_bytes());
        drop(branches);
        self.grown.notify_one();
        self.position().offset
    }

    /// Goes on in a new lineage from `offset` of the last one.
    pub(crate) fn fail_over(&self, offset: u64) {
        let mut branches = self.branches.lock();
        let parent = branches.len() as u64;
        branches.push(Branch { fork: Some((parent, offset)), text: Vec::new() });
    }

    /// The whole text of a lineage up to `end`, from the very beginning.
    pub(crate) fn text(&self, number: u64, end: u64) -> String {
        let branches = self.branches.lock();
        let branch = &branches[number as usize - 1];
        let start = branch.fork.map_or(0, |(_, offset)| offset);
        let fork = branch.fork.map(|(parent, offset)| (parent, offset.min(end)));
        let own = branch.text[..end.saturating_sub(start) as usize].to_vec();
        drop(branches);
        let mut text = fork.map_or_else(String::new, |(parent, offset)| self.text(parent, offset));
        text.push_str(std::str::from_utf8(&own).unwrap());
        text
    }

    pub(crate) fn position(&self) -> LogPosition {
        let branches = self.branches.lock();
        let last = branches.last().unwrap();
        let offset = last.fork.map_or(0, |(_, offset)| offset) + last.text.len() as u64;
        LogPosition::new(lineage(branches.len() as u64), offset, offset.to_string())
    }

    pub(crate) fn acknowledged(&self) -> Option<LogPosition> {
        self.acknowledged.lock().clone()
    }

    pub(crate) fn restored(&self) -> Option<String> {
        self.restored.lock().clone()
    }

    fn records(&self, now: Timestamp) -> Vec<LineageRecord> {
        let branches = self.branches.lock();
        let record = |(number, branch): (usize, &Branch)| {
            let record = LineageRecord::new(lineage(number as u64 + 1), self.source, Notation::Decimal, now);
            match branch.fork {
                Some((parent, offset)) => record.with_fork(lineage(parent), offset),
                None => record,
            }
        };
        branches.iter().enumerate().map(record).collect()
    }

    /// What there is of each lineage behind `from`.
    fn news(&self, from: &dyn Fn(&Lineage) -> Option<u64>) -> Vec<(LogRange, Bytes)> {
        let branches = self.branches.lock();
        let news = branches.iter().enumerate().map(|(number, branch)| {
            let lineage = lineage(number as u64 + 1);
            let start = branch.fork.map_or(0, |(_, offset)| offset);
            let at = from(&lineage).unwrap_or(start);
            let end = start + branch.text.len() as u64;
            let bytes = Bytes::copy_from_slice(&branch.text[(at - start) as usize..]);
            (LogRange::new(lineage, at..end), bytes)
        });
        news.filter(|(range, _)| !range.is_empty()).collect()
    }
}

impl fmt::Display for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lines({})", self.source)
    }
}

/// The lines of a stretch of log.
async fn read(log: &RestoreLog, range: LogRange) -> Result<Vec<Line>> {
    let start = range.start;
    let bytes: Vec<Bytes> = log.source().read(range).try_collect().await?;
    Ok(lines(start, &bytes.concat()))
}

/// Where a replay of `log` to `goal` ends: the lineage and the end of the last line.
async fn ending(log: &RestoreLog, goal: &Goal, inclusive: bool) -> Result<(Lineage, u64)> {
    let (lineage, end) = log.path().end();
    let all = (lineage.clone(), end);
    let ends_at = |lineage: Lineage, start: u64, end: u64| (lineage, if inclusive { end } else { start });
    match goal {
        Goal::Time(time) => {
            let time = if inclusive { *time } else { millis(time.as_millisecond() - 1) };
            let Some((before, until)) = log.first_later(time).await? else { return Ok(all) };
            for range in log.path().until(&until.lineage, until.offset).ranges {
                let from = if range.lineage == before.lineage { before.offset.max(range.start) } else { range.start };
                for line in read(log, LogRange::new(range.lineage.clone(), from..range.end)).await? {
                    if line.kind == 'c' && line.at > time {
                        return Ok((range.lineage, line.start));
                    }
                }
            }
            Ok(all)
        }
        Goal::Latest | Goal::Backup(_) => Ok(all),
        _ => {
            for range in &log.path().ranges {
                for line in read(log, range.clone()).await? {
                    let found = match goal {
                        Goal::Named(name) => line.kind == 'p' && line.name == *name,
                        Goal::Transaction(name) => line.kind == 'c' && line.name == *name,
                        Goal::Position(text) => text.rsplit('/').next() == Some(&line.end.to_string()),
                        _ => false,
                    };
                    if found {
                        return Ok(ends_at(range.lineage.clone(), line.start, line.end));
                    }
                }
            }
            Err(Error::internal(format!("{goal:?} was planned and is not in the log")))
        }
    }
}

#[async_trait]
impl BackupEngine for Lines {
    fn descriptor(&self) -> &EngineDescriptor {
        &self.descriptor
    }

    async fn inspect(&self) -> Result<Deployment> {
        Ok(Deployment::new(self.source, "1", "memory"))
    }

    async fn backup(&self, cx: &BackupContext) -> Result<Snapshot> {
        let stop = self.position();
        let text = self.text(stop.lineage.as_str().parse().unwrap(), stop.offset);
        let last = lines(0, text.as_bytes()).iter().map(|line| line.at).max();
        cx.sink().put_bytes(EntryMeta::file(path("text")), text.into()).await?;
        let now = cx.work().env().now();
        let snapshot = Snapshot::new("lines", "1", self.source, "memory", Consistency::PointInTime, (now, now));
        let snapshot = snapshot.with_positions(stop.clone(), stop);
        Ok(last.map_or(snapshot.clone(), |last| snapshot.with_stopped_at(last)))
    }

    async fn assess_restore(&self, _: &RestoreContext) -> Result<Vec<Finding>> {
        Ok(Vec::new())
    }

    async fn restore(&self, cx: &RestoreContext) -> Result<Restored> {
        let text = cx.source().read_small(&path("text"), u64::MAX).await?;
        let mut text = String::from_utf8(text.to_vec()).unwrap();
        if let Some(log) = cx.log() {
            let target = cx.target();
            let (lineage, end) = ending(log, &target.goal, target.inclusive).await?;
            for range in log.path().until(&lineage, end).ranges {
                let bytes: Vec<Bytes> = log.source().read(range).try_collect().await?;
                text.push_str(std::str::from_utf8(&bytes.concat()).unwrap());
            }
        }
        *self.restored.lock() = Some(text);
        Ok(Restored::default())
    }

    async fn check(&self, _: &CheckContext) -> Result<CheckReport> {
        Ok(CheckReport::default())
    }

    fn log(&self) -> Option<&dyn LogEngine> {
        Some(self)
    }
}

#[async_trait]
impl LogEngine for Lines {
    async fn stream(&self, cx: &LogContext) -> Result<()> {
        let sink = cx.sink();
        loop {
            for record in self.records(cx.work().env().now()) {
                sink.declare(record).await?;
            }
            let ledger = sink.ledger();
            for (range, bytes) in self.news(&|lineage| ledger.covered(lineage).end()) {
                let marks = marks(&lines(range.start, &bytes));
                let (lineage, end) = (range.lineage.clone(), range.end);
                sink.append(range, bytes, &marks).await?;
                sink.flush();
                let mut durable = sink.durable();
                while durable.as_ref().is_none_or(|p| p.lineage != lineage || p.offset < end) {
                    durable = sink.advanced(durable.as_ref()).await?;
                }
                *self.acknowledged.lock() = durable;
            }
            tokio::select! {
                () = self.grown.notified() => {}
                () = cx.work().cancel().cancelled() => return Ok(()),
            }
        }
    }

    /// Pieces are files named `<lineage>-<start>`.
    async fn import(&self, cx: &LogContext, dir: &Path) -> Result<Imported> {
        let mut done = Imported::default();
        let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        for record in self.records(cx.work().env().now()) {
            cx.sink().declare(record).await?;
        }
        for file in files {
            let name = file.file_name().and_then(|name| name.to_str()).unwrap().to_owned();
            let (lineage, start) = name.split_once('-').unwrap();
            let bytes = Bytes::from(std::fs::read(&file).unwrap());
            let start: u64 = start.parse().unwrap();
            let range = LogRange::new(Lineage::new(lineage), start..start + bytes.len() as u64);
            if cx.sink().ledger().covered(&range.lineage).contains(&range.offsets()) {
                let source = cx.sink().source();
                let stored: Vec<Bytes> = source.read(range).try_collect().await?;
                if stored.concat() != bytes {
                    return Err(Error::conflict(format!("piece {name} is stored with other bytes")));
                }
                done.known += 1;
                continue;
            }
            done.stored += 1;
            done.bytes += bytes.len() as u64;
            let marks = marks(&lines(start, &bytes));
            cx.sink().append(range, bytes, &marks).await?;
        }
        Ok(done)
    }

    fn parse_position(&self, text: &str) -> Result<StatedPosition> {
        let (lineage, offset) = match text.split_once('/') {
            Some((lineage, offset)) => (Some(Lineage::new(lineage)), offset),
            None => (None, text),
        };
        let offset = offset.parse().map_err(|_| Error::invalid(format!("{text:?} is not <lineage>/<offset>")))?;
        Ok(StatedPosition { lineage, offset })
    }

    async fn find_transaction(&self, log: &RestoreLog, name: &str) -> Result<Option<(Lineage, u64)>> {
        for range in &log.path().ranges {
            let found = read(log, range.clone()).await?;
            if let Some(line) = found.iter().find(|line| line.kind == 'c' && line.name == name) {
                return Ok(Some((range.lineage.clone(), line.end)));
            }
        }
        Ok(None)
    }
}
