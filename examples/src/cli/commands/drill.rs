//! `drill ENGINE`: prove that a backup can be restored, by restoring it.

use std::path::PathBuf;
use std::time::Duration;

use backup_core::catalog::{Actor, CheckOutcome, DrillCheck, DrillOutcome, DrillRecord, Role};
use backup_core::run::{self, DrillOptions, DrillTarget};
use backup_core::scratch::{Account, ScratchRoot};
use backup_core::{Error, ErrorKind, Severity};
use clap::Args;

use super::Context;
use crate::cli::engines::{OnEngine, Scratch};
use crate::cli::failure::Failure;
use crate::cli::target::TargetArgs;
use crate::cli::view::DrillView;
use crate::human;
use crate::table::{Cell, Table};

/// Options of the command itself.
#[derive(Debug, Args)]
pub(crate) struct DrillArgs {
    #[command(flatten, next_help_heading = "Target")]
    target: TargetArgs,
    /// One of all the moments and backups that can be restored, by chance
    #[arg(long, conflicts_with_all = ["latest", "backup", "time", "position", "name", "transaction", "exclusive"])]
    random: bool,
    /// Where the scratch instance lives; everything that is made there is removed again
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    scratch: PathBuf,
    /// The account that the server runs as when this program runs as root
    #[arg(long, value_name = "ACCOUNT")]
    run_as: Option<String>,
}

pub(super) async fn run(cx: &mut Context<'_, '_>, engine: OnEngine<Scratch, DrillArgs>) -> Result<(), Failure> {
    let args = &engine.options;
    let target = if args.random { DrillTarget::Random } else { DrillTarget::Chosen(args.target.target()?) };
    let account = args.run_as.as_deref().map(Account::find).transpose()?;
    let scratch = ScratchRoot::new(&args.scratch).run_as(account);
    let prover = engine.drill()?;
    let repository = cx.open().await?;
    let by = Actor::new(Role::Operator, "backupctl");
    let program = concat!("backupctl ", env!("CARGO_PKG_VERSION"));
    let options = DrillOptions::new(scratch, by).target(target).program(program);
    let drill = run::drill(&repository, &*prover, &options, cx.work());
    let record = run::while_reading(&repository, "drill", cx.work(), drill).await?;
    let head = cx.work().run(async { Ok(repository.head().await?) }).await?;
    let view = DrillView::new(&record, head);
    if cx.json() {
        cx.document(&view)?;
    } else {
        cx.table(&summary(&record, &view))?;
    }
    match record.outcome {
        DrillOutcome::Passed => Ok(()),
        outcome => {
            let kind = if outcome == DrillOutcome::Damaged { ErrorKind::Damaged } else { ErrorKind::Environment };
            let problem = record.problem.as_deref().unwrap_or("it did not pass");
            Err(Error::new(kind, format!("drill {} of backup {} has failed: {problem}", record.id, record.backup))
                .into())
        }
    }
}

fn summary(record: &DrillRecord, view: &DrillView<'_>) -> Table {
    let mut table = Table::new(&[]);
    let mut row = |name: &str, value: Cell| table.row(vec![Cell::text(name), value]);
    row("drill", Cell::text(record.id));
    row("target", Cell::text(&record.target));
    row("backup", Cell::text(record.backup));
    if let Some(position) = &record.position {
        row("reached", Cell::text(format!("{position} of lineage {}", position.lineage)));
    }
    if let Some(time) = record.time {
        row("last change", Cell::text(time));
    }
    if let Some(server) = &record.server {
        row("server", Cell::text(server));
    }
    row("restored", Cell::Bytes(record.restored_bytes));
    for step in &record.steps {
        row(&step.name, Cell::text(human::duration(Duration::from_millis(step.ms))));
    }
    row("serves after", Cell::text(human::duration(Duration::from_millis(record.recovery_ms()))));
    for check in &record.checks {
        row(&check.name, Cell::text(words(check)));
    }
    for finding in record.findings.iter().filter(|finding| finding.severity >= Severity::Warning) {
        row("finding", Cell::text(finding));
    }
    row("recorded by", Cell::text(format!("entry {} of the catalog, {}", view.head.number, view.head.digest)));
    row("verdict", Cell::text(if record.has_passed() { "passed" } else { "failed" }));
    table
}

/// A check in one line.
fn words(check: &DrillCheck) -> String {
    let outcome = match check.outcome {
        CheckOutcome::Passed => "passed",
        CheckOutcome::Failed => "failed",
        _ => "skipped",
    };
    let figures = check.figures.iter().map(|(what, count)| format!("{count} {}", what.replace('_', " ")));
    let said: Vec<_> = figures.chain(check.problem.clone()).chain(check.digest.clone()).collect();
    if said.is_empty() { outcome.to_owned() } else { format!("{outcome}: {}", said.join(", ")) }
}
