//! The shapes of JSON output. Keys are in snake case, times RFC 3339 in UTC, sizes in bytes.

use backup_core::BackupId;
use backup_core::catalog::{BackupKind, BackupRecord, Catalog, DrillRecord};
use backup_core::engine::{Extracted, Footprint, Imported};
use backup_core::entry::EntryInfo;
use backup_core::log::Hole;
use backup_core::repository::{Damage, VerifyReport};
use backup_core::run::Restorable;
use backup_core::{Finding, Group, LogPosition, Snapshot};
use backup_storage::CatalogHead;
use jiff::Timestamp;
use serde::Serialize;

/// A backup.
#[derive(Debug, Serialize)]
pub(crate) struct BackupView<'a> {
    id: BackupId,
    service: &'a str,
    engine: &'a str,
    kind: BackupKind,
    started_at: Timestamp,
    ended_at: Timestamp,
    data_bytes: u64,
    new_bytes: u64,
    stored_bytes: u64,
    entries: u64,
    /// Where the change stream stood when the backup was complete, in the engine's notation.
    position: Option<&'a str>,
    parent: Option<BackupId>,
    /// When a drill has last proven it, if one has.
    #[serde(skip_serializing_if = "Option::is_none")]
    proven_at: Option<Timestamp>,
}

impl BackupView<'_> {
    /// With when a drill has last proven it.
    fn proven(mut self, proof: Option<&DrillRecord>) -> Self {
        self.proven_at = proof.map(|record| record.ended);
        self
    }
}

impl<'a> From<&'a BackupRecord> for BackupView<'a> {
    fn from(record: &'a BackupRecord) -> Self {
        Self {
            id: record.id,
            service: record.service.as_str(),
            engine: &record.snapshot.engine,
            kind: record.kind,
            started_at: record.started_at,
            ended_at: record.ended_at,
            data_bytes: record.data_bytes,
            new_bytes: record.new_bytes,
            stored_bytes: record.stored_bytes,
            entries: record.entries,
            position: record.snapshot.stop.as_ref().map(|position| position.text.as_str()),
            parent: record.parent,
            proven_at: None,
        }
    }
}

/// A backup in a list of them.
#[derive(Debug, Serialize)]
pub(crate) struct ListedView<'a> {
    #[serde(flatten)]
    backup: BackupView<'a>,
    /// Something of it is known to be missing or damaged.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    damaged: bool,
}

impl<'a> ListedView<'a> {
    pub(crate) fn new(record: &'a BackupRecord, catalog: &Catalog) -> Self {
        let backup = BackupView::from(record).proven(catalog.drills().proof_of(record.id));
        Self { backup, damaged: !catalog.is_sound(record.id) }
    }
}

/// A backup with everything that is known of it.
#[derive(Debug, Serialize)]
pub(crate) struct ShowView<'a> {
    #[serde(flatten)]
    pub(crate) backup: BackupView<'a>,
    version: &'a str,
    source: &'a str,
    method: &'a str,
    consistency: backup_core::Consistency,
    start: Option<&'a LogPosition>,
    stop: Option<&'a LogPosition>,
    findings: &'a [Finding],
    lossy: &'a [backup_core::LossyItem],
    facts: &'a std::collections::BTreeMap<String, String>,
    /// The members of a backup of several, and how far their moments lie apart in microseconds.
    group: Option<&'a Group>,
    /// `entries` is their number.
    entry_list: &'a [EntryInfo],
    /// The drill that has proven it last, if one has.
    #[serde(skip_serializing_if = "Option::is_none")]
    proof: Option<DrillView<'a>>,
}

impl<'a> ShowView<'a> {
    pub(crate) fn new(record: &'a BackupRecord, entry_list: &'a [EntryInfo], proof: Option<DrillView<'a>>) -> Self {
        let snapshot: &Snapshot = &record.snapshot;
        Self {
            backup: record.into(),
            version: &snapshot.version,
            source: &snapshot.source,
            method: &snapshot.method,
            consistency: snapshot.consistency,
            start: snapshot.start.as_ref(),
            stop: snapshot.stop.as_ref(),
            findings: &snapshot.findings,
            lossy: &snapshot.lossy,
            facts: &snapshot.facts,
            group: snapshot.group.as_ref(),
            entry_list,
            proof,
        }
    }
}

/// A repository that was created.
#[derive(Debug, Serialize)]
pub(crate) struct InitView<'a> {
    pub(crate) service: &'a str,
    pub(crate) vault: &'a str,
    pub(crate) repository: String,
    pub(crate) suite: String,
}

/// What a restore would do.
#[derive(Debug, Serialize)]
pub(crate) struct PlanView<'a> {
    pub(crate) backup: BackupView<'a>,
    pub(crate) into: &'a str,
    pub(crate) target: String,
    pub(crate) inclusive: bool,
    /// What is read.
    pub(crate) reads: Footprint,
    /// The log that is replayed behind the backup, at most.
    pub(crate) log: Option<LogReach<'a>>,
    /// Whether the engine would refuse it.
    pub(crate) refused: bool,
    pub(crate) findings: &'a [Finding],
}

/// What a restore did.
#[derive(Debug, Serialize)]
pub(crate) struct RestoreView<'a> {
    pub(crate) backup: BackupView<'a>,
    pub(crate) into: &'a str,
    #[serde(flatten)]
    pub(crate) extracted: Extracted,
    pub(crate) seconds: f64,
    pub(crate) findings: &'a [Finding],
}

/// What a drill has shown, and the entry of the catalog that tells it.
#[derive(Debug, Serialize)]
pub(crate) struct DrillView<'a> {
    #[serde(flatten)]
    record: &'a DrillRecord,
    /// How long a real restore would have taken here, in milliseconds.
    recovery_ms: u64,
    /// The last entry of the catalog, which chains the record.
    pub(crate) head: HeadView,
}

/// The last entry of the catalog.
#[derive(Debug, Serialize)]
pub(crate) struct HeadView {
    generation: u32,
    pub(crate) number: u64,
    /// BLAKE3 of the entry as it is stored.
    pub(crate) digest: String,
}

impl From<CatalogHead> for HeadView {
    fn from(head: CatalogHead) -> Self {
        let digest = head.digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Self { generation: head.generation, number: head.number, digest }
    }
}

impl<'a> DrillView<'a> {
    pub(crate) fn new(record: &'a DrillRecord, head: CatalogHead) -> Self {
        Self { record, recovery_ms: record.recovery_ms(), head: head.into() }
    }
}

/// What a check saw.
#[derive(Debug, Serialize)]
pub(crate) struct VerifyView<'a> {
    pub(crate) level: &'a str,
    pub(crate) sound: bool,
    pub(crate) backups: u64,
    pub(crate) objects: u64,
    pub(crate) read_bytes: u64,
    pub(crate) damages: &'a [Damage],
    /// The backups that cannot be fully restored.
    pub(crate) harmed: Vec<BackupId>,
    pub(crate) garbage_objects: u64,
    pub(crate) garbage_bytes: u64,
    /// Everything that was needed at this moment, and still is, was read since.
    pub(crate) read_since: Option<Timestamp>,
    /// What the engines said about each backup, at level `engine`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) checks: Option<&'a [EngineCheckView]>,
}

impl<'a> VerifyView<'a> {
    pub(crate) fn new(level: &'a str, report: &'a VerifyReport, checks: Option<&'a [EngineCheckView]>) -> Self {
        let unsound = |check: &&EngineCheckView| !check.sound;
        let mut harmed = report.harmed();
        harmed.extend(checks.unwrap_or_default().iter().filter(unsound).map(|check| check.backup));
        harmed.sort_unstable();
        harmed.dedup();
        Self {
            level,
            sound: report.is_sound() && harmed.is_empty(),
            backups: report.backups,
            objects: report.objects,
            read_bytes: report.read_bytes,
            damages: &report.damages,
            harmed,
            garbage_objects: report.garbage_objects,
            garbage_bytes: report.garbage_bytes,
            read_since: report.read_since,
            checks,
        }
    }
}

/// What an engine said about a backup that it looked into.
#[derive(Debug, Serialize)]
pub(crate) struct EngineCheckView {
    pub(crate) backup: BackupId,
    pub(crate) engine: String,
    pub(crate) sound: bool,
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
    pub(crate) findings: Vec<Finding>,
}

/// The log behind a backup.
#[derive(Debug, Serialize)]
pub(crate) struct LogReach<'a> {
    pub(crate) from: &'a LogPosition,
    pub(crate) to: LogPosition,
    pub(crate) bytes: u64,
}

/// What a capture has done.
#[derive(Debug, Serialize)]
pub(crate) struct LogView<'a> {
    /// The number of the writer.
    pub(crate) epoch: backup_core::log::LogEpoch,
    /// Up to where everything that was received is stored.
    pub(crate) durable: Option<&'a LogPosition>,
    pub(crate) findings: &'a [Finding],
}

/// What an import has done.
#[derive(Debug, Serialize)]
pub(crate) struct ImportView<'a> {
    #[serde(flatten)]
    pub(crate) imported: &'a Imported,
}

/// What can be restored.
#[derive(Debug, Serialize)]
pub(crate) struct WindowsView<'a> {
    windows: Vec<WindowView<'a>>,
    holes: &'a [Hole],
}

#[derive(Debug, Serialize)]
struct WindowView<'a> {
    from: &'a LogPosition,
    from_time: Timestamp,
    to: &'a LogPosition,
    to_time: Timestamp,
    log_bytes: u64,
    backups: Vec<BackupId>,
    /// Whether it is off the history that the source follows.
    orphaned: bool,
}

impl<'a> WindowsView<'a> {
    pub(crate) fn new(restorable: &'a Restorable) -> Self {
        let windows = restorable.windows.iter().map(|timed| WindowView {
            from: timed.window.from(),
            from_time: timed.from_time,
            to: &timed.window.to,
            to_time: timed.to_time,
            log_bytes: timed.window.path.len(),
            backups: timed.window.backups.iter().map(|backup| backup.id).collect(),
            orphaned: timed.window.orphaned,
        });
        Self { windows: windows.collect(), holes: &restorable.holes }
    }
}
