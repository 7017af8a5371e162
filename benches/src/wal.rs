//! A log into a local vault: catching up beside `pg_receivewal`, what it costs a busy server, and how far behind it is.

use std::path::{Path, PathBuf};
use std::time::Duration;

use backup_core::env::{Clock, SystemClock};
use backup_testkit::pgbench::{Bank, Dataset};
use backup_testkit::tokio_postgres::Client;
use backup_testkit::tokio_postgres::types::PgLsn;
use backup_testkit::{PgVersion, Postgres};

use crate::chart;
use crate::figures::{Figures, Spread, table};
use crate::process::{self, Work, measure};

type Error = Box<dyn std::error::Error>;

/// `pg_receivewal`, where an installation of PostgreSQL has it.
fn receivewal() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join("pg_receivewal")).find(|program| program.exists())
}

/// Writes `size` MB of log and has every contender fetch it, `runs` times in turn; then commits under a load.
#[expect(clippy::print_stdout, reason = "a program that reports to its terminal")]
pub(crate) async fn run(size: u64, runs: usize, out: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(out)?;
    println!("{size} MB of log on PostgreSQL 15 are being written …");
    let server = Postgres::builder(PgVersion::V15)
        // On a disk, as servers are.
        .base_dir(std::env::temp_dir())
        .fsync(true)
        .setting("max_wal_size", "8GB")
        .start()
        .await?;
    let client = server.connect("postgres").await?;
    // What keeps the log: one slot for each run.
    for round in 0..runs {
        for name in ["receive", "capture"] {
            let sql = format!("select pg_create_physical_replication_slot('{name}_{round}', true)");
            client.batch_execute(&sql).await?;
        }
    }
    Dataset::realistic(size << 20, 1).load(&server, "postgres").await?;
    client.batch_execute("select pg_switch_wal()").await?;
    let end: PgLsn = client.query_one("select pg_current_wal_flush_lsn()", &[]).await?.get(0);
    let url = format!("{} sslmode=disable", server.conn_string("postgres"));
    let scratch = tempfile::tempdir_in(out)?;
    let program = receivewal();
    if program.is_none() {
        println!("no pg_receivewal on this machine: it is left out");
    }
    let (mut receive, mut capture) = (vec![], vec![]);
    for round in 0..runs {
        println!("round {} of {runs} …", round + 1);
        if let Some(program) = &program {
            let dir = scratch.path().join("received");
            std::fs::create_dir(&dir)?;
            let slot = format!("receive_{round}");
            let (url, program) = (url.clone(), program.clone());
            receive.push(measure(&Work::Receive { program, dir: dir.clone(), url, slot, end: end.to_string() })?);
            std::fs::remove_dir_all(&dir)?;
        }
        let vault = scratch.path().join("vault");
        let slot = format!("capture_{round}");
        let work = Work::Capture { vault: vault.clone(), url: url.clone(), slot, end: end.to_string() };
        capture.push(measure(&work)?);
        std::fs::remove_dir_all(&vault)?;
    }
    let mut all = vec![Figures::of("capture", &capture)];
    if !receive.is_empty() {
        all.insert(0, Figures::of("pg_receivewal, then zstd -1", &receive));
    }
    let busy = busy(&server, &client, &scratch.path().join("busy")).await?;
    let text = format!("{}\n{}", table(&all), busy.text());
    let json = serde_json::json!({ "bench": "wal", "size_mb": size, "runs": runs, "figures": all, "busy": busy });
    std::fs::write(out.join("wal.json"), serde_json::to_string_pretty(&json)?)?;
    std::fs::write(out.join("wal.svg"), chart::seconds("PostgreSQL's log, local vault", &all))?;
    std::fs::write(out.join("wal.md"), &text)?;
    println!("{text}\nwritten to {}", out.display());
    Ok(())
}

/// What a capture does to a server that works, and how far behind it is. All in milliseconds.
#[derive(Debug, serde::Serialize)]
struct Busy {
    /// From a commit to the moment when its log is in the vault.
    lag: Spread,
    /// Commits a second meanwhile.
    commits: f64,
    /// A commit without anybody who follows.
    alone: Spread,
    /// A commit that returns when its log is in the vault.
    synchronous: Spread,
}

impl Busy {
    fn text(&self) -> String {
        let line = |what: &str, s: &Spread| format!("| {what} | {:.1} | {:.1} | {:.1} |\n", s.min, s.median, s.max);
        format!(
            "| milliseconds | min | median | max |\n|---|---|---|---|\n{}{}{}\n{:.0} commits a second under the load of the first line.\n",
            line("from a commit to the vault, flushed every second, under load", &self.lag),
            line("one commit, nobody follows", &self.alone),
            line("one commit, synchronous with the vault", &self.synchronous),
            self.commits,
        )
    }
}

async fn busy(server: &Postgres, client: &Client, vault: &Path) -> Result<Busy, Error> {
    const SAMPLES: usize = 20;
    let clock = SystemClock::default();
    let millis = |since: Duration| (clock.monotonic() - since).as_secs_f64() * 1e3;
    client.batch_execute("create table ticks (n int)").await?;
    let tick = async || -> Result<f64, Error> {
        let begun = clock.monotonic();
        client.batch_execute("insert into ticks values (1)").await?;
        Ok(millis(begun))
    };
    let mut alone = Vec::new();
    for _ in 0..200 {
        alone.push(tick().await?);
    }

    let url = format!("{} sslmode=disable application_name=busy", server.conn_string("postgres"));
    let bank = Bank::create(client, 10_000).await?;
    let capture = process::Following::start(vault, &url, Duration::from_secs(1)).await?;
    let load = bank.run(server, "postgres", 4).await?;
    let begun = clock.monotonic();
    let mut lag = Vec::new();
    for _ in 0..SAMPLES {
        let end: PgLsn = client.query_one("select pg_current_wal_flush_lsn()", &[]).await?.get(0);
        let since = clock.monotonic();
        capture.reaches(end.into()).await?;
        lag.push(millis(since));
    }
    let commits = load.committed() as f64 / (clock.monotonic() - begun).as_secs_f64();
    load.stop().await;
    capture.stop().await?;

    let capture = process::Following::start(vault, &url, Duration::ZERO).await?;
    let end: PgLsn = client.query_one("select pg_current_wal_flush_lsn()", &[]).await?.get(0);
    capture.reaches(end.into()).await?;
    client.batch_execute("alter system set synchronous_standby_names = 'busy'").await?;
    client.batch_execute("select pg_reload_conf()").await?;
    let mut synchronous = Vec::new();
    for _ in 0..200 {
        synchronous.push(tick().await?);
    }
    client.batch_execute("alter system reset synchronous_standby_names").await?;
    client.batch_execute("select pg_reload_conf()").await?;
    capture.stop().await?;
    let spread = |values: Vec<f64>| Spread::of(values.into_iter());
    Ok(Busy { lag: spread(lag), commits, alone: spread(alone), synchronous: spread(synchronous) })
}
