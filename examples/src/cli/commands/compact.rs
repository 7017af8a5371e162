//! `compact`: merge the small objects of the log.

use std::time::Duration;

use backup_storage::CompactLog;
use clap::Args;

use super::{Context, log};
use crate::cli::failure::Failure;
use crate::table::{Cell, Table};

/// Options of the command.
#[derive(Debug, Args)]
pub(crate) struct CompactArgs {
    /// Leave objects alone that were stored less than this ago
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = log::duration)]
    least_age: Duration,
    /// Read at most so many bytes; the rest is for the next time
    #[arg(long, value_name = "BYTES")]
    most_bytes: Option<u64>,
}

pub(super) async fn run(cx: &mut Context<'_, '_>, args: CompactArgs) -> Result<(), Failure> {
    let mut options = CompactLog::default().least_age(args.least_age);
    if let Some(bytes) = args.most_bytes {
        options = options.most_bytes(bytes);
    }
    let repository = cx.open().await?;
    let done = repository.compact_log(&options, cx.work()).await.map_err(backup_core::Error::from)?;
    if cx.json() {
        return cx.document(&done);
    }
    let mut table = Table::new(&[]);
    let mut row = |name: &str, value: Cell| table.row(vec![Cell::text(name), value]);
    row("objects before", Cell::Count(done.objects_before));
    row("objects after", Cell::Count(done.objects_after));
    row("bytes before", Cell::Bytes(done.bytes_before));
    row("bytes after", Cell::Bytes(done.bytes_after));
    cx.table(&table)?;
    cx.remark_findings(&done.findings);
    Ok(())
}
