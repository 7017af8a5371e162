//! The engine: a PostgreSQL cluster as something that can be backed up and restored.

mod assess;
mod changed;
mod check;
mod drill;
mod ending;
mod facts;
mod feed;
mod increment;
mod label;
mod local;
mod log;
mod notes;
mod overlay;
mod pages;
mod probe;
mod protocol;
mod receive;
mod recovery;
mod replay;
mod restore;
mod scan;
mod serve;
mod settings;
mod stop;
mod summaries;
mod supply;
mod target;
mod waldir;
mod walk;

pub use drill::{PostgresDrill, PostgresDrillSettings};
pub(crate) use probe::connection;
pub use settings::{ChangeTracking, Checkpoint, LogSlot, Method, PostgresSettings, Replay, TargetAction};

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use async_trait::async_trait;
use backup_core::engine::{
    BackupContext, CheckContext, CheckReport, Deployment, EngineDescriptor, LogEngine, RestoreContext, Restored,
    Unchanged,
};
use backup_core::{BackupEngine, Consistency, Finding, LossyItem, Result, Snapshot};

use crate::lsn::{Lsn, TimelineId};
use facts::Tablespace;

static DESCRIPTOR: EngineDescriptor = EngineDescriptor::new(
    "postgres",
    "PostgreSQL",
    Consistency::PointInTime,
    "nothing: a cluster is restored as a whole",
);

/// A PostgreSQL cluster.
///
/// As the source of a backup it is a running server, reached by [`PostgresSettings::url`]. As the target of a restore it is
/// the directory [`PostgresSettings::data_dir`], which no server may be running in.
#[derive(Debug, Clone)]
pub struct PostgresEngine {
    settings: PostgresSettings,
}

/// What either way of reading has found out.
#[derive(Debug)]
struct Taken {
    start: Lsn,
    stop: Lsn,
    timeline: TimelineId,
    tablespaces: Vec<Tablespace>,
    findings: Vec<Finding>,
    /// What was known of changes since the parent.
    known: changed::Known,
    /// Bytes of files that were read, if they were.
    read_bytes: Option<u64>,
    /// By what the log at its end can be recognised.
    witness: Option<String>,
    /// Whether `postgresql.conf` lies in the data directory. Some distributions keep it elsewhere.
    configured: bool,
}

impl PostgresEngine {
    /// An engine for the deployment that `settings` describe. Nothing is connected or opened yet.
    ///
    /// # Errors
    /// [`InvalidInput`](backup_core::ErrorKind::InvalidInput) when the connection string is not one.
    pub fn new(settings: PostgresSettings) -> Result<Self> {
        // A restore needs no server, so nothing need be known of one.
        if settings.url.is_some() {
            probe::connection(&settings)?;
        }
        Ok(Self { settings })
    }

    /// What it was told.
    #[must_use]
    pub fn settings(&self) -> &PostgresSettings {
        &self.settings
    }
}

/// Where files are read: this host, the data directory and its inode, which a copy does not share. File times mean
/// something only there. None when it cannot be told apart from others.
fn origin(root: &Path) -> Option<String> {
    let host = std::fs::read_to_string("/etc/machine-id").ok()?;
    let host = Some(host.trim()).filter(|host| !host.is_empty())?;
    let inode = std::fs::metadata(root).ok()?.ino();
    Some(format!("{host}:{inode}:{}", root.display()))
}

#[async_trait]
impl BackupEngine for PostgresEngine {
    fn descriptor(&self) -> &EngineDescriptor {
        &DESCRIPTOR
    }

    async fn inspect(&self) -> Result<Deployment> {
        let (session, server) = probe::probe(&self.settings).await?;
        session.close().await;
        let method = server.method(&self.settings)?;
        let mut deployment =
            Deployment::new(server.system_id.to_string(), server.version.to_string(), method.to_string());
        deployment.bytes = server.bytes;
        deployment.position = Some(facts::position(server.timeline, server.position));
        deployment.findings = server.findings;
        Ok(deployment)
    }

    async fn backup(&self, cx: &BackupContext) -> Result<Snapshot> {
        let started_at = cx.work().env().now();
        let name = format!("{:016x}", u64::from_le_bytes(cx.work().env().random()));
        let (mut session, server) = probe::probe(&self.settings).await?;
        let method = server.method(&self.settings)?;
        let mut origin_fact = None;
        let taken = match (method, &server.local) {
            (Method::Local, Ok(root)) => {
                origin_fact = origin(root);
                let before = cx.parent().and_then(|parent| parent.snapshot.fact(facts::ORIGIN));
                let same_place = before.is_some() && before == origin_fact.as_deref();
                let rule = if same_place { Unchanged::BySizeAndTime } else { Unchanged::Never };
                local::backup(cx, &mut session, &server, root, &self.settings, rule, &name).await?
            }
            _ => protocol::backup(cx, &mut session, &self.settings, &server, &name).await?,
        };
        let stopped_at = facts::clock(&mut session).await?;
        session.close().await;
        let tablespaces = serde_json::to_string(&taken.tablespaces)
            .map_err(|e| backup_core::Error::internal("tablespaces cannot be written down").with_source(e))?;
        let on_off = |on: bool| if on { "on" } else { "off" };
        let mut snapshot = Snapshot::new(
            DESCRIPTOR.name,
            server.version.to_string(),
            server.system_id.to_string(),
            method.to_string(),
            DESCRIPTOR.consistency,
            (started_at, cx.work().env().now()),
        )
        .with_positions(facts::position(taken.timeline, taken.start), facts::position(taken.timeline, taken.stop))
        .with_stopped_at(stopped_at)
        .with_fact(facts::VERSION_NUM, server.version.number().to_string())
        .with_fact(facts::WAL_SEGMENT_SIZE, server.wal_segment_size.bytes().to_string())
        .with_fact(facts::DATA_CHECKSUMS, on_off(server.data_checksums))
        .with_fact(facts::MODE, format!("{:04o}", server.mode))
        .with_fact(facts::STANDBY, if server.standby { "yes" } else { "no" })
        .with_fact(facts::TABLESPACES, tablespaces)
        .with_findings(server.findings)
        .with_findings(taken.findings);
        if !taken.configured {
            let reason = "the server reads it from outside of the data directory";
            snapshot = snapshot.with_lossy(LossyItem::new("postgresql.conf and the files beside it", reason));
        }
        if let Some(bytes) = taken.read_bytes {
            snapshot = snapshot.with_fact(facts::READ_BYTES, bytes.to_string());
        }
        if let Some(witness) = taken.witness {
            snapshot = snapshot.with_fact(facts::WITNESS, witness);
        }
        snapshot = taken.known.describe(snapshot);
        if let Some(origin) = origin_fact {
            snapshot = snapshot.with_fact(facts::ORIGIN, origin);
        }
        Ok(snapshot)
    }

    async fn assess_restore(&self, cx: &RestoreContext) -> Result<Vec<Finding>> {
        assess::assess(&self.settings, cx).await
    }

    async fn restore(&self, cx: &RestoreContext) -> Result<Restored> {
        restore::restore(&self.settings, cx).await
    }

    async fn check(&self, cx: &CheckContext) -> Result<CheckReport> {
        check::check(cx).await
    }

    fn log(&self) -> Option<&dyn LogEngine> {
        Some(self)
    }
}

impl fmt::Display for PostgresEngine {
    /// Names the deployment without secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("postgres")?;
        if self.settings.url.is_some()
            && let Ok(connection) = probe::connection(&self.settings)
            && let Some(host) = connection.hosts.first()
        {
            write!(f, " at {host}")?;
        }
        match &self.settings.data_dir {
            Some(dir) => write!(f, " in {}", dir.display()),
            None => Ok(()),
        }
    }
}
