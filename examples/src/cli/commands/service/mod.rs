//! `service …`: services under management on this host.

mod change;
mod make;
mod place;
mod run;
mod status;

use std::path::PathBuf;

use backup_core::catalog::{Actor, Role};
use clap::{Args, Subcommand};

use super::Context;
use crate::cli::failure::Failure;

/// Options of all of them, and what is to be done.
#[derive(Debug, Args)]
pub(crate) struct ServiceArgs {
    /// The document that says which machine of this host each service has; written by create and fork [env: BACKUP_HOST_FILE]
    #[arg(long, value_name = "FILE", global = true)]
    host_file: Option<PathBuf>,
    #[command(subcommand)]
    command: ServiceCommand,
}

#[derive(Debug, Subcommand)]
enum ServiceCommand {
    /// Bring a PostgreSQL server of this host under management, with a repository of its own
    Create(make::CreateArgs),
    /// Choose when backups begin, in UTC
    Schedule(change::ScheduleArgs),
    /// Change the plan
    Plan(change::PlanArgs),
    /// Store everything, stop the server and give up its data directory
    PowerOff(change::PowerOffArgs),
    /// Restore the newest state and start the server
    PowerOn,
    /// Delete the service; its backups stay for 30 days
    Delete(change::DeleteArgs),
    /// Call a deleted service back; it is off then
    Recover,
    /// Make another service of the newest state, a backup, or a moment
    Fork(make::ForkArgs),
    /// Show where a service stands, what is kept and why, and what can be restored; all services when none is named
    Status(status::StatusArgs),
    /// Run the services of this host: due backups, retention, deadlines, and the capture of their logs, until interrupted
    Run(run::RunArgs),
}

pub(super) async fn run(cx: &mut Context<'_, '_>, args: ServiceArgs) -> Result<(), Failure> {
    let file = args.host_file.or_else(|| cx.host.variable("BACKUP_HOST_FILE").map(PathBuf::from));
    match args.command {
        ServiceCommand::Create(args) => make::create(cx, file, args).await,
        ServiceCommand::Schedule(args) => change::schedule(cx, file, args).await,
        ServiceCommand::Plan(args) => change::plan(cx, file, args).await,
        ServiceCommand::PowerOff(args) => change::power_off(cx, file, args).await,
        ServiceCommand::PowerOn => change::power_on(cx, file).await,
        ServiceCommand::Delete(args) => change::delete(cx, file, args).await,
        ServiceCommand::Recover => change::recover(cx, file).await,
        ServiceCommand::Fork(args) => make::fork(cx, file, args).await,
        ServiceCommand::Status(args) => status::run(cx, file, args).await,
        ServiceCommand::Run(args) => run::run(cx, file, args).await,
    }
}

/// Whoever has the passphrase and the machines is an operator.
fn operator() -> Actor {
    Actor::new(Role::Operator, "backupctl")
}
