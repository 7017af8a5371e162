//! Rows of tables without parts: they were read as any reader reads them, and are inserted.

use std::sync::Arc;

use backup_core::engine::{BackupSource, RestoreContext};
use backup_core::entry::EntryPath;
use backup_core::{Error, Finding, Result, Severity};
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};

use super::settings::RestoreSettings;
use crate::client::Client;
use crate::layout;
use crate::server::{ObjectKind, TableDef, TableKey};

/// Inserts the rows of `table`, if it has some in the backup, before views are made of it, which would pass them on once more.
pub(super) async fn insert(
    cx: &RestoreContext,
    client: &Client,
    settings: &RestoreSettings,
    table: &TableDef,
) -> Result<Option<Finding>> {
    let path = layout::rows(&table.key)?;
    let meant = table.kind() == ObjectKind::Content && !settings.structure_only && cx.selector().matches(&path);
    if !meant {
        return Ok(None);
    }
    let Some(entry) = cx.source().entry(&path).await?.filter(|entry| entry.len > 0) else { return Ok(None) };
    let target = settings.target(&table.key);
    if !is_empty(client, &target).await? {
        let text = "has rows already, and none are added: they could be the same";
        return Ok(Some(Finding::new(Severity::Warning, "rows-there", text).about(target.to_string())));
    }
    let sql = format!("INSERT INTO {} FORMAT Native", target.quoted());
    let rows = read(Arc::clone(cx.source()), path, entry.len);
    client.insert(&format!("the rows of {target}"), &sql, rows).await?;
    Ok(None)
}

async fn is_empty(client: &Client, table: &TableKey) -> Result<bool> {
    let sql = format!("SELECT 1 AS one FROM {} LIMIT 1", table.quoted());
    Ok(client.text(&format!("a row of {table}"), &sql).await?.is_empty())
}

/// The content of an entry, as a stream that owns what it reads from. One piece is read ahead.
fn read(source: Arc<dyn BackupSource>, path: EntryPath, len: u64) -> BoxStream<'static, Result<Bytes, Error>> {
    let (tell, told) = tokio::sync::mpsc::channel(1);
    let reading = tokio::spawn(async move {
        let mut pieces = source.read(&path, 0..len);
        while let Some(piece) = pieces.next().await {
            // Nobody wants the rest.
            if tell.send(piece).await.is_err() {
                return;
            }
        }
    });
    let reading = tokio_util::task::AbortOnDropHandle::new(reading);
    stream::unfold((told, reading), |(mut told, reading)| async move {
        let piece = told.recv().await?;
        Some((piece, (told, reading)))
    })
    .boxed()
}
