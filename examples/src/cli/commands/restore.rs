//! `restore ENGINE --into TARGET`.

use backup_core::run;
use clap::Args;

use super::{Context, without_password};
use crate::cli::engines::{OnEngine, Target};
use crate::cli::failure::Failure;
use crate::cli::target::{OnlyArgs, TargetArgs};
use crate::cli::view::RestoreView;
use crate::human;
use crate::table::{Cell, Table};

/// Options of the command itself.
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// Where to restore: for file-based engines a directory
    #[arg(long, value_name = "TARGET")]
    into: String,
    #[command(flatten, next_help_heading = "Target")]
    target: TargetArgs,
    #[command(flatten)]
    only: OnlyArgs,
}

pub(super) async fn run(cx: &mut Context<'_, '_>, engine: OnEngine<Target, RestoreArgs>) -> Result<(), Failure> {
    let args = &engine.options;
    let (target, selector) = (args.target.target()?, args.only.selector()?);
    let (deployment, into) = (engine.target(&args.into)?, without_password(&args.into));
    let repository = cx.open().await?;
    let begun = cx.work().env().clock().monotonic();
    let plan = run::plan_restore(&repository, deployment.as_ref(), target, selector, cx.work()).await?;
    let restoring = run::restore(deployment.as_ref(), &plan, cx.work());
    let restored = run::while_reading(&repository, "restore", cx.work(), restoring).await;
    if restored.is_err() {
        // The program must not end before what was begun is in order; a second signal ends it at once.
        engine.settle().await;
    }
    let restored = restored?;
    let took = cx.work().env().clock().monotonic().saturating_sub(begun);
    let findings: Vec<_> = plan.findings.iter().chain(&restored.findings).cloned().collect();
    if cx.json() {
        return cx.document(&RestoreView {
            backup: (&plan.backup).into(),
            into: &into,
            extracted: restored.extracted,
            seconds: took.as_secs_f64(),
            findings: &findings,
        });
    }
    let mut table = Table::new(&[]);
    let mut row = |name: &str, value: Cell| table.row(vec![Cell::text(name), value]);
    row("backup", Cell::text(plan.backup.id));
    row("into", Cell::text(&into));
    row("entries", Cell::Count(restored.extracted.entries));
    row("data", Cell::Bytes(restored.extracted.bytes));
    row("written", Cell::Bytes(restored.extracted.written_bytes));
    row("removed files", Cell::Count(restored.extracted.removed));
    row("took", Cell::text(human::duration(took)));
    row("rate", Cell::text(human::rate(restored.extracted.bytes, took)));
    cx.table(&table)?;
    cx.remark_findings(&findings);
    Ok(())
}
