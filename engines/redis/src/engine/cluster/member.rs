//! One member: the node that is asked for it, and its snapshot on the way.

use backup_core::engine::BackupContext;
use backup_core::env::Env;
use backup_core::{Error, Finding, Member, MemberName, Result, Severity};
use jiff::{SignedDuration, Timestamp};

use super::topology::Share;
use crate::capture;
use crate::client::{ClientSettings, Connection};
use crate::engine::probe::{self, Probe};
use crate::engine::records::Records;
use crate::engine::{RedisSettings, describe, facts, receive};
use crate::node::{Node, Prefer};

/// The name of a member: by its first slot, which a failover does not change, whereas another node then has another name.
pub(super) fn name(share: &Share) -> Result<MemberName> {
    let first = share.slots.first().map_or(0, |(first, _)| *first);
    MemberName::new(format!("slots-{first:05}"))
}

/// A member that was looked at.
#[derive(Debug)]
pub(super) struct Looked {
    pub(super) probe: Probe,
    pub(super) share: Share,
    /// By how many bytes of the stream the node that is asked was behind its primary; none where it is the primary.
    lag: Option<u64>,
}

/// Looks at the node that is asked for the member: its primary, or where replicas are wished for, the one that has most of the stream.
pub(super) async fn look(settings: &RedisSettings, client: &ClientSettings, share: Share) -> Result<Looked> {
    let primary = Node::open(client, &share.endpoint).await?;
    if !primary.facts.is_primary() {
        let text = format!("{} has become a replica", share.endpoint);
        return Err(Error::unavailable(text));
    }
    let end = primary.facts.position.clone();
    let mut chosen = (primary, None);
    let mut findings = Vec::new();
    if settings.prefer == Prefer::Replica {
        let mut replicas = Vec::new();
        for endpoint in &share.replicas {
            match Node::open(client, endpoint).await {
                Ok(node) => replicas.push(node),
                Err(error) => tracing::debug!(%endpoint, %error, "a replica cannot be asked"),
            }
        }
        // One that follows another history is not in sync, whatever it says of its link.
        replicas.retain(|node| node.facts.is_ready() && !node.facts.is_primary() && node.facts.position.id == end.id);
        match replicas.into_iter().max_by_key(|node| node.facts.position.offset) {
            Some(node) => {
                let lag = end.offset.saturating_sub(node.facts.position.offset);
                chosen = (node, Some(lag));
            }
            None => {
                let text = "no replica is in sync: the primary is read";
                findings.push(Finding::new(Severity::Note, "no-replica", text));
            }
        }
    }
    let (node, lag) = chosen;
    let mut probe = probe::look(settings, client.clone(), node).await?;
    probe.findings.extend(findings);
    Ok(Looked { probe, share, lag })
}

/// A member that is ready: everything is asked but for the snapshot.
#[derive(Debug)]
pub(super) struct Ready {
    looked: Looked,
    records: Records,
    stream: Connection,
    started_at: Timestamp,
}

/// Asks for the records, and opens the connection that the snapshot comes over. The moments of the members are together only if all of
/// them are ready when the first is taken.
pub(super) async fn prepare(looked: Looked, env: &Env) -> Result<Ready> {
    let started_at = env.now();
    let mut looked = looked;
    let Probe { client, node, .. } = &mut looked.probe;
    let records = Records::ask(&mut node.connection, &node.facts, &node.info).await?;
    let mut stream = Connection::open(client, node.connection.endpoint()).await?;
    if let Some(version) = node.facts.replica_version() {
        stream.announce(version).await?;
    }
    Ok(Ready { looked, records, stream, started_at })
}

/// Takes the snapshot and stores it, with the records, as the member `name`.
pub(super) async fn take(cx: BackupContext, name: MemberName, ready: Ready) -> Result<Member> {
    let Ready { looked: Looked { mut probe, share, lag }, records, stream, started_at } = ready;
    let ahead = ahead(cx.work().env(), &mut probe.node.connection).await?;
    let received = receive::replica(&cx, stream).await?;
    records.put(&**cx.sink()).await?;
    let times = (started_at, cx.work().env().now());
    let answered = received.answered;
    let mut snapshot = describe(share.id.clone(), probe, records, received, times)
        .with_fact(facts::NODE, share.id.clone())
        .with_fact(facts::SLOTS, share.slots());
    if let Some(lag) = lag {
        snapshot = snapshot.with_fact(facts::LAG, lag.to_string());
    }
    if let Some(at) = answered.zip(ahead).and_then(|(at, ahead)| at.checked_add(ahead).ok()) {
        snapshot = snapshot.with_stopped_at(at);
    }
    let member = Member::new(name, snapshot);
    Ok(match answered {
        Some(at) => member.with_taken_at(at),
        None => member,
    })
}

/// By how much the server's clock is ahead of ours, at most: it may have read its clock any time after it was asked.
async fn ahead(env: &Env, connection: &mut Connection) -> Result<Option<SignedDuration>> {
    let asked = env.now();
    let theirs = match connection.call(&["TIME"]).await {
        Ok(reply) => capture::moment(&reply),
        Err(crate::Error::Server { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    Ok(theirs.map(|theirs| theirs.duration_since(asked)))
}
