//! `plan ENGINE --into TARGET`: what a restore would do.

use backup_core::engine::RestoreLog;
use backup_core::{LogPosition, run};
use clap::Args;

use super::{Context, without_password};
use crate::cli::engines::{OnEngine, Target};
use crate::cli::failure::Failure;
use crate::cli::target::{OnlyArgs, TargetArgs};
use crate::cli::view::{LogReach, PlanView};
use crate::table::{Cell, Table};

/// Options of the command itself.
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// Where it would be restored: for file-based engines a directory
    #[arg(long, value_name = "TARGET")]
    into: String,
    #[command(flatten, next_help_heading = "Target")]
    target: TargetArgs,
    #[command(flatten)]
    only: OnlyArgs,
}

pub(super) async fn run(cx: &mut Context<'_, '_>, engine: OnEngine<Target, PlanArgs>) -> Result<(), Failure> {
    let args = &engine.options;
    let (target, selector) = (args.target.target()?, args.only.selector()?);
    let (deployment, into) = (engine.target(&args.into)?, without_password(&args.into));
    let repository = cx.open().await?;
    let plan = run::plan_restore(&repository, deployment.as_ref(), target, selector, cx.work()).await?;
    let refused = plan.blockers().next().is_some();
    if cx.json() {
        return cx.document(&PlanView {
            backup: (&plan.backup).into(),
            into: &into,
            target: plan.target.to_string(),
            inclusive: plan.target.inclusive,
            reads: plan.footprint,
            log: plan.log().map(|log| LogReach { from: &log.path().from, to: reach(log), bytes: log.path().len() }),
            refused,
            findings: &plan.findings,
        });
    }
    let mut table = Table::new(&[]);
    let mut row = |name: &str, value: Cell| table.row(vec![Cell::text(name), value]);
    row("target", Cell::text(&plan.target));
    row("backup", Cell::text(plan.backup.id));
    row("taken", Cell::text(plan.backup.ended_at));
    row("into", Cell::text(&into));
    row("entries", Cell::Count(plan.footprint.entries));
    row("to write", Cell::Bytes(plan.footprint.bytes));
    row("to read", Cell::Bytes(plan.footprint.stored_bytes));
    row("objects", Cell::Count(plan.footprint.objects));
    if let Some(log) = plan.log() {
        row("log from", Cell::text(&log.path().from));
        row("log up to", Cell::text(reach(log)));
        row("log", Cell::Bytes(log.path().len()));
    }
    for finding in &plan.findings {
        row("finding", Cell::text(finding));
    }
    row("verdict", Cell::text(if refused { "refused" } else { "possible" }));
    cx.table(&table)
}

/// The last position that the log behind the backup reaches.
fn reach(log: &RestoreLog) -> LogPosition {
    let (lineage, offset) = log.path().end();
    log.source().ledger().position(lineage, offset)
}
