//! `collect` and `reinstate`: taking away what nobody needs, and having again what was let go.

use std::time::Duration;

use backup_core::BackupId;
use backup_core::catalog::{Actor, Role};
use backup_core::repository::{CollectOptions, CollectionPlan, Repository as _};
use backup_core::run;
use clap::Args;

use super::{Context, log};
use crate::cli::failure::Failure;
use crate::table::{Cell, Table};

/// Options of `collect`.
#[derive(Debug, Args)]
pub(crate) struct CollectArgs {
    /// Say what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    how: How,
}

/// Options of `gc`: the same with the question and the deed the other way round.
#[derive(Debug, Args)]
pub(crate) struct GcArgs {
    /// Do it; without this nothing is changed
    #[arg(long)]
    execute: bool,
    #[command(flatten)]
    how: How,
}

/// How carefully.
#[derive(Debug, Args)]
struct How {
    /// Delete what was condemned this long ago; until then those who read it can go on, and it can be had again
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = log::duration)]
    grace: Duration,
    /// Take a backup under way for dead that has given no sign of life for this long (it gives one every hour)
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = log::duration)]
    silence: Duration,
    /// Keep what an interrupted backup has stored this long, for the next one to build on
    #[arg(long, value_name = "DURATION", default_value = "168h", value_parser = log::duration)]
    interrupted: Duration,
    /// Copy a pack without what is dead in it when that is so many percent of it; 101: never
    #[arg(long, value_name = "PERCENT", default_value_t = 40, value_parser = clap::value_parser!(u8).range(1..=101))]
    dead_percent: u8,
    /// Take nothing that a backup needs this long after its commit, by the store's clock, whatever the catalog says: for hosts that may be taken over
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = log::duration)]
    protect: Duration,
    /// Seal packs of earlier keys anew with the present one, the oldest first, up to so much in this run: after somebody was removed (key remove)
    #[arg(long, value_name = "SIZE", value_parser = log::size)]
    reseal: Option<u64>,
}

/// Options of `reinstate`.
#[derive(Debug, Args)]
pub(crate) struct ReinstateArgs {
    /// The backup that was let go
    backup: BackupId,
}

pub(super) async fn run(cx: &mut Context<'_, '_>, args: CollectArgs) -> Result<(), Failure> {
    collect(cx, &args.how, args.dry_run.then_some("nothing was changed: --dry-run")).await
}

pub(super) async fn gc(cx: &mut Context<'_, '_>, args: GcArgs) -> Result<(), Failure> {
    collect(cx, &args.how, (!args.execute).then_some("nothing was changed: --execute does it")).await
}

/// Collects, or with `only_said` shows what would be done, and says that.
async fn collect(cx: &mut Context<'_, '_>, how: &How, only_said: Option<&str>) -> Result<(), Failure> {
    let options = CollectOptions::default()
        .grace(how.grace)
        .silence(how.silence)
        .interrupted(how.interrupted)
        .dead_percent(how.dead_percent)
        .protect(how.protect)
        .reseal(how.reseal.unwrap_or(0));
    let repository = cx.open().await?;
    if let Some(said) = only_said {
        let plan = repository.plan_collection(&options, cx.work()).await?;
        if cx.json() {
            return cx.document(&plan);
        }
        cx.table(&table(&plan))?;
        return cx.line(said);
    }
    let done = repository.collect(&options, cx.work()).await?;
    if cx.json() {
        return cx.document(&done);
    }
    let mut table = table(&done.plan);
    table.row(vec![Cell::text("objects deleted"), Cell::Count(done.deleted)]);
    cx.table(&table)?;
    cx.remark_findings(&done.findings);
    match done.condemned.filter(|number| !done.swept.contains(number)) {
        Some(number) => {
            cx.line(&format!("collection {number} was condemned; a run after its grace deletes what it names"))
        }
        None => Ok(()),
    }
}

fn table(plan: &CollectionPlan) -> Table {
    let mut table = Table::new(&[]);
    let mut row = |name: &str, value: Cell| table.row(vec![Cell::text(name), value]);
    row("sessions taken for dead", Cell::Count(plan.fenced.len() as u64));
    row("packs nobody needs", Cell::Count(plan.packs));
    row("their bytes", Cell::Bytes(plan.bytes));
    row("packs to be copied", Cell::Count(plan.repacked));
    row("their bytes", Cell::Bytes(plan.repacked_bytes));
    row("bytes copied of them", Cell::Bytes(plan.copied_bytes));
    if plan.resealed + plan.outdated > 0 {
        row("packs among them that are sealed anew", Cell::Count(plan.resealed));
        row("packs of earlier keys that stay", Cell::Count(plan.outdated));
    }
    row("log objects nobody needs", Cell::Count(plan.log_objects));
    row("their bytes", Cell::Bytes(plan.log_bytes));
    row("collections due", Cell::Count(plan.due.len() as u64));
    row("collections waiting", Cell::Count(plan.waiting.len() as u64));
    table
}

pub(super) async fn reinstate(cx: &mut Context<'_, '_>, args: ReinstateArgs) -> Result<(), Failure> {
    let repository = cx.open().await?;
    let by = Actor::new(Role::Operator, "backupctl");
    let record = run::reinstate(&repository, args.backup, &by, cx.work()).await?;
    if cx.json() {
        return cx.document(&record);
    }
    cx.line(&format!(
        "backup {} is kept again; retention may let go of it at its next turn, unless it is held",
        record.id
    ))
}
