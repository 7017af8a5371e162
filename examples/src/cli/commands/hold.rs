//! `hold add|remove BACKUP`: keeping a backup whatever its age.

use backup_core::catalog::{Actor, Event, Rejected, Role};
use backup_core::repository::Repository as _;
use backup_core::{BackupId, Error};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::Context;
use crate::cli::failure::Failure;

/// What is to be done.
#[derive(Debug, Subcommand)]
pub(crate) enum HoldCommand {
    /// Keep a backup until the hold is removed
    Add {
        #[command(flatten)]
        hold: HoldArgs,
        /// Keep the log that follows it as well, so that every moment behind it that is restorable stays so
        #[arg(long)]
        log: bool,
    },
    /// Let the plan decide about a backup again
    Remove(HoldArgs),
}

/// Options of both.
#[derive(Debug, Args)]
pub(crate) struct HoldArgs {
    /// The backup's id, as `list` shows it
    backup: String,
    /// The name of the hold: a backup may have several, and stays while it has one
    #[arg(long, default_value = "manual")]
    name: String,
    /// Why, for whoever asks later
    #[arg(long, default_value = "")]
    reason: String,
}

#[derive(Debug, Serialize)]
struct HoldView {
    backup: BackupId,
    holds: Vec<String>,
}

pub(super) async fn run(cx: &mut Context<'_, '_>, command: HoldCommand) -> Result<(), Failure> {
    let (args, placed) = match command {
        HoldCommand::Add { hold, log } => (hold, Some(log)),
        HoldCommand::Remove(args) => (args, None),
    };
    let backup: BackupId = args.backup.parse()?;
    let repository = cx.open().await?;
    let (by, at) = (Actor::new(Role::Operator, "backupctl"), cx.work().env().now());
    let (hold, reason) = (args.name, args.reason);
    let event = match placed {
        Some(log) => Event::HoldPlaced { backup, hold, reason, by, at, log },
        None => Event::HoldReleased { backup, hold, by, at },
    };
    let decided = cx.work().run(repository.decide(&mut |_| Ok(vec![event.clone()]))).await;
    let catalog = decided.map_err(|error| {
        // What the catalog does not know is a mistake of whoever asks.
        let mut sources = std::iter::successors(std::error::Error::source(&error), |error| error.source());
        let rejected = sources.find_map(|source| source.downcast_ref::<Rejected>());
        rejected.map(|rejected| Error::invalid(rejected.to_string())).unwrap_or(error)
    })?;
    let holds: Vec<_> = catalog.holds(backup).map(|(name, _)| name.to_owned()).collect();
    if cx.json() {
        return cx.document(&HoldView { backup, holds });
    }
    cx.line(&match holds.as_slice() {
        [] => format!("backup {backup} is not on hold"),
        holds => format!("backup {backup} is on hold: {}", holds.join(", ")),
    })
}
