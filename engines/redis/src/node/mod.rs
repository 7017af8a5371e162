//! The nodes of a deployment: who is who, and which one is asked.

mod facts;
mod info;
mod sentinel;

pub use facts::{NodeFacts, Product, Role};
pub use info::Info;

use crate::client::{ClientSettings, Connection, Endpoint};
use crate::error::{Error, Result};

/// Which node is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Prefer {
    /// The primary. The default: it has everything, and it is always there.
    #[default]
    Primary,
    /// A replica where there is one that is connected, which spares the primary the work; else the primary.
    Replica,
}

/// A node that was found, with a connection to it.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) connection: Connection,
    pub(crate) info: Info,
    pub(crate) facts: NodeFacts,
}

impl Node {
    /// Connects to one and asks who it is.
    pub(crate) async fn open(settings: &ClientSettings, endpoint: &Endpoint) -> Result<Self> {
        let limit = settings.connect_timeout;
        let mut connection = Connection::open(settings, endpoint).await?;
        // One that hangs must not keep us from the others.
        let asked = tokio::time::timeout(limit, info(&mut connection)).await;
        let info = asked.map_err(|_| Error::Timeout { what: "a word about itself", after: limit })??;
        let facts = NodeFacts::of(&info)
            .ok_or_else(|| Error::Protocol(format!("{endpoint} does not say who it is and where its stream stands")))?;
        Ok(Self { connection, info, facts })
    }
}

/// All that a server says about itself.
pub(crate) async fn info(connection: &mut Connection) -> Result<Info> {
    // All sections, by name: a bare INFO leaves the modules out, and before Redis 7 only one section can be asked for.
    let text = connection.call(&["INFO", "everything"]).await?.text().unwrap_or_default();
    Ok(Info::parse(&text))
}

/// Connects to the nodes of the address and chooses one: of the wished role, ready, and with the most of the stream.
///
/// # Errors
/// As [`all`].
pub(crate) async fn choose(settings: &ClientSettings, prefer: Prefer) -> Result<Node> {
    let nodes = all(settings, prefer).await?;
    let best = nodes.into_iter().max_by_key(|node| rank(&node.facts, prefer));
    best.ok_or_else(|| Error::Settings("the address names no node".to_owned()))
}

/// Connects to all nodes of the address that can be asked, and where a replica is wished for, to those that their primary knows. Where
/// sentinels watch the deployment, they are asked each time which nodes these are.
///
/// # Errors
/// Those of the last node when none can be asked.
pub(crate) async fn all(settings: &ClientSettings, prefer: Prefer) -> Result<Vec<Node>> {
    if let Some(watched) = &settings.address.watched {
        return sentinel::nodes(settings, watched, prefer).await;
    }
    let mut endpoints = settings.address.nodes.clone();
    let mut nodes = Vec::new();
    let mut failure = None;
    let mut number = 0;
    while let Some(endpoint) = endpoints.get(number).cloned() {
        number += 1;
        match Node::open(settings, &endpoint).await {
            Ok(node) => {
                if let (Prefer::Replica, Role::Primary { replicas }) = (prefer, &node.facts.role) {
                    let new = replicas.iter().filter(|replica| !endpoints.contains(replica));
                    let new: Vec<_> = new.cloned().collect();
                    endpoints.extend(new);
                }
                nodes.push(node);
            }
            Err(error) => {
                tracing::debug!(%endpoint, %error, "a node cannot be asked");
                failure = Some(error);
            }
        }
    }
    match failure {
        Some(error) if nodes.is_empty() => Err(error),
        _ => Ok(nodes),
    }
}

/// Of two nodes the one with the higher rank is asked.
pub(crate) fn rank(facts: &NodeFacts, prefer: Prefer) -> (bool, bool, u64) {
    let wished = facts.is_primary() == (prefer == Prefer::Primary);
    (facts.is_ready(), wished, facts.position.offset)
}
