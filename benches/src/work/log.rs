//! PostgreSQL's log into a vault and back.

use std::path::Path;

use backup_core::engine::{LogOptions, Work as Context};
use backup_core::repository::Repository as _;
use backup_core::run::import as import_log;
use backup_postgres::{LogExport, LogSlot, Lsn, PostgresEngine, PostgresSettings, export_log};
use backup_storage::Repository;

use super::{Following, requests};
use crate::Error;
use crate::measure::Said;

/// Follows the server's log from a slot's position to `end`; bytes of log.
pub(super) async fn capture(repository: &Repository, url: String, slot: String, end: &str) -> Result<u64, Error> {
    let settings = PostgresSettings::default().url(url).slot(LogSlot::Named(slot));
    let end = end.parse::<Lsn>()?.0;
    let following = Following::with(repository, settings, LogOptions::default()).await?;
    following.reaches(end).await?;
    Ok(end - following.stop().await?)
}

pub(super) async fn import(repository: &Repository, dir: &Path) -> Result<Said, Error> {
    let engine = PostgresEngine::new(PostgresSettings::default())?;
    let imported = import_log(repository, &engine, dir, LogOptions::default(), &Context::default()).await?;
    Ok(Said { bytes: imported.bytes, requests: requests(repository), ..Said::default() })
}

/// Writes the stored log into `into` as segments, each of them durable.
pub(super) async fn fetch(repository: &Repository, into: &Path) -> Result<Said, Error> {
    let log = repository.log().await?;
    let exported = export_log(log.as_ref(), &LogExport::default(), into, &Context::default()).await?;
    Ok(Said { bytes: exported.bytes, requests: requests(repository), ..Said::default() })
}
