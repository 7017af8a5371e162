//! Replicated tables: which members have the same one, and from which of them its parts are taken.

use std::collections::BTreeMap;

use backup_core::MemberName;
use serde::Deserialize;

use crate::client::Client;
use crate::error::Result;
use crate::server::{Server, TableKey};

/// What a replica says of a table.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Replica {
    database: String,
    table: String,
    zookeeper_path: String,
    is_readonly: u8,
    absolute_delay: u64,
    queue_size: u64,
    inserts_in_queue: u64,
}

impl Replica {
    fn key(&self) -> TableKey {
        TableKey::new(self.database.clone(), self.table.clone())
    }

    /// The better, the smaller.
    fn rank(&self) -> (u8, u64, u64, u64) {
        (self.is_readonly, self.inserts_in_queue, self.absolute_delay, self.queue_size)
    }
}

/// What a server says of its replicated tables.
///
/// # Errors
/// Those of the server and of the connection.
pub(super) async fn ask(client: &Client, server: &Server) -> Result<Vec<Replica>> {
    if !server.has_table("replicas") {
        return Ok(Vec::new());
    }
    let sql = "SELECT database, table, zookeeper_path, toUInt8(is_readonly) AS is_readonly, toUInt64(absolute_delay) AS absolute_delay,
               toUInt64(queue_size) AS queue_size, toUInt64(inserts_in_queue) AS inserts_in_queue FROM system.replicas";
    client.listing("its replicated tables", sql).await
}

/// From whom the parts of replicated tables are taken.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Holders {
    /// Of each member, the tables whose parts another one has.
    pub(super) elsewhere: BTreeMap<MemberName, BTreeMap<TableKey, MemberName>>,
    /// Tables of which even the best replica has not everything, and how many inserts it still has to fetch.
    pub(super) behind: Vec<(MemberName, TableKey, u64)>,
}

/// Chooses: of each table the replica that has most of it, and the first of those that are alike. Members of different shards never
/// have the same table, whatever it is called: each shard may have a Keeper of its own.
pub(super) fn choose(members: &[(MemberName, u32, Vec<Replica>)]) -> Holders {
    let mut tables: BTreeMap<(u32, &str), Vec<(&MemberName, &Replica)>> = BTreeMap::new();
    for (name, shard, replicas) in members {
        for replica in replicas.iter().filter(|replica| !replica.zookeeper_path.is_empty()) {
            tables.entry((*shard, &replica.zookeeper_path)).or_default().push((name, replica));
        }
    }
    let mut holders = Holders::default();
    for replicas in tables.values() {
        let Some((holder, best)) = replicas.iter().min_by_key(|(_, replica)| replica.rank()) else { continue };
        if best.inserts_in_queue > 0 {
            holders.behind.push(((*holder).clone(), best.key(), best.inserts_in_queue));
        }
        // One server may have two replicas of a table: its own it stores under one name only.
        for (member, replica) in
            replicas.iter().filter(|(member, replica)| (*member, replica.key()) != (*holder, best.key()))
        {
            holders.elsewhere.entry((*member).clone()).or_default().insert(replica.key(), (*holder).clone());
        }
    }
    holders
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(table: &str, path: &str, waiting: u64) -> Replica {
        Replica {
            database: "d".to_owned(),
            table: table.to_owned(),
            zookeeper_path: path.to_owned(),
            is_readonly: 0,
            absolute_delay: 0,
            queue_size: 0,
            inserts_in_queue: waiting,
        }
    }

    #[test]
    fn the_replica_that_has_most_is_read() {
        let name = |text: &str| MemberName::new(text).unwrap();
        let members = [
            (name("a"), 1, vec![replica("t", "/t", 0), replica("u", "/u", 3), replica("w", "/w", 2)]),
            (name("b"), 1, vec![replica("t", "/t", 0), replica("u2", "/u", 0), replica("w", "/w", 5)]),
            (name("c"), 2, vec![replica("t", "/t", 9)]),
        ];
        let holders = choose(&members);
        let of = |member: &str| holders.elsewhere.get(&name(member)).cloned().unwrap_or_default();
        let key = |table: &str| TableKey::new("d", table);
        assert_eq!(of("a"), BTreeMap::from([(key("u"), name("b"))]));
        assert_eq!(of("b"), BTreeMap::from([(key("t"), name("a")), (key("w"), name("a"))]));
        assert_eq!(of("c"), BTreeMap::new(), "another shard");
        assert_eq!(holders.behind, [(name("a"), key("w"), 2), (name("c"), key("t"), 9)]);
    }
}
