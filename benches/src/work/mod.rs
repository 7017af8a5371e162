//! Our own pieces of work, each done in a process of its own.

mod each;
mod files;
mod log;
mod postgres;
mod vault;

pub(crate) use postgres::Following;
pub(crate) use vault::{PASSPHRASE, made, made_with, open};

use std::path::PathBuf;

use backup_core::engine::Work as Context;
use backup_core::repository::{Repository as _, VerifyLevel};
use backup_storage::Repository;

use crate::measure::{Cost, Job, Said};
use crate::scenarios::{clickhouse, redis};
use crate::{Error, yardstick};

/// A piece of work. Vaults are directories, or addresses of stores.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) enum Work {
    /// An empty vault.
    Create { vault: PathBuf },
    /// A backup of a PostgreSQL server; incremental when the vault, which is made if it does not exist, has one. `changes` is `auto`,
    /// `never`, or `log`, which fails if the log was of no use.
    Backup { vault: PathBuf, url: String, changes: String },
    /// A restore of the newest backup of a PostgreSQL server, over what is there if `delta` says so.
    Restore { vault: PathBuf, into: PathBuf, delta: bool },
    /// Full verification.
    Verify { vault: PathBuf },
    /// Opens the vault and reads its catalog.
    Catalog { vault: PathBuf },
    /// A backup of a directory.
    FilesBackup { vault: PathBuf, dir: PathBuf },
    /// A restore of the newest backup of a directory, over what is there if `delta` says so.
    FilesRestore { vault: PathBuf, into: PathBuf, delta: bool },
    /// The log from a slot's position to `end` into the vault.
    Capture { vault: PathBuf, url: String, slot: String, end: String },
    /// Segments of log that lie in `dir` into the vault.
    Import { vault: PathBuf, dir: PathBuf },
    /// All of the log out of the vault, as segments.
    Fetch { vault: PathBuf, into: PathBuf },
    /// The same by `pg_receivewal` into a folder, and every complete segment through `zstd -1`.
    Receive { program: PathBuf, dir: PathBuf, url: String, slot: String, end: String },
    /// `program` with `arguments` for each line of `list`, which stands for `{}` in them, one after the other.
    Each { list: PathBuf, program: PathBuf, arguments: Vec<String> },
    /// A snapshot of a Redis server through `zstd -1` into a file.
    RedisDump { port: u16, out: PathBuf, cli: Option<PathBuf> },
    /// A backup of a Redis server into the vault, which is made.
    RedisBackup { vault: PathBuf, url: String },
    /// The newest backup into a running Redis server.
    RedisRestore { vault: PathBuf, url: String },
    /// A Redis server gets everything from another one.
    RedisSync { source: u16, target: u16 },
    /// A backup of the ClickHouse server at `url`, whose data directory is `data`, into the vault, which is made if it does not exist.
    ClickhouseBackup { vault: PathBuf, url: String, data: PathBuf },
    /// The newest backup into the running ClickHouse server at `url`, whose data directory is `data`.
    ClickhouseRestore { vault: PathBuf, url: String, data: PathBuf },
    /// `zstd -1` with as many threads as there are processors, over all files of a directory into one file.
    Zstd { dir: PathBuf, out: PathBuf },
}

impl Work {
    /// The command line that does it.
    pub(crate) fn job(&self) -> Result<Job, Error> {
        Ok(Job::new(std::env::current_exe()?).arg("child").arg(serde_json::to_string(self)?))
    }
}

/// What a piece of work has printed.
pub(crate) fn said(text: &str) -> Result<Said, Error> {
    Ok(serde_json::from_str(text)?)
}

/// Runs `work` in a process of its own.
pub(crate) fn measure(work: &Work) -> Result<Cost, Error> {
    measure_beside(None, work)
}

/// The same, and what the server, whose main process that is, used meanwhile.
pub(crate) fn measure_beside(server: Option<u32>, work: &Work) -> Result<Cost, Error> {
    let (cost, text) = crate::measure::measure(&work.job()?, server)?;
    let Said { bytes, stored, content_read, requests } = said(&text)?;
    Ok(Cost { bytes, stored, content_read, requests, ..cost })
}

/// Does `work`, as JSON, in this process, and prints what it says.
pub(crate) async fn run(work: &str) -> Result<(), Error> {
    let said = perform(serde_json::from_str(work)?).await?;
    serde_json::to_writer(std::io::stdout(), &said)?;
    Ok(())
}

fn amount((bytes, stored): (u64, u64)) -> Said {
    Said { bytes, stored, ..Said::default() }
}

async fn perform(work: Work) -> Result<Said, Error> {
    Ok(match work {
        Work::Create { vault } => {
            vault::create(&vault).await?;
            Said::default()
        }
        Work::Backup { vault, url, changes } => postgres::take(&made(&vault).await?, url, &changes).await?,
        Work::Restore { vault, into, delta } => postgres::put_back(&open(&vault).await?, into, delta).await?,
        Work::Verify { vault } => {
            let repository = open(&vault).await?;
            let report = repository.verify(VerifyLevel::Full, &Context::default()).await?;
            if !report.is_sound() {
                return Err(format!("{:?}", report.damages).into());
            }
            Said { bytes: report.read_bytes, requests: requests(&repository), ..Said::default() }
        }
        Work::Catalog { vault } => {
            let repository = open(&vault).await?;
            let backups = repository.catalog().await?.backups().count();
            Said { bytes: backups as u64, requests: requests(&repository), ..Said::default() }
        }
        Work::FilesBackup { vault, dir } => files::take(&open(&vault).await?, dir).await?,
        Work::FilesRestore { vault, into, delta } => files::put_back(&open(&vault).await?, into, delta).await?,
        Work::Capture { vault, url, slot, end } => {
            let repository = made(&vault).await?;
            let bytes = log::capture(&repository, url, slot, &end).await?;
            Said { bytes, requests: requests(&repository), ..Said::default() }
        }
        Work::Import { vault, dir } => log::import(&open(&vault).await?, &dir).await?,
        Work::Fetch { vault, into } => log::fetch(&open(&vault).await?, &into).await?,
        Work::Receive { program, dir, url, slot, end } => {
            amount(yardstick::receive(&program, &dir, &url, &slot, &end)?)
        }
        Work::Each { list, program, arguments } => {
            each::run(&list, &program, &arguments)?;
            Said::default()
        }
        Work::RedisDump { port, out, cli } => amount(redis::dump(port, cli.as_deref(), &out)?),
        Work::RedisBackup { vault, url } => {
            let record = redis::take(&vault, &url).await?;
            amount((record.data_bytes, record.stored_bytes))
        }
        Work::RedisRestore { vault, url } => amount(redis::put_back(&vault, &url).await?),
        Work::RedisSync { source, target } => {
            redis::sync(source, target)?;
            Said::default()
        }
        Work::ClickhouseBackup { vault, url, data } => {
            let record = clickhouse::take(&vault, &url, &data).await?;
            amount((record.data_bytes, record.stored_bytes))
        }
        Work::ClickhouseRestore { vault, url, data } => amount(clickhouse::put_back(&vault, &url, &data).await?),
        Work::Zstd { dir, out } => amount(yardstick::compress(&dir, &out)?),
    })
}

/// Requests that the repository has sent to its store.
fn requests(repository: &Repository) -> Option<u64> {
    let metrics = repository.store().metrics();
    let all = [metrics.create, metrics.get, metrics.head, metrics.list, metrics.delete];
    Some(all.iter().map(|kind| kind.requests).sum())
}
