//! `export ENGINE`: a part of a backup as files of another format.

mod clickhouse;
mod postgres;

use clap::Subcommand;

use super::{Context, without_password};
use crate::cli::failure::Failure;

/// Of which kind the backup is.
#[derive(Debug, Subcommand)]
pub(crate) enum ExportCommand {
    /// A table of ClickHouse: it is restored into a database of its own at a running server, read there, and dropped
    Clickhouse(Box<clickhouse::ClickHouseArgs>),
    /// The stored log of PostgreSQL as segment files, as an archive command would have left them
    Postgres(postgres::PostgresArgs),
}

pub(super) async fn run(cx: &mut Context<'_, '_>, command: ExportCommand) -> Result<(), Failure> {
    match command {
        ExportCommand::Clickhouse(args) => clickhouse::run(cx, *args).await,
        ExportCommand::Postgres(args) => postgres::run(cx, args).await,
    }
}
