//! What servers say themselves of the cluster that they are said to make.

use std::collections::BTreeSet;

use backup_core::{Error, Result};
use serde::Deserialize;

use crate::client::Client;

/// A place that a server knows in a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Place {
    cluster: String,
    shard: u32,
    replica: u32,
    is_local: u8,
}

/// All places in all clusters that the server knows.
///
/// # Errors
/// Those of the server and of the connection.
pub(super) async fn ask(client: &Client) -> crate::Result<Vec<Place>> {
    let sql =
        "SELECT cluster, toUInt32(shard_num) AS shard, toUInt32(replica_num) AS replica, toUInt8(is_local) AS is_local
               FROM system.clusters";
    client.rows("its clusters", sql).await
}

/// A server, with the numbers that it was given and the places that it knows.
#[derive(Debug)]
pub(super) struct Said<'a> {
    pub(super) address: String,
    pub(super) numbers: (u32, u32),
    pub(super) places: &'a [Place],
}

/// Compares what was given with what the servers say of the cluster `name`. Those that do not know it say nothing, but one has to.
///
/// # Errors
/// [`InvalidInput`](backup_core::ErrorKind::InvalidInput) when nobody knows it, when one says that it has other shards and replicas, or that
/// it is itself another one of them.
pub(super) fn compare(name: &str, servers: &[Said<'_>]) -> Result<()> {
    let given: BTreeSet<_> = servers.iter().map(|server| server.numbers).collect();
    let mut known = false;
    for Said { address, numbers, places } in servers {
        let own: Vec<_> = places.iter().filter(|place| place.cluster == name).collect();
        if own.is_empty() {
            continue;
        }
        known = true;
        let said: BTreeSet<_> = own.iter().map(|place| (place.shard, place.replica)).collect();
        if said != given {
            let text =
                format!("{address} says that {name} consists of {}, and given are {}", list(&said), list(&given));
            return Err(Error::invalid(text));
        }
        // By whatever address it reaches itself: behind a proxy it may not know that it is meant.
        let here: BTreeSet<_> =
            own.iter().filter(|place| place.is_local != 0).map(|place| (place.shard, place.replica)).collect();
        if !here.is_empty() && !here.contains(numbers) {
            let (shard, replica) = numbers;
            let text =
                format!("{address} is given as {shard}/{replica}, and says that it is {} of {name}", list(&here));
            return Err(Error::invalid(text));
        }
    }
    if known {
        return Ok(());
    }
    let names: BTreeSet<_> =
        servers.iter().flat_map(|server| server.places).map(|place| place.cluster.as_str()).collect();
    let names: Vec<_> = names.into_iter().collect();
    let others = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    Err(Error::invalid(format!("no server knows a cluster called {name}; what they know: {others}")))
}

fn list(places: &BTreeSet<(u32, u32)>) -> String {
    places.iter().map(|(shard, replica)| format!("{shard}/{replica}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(cluster: &str, shard: u32, replica: u32, is_local: u8) -> Place {
        Place { cluster: cluster.to_owned(), shard, replica, is_local }
    }

    fn told(servers: &[((u32, u32), &[Place])]) -> Result<(), String> {
        let said = servers.iter().enumerate();
        let said = said.map(|(at, (numbers, places))| Said { address: format!("db{at}"), numbers: *numbers, places });
        compare("shop", &said.collect::<Vec<_>>()).map_err(|error| error.to_string())
    }

    #[test]
    fn both_sides_of_a_difference_are_named() {
        let two = [place("shop", 1, 1, 0), place("shop", 2, 1, 1), place("other", 1, 1, 1)];
        assert_eq!(told(&[((1, 1), &[]), ((2, 1), &two)]), Ok(()), "who does not know it says nothing");
        let swapped = told(&[((2, 1), &[]), ((1, 1), &two)]).unwrap_err();
        assert!(swapped.contains("db1 is given as 1/1, and says that it is 2/1 of shop"), "{swapped}");
        let missing = told(&[((2, 1), &two)]).unwrap_err();
        assert!(missing.contains("shop consists of 1/1, 2/1, and given are 2/1"), "{missing}");
        let more = told(&[((1, 1), &two), ((1, 2), &[]), ((2, 1), &[])]).unwrap_err();
        assert!(more.contains("shop consists of 1/1, 2/1, and given are 1/1, 1/2, 2/1"), "{more}");
        let unknown = told(&[((1, 1), &two[2..])]).unwrap_err();
        assert!(unknown.contains("no server knows a cluster called shop; what they know: other"), "{unknown}");
        assert!(told(&[((1, 1), &[])]).unwrap_err().contains("what they know: none"));
    }

    #[test]
    fn a_server_that_does_not_know_itself_is_believed() {
        let remote = [place("shop", 1, 1, 0), place("shop", 2, 1, 0)];
        assert_eq!(told(&[((1, 1), &remote), ((2, 1), &remote)]), Ok(()));
    }
}
