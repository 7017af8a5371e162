//! A cluster: every primary a member of one backup.
//!
//! All members are made ready first, then all snapshots are asked for at once, so their moments are as close together as the servers
//! allow; how close that was is measured. The layout is asked of every primary, before and after: a backup of a cluster whose slots or
//! owners changed in between would have keys twice or not at all, and is never committed.

mod back;
mod check;
mod layout;
mod member;
mod topology;

use std::fmt;
use std::num::NonZeroUsize;

use async_trait::async_trait;
use backup_core::engine::members::{each_member, member_backup};
use backup_core::engine::{
    BackupContext, CheckContext, CheckReport, Deployment, EngineDescriptor, RestoreContext, Restored,
};
use backup_core::entry::EntryMeta;
use backup_core::{
    BackupEngine, BackupSinkExt as _, Consistency, Error, Finding, Group, Member, MemberName, Result, Severity,
    Snapshot, gathered_findings,
};

use super::facts;
use super::settings::{Method, Persistence, RedisSettings};
use crate::client::ClientSettings;
use crate::restore::RestoreSettings;
use layout::Layout;
use member::Looked;

static DESCRIPTOR: EngineDescriptor = EngineDescriptor::new(
    "redis-cluster",
    "Redis and Valkey Cluster",
    Consistency::PerPart,
    "members, by the folders that bear their names",
);

/// A cluster of Redis or Valkey.
#[derive(Debug, Clone)]
pub struct RedisCluster {
    settings: RedisSettings,
    restore: Option<RestoreSettings>,
    parallel: Option<NonZeroUsize>,
}

impl RedisCluster {
    /// An engine for the cluster that `settings` lead into: the address names one node of it or several, of which the first that answers
    /// is asked who else there is. Nothing is connected yet.
    ///
    /// # Errors
    /// [`InvalidInput`](backup_core::ErrorKind::InvalidInput) when the URL is none, and for the method
    /// [`File`](Method::File): members lie on many hosts.
    pub fn new(settings: RedisSettings) -> Result<Self> {
        if settings.url.is_some() {
            settings.client()?;
        }
        if settings.method == Some(Method::File) {
            return Err(Error::invalid("the members of a cluster are read by replication, not from files"));
        }
        Ok(Self { settings, restore: None, parallel: None })
    }

    /// Sets by which way a backup comes back. Without it the snapshots become files, each in a folder of its member below the data
    /// directory. [`Way::Live`](crate::restore::Way::Live) is refused: a node of a cluster follows nobody outside of it.
    #[must_use]
    pub fn with_restore(mut self, restore: RestoreSettings) -> Self {
        self.restore = Some(restore);
        self
    }

    /// Sets how many members are read at a time. All: whatever waits for another one is of another moment.
    #[must_use]
    pub fn parallel(mut self, members: NonZeroUsize) -> Self {
        self.parallel = Some(members);
        self
    }

    /// What it was told.
    #[must_use]
    pub fn settings(&self) -> &RedisSettings {
        &self.settings
    }

    /// The way back; without a choice files in the data directory.
    fn way(&self) -> Option<RestoreSettings> {
        self.restore.clone().or_else(|| self.settings.data_dir.as_ref().map(RestoreSettings::files))
    }

    /// Looks at the cluster, and at the node that is asked for each member.
    async fn look(&self) -> Result<(ClientSettings, Layout, Vec<(MemberName, Looked)>)> {
        let client = self.settings.client()?;
        let layout = Layout::ask(&client).await?;
        let shares = layout.shares.iter().map(|share| Ok((member::name(share)?, share.clone())));
        let shares: Vec<_> = shares.collect::<Result<_>>()?;
        let looked = each_member(shares, None, |name, share| {
            let (settings, client) = (self.settings.clone(), client.clone());
            async move { Ok((name, member::look(&settings, &client, share).await?)) }
        });
        let looked = looked.await?;
        Ok((client, layout, looked))
    }

    /// Reads the members as the others are done. Each is looked at once more when its turn comes: a connection that idles for so long may
    /// be closed by its server.
    async fn some_at_a_time(
        &self,
        cx: &BackupContext,
        client: &ClientSettings,
        looked: Vec<(MemberName, Looked)>,
        limit: NonZeroUsize,
    ) -> Result<Vec<Member>> {
        let shares: Vec<_> = looked.into_iter().map(|(name, looked)| (name, looked.share)).collect();
        let members = each_member(shares, Some(limit), |name, share| {
            let (cx, settings, client) = (cx.clone(), self.settings.clone(), client.clone());
            async move {
                let looked = member::look(&settings, &client, share).await?;
                let ready = member::prepare(looked, cx.work().env()).await?;
                member::take(member_backup(&cx, &name).await?, name, ready).await
            }
        });
        members.await
    }

    /// What deserves attention, of the whole and of its members.
    fn findings(&self, layout: &Layout, looked: &[(MemberName, Looked)]) -> Vec<Finding> {
        let mut findings = layout.findings.clone();
        if self.settings.persistence == Persistence::Off {
            let text = "the data of this cluster are not kept: persistence is off, so there are no backups of it";
            findings.push(Finding::new(Severity::Blocker, "persistence-off", text));
        }
        let members = looked.iter().map(|(name, looked)| (name, looked.probe.findings.as_slice()));
        // What the layout says already of the whole is not told of members again.
        let known: Vec<_> = findings.iter().map(|finding| finding.code.clone()).collect();
        findings.extend(gathered_findings(members).into_iter().filter(|finding| !known.contains(&finding.code)));
        findings
    }
}

#[async_trait]
impl BackupEngine for RedisCluster {
    fn descriptor(&self) -> &EngineDescriptor {
        &DESCRIPTOR
    }

    async fn inspect(&self) -> Result<Deployment> {
        let (client, layout, looked) = self.look().await?;
        let mut versions: Vec<_> = looked
            .iter()
            .map(|(_, looked)| format!("{} {}", looked.probe.node.facts.product, looked.probe.node.facts.version))
            .collect();
        versions.sort_unstable();
        versions.dedup();
        let source = self.settings.source(&client.address);
        let mut deployment = Deployment::new(source, versions.join(", "), Method::Replication.to_string());
        deployment.bytes = looked.iter().map(|(_, looked)| looked.probe.node.facts.memory).sum();
        deployment.findings = self.findings(&layout, &looked);
        Ok(deployment)
    }

    async fn backup(&self, cx: &BackupContext) -> Result<Snapshot> {
        let env = cx.work().env();
        let started_at = env.now();
        let (client, layout, looked) = self.look().await?;
        if let Some(blocker) = self.findings(&layout, &looked).iter().find(|found| found.severity == Severity::Blocker)
        {
            return Err(blocker.refusal(format!("a backup of {self}")));
        }
        let members = match self.parallel {
            None => all_at_once(cx, looked).await?,
            Some(limit) => self.some_at_a_time(cx, &client, looked, limit).await?,
        };
        layout.unchanged(&Layout::ask(&client).await?)?;
        let nodes = EntryMeta::record(facts::path(facts::CLUSTER)?);
        cx.sink().put_bytes(nodes, layout.text.into()).await?;

        let keys: u64 = members.iter().filter_map(|member| member.fact(facts::KEYS)?.parse::<u64>().ok()).sum();
        let group = Group::new(members)?;
        let (source, times) = (self.settings.source(&client.address), (started_at, env.now()));
        let primaries = group.members.len().to_string();
        let snapshot = Snapshot::of_group(DESCRIPTOR.name, source, Method::Replication.to_string(), times, group);
        Ok(snapshot.with_fact(facts::KEYS, keys.to_string()).with_fact(facts::PRIMARIES, primaries))
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
}

/// Reads the members. All are ready before the first is taken.
async fn all_at_once(cx: &BackupContext, looked: Vec<(MemberName, Looked)>) -> Result<Vec<Member>> {
    let ready = each_member(looked, None, |name, looked| {
        let cx = cx.clone();
        async move {
            let ready = member::prepare(looked, cx.work().env()).await?;
            let own = member_backup(&cx, &name).await?;
            Ok((name, (own, ready)))
        }
    });
    each_member(ready.await?, None, |name, (cx, ready)| member::take(cx, name, ready)).await
}

impl fmt::Display for RedisCluster {
    /// Names the cluster without secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("redis cluster")?;
        if let Ok(client) = self.settings.client() {
            write!(f, " at {}", client.address)?;
        }
        match &self.settings.data_dir {
            Some(dir) => write!(f, " in {}", dir.display()),
            None => Ok(()),
        }
    }
}
