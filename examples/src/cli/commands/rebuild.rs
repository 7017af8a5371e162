//! `rebuild`: the catalog again, from packs, keys and log.

use backup_core::{Error, ErrorKind};
use clap::Args;

use super::Context;
use crate::cli::failure::Failure;
use crate::table::{Cell, Table};

/// Options of the command.
#[derive(Debug, Args)]
pub(crate) struct RebuildArgs {
    /// Also when the catalog can be read. Forgotten are holds, decisions about expiry, results of verifications and drills, labels of recipients, and a
    /// managed service's life
    #[arg(long)]
    force: bool,
}

pub(super) async fn run(cx: &mut Context<'_, '_>, args: RebuildArgs) -> Result<(), Failure> {
    let repository = cx.open().await?;
    if !args.force {
        match backup_core::repository::Repository::catalog(&repository).await {
            Ok(_) => {
                return Err(Error::invalid(
                    "the catalog can be read, and knows more than packs and keys do; --force rebuilds it all the same",
                )
                .into());
            }
            Err(error) if error.kind() == ErrorKind::Damaged => cx.remark(&error.to_string()),
            Err(error) => return Err(error.into()),
        }
    }
    let done = repository.rebuild_catalog(cx.work()).await?;
    if cx.json() {
        return cx.document(&done);
    }
    let mut table = Table::new(&[]);
    let mut row = |name: &str, value: Cell| table.row(vec![Cell::text(name), value]);
    row("generation", Cell::Count(u64::from(done.generation)));
    row("backups", Cell::Count(done.backups.len() as u64));
    let doubtful = done.backups.iter().filter(|backup| !backup.witnessed);
    row("whole, perhaps never committed", Cell::Count(doubtful.count() as u64));
    row("lineages of log", Cell::Count(done.lineages.len() as u64));
    cx.table(&table)?;
    for skipped in &done.skipped {
        cx.remark(&format!("{} was not recovered: {}", skipped.object, skipped.reason));
    }
    Ok(())
}
