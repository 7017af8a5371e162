//! `backup ENGINE`: take a backup, or one after the other.

use std::path::PathBuf;
use std::time::Duration;

use backup_core::catalog::BackupRecord;
use backup_core::repository::Repository;
use backup_core::run::{self, BackupOptions};
use backup_core::{BackupEngine, Error, ErrorKind};
use backup_storage::store::{Store, StoreSettings};
use backup_storage::{DepositRepository, Quorum, QuorumHeld};
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
    /// A further region, made by `replicate --to`, that the backup is copied to before it counts as taken; may be given several times
    #[arg(long, value_name = "URL", conflicts_with = "host_file")]
    region: Vec<String>,
    /// How many of the regions must have the backup; all of them by default
    #[arg(long, value_name = "COUNT", requires = "region")]
    quorum: Option<usize>,
    /// Deposit it as a host that only writes, with the file that `key host add` has made; no passphrase and no key is needed
    #[arg(long, value_name = "FILE")]
    host_file: Option<PathBuf>,
    /// Folder in which the host remembers its last backup, so that the next one stores only what has changed; it is made where it is not there
    #[arg(long, value_name = "DIR", requires = "host_file")]
    host_state: Option<PathBuf>,
}

impl BackupArgs {
    fn quorum(&self) -> Result<Option<Quorum>, Error> {
        if self.region.is_empty() {
            return Ok(None);
        }
        let open = |url: &String| {
            crate::cli::vault::region_must_exist(url)?;
            Ok((url.clone(), Store::open(url, &StoreSettings::default())?))
        };
        let regions: Vec<_> = self.region.iter().map(open).collect::<Result<_, Error>>()?;
        let needed = self.quorum.unwrap_or(regions.len());
        Ok(Some(Quorum::new(regions, needed)?))
    }
}

/// A backup, and the regions that have it.
#[derive(Debug, Serialize)]
struct TakenView<'a> {
    #[serde(flatten)]
    backup: BackupView<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    regions: Option<QuorumHeld>,
}

/// Where backups go.
enum Vault {
    /// Into a repository, and into further regions of it before they count as taken.
    Own(backup_storage::Repository, Option<Quorum>),
    /// Beside it, by a host that only writes.
    Host(DepositRepository),
}

impl Vault {
    /// Takes one backup, and waits for the regions that are to have it.
    async fn take(
        &self,
        cx: &Context<'_, '_>,
        source: &dyn BackupEngine,
        options: BackupOptions,
    ) -> Result<(BackupRecord, Option<QuorumHeld>), Error> {
        let repository: &dyn Repository = match self {
            Self::Own(repository, _) => repository,
            Self::Host(repository) => repository,
        };
        let backup = run::backup(repository, source, options, cx.work()).await?;
        let held = match self {
            Self::Own(repository, Some(quorum)) => {
                Some(repository.replicate_until(quorum, backup.id, cx.work()).await?)
            }
            _ => None,
        };
        Ok((backup, held))
    }
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
    let quorum = engine.options.quorum()?;
    let vault = match host_file {
        Some(file) => Vault::Host(cx.open_as_host(file, host_state.as_deref()).await?),
        None => Vault::Own(cx.open().await?, quorum),
    };
    if let Some(every) = *every {
        return series(cx, &vault, source.as_ref(), every).await;
    }
    let options = if engine.options.full { BackupOptions::full() } else { BackupOptions::default() };
    let begun = cx.work().env().clock().monotonic();
    let (backup, regions) = vault.take(cx, source.as_ref(), options).await?;
    let took = cx.work().env().clock().monotonic().saturating_sub(begun);
    if cx.json() {
        return cx.document(&TakenView { backup: BackupView::from(&backup), regions });
    }
    let mut table = describe(&backup);
    if let Some(held) = &regions {
        table.row(vec![Cell::text("also in"), Cell::text(held.held.join(", "))]);
    }
    table.row(vec![Cell::text("took"), Cell::text(human::duration(took))]);
    table.row(vec![Cell::text("rate"), Cell::text(human::rate(backup.data_bytes, took))]);
    cx.table(&table)?;
    cx.remark_findings(&backup.snapshot.findings);
    remark_regions(cx, regions.as_ref());
    if engine.options.host_file.is_some() {
        cx.remark("it is deposited, and a backup once somebody with the keys has adopted it");
    }
    Ok(())
}

/// Says which regions do not have what enough others have.
fn remark_regions(cx: &mut Context<'_, '_>, held: Option<&QuorumHeld>) {
    for (region, problem) in held.iter().flat_map(|held| &held.failed) {
        cx.remark(&format!("region {region} was not copied to: {problem}"));
    }
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
    vault: &Vault,
    source: &dyn BackupEngine,
    every: Duration,
) -> Result<(), Failure> {
    let env = cx.work().env().clone();
    let mut view = SeriesView::default();
    let mut newest: Option<BackupRecord> = None;
    loop {
        let due = env.clock().monotonic().saturating_add(every);
        match vault.take(cx, source, BackupOptions::default()).await {
            Ok((backup, held)) => {
                view.taken += 1;
                view.stored_bytes += backup.stored_bytes;
                if !cx.json() {
                    let stored = human::size(backup.stored_bytes);
                    cx.line(&format!("{} {} {} stored", backup.ended_at, backup.id, stored))?;
                }
                cx.remark_findings(&backup.snapshot.findings);
                remark_regions(cx, held.as_ref());
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
