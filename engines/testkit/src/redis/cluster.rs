//! A cluster of primaries on this machine.

use std::time::Duration;

use futures::future::try_join_all;

use super::builder::RedisBuilder;
use super::client::Reply;
use super::server::Redis;
use super::version::RedisVersion;
use crate::error::Result;
use crate::wait;

/// How many slots the keys of a cluster are spread over.
pub const SLOTS: u16 = 16_384;
/// Members that don't find each other within this time are a failure of the test.
const PATIENCE: Duration = Duration::from_secs(60);

/// Primaries that share the slots evenly.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<Redis>,
}

impl RedisCluster {
    /// Starts `count` primaries, gives each its share of the slots and waits until all agree.
    ///
    /// # Errors
    /// As [`RedisBuilder::start`]; [`Error::Server`](crate::Error::Server) when they don't agree.
    pub async fn start(version: RedisVersion, count: u16) -> Result<Self> {
        Self::of(&Redis::builder(version), count).await
    }

    /// As [`start`](Self::start), every node as `builder` says.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn of(builder: &RedisBuilder, count: u16) -> Result<Self> {
        let nodes = try_join_all((0..count).map(|_| builder.clone().cluster_mode().start())).await?;
        Self::of_nodes(nodes).await
    }

    /// Makes one cluster of nodes in cluster mode that know of each other not yet, gives each its share of the slots and waits until all
    /// agree. A node that has keys has taken the slots of these by itself; they must be of its share.
    ///
    /// # Errors
    /// [`Error::Redis`](crate::Error::Redis) when a slot has an owner already; as [`start`](Self::start).
    pub async fn of_nodes(nodes: Vec<Redis>) -> Result<Self> {
        let cluster = Self { nodes };
        let count = u16::try_from(cluster.nodes.len()).unwrap_or(u16::MAX);
        let first = cluster.nodes.first().map_or(0, Redis::port);
        for (number, node) in (0..count).zip(&cluster.nodes) {
            let mut client = node.connect().await?;
            let taken = client.run("CLUSTER SLOTS").await?;
            let has = |slot: u16| {
                let number = |reply: &Reply| reply.number().and_then(|number| u16::try_from(number).ok());
                let ends = |run: &Reply| Some((number(run.items().first()?)?, number(run.items().get(1)?)?));
                taken.items().iter().filter_map(ends).any(|(first, last)| (first..=last).contains(&slot))
            };
            let mut command = vec!["CLUSTER".to_owned(), "ADDSLOTS".to_owned()];
            command.extend(share(number, count).filter(|slot| !has(*slot)).map(|slot| slot.to_string()));
            client.call(&command).await?;
            // Whoever joins needs a number of its own for its claims, else two that claim at once must agree first.
            client.run(&format!("CLUSTER SET-CONFIG-EPOCH {}", number + 1)).await?;
            if node.port() != first {
                client.run(&format!("CLUSTER MEET 127.0.0.1 {first}")).await?;
            }
        }
        for node in &cluster.nodes {
            node.wait_cluster(count).await?;
        }
        Ok(cluster)
    }

    /// Starts a node that follows node `number`, and waits until it has everything and all nodes know of it.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn replica_of(&self, number: usize) -> Result<Redis> {
        let primary = self.nodes.get(number).ok_or_else(|| crate::Error::invalid("no such node"))?;
        let replica = Redis::builder(primary.version()).cluster_mode().start().await?;
        let mut client = replica.connect().await?;
        client.run(&format!("CLUSTER MEET 127.0.0.1 {}", primary.port())).await?;
        let count = u16::try_from(self.nodes.len() + 1).unwrap_or(u16::MAX);
        for node in self.nodes.iter().chain([&replica]) {
            node.wait_cluster(count).await?;
        }
        client.run(&format!("CLUSTER REPLICATE {}", primary.cluster_id().await?)).await?;
        replica.wait_linked().await?;
        let id = replica.cluster_id().await?;
        for node in &self.nodes {
            node.wait_member(&id, "slave").await?;
        }
        Ok(replica)
    }

    /// The nodes, in the order of their slots.
    #[must_use]
    pub fn nodes(&self) -> &[Redis] {
        &self.nodes
    }

    /// The nodes, to stop, kill or pause them.
    pub fn nodes_mut(&mut self) -> &mut [Redis] {
        &mut self.nodes
    }

    /// The node that has `slot`, as they were shared in the beginning.
    #[must_use]
    pub fn owner(&self, slot: u16) -> Option<&Redis> {
        let count = u16::try_from(self.nodes.len()).unwrap_or(u16::MAX);
        (0..count).zip(&self.nodes).find(|(number, _)| share(*number, count).contains(&slot)).map(|(_, node)| node)
    }
}

/// The slots of node `number` of `count`.
fn share(number: u16, count: u16) -> std::ops::Range<u16> {
    let at = |number: u16| {
        let slot = u32::from(SLOTS) * u32::from(number) / u32::from(count.max(1));
        u16::try_from(slot).unwrap_or(SLOTS)
    };
    at(number)..at(number + 1)
}

impl Redis {
    /// By what the cluster knows this member.
    ///
    /// # Errors
    /// [`Error::Redis`](crate::Error::Redis), [`Error::Io`](crate::Error::Io).
    pub async fn cluster_id(&self) -> Result<String> {
        Ok(self.connect().await?.run("CLUSTER MYID").await?.text())
    }

    /// Waits until this member sees the one called `id` with `flag`.
    async fn wait_member(&self, id: &str, flag: &str) -> Result<()> {
        let deadline = wait::Deadline::after(PATIENCE);
        let mut client = self.connect().await?;
        loop {
            let text = client.run("CLUSTER NODES").await?.text();
            if text.lines().any(|line| line.starts_with(id) && line.contains(flag)) {
                return Ok(());
            }
            if deadline.passed() {
                return Err(crate::Error::Server {
                    server: self.version().name().to_owned(),
                    what: format!("sees no {flag} {id} within {PATIENCE:?}: {text}"),
                    log: self.log(),
                });
            }
            wait::pause().await;
        }
    }

    /// Waits until this member knows `count` members, has a link to each of them, and knows an owner for every slot.
    async fn wait_cluster(&self, count: u16) -> Result<()> {
        let deadline = wait::Deadline::after(PATIENCE);
        let mut client = self.connect().await?;
        loop {
            let text = client.run("CLUSTER INFO").await?.text();
            let says = |what: String| text.lines().any(|line| line.trim() == what);
            let nodes = client.run("CLUSTER NODES").await?.text();
            let linked = !["disconnected", "handshake"].iter().any(|word| nodes.contains(word));
            if linked && says("cluster_state:ok".to_owned()) && says(format!("cluster_known_nodes:{count}")) {
                return Ok(());
            }
            if deadline.passed() {
                return Err(crate::Error::Server {
                    server: self.version().name().to_owned(),
                    what: format!("found no cluster of {count} within {PATIENCE:?}: {text}{nodes}"),
                    log: self.log(),
                });
            }
            wait::pause().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_every_slot_once() {
        for count in 1..8 {
            let all: Vec<_> = (0..count).flat_map(|number| share(number, count)).collect();
            assert_eq!(all, (0..SLOTS).collect::<Vec<_>>());
        }
    }
}
