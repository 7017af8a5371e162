//! `look redis diff`: what has changed between two backups.

use backup_core::run;
use backup_redis::look::{Change, DiffSettings, Difference, diff};
use clap::Args;
use serde::Serialize;

use super::{KeyView, open};
use crate::cli::commands::Context;
use crate::cli::failure::Failure;
use crate::cli::keys::KeyArgs;
use crate::table::{Cell, Table};

/// Options of the command.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// The id of the older backup
    old: String,
    /// The id of the newer backup [default: the newest]
    new: Option<String>,
    #[command(flatten)]
    keys: KeyArgs,
    /// At most so many changes are shown; all are counted
    #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
    limit: usize,
    /// At most so many MiB of memory for the table of keys: 11 million keys fit into 512 at a time, and for more the backups are
    /// read again
    #[arg(long, value_name = "MIB", default_value_t = 512)]
    memory: usize,
}

#[derive(Debug, Serialize)]
struct DiffView {
    old: backup_core::BackupId,
    new: backup_core::BackupId,
    added: u64,
    removed: u64,
    changed: u64,
    expiry_only: u64,
    same: u64,
    /// Whether the backups are in different versions of the format: then values may be written in another way.
    formats_differ: bool,
    changes: Vec<ChangeView>,
    /// Whether there are more changes than the limit.
    more: bool,
}

#[derive(Debug, Serialize)]
struct ChangeView {
    change: &'static str,
    #[serde(flatten)]
    key: KeyView,
}

pub(super) async fn run(cx: &mut Context<'_, '_>, args: DiffArgs) -> Result<(), Failure> {
    let repository = cx.open().await?;
    let old = open(cx, &repository, Some(&args.old)).await?;
    let new = open(cx, &repository, args.new.as_deref()).await?;
    let settings = DiffSettings::default().filter(args.keys.filter()).memory(args.memory.saturating_mul(1 << 20));
    let (mut changes, mut more) = (Vec::new(), false);
    let keep = |change: Change| {
        if changes.len() == args.limit {
            more = true;
        } else {
            changes.extend(viewed(&change));
        }
        Ok(())
    };
    let comparing = cx.work().run(diff(&old.look, &new.look, &settings, cx.work(), keep));
    let found = run::while_reading(&repository, "look", cx.work(), comparing).await?;
    let Difference { added, removed, changed, expiry_only, same, formats_differ, .. } = found;
    if cx.json() {
        let (old, new) = (old.id, new.id);
        let view = DiffView { old, new, added, removed, changed, expiry_only, same, formats_differ, changes, more };
        return cx.document(&view);
    }
    let mut table = Table::new(&["change", "database", "key", "type", "size", "expires"]);
    for ChangeView { change, key } in &changes {
        table.row([Cell::text(change)].into_iter().chain(key.cells()).collect());
    }
    cx.table(&table)?;
    cx.line("")?;
    let mut sums = Table::new(&[]);
    let named = [("added", added), ("removed", removed), ("changed", changed), ("expiry", expiry_only), ("same", same)];
    for (name, number) in named {
        sums.row(vec![Cell::text(name), Cell::Count(number)]);
    }
    cx.table(&sums)?;
    if formats_differ {
        cx.remark("the backups are in different versions of the format: a value may only be written in another way");
    }
    Ok(())
}

/// A change as one line.
fn viewed(change: &Change) -> Option<ChangeView> {
    let (change, entry) = match change {
        Change::Added(entry) => ("added", entry),
        Change::Removed(entry) => ("removed", entry),
        Change::Changed { now, value: true, .. } => ("changed", now),
        Change::Changed { now, .. } => ("expiry", now),
        _ => return None,
    };
    Some(ChangeView { change, key: entry.into() })
}
