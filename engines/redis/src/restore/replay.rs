//! Key by key: into a server that has other data, or into a cluster of any size.
//!
//! The snapshot is read twice: once to its end, so that nothing is sent of one that is broken or that the target does not
//! take, and once to send it. A value is sent as it stands in the file; the largest ones are read once more.

use std::collections::BTreeSet;
use std::ops::Range;

use backup_core::engine::{Extracted, Restored, Work};
use backup_core::observe::{Phase, Unit};
use backup_core::{Error, Finding, Result, Severity};
use bytes::Bytes;
use futures::future::try_join_all;
use futures::stream::{self, StreamExt as _};

use super::commands::{Commands, Head, Order};
use super::nodes::Nodes;
use super::settings::{ReplaySettings, RestoreSettings};
use super::stored::Stored;
use super::target::{self, Target};
use super::users;
use crate::client::Connection;
use crate::engine::facts::USERS;
use crate::node::{self, Prefer};
use crate::rdb::{ChecksumState, Payload, RdbVersion, Scanner, ValueType};

/// The longest argument that servers take by default.
const LONGEST: u64 = 512 << 20;

pub(super) async fn assess(
    settings: &RestoreSettings,
    replay: &ReplaySettings,
    _stored: &Stored,
) -> Result<Vec<Finding>> {
    let mut connection = open(replay).await?;
    let found = Target::of(&mut connection).await?;
    let mut findings = Vec::new();
    let mut block = |code, text: String| findings.push(Finding::new(Severity::Blocker, code, text));
    if let Some(primary) = &found.follows {
        block("replica", format!("the server follows {primary}: restore into that"));
    }
    if settings.version.is_some() {
        block("snapshot-version", "a restore key by key writes no snapshot, so it has no version".into());
    }
    if found.cluster {
        let nodes = connection.call(&["CLUSTER", "NODES"]).await?.text().unwrap_or_default();
        if nodes.lines().any(|line| line.contains('[')) {
            block("slots-migrate", "slots of the cluster are on their way from one node to another".into());
        }
    }
    Ok(findings)
}

/// Connects to the first of the nodes that answers; to the primary, where sentinels say which that is.
async fn open(replay: &ReplaySettings) -> Result<Connection> {
    if replay.target.address.watched.is_some() {
        return Ok(node::choose(&replay.target, Prefer::Primary).await?.connection);
    }
    let mut failure = None;
    for node in &replay.target.address.nodes {
        match Connection::open(&replay.target, node).await {
            Ok(connection) => return Ok(connection),
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.map_or_else(|| Error::invalid("the address names no node"), Into::into))
}

/// Restores snapshots of which no two have the same key.
pub(super) async fn restore(
    settings: &RestoreSettings,
    replay: &ReplaySettings,
    stored: &[Stored],
    work: &Work,
) -> Result<Restored> {
    let mut connection = open(replay).await?;
    let target = Target::of(&mut connection).await?;
    let longest = target::config(&mut connection, "proto-max-bulk-len").await?;
    let longest = longest.and_then(|text| text.parse().ok()).unwrap_or(LONGEST);
    let functions = replay.functions.unwrap_or(settings.rules.filter.is_all());
    let commands = |functions| Commands::new(settings.rules.clone(), target.clone(), longest, functions);
    let total = stored.iter().map(Stored::len).sum();

    let mut restored = Restored::default();
    work.started(Phase::Verify, Some(total), Unit::Bytes);
    let read = stored.iter().map(|stored| walk(stored, commands(functions), None, Phase::Verify, work));
    let read = try_join_all(read).await?;
    work.ended(Phase::Verify);
    if read.iter().any(|(state, _)| *state == ChecksumState::Off) {
        let text = "the server wrote no checksum: only the structure was checked";
        restored.findings.push(Finding::new(Severity::Warning, "no-checksum", text));
    }
    work.started(Phase::Write, Some(total), Unit::Bytes);
    let mut nodes = nodes(connection, target.cluster, replay).await?;
    // Members of a cluster have the same libraries, and each node of the target gets them once.
    let libraries: BTreeSet<Bytes> = read.into_iter().flat_map(|(_, libraries)| libraries).collect();
    for library in libraries {
        nodes.load(&library).await?;
    }
    // Each has connections of its own: an answer that one waits for holds no other up.
    try_join_all(stored.iter().map(|stored| {
        let commands = commands(false);
        let target = &target;
        async move {
            let mut nodes = self::nodes(open(replay).await?, target.cluster, replay).await?;
            walk(stored, commands, Some(&mut nodes), Phase::Write, work).await?;
            nodes.flush().await
        }
    }))
    .await?;
    work.ended(Phase::Write);
    if settings.users
        && let Some(first) = stored.first()
    {
        for connection in nodes.connections() {
            restored.findings.extend(users::restore(connection, first).await?);
        }
        restored.findings.extend(other_users(stored).await?);
    }
    let mut extracted = Extracted::default();
    (extracted.entries, extracted.bytes, extracted.written_bytes) = (stored.len() as u64, total, total);
    restored.extracted = extracted;
    Ok(restored)
}

async fn nodes(connection: Connection, cluster: bool, replay: &ReplaySettings) -> Result<Nodes> {
    Ok(match cluster {
        true => Nodes::cluster(connection, &replay.target, replay.replace).await?,
        false => Nodes::one(connection, replay.replace),
    })
}

/// A warning when members do not have the same users: those of the first are restored.
async fn other_users(stored: &[Stored]) -> Result<Option<Finding>> {
    let records = try_join_all(stored.iter().map(|stored| stored.record(USERS))).await?;
    let differ = records.windows(2).any(|pair| pair[0] != pair[1]);
    let text = "the members had different users: those of the first are restored everywhere";
    Ok(differ.then(|| Finding::new(Severity::Warning, "users-differ", text)))
}

/// Walks through the snapshot, and sends what comes of it to `nodes`, if there are any. Gives back the libraries of functions that came.
async fn walk(
    stored: &Stored,
    mut commands: Commands,
    mut nodes: Option<&mut Nodes>,
    phase: Phase,
    work: &Work,
) -> Result<(ChecksumState, Vec<Bytes>)> {
    let mut libraries = Vec::new();
    let mut scanner = Scanner::new();
    let mut pieces = stored.read(0..stored.len());
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        work.checkpoint()?;
        if scanner.push(&piece, &mut commands)? < piece.len() {
            return Err(Error::damaged("bytes follow behind the end of the snapshot"));
        }
        let orders = std::mem::take(&mut commands.orders);
        for order in orders {
            match (order, nodes.as_deref_mut(), scanner.version()) {
                (Order::Function(code), ..) => libraries.push(code),
                (order, Some(nodes), Some(version)) => send(nodes, stored, version, order).await?,
                _ => {}
            }
        }
        work.advanced(phase, piece.len() as u64);
    }
    Ok((scanner.finish()?, libraries))
}

async fn send(nodes: &mut Nodes, stored: &Stored, version: RdbVersion, order: Order) -> Result<()> {
    match order {
        Order::Function(code) => nodes.load(&code).await,
        Order::Small { head, payload } => nodes.restore(&head, &payload).await,
        Order::Large { head, value_type, range } => large(nodes, stored, version, &head, value_type, range).await,
    }
}

/// Reads a large value once more and sends it while it comes.
async fn large(
    nodes: &mut Nodes,
    stored: &Stored,
    version: RdbVersion,
    head: &Head,
    value_type: ValueType,
    range: Range<u64>,
) -> Result<()> {
    let len = range.end - range.start + Payload::OVERHEAD;
    let (payload, first) = Payload::begin(version, value_type);
    let value = stored.read(range);
    let pieces = stream::unfold((Some(payload), value), |(payload, mut value)| async move {
        let mut payload = payload?;
        match value.next().await {
            Some(Ok(piece)) => {
                payload.value(&piece);
                Some((Ok(piece), (Some(payload), value)))
            }
            Some(Err(error)) => Some((Err(error), (None, value))),
            None => Some((Ok(Bytes::copy_from_slice(&payload.finish())), (None, value))),
        }
    });
    let first = stream::once(async move { Ok(Bytes::copy_from_slice(&first)) });
    nodes.restore_large(head, len, first.chain(pieces).boxed()).await
}
