//! `verify`: check what is stored.

use std::fmt;

use backup_core::repository::{Repository as _, VerifyLevel};
use backup_core::{Error, Severity, run};
use backup_storage::Repository;
use clap::{Args, ValueEnum};

use super::{Context, log};
use crate::cli::engines;
use crate::cli::failure::Failure;
use crate::cli::view::{EngineCheckView, VerifyView};
use crate::table::{Cell, Table};

/// Options of the command.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// How thoroughly; each level includes those before it
    #[arg(long, value_enum, default_value_t = Level::Objects)]
    level: Level,
    /// Read so many stored bytes, from where the last run with a budget ended: run daily, this reads everything in turn
    #[arg(long, value_name = "SIZE", conflicts_with = "level", value_parser = log::size)]
    budget: Option<u64>,
}

/// A level on the command line: those of the repository, and one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Level {
    /// The chain of the catalog and the manifests of all backups
    Catalog,
    /// Every object that a backup needs exists and has its size
    Objects,
    /// One object in ten is read and decoded
    Sample,
    /// Every object is read, every byte decoded and compared with its digest
    Full,
    /// Every backup is checked by what only its engine knows
    Engine,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Catalog => "catalog",
            Self::Objects => "objects",
            Self::Sample => "sample",
            Self::Full => "full",
            Self::Engine => "engine",
        })
    }
}

impl Level {
    /// What of it the repository does.
    pub(super) fn stored(self) -> Result<VerifyLevel, Error> {
        match self {
            Self::Engine => Ok(VerifyLevel::Full),
            level => level.to_string().parse(),
        }
    }
}

pub(super) async fn run(cx: &mut Context<'_, '_>, args: VerifyArgs) -> Result<(), Failure> {
    let stored = match args.budget {
        Some(bytes) => VerifyLevel::Budget(bytes),
        None => args.level.stored()?,
    };
    let repository = cx.open().await?;
    let report = cx.work().run(repository.verify(stored, cx.work())).await?;
    let checks = match args.level {
        Level::Engine if args.budget.is_none() && report.is_sound() => Some(check_all(cx, &repository).await?),
        _ => None,
    };
    let level = args.budget.map_or_else(|| args.level.to_string(), |_| stored.name().to_owned());
    let view = VerifyView::new(&level, &report, checks.as_deref());
    if cx.json() {
        cx.document(&view)?;
    } else {
        cx.table(&summary(&view))?;
    }
    if view.sound {
        return Ok(());
    }
    let problems = view.damages.len() + checks.iter().flatten().filter(|check| !check.sound).count();
    Err(Error::damaged(format!("{problems} problems found, {} backups are harmed", view.harmed.len())).into())
}

/// What the engines say. Only asked when storage is sound: an engine would stumble over the same damage and name it worse.
async fn check_all(cx: &Context<'_, '_>, repository: &Repository) -> Result<Vec<EngineCheckView>, Failure> {
    let catalog = cx.work().run(repository.catalog()).await?;
    let mut checks = Vec::new();
    for backup in catalog.backups() {
        let name = &backup.snapshot.engine;
        let Some(kind) = engines::find(name) else {
            return Err(
                Error::invalid(format!("backup {} is of engine {name}, which is not known here", backup.id)).into()
            );
        };
        let report = run::check(repository, kind.checker()?.as_ref(), backup.id, cx.work()).await?;
        checks.push(EngineCheckView {
            backup: backup.id,
            engine: name.clone(),
            sound: report.is_sound(),
            entries: report.entries,
            bytes: report.bytes,
            findings: report.findings,
        });
    }
    Ok(checks)
}

fn summary(view: &VerifyView<'_>) -> Table {
    let mut table = Table::new(&[]);
    let mut row = |name: &str, value: Cell| table.row(vec![Cell::text(name), value]);
    row("level", Cell::text(view.level));
    row("backups", Cell::Count(view.backups));
    row("objects", Cell::Count(view.objects));
    row("read", Cell::Bytes(view.read_bytes));
    row("garbage objects", Cell::Count(view.garbage_objects));
    row("garbage", Cell::Bytes(view.garbage_bytes));
    if let Some(since) = view.read_since {
        row("everything read since", Cell::text(since));
    }
    for damage in view.damages {
        row("damage", Cell::text(format!("object {}: {}", damage.object, damage.problem)));
    }
    for check in view.checks.unwrap_or_default() {
        for finding in check.findings.iter().filter(|f| f.severity >= Severity::Warning) {
            row("finding", Cell::text(format!("backup {}: {finding}", check.backup)));
        }
    }
    for harmed in &view.harmed {
        row("harmed backup", Cell::text(harmed));
    }
    row("verdict", Cell::text(if view.sound { "sound" } else { "damaged" }));
    table
}
