//! `repair`: putting back what is damaged, from a further region.

use backup_core::Error;
use backup_storage::store::{Store, StoreSettings};
use clap::Args;

use super::Context;
use super::verify::Level;
use crate::cli::failure::Failure;
use crate::table::{Cell, Table};

/// Options of the command.
#[derive(Debug, Args)]
pub(crate) struct RepairArgs {
    /// The vault of the region: file:///absolute/dir, s3://bucket/prefix, gs://…, az://…
    #[arg(long, value_name = "URL")]
    from: String,
    /// How thoroughly is looked for damage; what is known to be damaged counts at every level
    #[arg(long, value_enum, default_value_t = Level::Objects)]
    level: Level,
}

pub(super) async fn run(cx: &mut Context<'_, '_>, args: RepairArgs) -> Result<(), Failure> {
    let refused = Error::from;
    let repository = cx.open().await?;
    crate::cli::vault::must_exist(&args.from)?;
    let from = Store::open(&args.from, &StoreSettings::default()).map_err(refused)?;
    let done = repository.repair(&from, args.level.stored()?, cx.work()).await.map_err(refused)?;
    if cx.json() {
        cx.document(&done)?;
    } else {
        let mut table = Table::new(&[]);
        let mut row = |name: &str, value: Cell| table.row(vec![Cell::text(name), value]);
        row("objects put back", Cell::Count(done.mended.len() as u64));
        row("bytes put back", Cell::Bytes(done.bytes));
        for name in &done.mended {
            row("put back", Cell::text(name));
        }
        for left in &done.left {
            row(
                "still damaged",
                Cell::text(format!("{}: {}: {}", left.damage.object, left.damage.problem, left.reason)),
            );
        }
        cx.table(&table)?;
    }
    match done.left.len() {
        0 => Ok(()),
        count => Err(Error::damaged(format!("{count} objects could not be put back")).into()),
    }
}
