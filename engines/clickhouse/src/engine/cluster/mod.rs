//! A cluster: every server a member of one backup.
//!
//! All servers are asked and locked first, and none freezes a table before all are ready; how far apart they still are is measured. A
//! replicated table is read at one of its replicas only, the one that has most of it; the others say who has it.

mod back;
mod replicas;
mod settings;
mod topology;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::engine::members::{each_member, member_backup, member_check, member_names};
use backup_core::engine::{
    BackupContext, CheckContext, CheckReport, Deployment, EngineDescriptor, RestoreContext, Restored,
};
use backup_core::{BackupEngine, Consistency, Error, Finding, Group, Member, MemberName, Result, Severity, Snapshot};
use tokio::sync::Barrier;

use super::share::Share;
use super::{ClickHouse, backup, check, facts};
use crate::client::Client;
use crate::restore::RestoreSettings;
use crate::server::Server;
use replicas::{Holders, Replica};
pub use settings::{ClusterSettings, MemberSettings};
use topology::{Place, Said};

static DESCRIPTOR: EngineDescriptor = EngineDescriptor::new(
    "clickhouse-cluster",
    "ClickHouse cluster",
    Consistency::PerPart,
    "SERVER/data/DATABASE/…, where SERVER is the folder of a member, such as shard-01-replica-01",
);

/// Several ClickHouse servers: shards, and replicas of them.
///
/// As the source of a backup, all of them run and their data directories are on this machine. As the target of a restore, each server gets what
/// the one of the same numbers had; or fewer servers get all of it.
#[derive(Debug, Clone)]
pub struct ClickHouseCluster {
    settings: ClusterSettings,
    restore: RestoreSettings,
}

/// A server that was looked at.
#[derive(Debug, Clone)]
struct Looked {
    engine: ClickHouse,
    numbers: (u32, u32),
    client: Client,
    server: Server,
    replicas: Vec<Replica>,
    /// What it says of clusters, if that is wanted.
    places: Vec<Place>,
}

impl ClickHouseCluster {
    /// An engine for the servers that `settings` name. Nothing is connected or opened yet.
    ///
    /// # Errors
    /// [`InvalidInput`](backup_core::ErrorKind::InvalidInput) when two have the same numbers, or an address is none.
    pub fn new(settings: ClusterSettings) -> Result<Self> {
        for (_, member) in settings.named()? {
            member.server.client()?;
        }
        Ok(Self { settings, restore: RestoreSettings::default() })
    }

    /// Sets how it is restored.
    #[must_use]
    pub fn with_restore(mut self, restore: RestoreSettings) -> Self {
        self.restore = restore;
        self
    }

    /// What it was told.
    #[must_use]
    pub fn settings(&self) -> &ClusterSettings {
        &self.settings
    }

    /// Asks every server, and compares what they say of the cluster with what was given.
    async fn look(&self) -> Result<Vec<(MemberName, Looked)>> {
        let named = self.settings.named()?;
        if named.is_empty() {
            return Err(Error::invalid("nothing says which servers the cluster has"));
        }
        let is_compared = self.settings.cluster.is_some();
        let looked = each_member(named, None, move |name, member| async move {
            let numbers = (member.shard, member.replica);
            let engine = ClickHouse::new(member.server)?;
            let (client, server) = engine.ask().await?;
            let places = if is_compared { topology::ask(&client).await? } else { Vec::new() };
            let replicas = replicas::ask(&client, &server).await?;
            Ok((name, Looked { engine, numbers, client, server, replicas, places }))
        });
        let looked = looked.await?;
        if let Some(cluster) = &self.settings.cluster {
            let said = looked.iter().map(|(_, looked)| Said {
                address: looked.client.address(),
                numbers: looked.numbers,
                places: &looked.places,
            });
            topology::compare(cluster, &said.collect::<Vec<_>>())?;
        }
        Ok(looked)
    }

    /// By what the cluster is known.
    fn source(&self, looked: &[(MemberName, Looked)]) -> String {
        let sources = looked.iter().map(|(_, looked)| looked.server.source.as_str());
        self.settings.identity.clone().unwrap_or_else(|| sources.collect::<Vec<_>>().join(","))
    }
}

/// One server that is mentioned twice would wait for itself: its directory is locked by whoever is first.
fn all_different(looked: &[(MemberName, Looked)]) -> Result<()> {
    let mut seen: Vec<(&std::path::Path, &MemberName)> = Vec::new();
    for (name, looked) in looked {
        let (dir, what) = match &looked.engine.settings().staging {
            Some(staging) => (staging.dir.as_path(), "staging folder"),
            None => (looked.server.default_disk()?.dir.as_path(), "data directory"),
        };
        if let Some((_, other)) = seen.iter().find(|(known, _)| *known == dir) {
            let text = format!("{other} and {name} have the same {what} {}", dir.display());
            return Err(Error::invalid(text));
        }
        seen.push((dir, name));
    }
    Ok(())
}

fn behind(holders: &Holders) -> impl Iterator<Item = Finding> + '_ {
    holders.behind.iter().map(|(member, table, inserts)| {
        let text =
            format!("{inserts} inserts are missing that no replica has fetched; {member} is the one that has most");
        Finding::new(Severity::Warning, "replica-behind", text).about(table.to_string())
    })
}

#[async_trait]
impl BackupEngine for ClickHouseCluster {
    fn descriptor(&self) -> &EngineDescriptor {
        &DESCRIPTOR
    }

    async fn inspect(&self) -> Result<Deployment> {
        let looked = self.look().await?;
        all_different(&looked)?;
        let mut versions: Vec<_> = looked.iter().map(|(_, looked)| looked.server.version.to_string()).collect();
        versions.sort_unstable();
        versions.dedup();
        let mut deployment = Deployment::new(self.source(&looked), versions.join(", "), "local");
        let members: Vec<_> = looked.into_iter().map(|(name, looked)| (name, looked.engine)).collect();
        let inspected = each_member(members, None, |name, engine| async move { Ok((name, engine.inspect().await?)) });
        for (name, member) in inspected.await? {
            deployment.bytes = deployment.bytes.zip(member.bytes).map(|(all, one)| all + one).or(member.bytes);
            deployment.findings.extend(member.findings.into_iter().map(|finding| finding.of_member(&name)));
        }
        Ok(deployment)
    }

    async fn backup(&self, cx: &BackupContext) -> Result<Snapshot> {
        let started_at = cx.work().env().now();
        let looked = self.look().await?;
        all_different(&looked)?;
        let source = self.source(&looked);
        let told: Vec<_> =
            looked.iter().map(|(name, looked)| (name.clone(), looked.numbers.0, looked.replicas.clone())).collect();
        let mut holders = replicas::choose(&told);
        let gate = Arc::new(Barrier::new(looked.len()));
        let mut ready = Vec::new();
        for (name, looked) in looked {
            let elsewhere = holders.elsewhere.remove(&name).unwrap_or_default();
            let share = Share { gate: Some(Arc::clone(&gate)), elsewhere };
            ready.push((name.clone(), (member_backup(cx, &name).await?, looked, share)));
        }
        let members = each_member(ready, None, |name, (own, looked, share)| async move {
            let Looked { engine, client, server, .. } = looked;
            let (snapshot, at) = backup::backup(&own, &client, &server, engine.settings(), &share).await?;
            Ok(Member::new(name, snapshot).with_taken_at(at))
        });
        let members = members.await?;
        let sum = |fact: &str| {
            let all = members.iter().filter_map(|member| member.fact(fact)?.parse::<u64>().ok());
            all.sum::<u64>().to_string()
        };
        let facts = [facts::TABLES, facts::PARTS, facts::ROWS, facts::BYTES].map(|fact| (fact, sum(fact)));
        let count = members.len().to_string();
        let times = (started_at, cx.work().env().now());
        let mut snapshot = Snapshot::of_group(DESCRIPTOR.name, source, "local", times, Group::new(members)?);
        snapshot.findings.extend(behind(&holders));
        snapshot = snapshot.with_fact(facts::SERVERS, count);
        Ok(facts.into_iter().fold(snapshot, |snapshot, (fact, sum)| snapshot.with_fact(fact, sum)))
    }

    async fn assess_restore(&self, cx: &RestoreContext) -> Result<Vec<Finding>> {
        back::assess(self, cx).await
    }

    async fn restore(&self, cx: &RestoreContext) -> Result<Restored> {
        back::restore(self, cx).await
    }

    async fn check(&self, cx: &CheckContext) -> Result<CheckReport> {
        let mut report = CheckReport::default();
        for name in member_names(&**cx.source())? {
            let own = check::check(&member_check(cx, &name).await?).await?;
            report.entries += own.entries;
            report.bytes += own.bytes;
            report.findings.extend(own.findings.into_iter().map(|finding| finding.of_member(&name)));
        }
        Ok(report)
    }
}

impl fmt::Display for ClickHouseCluster {
    /// Names the servers without secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("clickhouse cluster")?;
        let addresses = self.settings.members.iter().filter_map(|member| member.server.client().ok());
        let addresses: Vec<_> = addresses.map(|client| client.address()).collect();
        match addresses.is_empty() {
            true => Ok(()),
            false => write!(f, " at {}", addresses.join(", ")),
        }
    }
}
