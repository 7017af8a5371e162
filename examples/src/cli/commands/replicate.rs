//! `replicate`: a further region of the same repository.

use backup_storage::RegionState;
use backup_storage::store::{Store, StoreSettings};
use clap::Args;

use super::Context;
use crate::cli::failure::Failure;
use crate::table::{Cell, Table};

/// Options of the command.
#[derive(Debug, Args)]
pub(crate) struct ReplicateArgs {
    /// The other vault: file:///absolute/dir, s3://bucket/prefix, gs://…, az://…
    #[arg(long, value_name = "URL", required_unless_present = "promote")]
    to: Option<String>,
    /// Say how far the region is, and copy nothing
    #[arg(long, requires = "to")]
    status: bool,
    /// Make the region that --vault names a repository that is written to; from then on it does not follow the first one any more
    #[arg(long, conflicts_with_all = ["to", "status"])]
    promote: bool,
}

pub(super) async fn run(cx: &mut Context<'_, '_>, args: ReplicateArgs) -> Result<(), Failure> {
    let repository = cx.open().await?;
    let refused = backup_core::Error::from;
    let Some(to) = args.to else {
        repository.promote().await.map_err(refused)?;
        return match cx.json() {
            true => cx.document(&serde_json::json!({ "promoted": true })),
            false => cx.line("it is a repository of its own now"),
        };
    };
    if args.status {
        crate::cli::vault::must_exist(&to)?;
    }
    let there = Store::open(&to, &StoreSettings::default()).map_err(refused)?;
    if args.status {
        let state = repository.region(&there).await.map_err(refused)?;
        if cx.json() {
            return cx.document(&state);
        }
        return cx.table(&table(&state));
    }
    let done = repository.replicate(&there, cx.work()).await.map_err(refused)?;
    if cx.json() {
        return cx.document(&done);
    }
    let mut table = table(&done.region);
    table.row(vec![Cell::text("objects copied"), Cell::Count(done.objects)]);
    table.row(vec![Cell::text("bytes copied"), Cell::Bytes(done.bytes)]);
    table.row(vec![Cell::text("objects deleted there"), Cell::Count(done.deleted)]);
    cx.table(&table)?;
    cx.remark_findings(&done.findings);
    Ok(())
}

fn table(state: &RegionState) -> Table {
    let mut table = Table::new(&[]);
    let mut row = |name: &str, value: Cell| table.row(vec![Cell::text(name), value]);
    row("newest backup there", Cell::text(state.newest.map(|id| id.to_string()).unwrap_or_default()));
    row("what is there was true at", Cell::text(state.until.map(|at| at.to_string()).unwrap_or_default()));
    row("backups missing there", Cell::Count(state.missing.len() as u64));
    row("entries missing there", Cell::Count(state.entries_behind));
    for (lineage, lag) in &state.log {
        row(&format!("log of {lineage} missing there"), Cell::Bytes(lag.here.saturating_sub(lag.there)));
    }
    table
}
