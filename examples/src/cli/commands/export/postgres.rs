//! `export postgres`: stored log as segment files.

use std::path::{Path, PathBuf};

use backup_core::Finding;
use backup_core::repository::Repository as _;
use backup_postgres::{LogExport, Lsn, export_log};
use clap::Args;
use serde::Serialize;

use super::Context;
use crate::cli::failure::Failure;
use crate::table::{Cell, Table};

#[derive(Debug, Args)]
pub(crate) struct PostgresArgs {
    /// The folder, which must be empty or not exist: `restore_command = 'cp DIR/%f %p'` reads it
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Begin with the segment that holds this position, such as 0/3000028
    #[arg(long, value_name = "LSN")]
    from: Option<Lsn>,
    /// End with the segment that holds the byte before this position
    #[arg(long, value_name = "LSN")]
    until: Option<Lsn>,
}

#[derive(Debug, Serialize)]
struct ExportView<'a> {
    dir: &'a Path,
    segments: u64,
    partial: u64,
    histories: u64,
    bytes: u64,
    findings: &'a [Finding],
}

pub(super) async fn run(cx: &mut Context<'_, '_>, args: PostgresArgs) -> Result<(), Failure> {
    let PostgresArgs { dir, from, until } = args;
    let mut wanted = LogExport::default();
    (wanted.from, wanted.until) = (from, until);
    let repository = cx.open().await?;
    let log = repository.log().await?;
    let done = export_log(log.as_ref(), &wanted, &dir, cx.work()).await?;
    if cx.json() {
        let findings = done.findings.as_slice();
        return cx.document(&ExportView {
            dir: &dir,
            segments: done.segments,
            partial: done.partial,
            histories: done.histories,
            bytes: done.bytes,
            findings,
        });
    }
    let mut table = Table::new(&[]);
    let mut row = |name: &str, value: Cell| table.row(vec![Cell::text(name), value]);
    row("segments", Cell::Count(done.segments));
    row("incomplete segments", Cell::Count(done.partial));
    row("histories", Cell::Count(done.histories));
    row("bytes of log", Cell::Bytes(done.bytes));
    cx.table(&table)?;
    cx.remark_findings(&done.findings);
    Ok(())
}
