//! `service create` and `service fork`.

use std::path::PathBuf;

use backup_core::service::{ForkTarget, NewFork, NewService};
use backup_core::{BackupId, Error, ServiceId};
use clap::Args;
use jiff::Timestamp;

use super::place::Premises;
use super::{Context, operator, status};
use crate::cli::failure::Failure;
use crate::machines::{PostgresHost, PostgresMachine};

/// The machine of a service that is created.
#[derive(Debug, Args)]
#[command(next_help_heading = "PostgreSQL server on this host")]
struct MachineArgs {
    /// Where pg_ctl and postgres are
    #[arg(long, value_name = "DIR")]
    bin_dir: PathBuf,
    /// The data directory. It belongs to the service from here on: powering off removes it once everything is stored
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// The server's port
    #[arg(long, value_name = "PORT", default_value_t = 5432)]
    port: u16,
    /// The directory of its Unix socket
    #[arg(long, value_name = "DIR", default_value = "/tmp")]
    socket_dir: PathBuf,
    /// As which role it is backed up and followed
    #[arg(long, value_name = "NAME", default_value = "postgres")]
    role: String,
    /// libpq connection string or URI, instead of the one that socket, port and role make
    #[arg(long, value_name = "CONNECTION")]
    url: Option<String>,
    /// The account that it runs as when this program runs as root
    #[arg(long, value_name = "ACCOUNT")]
    run_as: Option<String>,
    /// A setting for the server's command line, as name=value; may be given several times
    #[arg(long, value_name = "SETTING")]
    setting: Vec<String>,
    /// Leave the data directory beside its place when it is given up, instead of removing it
    #[arg(long)]
    keep_discarded: bool,
}

impl MachineArgs {
    fn machine(&self) -> PostgresMachine {
        let mut machine = PostgresMachine::new(&self.bin_dir, &self.data_dir, self.port);
        machine.socket_dir.clone_from(&self.socket_dir);
        machine.role.clone_from(&self.role);
        machine.url.clone_from(&self.url);
        machine.run_as.clone_from(&self.run_as);
        machine.settings.clone_from(&self.setting);
        machine.keep_discarded = self.keep_discarded;
        machine
    }
}

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// The plan: hobbyist, startup, business or premium
    #[arg(long, value_name = "NAME")]
    plan: String,
    /// The region of this host and its vault; the same for all services of one vault
    #[arg(long, value_name = "NAME")]
    region: String,
    /// The hour of day at which backups begin, UTC
    #[arg(long, value_name = "H", allow_negative_numbers = true)]
    hour: Option<i64>,
    /// The minute at which backups begin
    #[arg(long, value_name = "M", allow_negative_numbers = true)]
    minute: Option<i64>,
    /// Take over a repository that has backups already
    #[arg(long)]
    adopt: bool,
    #[command(flatten)]
    machine: MachineArgs,
}

pub(super) async fn create(cx: &mut Context<'_, '_>, file: Option<PathBuf>, args: CreateArgs) -> Result<(), Failure> {
    let id = cx.service_id()?;
    let mut premises = Premises::open(cx, file)?;
    premises.path()?;
    let machine = args.machine.machine();
    PostgresHost::check_cluster(&machine)?;
    if premises.file.region.is_empty() {
        premises.file.region.clone_from(&args.region);
    }
    let before = premises.file.machines.insert(id.to_string(), machine);
    // First the machine: whoever runs the services of this host finds it as soon as the service exists.
    premises.save()?;
    let fleet = premises.fleet(cx, &premises.file.region);
    let new = NewService::new(id.clone(), "postgres", &args.plan, &args.region).scheduled(args.hour, args.minute);
    let by = operator();
    let created = async { if args.adopt { fleet.adopt(&by, new).await } else { fleet.create(&by, new).await } };
    match cx.work().run(created).await {
        Ok(service) => status::show(cx, &service).await,
        Err(error) => {
            restore_entry(&mut premises, &id, before)?;
            Err(error.into())
        }
    }
}

/// Puts the file back as it was before a service that was refused.
fn restore_entry(premises: &mut Premises, id: &ServiceId, before: Option<PostgresMachine>) -> Result<(), Error> {
    match before {
        Some(machine) => premises.file.machines.insert(id.to_string(), machine),
        None => premises.file.machines.remove(id.as_str()),
    };
    if premises.file.machines.is_empty() {
        premises.file.region.clear();
    }
    premises.save()
}

#[derive(Debug, Args)]
pub(super) struct ForkArgs {
    /// The name of the new service
    #[arg(long, value_name = "NAME")]
    into: String,
    /// Its data directory, which must not exist or be empty
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// The port of its server
    #[arg(long, value_name = "PORT")]
    port: u16,
    /// Its plan; that of the source when not given
    #[arg(long, value_name = "NAME")]
    plan: Option<String>,
    #[command(flatten, next_help_heading = "Target")]
    target: ForkTargetArgs,
}

/// The state that it begins with. The newest that is stored unless said otherwise.
#[derive(Debug, Args)]
#[group(multiple = false)]
struct ForkTargetArgs {
    /// The newest stored state (the default)
    #[arg(long)]
    latest: bool,
    /// The end of this backup
    #[arg(long, value_name = "ID")]
    backup: Option<String>,
    /// The last change committed by this moment
    #[arg(long, value_name = "RFC3339")]
    time: Option<Timestamp>,
}

impl ForkTargetArgs {
    fn target(&self) -> Result<ForkTarget, Error> {
        Ok(match self {
            Self { backup: Some(id), .. } => ForkTarget::Backup(id.parse::<BackupId>()?),
            Self { time: Some(time), .. } => ForkTarget::Time(*time),
            Self { .. } => ForkTarget::Latest,
        })
    }
}

pub(super) async fn fork(cx: &mut Context<'_, '_>, file: Option<PathBuf>, args: ForkArgs) -> Result<(), Failure> {
    let target = args.target.target()?;
    let into = ServiceId::new(&args.into)?;
    let mut premises = Premises::open(cx, file)?;
    premises.path()?;
    let source = cx.service_id()?;
    let Some(machine) = premises.file.machines.get(source.as_str()) else {
        return Err(
            Error::environment(format!("this host has no machine for service {source}, so none like it")).into()
        );
    };
    let (mut machine, url) = (machine.clone(), machine.url.is_some());
    (machine.data_dir, machine.port, machine.url) = (args.data_dir, args.port, None);
    if url {
        cx.remark("the fork is reached by socket, port and role: the source's connection string is its own");
    }
    PostgresHost::check_vacant(&machine)?;
    let before = premises.file.machines.insert(into.to_string(), machine);
    premises.save()?;
    let (fleet, source) = premises.service(cx).await?;
    let mut new = NewFork::new(into.clone()).at(target);
    new.plan = args.plan;
    let work = cx.work().clone();
    match fleet.fork(&operator(), source.id(), new, &work).await {
        Ok(fork) => status::show(cx, &fork).await,
        Err(error) => {
            // One that exists and is not restored yet is finished by whoever runs this host, and needs its machine for that.
            if fleet.open(&into).await.is_err() {
                restore_entry(&mut premises, &into, before)?;
            }
            Err(error.into())
        }
    }
}
