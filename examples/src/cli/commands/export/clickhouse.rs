//! `export clickhouse`: a table of a backup as a file of another format.

use std::path::{Path, PathBuf};

use backup_clickhouse::{ClickHouse, TableKey, export};
use backup_core::{BackupId, Error, RecoveryTarget};
use clap::Args;
use serde::Serialize;

use super::{Context, without_password};
use crate::cli::engines::clickhouse::FileArgs;
use crate::cli::failure::Failure;
use crate::human;

#[derive(Debug, Args)]
pub(crate) struct ClickHouseArgs {
    /// The running server that it goes through: http://[user:password@]host[:port]. It needs room for the table
    #[arg(long, value_name = "URL")]
    through: String,
    /// The table
    #[arg(long, value_name = "DATABASE.TABLE", value_parser = table)]
    table: TableKey,
    /// A format of the server: Parquet, Native, CSVWithNames, JSONEachRow, …
    #[arg(long, value_name = "NAME", default_value = "Parquet")]
    format: String,
    /// The file, which must not exist
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// The backup [default: the newest]
    #[arg(long, value_name = "ID")]
    backup: Option<BackupId>,
    #[command(flatten)]
    files: FileArgs,
}

fn table(text: &str) -> Result<TableKey, String> {
    match text.split_once('.') {
        Some((database, table)) if !database.is_empty() && !table.is_empty() => Ok(TableKey::new(database, table)),
        _ => Err("must be DATABASE.TABLE".to_owned()),
    }
}

#[derive(Debug, Serialize)]
struct ExportView<'a> {
    table: String,
    through: String,
    format: &'a str,
    output: &'a Path,
    bytes: u64,
    findings: &'a [backup_core::Finding],
}

pub(super) async fn run(cx: &mut Context<'_, '_>, args: ClickHouseArgs) -> Result<(), Failure> {
    let ClickHouseArgs { through, table, format, output, backup, files } = args;
    let engine = ClickHouse::new(files.settings().url(&through))?;
    let target = backup.map_or_else(RecoveryTarget::latest, RecoveryTarget::backup);
    if output.symlink_metadata().is_ok() {
        return Err(Error::invalid(format!("{} exists already", output.display())).into());
    }
    let repository = cx.open().await?;
    // Under its own name only when it is whole.
    let mut partial = output.clone().into_os_string();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let failed = |error| Error::io(partial.display(), error);
    let mut file = tokio::fs::File::create(&partial).await.map_err(failed)?;
    let exported = export::export(&repository, &engine, target, &table, &format, &mut file, cx.work()).await;
    let done = match exported {
        Ok(done) => {
            file.sync_all().await.and_then(|()| std::fs::rename(&partial, &output)).map_err(failed).map(|()| done)
        }
        Err(error) => Err(error),
    };
    let done = match done {
        Ok(done) => done,
        Err(error) => {
            std::fs::remove_file(&partial).map_err(failed)?;
            return Err(error.into());
        }
    };
    if cx.json() {
        let (table, through) = (table.to_string(), without_password(&through));
        let (output, findings) = (output.as_path(), done.findings.as_slice());
        return cx.document(&ExportView { table, through, format: &format, output, bytes: done.bytes, findings });
    }
    cx.line(&format!("{table}: {} in {} ({format})", human::size(done.bytes), output.display()))?;
    cx.remark_findings(&done.findings);
    Ok(())
}
