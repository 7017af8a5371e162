//! PostgreSQL's log into a vault and back.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use backup_core::engine::{LogOptions, Work as Context};
use backup_core::log::LogRange;
use backup_core::repository::Repository as _;
use backup_core::run::import as import_log;
use backup_postgres::{LogSlot, Lsn, PostgresEngine, PostgresSettings};
use backup_storage::Repository;
use futures::TryStreamExt as _;

use super::{Following, requests};
use crate::Error;
use crate::measure::Said;

const SEGMENT: u64 = 16 << 20;

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

/// Writes everything that is stored of the trunk into `into`, a file for each segment, each of them synced as a restore does.
pub(super) async fn fetch(repository: &Repository, into: &Path) -> Result<Said, Error> {
    let source = repository.log().await?;
    let ledger = source.ledger();
    let lineage = ledger.trunk().ok_or("no log is stored")?.clone();
    let mut bytes = 0;
    for range in ledger.covered(&lineage).as_slice() {
        let mut pieces = source.read(LogRange::new(lineage.clone(), range.clone()));
        let mut at = range.start;
        let mut file: Option<File> = None;
        while let Some(mut piece) = pieces.try_next().await? {
            while !piece.is_empty() {
                let room = usize::try_from(SEGMENT - at % SEGMENT)?;
                let part = piece.split_to(piece.len().min(room));
                let open = match &mut file {
                    Some(open) => open,
                    none => none.insert(File::create(into.join(format!("{:016X}", at / SEGMENT)))?),
                };
                open.write_all(&part)?;
                at += part.len() as u64;
                if at.is_multiple_of(SEGMENT) {
                    open.sync_all()?;
                    file = None;
                }
            }
        }
        if let Some(last) = file {
            last.sync_all()?;
        }
        bytes += at - range.start;
    }
    Ok(Said { bytes, requests: requests(repository), ..Said::default() })
}
