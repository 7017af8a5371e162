//! Side-by-side benchmarks with plots.
//!
//! `cargo run --release -p backup-benches -- postgres` makes a seeded database, runs every contender in turn several times, each in
//! a process of its own so that processor time and memory are its own, and writes the figures as JSON, as a table
//! and as a drawing. Nothing here is a test: figures are compared, never asserted.

mod catalog;
mod changes;
mod chart;
mod clickhouse;
mod figures;
mod postgres;
mod process;
mod redis;
mod wal;
mod yardstick;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(about = "Side-by-side benchmarks with plots")]
struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

/// What every benchmark takes.
#[derive(Debug, clap::Args)]
struct Common {
    /// Counted runs of each contender.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Where the results are written.
    #[arg(long, default_value = "target/benches")]
    out: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// A PostgreSQL data directory: full backup, unchanged incremental, restore, beside `zstd -1` over the same files.
    Postgres {
        /// Size of the database in MB.
        #[arg(long, default_value_t = 1024)]
        size: u64,
        #[command(flatten)]
        common: Common,
    },
    /// A vault with very many backups: how long it takes until its catalog is known, with a checkpoint and without.
    Catalog {
        /// How many backups.
        #[arg(long, default_value_t = 100_000)]
        backups: u64,
        #[command(flatten)]
        common: Common,
    },
    /// An increment of a PostgreSQL cluster after 1 % of its pages changed, by the log and by comparing.
    Changes {
        /// Size of the database in MB.
        #[arg(long, default_value_t = 2048)]
        size: u64,
        #[command(flatten)]
        common: Common,
    },
    /// PostgreSQL's log: catching up beside `pg_receivewal`, the lag under load, the time of a synchronous commit.
    Wal {
        /// Log to catch up with, in MB.
        #[arg(long, default_value_t = 1024)]
        size: u64,
        #[command(flatten)]
        common: Common,
    },
    /// A Redis dataset: a snapshot beside a dump through `zstd -1`, a live restore beside a full sync.
    Redis {
        /// Size of the dataset in MB.
        #[arg(long, default_value_t = 1024)]
        size: u64,
        #[command(flatten)]
        common: Common,
    },
    /// Parts of a ClickHouse server: full backup, unchanged second backup, second backup after 1 % was inserted, restore, beside `zstd -1`
    /// over the same files.
    Clickhouse {
        /// Size of the parts in MB.
        #[arg(long, default_value_t = 1024)]
        size: u64,
        /// In about so many files: one table of many small parts, instead of several tables of larger ones.
        #[arg(long)]
        files: Option<u64>,
        #[command(flatten)]
        common: Common,
    },
    /// One measured piece of work; what the benchmarks start as processes of their own.
    #[command(hide = true)]
    Child {
        #[command(subcommand)]
        work: process::Work,
    },
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match Arguments::parse().bench {
        Bench::Postgres { size, common } => runtime.block_on(postgres::run(size, common.runs, &common.out)),
        Bench::Catalog { backups, common } => runtime.block_on(catalog::run(backups, common.runs, &common.out)),
        Bench::Changes { size, common } => runtime.block_on(changes::run(size, common.runs, &common.out)),
        Bench::Wal { size, common } => runtime.block_on(wal::run(size, common.runs, &common.out)),
        Bench::Redis { size, common } => runtime.block_on(redis::run(size, common.runs, &common.out)),
        Bench::Clickhouse { size, files, common } => {
            runtime.block_on(clickhouse::run(size, files, common.runs, &common.out))
        }
        Bench::Child { work } => runtime.block_on(process::work(work)),
    }
}
