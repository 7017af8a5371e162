//! `adopt`: what hosts that only write have deposited becomes backups.

use clap::Args;

use super::Context;
use crate::cli::failure::Failure;
use crate::table::{Cell, Table};

/// It has no options of its own.
#[derive(Debug, Args)]
pub(crate) struct AdoptArgs {}

pub(super) async fn run(cx: &mut Context<'_, '_>, AdoptArgs {}: AdoptArgs) -> Result<(), Failure> {
    let repository = cx.open().await?;
    let done = repository.adopt_deposits(cx.work()).await.map_err(backup_core::Error::from)?;
    if cx.json() {
        return cx.document(&done);
    }
    let mut table = Table::new(&["session", "host", "became"]);
    for adopted in &done.adopted {
        let became = format!("backup {}", adopted.record.id);
        table.row(vec![Cell::text(adopted.record.session), Cell::text(adopted.host), Cell::text(became)]);
    }
    for refused in &done.refused {
        let became = format!("nothing: {}", refused.text);
        table.row(vec![Cell::text(refused.session), Cell::text(refused.host), Cell::text(became)]);
    }
    for waiting in &done.waiting {
        let host = waiting.host.map(|host| host.to_string()).unwrap_or_default();
        table.row(vec![Cell::text(waiting.session), Cell::text(host), Cell::text(format!("waits: {}", waiting.text))]);
    }
    cx.table(&table)
}
