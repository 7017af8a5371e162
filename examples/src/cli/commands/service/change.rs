//! What is decided about one service.

use std::path::PathBuf;

use backup_core::Error;
use clap::Args;

use super::place::Premises;
use super::{Context, operator, status};
use crate::cli::failure::Failure;

#[derive(Debug, Args)]
pub(super) struct ScheduleArgs {
    /// The hour of day, 0 to 23
    #[arg(long, value_name = "H", allow_negative_numbers = true, conflicts_with = "default")]
    hour: Option<i64>,
    /// The minute, 0 to 59
    #[arg(long, value_name = "M", allow_negative_numbers = true, conflicts_with = "default")]
    minute: Option<i64>,
    /// Return to the service's own default, which spreads load
    #[arg(long)]
    default: bool,
}

pub(super) async fn schedule(
    cx: &mut Context<'_, '_>,
    file: Option<PathBuf>,
    args: ScheduleArgs,
) -> Result<(), Failure> {
    if !args.default && args.hour.is_none() && args.minute.is_none() {
        return Err(Error::invalid("say --hour and --minute, or --default").into());
    }
    let (_, service) = Premises::open(cx, file)?.service(cx).await?;
    let work = cx.work().clone();
    work.run(service.set_schedule(&operator(), args.hour, args.minute)).await?;
    status::show(cx, &service).await
}

#[derive(Debug, Args)]
pub(super) struct PlanArgs {
    /// The plan: hobbyist, startup, business or premium. A smaller one may let go of backups at once
    #[arg(value_name = "NAME")]
    plan: String,
}

pub(super) async fn plan(cx: &mut Context<'_, '_>, file: Option<PathBuf>, args: PlanArgs) -> Result<(), Failure> {
    let (_, service) = Premises::open(cx, file)?.service(cx).await?;
    let work = cx.work().clone();
    work.run(service.change_plan(&operator(), &args.plan)).await?;
    status::show(cx, &service).await
}

#[derive(Debug, Args)]
pub(super) struct PowerOffArgs {
    /// Turn it off also when not everything of it can be stored
    #[arg(long)]
    accept_data_loss: bool,
}

pub(super) async fn power_off(
    cx: &mut Context<'_, '_>,
    file: Option<PathBuf>,
    args: PowerOffArgs,
) -> Result<(), Failure> {
    let premises = Premises::open(cx, file)?;
    premises.path()?;
    let (_, service) = premises.service(cx).await?;
    let work = cx.work().clone();
    service.power_off(&operator(), args.accept_data_loss, &work).await?;
    status::show(cx, &service).await
}

pub(super) async fn power_on(cx: &mut Context<'_, '_>, file: Option<PathBuf>) -> Result<(), Failure> {
    let premises = Premises::open(cx, file)?;
    premises.path()?;
    let (_, service) = premises.service(cx).await?;
    let work = cx.work().clone();
    service.power_on(&operator(), &work).await?;
    status::show(cx, &service).await
}

#[derive(Debug, Args)]
pub(super) struct DeleteArgs {
    /// Delete it also when there is no backup that it could be recovered from
    #[arg(long)]
    accept_data_loss: bool,
}

pub(super) async fn delete(cx: &mut Context<'_, '_>, file: Option<PathBuf>, args: DeleteArgs) -> Result<(), Failure> {
    let (_, service) = Premises::open(cx, file)?.service(cx).await?;
    let work = cx.work().clone();
    if work.run(service.status()).await?.backups == 0 && !args.accept_data_loss {
        let id = service.id();
        return Err(Error::invalid(format!(
            "service {id} has no backup, so it could not be recovered: --accept-data-loss deletes it all the same"
        ))
        .into());
    }
    work.run(service.delete(&operator())).await?;
    cx.remark("its server is stopped and its data directory given up by whoever runs this host: service run");
    status::show(cx, &service).await
}

pub(super) async fn recover(cx: &mut Context<'_, '_>, file: Option<PathBuf>) -> Result<(), Failure> {
    let (_, service) = Premises::open(cx, file)?.service(cx).await?;
    let work = cx.work().clone();
    work.run(service.recover(&operator())).await?;
    status::show(cx, &service).await
}
