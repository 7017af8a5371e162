//! Work in a process of its own, which measures itself.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use backup_core::catalog::BackupRecord;
use backup_core::engine::{BackupEngine as _, LogContext, LogOptions, LogSink, Work as Context};
use backup_core::entry::Selector;
use backup_core::env::{Clock, Env, SystemClock};
use backup_core::repository::{Repository as _, VerifyLevel};
use backup_core::run::{BackupOptions, backup, plan_restore, restore};
use backup_core::{RecoveryTarget, ServiceId};
use backup_crypto::{Identity, RawKey};
use backup_postgres::{ChangeTracking, LogSlot, Lsn, PostgresEngine, PostgresSettings};
use backup_storage::store::Store;
use backup_storage::{CreateOptions, Repository, RepositorySettings};
use clap::Subcommand;
use tokio_util::sync::CancellationToken;

use crate::{clickhouse, redis, yardstick};

type Error = Box<dyn std::error::Error>;

/// A piece of work.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Work {
    /// A backup into the vault, which is made if it does not exist; incremental when it has one.
    Backup { vault: PathBuf, url: String, changes: String },
    /// A restore of the newest backup.
    Restore { vault: PathBuf, into: PathBuf },
    /// Full verification.
    Verify { vault: PathBuf },
    /// Opens the vault and reads its catalog.
    Catalog { vault: PathBuf },
    /// The log from a slot's position to `end` into the vault, which is made.
    Capture { vault: PathBuf, url: String, slot: String, end: String },
    /// The same by `pg_receivewal` into a folder, and every complete segment through `zstd -1`.
    Receive { program: PathBuf, dir: PathBuf, url: String, slot: String, end: String },
    /// A snapshot of a Redis server through `zstd -1` into a file.
    RedisDump {
        port: u16,
        out: PathBuf,
        #[arg(long)]
        cli: Option<PathBuf>,
    },
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
    fn arguments(&self) -> Vec<std::ffi::OsString> {
        match self {
            Self::Backup { vault, url, changes } => vec!["backup".into(), vault.into(), url.into(), changes.into()],
            Self::Restore { vault, into } => vec!["restore".into(), vault.into(), into.into()],
            Self::Verify { vault } => vec!["verify".into(), vault.into()],
            Self::Catalog { vault } => vec!["catalog".into(), vault.into()],
            Self::Capture { vault, url, slot, end } => {
                vec!["capture".into(), vault.into(), url.into(), slot.into(), end.into()]
            }
            Self::Receive { program, dir, url, slot, end } => {
                vec!["receive".into(), program.into(), dir.into(), url.into(), slot.into(), end.into()]
            }
            Self::RedisDump { port, out, cli } => {
                let cli = cli.iter().flat_map(|cli| ["--cli".into(), cli.into()]);
                ["redis-dump".into(), port.to_string().into(), out.into()].into_iter().chain(cli).collect()
            }
            Self::RedisBackup { vault, url } => vec!["redis-backup".into(), vault.into(), url.into()],
            Self::RedisRestore { vault, url } => vec!["redis-restore".into(), vault.into(), url.into()],
            Self::RedisSync { source, target } => {
                vec!["redis-sync".into(), source.to_string().into(), target.to_string().into()]
            }
            Self::ClickhouseBackup { vault, url, data } => {
                vec!["clickhouse-backup".into(), vault.into(), url.into(), data.into()]
            }
            Self::ClickhouseRestore { vault, url, data } => {
                vec!["clickhouse-restore".into(), vault.into(), url.into(), data.into()]
            }
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
    /// Bytes of content that were read, where not all of it was.
    pub(crate) read: u64,
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
    let mut read = 0;
    let (bytes, stored) = match work {
        Work::Backup { vault, url, changes } => {
            let record = take(&vault, url, &changes).await?;
            read = record.snapshot.fact("read_bytes").and_then(|text| text.parse().ok()).unwrap_or(0);
            (record.data_bytes, record.stored_bytes)
        }
        Work::Restore { vault, into } => put_back(&vault, into).await?,
        Work::Verify { vault } => {
            let report = open(&vault).await?.verify(VerifyLevel::Full, &Context::default()).await?;
            if !report.is_sound() {
                return Err(format!("{:?}", report.damages).into());
            }
            (report.read_bytes, 0)
        }
        Work::Catalog { vault } => {
            let repository = open(&vault).await?;
            let catalog = repository.catalog().await?;
            // Requests stand where others have bytes.
            let metrics = repository.store().metrics();
            (catalog.backups().count() as u64, metrics.get.requests + metrics.list.requests + metrics.head.requests)
        }
        Work::Capture { vault, url, slot, end } => {
            let settings = PostgresSettings::default().url(url).slot(LogSlot::Named(slot));
            let end = end.parse::<Lsn>()?.0;
            let following = Following::with(&vault, settings, LogOptions::default()).await?;
            following.reaches(end).await?;
            let begin = following.stop().await?;
            (end - begin, yardstick::size(&vault)?)
        }
        Work::Receive { program, dir, url, slot, end } => yardstick::receive(&program, &dir, &url, &slot, &end)?,
        Work::RedisDump { port, out, cli } => redis::dump(port, cli.as_deref(), &out)?,
        Work::RedisBackup { vault, url } => {
            let record = redis::take(&vault, &url).await?;
            (record.data_bytes, record.stored_bytes)
        }
        Work::RedisRestore { vault, url } => redis::put_back(&vault, &url).await?,
        Work::RedisSync { source, target } => {
            redis::sync(source, target)?;
            (0, 0)
        }
        Work::ClickhouseBackup { vault, url, data } => {
            let record = clickhouse::take(&vault, &url, &data).await?;
            (record.data_bytes, record.stored_bytes)
        }
        Work::ClickhouseRestore { vault, url, data } => clickhouse::put_back(&vault, &url, &data).await?,
        Work::Zstd { dir, out } => yardstick::compress(&dir, &out)?,
    };
    let wall = (clock.monotonic() - begun).as_secs_f64();
    let cost = Cost { wall, cpu: cpu_seconds()?, rss: peak_mib()?, bytes, stored, read };
    serde_json::to_writer(std::io::stdout(), &cost)?;
    Ok(())
}

fn service() -> Result<ServiceId, Error> {
    Ok(ServiceId::new("bench")?)
}

fn key() -> RawKey {
    RawKey::take(&mut [7; 32])
}

pub(crate) async fn open(vault: &Path) -> Result<Repository, Error> {
    let store = Store::local(vault)?;
    let settings = RepositorySettings::default();
    Ok(Repository::open(&store, service()?, Identity::from(key()), &settings, Env::system()).await?)
}

/// The vault, which is made if it does not exist.
pub(crate) async fn made(vault: &Path) -> Result<Repository, Error> {
    if vault.exists() {
        return open(vault).await;
    }
    let (store, settings) = (Store::local(vault)?, RepositorySettings::default());
    let recipients = vec![key().into()];
    Ok(Repository::create(&store, service()?, recipients, CreateOptions::default(), &settings, Env::system()).await?)
}

async fn take(vault: &Path, url: String, changes: &str) -> Result<BackupRecord, Error> {
    let repository = made(vault).await?;
    let tracking = if changes == "never" { ChangeTracking::Never } else { ChangeTracking::Auto };
    let engine = PostgresEngine::new(PostgresSettings::default().url(url).changes(tracking))?;
    let record = backup(&repository, &engine, BackupOptions::default(), &Context::default()).await?;
    let doubt = record.snapshot.findings.iter().find(|finding| finding.code == "changes-unknown");
    match doubt.filter(|_| changes == "log") {
        Some(doubt) => Err(doubt.to_string().into()),
        None => Ok(record),
    }
}

async fn put_back(vault: &Path, into: PathBuf) -> Result<(u64, u64), Error> {
    let repository = open(vault).await?;
    let engine = PostgresEngine::new(PostgresSettings::default().data_dir(into))?;
    let work = Context::default();
    let plan = plan_restore(&repository, &engine, RecoveryTarget::latest(), Selector::all(), &work).await?;
    let restored = restore(&engine, &plan, &work).await?;
    Ok((restored.extracted.bytes, restored.extracted.written_bytes))
}

/// A capture that runs.
pub(crate) struct Following {
    cancel: CancellationToken,
    task: tokio::task::JoinHandle<backup_core::Result<Arc<dyn LogSink>>>,
    sink: Arc<dyn LogSink>,
}

impl Following {
    /// Follows the server at `url` with a slot of its own.
    pub(crate) async fn start(vault: &Path, url: &str, flush_after: Duration) -> Result<Self, Error> {
        let settings = PostgresSettings::default().url(url);
        Self::with(vault, settings, LogOptions::default().flush_after(flush_after)).await
    }

    async fn with(vault: &Path, settings: PostgresSettings, options: LogOptions) -> Result<Self, Error> {
        let repository = made(vault).await?;
        let engine = PostgresEngine::new(settings)?;
        let cancel = CancellationToken::new();
        let work = Context::default().with_cancel(cancel.clone());
        let sink = repository.open_log(options, &work).await?;
        let cx = LogContext::new(work, Arc::clone(&sink));
        let task = tokio::spawn(async move {
            let log = engine.log().ok_or_else(|| backup_core::Error::internal("the engine has a log"))?;
            log.stream(&cx).await?;
            cx.sink().close().await?;
            Ok(Arc::clone(cx.sink()))
        });
        Ok(Self { cancel, task, sink })
    }

    /// Returns when the log is in the vault up to `end`.
    pub(crate) async fn reaches(&self, end: u64) -> Result<(), Error> {
        let mut known = self.sink.durable();
        while known.as_ref().is_none_or(|known| known.offset < end) {
            known = self.sink.advanced(known.as_ref()).await?;
        }
        Ok(())
    }

    /// Ends it; where the stored log begins.
    pub(crate) async fn stop(self) -> Result<u64, Error> {
        self.cancel.cancel();
        let sink = self.task.await??;
        let ledger = sink.ledger();
        let lineage = ledger.trunk().ok_or("no log is stored")?;
        Ok(ledger.covered(lineage).as_slice().first().map_or(0, |range| range.start))
    }
}

/// Fields 14 to 17 of `/proc/self/stat` (proc(5)), which count in hundredths of a second.
fn cpu_seconds() -> Result<f64, Error> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit(')').next().ok_or("no fields in /proc/self/stat")?;
    let ticks = fields.split_whitespace().skip(11).take(4).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(ticks as f64 / 100.0)
}

/// `VmHWM` of `/proc/self/status`.
fn peak_mib() -> Result<f64, Error> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM in /proc/self/status")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kib / 1024.0)
}
