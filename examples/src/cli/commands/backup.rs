//! `backup ENGINE`: take a backup, or one after the other.

use std::path::PathBuf;
use std::time::Duration;

use backup_core::catalog::BackupRecord;
use backup_core::repository::Repository;
use backup_core::run::{self, BackupOptions};
use backup_core::{BackupEngine, ErrorKind};
use clap::Args;
use serde::Serialize;

use super::log::duration;
use super::{Context, describe};
use crate::cli::engines::{OnEngine, Source};
use crate::cli::failure::Failure;
use crate::cli::view::BackupView;
use crate::human;
use crate::table::Cell;

/// Options of the command itself.
#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// Store everything anew instead of only what changed since the newest backup
    #[arg(long)]
    full: bool,
    /// Take one backup after the other, each so long after the beginning of the one before, until interrupted. What passes (a server or a
    /// vault that is away, another backup that runs) is told, and tried again when the next one is due
    #[arg(long, value_name = "DURATION", value_parser = interval, conflicts_with = "full")]
    every: Option<Duration>,
    /// Deposit it as a host that only writes, with the file that `key host add` has made; no passphrase and no key is needed
    #[arg(long, value_name = "FILE")]
    host_file: Option<PathBuf>,
    /// Folder in which the host remembers its last backup, so that the next one stores only what has changed; it is made where it is not there
    #[arg(long, value_name = "DIR", requires = "host_file")]
    host_state: Option<PathBuf>,
}

fn interval(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("must be longer than nothing".to_owned()),
        every => Ok(every),
    }
}

pub(super) async fn run(cx: &mut Context<'_, '_>, engine: OnEngine<Source, BackupArgs>) -> Result<(), Failure> {
    let source = engine.source()?;
    let BackupArgs { every, host_file, host_state, .. } = &engine.options;
    let repository: Box<dyn Repository> = match host_file {
        Some(file) => Box::new(cx.open_as_host(file, host_state.as_deref()).await?),
        None => Box::new(cx.open().await?),
    };
    if let Some(every) = *every {
        return series(cx, repository.as_ref(), source.as_ref(), every).await;
    }
    let options = if engine.options.full { BackupOptions::full() } else { BackupOptions::default() };
    let begun = cx.work().env().clock().monotonic();
    let backup = run::backup(repository.as_ref(), source.as_ref(), options, cx.work()).await?;
    let took = cx.work().env().clock().monotonic().saturating_sub(begun);
    if cx.json() {
        return cx.document(&BackupView::from(&backup));
    }
    let mut table = describe(&backup);
    table.row(vec![Cell::text("took"), Cell::text(human::duration(took))]);
    table.row(vec![Cell::text("rate"), Cell::text(human::rate(backup.data_bytes, took))]);
    cx.table(&table)?;
    cx.remark_findings(&backup.snapshot.findings);
    if engine.options.host_file.is_some() {
        cx.remark("it is deposited, and a backup once somebody with the keys has adopted it");
    }
    Ok(())
}

/// What a series of backups came to.
#[derive(Debug, Default, Serialize)]
struct SeriesView<'a> {
    taken: u64,
    failed: u64,
    stored_bytes: u64,
    newest: Option<BackupView<'a>>,
    /// Why the last one that failed did.
    problem: Option<String>,
}

/// Takes backups until it is told to end.
async fn series(
    cx: &mut Context<'_, '_>,
    repository: &dyn Repository,
    source: &dyn BackupEngine,
    every: Duration,
) -> Result<(), Failure> {
    let env = cx.work().env().clone();
    let mut view = SeriesView::default();
    let mut newest: Option<BackupRecord> = None;
    loop {
        let due = env.clock().monotonic().saturating_add(every);
        match run::backup(repository, source, BackupOptions::default(), cx.work()).await {
            Ok(backup) => {
                view.taken += 1;
                view.stored_bytes += backup.stored_bytes;
                if !cx.json() {
                    let stored = human::size(backup.stored_bytes);
                    cx.line(&format!("{} {} {} stored", backup.ended_at, backup.id, stored))?;
                }
                cx.remark_findings(&backup.snapshot.findings);
                newest = Some(backup);
            }
            Err(error) if error.kind() == ErrorKind::Cancelled => break,
            Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Conflict) => {
                view.failed += 1;
                cx.remark(&format!("no backup at {}: {error}", env.now()));
                view.problem = Some(error.to_string());
            }
            Err(error) => return Err(error.into()),
        }
        let pause = due.saturating_sub(env.clock().monotonic());
        if cx.work().cancel().run_until_cancelled(env.clock().sleep(pause)).await.is_none() {
            break;
        }
    }
    if !cx.json() {
        return cx.line(&format!("{} backups, {} failed", view.taken, view.failed));
    }
    view.newest = newest.as_ref().map(BackupView::from);
    cx.document(&view)
}
