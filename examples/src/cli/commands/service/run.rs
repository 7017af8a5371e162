//! `service run`: the loop of this host.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use backup_core::engine::{LogOptions, Work};
use backup_core::service::{Done, Fleet, FleetTick, WebhookNotifier, WebhookSecret, WebhookSettings};
use backup_core::{Error, ErrorKind, ServiceId};
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::mpsc;

use super::Context;
use super::place::{Premises, REVISIT};
use crate::cli::commands::log::duration;
use crate::cli::failure::Failure;
use crate::cli::passphrase;

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// Do what is due now, and end. Logs are not followed
    #[arg(long, conflicts_with = "for")]
    once: bool,
    /// End after this time
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    r#for: Option<Duration>,
    /// How long bytes of a log may wait before they are sent to the vault
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    flush_after: Duration,
    /// After how long without a sign of life another runner may take over
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    lease: Duration,
    /// Prove backups by restoring them into scratch instances below this directory, as often as the plan says. Without it nothing is proven
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Send notices to this URL, signed with the secret
    #[arg(long, value_name = "URL")]
    webhook: Option<String>,
    /// File whose first line is the secret of the webhook [env: BACKUP_WEBHOOK_SECRET is the secret itself]
    #[arg(long, value_name = "FILE", requires = "webhook")]
    webhook_secret_file: Option<PathBuf>,
}

/// Something that was done.
#[derive(Debug, Serialize)]
struct DoneView {
    at: Timestamp,
    service: ServiceId,
    #[serde(flatten)]
    done: Done,
}

#[derive(Debug, Serialize)]
struct FailedView {
    at: Timestamp,
    service: ServiceId,
    problem: String,
}

/// What a run did. Of one that goes on for months, the last of it.
#[derive(Debug, Default, Serialize)]
struct RunView {
    done: Vec<DoneView>,
    failed: Vec<FailedView>,
    ticks: u64,
    next: Option<Timestamp>,
}

/// So much is remembered for the document at the end.
const MOST: usize = 1000;

pub(super) async fn run(cx: &mut Context<'_, '_>, file: Option<PathBuf>, args: RunArgs) -> Result<(), Failure> {
    let mut premises = Premises::open(cx, file)?;
    premises.path()?;
    premises.drill_below(args.scratch.clone());
    let services = services(cx, &premises)?;
    let log = LogOptions::default().flush_after(args.flush_after);
    let mut platform = premises.platform(cx, &premises.file.region).with_lease(args.lease).with_log(log);
    if let Some(webhook) = webhook(cx, &args)? {
        platform = platform.with_notifier(Arc::new(webhook));
    }
    let fleet = Fleet::new(platform).with_revisit(REVISIT).with_only(services);
    let mut view = RunView::default();
    if args.once {
        match fleet.tick(cx.work()).await {
            Ok(tick) => {
                note(cx, &mut premises, &mut view, tick)?;
                drills(cx, &mut premises, &fleet, &mut view).await?;
            }
            // What was under way is finished or undone by the next run.
            Err(error) if error.kind() == ErrorKind::Cancelled => {}
            Err(error) => return Err(error.into()),
        }
    } else {
        keep_running(cx, &mut premises, &fleet, args.r#for, &mut view).await?;
    }
    if cx.json() {
        return cx.document(&view);
    }
    if args.once && view.done.is_empty() && view.failed.is_empty() {
        return cx.line(&match view.next {
            Some(next) => format!("nothing was due; next at {next}"),
            None => "nothing was due".to_owned(),
        });
    }
    Ok(())
}

/// Does the drills that are due, one after the other.
async fn drills(
    cx: &mut Context<'_, '_>,
    premises: &mut Premises,
    fleet: &Fleet,
    view: &mut RunView,
) -> Result<(), Failure> {
    loop {
        match fleet.drill(cx.work()).await {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) if error.kind() == ErrorKind::Cancelled => break,
            Err(error) => return Err(error.into()),
        }
    }
    let tick = fleet.drilled();
    note(cx, premises, view, tick)
}

/// Those of this host, or the one that is named.
fn services(cx: &Context<'_, '_>, premises: &Premises) -> Result<Vec<ServiceId>, Failure> {
    let services = wanted(cx, premises)?;
    if !services.is_empty() {
        return Ok(services);
    }
    Err(match cx.has_service() {
        true => Error::invalid(format!("this host has no machine for service {}", cx.service_id()?)),
        false => Error::invalid("this host has no services: service create makes one"),
    }
    .into())
}

fn wanted(cx: &Context<'_, '_>, premises: &Premises) -> Result<Vec<ServiceId>, Failure> {
    let mut services: Vec<_> = premises.file.services()?.into_keys().collect();
    if cx.has_service() {
        let id = cx.service_id()?;
        services.retain(|service| *service == id);
    }
    Ok(services)
}

fn webhook(cx: &mut Context<'_, '_>, args: &RunArgs) -> Result<Option<WebhookNotifier>, Failure> {
    let Some(url) = &args.webhook else { return Ok(None) };
    let secret = match (&args.webhook_secret_file, cx.host.variable("BACKUP_WEBHOOK_SECRET")) {
        (Some(file), _) => passphrase::line_of(file)?.to_vec(),
        (None, Some(secret)) => secret.as_bytes().to_vec(),
        (None, None) => {
            return Err(super::super::missing("--webhook-secret-file <FILE>", "BACKUP_WEBHOOK_SECRET"));
        }
    };
    let settings = WebhookSettings::new(url, WebhookSecret::new(secret)?);
    Ok(Some(WebhookNotifier::new(settings, cx.work().env().clone())?))
}

/// Runs until interrupted, which is the usual end, or for so long.
async fn keep_running(
    cx: &mut Context<'_, '_>,
    premises: &mut Premises,
    fleet: &Fleet,
    span: Option<Duration>,
    view: &mut RunView,
) -> Result<(), Failure> {
    let cancel = cx.work().cancel().child_token();
    let work: Work = cx.work().clone().with_cancel(cancel.clone());
    let clock = Arc::clone(work.env().clock());
    let end = async move {
        match span {
            Some(span) => clock.sleep(span).await,
            None => std::future::pending().await,
        }
    };
    let (seen, mut ticks) = mpsc::unbounded_channel();
    let running = fleet.run_with(&work, move |tick| {
        // Nobody listens any more when the command ends.
        let _ = seen.send(tick.clone());
    });
    let (mut running, mut end) = (std::pin::pin!(running), std::pin::pin!(end));
    let mut ended = false;
    loop {
        tokio::select! {
            outcome = &mut running => {
                outcome?;
                break;
            }
            () = &mut end, if !ended => {
                ended = true;
                cancel.cancel();
            }
            Some(tick) = ticks.recv() => {
                note(cx, premises, view, tick)?;
                if premises.reread()? {
                    // Services that other commands have created or that are no more.
                    fleet.look_after(wanted(cx, premises)?);
                }
            }
        }
    }
    while let Ok(tick) = ticks.try_recv() {
        note(cx, premises, view, tick)?;
    }
    Ok(())
}

/// Tells of a tick, and forgets the machines of services that are no more.
fn note(cx: &mut Context<'_, '_>, premises: &mut Premises, view: &mut RunView, tick: FleetTick) -> Result<(), Failure> {
    let at = cx.work().env().now();
    view.ticks += 1;
    view.next = tick.next;
    for (service, problem) in tick.failed {
        if !cx.json() {
            cx.line(&format!("{at}\t{service}\tfailed: {problem}"))?;
        }
        view.failed.push(FailedView { at, service, problem });
    }
    for (service, done) in tick.done {
        if done.iter().any(|done| matches!(done, Done::Purged { .. })) {
            premises.forget(&service)?;
        }
        for done in done {
            if !cx.json() {
                cx.line(&format!("{at}\t{service}\t{}", describe(&done)))?;
            }
            view.done.push(DoneView { at, service: service.clone(), done });
        }
    }
    view.done.drain(..view.done.len().saturating_sub(MOST));
    view.failed.drain(..view.failed.len().saturating_sub(MOST));
    Ok(())
}

fn describe(done: &Done) -> String {
    match done {
        Done::Backup { backup, due, .. } => format!("backup {backup}, due at {due}"),
        Done::BackupFailed { problem } => format!("a backup failed: {problem}"),
        Done::Expired { backups, lineages } => {
            format!("let go of {} backups, and of log on {lineages} lineages", backups.len())
        }
        Done::Collected { condemned, deleted } => match condemned {
            Some(number) => format!("condemned collection {number}, deleted {deleted} objects"),
            None => format!("deleted {deleted} objects"),
        },
        Done::Drilled { record } => match &record.problem {
            None => format!("backup {} was proven by a drill to {}", record.backup, record.target),
            Some(problem) => format!("a drill of backup {} to {} has failed: {problem}", record.backup, record.target),
        },
        Done::PoweredOff => "powered off".to_owned(),
        Done::Restored(Some(backup)) => format!("restored from backup {backup}"),
        Done::Restored(None) => "started empty".to_owned(),
        Done::Noticed { notice } => format!("told its owner: {notice}"),
        Done::Deleted => "deleted, because it was off for too long".to_owned(),
        Done::Discarded => "its machine was given up".to_owned(),
        Done::Purged { destroyed } => format!("purged: {} keys, {} objects", destroyed.keys, destroyed.objects),
        Done::Untold { problem } => format!("nobody could be told: {problem}"),
        Done::Failed { problem } => format!("failed and is tried again: {problem}"),
        other => format!("{other:?}"),
    }
}
