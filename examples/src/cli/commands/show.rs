//! `show BACKUP`: one backup with its entries.

use std::time::Duration;

use backup_core::BackupId;
use backup_core::entry::{EntryInfo, EntryKind, Selector};
use backup_core::repository::Repository as _;
use clap::Args;
use futures::TryStreamExt;

use super::{Context, describe};
use crate::cli::failure::Failure;
use crate::cli::view::{DrillView, ShowView};
use crate::human;
use crate::table::{Cell, Table};

/// Options of the command.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The backup's id, as `list` shows it
    backup: String,
}

pub(super) async fn run(cx: &mut Context<'_, '_>, args: ShowArgs) -> Result<(), Failure> {
    let id: BackupId = args.backup.parse()?;
    let repository = cx.open().await?;
    let source = cx.work().run(repository.open(id)).await?;
    // Read whole before anything is written: output is either a complete document or an error.
    let entries: Vec<EntryInfo> = cx.work().run(source.entries(Selector::all()).try_collect()).await?;
    let backup = source.record();
    let catalog = cx.work().run(repository.catalog()).await?;
    let proof = catalog.drills().proof_of(id);
    if cx.json() {
        let head = cx.work().run(async { Ok(repository.head().await?) }).await?;
        let proof = proof.map(|record| DrillView::new(record, head));
        return cx.document(&ShowView::new(backup, &entries, proof));
    }
    let mut about = describe(backup);
    about.row(vec![Cell::text("version"), Cell::text(&backup.snapshot.version)]);
    about.row(vec![Cell::text("source"), Cell::text(&backup.snapshot.source)]);
    about.row(vec![Cell::text("method"), Cell::text(&backup.snapshot.method)]);
    for finding in &backup.snapshot.findings {
        about.row(vec![Cell::text("finding"), Cell::text(finding)]);
    }
    for lossy in &backup.snapshot.lossy {
        about.row(vec![Cell::text("left out"), Cell::text(format!("{}: {}", lossy.item, lossy.reason))]);
    }
    if let Some(group) = &backup.snapshot.group {
        for member in &group.members {
            let position = member.stop.as_ref().map(|stop| format!(", at {stop}")).unwrap_or_default();
            about.row(vec![Cell::text("member"), Cell::text(format!("{}: {}{position}", member.name, member.version))]);
        }
        if let Some(skew) = group.skew {
            about.row(vec![Cell::text("skew"), Cell::text(format!("{:?}", Duration::from_micros(skew)))]);
        }
    }
    if let Some(proof) = proof {
        let took = human::duration(Duration::from_millis(proof.recovery_ms()));
        about.row(vec![Cell::text("proven"), Cell::text(format!("{}, served after {took}", proof.ended))]);
    }
    for (name, value) in &backup.snapshot.facts {
        about.row(vec![Cell::text(name), Cell::text(first_line(value))]);
    }
    cx.table(&about)?;
    cx.line("")?;
    let mut table = Table::new(&["entry", "kind", "size", "modified"]);
    for entry in &entries {
        let modified = entry.meta.modified.map(|time| time.to_string()).unwrap_or_default();
        table.row(vec![
            Cell::text(&entry.meta.path),
            Cell::text(kind(&entry.meta.kind)),
            Cell::Bytes(entry.len),
            Cell::text(modified),
        ]);
    }
    cx.table(&table)
}

fn kind(kind: &EntryKind) -> &'static str {
    match kind {
        EntryKind::File => "file",
        EntryKind::Directory => "directory",
        EntryKind::Symlink { .. } => "symlink",
        EntryKind::Record => "record",
        _ => "unknown",
    }
}

/// Facts are the engine's own and may be whole files.
fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
