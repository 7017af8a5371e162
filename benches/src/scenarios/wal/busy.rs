//! What a capture does to a server that works, and how far behind it is.

use std::path::Path;
use std::time::Duration;

use backup_core::env::{Clock, SystemClock};
use backup_testkit::Postgres;
use backup_testkit::pgbench::Bank;
use backup_testkit::tokio_postgres::Client;
use backup_testkit::tokio_postgres::types::PgLsn;

use crate::Error;
use crate::figures::Spread;
use crate::work::Following;

/// All in milliseconds.
#[derive(Debug, serde::Serialize)]
pub(super) struct Busy {
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
    pub(super) fn text(&self) -> String {
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

pub(super) async fn measure(server: &Postgres, client: &Client, vault: &Path) -> Result<Busy, Error> {
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
    let capture = Following::start(vault, &url, Duration::from_secs(1)).await?;
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

    let capture = Following::start(vault, &url, Duration::ZERO).await?;
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
