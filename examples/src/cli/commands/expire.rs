//! `expire`: what a plan keeps and why, and letting go of the rest.

use std::path::PathBuf;

use backup_core::catalog::{Actor, Catalog, Role};
use backup_core::repository::Repository as _;
use backup_core::run::{self, Expired};
use backup_core::{Error, Result};
use backup_policy::retention::Verdict;
use backup_policy::{Matrix, Offer, Plan, Profile, ServiceKind};
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use super::Context;
use crate::cli::failure::Failure;
use crate::table::{Cell, Table};

/// Options of the command.
#[derive(Debug, Args)]
pub(crate) struct ExpireArgs {
    /// What to keep: hobbyist, startup, business, premium, or a plan of --profiles; that of the service when it is managed
    #[arg(long, value_name = "PLAN")]
    plan_name: Option<String>,
    /// The kind of service, such as postgres; that of the newest backup when not given
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// A JSON document with plans of one's own, over the built-in ones
    #[arg(long, value_name = "FILE")]
    profiles: Option<PathBuf>,
    /// Let go of what is not kept; without it nothing is changed
    #[arg(long)]
    execute: bool,
}

/// What becomes of one backup.
#[derive(Debug, Serialize)]
struct VerdictView {
    backup: String,
    ended_at: Timestamp,
    keep: bool,
    reasons: Vec<String>,
    expires_at: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
struct ExpireView {
    kind: String,
    plan: String,
    executed: bool,
    backups: Vec<VerdictView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expired: Option<Expired>,
}

pub(super) async fn run(cx: &mut Context<'_, '_>, args: ExpireArgs) -> Result<(), Failure> {
    let matrix = matrix(&args)?;
    let repository = cx.open().await?;
    let catalog = cx.work().run(repository.catalog()).await?;
    let (kind, plan) = subject(&args, &catalog)?;
    let profile = profile(&matrix, &kind, &plan)?;
    let retention = run::plan_expiry(&repository, &profile, cx.work()).await?;
    let backups = retention.plan.backups.iter().filter_map(|planned| {
        let record = catalog.backup(planned.id)?;
        let (keep, reasons, expires_at) = match &planned.verdict {
            Verdict::Keep { reasons, expires_at } => {
                (true, reasons.iter().map(|kept| kept.reason.to_string()).collect(), *expires_at)
            }
            Verdict::Expire { reason, .. } => (false, vec![reason.to_string()], None),
        };
        Some(VerdictView { backup: record.id.to_string(), ended_at: record.ended_at, keep, reasons, expires_at })
    });
    let backups: Vec<_> = backups.collect();
    let expired = if args.execute {
        let by = Actor::new(Role::Operator, "backupctl");
        Some(run::expire(&repository, &profile, &by, cx.work()).await?)
    } else {
        None
    };
    if cx.json() {
        return cx.document(&ExpireView { kind, plan, executed: args.execute, backups, expired });
    }
    let mut table = Table::new(&["backup", "ended at", "verdict", "until", "because"]);
    for view in &backups {
        table.row(vec![
            Cell::text(&view.backup),
            Cell::text(view.ended_at),
            Cell::text(if view.keep { "keep" } else { "expire" }),
            Cell::text(view.expires_at.map(|at| at.to_string()).unwrap_or_default()),
            Cell::text(view.reasons.join("; ")),
        ]);
    }
    cx.table(&table)?;
    match expired {
        Some(expired) => cx.line(&format!("{} backups were let go", expired.backups.len())),
        None if backups.iter().any(|view| !view.keep) => cx.line("nothing was changed: --execute lets go"),
        None => Ok(()),
    }
}

fn matrix(args: &ExpireArgs) -> Result<Matrix> {
    let Some(file) = &args.profiles else { return Ok(Matrix::built_in()) };
    let text = std::fs::read(file).map_err(|error| Error::io(format!("read {}", file.display()), error))?;
    let own: Matrix = serde_json::from_slice(&text)
        .map_err(|error| Error::invalid(format!("{} has no valid profiles: {error}", file.display())))?;
    Ok(Matrix::built_in().overlaid(own))
}

/// Kind and plan: as the options say, or as the service itself does.
fn subject(args: &ExpireArgs, catalog: &Catalog) -> Result<(String, String)> {
    let spec = catalog.service().map(|service| &service.spec);
    let newest = catalog.latest().map(|backup| backup.snapshot.engine.as_str());
    let kind = args.kind.as_deref().or(spec.map(|spec| spec.kind.as_str())).or(newest);
    let kind = kind.ok_or_else(|| Error::invalid("there is no backup yet, so --kind has to say what is kept"))?;
    let plan = args.plan_name.as_deref().or(spec.map(|spec| spec.plan.as_str()));
    let plan =
        plan.ok_or_else(|| Error::invalid("the service is not managed, so --plan-name has to say what to keep"))?;
    Ok((kind.to_owned(), plan.to_owned()))
}

fn profile(matrix: &Matrix, kind: &str, plan: &str) -> Result<Profile> {
    let refused = |error: backup_policy::Error| Error::invalid(error.to_string());
    let kind = ServiceKind::new(kind).map_err(refused)?;
    let plan = Plan::new(plan).map_err(refused)?;
    match matrix.offer(&kind, &plan).map_err(refused)? {
        Offer::Backups(profile) => Ok(profile.clone()),
        Offer::NoBackups { reason } => Err(Error::invalid(format!("{kind} has no backups on {plan}: {reason}"))),
        _ => Err(Error::invalid(format!("plan {plan} is not available for {kind}"))),
    }
}
