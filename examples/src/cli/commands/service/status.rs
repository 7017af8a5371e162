//! `service status`: where a service stands, what is kept and why.

use std::path::PathBuf;
use std::time::Duration;

use backup_core::catalog::Audited;
use backup_core::repository::Found;
use backup_core::service::{ListedBackup, ManagedService, ServiceStatus};
use backup_core::{ErrorKind, Result};
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use super::place::Premises;
use super::{Context, operator};
use crate::cli::failure::Failure;
use crate::human;
use crate::table::{Cell, Table};

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Show also everything that was ever decided about it and that happened to it
    #[arg(long)]
    trail: bool,
}

/// A stretch of time of which every moment can be restored.
#[derive(Debug, Serialize)]
struct Window {
    from: Timestamp,
    to: Timestamp,
}

/// One service with all that people and dashboards ask for.
#[derive(Debug, Serialize)]
struct StatusView {
    #[serde(flatten)]
    status: ServiceStatus,
    listed: Vec<ListedBackup>,
    windows: Vec<Window>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trail: Option<Vec<Audited>>,
}

impl StatusView {
    async fn of(service: &ManagedService, trail: bool) -> Result<Self> {
        let by = operator();
        let status = service.status().await?;
        let listed = service.backups(&by).await?;
        let windows = service.restorable(&by).await?;
        let windows = windows.into_iter().map(|(from, to)| Window { from, to }).collect();
        let trail = match trail {
            true => Some(service.audit(&by, Timestamp::MIN, Timestamp::MAX).await?),
            false => None,
        };
        Ok(Self { status, listed, windows, trail })
    }
}

pub(super) async fn run(cx: &mut Context<'_, '_>, file: Option<PathBuf>, args: StatusArgs) -> Result<(), Failure> {
    let premises = Premises::open(cx, file)?;
    if !cx.has_service() {
        return all(cx, &premises).await;
    }
    let (_, service) = premises.service(cx).await?;
    let view = cx.work().run(StatusView::of(&service, args.trail)).await?;
    say(cx, &view)
}

/// Says where a service stands after something was done.
pub(super) async fn show(cx: &mut Context<'_, '_>, service: &ManagedService) -> Result<(), Failure> {
    let view = cx.work().run(StatusView::of(service, false)).await?;
    if cx.json() {
        return cx.document(&view);
    }
    cx.line(&format!("service {} is {}", service.id(), view.status.stage))
}

/// Every service of the vault, in one line each.
async fn all(cx: &mut Context<'_, '_>, premises: &Premises) -> Result<(), Failure> {
    let names = cx.work().run(backup_core::repository::Vault::services(&premises.vault)).await?;
    let mut found = Vec::new();
    for name in names {
        let Found::Repository(repository) =
            cx.work().run(backup_core::repository::Vault::find(&premises.vault, &name)).await?
        else {
            continue;
        };
        let catalog = cx.work().run(repository.catalog()).await?;
        let Some(location) = catalog.service().map(|service| service.spec.location.clone()) else { continue };
        let fleet = premises.fleet(cx, &location);
        match cx.work().run(async { fleet.open(&name).await?.status().await }).await {
            Ok(status) => found.push(status),
            // It was purged in the meantime.
            Err(error) if error.kind() == ErrorKind::InvalidInput => {}
            Err(error) => return Err(error.into()),
        }
    }
    if cx.json() {
        return cx.document(&found);
    }
    let mut table =
        Table::new(&["service", "kind", "plan", "stage", "backups", "newest", "next backup", "proven", "until"]);
    for status in &found {
        table.row(vec![
            Cell::text(&status.service),
            Cell::text(&status.spec.kind),
            Cell::text(&status.spec.plan),
            Cell::text(status.stage),
            Cell::Count(status.backups as u64),
            Cell::text(status.newest.map(|(_, at)| at.to_string()).unwrap_or_default()),
            Cell::text(status.next_backup.map(|at| at.to_string()).unwrap_or_default()),
            Cell::text(status.drills.last_proven.map(|at| at.to_string()).unwrap_or_default()),
            Cell::text(status.deadline.map(|at| at.to_string()).unwrap_or_default()),
        ]);
    }
    cx.table(&table)
}

fn say(cx: &mut Context<'_, '_>, view: &StatusView) -> Result<(), Failure> {
    if cx.json() {
        return cx.document(view);
    }
    cx.table(&facts(&view.status))?;
    if !view.listed.is_empty() {
        cx.line("")?;
        let mut table = Table::new(&["backup", "name", "kind", "data", "stored", "expires", "kept because"]);
        for backup in &view.listed {
            let kept: Vec<_> = backup.kept.iter().map(|kept| kept.reason.as_str()).collect();
            table.row(vec![
                Cell::text(backup.id),
                Cell::text(&backup.name),
                Cell::text(backup.kind),
                Cell::Bytes(backup.data_bytes),
                Cell::Bytes(backup.stored_bytes),
                Cell::text(backup.expires_at.map(|at| at.to_string()).unwrap_or_default()),
                Cell::text(if kept.is_empty() { "it expires with the next run".to_owned() } else { kept.join("; ") }),
            ]);
        }
        cx.table(&table)?;
    }
    if !view.windows.is_empty() {
        cx.line("")?;
        let mut table = Table::new(&["restorable from", "to"]);
        for window in &view.windows {
            table.row(vec![Cell::text(window.from), Cell::text(window.to)]);
        }
        cx.table(&table)?;
    }
    let Some(trail) = &view.trail else { return Ok(()) };
    cx.line("")?;
    let mut table = Table::new(&["at", "by", "what"]);
    for audited in trail {
        let what = serde_json::to_value(&audited.change).map(|change| words(&change));
        let what = what.map_err(|e| backup_core::Error::internal("a change has no form in JSON").with_source(e))?;
        table.row(vec![Cell::text(audited.at), Cell::text(&audited.by), Cell::text(what)]);
    }
    cx.table(&table)
}

/// A change as `name key=value …`.
fn words(change: &serde_json::Value) -> String {
    let Some(fields) = change.as_object() else { return change.to_string() };
    let name = fields.get("change").and_then(serde_json::Value::as_str).unwrap_or_default();
    let others = fields.iter().filter(|(key, value)| *key != "change" && !value.is_null());
    others.fold(name.replace('_', " "), |text, (key, value)| match value.as_str() {
        Some(value) => format!("{text} {key}={value}"),
        None => format!("{text} {key}={value}"),
    })
}

fn facts(status: &ServiceStatus) -> Table {
    let mut table = Table::new(&[]);
    let mut row = |name: &str, value: String| table.row(vec![Cell::text(name), Cell::text(value)]);
    let spec = &status.spec;
    row("service", status.service.to_string());
    row("kind", spec.kind.clone());
    row("plan", spec.plan.clone());
    row("stage", status.stage.to_string());
    row(
        "region",
        if spec.zone == spec.home {
            spec.home.clone()
        } else {
            format!("{} (backups in {})", spec.zone, spec.location)
        },
    );
    row("created", status.created.to_string());
    let time = match (spec.backup_hour, spec.backup_minute) {
        (None, None) => "the service's own".to_owned(),
        (hour, minute) => {
            let part = |value: Option<u8>| value.map_or("--".to_owned(), |value| format!("{value:02}"));
            format!("{}:{} UTC", part(hour), part(minute))
        }
    };
    row("backup time", time);
    if let Some(at) = status.next_backup {
        row("next backup", at.to_string());
    }
    if let Some(at) = status.deadline {
        row("ends by itself at", at.to_string());
    }
    if let Some(reason) = &status.suspended {
        row("no backups", reason.clone());
    }
    if let Some(lease) = &status.lease {
        row("at work", format!("{} until {}", lease.runner, lease.until));
    }
    if let Some(capture) = &status.capture {
        row("log followed by", format!("{} until {}", capture.runner, capture.until));
    }
    if let Some(last) = &status.last_run {
        let outcome = last.problem.clone().unwrap_or_else(|| "done".to_owned());
        row("last backup", format!("{} ({outcome})", last.ended));
    }
    if status.failures > 0 {
        row("failures in a row", status.failures.to_string());
    }
    row("backups", status.backups.to_string());
    let drills = &status.drills;
    let took = drills.recovery_ms.map(|ms| human::duration(Duration::from_millis(ms)));
    row(
        "last proven",
        match (drills.last_proven, took) {
            (Some(at), Some(took)) => format!("{at}, served after {took}"),
            _ => "never".to_owned(),
        },
    );
    if let Some(last) = drills.last.as_ref().filter(|last| !last.has_passed()) {
        row("last drill", format!("{} failed: {}", last.ended, last.problem.as_deref().unwrap_or_default()));
    }
    if let Some(drill) = &drills.under_way {
        row("drill under way", format!("{} since {}", drill.by, drill.began));
    }
    if let Some(next) = drills.next {
        row("next drill", next.to_string());
    }
    table
}
