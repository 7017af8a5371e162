//! Which servers make a cluster.

use backup_core::{Error, MemberName, Result};

use crate::settings::ClickHouseSettings;

/// One server of a cluster. Data, not components.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct MemberSettings {
    /// Its shard, from 1 on.
    pub shard: u32,
    /// Its number among the replicas of the shard, from 1 on.
    pub replica: u32,
    /// Where it is.
    #[serde(default)]
    pub server: ClickHouseSettings,
}

impl MemberSettings {
    /// The server of `shard` and `replica`, both from 1 on.
    #[must_use]
    pub fn new(shard: u32, replica: u32, server: ClickHouseSettings) -> Self {
        Self { shard, replica, server }
    }

    /// By what it is known in a backup: `shard-01-replica-02`.
    ///
    /// # Errors
    /// [`InvalidInput`](backup_core::ErrorKind::InvalidInput) for a number that is nought.
    pub fn name(&self) -> Result<MemberName> {
        if self.shard == 0 || self.replica == 0 {
            return Err(Error::invalid("shards and replicas are numbered from 1 on"));
        }
        MemberName::new(format!("shard-{:02}-replica-{:02}", self.shard, self.replica))
    }
}

/// The shard of a member of this name.
pub(super) fn shard_of(name: &MemberName) -> Option<u32> {
    name.as_str().strip_prefix("shard-")?.split_once("-replica-")?.0.parse().ok()
}

/// The servers of a cluster. Data, not components.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ClusterSettings {
    /// By what the cluster is known, whatever the addresses of its servers. None: by what all of them say of themselves.
    pub identity: Option<String>,
    /// What it is called in the servers' own configuration. What they say of it there (`system.clusters`) has to be what is given here: the same
    /// shards and replicas, each with its own numbers. None: it is not compared.
    pub cluster: Option<String>,
    /// Its servers.
    pub members: Vec<MemberSettings>,
}

impl ClusterSettings {
    /// Adds a server.
    #[must_use]
    pub fn member(mut self, member: MemberSettings) -> Self {
        self.members.push(member);
        self
    }

    /// Sets by what the cluster is known.
    #[must_use]
    pub fn identity(mut self, identity: impl Into<String>) -> Self {
        self.identity = Some(identity.into());
        self
    }

    /// Sets what it is called in the servers' own configuration.
    #[must_use]
    pub fn cluster(mut self, name: impl Into<String>) -> Self {
        self.cluster = Some(name.into());
        self
    }

    /// Its servers with their names, in their order.
    pub(super) fn named(&self) -> Result<Vec<(MemberName, MemberSettings)>> {
        let mut named = Vec::new();
        for member in &self.members {
            named.push((member.name()?, member.clone()));
        }
        named.sort_by_key(|(_, member)| (member.shard, member.replica));
        match named.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            Some(pair) => Err(Error::invalid(format!("two servers are called {}", pair[0].0))),
            None => Ok(named),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_have_one_name_each() {
        let member = |shard, replica| MemberSettings::new(shard, replica, ClickHouseSettings::default());
        let settings = ClusterSettings::default().member(member(2, 1)).member(member(1, 2)).member(member(1, 1));
        let names: Vec<_> = settings.named().unwrap().into_iter().map(|(name, _)| name.to_string()).collect();
        assert_eq!(names, ["shard-01-replica-01", "shard-01-replica-02", "shard-02-replica-01"]);
        assert_eq!(shard_of(&member(12, 3).name().unwrap()), Some(12));
        assert_eq!(shard_of(&MemberName::new("slots-00001").unwrap()), None);
        assert!(settings.clone().member(member(1, 2)).named().is_err(), "twice");
        assert!(settings.member(member(0, 1)).named().is_err());
    }
}
