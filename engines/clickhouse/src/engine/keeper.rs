//! Users, roles, quotas, policies and profiles in Keeper, where servers share them.
//!
//! Source: `ReplicatedAccessStorage.cpp`. Below the path of the configuration, `uuid/<uuid>` has the statements that attach one of them, which are
//! those of a file of the folder `access`; the folders `P`, `Q`, `R`, `S` and `U` lead from names to these, and say nothing more.

use bytes::Bytes;
use serde::Deserialize;

use crate::client::Client;
use crate::ddl::quote;
use crate::error::Result;

/// What is stored below `path`, by its UUID. None when that is no place of users.
///
/// # Errors
/// Those of the server and of the connection: it must be connected with Keeper and let its user read `system.zookeeper`.
pub(super) async fn entities(client: &Client, path: &str) -> Result<Option<Vec<(String, Bytes)>>> {
    let path = path.trim_end_matches('/');
    // A path that is not there has no nodes, or is an error, as the version will.
    if !nodes(client, path).await?.iter().any(|node| node.name == "uuid") {
        return Ok(None);
    }
    let nodes = nodes(client, &format!("{path}/uuid")).await?;
    let entities = nodes.into_iter().filter(|node| is_uuid(&node.name) && !node.value.is_empty());
    Ok(Some(entities.map(|node| (node.name, Bytes::from(node.value))).collect()))
}

#[derive(Deserialize)]
struct Node {
    name: String,
    value: String,
}

async fn nodes(client: &Client, path: &str) -> Result<Vec<Node>> {
    let path = if path.is_empty() { "/" } else { path };
    let sql = format!("SELECT name, value FROM system.zookeeper WHERE path = {} ORDER BY name", quote::string(path));
    client.rows("its users in keeper", &sql).await
}

/// The names become names of files.
fn is_uuid(name: &str) -> bool {
    let dashes = [8, 13, 18, 23];
    name.len() == 36
        && name.bytes().enumerate().all(
            |(at, byte)| {
                if dashes.contains(&at) { byte == b'-' } else { byte.is_ascii_hexdigit() }
            },
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_uuids() {
        assert!(is_uuid("0b5a1c6e-2d0c-4c39-8f56-8d7f4c2f1a55"));
        for bad in [
            "",
            "../../../../../../../../../etc/passwd",
            "0b5a1c6e-2d0c-4c39-8f56-8d7f4c2f1a5",
            "0b5a1c6e_2d0c-4c39-8f56-8d7f4c2f1a55",
        ] {
            assert!(!is_uuid(bad), "{bad}");
        }
    }
}
