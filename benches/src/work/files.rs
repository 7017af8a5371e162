//! A directory into a vault and back.

use std::path::PathBuf;

use backup_core::RecoveryTarget;
use backup_core::engine::Work as Context;
use backup_core::entry::Selector;
use backup_core::run::{BackupOptions, backup, plan_restore, restore};
use backup_storage::Repository;

use super::requests;
use crate::Error;
use crate::directory::Directory;
use crate::measure::Said;

pub(super) async fn take(repository: &Repository, dir: PathBuf) -> Result<Said, Error> {
    let record = backup(repository, &Directory::new(dir), BackupOptions::default(), &Context::default()).await?;
    Ok(Said {
        bytes: record.data_bytes,
        stored: record.stored_bytes,
        content_read: record.snapshot.fact("read_bytes").and_then(|text| text.parse().ok()).unwrap_or(0),
        requests: requests(repository),
    })
}

pub(super) async fn put_back(repository: &Repository, into: PathBuf, delta: bool) -> Result<Said, Error> {
    let (engine, work) = (Directory::new(into).with_delta(delta), Context::default());
    let plan = plan_restore(repository, &engine, RecoveryTarget::latest(), Selector::all(), &work).await?;
    let extracted = restore(&engine, &plan, &work).await?.extracted;
    let requests = requests(repository);
    Ok(Said { bytes: extracted.bytes, stored: extracted.written_bytes, requests, ..Said::default() })
}
