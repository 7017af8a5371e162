//! Which backup a restore begins with, and along which log it goes on.

use std::sync::Arc;

use jiff::Timestamp;

use super::windows::{Restorable, TimedWindow, timed};
use crate::catalog::{BackupRecord, Catalog, Rejected};
use crate::engine::{BackupEngine, LogSource, RestoreLog};
use crate::error::{Error, Result};
use crate::id::BackupId;
use crate::log::{BackupPoint, LogPath};
use crate::position::Lineage;
use crate::target::{Goal, RecoveryTarget};

/// A backup and the log behind it.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) backup: BackupRecord,
    /// None when the backup is restored alone.
    pub(super) path: Option<LogPath>,
}

/// What a choice is made from.
pub(super) struct Choices<'a> {
    pub(super) catalog: &'a Catalog,
    pub(super) log: &'a Arc<dyn LogSource>,
    pub(super) engine: &'a dyn BackupEngine,
}

impl Choices<'_> {
    /// Where a restore to `target` begins and goes along.
    ///
    /// # Errors
    /// InvalidInput, when it cannot be reached; the message names what can.
    pub(super) async fn choose(&self, target: &RecoveryTarget) -> Result<Choice> {
        match &target.goal {
            Goal::Latest => self.latest().await,
            Goal::Backup(id) => Ok(Choice { backup: self.backup(*id)?.clone(), path: None }),
            Goal::Time(time) => self.time(target, *time).await,
            Goal::Position(text) => self.position(target, text).await,
            Goal::Named(name) => self.named(target, name).await,
            Goal::Transaction(name) => self.transaction(target, name).await,
        }
    }

    fn name(&self) -> &'static str {
        self.engine.descriptor().name
    }

    fn backup(&self, id: BackupId) -> Result<&BackupRecord> {
        let engine = self.name();
        let backup = self.catalog.existing(id).map_err(Rejected::asked)?;
        if backup.snapshot.engine != engine {
            let other = &backup.snapshot.engine;
            return Err(Error::invalid(format!("backup {id} is of engine {other}, not of {engine}")));
        }
        Ok(backup)
    }

    /// The newest state is where the history ends that the source follows. A backup may be newer than that, when nobody has captured
    /// what came before it. One that is known to be harmed is chosen only where there is no other.
    async fn latest(&self) -> Result<Choice> {
        let engine = self.name();
        let newest = self
            .catalog
            .backups()
            .filter(|b| b.snapshot.engine == engine)
            .max_by_key(|b| (self.catalog.is_sound(b.id), b.snapshot.consistent_at(), b.ended_at, b.id))
            .ok_or_else(|| Error::invalid(format!("there is no {engine} backup to restore")))?;
        let windows = self.windows().await?.windows;
        let followed = windows.iter().filter(|timed| !timed.window.orphaned).max_by_key(|timed| timed.to_time);
        let Some(timed) = followed.filter(|timed| newest.snapshot.consistent_at() <= timed.to_time) else {
            let stop = newest.snapshot.stop.as_ref();
            let path = stop.and_then(|stop| self.log.ledger().paths(stop).into_iter().next());
            return Ok(Choice { backup: newest.clone(), path: path.filter(|path| !path.is_empty()) });
        };
        let last = timed.window.backups.iter().max_by_key(|backup| (backup.at, backup.stop.offset, backup.id));
        let last = last.ok_or_else(|| Error::internal("a window has no backup"))?;
        self.along(last, &timed.window.path)
    }

    async fn windows(&self) -> Result<Restorable> {
        timed(self.catalog, self.log, Some(self.name())).await
    }

    async fn time(&self, target: &RecoveryTarget, time: Timestamp) -> Result<Choice> {
        let windows = self.windows().await?;
        let holds = |w: &&TimedWindow| w.from_time <= time && time <= w.to_time;
        let found = windows.windows.iter().filter(holds).min_by_key(|w| w.window.orphaned);
        let found = found.ok_or_else(|| unreachable_target(target, &windows))?;
        let before = found.window.backups.iter().filter(|backup| backup.at <= time);
        let newest = before.max_by_key(|backup| (backup.at, backup.id));
        let newest = newest.ok_or_else(|| unreachable_target(target, &windows))?;
        self.along(newest, &found.window.path)
    }

    async fn position(&self, target: &RecoveryTarget, text: &str) -> Result<Choice> {
        let Some(log) = self.engine.log() else { return Err(crate::engine::no_position(text)) };
        let stated = log.parse_position(text)?;
        let windows = self.windows().await?;
        let lineages: Vec<Lineage> = match stated.lineage {
            Some(lineage) => vec![lineage],
            None => {
                // Along the history that the source follows there is one lineage for every offset; elsewhere the newest.
                let ledger = self.log.ledger();
                let trunk = ledger.trunk().map(|trunk| ledger.ancestry(trunk)).unwrap_or_default();
                let own = trunk.into_iter().rev().filter(|range| range.offsets().contains(&stated.offset));
                let newest: Vec<_> = ledger.lineages().rev().map(|record| record.lineage.clone()).collect();
                own.map(|range| range.lineage).chain(newest).chain(self.own_lineages()).collect()
            }
        };
        for lineage in lineages {
            let passes = |w: &&TimedWindow| w.window.path.passes(&lineage, stated.offset);
            let Some(found) = windows.windows.iter().find(passes) else { continue };
            let way = found.window.path.until(&lineage, stated.offset);
            let before = found.window.backups.iter().filter(|b| way.passes(&b.stop.lineage, b.stop.offset));
            if let Some(newest) = before.max_by_key(|b| (b.stop.offset, b.at)) {
                let whole = self.along(newest, &found.window.path)?;
                return Ok(whole);
            }
        }
        Err(unreachable_target(target, &windows))
    }

    /// The lineages of backups whose log was never captured.
    fn own_lineages(&self) -> impl Iterator<Item = Lineage> {
        let stops = self.catalog.backups().rev().filter_map(BackupPoint::of);
        stops.map(|point| point.stop.lineage)
    }

    async fn named(&self, target: &RecoveryTarget, name: &str) -> Result<Choice> {
        let windows = self.windows().await?;
        let mut found = Vec::new();
        for timed in &windows.windows {
            let log = RestoreLog::new(Arc::clone(self.log), timed.window.path.clone());
            for (position, at) in log.named(name).await? {
                if !found.iter().any(|(_, known, _)| *known == position) {
                    found.push((timed, position, at));
                }
            }
        }
        match found.as_slice() {
            [] => Err(unreachable_target(target, &windows)),
            [(timed, position, _)] => self.ending_before(timed, &position.lineage, position.offset, target, &windows),
            many => {
                let places: Vec<_> = many
                    .iter()
                    .map(|(_, position, at)| format!("{position} of lineage {} at {at}", position.lineage))
                    .collect();
                Err(Error::invalid(format!(
                    "{target} is ambiguous, it was named at {}: choose one by its position or time",
                    places.join(" and at ")
                )))
            }
        }
    }

    async fn transaction(&self, target: &RecoveryTarget, name: &str) -> Result<Choice> {
        let Some(engine) = self.engine.log() else { return Err(crate::engine::no_position(name)) };
        let windows = self.windows().await?;
        for timed in &windows.windows {
            let log = RestoreLog::new(Arc::clone(self.log), timed.window.path.clone());
            if let Some((lineage, offset)) = engine.find_transaction(&log, name).await? {
                return self.ending_before(timed, &lineage, offset, target, &windows);
            }
        }
        Err(unreachable_target(target, &windows))
    }

    /// The newest backup of the window that ends before the record which ends at `offset`.
    fn ending_before(
        &self,
        timed: &TimedWindow,
        lineage: &Lineage,
        offset: u64,
        target: &RecoveryTarget,
        windows: &Restorable,
    ) -> Result<Choice> {
        let way = timed.window.path.until(lineage, offset);
        let at_it = |b: &&BackupPoint| b.stop.lineage == *lineage && b.stop.offset >= offset;
        let before = timed.window.backups.iter().filter(|b| way.passes(&b.stop.lineage, b.stop.offset) && !at_it(b));
        match before.max_by_key(|b| (b.stop.offset, b.at)) {
            Some(newest) => self.along(newest, &timed.window.path),
            None => Err(unreachable_target(target, windows)),
        }
    }

    /// The backup at `point` and what of `path` lies behind it.
    fn along(&self, point: &BackupPoint, path: &LogPath) -> Result<Choice> {
        let backup = self.backup(point.id)?.clone();
        let (lineage, end) = path.end();
        let own = self.log.ledger().path(&point.stop, lineage);
        let own = own.filter(|own| own.passes(lineage, end)).map(|own| own.until(lineage, end));
        Ok(Choice { backup, path: own.filter(|own| !own.is_empty()) })
    }
}

/// Why `target` cannot be reached, with what can.
fn unreachable_target(target: &RecoveryTarget, restorable: &Restorable) -> Error {
    if restorable.windows.is_empty() {
        return Error::invalid(format!("{target} cannot be reached: there is no backup that a log could follow"));
    }
    let windows: Vec<_> = restorable
        .windows
        .iter()
        .map(|timed| {
            let (from, to) = (timed.window.from(), &timed.window.to);
            let orphaned = if timed.window.orphaned { ", off the history that the source follows" } else { "" };
            format!("{from} ({}) to {to} ({}) of lineage {}{orphaned}", timed.from_time, timed.to_time, to.lineage)
        })
        .collect();
    let mut text = format!("{target} cannot be reached: restorable is {}", windows.join("; and "));
    let holes: Vec<_> =
        restorable.holes.iter().map(|h| format!("{} to {} of lineage {}", h.from, h.to, h.range.lineage)).collect();
    if !holes.is_empty() {
        text.push_str("; the log is missing from ");
        text.push_str(&holes.join(", and from "));
    }
    Error::invalid(text)
}
