//! The engine: a deployment of Redis or Valkey as something that can be backed up and restored.

mod back;
mod check;
mod cluster;
mod drill;
pub mod facts;
mod log;
mod probe;
mod receive;
mod records;
mod save;
mod scan;
mod settings;

pub use cluster::RedisCluster;
pub use drill::{RedisDrill, RedisDrillSettings};
pub use settings::{Method, Persistence, RedisSettings};

use std::fmt;

use async_trait::async_trait;
use backup_core::engine::{
    BackupContext, CheckContext, CheckReport, Deployment, EngineDescriptor, LogEngine, RestoreContext, Restored,
};
use backup_core::{BackupEngine, Consistency, Finding, Result, Severity, Snapshot};
use jiff::{SignedDuration, Timestamp};

use crate::client::Connection;
use crate::rdb::{ChecksumState, Counted, Dialect, Summary};
use crate::restore::RestoreSettings;
use probe::Probe;
use receive::Received;
use records::Records;

static DESCRIPTOR: EngineDescriptor =
    EngineDescriptor::new("redis", "Redis and Valkey", Consistency::PointInTime, "nothing: a snapshot is one file");

/// A deployment of Redis or Valkey.
#[derive(Debug, Clone)]
pub struct RedisEngine {
    settings: RedisSettings,
    restore: Option<RestoreSettings>,
}

impl RedisEngine {
    /// An engine for the deployment that `settings` describe. Nothing is connected or opened yet.
    ///
    /// # Errors
    /// [`InvalidInput`](backup_core::ErrorKind::InvalidInput) when the URL is none.
    pub fn new(settings: RedisSettings) -> Result<Self> {
        if settings.url.is_some() {
            settings.client()?;
        }
        Ok(Self { settings, restore: None })
    }

    /// Sets by which way a backup comes back, and what changes on it. Without it the snapshot becomes a file in the data directory.
    #[must_use]
    pub fn with_restore(mut self, restore: RestoreSettings) -> Self {
        self.restore = Some(restore);
        self
    }

    /// What it was told.
    #[must_use]
    pub fn settings(&self) -> &RedisSettings {
        &self.settings
    }
}

#[async_trait]
impl BackupEngine for RedisEngine {
    fn descriptor(&self) -> &EngineDescriptor {
        &DESCRIPTOR
    }

    async fn inspect(&self) -> Result<Deployment> {
        let Probe { client, node, method, findings } = probe::probe(&self.settings).await?;
        let source = self.settings.source(&client.address);
        let version = format!("{} {}", node.facts.product, node.facts.version);
        let mut deployment = Deployment::new(source, version, method.to_string());
        deployment.bytes = node.facts.memory;
        deployment.position = Some(facts::position(&node.facts.position));
        deployment.findings = findings;
        Ok(deployment)
    }

    async fn backup(&self, cx: &BackupContext) -> Result<Snapshot> {
        let started_at = cx.work().env().now();
        let mut probe = probe::probe(&self.settings).await?;
        if let Some(blocker) = probe.findings.iter().find(|finding| finding.severity == Severity::Blocker) {
            return Err(blocker.refusal(format!("a backup of {self}")));
        }
        let records = Records::ask(&mut probe.node.connection, &probe.node.facts, &probe.node.info).await?;
        let received = match probe.method {
            Method::Replication => {
                let mut connection = Connection::open(&probe.client, probe.node.connection.endpoint()).await?;
                if let Some(version) = probe.node.facts.replica_version() {
                    connection.announce(version).await?;
                }
                receive::replica(cx, connection).await?
            }
            Method::File => save::backup(cx, &self.settings, &mut probe.node).await?,
            Method::Scan => scan::backup(cx, &self.settings, &probe).await?,
        };
        records.put(&**cx.sink()).await?;
        let times = (started_at, cx.work().env().now());
        let source = self.settings.source(&probe.client.address);
        Ok(describe(source, probe, records, received, times))
    }

    async fn assess_restore(&self, cx: &RestoreContext) -> Result<Vec<Finding>> {
        back::assess(self, cx).await
    }

    async fn restore(&self, cx: &RestoreContext) -> Result<Restored> {
        back::restore(self, cx).await
    }

    async fn check(&self, cx: &CheckContext) -> Result<CheckReport> {
        check::check(cx).await
    }

    fn log(&self) -> Option<&dyn LogEngine> {
        Some(self)
    }
}

/// The header of the backup.
fn describe(
    source: String,
    probe: Probe,
    records: Records,
    received: Received,
    times: (Timestamp, Timestamp),
) -> Snapshot {
    let Received { summary, position, findings, lossy, .. } = received;
    let consistency = match probe.method {
        Method::Scan => Consistency::Fuzzy,
        Method::Replication | Method::File => DESCRIPTOR.consistency,
    };
    let node = &probe.node.facts;
    let mut snapshot = Snapshot::new(
        DESCRIPTOR.name,
        format!("{} {}", node.product, node.version),
        source,
        probe.method.to_string(),
        consistency,
        times,
    )
    .with_fact(facts::PRODUCT, node.product.to_string())
    .with_fact(facts::ROLE, if node.is_primary() { "primary" } else { "replica" })
    .with_findings(probe.findings)
    .with_findings(findings)
    .with_findings(counted(&summary))
    .with_findings(format_of(&summary));
    snapshot = content(snapshot, &summary);
    if let Some(position) = &position {
        let position = facts::position(position);
        snapshot = snapshot.with_positions(position.clone(), position);
    }
    if let Some(at) = made_at(&summary) {
        snapshot = snapshot.with_stopped_at(at);
    }
    if let Some((name, slots)) = records.member {
        snapshot = snapshot.with_fact(facts::NODE, name).with_fact(facts::SLOTS, slots);
    }
    records.lossy.into_iter().chain(lossy).fold(snapshot, Snapshot::with_lossy)
}

fn content(snapshot: Snapshot, summary: &Summary) -> Snapshot {
    let dialect = match summary.version.dialect {
        Dialect::Redis => "redis",
        Dialect::Valkey => "valkey",
    };
    let databases: Vec<_> = summary.databases.iter().map(|known| format!("{}={}", known.number, known.keys)).collect();
    let snapshot = snapshot
        .with_fact(facts::RDB_VERSION, format!("{dialect} {}", summary.version.number))
        .with_fact(facts::KEYS, summary.keys().to_string())
        .with_fact(facts::EXPIRES, summary.expires().to_string())
        .with_fact(facts::DATABASES, databases.join(","))
        .with_fact(facts::CHECKSUM, if summary.checksum == ChecksumState::Verified { "verified" } else { "off" })
        .with_fact(
            facts::COUNTED,
            match summary.counted {
                Counted::All => "all".to_owned(),
                Counted::Until { offset, .. } => offset.to_string(),
            },
        );
    match summary.stream_database() {
        Some(database) => snapshot.with_fact(facts::STREAM_DATABASE, database.to_string()),
        None => snapshot,
    }
}

/// What could not be counted.
fn counted(summary: &Summary) -> Option<Finding> {
    let Counted::Until { offset, what } = summary.counted else { return None };
    let text = format!(
        "from byte {offset} on the snapshot was not counted: {what} is not known here; its checksum was compared over all of it"
    );
    Some(Finding::new(Severity::Warning, "not-counted", text))
}

/// Who else can load the file.
fn format_of(summary: &Summary) -> Option<Finding> {
    let text = "the snapshot is in the format that only valkey reads, from its version 9 on: there are hashes whose fields expire";
    (summary.version.dialect == Dialect::Valkey).then(|| Finding::new(Severity::Note, "valkey-format", text))
}

/// The moment by which everything in the snapshot had been written. The file tells the second in which it was begun.
fn made_at(summary: &Summary) -> Option<Timestamp> {
    let second = summary.field("ctime")?.parse().ok()?;
    Timestamp::from_second(second).ok()?.checked_add(SignedDuration::from_secs(1)).ok()
}

impl fmt::Display for RedisEngine {
    /// Names the deployment without secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("redis")?;
        if let Ok(client) = self.settings.client() {
            write!(f, " at {}", client.address)?;
        }
        match &self.settings.data_dir {
            Some(dir) => write!(f, " in {}", dir.display()),
            None => Ok(()),
        }
    }
}
