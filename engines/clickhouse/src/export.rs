//! One table out of a backup, in a format that other programs read: through a server, which knows them all.
//!
//! The table is restored into a database of its own, read with `SELECT … FORMAT`, and the database is dropped, whatever has happened. Whoever
//! exports holds a lock beside the server's data, so what such a database is found under the lock was left by somebody who died.

use std::path::Path;

use backup_core::engine::Work;
use backup_core::entry::Selector;
use backup_core::repository::Repository;
use backup_core::{Error, Finding, RecoveryTarget, Result, Severity, run};
use futures::TryStreamExt;
use serde::Deserialize;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::client::Client;
use crate::ddl::quote;
use crate::engine::ClickHouse;
use crate::files::{blocking, lock};
use crate::layout;
use crate::restore::RestoreSettings;
use crate::server::TableKey;

/// The beginning of the names of our databases.
pub(crate) const PREFIX: &str = "backup_library_export_";
/// What is locked, below the server's data directory or its staging folder. Servers leave alone what they do not know there.
const LOCK: &str = "backup-library-export";

/// What was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exported {
    /// Bytes, in the format that was asked for.
    pub bytes: u64,
    /// What was noticed.
    pub findings: Vec<Finding>,
}

/// Writes the rows of `table`, as they were at `target`, into `out`, in a format of the server such as `Parquet`, `Native` or `CSVWithNames`.
///
/// `engine` is the server that it goes through: its data directory, or its staging folder, is on this machine, with room for the table. Nothing that it has is touched.
/// A replicated table comes back without its replicas. Only one export at a time goes through a server.
///
/// # Cancel safety
/// Dropped, it leaves the database to be dropped by the next export; cancelled by `work`, it drops it itself. What was written is not whole.
///
/// # Errors
/// [`InvalidInput`](backup_core::ErrorKind::InvalidInput) when the backup has no such table, or `format` is no name of one;
/// [`Conflict`](backup_core::ErrorKind::Conflict) when another export goes through the server; those of the restore, of the server and of `out`.
pub async fn export(
    repository: &dyn Repository,
    engine: &ClickHouse,
    target: RecoveryTarget,
    table: &TableKey,
    format: &str,
    out: &mut (dyn AsyncWrite + Unpin + Send),
    work: &Work,
) -> Result<Exported> {
    if format.is_empty() || !format.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(Error::invalid(format!("{format:?} is no name of a format, such as Parquet")));
    }
    let (client, server) = work.run(engine.ask()).await?;
    let file = match &engine.settings().staging {
        Some(staging) => staging.dir.join(LOCK),
        None => server.default_disk()?.dir.join(LOCK),
    };
    let _lock = blocking(move || locked(&file)).await?;
    let mut findings = Vec::new();
    for left in leftovers(&client).await? {
        drop_database(&client, &left).await?;
        let text = format!("the database {left} of an export that was interrupted");
        findings.push(Finding::new(Severity::Note, "export-removed", text));
    }
    let scratch = format!("{PREFIX}{:016x}", u64::from_le_bytes(work.env().random()));
    let key = TableKey::new(scratch.clone(), table.name.clone());
    let through = async {
        let way = RestoreSettings::default().rename_database(table.database.clone(), scratch.clone());
        let through = engine.clone().with_restore(way.unreplicated(true).keep_access(true));
        let selector = Selector::within([layout::table(layout::DATA, table)?]);
        let plan = run::plan_restore(repository, &through, target, selector, work).await?;
        let restoring = run::restore(&through, &plan, work);
        let restored = run::while_reading(repository, "export", work, restoring).await?;
        let bytes = work.run(write(&client, &key, format, out)).await?;
        Ok::<_, Error>((bytes, restored.findings))
    };
    let outcome = through.await;
    // Whatever has happened, and before it is told.
    let dropped = drop_database(&client, &scratch).await;
    let (bytes, noticed) = outcome?;
    findings.extend(noticed);
    dropped?;
    Ok(Exported { bytes, findings })
}

/// A lock on a file, which is made where it is not there. It stays: whoever removed it could remove that of another one. Blocking.
fn locked(file: &Path) -> Result<std::fs::File> {
    std::fs::create_dir_all(file).map_err(|error| Error::io(file.display(), error))?;
    lock(file).map_err(|error| error.context("another export goes through this server"))
}

async fn leftovers(client: &Client) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Row {
        name: String,
    }
    let rows: Vec<Row> = client.rows("its databases", "SELECT name FROM system.databases").await?;
    Ok(rows.into_iter().map(|row| row.name).filter(|name| name.starts_with(PREFIX)).collect())
}

async fn drop_database(client: &Client, name: &str) -> Result<()> {
    let sql = format!("DROP DATABASE IF EXISTS {}", quote::identifier(name));
    Ok(client.execute("the end of an export", &sql).await?)
}

async fn write(
    client: &Client,
    table: &TableKey,
    format: &str,
    out: &mut (dyn AsyncWrite + Unpin + Send),
) -> Result<u64> {
    let failed = |error: std::io::Error| Error::io("what is exported", error);
    let sql = format!("SELECT * FROM {} FORMAT {format}", table.quoted());
    let mut rows = client.stream("the rows that are exported", &sql).await?;
    let mut bytes = 0;
    while let Some(piece) = rows.try_next().await? {
        out.write_all(&piece).await.map_err(failed)?;
        bytes += piece.len() as u64;
    }
    out.flush().await.map_err(failed)?;
    Ok(bytes)
}
