//! The nodes of a cluster: who is there, who is the primary, whose log is followed.

use std::collections::BTreeMap;

use backup_core::{Error, ErrorKind, Finding, Result, Severity};
use bytes::Bytes;
use futures::future::join_all;

use crate::conn::{Settings, TargetSession};
use crate::engine::{PostgresSettings, connection};
use crate::lsn::{Lsn, TimelineId};
use crate::version::ServerVersion;
use crate::wal::{SegmentSize, TimelineHistory};
use crate::wire::{Session, SessionKind};

/// How long a server may say nothing when it is asked something. While it sends its log, `stream` looks after that.
const SILENCE: std::time::Duration = std::time::Duration::from_secs(90);
/// How long a server waits for a dead capture before it lets go of its slot.
const SENDER_TIMEOUT: &str = " -c wal_sender_timeout=60s";
/// A node that does not answer its first questions in this time is as good as gone.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

/// Every host of the connection string by itself.
#[derive(Debug)]
pub(super) struct Nodes {
    hosts: Vec<Settings>,
    wanted: TargetSession,
}

/// What is known of one node.
#[derive(Debug, Clone)]
pub(super) struct NodeFacts {
    /// Its address, for people.
    pub(super) name: String,
    pub(super) version: ServerVersion,
    pub(super) system_id: u64,
    pub(super) standby: bool,
    pub(super) timeline: TimelineId,
    /// The end of its log: what is flushed on a primary, what is replayed or received on a standby.
    pub(super) position: Lsn,
    pub(super) segment_size: SegmentSize,
    pub(super) history: TimelineHistory,
    /// Contents of history files: that of its own timeline.
    pub(super) histories: BTreeMap<TimelineId, Bytes>,
}

/// A node with a session for replication and SQL.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) facts: NodeFacts,
    pub(super) session: Session,
}

/// What a look at the nodes gave.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) chosen: Node,
    pub(super) findings: Vec<Finding>,
}

impl Nodes {
    pub(super) fn new(settings: &PostgresSettings) -> Result<Self> {
        let all = connection(settings)?;
        let wanted = all.target_session;
        let hosts = all.hosts.iter().map(|host| {
            let mut one = all.clone();
            one.hosts = vec![host.clone()];
            one.target_session = TargetSession::Any;
            one.read_timeout = Some(SILENCE);
            one.connect_timeout = Some(one.connect_timeout.map_or(PATIENCE, |limit| limit.min(PATIENCE)));
            one.options = Some([one.options.as_deref().unwrap_or_default(), SENDER_TIMEOUT].concat());
            one
        });
        Ok(Self { hosts: hosts.collect(), wanted })
    }

    /// How the node at `name` is reached.
    pub(super) fn settings_of(&self, name: &str) -> Option<Settings> {
        self.hosts.iter().find(|one| name_of(one) == name).cloned()
    }

    /// The settings of every node but the one at `name`.
    pub(super) fn others(&self, name: &str) -> Vec<(String, Settings)> {
        let named = self.hosts.iter().map(|one| (name_of(one), one.clone()));
        named.filter(|(other, _)| other != name).collect()
    }

    /// Looks at all nodes and chooses whose log is followed: the primary, else the standby that has most. All must belong to the
    /// cluster `source`, if one is known.
    pub(super) async fn survey(&self, source: Option<&str>) -> Result<Found> {
        let looks = join_all(self.hosts.iter().map(|one| async move {
            let look = tokio::time::timeout(PATIENCE * 2, look(one)).await;
            look.unwrap_or_else(|_| Err(Error::unavailable(format!("{} does not answer", name_of(one)))))
        }))
        .await;
        let mut findings = Vec::new();
        let (mut nodes, mut failures) = (Vec::new(), Vec::new());
        for look in looks {
            match look {
                Ok(node) => nodes.push(node),
                Err(error) => failures.push(error),
            }
        }
        let known = source.map(str::to_owned);
        let foreign = |node: &Node| known.as_ref().is_some_and(|source| *source != node.facts.system_id.to_string());
        let (others, mut nodes): (Vec<_>, Vec<_>) = nodes.into_iter().partition(foreign);
        if let (Some(other), true) = (others.first(), nodes.is_empty()) {
            return Err(Error::conflict(format!(
                "{} belongs to the cluster with system identifier {}, the stored log to {}",
                other.facts.name,
                other.facts.system_id,
                known.unwrap_or_default()
            )));
        }
        if let Some(first) = nodes.first()
            && let Some(other) = nodes.iter().find(|node| node.facts.system_id != first.facts.system_id)
        {
            return Err(Error::conflict(format!(
                "{} and {} belong to different clusters, with system identifiers {} and {}",
                first.facts.name, other.facts.name, first.facts.system_id, other.facts.system_id
            )));
        }
        for other in others {
            let text = format!("belongs to another cluster, with system identifier {}", other.facts.system_id);
            findings.push(Finding::new(Severity::Warning, "other-cluster", text).about(other.facts.name));
        }
        match self.wanted {
            TargetSession::Primary | TargetSession::ReadWrite => nodes.retain(|node| !node.facts.standby),
            TargetSession::Standby | TargetSession::ReadOnly => nodes.retain(|node| node.facts.standby),
            _ => {}
        }
        let prefer_standby = self.wanted == TargetSession::PreferStandby;
        let rank = |node: &Node| (node.facts.timeline, node.facts.standby == prefer_standby, node.facts.position);
        nodes.sort_by_key(|node| std::cmp::Reverse(rank(node)));
        let mut nodes = nodes.into_iter();
        let Some(chosen) = nodes.next() else { return Err(nobody(failures)) };
        if !chosen.facts.standby
            && let Some(second) = nodes.find(|node| !node.facts.standby)
        {
            let text = format!(
                "is a primary on timeline {}, and so is {} on timeline {}, which is followed",
                second.facts.timeline, chosen.facts.name, chosen.facts.timeline
            );
            findings.push(Finding::new(Severity::Warning, "two-primaries", text).about(second.facts.name));
        }
        Ok(Found { chosen, findings })
    }
}

pub(super) fn name_of(settings: &Settings) -> String {
    settings.hosts.first().map(ToString::to_string).unwrap_or_default()
}

/// Why there is no node. As long as one of them may come back it is worth waiting for it.
fn nobody(failures: Vec<Error>) -> Error {
    if failures.is_empty() {
        return Error::unavailable("no server of the wanted role answers");
    }
    let all: Vec<_> = failures.iter().map(ToString::to_string).collect();
    let passing = failures.iter().any(|error| error.kind() == ErrorKind::Unavailable);
    match failures.into_iter().next() {
        Some(first) if !passing => first,
        _ => Error::unavailable(all.join("; ")),
    }
}

async fn look(settings: &Settings) -> Result<Node> {
    let mut session = Session::connect(settings, SessionKind::ReplicationDatabase).await?;
    session.query("SET search_path = pg_catalog; SET statement_timeout = 0; SET lock_timeout = 0").await?;
    if session.version().major() >= 14 {
        session.query("SET idle_session_timeout = 0").await?;
    }
    let identity = session.identify_system().await?;
    let row = session
        .query_one(
            "SELECT pg_is_in_recovery() AS standby, CASE WHEN pg_is_in_recovery() \
             THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) ELSE pg_current_wal_flush_lsn() END AS position",
        )
        .await?;
    let standby = row.required("standby")? == "t";
    let position = row.text("position")?.map(str::parse).transpose()?.unwrap_or(identity.position);
    let segment_size = session.show("wal_segment_size").await?.parse()?;
    let mut histories = BTreeMap::new();
    let history = if identity.timeline == TimelineId::FIRST {
        TimelineHistory::parse(identity.timeline, b"")?
    } else {
        let (_, content) = session.timeline_history(identity.timeline).await?;
        let history = TimelineHistory::parse(identity.timeline, &content)?;
        histories.insert(identity.timeline, content);
        history
    };
    let facts = NodeFacts {
        name: name_of(settings),
        version: session.version(),
        system_id: identity.system_id,
        standby,
        timeline: identity.timeline,
        position,
        segment_size,
        history,
        histories,
    };
    Ok(Node { facts, session })
}
