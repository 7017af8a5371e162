//! `look redis …`: the keys inside backups, without a server.

mod diff;
mod histogram;
mod keys;

use std::sync::Arc;

use backup_core::engine::BackupSource;
use backup_core::repository::Repository as _;
use backup_core::{BackupId, Error};
use backup_redis::look::{KeyEntry, Look};
use backup_redis::rdb::Counted;
use backup_storage::Repository;
use clap::Subcommand;
use jiff::Timestamp;
use serde::Serialize;

use super::Context;
use crate::cli::failure::Failure;
use crate::cli::keys::shown;
use crate::table::Cell;

/// Which kind of backups.
#[derive(Debug, Subcommand)]
pub(crate) enum LookCommand {
    /// Backups of Redis and Valkey
    #[command(subcommand)]
    Redis(RedisCommand),
}

/// What is wanted to be seen.
#[derive(Debug, Subcommand)]
pub(crate) enum RedisCommand {
    /// List keys with their type, the size of their value in the backup, and when they expire
    List(keys::KeysArgs),
    /// Add keys up by type, by size and by the beginnings of their names, and show the biggest ones
    Histogram(histogram::HistogramArgs),
    /// Show which keys were added, removed and changed between two backups
    Diff(diff::DiffArgs),
}

pub(super) async fn run(cx: &mut Context<'_, '_>, command: LookCommand) -> Result<(), Failure> {
    let LookCommand::Redis(command) = command;
    match command {
        RedisCommand::List(args) => keys::run(cx, args).await,
        RedisCommand::Histogram(args) => histogram::run(cx, args).await,
        RedisCommand::Diff(args) => diff::run(cx, args).await,
    }
}

/// A backup that is looked into.
struct Looked {
    id: BackupId,
    look: Look,
}

/// Opens the backup of this id; without one the newest.
async fn open(cx: &Context<'_, '_>, repository: &Repository, id: Option<&str>) -> Result<Looked, Failure> {
    let id = match id {
        Some(id) => id.parse()?,
        None => {
            let catalog = cx.work().run(repository.catalog()).await?;
            let newest = catalog.backups().rfind(|backup| backup.snapshot.engine == "redis");
            newest.ok_or_else(|| Error::invalid("there is no backup of redis"))?.id
        }
    };
    let source: Arc<dyn BackupSource> = cx.work().run(repository.open(id)).await?;
    let engine = &source.record().snapshot.engine;
    if engine != "redis" {
        return Err(Error::invalid(format!("backup {id} is one of {engine}, not of redis")).into());
    }
    let look = cx.work().run(Look::open(&source)).await?;
    Ok(Looked { id, look })
}

/// A key.
#[derive(Debug, Serialize)]
struct KeyView {
    database: u64,
    /// The key, with `\xNN` for what is no text.
    key: String,
    /// False for a key that is too long to be shown whole.
    whole: bool,
    kind: &'static str,
    bytes: u64,
    expires: Option<Timestamp>,
}

impl From<&KeyEntry> for KeyView {
    fn from(entry: &KeyEntry) -> Self {
        Self {
            database: entry.database,
            key: shown(&entry.key),
            whole: entry.whole,
            kind: entry.kind.name(),
            bytes: entry.bytes,
            expires: entry.expires.and_then(|at| Timestamp::from_millisecond(at).ok()),
        }
    }
}

impl KeyView {
    /// The columns database, key, type, size and expiry.
    fn cells(&self) -> [Cell; 5] {
        let (key, kind) = (Cell::text(&self.key), Cell::text(self.kind));
        [Cell::text(self.database), key, kind, Cell::Bytes(self.bytes), Cell::text(self.expiry())]
    }

    /// When it expires, for people.
    fn expiry(&self) -> String {
        self.expires.map(|at| at.to_string()).unwrap_or_default()
    }
}

/// From where on the snapshot could not be seen into.
fn unseen(counted: Counted) -> Option<u64> {
    match counted {
        Counted::All => None,
        Counted::Until { offset, .. } => Some(offset),
    }
}

/// Says that not all was seen.
fn remark_unseen(cx: &mut Context<'_, '_>, counted: Counted) {
    if let Counted::Until { offset, what } = counted {
        cx.remark(&format!(
            "at byte {offset} stands the type {what}, which is not known here: keys behind it are not seen"
        ));
    }
}
