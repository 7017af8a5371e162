//! Side-by-side benchmarks with plots.
//!
//! `cargo run --release -p backup-benches -- postgres` makes a seeded database, takes every contender in turn through the same phases,
//! each as a command line below a process that counts what its whole tree of processes uses, and writes the figures as JSON, as a
//! table and as drawings. `-- all` runs every scenario. Programs that they are compared with are fetched on first use; one that
//! cannot be had is named in the table. Nothing here is a test: figures are compared, never asserted; but what was restored is
//! looked at, so that nobody is fast by doing less.
//!
//! How it measures, and what the figures mean, is in `docs/performance.md`.

mod chart;
mod contenders;
mod directory;
mod figures;
mod machine;
mod measure;
mod peers;
mod report;
mod rounds;
mod scenarios;
mod work;
mod yardstick;

use std::ffi::OsString;
use std::path::PathBuf;

use backup_testkit::PgVersion;
use clap::{Parser, Subcommand};
use scenarios::{catalog, changes, clickhouse, files, growth, postgres, redis, slow, wal};

pub(crate) type Error = Box<dyn std::error::Error>;

#[derive(Debug, Parser)]
#[command(about = "Side-by-side benchmarks with plots")]
struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

/// What every benchmark takes.
#[derive(Debug, Clone, clap::Args)]
struct Common {
    /// Counted runs of each contender, after one that warms up.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Where the results are written; what is compared lies there too meanwhile.
    #[arg(long, default_value = "target/benches")]
    out: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// Every benchmark, one after the other.
    All {
        /// Size of datasets in MB; otherwise each has its own.
        #[arg(long)]
        size: Option<u64>,
        #[command(flatten)]
        common: Common,
    },
    /// Fetches or builds every program that is compared with, and says which are missing.
    Peers,
    /// A PostgreSQL server: full, increments, restores, beside pgBackRest, WAL-G and `pg_basebackup`.
    Postgres {
        /// Size of the database in MB.
        #[arg(long, default_value_t = 2048)]
        size: u64,
        /// Major version of the server. WAL-G can be had for 14 and older.
        #[arg(long, default_value = "14")]
        server: PgVersion,
        #[command(flatten)]
        common: Common,
    },
    /// Plain files beside restic, rustic and kopia.
    Files {
        /// Size of each tree in MB.
        #[arg(long, default_value_t = 1024)]
        size: u64,
        #[command(flatten)]
        common: Common,
    },
    /// An S3 store behind a line of 1 Gbit/s and 20 ms, beside restic.
    Slow {
        /// Size of the tree in MB.
        #[arg(long, default_value_t = 1024)]
        size: u64,
        #[command(flatten)]
        common: Common,
    },
    /// What each operation costs as size, number of files and number of backups grow, with fitted exponents.
    Growth {
        /// The largest dataset in MB; the smallest is a 32nd of it.
        #[arg(long, default_value_t = 8192)]
        max: u64,
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
    /// PostgreSQL's log: archive and fetch beside pgBackRest and `pg_receivewal`, the lag under load, the time of a synchronous commit.
    Wal {
        /// Log in MB.
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
    /// One piece of our own work, as JSON; what the benchmarks start as processes of their own.
    #[command(hide = true)]
    Child { work: String },
    /// A command, watched; what the benchmarks start around everything that they measure.
    #[command(hide = true)]
    Keep {
        report: PathBuf,
        program: PathBuf,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

fn main() -> Result<(), Error> {
    let bench = Arguments::parse().bench;
    // Without a runtime: its threads would be this process's and not the command's.
    if let Bench::Keep { report, program, arguments } = &bench {
        return measure::keeper::keep(report, program, arguments);
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(bench))
}

async fn run(bench: Bench) -> Result<(), Error> {
    match bench {
        Bench::All { size, common } => all(size, &common).await,
        Bench::Peers => peers(),
        Bench::Postgres { size, server, common } => postgres::run(size, server, &common).await,
        Bench::Files { size, common } => files::run(size, &common).await,
        Bench::Slow { size, common } => slow::run(size, &common).await,
        Bench::Growth { max, common } => growth::run(max, &common).await,
        Bench::Catalog { backups, common } => catalog::run(backups, common.runs, &common.out).await,
        Bench::Changes { size, common } => changes::run(size, common.runs, &common.out).await,
        Bench::Wal { size, common } => wal::run(size, &common).await,
        Bench::Redis { size, common } => redis::run(size, common.runs, &common.out).await,
        Bench::Clickhouse { size, files, common } => clickhouse::run(size, files, common.runs, &common.out).await,
        Bench::Child { work } => work::run(&work).await,
        // Done before there was a runtime.
        Bench::Keep { .. } => Ok(()),
    }
}

/// Every benchmark; one that fails does not keep the others from running, and is an error in the end.
#[expect(clippy::print_stderr, reason = "a program that reports to its terminal")]
async fn all(size: Option<u64>, common: &Common) -> Result<(), Error> {
    let mut failed = vec![];
    let (large, middle) = (size.unwrap_or(2048), size.unwrap_or(1024));
    let (runs, out) = (common.runs, common.out.as_path());
    for name in ["postgres", "files", "wal", "slow", "growth", "changes", "redis", "clickhouse", "catalog"] {
        let outcome = match name {
            "postgres" => postgres::run(large, PgVersion::V14, common).await,
            "files" => files::run(middle, common).await,
            "wal" => wal::run(middle, common).await,
            "slow" => slow::run(middle, common).await,
            "growth" => growth::run(size.unwrap_or(8192), common).await,
            "changes" => changes::run(large, runs, out).await,
            "redis" => redis::run(middle, runs, out).await,
            "clickhouse" => clickhouse::run(middle, None, runs, out).await,
            // As many as make it as large in its way as the others are.
            _ => catalog::run(size.map_or(100_000, |size| size * 50), runs, out).await,
        };
        if let Err(error) = outcome {
            eprintln!("{name}: {error}");
            failed.push(name);
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", ")).into()) }
}

#[expect(clippy::print_stdout, reason = "a program that reports to its terminal")]
fn peers() -> Result<(), Error> {
    let mut missing = vec![];
    for peer in peers::ALL {
        match peer.provide() {
            Ok(program) => println!("{}: {} ({})", program.name, program.version, program.path.display()),
            Err(peers::Missing { name, reason }) => {
                println!("{name} is missing: {reason}");
                missing.push(name);
            }
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(format!("missing: {}", missing.join(", ")).into()) }
}
