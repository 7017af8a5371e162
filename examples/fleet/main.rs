//! Many services of different plans under management, with a clock that somebody else moves: half a year in seconds.
//!
//! ```text
//! cargo run --release --example fleet -- --out fleet.svg
//! cargo run --release --example fleet -- --services 10000 --days 30
//! ```
//! The first draws what existed when; the second runs many services and tells whether every due backup was made, never two at a time,
//! and how late the latest one was. Machines and repositories are in memory; everything that decides is what runs in production.

mod draw;
mod world;

use std::path::PathBuf;

use backup_core::Result;
use clap::Parser;

/// Runs services with a simulated clock.
#[derive(Debug, Parser)]
struct Args {
    /// Run so many services instead of drawing a few
    #[arg(long)]
    services: Option<usize>,
    /// For so many days
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=3660))]
    days: u32,
    /// Where the drawing goes
    #[arg(long, default_value = "fleet.svg")]
    out: PathBuf,
}

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "a program that reports to its terminal")]
async fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(services) = args.services {
        let report = world::many(services, args.days).await?;
        println!("{report}");
        return Ok(());
    }
    let drawn = world::few(args.days).await?;
    std::fs::write(&args.out, draw::svg(&drawn, args.days))
        .map_err(|error| backup_core::Error::io(format!("write {}", args.out.display()), error))?;
    println!("drawn to {}", args.out.display());
    Ok(())
}
