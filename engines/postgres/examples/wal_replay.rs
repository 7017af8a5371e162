//! How long a restored server takes for its log: streamed from a WAL server, or fetched by a `restore_command`.
//!
//! `cargo run --release -p backup-postgres --example wal_replay -- [MEGABYTES] [ROUNDS]`
//!
//! One source writes that much log after its backup. The same backup is then restored again and again, and recovers up to the
//! same position from the same directory of segments, by turns in both ways. What counts is the time from the start of
//! the server to the end of its recovery; `fsync` is off, so that the disk does not decide.
#![allow(clippy::print_stdout, reason = "a program that reports")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use backup_core::engine::Work;
use backup_core::entry::Selector;
use backup_core::env::Env;
use backup_core::repository::MemoryRepository;
use backup_core::run::{self, BackupOptions};
use backup_core::{RecoveryTarget, ServiceId};
use backup_postgres::walsender::{DirectoryFeed, WalServer, WalServerOptions};
use backup_postgres::{Lsn, PostgresEngine, PostgresSettings};
use backup_testkit::wait::Stopwatch;
use backup_testkit::{PgVersion, Postgres, StopMode, scratch_dir, unprivileged};

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

const PATIENCE: Duration = Duration::from_secs(3600);
const VERSION: PgVersion = PgVersion::V17;

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let megabytes: u64 = arguments.next().map_or(Ok(1024), |text| text.parse())?;
    let rounds: usize = arguments.next().map_or(Ok(3), |text| text.parse())?;

    let env = Env::system();
    let mut source =
        Postgres::builder(VERSION).setting("wal_keep_size", "100GB").setting("max_wal_size", "100GB").start().await?;
    let client = source.connect("postgres").await?;
    client.batch_execute("create table load (id bigserial primary key, filler text not null)").await?;
    let repository = MemoryRepository::new(ServiceId::new("replay")?);
    let engine = PostgresEngine::new(PostgresSettings::default().url(source.unix_conn_string("postgres")))?;
    let work = Work::new(env.clone());
    let backup = run::backup(&repository, &engine, BackupOptions::default(), &work).await?;
    let from = position(&source).await?;
    while position(&source).await?.0 < from.0 + (megabytes << 20) {
        let sql = "insert into load (filler) select repeat(md5(i::text), 4) from generate_series(1, 50000) i;
                   update load set filler = filler || 'x' where id % 5 = 0 and id > (select max(id) from load) - 50000";
        client.batch_execute(sql).await?;
    }
    let target = position(&source).await?;
    let rows: i64 = client.query_one("select count(*) from load", &[]).await?.get(0);
    client.batch_execute("create table beyond as select 1").await?;
    source.stop(StopMode::Fast).await?;
    let archive = scratch_dir()?;
    unprivileged().own(archive.path())?;
    for entry in std::fs::read_dir(source.data_dir().join("pg_wal"))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            let path = archive.path().join(entry.file_name());
            std::fs::copy(entry.path(), &path)?;
            unprivileged().own(&path)?;
        }
    }
    let log = (target.0 - from.0) as f64 / f64::from(1 << 20);
    println!("{log:.0} MiB of log, {rows} rows");

    let mut times: [Vec<f64>; 2] = Default::default();
    for _ in 0..rounds {
        for (way, times) in times.iter_mut().enumerate() {
            let home = scratch_dir()?;
            let data = home.path().join("data");
            std::fs::create_dir(&data)?;
            unprivileged().own(&data)?;
            let engine = PostgresEngine::new(PostgresSettings::default().data_dir(&data))?;
            let goal = RecoveryTarget::backup(backup.id);
            let plan = run::plan_restore(&repository, &engine, goal, Selector::all(), &work).await?;
            run::restore(&engine, &plan, &work).await?;
            let server = match way {
                0 => {
                    recover(&data, &format!("restore_command = 'cp {}/%f %p'", archive.path().display()), target)?;
                    None
                }
                _ => {
                    let feed = DirectoryFeed::open(archive.path(), &env).await?;
                    let server = WalServer::start(Arc::new(feed), WalServerOptions::default(), &env).await?;
                    recover(&data, &format!("primary_conninfo = '{}'", server.conninfo()), target)?;
                    Some(server)
                }
            };
            let watch = Stopwatch::start();
            let restored =
                Postgres::builder(VERSION).setting("max_wal_size", "100GB").open(PathBuf::from(&data)).await?;
            restored.wait_writable(PATIENCE).await?;
            let seconds = watch.elapsed().as_secs_f64();
            let found: i64 =
                restored.connect("postgres").await?.query_one("select count(*) from load", &[]).await?.get(0);
            if found != rows {
                return Err(format!("{found} rows of {rows} after the recovery").into());
            }
            drop(server);
            times.push(seconds);
            println!("{:>16} {seconds:6.2} s {:6.0} MiB/s", NAMES[way], log / seconds);
        }
    }
    for (name, times) in NAMES.iter().zip(&mut times) {
        times.sort_by(f64::total_cmp);
        let median = times.get(times.len() / 2).copied().unwrap_or_default();
        println!("{name:>16} {median:6.2} s {:6.0} MiB/s (median of {rounds})", log / median);
    }
    Ok(())
}

const NAMES: [&str; 2] = ["restore_command", "wal server"];

async fn position(server: &Postgres) -> Result<Lsn> {
    Ok(Lsn(server.current_lsn().await?.into()))
}

/// Has the server in `data` recover from `place` up to `target`.
fn recover(data: &Path, place: &str, target: Lsn) -> Result<()> {
    let signal = format!(
        "{place}\nrecovery_target_timeline = 'latest'\nrecovery_target_lsn = '{target}'\n\
         recovery_target_inclusive = off\nrecovery_target_action = 'promote'\n"
    );
    Ok(std::fs::write(data.join("standby.signal"), signal)?)
}
