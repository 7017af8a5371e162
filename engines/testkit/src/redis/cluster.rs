//! A cluster of primaries on this machine.

use std::time::Duration;

use futures::future::try_join_all;

use super::builder::RedisBuilder;
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
        let cluster = Self { nodes };
        let first = cluster.nodes.first().map_or(0, Redis::port);
        for (number, node) in (0..count).zip(&cluster.nodes) {
            let mut client = node.connect().await?;
            let mut command = vec!["CLUSTER".to_owned(), "ADDSLOTS".to_owned()];
            command.extend(share(number, count).map(|slot| slot.to_string()));
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
    /// Waits until this member knows `count` members and an owner for every slot.
    async fn wait_cluster(&self, count: u16) -> Result<()> {
        let deadline = wait::Deadline::after(PATIENCE);
        let mut client = self.connect().await?;
        loop {
            let text = client.run("CLUSTER INFO").await?.text();
            let says = |what: String| text.lines().any(|line| line.trim() == what);
            if says("cluster_state:ok".to_owned()) && says(format!("cluster_known_nodes:{count}")) {
                return Ok(());
            }
            if deadline.passed() {
                return Err(crate::Error::Server {
                    server: self.version().name().to_owned(),
                    what: format!("found no cluster of {count} within {PATIENCE:?}: {text}"),
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
