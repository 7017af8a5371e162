//! `backup ENGINE`: take a backup.

use backup_core::run::{self, BackupOptions};
use clap::Args;

use super::{Context, describe};
use crate::cli::engines::{OnEngine, Source};
use crate::cli::failure::Failure;
use crate::cli::view::BackupView;
use crate::human;
use crate::table::Cell;

/// Options of the command itself.
#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// Store everything anew instead of only what changed since the newest backup
    #[arg(long)]
    full: bool,
}

pub(super) async fn run(cx: &mut Context<'_, '_>, engine: OnEngine<Source, BackupArgs>) -> Result<(), Failure> {
    let source = engine.source()?;
    let repository = cx.open().await?;
    let options = if engine.options.full { BackupOptions::full() } else { BackupOptions::default() };
    let begun = cx.work().env().clock().monotonic();
    let backup = run::backup(&repository, source.as_ref(), options, cx.work()).await?;
    let took = cx.work().env().clock().monotonic().saturating_sub(begun);
    if cx.json() {
        return cx.document(&BackupView::from(&backup));
    }
    let mut table = describe(&backup);
    table.row(vec![Cell::text("took"), Cell::text(human::duration(took))]);
    table.row(vec![Cell::text("rate"), Cell::text(human::rate(backup.data_bytes, took))]);
    cx.table(&table)?;
    cx.remark_findings(&backup.snapshot.findings);
    Ok(())
}
