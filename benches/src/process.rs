//! Work in a process of its own, which measures itself.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use backup_core::engine::Work as Context;
use backup_core::entry::Selector;
use backup_core::env::{Clock, Env, SystemClock};
use backup_core::repository::{Repository as _, VerifyLevel};
use backup_core::run::{BackupOptions, backup, plan_restore, restore};
use backup_core::{RecoveryTarget, ServiceId};
use backup_crypto::{Identity, RawKey};
use backup_postgres::{PostgresEngine, PostgresSettings};
use backup_storage::store::Store;
use backup_storage::{CreateOptions, Repository, RepositorySettings};
use clap::Subcommand;

use crate::yardstick;

type Error = Box<dyn std::error::Error>;

/// A piece of work.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Work {
    /// A backup into the vault, which is made if it does not exist; incremental when it has one.
    Backup { vault: PathBuf, url: String },
    /// A restore of the newest backup.
    Restore { vault: PathBuf, into: PathBuf },
    /// Full verification.
    Verify { vault: PathBuf },
    /// `zstd -1` with as many threads as there are processors, over all files of a directory into one file.
    Zstd { dir: PathBuf, out: PathBuf },
}

impl Work {
    fn arguments(&self) -> Vec<std::ffi::OsString> {
        match self {
            Self::Backup { vault, url } => vec!["backup".into(), vault.into(), url.into()],
            Self::Restore { vault, into } => vec!["restore".into(), vault.into(), into.into()],
            Self::Verify { vault } => vec!["verify".into(), vault.into()],
            Self::Zstd { dir, out } => vec!["zstd".into(), dir.into(), out.into()],
        }
    }
}

/// What one run cost.
#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
pub(crate) struct Cost {
    /// Seconds by the clock, of the work alone.
    pub(crate) wall: f64,
    /// Seconds of processor time, user and system, of the whole process.
    pub(crate) cpu: f64,
    /// Peak resident memory in MiB.
    pub(crate) rss: f64,
    /// Bytes of content.
    pub(crate) bytes: u64,
    /// Bytes that were stored or written.
    pub(crate) stored: u64,
}

/// Runs `work` in a process of its own.
pub(crate) fn measure(work: &Work) -> Result<Cost, Error> {
    let me = std::env::current_exe()?;
    let output =
        std::process::Command::new(me).arg("child").args(work.arguments()).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("{work:?} failed: {}", output.status).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Does `work` in this process and prints what it cost.
pub(crate) async fn work(work: Work) -> Result<(), Error> {
    let clock = SystemClock::default();
    let begun = clock.monotonic();
    let (bytes, stored) = match work {
        Work::Backup { vault, url } => take(&vault, url).await?,
        Work::Restore { vault, into } => put_back(&vault, into).await?,
        Work::Verify { vault } => {
            let report = open(&vault).await?.verify(VerifyLevel::Full, &Context::default()).await?;
            if !report.is_sound() {
                return Err(format!("{:?}", report.damages).into());
            }
            (report.read_bytes, 0)
        }
        Work::Zstd { dir, out } => yardstick::compress(&dir, &out)?,
    };
    let wall = (clock.monotonic() - begun).as_secs_f64();
    let cost = Cost { wall, cpu: cpu_seconds()?, rss: peak_mib()?, bytes, stored };
    serde_json::to_writer(std::io::stdout(), &cost)?;
    Ok(())
}

fn service() -> Result<ServiceId, Error> {
    Ok(ServiceId::new("bench")?)
}

fn key() -> RawKey {
    RawKey::take(&mut [7; 32])
}

async fn open(vault: &Path) -> Result<Repository, Error> {
    let store = Store::local(vault)?;
    let settings = RepositorySettings::default();
    Ok(Repository::open(&store, service()?, Identity::from(key()), &settings, Env::system()).await?)
}

async fn take(vault: &Path, url: String) -> Result<(u64, u64), Error> {
    let repository = if vault.exists() {
        open(vault).await?
    } else {
        let (store, settings) = (Store::local(vault)?, RepositorySettings::default());
        let recipients = vec![key().into()];
        Repository::create(&store, service()?, recipients, CreateOptions::default(), &settings, Env::system()).await?
    };
    let engine = PostgresEngine::new(PostgresSettings::default().url(url))?;
    let record = backup(&repository, &engine, BackupOptions::default(), &Context::default()).await?;
    Ok((record.data_bytes, record.stored_bytes))
}

async fn put_back(vault: &Path, into: PathBuf) -> Result<(u64, u64), Error> {
    let repository = open(vault).await?;
    let engine = PostgresEngine::new(PostgresSettings::default().data_dir(into))?;
    let work = Context::default();
    let plan = plan_restore(&repository, &engine, RecoveryTarget::latest(), Selector::all(), &work).await?;
    let restored = restore(&engine, &plan, &work).await?;
    Ok((restored.extracted.bytes, restored.extracted.written_bytes))
}

/// Fields 14 and 15 of `/proc/self/stat` (proc(5)), which count in hundredths of a second.
fn cpu_seconds() -> Result<f64, Error> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit(')').next().ok_or("no fields in /proc/self/stat")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(ticks as f64 / 100.0)
}

/// `VmHWM` of `/proc/self/status`.
fn peak_mib() -> Result<f64, Error> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM in /proc/self/status")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kib / 1024.0)
}
